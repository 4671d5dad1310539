// What a model looks like, layer by layer, for people.

import { compileModel } from '../shared/model.js';
import { formatShape } from '../shared/shape.js';
import { presetSpec, presets } from '../shared/presets.js';
import { resolveSettings } from '../shared/settings.js';

export interface LayerDescription {
  readonly name: string;
  readonly type: string;
  readonly output: string;
  readonly parameters: number;
  /** How the parameters are counted: kernel, then bias. */
  readonly arithmetic: string;
}

export interface ModelDescription {
  readonly model: string;
  readonly about: string;
  readonly input: string;
  readonly layers: readonly LayerDescription[];
  readonly parameters: number;
}

/**
 * A preset for images of 28 x 28 pixels and 10 classes.
 * @throws LOCKSTEP_BAD_SETTING if there is no preset of that name
 */
export function describeModel(name: string): ModelDescription {
  resolveSettings({ model: name });
  const input = { height: 28, width: 28, channels: 1 };
  const model = compileModel(presetSpec(name, 10), input, 10);
  return {
    model: name,
    about: presets[name].about,
    input: formatShape(input),
    layers: model.layers.map(({ name: layerName, spec, output, parameters }) => ({
      name: layerName,
      type: spec.type === 'dropout' ? `dropout ${spec.rate}` : spec.type,
      output: formatShape(output),
      parameters: parameters ? parameters.kernel.size + parameters.bias.size : 0,
      arithmetic: parameters ? `${parameters.kernel.shape.join(' x ')} + ${parameters.bias.size}` : '',
    })),
    parameters: model.parameterCount,
  };
}

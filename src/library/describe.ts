// What a model looks like, layer by layer, for people.

import { loadData } from '../coordinator/data.js';
import { mnistClasses, mnistShape } from '../coordinator/mnist.js';
import { loadModelSpec } from '../coordinator/model-file.js';
import { compileModel, layersModelOf, type LayerSpec, type Model } from '../shared/model.js';
import { ownerOf, readTopology, type LayersModelSpec } from '../shared/layers-model.js';
import { isModelFile, presetNamed } from '../shared/presets.js';
import { resolveSettings, type TrainSettings } from '../shared/settings.js';
import { formatShape, type Shape } from '../shared/shape.js';

export interface LayerDescription {
  readonly name: string;
  readonly type: string;
  /** Empty where it is not known. */
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
 * A preset, or the model of a file whose path ends with .json, for the images of MNIST or of the folder `data`.
 * @throws LOCKSTEP_BAD_SETTING, LOCKSTEP_MODEL_FILE, LOCKSTEP_MODEL_SHAPE, LOCKSTEP_MODEL_LAYER; what `train` throws for bad data
 */
export function describeModel(name: string, data?: string, labelOffset = 0): ModelDescription {
  const settings = resolveSettings({ model: name, ...(data !== undefined && { data }), labelOffset });
  const { shape: input, classes } = inputOf(settings);
  const model = compileModel(loadModelSpec(name, classes), input, classes);
  const layersModel = layersModelOf(model.spec);
  return {
    model: model.spec.name,
    about: isModelFile(name) ? name : presetNamed(name).about,
    input: formatShape(input),
    layers: layersModel ? describeLayersModel(model, layersModel) : describeLayers(model),
    parameters: model.parameterCount,
  };
}

export function describeLayers({ layers }: Model): LayerDescription[] {
  return layers.map(({ name, spec, output, parameters }) => ({
    name,
    type: describeType(spec),
    output: formatShape(output),
    parameters: parameters ? parameters.kernel.size + parameters.bias.size : 0,
    arithmetic: parameters ? `${parameters.kernel.shape.join(' x ')} + ${parameters.bias.size}` : '',
  }));
}

/** Layers of tf.layers, whose outputs only TensorFlow.js knows, but for the last. */
function describeLayersModel(model: Model, spec: LayersModelSpec): LayerDescription[] {
  const layers = readTopology(model.spec.name, spec);
  return layers.map((layer, index) => {
    const own = model.tensors.filter(({ name }) => ownerOf(name, layers) === layer);
    return {
      name: layer.config.name,
      type: layer.class_name,
      output: index === layers.length - 1 ? String(model.classes) : '',
      parameters: own.reduce((sum, { size }) => sum + size, 0),
      arithmetic: own.map(({ shape }) => shape.join(' x ')).join(' + '),
    };
  });
}

/** MNIST's is known without reading it. */
function inputOf({ data, labelOffset }: TrainSettings): { readonly shape: Shape; readonly classes: number } {
  return data === undefined && labelOffset === 0
    ? { shape: mnistShape, classes: mnistClasses }
    : loadData(data, labelOffset);
}

/** The type, with what neither shapes nor counts tell. */
function describeType(spec: LayerSpec): string {
  if (spec.type === 'dropout') return `dropout ${spec.rate}`;
  if (spec.type !== 'conv2d') return spec.type;
  const { stride, padding } = spec;
  return [
    'conv2d',
    ...(stride === undefined ? [] : [`stride ${stride}`]),
    ...(padding === undefined ? [] : [`padding ${padding}`]),
  ].join(', ');
}

// A run's model as a tf.LayersModel: model.json and the bytes of its weights, as TensorFlow.js itself saves a model.
//
// A model of ours becomes tf.layers behind a Rescaling that normalizes bytes. A model that came as a tf.LayersModel goes
// back as it is kept: its layers with the trained weights, and with what the run took off left off.

import { namedTensors } from '../coordinator/checkpoint.js';
import { tensorBytes } from '../coordinator/safetensors.js';
import { inputShapeOf, readTopology, type TopologyLayer } from '../shared/layers-model.js';
import { layersModelOf, type Model } from '../shared/model.js';
import type { Normalization } from '../shared/dataset.js';
import type { Exported, ToExport } from './export.js';
import { readPackage } from './package.js';

const WEIGHTS_FILE = 'weights.bin';

export function encodeLayersModel({ config, model, weights, metadata, softmax }: ToExport): Exported {
  const { name } = model.spec;
  const given = layersModelOf(model.spec);
  const layers = given ? readTopology(name, given) : ownLayers(model, config.normalization);
  const inputShape = inputShapeOf(name, layers, config.dataset.shape);
  // As the run's engine builds it, also where the file left extents open.
  const [first] = layers;
  layers[0] = { ...first, config: { ...first.config, batch_input_shape: [null, ...inputShape] } };
  if (softmax) layers.push({ class_name: 'Softmax', config: { name: unusedName(layers, 'softmax') } });
  const takesBytes = !given || config.normalization.scale === 1;
  const values = takesBytes ? 'bytes from 0 to 255' : 'numbers from 0 to 1 (byte / 255)';
  const input = `${values} as float32, ${['N', ...inputShape].join(' x ')}`;
  const output = `${softmax ? 'probabilities' : 'logits'}, N x ${model.classes}`;
  const tensors = namedTensors(model, weights);
  const weightSpecs = tensors.map(tensor => ({
    // Names of ours have a dot where those of tf.layers have a slash.
    name: given ? tensor.name : tensor.name.replace('.', '/'),
    shape: tensor.shape,
    dtype: 'float32',
  }));
  const json = {
    format: 'layers-model',
    generatedBy: `Lockstep ${readPackage().version}`,
    convertedBy: null,
    userDefinedMetadata: { ...metadata, input, output },
    modelTopology: { class_name: 'Sequential', config: { name, layers } },
    weightsManifest: [{ paths: [WEIGHTS_FILE], weights: weightSpecs }],
  };
  return {
    // What names the weights comes last.
    files: [
      [WEIGHTS_FILE, Buffer.concat(tensors.map(({ values: content }) => tensorBytes(content)))],
      ['model.json', Buffer.from(`${JSON.stringify(json, null, 2)}\n`)],
    ],
    input,
    output,
  };
}

/** Where our layers take a vector for 1 x 1 positions, or the reverse, tf.layers need a layer that says so. */
function ownLayers({ layers, input }: Model, { scale, shift }: Normalization): TopologyLayer[] {
  const made: TopologyLayer[] = [];
  let isFlat = false;
  const add = (class_name: string, name: string, config: object = {}): void => {
    made.push({ class_name, config: { name, ...config } });
  };
  const toFlat = (name: string): void => {
    if (!isFlat) add('Flatten', name);
    isFlat = true;
  };
  const toPositions = (name: string, channels: number): void => {
    if (isFlat) add('Reshape', name, { target_shape: [1, 1, channels] });
    isFlat = false;
  };
  add('Rescaling', 'normalization', {
    batch_input_shape: [null, input.height, input.width, input.channels],
    scale,
    offset: -shift,
  });
  for (const { name, spec, input: taken } of layers) {
    switch (spec.type) {
      case 'conv2d': {
        const { filters, kernelSize, stride = 1, padding = 'valid' } = spec;
        toPositions(`${name}_reshape`, taken.channels);
        // Zeros around the input, which is normalized by then, or comes from another layer.
        const sides = [padding, padding];
        if (typeof padding === 'number') add('ZeroPadding2D', `${name}_padding`, { padding: [sides, sides] });
        add('Conv2D', name, {
          filters,
          kernel_size: [kernelSize, kernelSize],
          strides: [stride, stride],
          padding: typeof padding === 'number' ? 'valid' : padding,
        });
        break;
      }
      case 'maxPool2d':
      case 'avgPool2d': {
        const window = [spec.poolSize, spec.poolSize];
        toPositions(`${name}_reshape`, taken.channels);
        add(spec.type === 'maxPool2d' ? 'MaxPooling2D' : 'AveragePooling2D', name, {
          pool_size: window,
          strides: window,
          padding: 'valid',
        });
        break;
      }
      case 'dense':
        toFlat(`${name}_flatten`);
        add('Dense', name, { units: spec.units });
        break;
      case 'relu':
        add('ReLU', name);
        break;
      case 'flatten':
        toFlat(name);
        break;
      case 'dropout':
        add('Dropout', name, { rate: spec.rate });
        break;
      case 'layersModel':
        throw new Error('a model of tf.layers is no layer among others');
    }
  }
  toFlat('flatten_end');
  return made;
}

function unusedName(layers: readonly TopologyLayer[], name: string): string {
  const isUsed = layers.some(({ config }) => config.name === name);
  return isUsed ? unusedName(layers, `${name}_`) : name;
}

// Files of tf.LayersModel without TensorFlow: as Keras' converter writes them, and with whatever is to be wrong.

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';

export interface LayerJson {
  readonly class_name: string;
  readonly config: Readonly<Record<string, unknown>>;
}

export interface WeightJson {
  readonly name: string;
  readonly shape: readonly number[];
  readonly dtype?: string;
  readonly quantization?: object;
  readonly group?: string;
}

export interface ModelFiles {
  readonly layers: readonly LayerJson[];
  readonly weights: readonly WeightJson[];
  /** Whether the topology stands in what Keras puts around it. */
  readonly isOfKeras?: boolean;
  /** The bytes behind model.json; by default 0.01, 0.02, ... in f32, in two files. */
  readonly bytes?: Uint8Array;
  /** Keys of model.json to be replaced. */
  readonly more?: Readonly<Record<string, unknown>>;
}

/** A layer as TensorFlow.js writes it, but for its initializers. */
export function layer(class_name: string, name: string, config: object = {}): LayerJson {
  return { class_name, config: { name, trainable: true, ...config } };
}

/** As many parameters as the shapes have: 0.01, 0.02, and so on. */
export function countingWeights(weights: readonly WeightJson[]): Float32Array {
  const length = weights.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);
  return Float32Array.from({ length }, (_, i) => (i + 1) / 100);
}

/** Writes the files into a folder of the given name, which goes when the test ends. Gives the path of model.json. */
export function writeModelFiles(t: TestContext, files: ModelFiles, folder = 'my-cnn'): string {
  const dir = join(temporaryFolder(t), folder);
  mkdirSync(dir);
  const bytes = files.bytes ?? new Uint8Array(countingWeights(files.weights).buffer);
  const half = bytes.length >> 1;
  writeFileSync(join(dir, 'group1-shard1of2.bin'), bytes.subarray(0, half));
  writeFileSync(join(dir, 'group1-shard2of2.bin'), bytes.subarray(half));
  const model = { class_name: 'Sequential', config: { name: 'sequential', layers: files.layers } };
  const json = {
    format: 'layers-model',
    generatedBy: 'keras v2.15.0',
    convertedBy: 'TensorFlow.js Converter v4.22.0',
    modelTopology: files.isOfKeras
      ? { keras_version: '2.15.0', backend: 'tensorflow', model_config: model }
      : model,
    weightsManifest: [
      {
        paths: ['group1-shard1of2.bin', 'group1-shard2of2.bin'],
        weights: files.weights.map(weight => ({ dtype: 'float32', ...weight })),
      },
    ],
    ...files.more,
  };
  const path = join(dir, 'model.json');
  writeFileSync(path, JSON.stringify(json));
  return path;
}

export function temporaryFolder(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), 'lockstep-layers-'));
  t.after(() => rmSync(dir, { recursive: true }));
  return dir;
}

const nothingElse = {
  dtype: 'float32',
  kernel_initializer: { class_name: 'GlorotUniform', config: { seed: null } },
  bias_initializer: { class_name: 'Zeros', config: {} },
  kernel_regularizer: null,
  bias_regularizer: null,
  activity_regularizer: null,
  kernel_constraint: null,
  bias_constraint: null,
};
const convolution = {
  ...nothingElse,
  strides: [1, 1],
  data_format: 'channels_last',
  dilation_rate: [1, 1],
  groups: 1,
  use_bias: true,
};

/** A network as Keras writes it: an input layer, names of its own, its weights in no order. */
export const kerasCnn: ModelFiles = {
  isOfKeras: true,
  layers: [
    {
      class_name: 'InputLayer',
      config: {
        batch_input_shape: [null, 28, 28, 1],
        dtype: 'float32',
        sparse: false,
        ragged: false,
        name: 'pixels',
      },
    },
    layer('Conv2D', 'look', {
      ...convolution,
      batch_input_shape: [null, 28, 28, 1],
      filters: 4,
      kernel_size: [3, 3],
      padding: 'same',
      activation: 'relu',
    }),
    layer('AveragePooling2D', 'shrink', {
      dtype: 'float32',
      pool_size: [2, 2],
      padding: 'valid',
      strides: [2, 2],
      data_format: 'channels_last',
    }),
    layer('Conv2D', 'conv2d_7', {
      ...convolution,
      filters: 3,
      kernel_size: [5, 3],
      strides: [2, 2],
      padding: 'valid',
      activation: 'tanh',
    }),
    layer('Dropout', 'forget', { dtype: 'float32', rate: 0.25, noise_shape: null, seed: null }),
    layer('Flatten', 'row', { dtype: 'float32', data_format: 'channels_last' }),
    layer('Dense', 'scores', { ...nothingElse, units: 10, activation: 'softmax', use_bias: true }),
  ],
  weights: [
    { name: 'sequential/scores/bias', shape: [10] },
    { name: 'sequential/scores/kernel', shape: [90, 10] },
    { name: 'conv2d_7/kernel', shape: [5, 3, 4, 3] },
    { name: 'look/bias', shape: [4] },
    { name: 'look/kernel', shape: [3, 3, 1, 4] },
    { name: 'conv2d_7/bias', shape: [3] },
  ],
};

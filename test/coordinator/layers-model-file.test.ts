// Files of tf.LayersModel, read without TensorFlow: what a model becomes, what is refused and how, the weights that it
// brings, and a run that begins with them.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync, rmSync, truncateSync, unlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { initialWeightsFile } from '#dist/coordinator/checkpoint.js';
import { loadModel, readModelFile } from '#dist/coordinator/model-file.js';
import { RunFolder } from '#dist/coordinator/run-folder.js';
import { readRunConfig, runConfig } from '#dist/coordinator/stored-run.js';
import { initialWeightsIn } from '#dist/coordinator/stored-weights.js';
import { describeModel } from '#dist/library/index.js';
import { decode, encode } from '#dist/shared/codec.js';
import { createDataset, type Dataset } from '#dist/shared/dataset.js';
import { initialWeights } from '#dist/shared/initial-weights.js';
import { trainedClasses } from '#dist/shared/layers-model.js';
import { compileModel, type ModelSpec } from '#dist/shared/model.js';
import { initialState } from '#dist/shared/node.js';
import { presetSpec } from '#dist/shared/presets.js';
import { checkResume } from '#dist/shared/resume.js';
import { createJob, jobHash, resolveSettings, resumedSettings, type Job } from '#dist/shared/settings.js';
import { readJob } from '#dist/worker/agent-job.js';
import { wasmScratchBytes } from '#dist/worker/engines/wasm.js';
import {
  countingWeights,
  kerasCnn,
  layer,
  temporaryFolder,
  writeModelFiles,
  type LayerJson,
  type ModelFiles,
} from '../support/layers-model.js';
import { messagesToAgent } from '../support/messages.js';

const images = { height: 28, width: 28, channels: 1 };

/** As `train` does: everything that can be refused without TensorFlow. */
function compileFile(path: string) {
  const { spec, readWeights } = readModelFile(path);
  const model = compileModel(spec, images, 10);
  return { model, weights: readWeights!() };
}

function topologyOf({ layers: [only] }: ModelSpec): LayerJson[] {
  assert.ok(only.type === 'layersModel');
  const layers: LayerJson[] = JSON.parse(only.topology);
  return layers;
}

test('a file of Keras becomes one layer: names, sizes and activations, the softmax taken off', t => {
  const path = writeModelFiles(t, kerasCnn);
  const { spec } = readModelFile(path);
  assert.equal(spec.name, 'my-cnn');
  const convolution = { data_format: 'channels_last', use_bias: true };
  assert.deepEqual(topologyOf(spec), [
    {
      class_name: 'Conv2D',
      config: {
        ...convolution,
        name: 'look',
        batch_input_shape: [null, 28, 28, 1],
        filters: 4,
        kernel_size: [3, 3],
        strides: [1, 1],
        padding: 'same',
        activation: 'relu',
      },
    },
    {
      class_name: 'AveragePooling2D',
      config: {
        name: 'shrink',
        pool_size: [2, 2],
        padding: 'valid',
        strides: [2, 2],
        data_format: 'channels_last',
      },
    },
    {
      class_name: 'Conv2D',
      config: {
        ...convolution,
        name: 'conv2d_7',
        filters: 3,
        kernel_size: [5, 3],
        strides: [2, 2],
        padding: 'valid',
        activation: 'tanh',
      },
    },
    { class_name: 'Dropout', config: { name: 'forget', rate: 0.25 } },
    { class_name: 'Flatten', config: { name: 'row', data_format: 'channels_last' } },
    { class_name: 'Dense', config: { name: 'scores', units: 10, use_bias: true } },
  ]);
});

test('what decides nothing changes nothing: containers, initializers, where the softmax and the input stand', t => {
  const flat = [
    layer('Conv2D', 'conv', {
      batch_input_shape: [null, 28, 28, 1],
      filters: 3,
      kernel_size: [5, 5],
      activation: 'relu',
    }),
    layer('GlobalAveragePooling2D', 'mean'),
  ];
  const weights = [
    { name: 'conv/kernel', shape: [5, 5, 1, 3] },
    { name: 'conv/bias', shape: [3] },
    { name: 'scores/kernel', shape: [3, 10] },
    { name: 'scores/bias', shape: [10] },
  ];
  const plain = { layers: [...flat, layer('Dense', 'scores', { units: 10 })], weights };
  const [conv, mean] = flat;
  const { batch_input_shape: _, ...inner } = conv.config;
  const same: Record<string, ModelFiles> = {
    'softmax in the last layer': {
      layers: [...flat, layer('Dense', 'scores', { units: 10, activation: 'softmax' })],
      weights,
    },
    'softmax as an activation, and one that is none': {
      layers: [
        ...flat,
        layer('Dense', 'scores', { units: 10, activation: 'linear' }),
        layer('Activation', 'a', { activation: 'softmax' }),
        layer('Activation', 'b', { activation: 'linear' }),
      ],
      weights,
    },
    'softmax as a layer, and all that Keras 3 says': {
      isOfKeras: true,
      layers: [
        {
          class_name: 'InputLayer',
          config: { batch_shape: [64, 28, 28, 1], name: 'input', dtype: 'float32' },
        },
        {
          class_name: 'Conv2D',
          config: {
            ...inner,
            dtype: { module: 'keras', class_name: 'DTypePolicy', config: { name: 'float32' } },
            kernel_initializer: { class_name: 'Orthogonal', config: { gain: 3 } },
            kernel_regularizer: null,
            groups: 1,
            dilation_rate: [1, 1],
          },
        },
        mean,
        layer('Dense', 'scores', { units: 10 }),
        layer('Softmax', 'chances', { axis: -1 }),
      ],
      weights: weights.map(({ name, shape }) => ({ name: `sequential_3/${name}`, shape })),
    },
    'the state of an optimizer behind the weights': {
      ...plain,
      weights: [
        { name: 'iter', shape: [], dtype: 'int32', group: 'optimizer' },
        ...weights,
        { name: 'conv/kernel/m', shape: [5, 5, 1, 3], group: 'optimizer' },
      ],
    },
    'an old file, whose config is the list of layers': {
      ...plain,
      more: { modelTopology: { class_name: 'Sequential', config: plain.layers } },
    },
  };
  const expected = readModelFile(writeModelFiles(t, plain)).spec;
  for (const [what, files] of Object.entries(same)) {
    const { spec, readWeights } = readModelFile(writeModelFiles(t, files));
    assert.deepEqual(spec, expected, what);
    assert.equal(readWeights!().length, compileModel(spec, images, 10).parameterCount, what);
  }
});

test('weights are those of the files, in the order of the tensors, without those of an optimizer', t => {
  const { weights } = compileFile(writeModelFiles(t, kerasCnn));
  assert.deepEqual(weights, countingWeights(kerasCnn.weights));
  const withState = [{ name: 'iter', shape: [], dtype: 'int32', group: 'optimizer' }, ...kerasCnn.weights];
  const { weights: behind } = compileFile(writeModelFiles(t, { ...kerasCnn, weights: withState }));
  assert.deepEqual(behind, countingWeights(withState).subarray(1));
});

test('initial weights of the seed follow the rule of other models, whatever the order of the tensors', t => {
  const { spec } = readModelFile(writeModelFiles(t, kerasCnn));
  const model = compileModel(spec, images, 10);
  const fanIns = model.tensors.map(({ name, fanIn }) => [name, fanIn]);
  assert.deepEqual(Object.fromEntries(fanIns), {
    'scores/bias': 90,
    'scores/kernel': 90,
    'conv2d_7/kernel': 60,
    'look/bias': 9,
    'look/kernel': 9,
    'conv2d_7/bias': 60,
  });
  const weights = initialWeights(model, 9);
  for (const { name, offset, size, fanIn } of model.tensors) {
    const values = weights.subarray(offset, offset + size);
    const bound = 1 / Math.sqrt(fanIn);
    assert.ok(values.every(value => Math.abs(value) <= bound) && new Set(values).size > size / 2, name);
  }
});

test('factors of a normalization begin with 1, its and other offsets with 0; depthwise kernels see one channel', t => {
  const input = { batch_input_shape: [null, 28, 28, 1] };
  const { spec } = readModelFile(
    writeModelFiles(t, {
      layers: [
        layer('SeparableConv2D', 'separable', {
          ...input,
          filters: 4,
          kernel_size: [3, 2],
          depth_multiplier: 5,
        }),
        layer('LayerNormalization', 'normal', { axis: [-1] }),
        layer('PReLU', 'learnt'),
        layer('GlobalMaxPooling2D', 'most'),
        layer('Dense', 'scores', { units: 10, use_bias: false }),
      ],
      weights: [
        { name: 'separable/depthwise_kernel', shape: [3, 2, 1, 5] },
        { name: 'separable/pointwise_kernel', shape: [1, 1, 5, 4] },
        { name: 'separable/bias', shape: [4] },
        { name: 'normal/gamma', shape: [4] },
        { name: 'normal/beta', shape: [4] },
        { name: 'learnt/alpha', shape: [26, 27, 4] },
        { name: 'scores/kernel', shape: [4, 10] },
      ],
    }),
  );
  const model = compileModel(spec, images, 10);
  const [depthwise, pointwise, bias, gamma, beta, alpha] = model.tensors;
  assert.deepEqual(
    [depthwise, pointwise, bias].map(({ fanIn }) => fanIn),
    [6, 5, 5],
  );
  const weights = initialWeights(model, 1);
  for (const [{ offset, size }, value] of [
    [gamma, 1],
    [beta, 0],
    [alpha, 0],
  ] as const) {
    assert.ok(weights.subarray(offset, offset + size).every(weight => weight === value));
  }
});

function rescaling(scale: number): LayerJson {
  return layer('Rescaling', 'rescaling', { scale, offset: 0 });
}

test('pixels are from 0 to 1, or the bytes that a Rescaling takes before anything else is computed', t => {
  const input = { batch_input_shape: [null, 28, 28, 1] };
  const of = (...layers: LayerJson[]): unknown => {
    const { spec } = readModelFile(
      writeModelFiles(t, {
        layers: [layer('Reshape', 'same', input), ...layers, scores],
        weights: scoresWeights,
      }),
    );
    return compileModel(spec, images, 10).normalization;
  };
  const unit = { scale: Math.fround(1 / 255), shift: 0 };
  const bytes = { scale: 1, shift: 0 };
  assert.deepEqual(of(), unit);
  assert.deepEqual(of(rescaling(2)), unit);
  assert.deepEqual(of(rescaling(1 / 255)), bytes);
  assert.deepEqual(of(layer('Flatten', 'flat'), rescaling(1 / 127.5)), bytes);
  assert.deepEqual(of(layer('Dense', 'early', { units: 10 }), rescaling(1 / 255)), unit);
  assert.equal(compileModel(presetSpec('mlp', 10), images, 10).normalization, undefined);
});

const first = { batch_input_shape: [null, 28, 28, 1] };
const row = layer('Flatten', 'row', first);
const scores = layer('Dense', 'scores', { units: 10, activation: 'softmax' });
const scoresWeights = [
  { name: 'scores/kernel', shape: [784, 10], dtype: 'float32' },
  { name: 'scores/bias', shape: [10], dtype: 'float32' },
];

test('images may come in rows, as rows, or of any size', t => {
  for (const shape of [[28, 28, 1], [28, 28], [784], [null, null, 1], [null, 28]]) {
    const dense = { ...scores, config: { ...scores.config, batch_input_shape: [null, ...shape] } };
    const { spec } = readModelFile(writeModelFiles(t, { layers: [dense], weights: scoresWeights }));
    assert.equal(compileModel(spec, images, 10).parameterCount, 7850);
  }
});

/** Layers between the images and the scores. */
const between = (...layers: LayerJson[]): ModelFiles => ({
  layers: [row, ...layers, scores],
  weights: scoresWeights,
});
const only = (layers: LayerJson[], more: Partial<ModelFiles> = {}): ModelFiles => ({
  layers,
  weights: scoresWeights,
  ...more,
});
const plain = only([row, scores]);
const normalization = layer('BatchNormalization', 'batch_normalization_4', { axis: [3], momentum: 0.99 });

const refused: Record<string, { files: ModelFiles; code: string; message: RegExp }> = {
  'batch normalization': {
    files: {
      layers: [...kerasCnn.layers.slice(0, 2), normalization, ...kerasCnn.layers.slice(2)],
      weights: [
        ...kerasCnn.weights,
        ...['gamma', 'beta', 'moving_mean', 'moving_variance'].map(name => ({
          name: `batch_normalization_4/${name}`,
          shape: [4],
        })),
      ],
    },
    code: 'LOCKSTEP_MODEL_LAYER',
    message:
      /^Model my-cnn cannot be trained: its layer batch_normalization_4 \(BatchNormalization\) is refused, since it keeps running statistics/,
  },
  ...Object.fromEntries(
    ['GaussianNoise', 'GaussianDropout', 'AlphaDropout', 'SpatialDropout1D', 'SpatialDropout2D'].map(name => [
      name,
      {
        files: between(layer(name, 'noise', { rate: 0.1 })),
        code: 'LOCKSTEP_MODEL_LAYER',
        message: new RegExp(`noise \\(${name}\\) is refused, since it draws random numbers of its own`),
      },
    ]),
  ),
  'a model within the model': {
    files: between(layer('Sequential', 'inner', { layers: [] })),
    code: 'LOCKSTEP_MODEL_LAYER',
    message: /inner \(Sequential\) is refused, since it is a model within the model/,
  },
  'a class that nobody knows': {
    files: between(layer('MyAttention', 'mine')),
    code: 'LOCKSTEP_MODEL_LAYER',
    message: /mine \(MyAttention\) is refused, since its class is none that Lockstep knows/,
  },
  'a class named as what objects inherit': {
    files: between(layer('constructor', 'mine')),
    code: 'LOCKSTEP_MODEL_LAYER',
    message: /mine \(constructor\) is refused, since its class is none that Lockstep knows/,
  },
  'a frozen layer': {
    files: only([row, layer('Dense', 'scores', { units: 10, trainable: false })]),
    code: 'LOCKSTEP_MODEL_LAYER',
    message: /scores \(Dense\) is refused, since it is frozen/,
  },
  'a regularizer': {
    files: only([
      row,
      layer('Dense', 'scores', { units: 10, kernel_regularizer: { class_name: 'L1L2', config: {} } }),
    ]),
    code: 'LOCKSTEP_MODEL_LAYER',
    message: /scores \(Dense\) .* kernel_regularizer, .*--weight-decay/,
  },
  'a constraint': {
    files: only([
      row,
      layer('Dense', 'scores', { units: 10, bias_constraint: { class_name: 'NonNeg', config: {} } }),
    ]),
    code: 'LOCKSTEP_MODEL_LAYER',
    message: /scores \(Dense\) .* bias_constraint, which no gradient keeps/,
  },
  'half precision': {
    files: only([row, layer('Dense', 'scores', { units: 10, dtype: 'mixed_float16' })]),
    code: 'LOCKSTEP_MODEL_LAYER',
    message: /scores \(Dense\) .* dtype is "mixed_float16" and not float32/,
  },
  'a stateful layer': {
    files: between(layer('LSTM', 'lstm', { units: 3, stateful: true })),
    code: 'LOCKSTEP_MODEL_LAYER',
    message: /lstm \(LSTM\) .* stateful/,
  },
  'a recurrent layer that drops': {
    files: between(layer('GRU', 'gru', { units: 3, recurrent_dropout: 0.2 })),
    code: 'LOCKSTEP_MODEL_LAYER',
    message: /gru \(GRU\) .* its dropout draws random numbers/,
  },
  'a layer inside another that is refused': {
    files: between(layer('TimeDistributed', 'each', { layer: layer('GaussianNoise', 'noise') })),
    code: 'LOCKSTEP_MODEL_LAYER',
    message: /each \(TimeDistributed\) .* noise \(GaussianNoise\) inside it .* random numbers/,
  },
  'a dilated convolution': {
    files: between(layer('Conv2D', 'wide', { filters: 2, kernel_size: [3, 3], dilation_rate: [2, 2] })),
    code: 'LOCKSTEP_MODEL_LAYER',
    message: /wide \(Conv2D\) .* dilation_rate/,
  },
  'a slope that TensorFlow.js passes over': {
    files: between(layer('ReLU', 'leaking', { max_value: null, negative_slope: 0.1, threshold: 0 })),
    code: 'LOCKSTEP_MODEL_LAYER',
    message: /leaking \(ReLU\) .* negative_slope, which TensorFlow\.js does not know/,
  },
  'a GRU as Keras has it by default': {
    files: between(layer('GRU', 'gru', { units: 3, time_major: false, reset_after: true })),
    code: 'LOCKSTEP_MODEL_LAYER',
    message: /gru \(GRU\) .* reset_after, which TensorFlow\.js does not know/,
  },
  'a dropout of everything': {
    files: between(layer('Dropout', 'all', { rate: 1 })),
    code: 'LOCKSTEP_MODEL_LAYER',
    message: /all \(Dropout\) .* rate/,
  },
  'two layers of one name': {
    files: between(layer('Dropout', 'row', { rate: 0.1 })),
    code: 'LOCKSTEP_MODEL_LAYER',
    message: /row \(Dropout\) .* another layer has its name/,
  },
  'a sigmoid at the end': {
    files: only([row, layer('Dense', 'scores', { units: 10, activation: 'sigmoid' })]),
    code: 'LOCKSTEP_MODEL_LAYER',
    message: /scores \(Dense\) .* activation "sigmoid": a classifier ends with one softmax/,
  },
  'a second softmax': {
    files: only([row, scores, layer('Softmax', 'again')]),
    code: 'LOCKSTEP_MODEL_LAYER',
    message: /scores \(Dense\) .* activation "softmax": a classifier ends with one softmax/,
  },
  'a ReLU at the end': {
    files: only([row, scores, layer('ReLU', 'positive')]),
    code: 'LOCKSTEP_MODEL_LAYER',
    message: /positive \(ReLU\) .* activation "ReLU"/,
  },
  'nothing but a softmax': {
    files: only([layer('Softmax', 'alone', first)]),
    code: 'LOCKSTEP_MODEL_LAYER',
    message: /it has no layers/,
  },
  'a weight of no layer': {
    files: { ...plain, weights: [...scoresWeights, { name: 'other/kernel', shape: [2, 2] }] },
    code: 'LOCKSTEP_MODEL_LAYER',
    message: /its weight other\/kernel belongs to no layer/,
  },
  'a weight twice': {
    files: { ...plain, weights: [...scoresWeights, { name: 'scores/bias', shape: [10] }] },
    code: 'LOCKSTEP_MODEL_LAYER',
    message: /it has two weights scores\/bias/,
  },
  'images of another size': {
    files: only([layer('Flatten', 'row', { batch_input_shape: [null, 32, 32, 3] }), scores]),
    code: 'LOCKSTEP_MODEL_SHAPE',
    message:
      /^Model my-cnn takes 32 x 32 x 3 at its layer row \(Flatten\), and the dataset's images are 28 x 28 x 1\.$/,
  },
  'no input at all': {
    files: only([layer('Flatten', 'row'), scores]),
    code: 'LOCKSTEP_MODEL_SHAPE',
    message: /^Model my-cnn takes images of no given size/,
  },
  'other classes': {
    files: only([row, layer('Dense', 'scores', { units: 7 }), layer('Dropout', 'late', { rate: 0 })]),
    code: 'LOCKSTEP_MODEL_SHAPE',
    message: /^Model my-cnn ends with 7 outputs, and the dataset has 10 classes\.$/,
  },
  'a softmax that something follows': {
    files: only([
      row,
      layer('Dense', 'scores', { units: 10, activation: 'softmax' }),
      layer('Dropout', 'late', { rate: 0 }),
    ]),
    code: 'LOCKSTEP_MODEL_LAYER',
    message: /its layer scores \(Dense\) is refused, since it ends the model with the activation "softmax"/,
  },
  'a functional model': {
    files: { ...plain, more: { modelTopology: { class_name: 'Functional', config: { layers: [] } } } },
    code: 'LOCKSTEP_MODEL_FILE',
    message: /model\.json: its model is of class "Functional", and only sequential models can be trained/,
  },
  'a graph model': {
    files: { ...plain, more: { format: 'graph-model', modelTopology: { node: [] } } },
    code: 'LOCKSTEP_MODEL_FILE',
    message: /model\.json: it is a graph model.* tfjs_layers_model/,
  },
  'no topology': {
    files: { ...plain, more: { modelTopology: undefined } },
    code: 'LOCKSTEP_MODEL_FILE',
    message: /modelTopology is missing/,
  },
  'a layer without a name': {
    files: only([row, { class_name: 'Dense', config: { units: 10 } }]),
    code: 'LOCKSTEP_MODEL_FILE',
    message: /expected layers with class_name, config and a name in it/,
  },
  'a name that writes to the terminal': {
    files: only([row, layer('Dense', 'sco\u001b[31mres', { units: 10 })]),
    code: 'LOCKSTEP_MODEL_FILE',
    message: /layers\.1\.config\.name is "sco\\u001b\[31mres", expected a text of 1 to 200 characters/,
  },
  'no manifest': {
    files: { ...plain, more: { weightsManifest: undefined } },
    code: 'LOCKSTEP_MODEL_FILE',
    message: /weightsManifest is undefined, expected a list of paths and weights/,
  },
  'no weights': {
    files: { ...plain, weights: [] },
    code: 'LOCKSTEP_MODEL_FILE',
    message: /tensors/,
  },
  'weights that are too few bytes': {
    files: { ...plain, bytes: new Uint8Array(4 * 7849) },
    code: 'LOCKSTEP_MODEL_FILE',
    message: /group1-shard1of2\.bin, group1-shard2of2\.bin should have 31400 bytes and have 31396.* --init/,
  },
  'weights that are too many bytes': {
    files: { ...plain, bytes: new Uint8Array(4 * 7851) },
    code: 'LOCKSTEP_MODEL_FILE',
    message: /should have 31400 bytes and have 31404/,
  },
  'a weight that is no number': {
    files: { ...plain, bytes: new Uint8Array(4 * 7850).fill(255) },
    code: 'LOCKSTEP_MODEL_FILE',
    message: /scores\/kernel has values that are no finite numbers/,
  },
  'quantized weights': {
    files: {
      ...plain,
      weights: scoresWeights.map(weight => ({
        ...weight,
        quantization: { dtype: 'uint8', min: 0, scale: 1 },
      })),
    },
    code: 'LOCKSTEP_MODEL_FILE',
    message: /scores\/kernel is quantized: convert the model without quantization.* --init/,
  },
  'integer weights': {
    files: { ...plain, weights: scoresWeights.map(weight => ({ ...weight, dtype: 'int32' })) },
    code: 'LOCKSTEP_MODEL_FILE',
    message: /scores\/kernel is of dtype int32 and not float32/,
  },
  'weights of another folder': {
    files: {
      ...plain,
      more: {
        weightsManifest: [
          { paths: ['../model.json'], weights: [] },
          { paths: [], weights: scoresWeights },
        ],
      },
    },
    code: 'LOCKSTEP_MODEL_FILE',
    message: /\.\.\/model\.json is not in the model's folder/,
  },
};

test('the model that the refused ones are made of is none of them', t => {
  assert.equal(compileFile(writeModelFiles(t, plain)).weights.length, 7850);
});

for (const [what, { files, code, message }] of Object.entries(refused)) {
  test(`refused: ${what}`, t => {
    const path = writeModelFiles(t, files);
    assert.throws(() => compileFile(path), { code, message });
  });
}

test('weights that are not there are missed only where they are used', t => {
  const path = writeModelFiles(t, plain);
  unlinkSync(join(dirname(path), 'group1-shard2of2.bin'));
  const { spec, readWeights } = loadModel(path, 10);
  assert.equal(compileModel(spec, images, 10).parameterCount, 7850);
  assert.throws(readWeights!, { code: 'LOCKSTEP_MODEL_FILE', message: /group1-shard2of2\.bin.*--init/ });
});

test('the table of layers has its own, with their parameters', t => {
  const { layers, parameters, model } = describeModel(writeModelFiles(t, kerasCnn));
  assert.equal(model, 'my-cnn');
  assert.equal(parameters, 1133);
  assert.deepEqual(layers.at(0), {
    name: 'look',
    type: 'Conv2D',
    output: '',
    parameters: 40,
    arithmetic: '4 + 3 x 3 x 1 x 4',
  });
  assert.deepEqual(layers.at(-1), {
    name: 'scores',
    type: 'Dense',
    output: '10',
    parameters: 910,
    arithmetic: '10 + 90 x 10',
  });
});

const dataset: Dataset = createDataset({
  name: 'blank',
  shape: images,
  classes: 10,
  train: { images: new Uint8Array(784 * 32), labels: new Uint8Array(32) },
  test: { images: new Uint8Array(784), labels: new Uint8Array(1) },
});

function jobOf(
  spec: ModelSpec,
  fileWeights?: Float32Array,
  engine: 'tensorflow' | 'wasm' = 'tensorflow',
): Job {
  const settings = resolveSettings({ engine, epochs: 2, batch: 8 });
  const model = compileModel(spec, dataset.shape, dataset.classes);
  return createJob(settings, model, dataset, 'tensorflow-1', fileWeights);
}

test('a job of any other engine is refused with the flag that helps', t => {
  const { spec } = readModelFile(writeModelFiles(t, kerasCnn));
  assert.throws(() => jobOf(spec, undefined, 'wasm'), {
    code: 'LOCKSTEP_BAD_SETTING',
    message: /^Setting engine is wasm, and model my-cnn is a tf\.LayersModel.*--engine tensorflow\.$/,
  });
  assert.equal(wasmScratchBytes(compileModel(spec, images, 10), 16), 0);
});

test('weights of the file decide bits, those of the seed do not more than they did', t => {
  const { spec, readWeights } = readModelFile(writeModelFiles(t, kerasCnn));
  const weights = readWeights!();
  const seeded = jobOf(spec);
  const filed = jobOf(spec, weights);
  assert.deepEqual(Object.keys(filed.bits), [...Object.keys(seeded.bits), 'initialWeights']);
  assert.deepEqual(initialState(filed).bank.weights.subarray(0, weights.length), weights);
  assert.deepEqual(initialState(seeded).bank.weights, initialWeights(seeded.model, 1));
  const others = changed(weights, 77, 0);
  assert.equal(new Set([seeded, filed, jobOf(spec, others)].map(jobHash)).size, 3);
  assert.equal(jobHash(filed), jobHash(jobOf(spec, weights.slice())));
});

function changed(weights: Float32Array, index: number, value: number): Float32Array {
  const copy = weights.slice();
  copy[index] = value;
  return copy;
}

/** A run that was killed before its first checkpoint, and whose model is gone. */
function killedRun(t: TestContext): { dir: string; job: Job } {
  const path = writeModelFiles(t, kerasCnn);
  const { spec, readWeights } = readModelFile(path);
  const job = jobOf(spec, readWeights!());
  rmSync(dirname(path), { recursive: true });
  const dir = join(temporaryFolder(t), 'run');
  RunFolder.create(dir, spec.name, runConfig(job, dataset, true), initialWeightsFile(job)).close();
  return { dir, job };
}

test('the folder of a run brings everything back: model, weights, bits, and where it begins', t => {
  const { dir, job } = killedRun(t);
  const folder = RunFolder.reopen(dir);
  t.after(() => folder.close());
  const stored = readRunConfig(dir);
  assert.deepEqual(stored.model, job.model.spec);
  const again = jobOf(stored.model, initialWeightsIn(dir, stored)!());
  checkResume(stored, {}, again);
  assert.equal(jobHash(again), jobHash(job));
  const state = folder.restore(again, () => {});
  assert.equal(state.step, 0);
  assert.deepEqual(state.bank.weights, job.initialWeights);
});

test('a resume does not ask again where the weights come from', () => {
  const stored = resolveSettings({ engine: 'tensorflow' });
  assert.equal(resumedSettings(stored, { init: false }).init, false);
  assert.equal(resumedSettings({ ...stored, init: true }, { init: true }).init, true);
  assert.throws(() => resumedSettings(stored, { init: true }), {
    code: 'LOCKSTEP_RESUME_SETTING',
    message: /^Setting init is true, and the run was begun with not set\./,
  });
});

test('a resume with other weights is refused, and so is one without the weights that it was begun with', t => {
  const { dir, job } = killedRun(t);
  const stored = readRunConfig(dir);
  const { spec } = job.model;
  const others = jobOf(spec, changed(countingWeights(kerasCnn.weights), 3, 5));
  assert.throws(() => checkResume(stored, {}, others), {
    code: 'LOCKSTEP_RESUME_SETTING',
    message: /The weights of the model file are not those that the run was begun with/,
  });
  assert.throws(() => checkResume(stored, {}, jobOf(spec)), { code: 'LOCKSTEP_RESUME_SETTING' });
  const file = join(dir, 'initial-weights.safetensors');
  truncateSync(file, 1000);
  assert.throws(initialWeightsIn(dir, stored)!, {
    code: 'LOCKSTEP_FILE_DAMAGED',
    message: /initial-weights/,
  });
  unlinkSync(file);
  assert.throws(initialWeightsIn(dir, stored)!, {
    code: 'LOCKSTEP_FILE_DAMAGED',
    message: /initial-weights/,
  });
});

test('initial weights that a start left behind that was killed are in the way of none', t => {
  const dir = temporaryFolder(t);
  writeFileSync(join(dir, 'initial-weights.safetensors'), 'half');
  writeFileSync(join(dir, 'initial-weights.safetensors.part'), 'quarter');
  const { spec, readWeights } = readModelFile(writeModelFiles(t, kerasCnn));
  const job = jobOf(spec, readWeights!());
  const folder = RunFolder.create(dir, spec.name, runConfig(job, dataset, true), initialWeightsFile(job));
  assert.deepEqual(initialWeightsIn(dir, readRunConfig(dir))!(), readWeights!());
  folder.abandon();
  assert.deepEqual(
    readdirSync(dir).filter(name => !name.endsWith('.part')),
    [],
  );
});

test('docs/model.md has every class that is trained and no other', () => {
  const text = readFileSync(fileURLToPath(new URL('../../docs/model.md', import.meta.url)), 'utf8');
  const [, list] = /These classes are trained: ([^]*?)\.\n/.exec(text)!;
  assert.deepEqual(
    Array.from(list.matchAll(/`(\w+)`/g), match => match[1]),
    [...trainedClasses].toSorted(),
  );
});

test('it travels to agents, and one without TensorFlow refuses it, mixed or not', t => {
  const { spec } = readModelFile(writeModelFiles(t, kerasCnn));
  const [message] = messagesToAgent();
  assert.ok(message.type === 'job');
  const job = {
    ...message,
    model: spec,
    engine: 'tensorflow' as const,
    profile: 'tensorflow-1',
    samples: { train: 3072, test: 0 },
  };
  const frame = encode(job);
  const told = decode(frame, 'agent', frame.length);
  assert.ok(told.type === 'job');
  assert.deepEqual(told, job);
  const { leafJob } = readJob(told, [{ engine: 'tensorflow', profile: 'tensorflow-1' }]);
  assert.deepEqual(leafJob.model, compileModel(spec, images, 10));
  for (const isMixed of [false, true]) {
    assert.throws(() => readJob({ ...told, isMixed }, [{ engine: 'wasm', profile: 'f32' }]), {
      code: 'LOCKSTEP_PROFILE',
      message: /--engine tensorflow/,
    });
  }
});

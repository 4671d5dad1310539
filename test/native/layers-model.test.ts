// Models of tf.layers in the engine `tensorflow`: what TensorFlow.js itself saves and says, and our own models beside it.

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { test, type TestContext } from 'node:test';
import type * as core from '@tensorflow/tfjs-core';
import { loadMnist } from '#dist/coordinator/mnist.js';
import { readModelFile } from '#dist/coordinator/model-file.js';
import { initialWeights } from '#dist/shared/initial-weights.js';
import { trainedClasses } from '#dist/shared/layers-model.js';
import { compileModel, type LayerSpec } from '#dist/shared/model.js';
import { presetSpec } from '#dist/shared/presets.js';
import { sizeOf, type Shape } from '#dist/shared/shape.js';
import type { Engine } from '#dist/worker/engines/engine.js';
import { loadTensorflow } from '#dist/worker/engines/tensorflow/native.js';
import {
  chooseRuntime,
  findRuntimes,
  setupFolder,
  tensorflowEnvironment,
} from '#dist/worker/engines/tensorflow/runtime.js';
import {
  createFixture,
  largestMagnitude,
  randomWeights,
  useTensorflow,
  zeroBlack,
  type EngineFixture,
} from '../support/engine-fixture.js';
import {
  kerasCnn,
  layer,
  temporaryFolder,
  writeModelFiles,
  type LayerJson,
} from '../support/layers-model.js';
import { Random } from '../support/random.js';

Object.assign(process.env, tensorflowEnvironment('cpu', process.env));
const runtime = chooseRuntime(findRuntimes(setupFolder(process.env), process.cwd()), 'cpu');
const tf = loadTensorflow(runtime, 'cpu');
useTensorflow(tf);

/** What the tests use of tf.layers, to make models with. */
interface Sequential {
  save(url: string): Promise<unknown>;
  predict(x: core.Tensor): core.Tensor;
}
interface TfLayers {
  loadLayersModel(url: string): Promise<Sequential>;
  models: { modelFromJSON(json: object): Promise<Sequential> };
}
const withLayers = (candidate: typeof core | (typeof core & TfLayers)): typeof core & TfLayers => {
  assert.ok('models' in candidate);
  return candidate;
};
const tfl = withLayers(tf);

const SAMPLES = 48;
const images: Shape = { height: 28, width: 28, channels: 1 };

function fixtureOf(layers: readonly LayerSpec[], name: string, seed = 5, input = images): EngineFixture {
  const random = new Random(`layers model ${name}`);
  // Pixels from 0 to 1, as models of tf.layers have them.
  return createFixture({
    layers,
    input,
    classes: 10,
    samples: SAMPLES,
    random,
    seed,
    normalization: zeroBlack,
  });
}

/** Saves layers by TensorFlow.js, puts weights of a seed into the file, and reads it: here and by TensorFlow.js. */
async function savedModel(
  t: TestContext,
  layers: readonly LayerJson[],
  input: readonly number[] = [28, 28, 1],
) {
  const [first, ...others] = layers;
  const all = [{ ...first, config: { ...first.config, batch_input_shape: [null, ...input] } }, ...others];
  const made = await tfl.models.modelFromJSON({
    class_name: 'Sequential',
    config: { name: 'made', layers: all },
  });
  const dir = temporaryFolder(t);
  await made.save(`file://${dir}`);
  const path = `${dir}/model.json`;
  const { spec, readWeights } = readModelFile(path);
  const compiled = compileModel(spec, images, 10);
  const drawn = randomWeights(compiled, new Random(`weights ${t.name}`), 1.5).subarray(
    0,
    compiled.parameterCount,
  );
  writeFileSync(`${dir}/weights.bin`, new Uint8Array(drawn.buffer, 0, drawn.byteLength));
  const weights = readWeights!();
  assert.deepEqual(weights, drawn);
  return { model: await tfl.loadLayersModel(`file://${path}`), spec, weights };
}

const everyPosition = Uint32Array.from({ length: SAMPLES }, (_, i) => i);
const leaf = { step: 4, lane: 3, positions: everyPosition };

async function logitsOf(engine: Engine): Promise<Float32Array> {
  const logits = new Float32Array(SAMPLES * 10);
  await engine.evaluate('test', everyPosition, logits);
  return logits;
}

function testImages({ job, model }: EngineFixture, shape: readonly number[]): core.Tensor {
  const { images: bytes } = job.sets.test;
  assert.equal(bytes.length, SAMPLES * sizeOf(model.input));
  return tf.tensor(
    Float32Array.from(bytes, byte => Math.fround(byte * zeroBlack.scale)),
    [SAMPLES, ...shape],
  );
}

function assertClose(actual: Float32Array, expected: Float32Array, tolerance: number, what: string): void {
  assert.equal(actual.length, expected.length, what);
  const largest = largestMagnitude(expected);
  assert.ok(largest > 0, `${what} is all zero`);
  for (const [i, value] of expected.entries()) {
    assert.ok(Math.abs(actual[i] - value) <= tolerance * largest, `${what}[${i}]: ${actual[i]}, ${value}`);
  }
}

const lenet5 = [
  layer('Conv2D', 'c1', { filters: 6, kernel_size: [5, 5], activation: 'relu' }),
  layer('MaxPooling2D', 'p1', { pool_size: [2, 2] }),
  layer('Conv2D', 'c2', { filters: 16, kernel_size: [5, 5] }),
  layer('ReLU', 'r2'),
  layer('MaxPooling2D', 'p2', { pool_size: [2, 2] }),
  layer('Flatten', 'row'),
  layer('Dense', 'd1', { units: 120, activation: 'relu' }),
  layer('Dense', 'd2', { units: 84 }),
  layer('Activation', 'r4', { activation: 'relu' }),
  layer('Dense', 'd3', { units: 10 }),
  layer('Softmax', 'chances'),
];

test('LeNet-5 in tf.layers has the gradients, losses and logits of our own', async t => {
  const { spec } = await savedModel(t, lenet5);
  const ours = fixtureOf(presetSpec('lenet5', 10).layers, 'lenet5');
  const theirs = fixtureOf(spec.layers, 'lenet5');
  assert.deepEqual(
    theirs.model.tensors.map(({ shape }) => shape),
    ours.model.tensors.map(({ shape }) => shape),
  );
  assert.deepEqual(initialWeights(theirs.model, 7), initialWeights(ours.model, 7));
  const weights = randomWeights(ours.model, new Random('lenet5 weights'));
  const resultOf = async (fixture: EngineFixture, engine: Engine) => {
    await engine.useWeights(fixture.putWeights(weights));
    return { ...(await fixture.gradientOf(engine, leaf)), logits: await logitsOf(engine) };
  };
  const actual = await resultOf(theirs, theirs.createEngine('tensorflow'));
  const expected = await resultOf(ours, ours.createEngine('reference'));
  for (const { name, offset, size } of ours.model.tensors) {
    const [own, wanted] = [actual, expected].map(({ gradient }) => gradient.subarray(offset, offset + size));
    assertClose(own, wanted, 1e-4, `gradient of ${name}`);
  }
  assertClose(actual.logits, expected.logits, 1e-5, 'logits');
  assert.ok(Math.abs(actual.lossSum - expected.lossSum) <= 1e-5 * expected.lossSum);
  assert.equal(actual.correct, expected.correct);
});

test('weights come from the file: softmax of the logits is what the model itself predicts', async t => {
  const { model, spec, weights } = await savedModel(t, lenet5);
  const fixture = fixtureOf(spec.layers, 'predict');
  const engine = fixture.createEngine('tensorflow');
  await engine.useWeights(fixture.putWeights(weights));
  const logits = tf.tensor2d(await logitsOf(engine), [SAMPLES, 10]);
  const expected = model.predict(testImages(fixture, [28, 28, 1]));
  assertClose(tf.softmax(logits).dataSync<'float32'>(), expected.dataSync<'float32'>(), 1e-5, 'prediction');
});

test("a file of Keras' converter, its weights in no order, gives each layer its own", async t => {
  const path = writeModelFiles(t, kerasCnn);
  const { spec, readWeights } = readModelFile(path);
  const fixture = fixtureOf(spec.layers, 'keras');
  const { tensors } = fixture.model;
  assert.deepEqual(
    tensors.map(({ name }) => name),
    ['scores/bias', 'scores/kernel', 'conv2d_7/kernel', 'look/bias', 'look/kernel', 'conv2d_7/bias'],
  );
  const weights = randomWeights(fixture.model, new Random('keras weights'));
  assert.equal(readWeights!().length, fixture.model.parameterCount);
  const engine = fixture.createEngine('tensorflow');
  await engine.useWeights(fixture.putWeights(weights));
  const logits = await logitsOf(engine);
  const valuesOf = (name: string) => {
    const { offset, size, shape } = tensors.find(tensor => tensor.name === name)!;
    return { values: weights.slice(offset, offset + size), shape };
  };
  const expected = tf.tidy(() => {
    const weight = (name: string): core.Tensor => tf.tensor(valuesOf(name).values, [...valuesOf(name).shape]);
    const kernel = (name: string): core.Tensor4D => {
      const { values, shape } = valuesOf(name);
      return tf.tensor4d(values, [shape[0], shape[1], shape[2], shape[3]]);
    };
    const x = tf.reshape<core.Rank.R4>(testImages(fixture, [28, 28, 1]), [SAMPLES, 28, 28, 1]);
    const first = tf.relu(
      tf.add<core.Tensor4D>(tf.conv2d(x, kernel('look/kernel'), 1, 'same'), weight('look/bias')),
    );
    const shrunk = tf.avgPool(first, 2, 2, 'valid');
    const three = tf.tanh(
      tf.add(tf.conv2d(shrunk, kernel('conv2d_7/kernel'), 2, 'valid'), weight('conv2d_7/bias')),
    );
    const row = tf.reshape(three, [SAMPLES, -1]);
    return tf.add(tf.matMul(row, weight('scores/kernel')), weight('scores/bias')).dataSync<'float32'>();
  });
  assertClose(logits, expected, 1e-5, 'logits');
});

test('Dropout has the masks of every other engine, and none in evaluations', async t => {
  const { spec } = await savedModel(t, [
    layer('Flatten', 'row'),
    layer('Dropout', 'forget', { rate: 0.4 }),
    layer('Dense', 'scores', { units: 10, activation: 'softmax' }),
  ]);
  const own: LayerSpec[] = [
    { type: 'flatten' },
    { type: 'dropout', rate: 0.4 },
    { type: 'dense', units: 10 },
  ];
  const [theirs, ours] = [fixtureOf(spec.layers, 'dropout'), fixtureOf(own, 'dropout')];
  const weights = randomWeights(ours.model, new Random('dropout weights'));
  const [actual, expected] = [theirs.createEngine('tensorflow'), ours.createEngine('reference')];
  await actual.useWeights(theirs.putWeights(weights));
  await expected.useWeights(ours.putWeights(weights));
  const [gradient, wanted] = [await theirs.gradientOf(actual, leaf), await ours.gradientOf(expected, leaf)];
  assertClose(gradient.gradient, wanted.gradient, 1e-4, 'gradient');
  assertClose(await logitsOf(actual), await logitsOf(expected), 1e-5, 'logits');
});

const scores = layer('Dense', 'scores', { units: 10, activation: 'softmax' });
const row = layer('Flatten', 'row');
const rows = layer('Reshape', 'rows', { target_shape: [28, 28] });
const pool = layer('AveragePooling2D', 'pool', { pool_size: [4, 4] });
const some = { filters: 3, kernel_size: [3, 3], strides: [2, 2], activation: 'tanh' };

/** Every class that is trained, at least once. */
const models: Record<string, { layers: LayerJson[]; input?: number[] }> = {
  'activations without weights': {
    layers: [
      layer('ZeroPadding2D', 'around', {
        padding: [
          [1, 1],
          [2, 2],
        ],
      }),
      layer('Cropping2D', 'off', {
        cropping: [
          [2, 3],
          [1, 4],
        ],
      }),
      layer('Conv2D', 'conv', some),
      layer('LeakyReLU', 'leaky', { alpha: 0.1 }),
      layer('ELU', 'elu', { alpha: 1 }),
      layer('UpSampling2D', 'larger', { size: [2, 2] }),
      layer('Permute', 'turn', { dims: [2, 1, 3] }),
      row,
      layer('Softmax', 'inner', { axis: -1 }),
      layer('RepeatVector', 'twice', { n: 2 }),
      layer('Flatten', 'again'),
      scores,
    ],
  },
  'PReLU and layer normalization': {
    layers: [
      pool,
      layer('Conv2D', 'conv', some),
      layer('LayerNormalization', 'normal', { axis: -1, epsilon: 0.01 }),
      layer('PReLU', 'learnt'),
      row,
      scores,
    ],
  },
  'separable and depthwise convolutions': {
    layers: [
      layer('SeparableConv2D', 'separable', { ...some, depth_multiplier: 1 }),
      layer('DepthwiseConv2D', 'depthwise', { kernel_size: [3, 3], depth_multiplier: 2, activation: 'tanh' }),
      layer('GlobalAveragePooling2D', 'mean'),
      scores,
    ],
  },
  'a transposed convolution and the largest of all': {
    layers: [
      pool,
      layer('Conv2DTranspose', 'larger', { ...some, padding: 'same' }),
      layer('GlobalMaxPooling2D', 'most'),
      scores,
    ],
  },
  'convolutions along rows': {
    layers: [
      rows,
      layer('Conv1D', 'conv', { filters: 4, kernel_size: [3], activation: 'tanh' }),
      layer('MaxPooling1D', 'max', { pool_size: [2], strides: [2] }),
      layer('AveragePooling1D', 'mean', { pool_size: [2], strides: [2] }),
      layer('GlobalAveragePooling1D', 'all'),
      scores,
    ],
  },
  'a recurrent layer over rows': {
    layers: [
      layer('Reshape', 'fewer', { target_shape: [7, 112] }),
      layer('TimeDistributed', 'each', { layer: layer('Dense', 'small', { units: 6, activation: 'tanh' }) }),
      layer('LSTM', 'lstm', { units: 5, return_sequences: true, dropout: 0, recurrent_dropout: 0 }),
      layer('GRU', 'gru', { units: 4, return_sequences: true, reset_after: false }),
      layer('SimpleRNN', 'simple', { units: 4, return_sequences: true }),
      layer('Bidirectional', 'both', {
        merge_mode: 'concat',
        layer: layer('LSTM', 'inner', { units: 3, return_sequences: true }),
      }),
      layer('GlobalMaxPooling1D', 'most'),
      scores,
    ],
    input: [28, 28],
  },
  'pixels in a row, and a last convolution': {
    layers: [
      layer('Reshape', 'square', { target_shape: [28, 28, 1] }),
      layer('Rescaling', 'scale', { scale: 2, offset: -1 }),
      layer('MaxPooling2D', 'pool', { pool_size: [3, 3], padding: 'same' }),
      layer('Conv2D', 'scores', { filters: 10, kernel_size: [5, 5] }),
      layer('GlobalAveragePooling2D', 'mean'),
      layer('Activation', 'chances', { activation: 'softmax' }),
    ],
    input: [784],
  },
};

test('every class that is trained is in one of the models here', () => {
  const all = [lenet5, ...Object.values(models).map(({ layers }) => layers)].flat();
  const classes = new Set([...all, ...kerasCnn.layers].map(({ class_name }) => class_name));
  assert.deepEqual(
    [...trainedClasses].filter(name => !classes.has(name)),
    [],
  );
});

for (const [name, { layers, input }] of Object.entries(models)) {
  test(`${name}: logits are those of the model itself, gradients those of differences`, async t => {
    const { model, spec, weights } = await savedModel(t, layers, input);
    const fixture = fixtureOf(spec.layers, name);
    const engine = fixture.createEngine('tensorflow');
    await engine.useWeights(fixture.putWeights(weights));
    const logits = tf.tensor2d(await logitsOf(engine), [SAMPLES, 10]);
    const expected = model.predict(testImages(fixture, input ?? [28, 28, 1]));
    assertClose(tf.softmax(logits).dataSync<'float32'>(), expected.dataSync<'float32'>(), 1e-5, 'prediction');

    // Along its own direction the loss rises by the gradient's length.
    const { gradient } = await fixture.gradientOf(engine, leaf);
    for (const { name: tensor, offset, size } of fixture.model.tensors) {
      const part = gradient.subarray(offset, offset + size);
      const length = Math.hypot(...part);
      assert.ok(length > 0, `${tensor} is not trained`);
      const step = 0.001;
      const lossAt = async (side: number): Promise<number> => {
        const moved = weights.slice();
        for (const [i, value] of part.entries()) moved[offset + i] += (side * step * value) / length;
        await engine.useWeights(fixture.putWeights(moved));
        return (await fixture.gradientOf(engine, leaf)).lossSum;
      };
      const slope = ((await lossAt(1)) - (await lossAt(-1))) / (2 * step);
      assert.ok(Math.abs(slope - length) <= 0.1 * length + 0.02, `${tensor}: ${slope}, gradient ${length}`);
    }
  });
}

test('a few hundred steps of plain descent learn digits, from the weights of the seed', async t => {
  const mnist = loadMnist();
  const samples = 640;
  const first = ({ images: all, labels }: typeof mnist.train) => ({
    images: all.subarray(0, samples * sizeOf(mnist.shape)),
    labels: labels.subarray(0, samples),
  });
  const { spec } = await savedModel(t, [
    layer('Conv2D', 'conv', { filters: 8, kernel_size: [5, 5], strides: [2, 2], activation: 'relu' }),
    row,
    layer('Dropout', 'forget', { rate: 0.1 }),
    scores,
  ]);
  const fixture = createFixture({
    layers: spec.layers,
    input: images,
    classes: 10,
    samples,
    random: new Random('unused'),
    normalization: zeroBlack,
    sets: { train: first(mnist.train), test: first(mnist.test) },
  });
  const engine = fixture.createEngine('tensorflow');
  const weights = initialWeights(fixture.model, 3);
  const accuracy = async (): Promise<number> => {
    await engine.useWeights(fixture.putWeights(weights));
    const { correct } = await engine.evaluate(
      'test',
      Uint32Array.from({ length: samples }, (_, i) => i),
    );
    return correct / samples;
  };
  const before = await accuracy();
  for (let step = 0; step < 400; step++) {
    const positions = Uint32Array.from({ length: 32 }, (_, i) => (step * 32 + i) % samples);
    await engine.useWeights(fixture.putWeights(weights));
    const { gradient } = await fixture.gradientOf(engine, { step, lane: 0, positions });
    for (const [i, value] of gradient.entries()) weights[i] -= (0.05 * value) / positions.length;
  }
  const after = await accuracy();
  assert.ok(before < 0.3 && after > 0.8, `accuracy ${before}, then ${after}`);
});

function tensorCount(): number {
  return tf.memory().numTensors;
}

test('neither building nor leaves leave a tensor behind', async t => {
  const { spec, weights } = await savedModel(t, [
    ...lenet5.slice(0, 6),
    layer('Dropout', 'forget', { rate: 0.5 }),
    scores,
  ]);
  const fixture = fixtureOf(spec.layers, 'leak');
  const before = tensorCount();
  const engine = fixture.createEngine('tensorflow');
  const compute = async (step: number): Promise<void> => {
    await engine.useWeights(fixture.putWeights(weights));
    await engine.gradient({ step, lane: 0, positions: everyPosition.subarray(0, 4) }, fixture.gradient);
    if (step % 20 === 0) await engine.evaluate('test', everyPosition.subarray(0, 4));
  };
  await compute(0);
  assert.equal(tensorCount() - before, fixture.model.tensors.length);
  for (let step = 1; step <= 200; step++) await compute(step);
  assert.equal(tensorCount() - before, fixture.model.tensors.length);
});

const refused: Record<
  string,
  { layers: LayerJson[]; weights: [string, number[]][]; code: string; message: RegExp }
> = {
  'outputs that only a build shows': {
    layers: [
      layer('AveragePooling2D', 'pool', { pool_size: [7, 7], batch_input_shape: [null, 28, 28, 1] }),
      layer('Conv2D', 'conv', { filters: 10, kernel_size: [1, 1] }),
      row,
    ],
    weights: [
      ['conv/kernel', [1, 1, 1, 10]],
      ['conv/bias', [10]],
    ],
    code: 'LOCKSTEP_MODEL_SHAPE',
    message: /^Model test ends with 160 outputs, and the dataset has 10 classes\.$/,
  },
  'a weight of another shape': {
    layers: [layer('Flatten', 'row', { batch_input_shape: [null, 28, 28, 1] }), scores],
    weights: [
      ['scores/kernel', [783, 10]],
      ['scores/bias', [10]],
    ],
    code: 'LOCKSTEP_MODEL_LAYER',
    message: /cannot build the model test: .*[Ss]hape.*783/,
  },
  'a weight too few': {
    layers: [layer('Flatten', 'row', { batch_input_shape: [null, 28, 28, 1] }), scores],
    weights: [['scores/kernel', [784, 10]]],
    code: 'LOCKSTEP_MODEL_LAYER',
    message: /cannot build the model test: .*scores\/bias/,
  },
  'a setting that means nothing': {
    layers: [
      layer('Flatten', 'row', { batch_input_shape: [null, 28, 28, 1] }),
      layer('Dense', 'wide', { units: 3, activation: 'magic' }),
      scores,
    ],
    weights: [
      ['wide/kernel', [784, 3]],
      ['wide/bias', [3]],
      ['scores/kernel', [3, 10]],
      ['scores/bias', [10]],
    ],
    code: 'LOCKSTEP_MODEL_LAYER',
    message: /^TensorFlow\.js cannot build the model test: Unknown activation: magic\.$/,
  },
};

for (const [what, { layers, weights, code, message }] of Object.entries(refused)) {
  test(`the engine refuses ${what}`, async t => {
    const named = weights.map(([name, shape]) => ({ name, shape }));
    const { spec } = readModelFile(writeModelFiles(t, { layers, weights: named }));
    const fixture = fixtureOf(spec.layers, what);
    const engine = fixture.createEngine('tensorflow');
    await assert.rejects(engine.useWeights(new Float32Array(fixture.model.paddedCount)), { code, message });
  });
}

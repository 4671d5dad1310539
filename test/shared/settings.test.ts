// Settings: what wins over what, what is refused, and which settings the hash begins from.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import type { Dataset } from '#dist/shared/dataset.js';
import { formatHash } from '#dist/shared/hash.js';
import { compileModel, type ModelSpec } from '#dist/shared/model.js';
import { presets, presetSpec } from '#dist/shared/presets.js';
import {
  createJob,
  jobHash,
  learningRateConfig,
  optimizerConfig,
  resolveSettings,
  totalSteps,
  type Job,
  type TrainSettings,
} from '#dist/shared/settings.js';

/** 24 training images of 2 x 2 pixels. Every other byte sequence has another digest; here it is given. */
const dataset: Dataset = {
  name: 'tiny',
  digest: 'd'.repeat(64),
  shape: { height: 2, width: 2, channels: 1 },
  classes: 3,
  train: { images: Uint8Array.from({ length: 96 }, (_, i) => i), labels: new Uint8Array(24) },
  test: { images: new Uint8Array(4), labels: new Uint8Array(1) },
};

interface JobOptions {
  readonly chosen?: Partial<TrainSettings>;
  readonly data?: Dataset;
  readonly spec?: ModelSpec;
  readonly profile?: string;
}

function jobOf({
  chosen,
  data = dataset,
  spec = presetSpec('mlp', 3),
  profile = 'f32',
}: JobOptions = {}): Job {
  const settings = resolveSettings({ model: 'mlp', batch: 8, ...chosen });
  return createJob(settings, compileModel(spec, data.shape, data.classes), data, profile);
}

test('without a choice, settings are the defaults', () => {
  assert.deepEqual(resolveSettings({}), {
    model: 'lenet5',
    workers: 'auto',
    epochs: 5,
    batch: 128,
    optimizer: 'adam',
    lr: 0.008,
    momentum: 0.9,
    nesterov: false,
    weightDecay: 0,
    lrSchedule: 'one-cycle',
    seed: 1,
    engine: 'wasm',
    labelOffset: 0,
    checkpointEvery: '10s',
  });
});

test("a preset's settings win over the defaults, and what is chosen wins over both", () => {
  for (const [model, preset] of Object.entries(presets)) {
    assert.deepEqual(resolveSettings({ model }), { ...resolveSettings({}), ...preset.settings, model });
  }
  assert.equal(resolveSettings({ model: 'mlp' }).lr, 0.012);
  assert.equal(resolveSettings({ model: 'mlp', lr: 0.5 }).lr, 0.5);
  assert.equal(resolveSettings({ model: 'lenet5-regularized' }).weightDecay, 1e-4);
  assert.equal(resolveSettings({ model: 'lenet5-regularized', weightDecay: 0 }).weightDecay, 0);
});

test('a model that ends with .json is a file, with the default settings', () => {
  for (const model of ['mine.json', './a folder/mlp.json', '.json']) {
    assert.deepEqual(resolveSettings({ model }), { ...resolveSettings({}), model });
  }
  assert.throws(() => resolveSettings({ model: 'mlq' }), {
    message:
      'Setting model is "mlq", expected one of lenet5, mlp, lenet5-regularized, or the path of a model file, ' +
      'which ends with .json; the nearest name is mlp.',
  });
});

test('what is chosen as undefined is not chosen', () => {
  const names = ['model', 'batch', 'leaf', 'lr', 'seed'];
  const nothing = Object.fromEntries(names.map(name => [name, undefined]));
  assert.deepEqual(resolveSettings(nothing), resolveSettings({}));
});

test('every setting can be chosen', () => {
  const chosen: TrainSettings = {
    model: 'mlp',
    workers: 7,
    epochs: 2,
    maxSteps: 11,
    batch: 96,
    leaf: 12,
    optimizer: 'adamw',
    lr: 0.125,
    momentum: 0.5,
    nesterov: true,
    weightDecay: 0.25,
    lrSchedule: 'cosine',
    warmup: 3,
    seed: 2 ** 53 - 1,
    engine: 'reference',
    data: 'fashion',
    labelOffset: 1,
    checkpointEvery: '3epochs',
    out: 'somewhere',
  };
  assert.deepEqual(resolveSettings(chosen), chosen);
});

test('choosing sgd brings a learning rate for it, unless one is chosen too', () => {
  for (const model of Object.keys(presets)) {
    assert.equal(resolveSettings({ model, optimizer: 'sgd' }).lr, 0.05);
    assert.equal(resolveSettings({ model, optimizer: 'sgd', lr: 0.2 }).lr, 0.2);
    assert.equal(resolveSettings({ model, optimizer: 'adamw' }).lr, resolveSettings({ model }).lr);
  }
});

const badValues: [string, unknown[]][] = [
  ['model', ['vgg', 'lenet5 ', 'constructor', '__proto__', '', 5, null]],
  ['workers', [-1, 257, 1.5, NaN, 'many', '2']],
  ['epochs', [0, -1, 1.5, NaN, Infinity, '3']],
  ['maxSteps', [0, -5, 0.5]],
  ['batch', [0, 1.5, 1_048_577, '64']],
  ['leaf', [0, -8, 2.5]],
  ['optimizer', ['rmsprop', 'Adam', 1]],
  ['lr', [0, -0.1, NaN, Infinity, '0.1']],
  ['momentum', [1, -0.1, NaN, 2]],
  ['nesterov', ['yes', 1]],
  ['weightDecay', [-1e-9, Infinity, NaN]],
  ['lrSchedule', ['linear', 0]],
  ['warmup', [-1, 0.5, NaN]],
  ['seed', [-1, 0.5, 2 ** 53, NaN]],
  ['engine', ['pytorch', 'WASM']],
  ['data', ['', 5, null]],
  ['labelOffset', [-1, 256, 0.5, NaN, '1']],
];

test('an unknown setting is refused, by its name', () => {
  assert.throws(() => resolveSettings(Object.fromEntries([['learningRate', 0.1]])), {
    code: 'LOCKSTEP_BAD_SETTING',
    message: 'There is no setting learningRate.',
  });
});

for (const [name, values] of badValues) {
  for (const value of values) {
    test(`${name} ${JSON.stringify(value) ?? value} (${typeof value}) is refused, by its name`, () => {
      assert.throws(() => resolveSettings({ [name]: value }), {
        name: 'LockstepError',
        code: 'LOCKSTEP_BAD_SETTING',
        message: new RegExp(`^Setting ${name} is .+, expected .+`),
      });
    });
  }
}

test('the message says what was found and what is possible', () => {
  assert.throws(() => resolveSettings({ lr: -3 }), {
    message: 'Setting lr is -3, expected a number above 0.',
  });
  assert.throws(() => resolveSettings({ ['engine' as string]: 'gpu' }), {
    message: 'Setting engine is "gpu", expected one of wasm, reference, tensorflow.',
  });
});

test('a leaf that does not divide the batch is refused, with one that does', () => {
  for (const leaf of [3, 7, 65, 128]) {
    assert.throws(() => resolveSettings({ batch: 64, leaf }), {
      code: 'LOCKSTEP_BAD_SETTING',
      message: `Setting batch (64) must be a multiple of leaf (${leaf}); leave leaf out to get 8.`,
    });
  }
  for (const leaf of [1, 2, 32, 64]) assert.equal(resolveSettings({ batch: 64, leaf }).leaf, leaf);
});

test('a run has epochs times steps per epoch, or maxSteps if that is less', () => {
  const settings = resolveSettings({ epochs: 3 });
  assert.equal(totalSteps(settings, 10), 30);
  assert.equal(totalSteps({ ...settings, maxSteps: 7 }, 10), 7);
  assert.equal(totalSteps({ ...settings, maxSteps: 31 }, 10), 30);
});

function ratesOf(chosen: Partial<TrainSettings>, steps = 1000) {
  return learningRateConfig(resolveSettings({ lr: 1, ...chosen }), steps);
}

test('the warm-up is 30 % of the steps with one-cycle and none otherwise, unless chosen', () => {
  assert.deepEqual(ratesOf({}), { schedule: 'one-cycle', peak: 1, warmupSteps: 300, totalSteps: 1000 });
  assert.deepEqual(ratesOf({}, 1), { schedule: 'one-cycle', peak: 1, warmupSteps: 0, totalSteps: 1 });
  assert.deepEqual(ratesOf({}, 9), { schedule: 'one-cycle', peak: 1, warmupSteps: 2, totalSteps: 9 });
  assert.deepEqual(ratesOf({ warmup: 0 }), {
    schedule: 'one-cycle',
    peak: 1,
    warmupSteps: 0,
    totalSteps: 1000,
  });
  assert.deepEqual(ratesOf({ lrSchedule: 'cosine' }), {
    schedule: 'cosine',
    peak: 1,
    warmupSteps: 0,
    totalSteps: 1000,
  });
  assert.deepEqual(ratesOf({ lrSchedule: 'constant' }), { schedule: 'constant', peak: 1, warmupSteps: 0 });
  assert.deepEqual(ratesOf({ lrSchedule: 'constant', warmup: 5 }), {
    schedule: 'constant',
    peak: 1,
    warmupSteps: 5,
  });
});

test('a warm-up as long as the run or longer is refused, where the schedule has an end', () => {
  for (const lrSchedule of ['one-cycle', 'cosine'] as const) {
    for (const warmup of [15, 16, 1000]) {
      assert.throws(() => jobOf({ chosen: { lrSchedule, warmup } }), {
        code: 'LOCKSTEP_BAD_SETTING',
        message: `Setting warmup (${warmup}) must be smaller than the steps of the run (15).`,
      });
    }
    assert.equal(jobOf({ chosen: { lrSchedule, warmup: 14 } }).bits.learningRate.warmupSteps, 14);
  }
  assert.equal(jobOf({ chosen: { lrSchedule: 'constant', warmup: 99 } }).bits.learningRate.warmupSteps, 99);
});

test('an optimizer is described by exactly the numbers that it uses', () => {
  const chosen = { momentum: 0.7, nesterov: true, weightDecay: 0.1 };
  assert.deepEqual(optimizerConfig(resolveSettings({ ...chosen, optimizer: 'sgd' })), {
    name: 'sgd',
    ...chosen,
  });
  for (const name of ['adam', 'adamw'] as const) {
    assert.deepEqual(optimizerConfig(resolveSettings({ ...chosen, optimizer: name })), {
      name,
      beta1: 0.9,
      beta2: 0.999,
      epsilon: 1e-8,
      weightDecay: 0.1,
    });
  }
});

test('a job knows its lanes and steps, and normalizes by the training set', () => {
  const job = jobOf({ chosen: { leaf: 2 } });
  assert.deepEqual([job.lanes, job.stepsPerEpoch, job.totalSteps], [4, 3, 15]);
  assert.equal(jobOf({ chosen: { batch: 9 } }).lanes, 9);
  // Pixels 0 to 95: mean 47.5, variance (96^2 - 1) / 12.
  const deviation = Math.sqrt((96 ** 2 - 1) / 12);
  assert.equal(job.normalization.scale, Math.fround(1 / deviation));
  assert.equal(job.normalization.shift, Math.fround(47.5 / deviation));
});

test('the hash of a job begins from the canonical JSON of exactly what decides bits', () => {
  // A change here, or of any golden bits, needs another `bitsVersion` or profile.
  const json =
    `{"batch":8,"bitsVersion":1,"datasetDigest":"${'d'.repeat(64)}",` +
    '"layers":[{"type":"flatten"},{"type":"dense","units":20},{"type":"relu"},{"type":"dense","units":3}],' +
    '"leaf":1,"learningRate":{"peak":0.012,"schedule":"one-cycle","totalSteps":15,"warmupSteps":4},' +
    '"optimizer":{"beta1":0.9,"beta2":0.999,"epsilon":1e-8,"name":"adam","weightDecay":0},' +
    '"profile":"f32","seed":1}';
  assert.equal(formatHash(jobHash(jobOf())), createHash('sha256').update(json).digest('hex').slice(0, 16));
});

const mlp = presetSpec('mlp', 3);
const withDropout = { ...mlp, layers: [...mlp.layers, { type: 'dropout', rate: 0.1 } as const] };

test('each setting that decides bits gives another hash', () => {
  const changes: JobOptions[] = [
    {},
    { profile: 'f64' },
    { data: { ...dataset, digest: 'e'.repeat(64) } },
    { spec: withDropout },
    { chosen: { batch: 16 } },
    { chosen: { leaf: 2 } },
    { chosen: { seed: 2 } },
    { chosen: { seed: 2 ** 53 - 1 } },
    { chosen: { optimizer: 'adamw' } },
    { chosen: { weightDecay: 0.1 } },
    { chosen: { optimizer: 'sgd' } },
    { chosen: { optimizer: 'sgd', momentum: 0.5 } },
    { chosen: { optimizer: 'sgd', nesterov: true } },
    { chosen: { optimizer: 'sgd', weightDecay: 0.1 } },
    { chosen: { lr: 0.1 } },
    { chosen: { lrSchedule: 'constant' } },
    { chosen: { lrSchedule: 'cosine' } },
    { chosen: { warmup: 1 } },
    { chosen: { epochs: 6 } },
    { chosen: { maxSteps: 14 } },
  ];
  assert.equal(new Set(changes.map(change => jobHash(jobOf(change)))).size, changes.length);
});

test('what does not decide bits leaves the hash alone', () => {
  const same: JobOptions[] = [
    { chosen: { workers: 1 } },
    { chosen: { workers: 256 } },
    { chosen: { leaf: 1 } },
    { chosen: { warmup: 4 } },
    { chosen: { maxSteps: 15 } },
    { chosen: { epochs: 9, maxSteps: 15 } },
    { chosen: { momentum: 0.1, nesterov: true } },
    { chosen: { engine: 'reference' } },
    { spec: { ...mlp, name: 'another-name' } },
    { data: { ...dataset, name: 'another-name' } },
  ];
  for (const change of same) assert.equal(jobHash(jobOf(change)), jobHash(jobOf()), JSON.stringify(change));
});

test('with a constant rate a longer run begins with the bits of a shorter one', () => {
  const three = jobOf({ chosen: { lrSchedule: 'constant', epochs: 3 } });
  const four = jobOf({ chosen: { lrSchedule: 'constant', epochs: 4 } });
  assert.equal(jobHash(three), jobHash(four));
});

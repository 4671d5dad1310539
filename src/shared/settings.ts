// The settings of a run: what a user may choose, defaults, and which of them decide bits.

import * as v from 'valibot';
import { checkpointEveryPattern } from './checkpoint-policy.js';
import { LockstepError } from './errors.js';
import { normalizationOf, type Dataset, type Normalization } from './dataset.js';
import { withoutUndefined } from './format.js';
import { initialHash, sha256 } from './hash.js';
import { layersModelOf, modelSpecSchema, type Model, type ModelSpec } from './model.js';
import { isModelFile, presetNamed } from './presets.js';
import { refuseOtherStart } from './resume.js';
import { defaultLeaf, Schedule } from './schedule.js';

/** Schemas whose issues carry, as their message, what was expected. */
export function wholeNumber(least: number, most = Number.MAX_SAFE_INTEGER) {
  const expected = `a whole number ${most < Number.MAX_SAFE_INTEGER ? `from ${least} to ${most}` : `from ${least}`}`;
  return v.pipe(
    v.number(expected),
    v.integer(expected),
    v.minValue(least, expected),
    v.maxValue(most, expected),
  );
}

function finiteNumber(expected: string) {
  return v.pipe(v.number(expected), v.finite(expected));
}

export function oneOf<const Names extends readonly string[]>(names: Names) {
  return v.picklist(names, `one of ${names.join(', ')}`);
}

export const path = v.pipe(v.string('a path'), v.minLength(1, 'a path'));
const above0 = 'a number above 0';
const from0 = 'a number from 0';
const fraction = 'a number from 0 to below 1';
const devicesForm = "'cpu', 'all' or numbers of GPUs such as '0,1'";
const checkpointEveryForm = "steps ('500'), epochs ('2epochs') or seconds ('30s')";

export const optimizerNames = ['sgd', 'adam', 'adamw'] as const;
export const learningRateScheduleNames = ['constant', 'cosine', 'one-cycle'] as const;
/** Engines of worker threads; `tensorflow` has processes of its own. */
export const threadEngineNames = ['wasm', 'reference'] as const;
export const engineNames = [...threadEngineNames, 'tensorflow'] as const;

const modelExpected = "a preset's name, the path of a model file or a list of layers";
export const modelNameSchema = v.pipe(v.string(modelExpected), v.minLength(1, modelExpected));

function workersFrom(least: number) {
  const most = 256;
  return v.union(
    [v.literal('auto'), wholeNumber(least, most)],
    `a whole number from ${least} to ${most}, or 'auto'`,
  );
}

/** Worker threads of whoever computes alone. */
export const workersSchema = workersFrom(1);

/** Samples of a step, and so its lanes. */
export const MOST_BATCH = 1_048_576;

export const devicesSchema = v.pipe(v.string(devicesForm), v.regex(/^(cpu|all|\d+(,\d+)*)$/, devicesForm));

/** Everything `train` accepts that is kept with the run, by the names of the flags. */
export const trainSettingsSchema = v.strictObject({
  /** A preset's name, a path that ends with .json, or a list of layers. */
  model: v.lazy((input): v.GenericSchema<unknown, string | ModelSpec> =>
    typeof input === 'object' && input !== null ? modelSpecSchema : modelNameSchema,
  ),
  /** Worker threads; 'auto' is one for each core. Of 0, remote nodes compute everything. */
  workers: workersFrom(0),
  epochs: wholeNumber(1),
  maxSteps: v.optional(wholeNumber(1)),
  batch: wholeNumber(1, MOST_BATCH),
  /** Samples of a lane in a step; by default a divisor of `batch`, see `defaultLeaf`. */
  leaf: v.optional(wholeNumber(1)),
  optimizer: oneOf(optimizerNames),
  /** Peak learning rate. */
  lr: v.pipe(finiteNumber(above0), v.gtValue(0, above0)),
  /** SGD only. */
  momentum: v.pipe(finiteNumber(fraction), v.minValue(0, fraction), v.ltValue(1, fraction)),
  nesterov: v.boolean('true or false'),
  weightDecay: v.pipe(finiteNumber(from0), v.minValue(0, from0)),
  lrSchedule: oneOf(learningRateScheduleNames),
  /** Steps in which the learning rate rises; by default none, and 30 % of all steps with one-cycle. */
  warmup: v.optional(wholeNumber(0)),
  seed: wholeNumber(0),
  /** Whether a model that brings its weights begins with those of the seed all the same. */
  init: v.optional(v.boolean('true or false')),
  engine: oneOf(engineNames),
  /** Of the engine `tensorflow`: `cpu`, `all` GPUs or the numbers of some. By default GPUs where there are any. */
  devices: v.optional(devicesSchema),
  /** Whether nodes may compute in other arithmetics than the run's, so that nobody can reproduce it; stays with the run. */
  mixed: v.optional(v.boolean('true or false')),
  /** A folder of IDX files; by default MNIST. */
  data: v.optional(path),
  /** The smallest label of `data`: class 0. */
  labelOffset: wholeNumber(0, 255),
  /** Steps, epochs or seconds between checkpoints: `500`, `2epochs`, `30s`. */
  checkpointEvery: v.pipe(
    v.string(checkpointEveryForm),
    v.regex(checkpointEveryPattern, checkpointEveryForm),
  ),
  /** The run folder; by default `runs/<model>-<n>` in the working directory. */
  out: v.optional(path),
});

export type TrainSettings = v.InferOutput<typeof trainSettingsSchema>;
export type OptimizerName = (typeof optimizerNames)[number];
export type EngineName = (typeof engineNames)[number];
export type ThreadEngineName = (typeof threadEngineNames)[number];

/** Where neither the user nor the preset says otherwise. */
export const defaults: TrainSettings = {
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
};

/** Of the engine `tensorflow`, whose leaves should be larger: see `defaultLeaf`. */
export const tensorflowBatch = 256;

/** The peak learning rate where the user names another optimizer and no rate: these belong together. */
const sgdLearningRate = 0.05;

/**
 * Fills in what was not chosen (chosen, then the preset's settings, then the defaults) and checks all of it.
 * @throws LOCKSTEP_BAD_SETTING naming the setting.
 */
export function resolveSettings(chosen: Partial<TrainSettings>): TrainSettings {
  const { model } = parseSettings(v.pick(trainSettingsSchema, ['model']), {
    model: chosen.model ?? defaults.model,
  });
  return checkSettings({
    ...defaults,
    ...(typeof model === 'string' && !isModelFile(model) && presetNamed(model).settings),
    ...(chosen.engine === 'tensorflow' && { batch: tensorflowBatch }),
    ...(chosen.optimizer === 'sgd' && { lr: sgdLearningRate }),
    ...withoutUndefined(chosen),
  });
}

/**
 * The settings of a resumed run: chosen, then those that it was begun with.
 * @throws LOCKSTEP_BAD_SETTING, LOCKSTEP_RESUME_SETTING naming the setting.
 */
export function resumedSettings(stored: TrainSettings, chosen: Partial<TrainSettings>): TrainSettings {
  refuseOtherStart(stored, chosen);
  return checkSettings({ ...stored, ...withoutUndefined(chosen), ...(stored.mixed && { mixed: true }) });
}

function checkSettings(values: object): TrainSettings {
  const settings = parseSettings(trainSettingsSchema, values);
  const { batch, engine } = settings;
  if (settings.devices !== undefined && engine !== 'tensorflow') {
    throw new LockstepError(
      'LOCKSTEP_BAD_SETTING',
      `Setting devices is of the engine tensorflow, and engine is ${engine}.`,
    );
  }
  const usual = defaultLeaf(batch, engine);
  const leaf = settings.leaf ?? usual;
  if (batch % leaf !== 0) {
    throw new LockstepError(
      'LOCKSTEP_BAD_SETTING',
      `Setting batch (${batch}) must be a multiple of leaf (${leaf}); leave leaf out to get ${usual}.`,
    );
  }
  return settings;
}

/** @throws LOCKSTEP_BAD_SETTING naming the first setting that is not as `schema` says. */
export function parseSettings<const Schema extends v.GenericSchema>(
  schema: Schema,
  values: object,
): v.InferOutput<Schema> {
  const parsed = v.safeParse(schema, values);
  if (parsed.success) return parsed.output;
  const [issue] = parsed.issues;
  const name = v.getDotPath(issue) ?? '';
  throw new LockstepError(
    'LOCKSTEP_BAD_SETTING',
    issue.type === 'strict_object' && issue.expected === 'never'
      ? `There is no setting ${name}.`
      : `Setting ${name} is ${issue.received}, expected ${issue.message}.`,
  );
}

/** Steps of the whole run. */
export function totalSteps(settings: TrainSettings, stepsPerEpoch: number): number {
  const steps = Math.min(settings.epochs * stepsPerEpoch, settings.maxSteps ?? Infinity);
  if (steps > MOST_STEPS) {
    throw new LockstepError(
      'LOCKSTEP_BAD_SETTING',
      `Setting epochs (${settings.epochs}) makes ${steps} steps, and ${MOST_STEPS} are possible.`,
    );
  }
  return steps;
}

/** Steps are counted in signed 32-bit words. */
const MOST_STEPS = 2_147_483_647;

/** The optimizer with exactly the numbers that it uses. */
export type OptimizerConfig =
  | {
      readonly name: 'sgd';
      readonly momentum: number;
      readonly nesterov: boolean;
      readonly weightDecay: number;
    }
  | {
      readonly name: 'adam' | 'adamw';
      readonly beta1: number;
      readonly beta2: number;
      readonly epsilon: number;
      readonly weightDecay: number;
    };

export function optimizerConfig(settings: TrainSettings): OptimizerConfig {
  const { optimizer: name, momentum, nesterov, weightDecay } = settings;
  return name === 'sgd'
    ? { name, momentum, nesterov, weightDecay }
    : { name, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay };
}

export interface LearningRateConfig {
  readonly schedule: (typeof learningRateScheduleNames)[number];
  readonly peak: number;
  readonly warmupSteps: number;
  /** Where the schedule ends; absent when it does not depend on the end. */
  readonly totalSteps?: number;
}

export function learningRateConfig(settings: TrainSettings, steps: number): LearningRateConfig {
  const { lrSchedule: schedule, lr: peak, warmup } = settings;
  if (schedule === 'constant') return { schedule, peak, warmupSteps: warmup ?? 0 };
  const warmupSteps = warmup ?? (schedule === 'one-cycle' ? Math.floor(0.3 * steps) : 0);
  if (warmupSteps > 0 && warmupSteps >= steps) {
    throw new LockstepError(
      'LOCKSTEP_BAD_SETTING',
      `Setting warmup (${warmupSteps}) must be smaller than the steps of the run (${steps}).`,
    );
  }
  return { schedule, peak, warmupSteps, totalSteps: steps };
}

/** Raised whenever the same settings give other bits than before. */
export const BITS_VERSION = 1;

/** Exactly what decides bits, as it is hashed and written to the run's config. Documented in `docs/bits.md`. */
export interface BitSettings {
  readonly bitsVersion: number;
  readonly profile: string;
  readonly datasetDigest: string;
  readonly layers: Model['spec']['layers'];
  readonly batch: number;
  readonly leaf: number;
  readonly seed: number;
  readonly optimizer: OptimizerConfig;
  readonly learningRate: LearningRateConfig;
  /** SHA-256 of the initial weights' bytes (f32, little endian), where they come from the model's file. */
  readonly initialWeights?: string;
}

/** A training, fully decided: what the coordinator runs and every node is told. */
export interface Job {
  readonly settings: TrainSettings;
  readonly model: Model;
  readonly bits: BitSettings;
  /** The model's own, or of the training set: follows from the model or the dataset's digest. */
  readonly normalization: Normalization;
  /** `model.paddedCount` of them, where they do not follow from the seed. */
  readonly initialWeights?: Float32Array;
  readonly lanes: number;
  readonly stepsPerEpoch: number;
  readonly totalSteps: number;
}

/**
 * `fileWeights`: `model.parameterCount` weights to begin with instead of those of the seed.
 * @throws LOCKSTEP_BAD_SETTING where the settings do not suit each other, or the engine cannot compute the model
 */
export function createJob(
  settings: TrainSettings,
  model: Model,
  dataset: Dataset,
  profile: string,
  fileWeights?: Float32Array,
): Job {
  const { batch, seed, engine } = settings;
  if (layersModelOf(model.spec) && engine !== 'tensorflow') {
    throw new LockstepError(
      'LOCKSTEP_BAD_SETTING',
      `Setting engine is ${engine}, and model ${model.spec.name} is a tf.LayersModel, which only TensorFlow computes: ` +
        'use --engine tensorflow.',
    );
  }
  const leaf = settings.leaf ?? defaultLeaf(batch, engine);
  const { lanes, stepsPerEpoch } = new Schedule({ samples: dataset.train.labels.length, seed, batch, leaf });
  const steps = totalSteps(settings, stepsPerEpoch);
  return {
    settings,
    model,
    normalization: model.normalization ?? normalizationOf(dataset.train.images),
    ...(fileWeights && { initialWeights: padded(fileWeights, model) }),
    lanes,
    stepsPerEpoch,
    totalSteps: steps,
    bits: {
      bitsVersion: BITS_VERSION,
      profile,
      datasetDigest: dataset.digest,
      layers: model.spec.layers,
      batch,
      leaf,
      seed,
      optimizer: optimizerConfig(settings),
      learningRate: learningRateConfig(settings, steps),
      ...(fileWeights && { initialWeights: weightsDigest(fileWeights) }),
    },
  };
}

function padded(weights: Float32Array, { paddedCount }: Model): Float32Array {
  const vector = new Float32Array(paddedCount);
  vector.set(weights);
  return vector;
}

/** SHA-256 of the bytes of `model.parameterCount` weights. */
export function weightsDigest({ buffer, byteOffset, byteLength }: Float32Array): string {
  return sha256(new Uint8Array(buffer, byteOffset, byteLength));
}

/** The hash of a job before its first step. */
export function jobHash(job: Job): bigint {
  return initialHash(job.bits);
}

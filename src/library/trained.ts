// A run whose weights are used and not changed: what `evaluate` and `predict` have in common.

import { availableParallelism } from 'node:os';
import { resolve } from 'node:path';
import * as v from 'valibot';
import { openData } from '../coordinator/data.js';
import { readReference } from '../coordinator/reference.js';
import { readRunConfig, type RunConfig } from '../coordinator/stored-run.js';
import { readWeights } from '../coordinator/stored-weights.js';
import { systemClock } from '../shared/clock.js';
import type { Dataset, DatasetContent, LabelledImages } from '../shared/dataset.js';
import { LockstepError } from '../shared/errors.js';
import { compileModel, type Model } from '../shared/model.js';
import { emptyBank, type Sums } from '../shared/node.js';
import {
  createJob,
  parseSettings,
  path,
  resolveSettings,
  trainSettingsSchema,
  type TrainSettings,
} from '../shared/settings.js';
import { formatShape } from '../shared/shape.js';
import { profileOf } from '../worker/engines/engine.js';
import { createPool } from '../worker/pool.js';
import type { TensorflowWork } from './work.js';

/** Which data; by default the run's own. */
export interface DataOptions {
  /** A folder of IDX files. */
  readonly data?: string;
  /** The smallest label in that folder. */
  readonly labelOffset?: number;
  /** Images and labels as arrays. */
  readonly dataset?: DatasetContent;
}

/**
 * Checks the run folder and the options of a call, among them those of `DataOptions`; what is in a dataset is checked
 * where it is opened.
 * @throws LOCKSTEP_BAD_SETTING naming the option
 */
export function checkCall(entries: v.ObjectEntries, runDir: string, options: object): void {
  const { data, labelOffset } = trainSettingsSchema.entries;
  const schema = v.strictObject({
    ...entries,
    runDir: path,
    data,
    labelOffset: v.optional(labelOffset),
    dataset: v.optional(v.any()),
  });
  parseSettings(schema, { ...options, runDir });
}

/** Which weights were used. */
export interface WeightsSource {
  readonly runDir: string;
  /** The model's name. */
  readonly model: string;
  /** In the run folder. */
  readonly file: string;
  /** Steps after which the weights were these. */
  readonly step: number;
  readonly totalSteps: number;
  readonly isFinished: boolean;
  /** The run's hash after `step`. */
  readonly hash: string;
}

export interface TrainedRun {
  readonly source: WeightsSource;
  readonly config: RunConfig;
  readonly model: Model;
  readonly weights: Float32Array;
  readonly warnings: string[];
}

/** @throws LOCKSTEP_RUN_MISSING, LOCKSTEP_FILE_DAMAGED */
export function openRun(dir: string): TrainedRun {
  const config = readRunConfig(dir);
  const { shape, classes } = config.dataset;
  const model = compileModel(config.model, shape, classes);
  const { weights, problems, ...held } = readWeights(dir, config, model);
  const { file, step, hash, isFinished } = held;
  const { totalSteps } = config;
  const warnings = problems.map(problem => `${problem} ${file} is used.`);
  const { profile } = config.bits;
  const own = profileOf(config.settings.engine);
  if (profile !== own) {
    warnings.push(
      `The run was computed in the arithmetic ${String(profile)}, and this version has ${own}: ` +
        'figures may differ from those of the run in their last digits.',
    );
  }
  if (config.settings.mixed) {
    warnings.push('Nodes of any arithmetic may have computed this run (--mixed): nobody can reproduce it.');
  }
  const source = { runDir: resolve(dir), model: model.spec.name, file, step, totalSteps, isFinished, hash };
  return { source, config, model, weights, warnings };
}

/**
 * The data that are chosen, or else the run's; they may lack the last classes.
 * @throws LOCKSTEP_BAD_SETTING, LOCKSTEP_DATA_MISSING if the run was trained on arrays and none are given,
 * LOCKSTEP_DATA_SHAPE, what reading data throws
 */
export function openRunData(
  run: Pick<TrainedRun, 'config' | 'warnings'> & { readonly source: Pick<WeightsSource, 'runDir'> },
  { data, labelOffset, dataset: content }: DataOptions,
): Dataset {
  const { runDir } = run.source;
  const { settings, dataset: own } = run.config;
  const isOwn = data === undefined && content === undefined;
  if (isOwn && own.isGiven) {
    throw new LockstepError(
      'LOCKSTEP_DATA_MISSING',
      `The run ${runDir} was trained on arrays (${own.name}), which it does not keep: name a folder with --data, ` +
        'or hand the arrays over again.',
    );
  }
  const chosen = resolveSettings({
    ...(isOwn && settings.data !== undefined && { data: settings.data, labelOffset: settings.labelOffset }),
    ...(data !== undefined && { data }),
    ...(labelOffset !== undefined && { labelOffset }),
  });
  const dataset = openData(chosen, content);
  const { shape, classes } = dataset;
  if (formatShape(shape) !== formatShape(own.shape) || classes > own.classes) {
    throw new LockstepError(
      'LOCKSTEP_DATA_SHAPE',
      `${dataset.name} has images of ${formatShape(shape)} in ${classes} classes, and the model of ${runDir} was ` +
        `trained for ${formatShape(own.shape)} in ${own.classes}.`,
    );
  }
  if (isOwn && dataset.digest !== own.digest) {
    run.warnings.push(`The data (digest ${dataset.digest}) are no longer those that the run was trained on.`);
  }
  return { ...dataset, classes: own.classes };
}

/** Exact sums and all logits over `test`: the bits are those of the run's own evaluation, in its arithmetic. */
export async function evaluateWith(
  { config, weights, source, warnings }: TrainedRun,
  test: LabelledImages,
  workers: TrainSettings['workers'] = 'auto',
): Promise<LoggedSums> {
  const task = { config, weights, step: source.step, test, workers };
  const onWarning = (message: string): void => void warnings.push(message);
  if (config.settings.engine !== 'tensorflow') return evaluateHere(task, onWarning);
  const [{ planProcesses }, { evaluateInProcess }] = await Promise.all([
    import('./tensorflow.js'),
    import('./processes.js'),
  ]);
  const [plan] = await planProcesses({ devices: config.settings.devices, workers: 1 }).catch(
    (error: unknown) => {
      if (!(error instanceof LockstepError && error.code === 'LOCKSTEP_NO_GPU')) throw error;
      return planProcesses({ devices: 'cpu', workers: 1 });
    },
  );
  const own = readReference(source.runDir)?.profile;
  const { profile } = plan.place;
  if (own !== undefined && own !== profile) {
    onWarning(
      `The run was computed with ${own}, and here it is evaluated with ${profile}: figures may differ from those of the ` +
        'run in their last digits.',
    );
  }
  return evaluateInProcess(plan, task, { clock: systemClock, onWarning });
}

export type LoggedSums = Sums & { readonly logits: Float32Array };

/** What an evaluation needs to know; it can be sent to another process. */
export interface EvaluationTask {
  readonly config: RunConfig;
  readonly weights: Float32Array;
  /** Updates done. */
  readonly step: number;
  readonly test: LabelledImages;
  readonly workers: TrainSettings['workers'];
}

/** By a pool of this process, as in training. */
export async function evaluateHere(
  { config, weights, step, test, workers }: EvaluationTask,
  onWarning: (message: string) => void,
  tensorflow?: TensorflowWork,
): Promise<LoggedSums> {
  const { shape, classes, name, digest } = config.dataset;
  const model = compileModel(config.model, shape, classes);
  const size = test.images.length / test.labels.length;
  // Nothing is trained: one sample stands for the training set, and the defaults for all settings that would count then.
  const train = { images: test.images.subarray(0, size), labels: test.labels.subarray(0, 1) };
  const dataset = { name, digest, shape, classes, train, test };
  const { engine } = config.settings;
  const settings = resolveSettings({ engine, workers });
  const cores = availableParallelism();
  const node = await createPool({
    job: { ...createJob(settings, model, dataset, profileOf(engine)), normalization: config.normalization },
    dataset,
    threads: settings.workers === 'auto' ? cores : settings.workers,
    cores,
    state: { step, hash: 0n, bank: { ...emptyBank(model), weights } },
    clock: systemClock,
    keepsLogits: true,
    tensorflow: tensorflow?.place,
    onWarning,
    onThreadLost: lost => {
      if (tensorflow) tensorflow.onThreadLost(lost);
      else onWarning(`Thread ${lost.thread} was lost and replaced: ${lost.reason}.`);
    },
  });
  try {
    const { logits, ...sums } = (await node.evaluate('test'))!;
    return { ...sums, logits: logits! };
  } finally {
    await node.close();
  }
}

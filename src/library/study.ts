// `study`: trains the presets over several seeds, and writes tables, curves and text of what came out, beside published
// figures.
//
// Every run has its folder, by model and seed. One that is finished is read and not trained again, one that is not goes on,
// so a study is resumed, or gets more seeds, by the same call.

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import * as v from 'valibot';
import { openData } from '../coordinator/data.js';
import { makeFolder, statsOf, tryToWrite } from '../coordinator/disk.js';
import { readEpochs } from '../coordinator/metrics-file.js';
import { explain, isForeign, replaceFile, WEIGHTS_FILE } from '../coordinator/run-folder.js';
import { damaged, isRun, readProgress, readRunConfig, type RunConfig } from '../coordinator/stored-run.js';
import { normalizationOf, type DatasetContent } from '../shared/dataset.js';
import { LockstepError, messageOf } from '../shared/errors.js';
import { plural, withoutUndefined } from '../shared/format.js';
import { canonicalJson } from '../shared/hash.js';
import { compileModel } from '../shared/model.js';
import { presetSpec } from '../shared/presets.js';
import {
  createJob,
  parseSettings,
  path,
  resolveSettings,
  wholeNumber,
  workersSchema,
  type Job,
  type TrainSettings,
} from '../shared/settings.js';
import { profileOf } from '../worker/engines/engine.js';
import {
  published,
  studyModels,
  summarizeEpochs,
  type StudyModel,
  type StudyModelName,
  type StudyResult,
  type StudyRun,
} from '../report/study-figures.js';
import { describeLayers } from './describe.js';
import { readPackage } from './package.js';
import { train, type TrainOptions } from './train.js';

const studySchema = v.strictObject({
  /** How many, from 1 on. */
  seeds: wholeNumber(1, 100),
  /** The folder. */
  out: path,
  workers: workersSchema,
});

export type StudySettings = v.InferOutput<typeof studySchema>;

/** Where the user says nothing. */
export const studyDefaults: StudySettings = { seeds: 5, out: 'study', workers: 'auto' };

export interface StudyOptions extends Partial<StudySettings> {
  /** Ends the call after a step, saved; it then rejects with LOCKSTEP_INTERRUPTED, and the same call goes on. */
  readonly signal?: AbortSignal | undefined;
  /** What it throws the call rejects with, after it has ended the run at work as `signal` does. */
  readonly onProgress?: ((progress: StudyProgress) => void) | undefined;
}

export interface StudyProgress {
  /** Runs that have ended, those of earlier calls too. */
  readonly done: number;
  readonly runs: number;
  /** Of all runs together. */
  readonly step: number;
  readonly totalSteps: number;
  /** The run that is at work; undefined before the first and after each. */
  readonly current: { readonly model: StudyModelName; readonly seed: number } | undefined;
  /** The run that has ended since the last call. */
  readonly ended?: StudyRun;
}

export interface Study extends StudyResult {
  /** An absolute path. */
  readonly dir: string;
  /** In the folder. */
  readonly files: readonly string[];
  /** Runs that this call trained, or went on with. */
  readonly trained: number;
  readonly warnings: readonly string[];
}

/**
 * Trains LeNet-5, the MLP and the regularized LeNet-5 with their defaults on MNIST, each with the seeds 1 to `seeds`, and
 * writes the study's files. Prints nothing.
 * @throws LOCKSTEP_BAD_SETTING; LOCKSTEP_RUN_EXISTS if other files or runs are in the place of its own; LOCKSTEP_RUN_FOLDER;
 * LOCKSTEP_FILE_DAMAGED; LOCKSTEP_INTERRUPTED; what `train` throws
 */
export async function study({ signal, onProgress, ...chosen }: StudyOptions = {}): Promise<Study> {
  const settings = parseSettings(studySchema, { ...studyDefaults, ...withoutUndefined(chosen) });
  return studyOf(settings, { signal, onProgress });
}

/** What every run has beside its model and seed: nothing, but in tests. */
export interface StudyVariant {
  readonly settings?: Partial<TrainSettings>;
  readonly dataset?: DatasetContent;
  /** Into each that this call trains. */
  readonly inject?: string;
}

export async function studyOf(
  { seeds: count, out, workers }: StudySettings,
  { signal, onProgress }: Pick<StudyOptions, 'signal' | 'onProgress'>,
  variant: StudyVariant = {},
): Promise<Study> {
  const dir = resolve(out);
  explain(dir, () => prepareFolder(dir), 'study');
  const seeds = Array.from({ length: count }, (_, index) => index + 1);
  const { plans, dataset } = planRuns(dir, seeds, variant);
  const toTrain = plans.filter(({ state }) => state !== 'finished');
  // They are read first: what is damaged is told before hours of training.
  const runs = plans.filter(({ state }) => state === 'finished').map(plan => readRun(plan));

  const warnings = new Set<string>();
  const totalSteps = stepsOf(plans);
  let stepsBefore = totalSteps - stepsOf(toTrain);
  const tell = (more: Partial<StudyProgress>): void => {
    const told = { done: runs.length, runs: plans.length, step: stepsBefore, totalSteps, current: undefined };
    onProgress?.({ ...told, ...more });
  };
  tell({});
  for (const plan of toTrain) {
    const { model, seed } = plan;
    const ended = await trainRun(plan, {
      workers,
      signal,
      variant,
      place: `after ${runs.length} of ${plans.length} runs`,
      onStep: step => tell({ step: stepsBefore + step, current: { model, seed } }),
      onWarning: message => warnings.add(message),
    });
    runs.push(ended);
    stepsBefore += plan.job.totalSteps;
    tell({ ended });
  }

  const result: StudyResult = {
    format: 'lockstep-study-1',
    version: readPackage().version,
    profile: plans[0].job.bits.profile,
    dataset,
    epochs: plans[0].job.settings.epochs,
    seeds,
    models: studyModels.map(model => modelOf(model, plans, runs)),
  };
  const files = await filesOf(result);
  explain(dir, () => writeFiles(dir, files), 'study');
  return {
    ...result,
    dir,
    files: files.map(({ path: name }) => name),
    trained: toTrain.length,
    warnings: [...warnings],
  };
}

interface Plan {
  readonly model: StudyModelName;
  readonly seed: number;
  readonly runDir: string;
  readonly job: Job;
  readonly state: 'new' | 'unfinished' | 'finished';
}

/** Seed by seed, so that a study that is ended early has all models of those that it has. */
function planRuns(
  dir: string,
  seeds: readonly number[],
  { settings: own, dataset: content }: StudyVariant,
): { plans: Plan[]; dataset: StudyResult['dataset'] } {
  const dataset = openData(resolveSettings({}), content);
  const { shape, classes } = dataset;
  // Computed once, and not again for the job of every seed.
  const normalization = normalizationOf(dataset.train.images);
  const models = studyModels.map(name => ({
    name,
    model: { ...compileModel(presetSpec(name, classes), shape, classes), normalization },
  }));
  const plans = seeds.flatMap(seed =>
    models.map(({ name, model }): Plan => {
      const settings = resolveSettings({ ...own, model: name, seed });
      const job = createJob(settings, model, dataset, profileOf(settings.engine));
      const runDir = join(dir, 'runs', `${name}-seed-${seed}`);
      return { model: name, seed, runDir, job, state: explain(dir, () => stateOf(runDir, job), 'study') };
    }),
  );
  const { name, digest, train: trainSet, test } = dataset;
  const trainSamples = trainSet.labels.length;
  return { plans, dataset: { name, digest, trainSamples, testSamples: test.labels.length } };
}

/** @throws LOCKSTEP_RUN_EXISTS if the folder holds something else than this run */
function stateOf(runDir: string, job: Job): Plan['state'] {
  const refuse = (what: string): never => {
    throw new LockstepError(
      'LOCKSTEP_RUN_EXISTS',
      `${runDir} ${what}: remove it, or name another folder with --out.`,
    );
  };
  const stats = statsOf(runDir);
  if (!stats) return 'new';
  if (!stats.isDirectory()) return refuse('is no folder, and a run of the study is kept there');
  if (!isRun(runDir)) {
    return readdirSync(runDir).some(isForeign) ? refuse('holds files that are no run of the study') : 'new';
  }
  let config: RunConfig;
  try {
    config = readRunConfig(runDir);
  } catch (error) {
    return refuse(`holds a run that cannot be read (${messageOf(error)})`);
  }
  const names = differences(config, job);
  if (names.length > 0)
    refuse(`holds a run that is not the study's: it differs in what decides bits, ${names.join(', ')}`);
  return isFinished(runDir) ? 'finished' : 'unfinished';
}

/** By its end or, where its files do not tell, by its weights: then reading them says what is damaged. */
function isFinished(runDir: string): boolean {
  try {
    return readProgress(runDir).isFinished;
  } catch {
    return existsSync(join(runDir, WEIGHTS_FILE));
  }
}

/** What decides the bits of a run and is not as in `job`. */
function differences({ bits: stored, settings }: RunConfig, job: Job): string[] {
  const own: Readonly<Record<string, unknown>> = { ...job.bits };
  const names = [...new Set([...Object.keys(own), ...Object.keys(stored)])];
  return [
    ...names.filter(name => canonicalJson(own[name]) !== canonicalJson(stored[name])),
    ...(settings.mixed ? ['mixed'] : []),
  ];
}

function stepsOf(plans: readonly Plan[]): number {
  return plans.reduce((sum, { job }) => sum + job.totalSteps, 0);
}

interface RunCall {
  readonly workers: StudySettings['workers'];
  readonly signal: AbortSignal | undefined;
  readonly variant: StudyVariant;
  /** Where in the study the run is, for the message of an interruption. */
  readonly place: string;
  readonly onStep: (step: number) => void;
  readonly onWarning: (message: string) => void;
}

/** Begins a run or goes on with it, and gives what it then tells. @throws what `train` throws, and `onStep` */
async function trainRun(plan: Plan, call: RunCall): Promise<StudyRun> {
  const { onStep, onWarning } = call;
  onStep(0);
  const training = train(trainOptions(plan, call));
  try {
    for await (const event of training) {
      if (event.type === 'warning') onWarning(event.message);
      if (event.type === 'thread-lost') {
        onWarning(`Thread ${event.thread} was lost and replaced: ${event.reason}.`);
      }
      if (event.type === 'start' || event.type === 'step') onStep(event.step);
    }
  } catch (error) {
    // Where it is not the training that threw, leaving the loop ends it: its folder is free only when that is saved.
    const [end] = await Promise.allSettled([training]);
    throw end.status === 'rejected' && end.reason === error ? explained(error, plan, call) : error;
  }
  return readRun(plan);
}

function trainOptions(
  { model, seed, runDir, state }: Plan,
  { workers, signal, variant: { settings, ...given } }: RunCall,
): TrainOptions {
  const run = state === 'new' ? { ...settings, model, seed, out: runDir } : { resume: runDir };
  return { ...run, ...given, workers, signal };
}

/** How a training ended, in the words of a study. */
function explained(error: unknown, plan: Plan, { place }: RunCall): unknown {
  if (!(error instanceof LockstepError && error.code === 'LOCKSTEP_INTERRUPTED')) {
    return withAdvice(error, plan);
  }
  return new LockstepError(
    'LOCKSTEP_INTERRUPTED',
    `Interrupted ${place}, in that of ${plan.model} with seed ${plan.seed}, which is saved. The same command goes on ` +
      'with the study.',
  );
}

/** Where a run is damaged, says what to do about it. */
function withAdvice(error: unknown, { runDir }: Plan): unknown {
  if (!(error instanceof LockstepError && error.code === 'LOCKSTEP_FILE_DAMAGED')) return error;
  return new LockstepError(
    error.code,
    `${error.message} Remove the folder ${runDir}, and the same command trains this run again.`,
    { cause: error },
  );
}

/** What a finished run tells. @throws LOCKSTEP_FILE_DAMAGED */
function readRun(plan: Plan): StudyRun {
  const { model, seed, runDir, job } = plan;
  try {
    const epochs = readEpochs(runDir);
    const { hash, end } = readProgress(runDir);
    if (epochs.length !== job.settings.epochs) {
      throw damaged(
        runDir,
        'metrics.jsonl',
        `it tells of ${plural(epochs.length, 'epoch')}, not ${job.settings.epochs}`,
      );
    }
    if (!end || hash !== end.hash) {
      throw damaged(runDir, 'hashes.txt', 'it does not end with the hash that metrics.jsonl has at its end');
    }
    return { model, seed, ...end, epochs };
  } catch (error) {
    throw withAdvice(error, plan);
  }
}

function modelOf(model: StudyModelName, plans: readonly Plan[], runs: readonly StudyRun[]): StudyModel {
  const { job } = plans.find(plan => plan.model === model)!;
  const { optimizer, lr, lrSchedule, weightDecay } = job.settings;
  const { batch, leaf } = job.bits;
  const own = runs.filter(run => run.model === model).toSorted((a, b) => a.seed - b.seed);
  return {
    model,
    parameters: job.model.parameterCount,
    layers: describeLayers(job.model),
    settings: { batch, leaf, optimizer, lr, lrSchedule, weightDecay },
    runs: own,
    epochs: summarizeEpochs(own),
  };
}

const RESULT_FILE = 'study.json';

interface StudyFile {
  readonly path: string;
  readonly text: string;
}

/** The study's files, the one first by which a folder is known to be a study's. */
async function filesOf(result: StudyResult): Promise<StudyFile[]> {
  // Loaded here, since nothing else needs them.
  const [{ studyDocument }, { htmlPage }, { figuresOf, markdown }] = await Promise.all([
    import('../report/study-document.js'),
    import('../report/html.js'),
    import('../report/markdown.js'),
  ]);
  const document = studyDocument(result);
  return [
    { path: RESULT_FILE, text: `${JSON.stringify({ ...result, published }, null, 2)}\n` },
    ...figuresOf(document).map(({ path: name, svg }) => ({ path: name, text: svg })),
    { path: 'README.md', text: markdown(document) },
    { path: 'study.html', text: htmlPage(document) },
  ];
}

function writeFiles(dir: string, files: readonly StudyFile[]): void {
  for (const { path: name, text } of files) {
    makeFolder(join(dir, name, '..'));
    replaceFile(join(dir, name), text);
  }
}

/** Makes the folder, and knows that it can be written and that nothing of others is overwritten. */
function prepareFolder(dir: string): void {
  const own = ['README.md', 'study.html', 'figures', RESULT_FILE];
  const held = isStudy(dir) ? [] : own.filter(name => existsSync(join(dir, name)));
  if (held.length > 0) {
    throw new LockstepError(
      'LOCKSTEP_RUN_EXISTS',
      `${dir} is no study's folder and holds ${held.join(', ')}, which a study would replace: name another with --out.`,
    );
  }
  makeFolder(join(dir, 'runs'));
  tryToWrite(dir);
  tryToWrite(join(dir, 'runs'));
}

function isStudy(dir: string): boolean {
  try {
    const held: { format?: unknown } = JSON.parse(readFileSync(join(dir, RESULT_FILE), 'utf8'));
    return held.format === ('lockstep-study-1' satisfies StudyResult['format']);
  } catch {
    return false;
  }
}

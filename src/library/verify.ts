// `verify`: computes a run again, with the run loop that computed it, and compares everything that its folder keeps.

import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import * as v from 'valibot';
import { beginning, decodeCheckpoint, type TrainingState } from '../coordinator/checkpoint.js';
import {
  hashLine,
  readKeptRun,
  RunComparison,
  type Compared,
  type Difference,
  type KeptRun,
} from '../coordinator/run-comparison.js';
import { CHECKPOINTS_DIR, stepOf } from '../coordinator/run-folder.js';
import { run } from '../coordinator/run.js';
import { readRunConfig, runConfig, type RunConfig } from '../coordinator/stored-run.js';
import { systemClock } from '../shared/clock.js';
import type { Dataset } from '../shared/dataset.js';
import { LockstepError, messageOf } from '../shared/errors.js';
import type { RunResult } from '../shared/events.js';
import { canonicalJson, chainHash, formatHash, hex64 } from '../shared/hash.js';
import { compileModel } from '../shared/model.js';
import {
  BITS_VERSION,
  createJob,
  jobHash,
  resumedSettings,
  workersSchema,
  type Job,
  type TrainSettings,
} from '../shared/settings.js';
import { profileOf } from '../worker/engines/engine.js';
import { createPool } from '../worker/pool.js';
import { checkCall, openRunData, type DataOptions } from './trained.js';

export interface VerifyOptions extends DataOptions {
  /** `'A..B'`: from the state after A steps to that after B; by default all that the run has done. */
  readonly steps?: string;
  readonly workers?: TrainSettings['workers'];
  /** Ends the call, which then rejects with LOCKSTEP_INTERRUPTED. */
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: (progress: VerifyProgress) => void;
}

/** Counted in updates: from `start` on they are computed again, `step` are done, `to` is the last. */
export interface VerifyProgress {
  readonly start: number;
  readonly step: number;
  readonly to: number;
}

/** Of a run that is what its settings give. */
export interface Verification {
  readonly runDir: string;
  /** The model's name. */
  readonly model: string;
  readonly dataset: string;
  readonly totalSteps: number;
  readonly isFinished: boolean;
  /** What was computed again begins with the state after so many steps. */
  readonly start: number;
  /** The checkpoint that holds it, in the run folder; null where it follows from the settings. */
  readonly startFile: string | null;
  /** What belongs to these steps was compared. */
  readonly from: number;
  readonly to: number;
  readonly compared: Compared;
  /** After step `to`. */
  readonly hash: string;
  readonly workers: number;
  readonly seconds: number;
  readonly warnings: readonly string[];
}

/** A run that is not what its settings give. */
export class VerifyError extends LockstepError {
  /** The first step that differs. */
  readonly step: number;
  /** All that differ there. */
  readonly differences: readonly Difference[];

  constructor(runDir: string, startFile: string | null, differences: readonly Difference[]) {
    const [{ step }] = differences;
    const found = differences.map(({ file, what }) => `${file}: ${what}.`).join(' ');
    const how = startFile === null ? 'from its beginning' : `from ${startFile}, which it takes as it is`;
    super('LOCKSTEP_VERIFY', `${runDir} differs at step ${step}, computed again ${how}. ${found}`);
    this.step = step;
    this.differences = differences;
  }
}

const stepsForm = "'A..B', steps of which A is not above B";

/**
 * Computes a run again, or some of its steps from the newest checkpoint at or before the first of them, and compares its
 * hashes, metrics, checkpoints and weights bit for bit. Changes nothing, prints nothing.
 * @throws VerifyError, of code LOCKSTEP_VERIFY, at the first step that differs; LOCKSTEP_NOT_REPRODUCIBLE;
 * LOCKSTEP_DATA_MISSING, LOCKSTEP_DATA_DIGEST; LOCKSTEP_RUN_MISSING, LOCKSTEP_FILE_DAMAGED; LOCKSTEP_INTERRUPTED
 */
export async function verify(runDir: string, options: VerifyOptions = {}): Promise<Verification> {
  const startMs = systemClock.nowMs();
  const { signal, onProgress, ...chosen } = options;
  const steps = v.pipe(v.string(stepsForm), v.regex(/^\d{1,10}\.\.\d{1,10}$/, stepsForm));
  checkCall({ steps: v.optional(steps), workers: v.optional(workersSchema) }, runDir, chosen);
  const { steps: range, workers = 'auto', ...dataOptions } = chosen;

  const config = readRunConfig(runDir);
  requireReproducible(runDir, config);
  const warnings: string[] = [];
  const dataset = openRunData({ config, source: { runDir }, warnings }, dataOptions);
  requireOwnData(runDir, config, dataset);
  const job = jobOf(config, dataset);
  const kept = readKeptRun(runDir);
  const ownDifferences = configDifferences(config, job, dataset);
  if (ownDifferences.length > 0) throw new VerifyError(kept.dir, null, ownDifferences);

  const { from, to } = extentOf(range, Math.min(kept.lastStep, job.totalSteps), runDir);
  const { state, file: startFile } = startAt(from, job, kept, warnings);
  const { step: start } = state;
  const { totalSteps } = job;
  const comparison = new RunComparison(kept, {
    start,
    isFromCheckpoint: startFile !== null,
    from,
    to,
    totalSteps,
  });
  const threads = workers === 'auto' ? availableParallelism() : workers;
  let lastStep = start;
  const onStep = (step: number): void => onProgress?.({ start, step: (lastStep = step), to });
  try {
    onStep(start);
    const task = { job: { ...job, totalSteps: to }, dataset, state, threads };
    const { hash } = await computeAgain(task, comparison, { signal, onStep, warnings });
    comparison.end();
    requireEqual(comparison, startFile);
    return {
      runDir: kept.dir,
      model: job.model.spec.name,
      dataset: dataset.name,
      totalSteps,
      isFinished: kept.isFinished,
      start,
      startFile,
      from,
      to,
      compared: comparison.compared,
      hash,
      workers: threads,
      seconds: (systemClock.nowMs() - startMs) / 1000,
      warnings,
    };
  } catch (error) {
    // What was found before it ended for another reason, or because of this.
    requireEqual(comparison, startFile);
    if (error instanceof LockstepError && error.code === 'LOCKSTEP_INTERRUPTED') {
      const text = `Interrupted after step ${lastStep}; steps ${from} to ${to} were to be compared, and nothing differed yet.`;
      throw new LockstepError('LOCKSTEP_INTERRUPTED', text);
    }
    throw error;
  } finally {
    comparison.close();
  }
}

interface Task {
  /** Its last step is the last one to be computed. */
  readonly job: Job;
  readonly dataset: Dataset;
  readonly state: TrainingState;
  readonly threads: number;
}

interface Watcher {
  readonly signal: AbortSignal | undefined;
  readonly onStep: (step: number) => void;
  readonly warnings: string[];
}

/** The run loop from `state` on, which writes nothing. */
async function computeAgain(
  { job, dataset, state, threads }: Task,
  comparison: RunComparison,
  { signal, onStep, warnings }: Watcher,
): Promise<RunResult> {
  const clock = systemClock;
  const node = await createPool({
    job,
    dataset,
    threads,
    cores: availableParallelism(),
    state,
    clock,
    onWarning: message => warnings.push(message),
    onThreadLost: ({ thread, reason }) => warnings.push(`Thread ${thread} was lost and replaced: ${reason}.`),
  });
  try {
    const { result } = await run({
      job,
      node,
      folder: comparison,
      from: state,
      checkpoints: { unit: 'listed', steps: comparison.checkpointSteps },
      clock,
      startMs: clock.nowMs(),
      signal,
      emit: ({ type }, step) => {
        if (type === 'step') onStep(step);
      },
    });
    return result;
  } finally {
    await node.close();
  }
}

function requireEqual({ dir, firstDifferences }: RunComparison, startFile: string | null): void {
  if (firstDifferences.length > 0) throw new VerifyError(dir, startFile, firstDifferences);
}

/** @throws LOCKSTEP_NOT_REPRODUCIBLE */
function requireReproducible(runDir: string, { settings, bits }: RunConfig): void {
  const refuse = (why: string): never => {
    throw new LockstepError('LOCKSTEP_NOT_REPRODUCIBLE', `The run ${runDir} cannot be verified: ${why}.`);
  };
  if (settings.mixed)
    refuse('nodes of any arithmetic could join it (--mixed), so nobody can compute its bits again');
  const { engine } = settings;
  if (engine === 'tensorflow') {
    refuse('TensorFlow computed it, whose bits depend on its version, the device and its settings');
  }
  const own = { profile: profileOf(engine), bitsVersion: BITS_VERSION };
  if (bits.profile !== own.profile || bits.bitsVersion !== own.bitsVersion) {
    const [was, is] = [bits, own].map(
      ({ profile, bitsVersion }) => `${String(profile)}, version ${String(bitsVersion)} of the bits`,
    );
    refuse(`it was computed in the arithmetic ${was}, and this version of Lockstep has ${is}`);
  }
}

/** @throws LOCKSTEP_DATA_DIGEST */
function requireOwnData(runDir: string, { dataset: own }: RunConfig, { name, digest }: Dataset): void {
  if (digest === own.digest) return;
  throw new LockstepError(
    'LOCKSTEP_DATA_DIGEST',
    `The run ${runDir} was trained on data with the digest ${own.digest} (${own.name}), and ${name} has ${digest}: ` +
      'name the folder where its data are with --data.',
  );
}

function jobOf({ settings, model: spec }: RunConfig, dataset: Dataset): Job {
  const model = compileModel(spec, dataset.shape, dataset.classes);
  return createJob(resumedSettings(settings, {}), model, dataset, profileOf(settings.engine));
}

/** What config.json says to follow from the settings in it, and does not. */
function configDifferences(stored: RunConfig, job: Job, dataset: Dataset): Difference[] {
  const now = runConfig(job, dataset, stored.dataset.isGiven);
  const names = new Set([...Object.keys(now.bits), ...Object.keys(stored.bits)]);
  const pairs: [string, unknown, unknown][] = [
    ...Array.from(names, (name): [string, unknown, unknown] => [name, stored.bits[name], now.bits[name]]),
    ['normalization', stored.normalization, now.normalization],
    ['totalSteps', stored.totalSteps, now.totalSteps],
  ];
  return pairs
    .map(([name, is, should]) => [name, canonicalJson(is), canonicalJson(should)])
    .filter(([, is, should]) => is !== should)
    .map(([name, is, should]) => {
      const what = `it says that ${name} is ${is}, and its settings and data make it ${should}`;
      return { step: 0, file: 'config.json', what };
    });
}

/** @throws LOCKSTEP_BAD_SETTING */
function extentOf(range: string | undefined, last: number, runDir: string): { from: number; to: number } {
  if (range === undefined) return { from: 0, to: last };
  const [from, to] = range.split('..').map(Number);
  const fail = (expected: string): never => {
    throw new LockstepError('LOCKSTEP_BAD_SETTING', `Setting steps is '${range}', expected ${expected}.`);
  };
  if (from > to) fail(stepsForm);
  if (to > last) fail(`steps up to ${last}, so many has ${runDir} done`);
  return { from, to };
}

/** The newest state at or before `from` that agrees with hashes.txt, or the beginning. */
function startAt(
  from: number,
  job: Job,
  kept: KeptRun,
  warnings: string[],
): { readonly state: TrainingState; readonly file: string | null } {
  for (const name of kept.checkpoints.filter(held => stepOf(held) > 0 && stepOf(held) <= from)) {
    const file = `${CHECKPOINTS_DIR}/${name}`;
    const path = join(kept.dir, file);
    try {
      const state = decodeCheckpoint(job, readFileSync(path), path);
      if (isOfChain(job, state, stepOf(name), kept)) return { state, file };
      warnings.push(`${path} does not agree with hashes.txt, so nothing begins with it.`);
    } catch (error) {
      warnings.push(`Nothing begins with ${path}: ${messageOf(error)}`);
    }
  }
  return { state: beginning(job), file: null };
}

/** Whether a checkpoint's weights lead from the hash before its step to the one after it. */
function isOfChain(job: Job, { step, hash, bank }: TrainingState, named: number, kept: KeptRun): boolean {
  if (step !== named || hashLine(kept, step) !== formatHash(hash)) return false;
  const before = step === 1 ? formatHash(jobHash(job)) : hashLine(kept, step - 1);
  return hex64.test(before) && chainHash(BigInt(`0x${before}`), bank.weights, step) === hash;
}

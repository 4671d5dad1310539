// `train`: puts the parts together. Everything the command line does is this call.

import { availableParallelism } from 'node:os';
import { loadData } from '../coordinator/data.js';
import { run } from '../coordinator/run.js';
import { RunFolder } from '../coordinator/run-folder.js';
import { systemClock } from '../shared/clock.js';
import { LockstepError, messageOf } from '../shared/errors.js';
import type { RunEvent, RunEventBody, RunResult } from '../shared/events.js';
import { parseFault, type Fault } from '../shared/faults.js';
import { compileModel } from '../shared/model.js';
import { presetSpec } from '../shared/presets.js';
import { createJob, resolveSettings, type Job, type TrainSettings } from '../shared/settings.js';
import { F32_PROFILE } from '../worker/engines/engine.js';
import { createPool } from '../worker/pool.js';

export interface TrainOptions extends Partial<TrainSettings> {
  /** Is told everything that happens, in order. */
  readonly onEvent?: (event: RunEvent) => void;
  /** Ends the run at the next step boundary; the promise then rejects with LOCKSTEP_INTERRUPTED. */
  readonly signal?: AbortSignal;
  /** A fault to inject, in the form of `docs/faults.md`. */
  readonly inject?: string | undefined;
}

/**
 * Trains a model on MNIST with worker threads of this process, and keeps the result in a run folder.
 * @throws LockstepError with a code of `docs/errors.md`, after an `error` event that says the same
 */
export async function train(options: TrainOptions = {}): Promise<RunResult> {
  const { onEvent, ...rest } = options;
  const startMs = systemClock.nowMs();
  let lastStep = 0;
  const emit = (event: RunEventBody, step = lastStep): void => {
    lastStep = step;
    onEvent?.({ ...event, step, timeMs: systemClock.nowMs() - startMs });
  };
  try {
    const result = await trainJob(rest, startMs, emit);
    emit({ type: 'done', ...result }, result.steps);
    return result;
  } catch (error) {
    const code = error instanceof LockstepError ? error.code : 'LOCKSTEP_INTERNAL';
    emit({ type: 'error', code, message: messageOf(error) });
    throw error;
  }
}

async function trainJob(
  { signal, inject, ...chosen }: Omit<TrainOptions, 'onEvent'>,
  startMs: number,
  emit: (event: RunEventBody, step?: number) => void,
): Promise<RunResult> {
  const settings = resolveSettings(chosen);
  const fault = inject === undefined ? undefined : parseFault(inject);
  const cores = availableParallelism();
  const threads = settings.workers === 'auto' ? cores : settings.workers;
  const dataset = loadData(settings.data, settings.labelOffset);
  const model = compileModel(presetSpec(settings.model, dataset.classes), dataset.shape, dataset.classes);
  const job = createJob(settings, model, dataset, F32_PROFILE);
  const folder = RunFolder.create(settings.out, settings.model, runConfig(job, threads));
  try {
    emit({
      type: 'start',
      model: settings.model,
      parameters: model.parameterCount,
      dataset: dataset.name,
      trainSamples: dataset.train.labels.length,
      testSamples: dataset.test.labels.length,
      epochs: Math.ceil(job.totalSteps / job.stepsPerEpoch),
      totalSteps: job.totalSteps,
      stepsPerEpoch: job.stepsPerEpoch,
      batch: job.bits.batch,
      leaf: job.bits.leaf,
      lanes: job.lanes,
      workers: threads,
      engine: settings.engine,
      profile: job.bits.profile,
      seed: settings.seed,
      runDir: folder.dir,
    });
    for (const message of warnings(chosen, job, threads, fault)) emit({ type: 'warning', message });
    const node = await createPool({
      job,
      dataset,
      threads,
      cores,
      clock: systemClock,
      fault,
      onWarning: message => emit({ type: 'warning', message }),
      onThreadLost: ({ step, ...lost }) => emit({ type: 'thread-lost', ...lost }, step),
    });
    try {
      return await run({ job, node, folder, clock: systemClock, startMs, emit, signal });
    } finally {
      await node.close();
    }
  } finally {
    folder.close();
  }
}

/** What `config.json` keeps: every setting, and apart from them exactly those that decide bits. */
function runConfig({ settings, bits, normalization, totalSteps }: Job, workers: number): object {
  return { settings: { ...settings, workers, leaf: bits.leaf }, bits, normalization, totalSteps };
}

function warnings(
  chosen: Partial<TrainSettings>,
  { lanes, settings }: Job,
  threads: number,
  fault: Fault | undefined,
): string[] {
  const found: string[] = [];
  for (const name of ['momentum', 'nesterov'] as const) {
    if (chosen[name] !== undefined && settings.optimizer !== 'sgd') {
      found.push(`The setting ${name} is of the optimizer sgd; it has no effect with ${settings.optimizer}.`);
    }
  }
  if (lanes < threads) {
    found.push(
      `${threads} workers share ${lanes} lanes, so ${threads - lanes} of them have no leaves to compute: ` +
        'a larger batch or a smaller leaf gives more lanes (and other bits).',
    );
  }
  if (typeof fault?.thread === 'number' && fault.thread >= threads) {
    found.push(`The fault to inject names thread ${fault.thread}; there are threads 0 to ${threads - 1}.`);
  }
  return found;
}

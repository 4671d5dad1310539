// `train`: puts the parts together. Everything the command line does is this call.

import { availableParallelism } from 'node:os';
import { loadMnist } from '../coordinator/mnist.js';
import { run } from '../coordinator/run.js';
import { RunFolder } from '../coordinator/run-folder.js';
import { systemClock } from '../shared/clock.js';
import type { RunEvent, RunEventBody, RunResult } from '../shared/events.js';
import type { Fault } from '../shared/faults.js';
import { compileModel } from '../shared/model.js';
import { presetSpec } from '../shared/presets.js';
import { createJob, resolveSettings, type TrainSettings } from '../shared/settings.js';
import { F32_PROFILE } from '../worker/engines/engine.js';
import { createPool } from '../worker/pool.js';

export interface TrainOptions extends Partial<TrainSettings> {
  /** The run folder; by default `runs/<model>-<n>` in the working directory. */
  readonly out?: string | undefined;
  readonly onEvent?: (event: RunEvent) => void;
  /** Ends the run at the next step boundary; the promise then rejects with the signal's reason. */
  readonly signal?: AbortSignal;
  /** A fault to inject, see `docs/faults.md`. */
  readonly fault?: Fault | undefined;
}

/**
 * Trains a model on MNIST with worker threads of this process, and keeps the result in a run folder.
 * @throws LockstepError with a code of `docs/errors.md`
 */
export async function train(options: TrainOptions = {}): Promise<RunResult> {
  const { out, onEvent, signal, fault, ...chosen } = options;
  const clock = systemClock;
  const startMs = clock.nowMs();
  let lastStep = 0;
  const emit = (event: RunEventBody, step = lastStep): void => {
    lastStep = step;
    onEvent?.({ ...event, step, timeMs: clock.nowMs() - startMs });
  };

  const settings = resolveSettings(chosen);
  const cores = availableParallelism();
  const workers = settings.workers === 'auto' ? cores : settings.workers;
  const dataset = loadMnist();
  const model = compileModel(presetSpec(settings.model, dataset.classes), dataset.shape, dataset.classes);
  const job = createJob(settings, model, dataset, F32_PROFILE);
  const { bits, stepsPerEpoch, totalSteps, normalization } = job;
  const lanes = bits.batch / bits.leaf;
  const folder = RunFolder.create(out, settings.model, {
    settings: { ...settings, workers },
    bits,
    normalization,
    totalSteps,
  });
  emit({
    type: 'start',
    model: settings.model,
    parameters: model.parameterCount,
    dataset: dataset.name,
    trainSamples: dataset.train.labels.length,
    testSamples: dataset.test.labels.length,
    epochs: settings.epochs,
    totalSteps,
    stepsPerEpoch,
    batch: bits.batch,
    leaf: bits.leaf,
    lanes,
    workers,
    engine: settings.engine,
    profile: bits.profile,
    seed: settings.seed,
    runDir: folder.dir,
  });
  if (lanes < workers) {
    emit({
      type: 'warning',
      message:
        `${workers} workers share ${lanes} lanes, so ${workers - lanes} will have no work: ` +
        `a larger --batch or a smaller --leaf gives more lanes (and other bits).`,
    });
  }
  if (fault && fault.thread >= workers) {
    emit({
      type: 'warning',
      message: `LOCKSTEP_INJECT names thread ${fault.thread}, and there are ${workers}.`,
    });
  }
  const node = await createPool({
    job,
    dataset,
    threads: workers,
    cores,
    clock,
    fault,
    onThreadLost: ({ step, ...lost }) => emit({ type: 'thread-lost', ...lost }, step),
  });
  try {
    const result = await run({ job, node, folder, clock, startMs, emit, signal });
    emit({ type: 'done', ...result });
    return result;
  } finally {
    await node.close();
    folder.close();
  }
}

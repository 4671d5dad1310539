// A small dataset and model on which whole runs, with real threads, take a fraction of a second.

import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beginning } from '#dist/coordinator/checkpoint.js';
import { run } from '#dist/coordinator/run.js';
import { RunFolder } from '#dist/coordinator/run-folder.js';
import { systemClock, type Clock } from '#dist/shared/clock.js';
import { createDataset, type Dataset } from '#dist/shared/dataset.js';
import type { RunEventBody, RunResult } from '#dist/shared/events.js';
import type { Fault } from '#dist/shared/faults.js';
import { compileModel, type ModelSpec } from '#dist/shared/model.js';
import type { LocalNode, LostThread } from '#dist/shared/node.js';
import { seedKey, wordsOf } from '#dist/shared/philox.js';
import { createJob, resolveSettings, type Job, type TrainSettings } from '#dist/shared/settings.js';
import { F32_PROFILE } from '#dist/worker/engines/engine.js';
import { createPool, type PoolOptions } from '#dist/worker/pool.js';

const shape = { height: 9, width: 7, channels: 1 };
const classes = 3;

export const tinyModel: ModelSpec = {
  name: 'tiny',
  layers: [
    { type: 'conv2d', filters: 5, kernelSize: 3 },
    { type: 'relu' },
    { type: 'maxPool2d', poolSize: 2 },
    { type: 'flatten' },
    { type: 'dense', units: 11 },
    { type: 'relu' },
    { type: 'dropout', rate: 0.25 },
    { type: 'dense', units: classes },
  ],
};

/** Random images whose first pixels tell the label, so that there is something to learn. */
export function tinyDataset(
  samples = 203,
  change?: (labels: Uint8Array, images: Uint8Array) => void,
): Dataset {
  const size = shape.height * shape.width;
  const set = (count: number, stream: number) => {
    const word = wordsOf(seedKey(11), stream, 0, 0);
    const images = Uint8Array.from({ length: count * size }, (_, i) => word(i) & 0xff);
    const labels = Uint8Array.from({ length: count }, (_, i) => Math.floor(images[i * size] / 86));
    return { images, labels };
  };
  const train = set(samples, 1);
  change?.(train.labels, train.images);
  return createDataset({ name: 'tiny', shape, classes, train, test: set(50, 2) });
}

export function tinyJob(chosen: Partial<TrainSettings> = {}, dataset = tinyDataset(), spec = tinyModel): Job {
  const settings = resolveSettings({ epochs: 3, batch: 24, leaf: 3, lr: 0.01, ...chosen });
  return createJob(settings, compileModel(spec, dataset.shape, dataset.classes), dataset, F32_PROFILE);
}

export interface TinyRun {
  readonly result: RunResult;
  /** The hash after every step, as the folder keeps it. */
  readonly hashes: readonly string[];
  readonly events: readonly RunEventBody[];
  readonly lost: readonly LostThread[];
}

export interface TinyOptions {
  readonly threads?: number;
  readonly dataset?: Dataset;
  readonly job?: Job;
  readonly fault?: Partial<Fault>;
  /** The most steps of a span. */
  readonly spanLimit?: number;
  readonly signal?: AbortSignal;
  /** The pool's. */
  readonly clock?: Clock;
  readonly onEvent?: (event: RunEventBody, step: number | undefined) => void;
}

/** The real pool and the real run loop; the folder is removed afterwards. */
export async function runTiny(options: TinyOptions = {}): Promise<TinyRun> {
  const { threads = 2, dataset = tinyDataset(), spanLimit, signal, clock = systemClock, onEvent } = options;
  const job = options.job ?? tinyJob({}, dataset);
  const fault: Fault | undefined = options.fault && {
    kind: 'throw',
    thread: threads - 1,
    step: 5,
    phase: 'leaf',
    times: 1,
    ...options.fault,
  };
  const events: RunEventBody[] = [];
  const lost: LostThread[] = [];
  const dir = mkdtempSync(join(tmpdir(), 'lockstep-tiny-'));
  const folder = RunFolder.create(join(dir, 'run'), 'tiny', {});
  const node = await createTinyPool({
    job,
    dataset,
    threads,
    fault,
    clock,
    onThreadLost: thread => lost.push(thread),
  });
  try {
    const { result } = await run({
      job,
      from: beginning(job),
      node: spanLimit === undefined ? node : withSpanLimit(node, spanLimit),
      folder,
      clock: systemClock,
      startMs: systemClock.nowMs(),
      emit: (event, step) => {
        events.push(event);
        onEvent?.(event, step);
      },
      signal,
    });
    const hashes = readFileSync(join(folder.dir, 'hashes.txt'), 'utf8').trimEnd().split('\n');
    return { result, hashes, events, lost };
  } finally {
    await node.close();
    folder.close();
    rmSync(dir, { recursive: true });
  }
}

/** On which a hang is noticed after one second in the place of five. */
export const hastyClock: Clock = {
  ...systemClock,
  every: (periodMs, tick) => systemClock.every(periodMs / 5, tick),
};

export const ignore = (): void => {};

/** The real pool on two cores, or as many as a test says. */
export function createTinyPool(
  options: Pick<PoolOptions, 'job' | 'dataset' | 'threads'> & Partial<PoolOptions>,
): Promise<LocalNode> {
  return createPool({ cores: 2, clock: systemClock, onThreadLost: ignore, onWarning: ignore, ...options });
}

function withSpanLimit(node: LocalNode, spanLimit: number): LocalNode {
  return {
    threads: node.threads,
    spanLimit,
    train: (firstStep, scalars) => node.train(firstStep, scalars),
    compute: (task, lanes) => node.compute(task, lanes),
    update: (step, scalars, sums) => node.update(step, scalars, sums),
    weights: () => node.weights(),
    evaluate: set => node.evaluate(set),
    state: () => node.state(),
    cut: () => node.cut(),
    race: (firstStep, scalars, durationMs) => node.race(firstStep, scalars, durationMs),
    reports: () => node.reports(),
    close: () => node.close(),
  };
}

// `bench`: measures how throughput scales with workers, batch and leaf.
//
// Every configuration is measured once per repetition, so that a machine whose speed drifts treats all alike. In a
// repetition it gets a pool of its own, warms up, and then alternates bursts of real training with bursts of the same
// work without barriers (the ceiling), again because speed drifts: the two are compared within a fraction of a second.

import { availableParallelism, cpus } from 'node:os';
import * as v from 'valibot';
import { loadMnist } from '../coordinator/mnist.js';
import { loadModelSpec } from '../coordinator/model-file.js';
import { planSpan, spanLength, Tally } from '../coordinator/run.js';
import { systemClock, type Clock } from '../shared/clock.js';
import type { Dataset } from '../shared/dataset.js';
import { LockstepError } from '../shared/errors.js';
import { withoutUndefined } from '../shared/format.js';
import { compileModel } from '../shared/model.js';
import type { LocalNode } from '../shared/node.js';
import { initialBetaPowers } from '../shared/optimizer.js';
import {
  createJob,
  defaults,
  parseSettings,
  resolveSettings,
  trainSettingsSchema,
  wholeNumber,
  workersSchema,
  type Job,
  type TrainSettings,
  oneOf,
  threadEngineNames,
} from '../shared/settings.js';
import { F32_PROFILE } from '../worker/engines/engine.js';
import { createPool } from '../worker/pool.js';
import {
  advise,
  defaultWorkers,
  rowOf,
  timeNames,
  type Advice,
  type BenchRow,
  type Configuration,
  type Measurement,
  type TimeName,
} from './scaling.js';

const { model, batch } = trainSettingsSchema.entries;

function listOf<const Schema extends v.GenericSchema>(item: Schema) {
  const expected = 'a list that is not empty';
  return v.pipe(
    v.array(item, expected),
    v.check(list => list.length > 0, expected),
  );
}

/** Everything `bench` accepts, by the names of the flags. Every list is combined with every other. */
const benchSettingsSchema = v.strictObject({
  model,
  workers: listOf(workersSchema),
  /** By default what `train` takes; so is the leaf, for every batch. */
  batch: v.optional(listOf(batch)),
  leaf: v.optional(listOf(wholeNumber(1))),
  engine: oneOf(threadEngineNames),
  repetitions: wholeNumber(1, 1000),
  /** Training before anything is measured: kernels get faster while the compiler tiers up. */
  warmUpMs: wholeNumber(0, 600_000),
  /** Training that is measured, for each configuration in each repetition; as much again for the ceiling. */
  measureMs: wholeNumber(1, 600_000),
});

export type BenchSettings = v.InferOutput<typeof benchSettingsSchema>;

/** Where the user says nothing. Batch and leaf are then what `train` takes, workers double up to the cores. */
export const benchDefaults = {
  model: 'lenet5',
  engine: 'wasm',
  repetitions: 5,
  warmUpMs: 500,
  measureMs: 600,
} as const;

export interface BenchProgress {
  /** Measurements done, of `total`. */
  readonly done: number;
  readonly total: number;
  /** What comes next. */
  readonly next: Configuration | undefined;
}

export interface BenchOptions extends Partial<BenchSettings> {
  readonly onProgress?: (progress: BenchProgress) => void;
}

export interface BenchResult {
  readonly model: string;
  readonly dataset: string;
  readonly engine: string;
  readonly cores: number;
  readonly processor: string;
  readonly nodeVersion: string;
  readonly repetitions: number;
  readonly warmUpMs: number;
  readonly measureMs: number;
  readonly rows: readonly BenchRow[];
  readonly advice: readonly Advice[];
  /** What happened that makes figures doubtful. */
  readonly warnings: readonly string[];
}

/** What a measurement reads beside the node. */
export interface Meters {
  readonly clock: Clock;
  /** Processor time of the whole process so far. */
  readonly processorMs: () => number;
}

export const systemMeters: Meters = {
  clock: systemClock,
  processorMs() {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1000;
  },
};

/** About how long a burst of training or of the ceiling is. */
const BURST_MS = 150;
/** Races in a row in which no thread may get a leaf done; each is twice as long as the one before. */
const MOST_RACES = 8;

/** @throws LOCKSTEP_BAD_SETTING before anything is measured; what the pool throws */
export async function bench({ onProgress, ...chosen }: BenchOptions = {}): Promise<BenchResult> {
  const cores = availableParallelism();
  const settings = parseSettings(benchSettingsSchema, {
    ...benchDefaults,
    workers: defaultWorkers(cores),
    ...withoutUndefined(chosen),
  });
  const { model: name, engine: used } = settings;
  const candidates = combine(settings, cores).map(({ threads, ...one }) => {
    return { threads, settings: steadySettings({ ...one, model: name, engine: used }) };
  });
  const dataset = loadMnist();
  const compiled = compileModel(loadModelSpec(name, dataset.classes), dataset.shape, dataset.classes);
  const entries = candidates.map(({ threads, settings: candidate }) => {
    const job = createJob(candidate, compiled, dataset, F32_PROFILE);
    const configuration = { workers: threads, batch: job.bits.batch, leaf: job.bits.leaf, lanes: job.lanes };
    return { job, configuration, measured: [] as Measurement[] };
  });

  const warnings: string[] = [];
  const total = entries.length * settings.repetitions;
  let done = 0;
  for (let repetition = 0; repetition < settings.repetitions; repetition++) {
    for (const { job, configuration, measured } of entries) {
      onProgress?.({ done, total, next: configuration });
      measured.push(await measureOnce(job, dataset, configuration.workers, cores, settings, warnings));
      done++;
    }
  }
  onProgress?.({ done, total, next: undefined });

  const rows = entries.map(({ configuration, measured }) => {
    const alone = entries.find(
      other =>
        other.configuration.workers === 1 &&
        other.configuration.batch === configuration.batch &&
        other.configuration.leaf === configuration.leaf,
    );
    return rowOf(configuration, measured, alone?.measured);
  });
  return {
    model: compiled.spec.name,
    dataset: dataset.name,
    engine: settings.engine,
    cores,
    processor: cpus()[0]?.model ?? 'unknown',
    nodeVersion: process.version,
    repetitions: settings.repetitions,
    warmUpMs: settings.warmUpMs,
    measureMs: settings.measureMs,
    rows,
    advice: advise(rows, cores),
    warnings,
  };
}

/**
 * A training for measurements, which may go on for any number of steps: what `train` takes, but with a constant learning
 * rate. How long kernels take depends on how many activations and gradients are zero, so the network should be one that
 * learns. The default rate suits the default batch and larger ones; with it LeNet-5 reaches 92 % in an epoch of batch 8,
 * and 98 % with 1/16 of it. So the rate shrinks with the batch below that.
 * @throws LOCKSTEP_BAD_SETTING
 */
export function steadySettings(chosen: Partial<TrainSettings>): TrainSettings {
  const settings = resolveSettings({ ...chosen, lrSchedule: 'constant' });
  return { ...settings, lr: settings.lr * Math.min(1, settings.batch / defaults.batch) };
}

/** Every combination once, those of one batch and leaf together, in the order of the lists. */
function combine(settings: BenchSettings, cores: number) {
  const counts = new Set(settings.workers.map(count => (count === 'auto' ? cores : count)));
  const batches = new Set(settings.batch ?? [undefined]);
  const leaves = new Set(settings.leaf ?? [undefined]);
  return Array.from(batches, size =>
    Array.from(leaves, leaf =>
      Array.from(counts, count => ({
        threads: count,
        ...(size !== undefined && { batch: size }),
        ...(leaf !== undefined && { leaf }),
      })),
    ),
  ).flat(2);
}

async function measureOnce(
  job: Job,
  dataset: Dataset,
  threads: number,
  cores: number,
  settings: BenchSettings,
  warnings: string[],
): Promise<Measurement> {
  const node = await createPool({
    job,
    dataset,
    threads,
    cores,
    clock: systemClock,
    onWarning: message => warnings.push(message),
    onThreadLost: ({ thread, reason }) => {
      warnings.push(`Thread ${thread} of ${threads} was lost while measuring: ${reason}`);
    },
  });
  try {
    return await measure(node, job, systemMeters, cores, settings);
  } finally {
    await node.close();
  }
}

/**
 * Warms `node` up and measures it, in bursts of training and of the ceiling in turns.
 * @throws LOCKSTEP_BAD_SETTING if no thread ever gets a leaf done in a burst of the ceiling
 */
export async function measure(
  node: LocalNode,
  job: Job,
  { clock, processorMs }: Meters,
  cores: number,
  { warmUpMs, measureMs }: Pick<BenchSettings, 'warmUpMs' | 'measureMs'>,
): Promise<Measurement> {
  const tally = new Tally();
  let powers = initialBetaPowers;
  const nextSpan = () => planSpan(job, tally.steps, tally.steps + spanLength(tally, node), powers);

  async function train(durationMs: number): Promise<{ samples: number; steps: number; ms: number }> {
    const { samples, steps } = tally;
    const startMs = clock.nowMs();
    let nowMs = startMs;
    do {
      const span = nextSpan();
      const results = await node.train(tally.steps, span.scalars);
      powers = span.powers.at(-1)!;
      const spanMs = clock.nowMs() - nowMs;
      nowMs += spanMs;
      tally.add(results, spanMs);
    } while (nowMs - startMs < durationMs);
    return { samples: tally.samples - samples, steps: tally.steps - steps, ms: nowMs - startMs };
  }

  /** A race counts if a thread woke up in time for it. */
  async function race(durationMs: number): Promise<{ imagesPerSecond: number; ms: number; cpuMs: number }> {
    for (let attempt = 0; attempt < MOST_RACES; attempt++, durationMs *= 2) {
      const startMs = clock.nowMs();
      const cpuStartMs = processorMs();
      const imagesPerSecond = await node.race(tally.steps, nextSpan().scalars, durationMs);
      const cpuMs = processorMs() - cpuStartMs;
      if (imagesPerSecond > 0) return { imagesPerSecond, ms: clock.nowMs() - startMs, cpuMs };
    }
    throw new LockstepError(
      'LOCKSTEP_BAD_SETTING',
      `Setting measureMs is ${measureMs}, and no thread got a leaf done in ${MOST_RACES} bursts of the ceiling, ` +
        `the last ${durationMs / 2} ms long: measure longer, or on a quieter machine.`,
    );
  }

  const bursts = Math.max(1, Math.round(measureMs / BURST_MS));
  const burstMs = measureMs / bursts;
  await train(warmUpMs);
  if (warmUpMs > 0) await node.race(tally.steps, nextSpan().scalars, Math.min(warmUpMs, burstMs));

  const sums = { samples: 0, steps: 0, trainMs: 0 };
  const timesMs = { compute: 0, wait: 0, reduce: 0, update: 0 };
  const races = { imagesPerSecond: 0, ms: 0, cpuMs: 0 };
  for (let burst = 0; burst < bursts; burst++) {
    const before = timesOf(node);
    const trained = await train(burstMs);
    const after = timesOf(node);
    for (const name of timeNames) timesMs[name] += after[name] - before[name];
    sums.samples += trained.samples;
    sums.steps += trained.steps;
    sums.trainMs += trained.ms;

    const raced = await race(burstMs);
    races.imagesPerSecond += raced.imagesPerSecond;
    races.ms += raced.ms;
    races.cpuMs += raced.cpuMs;
  }
  return {
    ...sums,
    timesMs,
    ceilingImagesPerSecond: races.imagesPerSecond / bursts,
    cpuShare: races.cpuMs / (races.ms * Math.min(node.threads, job.lanes, cores)),
  };
}

/** Milliseconds, summed over the threads. */
function timesOf(node: LocalNode): Record<TimeName, number> {
  const total = { compute: 0, wait: 0, reduce: 0, update: 0 };
  for (const { computeMs, waitMs, reduceMs, updateMs } of node.reports()) {
    total.compute += computeMs;
    total.wait += waitMs;
    total.reduce += reduceMs;
    total.update += updateMs;
  }
  return total;
}

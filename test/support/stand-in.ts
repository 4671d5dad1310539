// A tiny engine for the simulation: integer gradients in closed form, which depend on the weights, the step, the lane
// and the bytes of the samples, so that whatever is computed from the wrong ones shows in the hash.

import type { SetName } from '#dist/shared/dataset.js';
import { createDataset, type Dataset } from '#dist/shared/dataset.js';
import { sha256 } from '#dist/shared/hash.js';
import type { LeafJob } from '#dist/shared/leaf-job.js';
import { compileModel } from '#dist/shared/model.js';
import type {
  AgentNode,
  Evaluated,
  Lanes,
  LocalNode,
  NodeState,
  PartSums,
  StepResult,
  Task,
} from '#dist/shared/node.js';
import type { UpdateScalars } from '#dist/shared/optimizer.js';
import { datasetOrder, Schedule } from '#dist/shared/schedule.js';
import { shardBytes, shardsOf, type Shard } from '#dist/shared/shards.js';
import { createJob, jobHash, resolveSettings, type Job } from '#dist/shared/settings.js';
import type { Process } from './world.js';

const SIDE = 2;
const PIXELS = SIDE * SIDE;
const SHARD_SAMPLES = 16;
const PRIME = 65_521;

export function standInDataset(trainSamples: number, testSamples: number, seed: number): Dataset {
  const set = (count: number, salt: number) => ({
    images: Uint8Array.from({ length: count * PIXELS }, (_, i) => (i * 31 + seed * 7 + salt) % 251),
    labels: Uint8Array.from({ length: count }, (_, i) => (i + seed) % 2),
  });
  const shape = { height: SIDE, width: SIDE, channels: 1 };
  return createDataset({
    name: 'stand-in',
    shape,
    classes: 2,
    train: set(trainSamples, 1),
    test: set(testSamples, 2),
  });
}

export function standInJob(dataset: Dataset, batch: number, leaf: number, epochs: number): Job {
  const layers = [{ type: 'flatten' as const }, { type: 'dense' as const, units: 2 }];
  const settings = resolveSettings({ model: { name: 'stand-in', layers }, batch, leaf, epochs, workers: 1 });
  return createJob(
    settings,
    compileModel({ name: 'stand-in', layers }, dataset.shape, 2),
    dataset,
    'stand-in-1',
  );
}

/** Small ones, so that a tiny dataset has many. */
export function smallShards(dataset: Dataset): Shard[] {
  return shardsOf(dataset, SHARD_SAMPLES);
}

/** What samples lie where; those that were never loaded are absent. */
class Samples {
  readonly #values: Record<SetName, (number | undefined)[]> = { train: [], test: [] };

  load(set: SetName, from: number, samples: number, bytes: Uint8Array): void {
    for (let i = 0; i < samples; i++) {
      let value = bytes[samples * PIXELS + i] + 1;
      for (let pixel = 0; pixel < PIXELS; pixel++) value = (value * 33 + bytes[i * PIXELS + pixel]) % PRIME;
      this.#values[set][from + i] = value;
    }
  }

  at(set: SetName, position: number): number {
    const value = this.#values[set][position];
    if (value === undefined) throw new Error(`sample ${position} of the ${set} set is not here`);
    return value;
  }
}

/** The arithmetic: pure, and the same for everybody. */
class Arithmetic {
  readonly job: Pick<LeafJob, 'batch' | 'leaf' | 'seed' | 'samples' | 'model'>;
  readonly schedule: Schedule;

  constructor(job: Pick<LeafJob, 'batch' | 'leaf' | 'seed' | 'samples' | 'model'>) {
    const { batch, leaf, seed, samples } = job;
    this.job = job;
    this.schedule = new Schedule({ samples: samples.train, seed, batch, leaf });
  }

  part({ kind, set, step }: Task, lanes: Lanes, weights: ArrayLike<number>, samples: Samples): PartSums {
    const { model } = this.job;
    const sums = { lossSum: 0, correct: 0, samples: 0 };
    const gradient = new Float64Array(kind === 'gradient' ? model.paddedCount : 0);
    const add = (lane: number, position: number): void => {
      const value = samples.at(set, position);
      sums.samples++;
      sums.lossSum += (value + weights[value % model.parameterCount]) % 7;
      sums.correct += value % 2;
      if (kind === 'evaluate') return;
      for (let j = 0; j < model.parameterCount; j++) {
        gradient[j] += (value * (j + 1) + lane * 17 + step * 5 + weights[j]) % 1009;
      }
    };
    const count = this.job.samples[set];
    for (let lane = lanes.from; lane < lanes.to; lane++) {
      if (kind === 'gradient') {
        for (const position of this.schedule.leafPositions(step, lane)) add(lane, position);
      } else {
        const end = Math.floor(((lane + 1) * count) / this.schedule.lanes);
        for (let p = Math.floor((lane * count) / this.schedule.lanes); p < end; p++) add(lane, p);
      }
    }
    return { ...sums, gradient };
  }

  updated(weights: Float32Array, gradient: Float64Array): Float32Array {
    return weights.map((weight, j) => (weight * 31 + gradient[j]) % PRIME);
  }

  chained(hash: bigint, step: number, weights: Float32Array): bigint {
    return BigInt(`0x${sha256(`${hash} ${step} ${weights.join(' ')}`).slice(0, 16)}`);
  }
}

/** What the run must come to, by one plain loop. */
export function expectedRun(job: Job, dataset: Dataset): { hashes: bigint[]; sums: PartSums[] } {
  const node = new Arithmetic(leafJob(job, dataset));
  const samples = wholeOf(dataset);
  let weights: Float32Array = new Float32Array(job.model.paddedCount);
  let hash = jobHash(job);
  const hashes: bigint[] = [];
  const sums: PartSums[] = [];
  for (let step = 0; step < job.totalSteps; step++) {
    const part = node.part(
      { kind: 'gradient', set: 'train', step },
      { from: 0, to: job.lanes },
      weights,
      samples,
    );
    weights = node.updated(weights, part.gradient);
    hash = node.chained(hash, step + 1, weights);
    hashes.push(hash);
    sums.push(part);
  }
  return { hashes, sums };
}

/** Loss and count of an evaluation, by one plain loop. */
export function expectedEvaluation(
  job: Job,
  dataset: Dataset,
  { bank, step }: NodeState,
  set: SetName,
): PartSums {
  const node = new Arithmetic(leafJob(job, dataset));
  return node.part(
    { kind: 'evaluate', set, step },
    { from: 0, to: job.lanes },
    bank.weights,
    wholeOf(dataset),
  );
}

function leafJob(job: Job, { train, test }: Dataset) {
  const { batch, leaf, seed } = job.bits;
  return {
    model: job.model,
    batch,
    leaf,
    seed,
    samples: { train: train.labels.length, test: test.labels.length },
  };
}

function wholeOf(dataset: Dataset): Samples {
  const samples = new Samples();
  const order = datasetOrder(dataset.digest, dataset.train.labels.length);
  for (const set of ['train', 'test'] as const) {
    const all = { set, from: 0, samples: dataset[set].labels.length };
    samples.load(set, 0, all.samples, shardBytes(dataset, order, all));
  }
  return samples;
}

/** Takes simulated time for what it computes. */
class TimedNode {
  readonly threads: number;
  protected readonly process: Process;
  readonly #laneMs: number;
  #isBusy = false;

  constructor(process: Process, threads: number, laneMs: number) {
    this.process = process;
    this.threads = threads;
    this.#laneMs = laneMs;
  }

  /** One call at a time. */
  protected async take<T>(lanes: number, work: () => T): Promise<T> {
    if (this.#isBusy) throw new Error('a node was asked for two things at once');
    this.#isBusy = true;
    await new Promise<void>(resolve => {
      this.process.clock.after((lanes * this.#laneMs) / Math.max(1, this.threads), resolve);
    });
    this.#isBusy = false;
    return work();
  }

  async close(): Promise<void> {}
}

export class StandInAgentNode extends TimedNode implements AgentNode {
  readonly #arithmetic: Arithmetic;
  readonly #samples = new Samples();
  readonly #loaded = new Set<string>();
  #weights = new Float32Array(0);
  #step = -1;

  constructor(process: Process, threads: number, laneMs: number, job: LeafJob) {
    super(process, threads, laneMs);
    this.#arithmetic = new Arithmetic(job);
  }

  loadShard(set: SetName, from: number, samples: number, bytes: Uint8Array): void {
    if (this.#loaded.has(`${set} ${from}`)) throw new Error(`shard ${set} ${from} is loaded twice`);
    this.#loaded.add(`${set} ${from}`);
    this.#samples.load(set, from, samples, bytes);
  }

  setWeights(step: number, weights: Float32Array): void {
    this.#step = step;
    this.#weights = weights.slice();
  }

  compute(task: Task, lanes: Lanes): Promise<PartSums> {
    if (task.step !== this.#step) throw new Error(`weights of step ${this.#step} for step ${task.step}`);
    const weights = this.#weights;
    return this.take(lanes.to - lanes.from, () => this.#arithmetic.part(task, lanes, weights, this.#samples));
  }
}

export class StandInLocalNode extends TimedNode implements LocalNode {
  readonly spanLimit = 512;
  readonly #arithmetic: Arithmetic;
  readonly #samples: Samples;
  readonly #job: Job;
  #state: NodeState;
  #isCut = false;

  constructor(
    process: Process,
    threads: number,
    laneMs: number,
    job: Job,
    dataset: Dataset,
    state: NodeState,
  ) {
    super(process, threads, laneMs);
    this.#job = job;
    this.#arithmetic = new Arithmetic(leafJob(job, dataset));
    this.#samples = wholeOf(dataset);
    this.#state = state;
  }

  compute(task: Task, lanes: Lanes): Promise<PartSums> {
    if (task.step !== this.#state.step)
      throw new Error(`weights of step ${this.#state.step} for ${task.step}`);
    if (this.threads === 0) throw new Error('a node without threads was asked to compute');
    const { weights } = this.#state.bank;
    return this.take(lanes.to - lanes.from, () => this.#arithmetic.part(task, lanes, weights, this.#samples));
  }

  update(step: number, _: UpdateScalars, sums: PartSums): Promise<StepResult> {
    if (step !== this.#state.step) throw new Error(`an update of step ${step} after ${this.#state.step}`);
    return this.take(0, () => this.#apply(sums));
  }

  async train(firstStep: number, scalars: readonly UpdateScalars[]): Promise<StepResult[]> {
    const results: StepResult[] = [];
    this.#isCut = false;
    for (let i = 0; i < scalars.length && !(this.#isCut && results.length > 0); i++) {
      const task = { kind: 'gradient', set: 'train', step: firstStep + i } as const;
      const sums = await this.compute(task, { from: 0, to: this.#job.lanes });
      results.push(this.#apply(sums));
    }
    return results;
  }

  async evaluate(set: SetName): Promise<Evaluated | undefined> {
    this.#isCut = false;
    const task = { kind: 'evaluate', set, step: this.#state.step } as const;
    const sums = await this.compute(task, { from: 0, to: this.#job.lanes });
    return this.#isCut ? undefined : sums;
  }

  cut(): void {
    this.#isCut = true;
  }

  weights(): Float32Array {
    return this.#state.bank.weights.subarray(0, this.#job.model.parameterCount);
  }

  state(): NodeState {
    return this.#state;
  }

  race(): Promise<number> {
    throw new Error('not of a stand-in');
  }

  reports(): [] {
    return [];
  }

  #apply({ gradient, lossSum, correct, samples }: PartSums): StepResult {
    const { bank, hash, step } = this.#state;
    const weights = this.#arithmetic.updated(bank.weights, gradient);
    const next = this.#arithmetic.chained(hash, step + 1, weights);
    this.#state = { step: step + 1, hash: next, bank: { ...bank, weights } };
    return { lossSum, correct, samples, hash: next };
  }
}

// What the coordinator asks of the node that computes: the seam between `coordinator` and `worker`.

import type { SetName } from './dataset.js';
import type { ThreadReport } from './events.js';
import type { Phase } from './faults.js';
import { initialWeights } from './initial-weights.js';
import type { Model } from './model.js';
import type { Bank, UpdateScalars } from './optimizer.js';
import { jobHash, type Job } from './settings.js';

/** Exact sums over samples. */
export interface Sums {
  /** Of the samples' losses, on the loss grid. */
  readonly lossSum: number;
  readonly correct: number;
  readonly samples: number;
}

/** What an evaluation gives. */
export interface Evaluated extends Sums {
  /** What the last layer gives for each test sample, a row of `classes`, where the node keeps it. */
  readonly logits?: Float32Array;
}

/** What one step leaves behind, besides the weights. */
export interface StepResult extends Sums {
  /** Value of the chain after this step. */
  readonly hash: bigint;
}

/** Weights and optimizer state between two steps. */
export interface NodeState {
  /** Updates done. */
  readonly step: number;
  /** Value of the chain after them. */
  readonly hash: bigint;
  /** Vectors of `model.paddedCount`. */
  readonly bank: Bank;
}

export function emptyBank({ paddedCount }: Model): Bank {
  const vector = (): Float32Array => new Float32Array(paddedCount);
  return { weights: vector(), first: vector(), second: vector() };
}

/** Before the first step. */
export function initialState(job: Job): NodeState {
  const { model, bits } = job;
  const weights = job.initialWeights?.slice() ?? initialWeights(model, bits.seed);
  return {
    step: 0,
    hash: jobHash(job),
    bank: { ...emptyBank(model), weights },
  };
}

export interface LostThread {
  /** Updates done when it was lost. */
  readonly step: number;
  readonly thread: number;
  /** How it was lost: what it threw, its exit code, or that it hung. */
  readonly reason: string;
  readonly phase: Phase | 'start' | 'idle';
}

/** What the lanes of one step are computed for: their leaves' gradients, or their share of an evaluation. */
export interface Task {
  readonly kind: 'gradient' | 'evaluate';
  /** 'train' where the kind is `gradient`. */
  readonly set: SetName;
  /** Updates done: the weights to be used, and the step (counted from 0) whose leaves are meant. */
  readonly step: number;
}

/**
 * Lanes from <= lane < to. In an evaluation they stand for the positions that lie under them: lane l of L covers
 * positions floor(l * n / L) to floor((l + 1) * n / L) of a set of n samples.
 */
export interface Lanes {
  readonly from: number;
  readonly to: number;
}

/** What a node answers for a part of a task. */
export interface PartSums extends Sums {
  /** f64, exact sums of the leaves' gradients, of `model.paddedCount`; empty in an evaluation. */
  readonly gradient: Float64Array;
}

/** What computes parts: the pool of the coordinator, or of an agent. One call at a time. */
export interface ComputingNode {
  readonly threads: number;
  /**
   * Computes the leaves of some lanes with the present weights, which must be those of `task.step`. `gradient` is valid
   * until the next call. A thread that dies meanwhile is replaced and the part computed again.
   * @throws LOCKSTEP_BAD_LEAF if it was bad twice, LOCKSTEP_THREAD_DIES
   */
  compute(task: Task, lanes: Lanes): Promise<PartSums>;
  close(): Promise<void>;
}

/** An agent's node: it gets its weights and its samples from the coordinator, and holds nothing that matters. */
export interface AgentNode extends ComputingNode {
  /** Samples of a set in the dataset's order: their images, then their labels. */
  loadShard(set: SetName, fromPosition: number, samples: number, bytes: Uint8Array): void;
  /** f32, of `model.parameterCount`, between two calls of `compute`. */
  setWeights(step: number, weights: Float32Array): void;
}

/** What the run loop trains with: the coordinator's own node, or it together with remote ones. */
export interface TrainingNode {
  /** Threads of the coordinator's own that compute leaves. */
  readonly threads: number;
  /** The most steps `train` takes in one span. */
  readonly spanLimit: number;
  /**
   * Does steps `firstStep` (counted from 0), firstStep + 1, ... with one set of scalars each. A thread that dies
   * meanwhile is replaced and its step redone; that changes nothing but the time. After `cut` the results are of fewer
   * steps; of none only where no node is left that computes.
   * @throws LOCKSTEP_BAD_LEAF, LOCKSTEP_BAD_WEIGHTS, LOCKSTEP_THREAD_DIES, LOCKSTEP_SUMS_DIFFER
   */
  train(firstStep: number, scalars: readonly UpdateScalars[]): Promise<StepResult[]>;
  /** Loss and accuracy over a whole set, with the present weights, in evaluation mode; undefined after `cut`. */
  evaluate(set: SetName): Promise<Evaluated | undefined>;
  /** Ends what is at work: training after the step that is being done, an evaluation at once. */
  cut(): void;
  /** A copy of the present state. */
  state(): NodeState;
  reports(): ThreadReport[];
  close(): Promise<void>;
}

/** The coordinator's own node: it holds the weights and the optimizer's state in two banks. */
export interface LocalNode extends TrainingNode, ComputingNode {
  /**
   * The update of a step whose lanes were computed by `compute`, here or elsewhere: `sums` are those of all lanes,
   * added. A thread that dies meanwhile is replaced and the update redone.
   * @throws LOCKSTEP_BAD_WEIGHTS, LOCKSTEP_THREAD_DIES
   */
  update(step: number, scalars: UpdateScalars, sums: PartSums): Promise<StepResult>;
  /** A view of the present weights, of `model.parameterCount`, valid until the next update. */
  weights(): Float32Array;
  /**
   * For measurements: how much of the work of steps `firstStep` to `firstStep + scalars.length - 1` the threads get
   * done in `durationMs` if nobody waits for anybody. Nothing comes of it: the weights are afterwards what they were.
   * Gives samples a second: the sum over the threads, each with the time that it took itself.
   * @throws LOCKSTEP_THREAD_DIES
   */
  race(firstStep: number, scalars: readonly UpdateScalars[], durationMs: number): Promise<number>;
}

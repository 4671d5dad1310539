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
  return {
    step: 0,
    hash: jobHash(job),
    bank: { ...emptyBank(model), weights: initialWeights(model, bits.seed) },
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

/** The coordinator's own node: it holds the weights and the optimizer's state in two banks. */
export interface LocalNode {
  readonly threads: number;
  /** The most steps `train` takes in one span. */
  readonly spanLimit: number;
  /**
   * Does steps `firstStep` (counted from 0), firstStep + 1, ... with one set of scalars each. A thread that dies
   * meanwhile is replaced and its step redone; that changes nothing but the time. After `cut` the results are of fewer
   * steps, at least of one.
   * @throws LOCKSTEP_BAD_LEAF, LOCKSTEP_BAD_WEIGHTS, LOCKSTEP_THREAD_DIES
   */
  train(firstStep: number, scalars: readonly UpdateScalars[]): Promise<StepResult[]>;
  /** Loss and accuracy over a whole set, with the present weights, in evaluation mode; undefined after `cut`. */
  evaluate(set: SetName): Promise<Evaluated | undefined>;
  /** Ends what is at work: training after the step that is being done, an evaluation at once. */
  cut(): void;
  /** A copy of the present state. */
  state(): NodeState;
  /**
   * For measurements: how much of the work of steps `firstStep` to `firstStep + scalars.length - 1` the threads get
   * done in `durationMs` if nobody waits for anybody. Nothing comes of it: the weights are afterwards what they were.
   * Gives samples a second: the sum over the threads, each with the time that it took itself.
   * @throws LOCKSTEP_THREAD_DIES
   */
  race(firstStep: number, scalars: readonly UpdateScalars[], durationMs: number): Promise<number>;
  reports(): ThreadReport[];
  close(): Promise<void>;
}

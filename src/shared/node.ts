// What the coordinator asks of the node that computes: the seam between `coordinator` and `worker`.

import type { SetName } from './dataset.js';
import type { ThreadReport } from './events.js';
import type { Phase } from './faults.js';
import type { UpdateScalars } from './optimizer.js';

/** What one step leaves behind, besides the weights. */
export interface StepResult {
  /** Sum of the samples' losses, exact on the loss grid. */
  readonly lossSum: number;
  readonly correct: number;
  readonly samples: number;
  /** Value of the chain after this step. */
  readonly hash: bigint;
}

export interface Evaluation {
  readonly lossSum: number;
  readonly correct: number;
  readonly samples: number;
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
   * meanwhile is replaced and its step redone; that changes nothing but the time.
   * @throws LOCKSTEP_BAD_LEAF, LOCKSTEP_BAD_WEIGHTS, LOCKSTEP_THREAD_DIES
   */
  train(firstStep: number, scalars: readonly UpdateScalars[]): Promise<StepResult[]>;
  /** Loss and accuracy over a whole set, with the present weights, in evaluation mode. */
  evaluate(set: SetName): Promise<Evaluation>;
  /** A copy of the present weights, `model.parameterCount` long. */
  weights(): Float32Array;
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

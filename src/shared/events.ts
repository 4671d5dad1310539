// What a run tells while it runs: one object an event, as `--json` prints it.

import type { ErrorCode } from './errors.js';
import type { Phase } from './faults.js';

interface Common {
  /** Updates done so far. */
  readonly step: number;
  /** Milliseconds since the run began. */
  readonly timeMs: number;
}

export interface ThreadReport {
  readonly thread: number;
  /** Leaves computed, those of redone steps included. */
  readonly leaves: number;
  /** Time in leaves, reductions and updates, the sum of the next three; waiting excluded. */
  readonly busyMs: number;
  /** Leaves computed and added, in training and evaluation. */
  readonly computeMs: number;
  /** Its slice of the parameters summed over all threads. */
  readonly reduceMs: number;
  /** Its slice of the weights updated and digested. */
  readonly updateMs: number;
  /** At the barriers, the step's publication included. */
  readonly waitMs: number;
}

export type RunEventBody =
  | {
      readonly type: 'start';
      readonly model: string;
      readonly parameters: number;
      readonly dataset: string;
      readonly trainSamples: number;
      readonly testSamples: number;
      readonly epochs: number;
      readonly totalSteps: number;
      readonly stepsPerEpoch: number;
      readonly batch: number;
      readonly leaf: number;
      readonly lanes: number;
      readonly workers: number;
      readonly engine: string;
      readonly profile: string;
      readonly seed: number;
      readonly runDir: string;
      /** Updates done before this process began, of a resumed run. */
      readonly resumedStep: number;
    }
  | {
      readonly type: 'step';
      readonly epoch: number;
      /** Mean loss of this step's samples, before its update. */
      readonly loss: number;
      readonly accuracy: number;
      readonly learningRate: number;
      readonly hash: string;
      /** Training samples a second since the last `step` event. */
      readonly imagesPerSecond: number;
    }
  | {
      readonly type: 'epoch';
      readonly epoch: number;
      /** Means over the epoch's steps, each with the weights before its update. */
      readonly runningLoss: number;
      readonly runningAccuracy: number;
      readonly trainLoss: number;
      readonly trainAccuracy: number;
      readonly testLoss: number;
      readonly testAccuracy: number;
      readonly imagesPerSecond: number;
      readonly hash: string;
    }
  | { readonly type: 'warning'; readonly message: string }
  | {
      /** The state after `step` updates is safe on the disk. */
      readonly type: 'checkpoint';
      /** In the run folder. */
      readonly file: string;
    }
  | {
      /** Ended by a signal, or by the caller; the run can be resumed. */
      readonly type: 'interrupted';
      readonly runDir: string;
      /** The command that goes on with it. */
      readonly resume: string;
    }
  | {
      readonly type: 'thread-lost';
      readonly thread: number;
      readonly reason: string;
      readonly phase: Phase | 'start' | 'idle';
    }
  | { readonly type: 'error'; readonly code: ErrorCode | 'LOCKSTEP_INTERNAL'; readonly message: string }
  | ({ readonly type: 'done' } & RunResult);

export interface RunResult {
  readonly model: string;
  /** Epochs completed. */
  readonly epochs: number;
  readonly steps: number;
  readonly trainLoss: number;
  readonly trainAccuracy: number;
  readonly testLoss: number;
  readonly testAccuracy: number;
  /** Training samples over the time in training steps; evaluation and saving excluded. */
  readonly imagesPerSecond: number;
  /** Everything, from the call to the end. */
  readonly seconds: number;
  readonly workers: number;
  readonly threads: readonly ThreadReport[];
  readonly hash: string;
  readonly weightsSha256: string;
  readonly runDir: string;
}

export type RunEvent = RunEventBody & Common;
export type EventOf<Type extends RunEvent['type']> = Extract<RunEvent, { type: Type }>;

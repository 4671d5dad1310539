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

/** A remote node: what it is doing, and what it has done. */
export interface NodeReport {
  readonly node: string;
  readonly name: string;
  readonly state: 'joining' | 'fetching' | 'active' | 'spare' | 'late' | 'gone';
  readonly threads: number;
  /** Lanes that it has of every step. */
  readonly lanes: number;
  /** Why it has none, or '' where it has. */
  readonly why: string;
  /** Training samples whose sums counted, a second, since the last report; at the end over the whole run. */
  readonly imagesPerSecond: number;
  /** Milliseconds since its last sign of life. */
  readonly lastHeardMs: number;
  readonly roundTripMs: number;
  readonly sentBytes: number;
  readonly receivedBytes: number;
  /** Parts and training samples whose sums counted. */
  readonly parts: number;
  readonly samples: number;
  /** Time that others waited for it at the end of steps. */
  readonly waitedForMs: number;
  readonly shards: number;
  readonly expired: number;
  /** Answers that did not count: late, or of something that was over. */
  readonly dropped: number;
  /** How often it was lost. */
  readonly losses: number;
}

export type RunEventBody =
  | {
      readonly type: 'start';
      /** What the clock on the wall showed when the run began, at `timeMs` 0: ISO 8601, UTC. */
      readonly startedAt: string;
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
      /** As in `done`. */
      readonly threads: readonly ThreadReport[];
      /** As in `done`, where it listened. */
      readonly nodes?: readonly NodeReport[];
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
  | {
      readonly type: 'listening';
      /** HOST:PORT, as agents reach it. */
      readonly address: string;
      /** The line for `lockstep worker`, which holds the key; absent where it was written to a file. */
      readonly join?: string;
    }
  | {
      readonly type: 'node-joined';
      readonly node: string;
      readonly name: string;
      readonly threads: number;
      readonly address: string;
    }
  | { readonly type: 'node-lost'; readonly node: string; readonly name: string; readonly reason: string }
  | {
      /** Somebody who was not let in, or not let go on. */
      readonly type: 'node-refused';
      readonly address: string;
      readonly reason: string;
    }
  | {
      /** A node let the deadline of a lease pass; its lanes went to another. */
      readonly type: 'lease-expired';
      readonly node: string;
      readonly name: string;
      readonly fromLane: number;
      readonly toLane: number;
    }
  /** Nobody is there who could compute. */
  | { readonly type: 'waiting'; readonly message: string }
  | ({ readonly type: 'node' } & NodeReport)
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
  /** Remote nodes, where the run listened for them. */
  readonly nodes?: readonly NodeReport[];
  readonly hash: string;
  readonly weightsSha256: string;
  readonly runDir: string;
}

export type RunEvent = RunEventBody & Common;
export type EventOf<Type extends RunEvent['type']> = Extract<RunEvent, { type: Type }>;

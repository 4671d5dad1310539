// What a report knows of a run.

import type { ClassResult, ConfusedPair, Confusion } from '../shared/confusion.js';
import type { NodeReport, ThreadReport } from '../shared/events.js';
import type { EpochFigures, StepMeans } from '../shared/metrics.js';
import type { Shape } from '../shared/shape.js';

export type ThreadWork = Omit<ThreadReport, 'busyMs'>;

export type NodeWork = Pick<
  NodeReport,
  | 'node'
  | 'name'
  | 'threads'
  | 'samples'
  | 'parts'
  | 'waitedForMs'
  | 'expired'
  | 'losses'
  | 'sentBytes'
  | 'receivedBytes'
>;

/** Something that happened, at the `timeMs` of its event. */
export interface Mark {
  readonly type: 'thread-lost' | 'node-joined' | 'node-lost' | 'lease-expired';
  readonly timeMs: number;
  readonly step: number;
  /** `thread 1`, or the node's id. */
  readonly who: string;
  /** Of a node: the name that it gave itself. */
  readonly name: string;
  /** Why, or from where. */
  readonly text: string;
}

/** One process that worked on the run: from its event `start` to its last event. */
export interface Session {
  /** ISO 8601, UTC. */
  readonly startedAt: string;
  readonly resumedStep: number;
  readonly lastStep: number;
  readonly workers: number;
  readonly engine: string;
  /** Of its last event. */
  readonly endMs: number;
  /** `unknown`: it was killed, or is at work. */
  readonly end: 'done' | 'interrupted' | 'error' | 'unknown';
  /** Of an error. */
  readonly message: string;
  /** Of consecutive `step` events. */
  readonly rates: readonly {
    readonly fromMs: number;
    readonly toMs: number;
    readonly images: number;
    /** Of that time; the rest was evaluation and saving. */
    readonly trainMs: number;
  }[];
  readonly marks: readonly Mark[];
  /** What nodes did from then on: as in their reports. */
  readonly nodeStates: readonly {
    readonly timeMs: number;
    readonly node: string;
    readonly name: string;
    readonly state: NodeReport['state'];
  }[];
  /** At its end; empty where it was killed, or failed. */
  readonly threads: readonly ThreadWork[];
  readonly nodes: readonly NodeWork[];
}

export interface WorstImage {
  /** In the test set, from 0. */
  readonly index: number;
  readonly label: number;
  readonly predicted: number;
  /** Probabilities that the model gave them. */
  readonly ofLabel: number;
  readonly ofPredicted: number;
  /** In nats. */
  readonly loss: number;
  /** Height x width x channels bytes. */
  readonly pixels: Uint8Array;
}

export interface TestResult {
  readonly samples: number;
  readonly loss: number;
  readonly accuracy: number;
  /** Steps after which the weights were these. */
  readonly step: number;
  readonly classes: readonly ClassResult[];
  readonly confusion: Confusion;
  readonly confusedPairs: readonly ConfusedPair[];
  /** Those with the largest loss, the largest first. */
  readonly worst: readonly WorstImage[];
}

export interface ReportedRun {
  /** The folder's name; of folders of the same name, as much of the path as tells them apart. */
  readonly name: string;
  readonly runDir: string;
  readonly model: string;
  readonly parameters: number;
  readonly dataset: {
    readonly name: string;
    readonly digest: string;
    readonly shape: Shape;
    readonly classes: number;
  };
  /** Every setting by its flag, with its value as it would be given. */
  readonly settings: readonly (readonly [name: string, value: string])[];
  readonly profile: string;
  readonly state: 'finished' | 'running' | 'interrupted';
  readonly step: number;
  readonly totalSteps: number;
  /** Null where neither events nor settings nor a whole epoch tell it. */
  readonly stepsPerEpoch: number | null;
  /** After `step`; null before the first. */
  readonly hash: string | null;
  readonly weightsSha256: string | null;
  readonly steps: readonly StepMeans[];
  readonly epochs: readonly EpochFigures[];
  /** Empty where the folder keeps no events. */
  readonly sessions: readonly Session[];
  /** Or why there is none. */
  readonly test: TestResult | string;
  readonly warnings: readonly string[];
}

// The figures of a study: what each run has at the end of each epoch, and means and spreads of them over the seeds.

import type { EpochFigures } from '../shared/metrics.js';

/** The models that are compared, by their presets. */
export const studyModels = ['lenet5', 'mlp', 'lenet5-regularized'] as const;
export type StudyModelName = (typeof studyModels)[number];

/** What is measured with the weights at an epoch's end. */
export const measures = ['trainLoss', 'trainAccuracy', 'testLoss', 'testAccuracy'] as const;
export type Measure = (typeof measures)[number];

export type Figures = Readonly<Record<Measure, number>>;

export const labels: Readonly<Record<StudyModelName, string>> = {
  lenet5: 'LeNet-5',
  mlp: 'MLP',
  'lenet5-regularized': 'LeNet-5 regularized',
};

/** The figures of the study that this one follows. */
export const published: Readonly<Record<StudyModelName, Figures>> = {
  lenet5: { trainLoss: 0.0301, trainAccuracy: 0.9906, testLoss: 0.0363, testAccuracy: 0.9878 },
  mlp: { trainLoss: 0.1362, trainAccuracy: 0.96, testLoss: 0.1575, testAccuracy: 0.9527 },
  'lenet5-regularized': { trainLoss: 0.0358, trainAccuracy: 0.9908, testLoss: 0.0309, testAccuracy: 0.9901 },
};

/** What that study takes the parameters of a layer for. */
export const publishedCount = { model: 'lenet5', layer: 'fc1', parameters: 3080 } as const;

/** Over seeds. */
export interface Summary {
  readonly mean: number;
  /** The sample standard deviation; null of a single value. */
  readonly deviation: number | null;
  readonly low: number;
  readonly high: number;
}

type Summaries = Readonly<Record<Measure, Summary>>;

export interface StudyRun {
  readonly model: StudyModelName;
  readonly seed: number;
  readonly hash: string;
  readonly weightsSha256: string;
  readonly epochs: readonly EpochFigures[];
}

export interface StudyLayer {
  readonly name: string;
  readonly type: string;
  readonly output: string;
  readonly parameters: number;
  /** How the parameters are counted: kernel, then bias. */
  readonly arithmetic: string;
}

/** A model with its runs, one for each seed. */
export interface StudyModel {
  readonly model: StudyModelName;
  readonly parameters: number;
  readonly layers: readonly StudyLayer[];
  readonly settings: {
    readonly batch: number;
    readonly leaf: number;
    readonly optimizer: string;
    readonly lr: number;
    readonly lrSchedule: string;
    readonly weightDecay: number;
  };
  readonly runs: readonly StudyRun[];
  /** Over the runs, at the end of each epoch. */
  readonly epochs: readonly ({ readonly epoch: number } & Summaries)[];
}

/** Nothing in it depends on the machine or on its workers. */
export interface StudyResult {
  readonly format: 'lockstep-study-1';
  /** Of the Lockstep that wrote the study; older ones may have trained its runs. */
  readonly version: string;
  /** Of the arithmetic of all runs. */
  readonly profile: string;
  readonly dataset: {
    readonly name: string;
    readonly digest: string;
    readonly trainSamples: number;
    readonly testSamples: number;
  };
  readonly epochs: number;
  readonly seeds: readonly number[];
  /** In the order of `studyModels`. */
  readonly models: readonly StudyModel[];
}

export function summarize(values: readonly number[]): Summary {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return {
    mean,
    deviation: values.length > 1 ? Math.sqrt(squares / (values.length - 1)) : null,
    low: Math.min(...values),
    high: Math.max(...values),
  };
}

/** Of runs with the same number of epochs. */
export function summarizeEpochs(runs: readonly StudyRun[]): StudyModel['epochs'] {
  return runs[0].epochs.map(({ epoch }, index) => {
    const over = (measure: Measure): Summary => summarize(runs.map(({ epochs }) => epochs[index][measure]));
    return {
      epoch,
      trainLoss: over('trainLoss'),
      trainAccuracy: over('trainAccuracy'),
      testLoss: over('testLoss'),
      testAccuracy: over('testAccuracy'),
    };
  });
}

export function modelOf({ models }: StudyResult, name: StudyModelName): StudyModel {
  return models.find(({ model }) => model === name)!;
}

/** At the end of the last epoch. */
export function finalOf({ epochs }: StudyModel): Summaries {
  return epochs.at(-1)!;
}

export function isLoss(measure: Measure): boolean {
  return measure.endsWith('Loss');
}

/** What sums of the same numbers in another order may differ by, and no two different figures. */
const ROUNDING = 1e-12;

/** a - b, and 0 where they are equal but for rounding. */
export function difference(a: number, b: number): number {
  return Math.abs(a - b) <= ROUNDING ? 0 : a - b;
}

/** Above 0 where `a` is better than `b`, below where it is worse: losses should be low, accuracies high. */
export function compare(measure: Measure, a: number, b: number): number {
  return isLoss(measure) ? difference(b, a) : difference(a, b);
}

// What metrics.jsonl tells of the epochs and steps of a run.

/** A line; its other fields depend on its type. */
export interface MetricLine extends Readonly<Record<string, unknown>> {
  readonly type: 'step' | 'epoch' | 'done';
  /** Updates done. */
  readonly step: number;
}

/** Both sets, evaluated with the weights at the epoch's end. */
export interface EpochFigures {
  /** From 1. */
  readonly epoch: number;
  /** Updates done at its end. */
  readonly step: number;
  /** Means over the set, in nats. */
  readonly trainLoss: number;
  readonly trainAccuracy: number;
  readonly testLoss: number;
  readonly testAccuracy: number;
}

/** Means over consecutive steps, so that a long run has no more of them than a figure can show. */
export interface StepMeans {
  /** The last of them, counted from 1. */
  readonly step: number;
  /** In nats. */
  readonly loss: number;
  /** Of the last of them. */
  readonly learningRate: number;
}

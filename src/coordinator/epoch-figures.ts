// What a run's metrics tell of its epochs.

import * as v from 'valibot';
import { wholeNumber } from '../shared/settings.js';
import { metricsIn } from './run-comparison.js';
import { damaged } from './stored-run.js';

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

const loss = v.pipe(v.number(), v.finite());
const accuracy = v.pipe(v.number(), v.minValue(0), v.maxValue(1));

/** Lines hold more than this. */
const epochSchema = v.object({
  epoch: wholeNumber(1),
  step: wholeNumber(1),
  trainLoss: loss,
  trainAccuracy: accuracy,
  testLoss: loss,
  testAccuracy: accuracy,
});

/**
 * The epochs that a run has completed, in their order, by the metrics.jsonl in its folder; half a line at its end, of a
 * process at work or killed, is left out.
 * @throws LOCKSTEP_FILE_DAMAGED if it cannot be read, or has other lines than a run writes
 */
export function readEpochs(dir: string): EpochFigures[] {
  const epochs: EpochFigures[] = [];
  for (const { number, metric } of metricsIn(dir)) {
    if (metric && metric.type !== 'epoch') continue;
    const parsed = v.safeParse(epochSchema, metric);
    if (!parsed.success || parsed.output.epoch !== epochs.length + 1) {
      const what = metric ? `the figures of epoch ${epochs.length + 1}` : 'of a step, an epoch or the end';
      throw damaged(dir, 'metrics.jsonl', `line ${number} is not ${what}`);
    }
    epochs.push(parsed.output);
  }
  return epochs;
}

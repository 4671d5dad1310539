// What a run's metrics tell of its epochs.

import * as v from 'valibot';
import type { EpochFigures } from '../shared/metrics.js';
import { wholeNumber } from '../shared/settings.js';
import { metricsIn } from './run-comparison.js';
import { damaged } from './stored-run.js';

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

const endSchema = v.object({ type: v.literal('done'), hash: v.string(), weightsSha256: v.string() });

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

/** What the line at the end of a finished run says of its bits. @throws LOCKSTEP_FILE_DAMAGED as `readEpochs` */
export function readEnd(dir: string): { readonly hash: string; readonly weightsSha256: string } {
  let last: unknown;
  for (const { metric } of metricsIn(dir)) last = metric;
  const parsed = v.safeParse(endSchema, last);
  if (!parsed.success) throw damaged(dir, 'metrics.jsonl', 'its last line is not that of the end');
  const { hash, weightsSha256 } = parsed.output;
  return { hash, weightsSha256 };
}

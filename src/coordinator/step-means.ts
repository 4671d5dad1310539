// What a run's metrics tell of its steps, as few numbers of which a figure can be drawn.

import * as v from 'valibot';
import type { StepMeans } from '../shared/metrics.js';
import { metricsIn } from './run-comparison.js';
import { damaged } from './stored-run.js';

/** Lines hold more than this. */
const stepSchema = v.object({ loss: v.number(), accuracy: v.number(), learningRate: v.number() });

/**
 * The first `steps` steps of a run, by the metrics.jsonl in its folder, in at most `most` groups of equal length, the last
 * of which may be shorter. A process at work may have written more.
 * @throws LOCKSTEP_FILE_DAMAGED if it cannot be read, or has other lines than a run writes
 */
export function readStepMeans(dir: string, steps: number, most: number): StepMeans[] {
  const length = Math.ceil(steps / most);
  const means: StepMeans[] = [];
  let loss = 0;
  let accuracy = 0;
  let count = 0;
  for (const { number, metric } of metricsIn(dir)) {
    if (metric && metric.type !== 'step') continue;
    const parsed = v.safeParse(stepSchema, metric);
    if (!metric || !parsed.success) {
      throw damaged(dir, 'metrics.jsonl', `line ${number} is not the figures of a step`);
    }
    const { step } = metric;
    if (step > steps) break;
    loss += parsed.output.loss;
    accuracy += parsed.output.accuracy;
    count++;
    if (step % length !== 0 && step !== steps) continue;
    const { learningRate } = parsed.output;
    means.push({ step, loss: loss / count, accuracy: accuracy / count, learningRate });
    loss = accuracy = count = 0;
  }
  return means;
}

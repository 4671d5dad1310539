// Reads metrics.jsonl in a run folder, from its first line on: all its lines, or what they tell of epochs and steps.

import * as v from 'valibot';
import type { EpochFigures, MetricLine, StepMeans } from '../shared/metrics.js';
import { wholeNumber } from '../shared/settings.js';
import { wholeLines } from './lines.js';
import { damaged } from './stored-run.js';

export interface Line {
  /** From 1. */
  readonly number: number;
  /** Undefined where the line is none. */
  readonly metric: MetricLine | undefined;
}

/** The whole lines of metrics.jsonl that tell of steps, epochs and the end, and those that are no lines of such a file. */
export function* metricsIn(dir: string): Generator<Line, undefined> {
  let number = 0;
  for (const text of wholeLines(dir, 'metrics.jsonl')) {
    number++;
    const parsed = parseObject(text);
    if (!parsed) yield { number, metric: undefined };
    else if (isMetric(parsed)) yield { number, metric: parsed };
  }
  return undefined;
}

function isMetric(line: Readonly<Record<string, unknown>>): line is MetricLine {
  return line.type === 'step' || line.type === 'epoch' || line.type === 'done';
}

/** What is looked at before a line is compared. */
const lineSchema = v.looseObject({ type: v.string(), step: v.pipe(v.number(), v.safeInteger()) });

function parseObject(text: string): Readonly<Record<string, unknown>> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    // A key that stands there twice would be read in one way here and in another elsewhere.
    return JSON.stringify(value) === text ? v.parse(lineSchema, value) : undefined;
  } catch {
    return undefined;
  }
}

const lossSchema = v.pipe(v.number(), v.finite());
const accuracySchema = v.pipe(v.number(), v.minValue(0), v.maxValue(1));

/** Of lines, which hold more. */
const epochSchema = v.object({
  epoch: wholeNumber(1),
  step: wholeNumber(1),
  trainLoss: lossSchema,
  trainAccuracy: accuracySchema,
  testLoss: lossSchema,
  testAccuracy: accuracySchema,
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

const stepSchema = v.object({ loss: v.number(), learningRate: v.number() });

/**
 * The first `steps` steps of a run, by the metrics.jsonl in its folder, in at most `most` groups of equal length, the last
 * of which may be shorter. A process at work may have written more.
 * @throws LOCKSTEP_FILE_DAMAGED if it cannot be read, or has other lines than a run writes
 */
export function readStepMeans(dir: string, steps: number, most: number): StepMeans[] {
  const length = Math.ceil(steps / most);
  const means: StepMeans[] = [];
  let loss = 0;
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
    count++;
    if (step % length !== 0 && step !== steps) continue;
    const { learningRate } = parsed.output;
    means.push({ step, loss: loss / count, learningRate });
    loss = count = 0;
  }
  return means;
}

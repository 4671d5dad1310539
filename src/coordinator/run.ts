// The run loop: spans of steps until the end of an epoch, then an evaluation, until the run is done.

import type { Clock } from '../shared/clock.js';
import { LockstepError } from '../shared/errors.js';
import type { RunEventBody, RunResult } from '../shared/events.js';
import { formatHash, sha256 } from '../shared/hash.js';
import { learningRate } from '../shared/learning-rate.js';
import type { LocalNode, StepResult } from '../shared/node.js';
import {
  initialBetaPowers,
  updateScalars,
  type BetaPowers,
  type UpdateScalars,
} from '../shared/optimizer.js';
import type { Job } from '../shared/settings.js';
import type { RunFolder } from './run-folder.js';
import { encodeSafetensors, tensorBytes } from './safetensors.js';

export interface RunParts {
  readonly job: Job;
  readonly node: LocalNode;
  readonly folder: RunFolder;
  readonly clock: Clock;
  /** When the run began, on `clock`. */
  readonly startMs: number;
  readonly emit: (event: RunEventBody, step: number) => void;
  readonly signal?: AbortSignal | undefined;
}

/** A span is about this long: the main thread looks up between spans, and so do aborts and displays. */
const SPAN_MS = 25;
/** `step` events are at least this far apart, the first and the last excepted. */
const STEP_EVENT_MS = 100;

/**
 * Trains to the end and saves the result. The bits depend on the job alone.
 * @throws LOCKSTEP_INTERRUPTED when `signal` aborts, at the end of the span; what the node throws.
 */
export async function run({ job, node, folder, clock, startMs, emit, signal }: RunParts): Promise<RunResult> {
  const { model, stepsPerEpoch, totalSteps } = job;
  const whole = new Tally();
  let ofEpoch = new Tally();
  let sinceEvent = new Tally();
  let lastEventMs = -Infinity;
  let powers = initialBetaPowers;
  let last: StepResult | undefined;
  let evaluation: EvaluationFigures | undefined;

  for (let step = 0; step < totalSteps;) {
    if (signal?.aborted) throw interrupted(step, totalSteps, folder);
    const epoch = Math.floor(step / stepsPerEpoch) + 1;
    const epochEnd = Math.min(epoch * stepsPerEpoch, totalSteps);
    const span = planSpan(job, step, Math.min(epochEnd, step + spanLength(whole, node)), powers);
    powers = span.powers;

    const spanStartMs = clock.nowMs();
    const results = await node.train(step, span.scalars);
    const nowMs = clock.nowMs();
    for (const tally of [whole, ofEpoch, sinceEvent]) tally.add(results, nowMs - spanStartMs);
    folder.recordHashes(results.map(({ hash }) => formatHash(hash)));
    folder.recordMetrics(
      results.map((result, i) => ({ type: 'step', ...stepFigures(job, step + i, result) })),
    );
    step += results.length;
    last = results.at(-1)!;

    if (step === 1 || step === totalSteps || nowMs - lastEventMs >= STEP_EVENT_MS) {
      const { step: _, ...figures } = stepFigures(job, step - 1, last);
      const { imagesPerSecond } = sinceEvent;
      emit({ type: 'step', ...figures, hash: formatHash(last.hash), imagesPerSecond }, step);
      sinceEvent = new Tally();
      lastEventMs = clock.nowMs();
    }
    if (step === epochEnd) evaluation = await evaluate(node);
    if (evaluation && step === epoch * stepsPerEpoch) {
      const { loss: runningLoss, accuracy: runningAccuracy } = means(ofEpoch);
      const figures = { epoch, runningLoss, runningAccuracy, ...evaluation, hash: formatHash(last.hash) };
      folder.recordMetrics([{ type: 'epoch', step, ...figures }]);
      emit({ type: 'epoch', ...figures, imagesPerSecond: ofEpoch.imagesPerSecond }, step);
      ofEpoch = new Tally();
    }
  }

  // A run has at least one step, and its last one is followed by an evaluation.
  const hash = formatHash(last!.hash);
  const weights = node.weights();
  folder.saveWeights(encodeSafetensors(model, weights, { model: model.spec.name, hash }));
  return {
    model: model.spec.name,
    epochs: Math.floor(totalSteps / stepsPerEpoch),
    steps: totalSteps,
    ...evaluation!,
    imagesPerSecond: whole.imagesPerSecond,
    seconds: (clock.nowMs() - startMs) / 1000,
    workers: node.threads,
    threads: node.reports(),
    hash,
    weightsSha256: sha256(tensorBytes(weights)),
    runDir: folder.dir,
  };
}

/** The scalars of the updates of steps from <= step < to, and the powers behind them. */
export function planSpan({ bits }: Job, from: number, to: number, powers: BetaPowers) {
  const scalars: UpdateScalars[] = [];
  for (let step = from; step < to; step++) {
    const update = updateScalars(bits.optimizer, bits.learningRate, step, powers);
    scalars.push(update.scalars);
    powers = update.powers;
  }
  return { scalars, powers };
}

/** What is told and kept of a step, counted from 0 here and from 1 there. */
function stepFigures({ bits, stepsPerEpoch }: Job, step: number, result: StepResult) {
  const epoch = Math.floor(step / stepsPerEpoch) + 1;
  return { step: step + 1, epoch, learningRate: learningRate(bits.learningRate, step), ...means(result) };
}

function interrupted(step: number, totalSteps: number, { dir }: RunFolder): LockstepError {
  const message = `Interrupted after step ${step} of ${totalSteps}; ${dir} holds its metrics and no weights.`;
  return new LockstepError('LOCKSTEP_INTERRUPTED', message);
}

/** Sums over steps: all of them exact, so it does not matter how the steps were cut into spans. */
export class Tally {
  lossSum = 0;
  correct = 0;
  samples = 0;
  steps = 0;
  trainMs = 0;

  add(results: readonly StepResult[], trainMs: number): void {
    for (const { lossSum, correct, samples } of results) {
      this.lossSum += lossSum;
      this.correct += correct;
      this.samples += samples;
    }
    this.steps += results.length;
    this.trainMs += trainMs;
  }

  get imagesPerSecond(): number {
    return this.trainMs > 0 ? this.samples / (this.trainMs / 1000) : 0;
  }
}

/** One step first, to show life; then as many as take about `SPAN_MS`. */
export function spanLength({ steps, trainMs }: Tally, { spanLimit }: LocalNode): number {
  return steps === 0 ? 1 : Math.max(1, Math.min(spanLimit, Math.floor(SPAN_MS / (trainMs / steps))));
}

function means({ lossSum, correct, samples }: { lossSum: number; correct: number; samples: number }) {
  return { loss: lossSum / samples, accuracy: correct / samples };
}

interface EvaluationFigures {
  readonly trainLoss: number;
  readonly trainAccuracy: number;
  readonly testLoss: number;
  readonly testAccuracy: number;
}

async function evaluate(node: LocalNode): Promise<EvaluationFigures> {
  const train = means(await node.evaluate('train'));
  const test = means(await node.evaluate('test'));
  return {
    trainLoss: train.loss,
    trainAccuracy: train.accuracy,
    testLoss: test.loss,
    testAccuracy: test.accuracy,
  };
}

// The run loop: spans of steps until the end of an epoch, then an evaluation, until the run is done.

import {
  isCheckpointDue,
  nextDueStep,
  parseCheckpointEvery,
  type CheckpointPolicy,
} from '../shared/checkpoint-policy.js';
import type { Clock } from '../shared/clock.js';
import { LockstepError } from '../shared/errors.js';
import type { NodeReport, RunEventBody, RunResult } from '../shared/events.js';
import { formatHash, sha256 } from '../shared/hash.js';
import { learningRate } from '../shared/learning-rate.js';
import type { StepResult, Sums, TrainingNode } from '../shared/node.js';
import { updateScalars, type BetaPowers, type UpdateScalars } from '../shared/optimizer.js';
import type { Job } from '../shared/settings.js';
import { encodeCheckpoint, namedTensors, noSums, type TrainingState } from './checkpoint.js';
import type { RunFolder } from './run-folder.js';
import { encodeSafetensors, tensorBytes, type TensorValues } from './safetensors.js';

/** What keeps the lines and files of a run: its folder, or what compares them with those that a folder holds. */
export type RunRecord = Pick<
  RunFolder,
  'dir' | 'recordHashes' | 'recordMetrics' | 'saveCheckpoint' | 'saveWeights'
>;

export interface RunParts {
  readonly job: Job;
  /** Holds the state that `from` describes. */
  readonly node: TrainingNode;
  readonly folder: RunRecord;
  readonly from: Pick<TrainingState, 'step' | 'hash' | 'powers' | 'epochSums'>;
  readonly clock: Clock;
  /** By default as the settings say. */
  readonly checkpoints?: CheckpointPolicy | undefined;
  /** When the run began, on `clock`. */
  readonly startMs: number;
  readonly emit: (event: RunEventBody, step: number) => void;
  /** What a command that goes on with the run needs beside `--resume`. */
  readonly resumeFlags?: readonly string[] | undefined;
  /** What the remote nodes have done, where it listens. */
  readonly nodeReports?: (() => readonly NodeReport[]) | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface RunOutcome {
  readonly result: RunResult;
  readonly weights: readonly TensorValues[];
}

/** A span is meant to be this long: the main thread looks up between spans, and so do aborts and displays. */
const SPAN_MS = 25;
/** A span that turns out longer is ended by then, so that nothing that is due waits for 50 ms. */
const SPAN_MOST_MS = 35;
/** `step` events are at least this far apart, the first and the last excepted. */
const STEP_EVENT_MS = 100;

/**
 * Trains to the end and saves the result. The bits depend on the job alone. A checkpoint holds the state before the
 * evaluation that follows its step, so a run that goes on from it evaluates first where an epoch has ended.
 * @throws when `signal` aborts, at the end of the span, after a checkpoint: with the code of its reason if that is a
 * LockstepError, else LOCKSTEP_INTERRUPTED; what the node throws.
 */
export async function run(parts: RunParts): Promise<RunOutcome> {
  const { job, node, folder, from, clock, startMs, emit, signal } = parts;
  const { model, stepsPerEpoch, totalSteps } = job;
  const policy = parts.checkpoints ?? parseCheckpointEvery(job.settings.checkpointEvery);
  const whole = new Tally();
  let ofEpoch = new Tally(from.epochSums);
  let sinceEvent = new Tally();
  let lastEventMs = -Infinity;
  let { step, powers } = from;
  let hash = formatHash(from.hash);
  let savedStep = -1;
  let savedMs = -Infinity;
  let evaluation: EvaluationFigures | undefined;
  /** Up to here time is charged to training or to something else. */
  let chargedMs = clock.nowMs();

  for (;;) {
    const age = { savedStep, sinceMs: clock.nowMs() - savedMs };
    const isEnding = step === totalSteps || signal?.aborted === true;
    if (step > savedStep && (isEnding || isCheckpointDue(policy, age, step, stepsPerEpoch))) {
      const file = encodeCheckpoint(job, { ...node.state(), powers, epochSums: ofEpoch.sums });
      const name = await folder.saveCheckpoint(step, file);
      savedStep = step;
      savedMs = chargedMs = clock.nowMs();
      emit({ type: 'checkpoint', file: name }, step);
    }
    if (signal?.aborted) throw interrupted(signal, step, parts);

    const isEpochEnd = step > 0 && step % stepsPerEpoch === 0;
    if (isEpochEnd || step === totalSteps) {
      evaluation = await evaluate(node, signal);
      chargedMs = clock.nowMs();
      if (!evaluation) continue;
    }
    if (isEpochEnd) {
      const { loss: runningLoss, accuracy: runningAccuracy } = means(ofEpoch);
      const figures = { epoch: step / stepsPerEpoch, runningLoss, runningAccuracy, ...evaluation!, hash };
      folder.recordMetrics([{ type: 'epoch', step, ...figures }]);
      emit({ type: 'epoch', ...figures, imagesPerSecond: ofEpoch.imagesPerSecond }, step);
      ofEpoch = new Tally();
    }
    if (step === totalSteps) break;

    const epochEnd = (Math.floor(step / stepsPerEpoch) + 1) * stepsPerEpoch;
    const limit = Math.min(totalSteps, epochEnd, nextDueStep(policy, step, stepsPerEpoch));
    const span = planSpan(job, step, Math.min(limit, step + spanLength(whole, node)), powers);
    const stopTimer = clock.every(SPAN_MOST_MS, () => node.cut());
    const results = await node.train(step, span.scalars).finally(stopTimer);
    if (results.length === 0) continue;
    folder.recordHashes(results.map(result => formatHash(result.hash)));
    folder.recordMetrics(
      results.map((result, i) => ({ type: 'step', ...stepFigures(job, step + i, result) })),
    );
    const nowMs = clock.nowMs();
    for (const tally of [whole, ofEpoch, sinceEvent]) tally.add(results, nowMs - chargedMs);
    chargedMs = nowMs;
    const isFirst = whole.steps === results.length;
    const last = results.at(-1)!;
    step += results.length;
    hash = formatHash(last.hash);
    powers = span.powers[results.length - 1];

    if (isFirst || step === totalSteps || nowMs - lastEventMs >= STEP_EVENT_MS) {
      const { step: _, ...figures } = stepFigures(job, step - 1, last);
      emit({ type: 'step', ...figures, hash, imagesPerSecond: sinceEvent.imagesPerSecond }, step);
      sinceEvent = new Tally();
      lastEventMs = clock.nowMs();
    }
  }

  const flat = node.state().bank.weights.subarray(0, model.parameterCount);
  const weights = namedTensors(model, flat);
  folder.saveWeights(encodeSafetensors({ tensors: weights, metadata: { model: model.spec.name, hash } }));
  const result: RunResult = {
    model: model.spec.name,
    epochs: Math.floor(totalSteps / stepsPerEpoch),
    steps: totalSteps,
    ...evaluation!,
    imagesPerSecond: whole.imagesPerSecond,
    seconds: (clock.nowMs() - startMs) / 1000,
    workers: node.threads,
    threads: node.reports(),
    hash,
    weightsSha256: sha256(tensorBytes(flat)),
    runDir: folder.dir,
  };
  folder.recordMetrics([{ type: 'done', step, ...result }]);
  return { result, weights };
}

/** The scalars of the updates of steps from <= step < to, and the powers behind each of them. */
export function planSpan({ bits }: Job, from: number, to: number, before: BetaPowers) {
  const scalars: UpdateScalars[] = [];
  const powers: BetaPowers[] = [];
  for (let step = from; step < to; step++) {
    const update = updateScalars(bits.optimizer, bits.learningRate, step, powers.at(-1) ?? before);
    scalars.push(update.scalars);
    powers.push(update.powers);
  }
  return { scalars, powers };
}

/** What is told and kept of a step, counted from 0 here and from 1 there. */
function stepFigures({ bits, stepsPerEpoch }: Job, step: number, result: StepResult) {
  const epoch = Math.floor(step / stepsPerEpoch) + 1;
  return { step: step + 1, epoch, learningRate: learningRate(bits.learningRate, step), ...means(result) };
}

function interrupted(
  { reason }: AbortSignal,
  step: number,
  { job: { totalSteps }, node, folder: { dir }, resumeFlags = [], emit, nodeReports }: RunParts,
): LockstepError {
  const resume = ['lockstep train --resume', ...[dir, ...resumeFlags].map(forShell)].join(' ');
  const nodes = nodeReports && { nodes: nodeReports() };
  emit({ type: 'interrupted', runDir: dir, resume, threads: node.reports(), ...nodes }, step);
  const saved = `after step ${step} of ${totalSteps}, which is saved. Go on with: ${resume}`;
  return reason instanceof LockstepError
    ? new LockstepError(reason.code, `${reason.message} The run ended ${saved}`)
    : new LockstepError('LOCKSTEP_INTERRUPTED', `Interrupted ${saved}`);
}

/** A word as a shell takes it literally. */
function forShell(word: string): string {
  return /^[\w./:+-]+$/.test(word) ? word : `'${word.replaceAll("'", String.raw`'\''`)}'`;
}

/** Sums over steps: all of them exact, so it does not matter how the steps were cut into spans. */
export class Tally {
  lossSum: number;
  correct: number;
  samples: number;
  steps = 0;
  /** Of the steps added last. */
  msPerStep = 0;
  #timedSamples = 0;
  #trainMs = 0;

  /** `before`: sums of steps that were done earlier, whose time does not count. */
  constructor({ lossSum, correct, samples }: Sums = noSums) {
    this.lossSum = lossSum;
    this.correct = correct;
    this.samples = samples;
  }

  add(results: readonly StepResult[], trainMs: number): void {
    for (const { lossSum, correct, samples } of results) {
      this.lossSum += lossSum;
      this.correct += correct;
      this.samples += samples;
      this.#timedSamples += samples;
    }
    this.steps += results.length;
    this.msPerStep = trainMs / results.length;
    this.#trainMs += trainMs;
  }

  get sums(): Sums {
    const { lossSum, correct, samples } = this;
    return { lossSum, correct, samples };
  }

  get imagesPerSecond(): number {
    return this.#trainMs > 0 ? this.#timedSamples / (this.#trainMs / 1000) : 0;
  }
}

/** One step first, to show life; then as many as take about `SPAN_MS`. */
export function spanLength({ steps, msPerStep }: Tally, { spanLimit }: TrainingNode): number {
  return steps === 0 ? 1 : Math.max(1, Math.min(spanLimit, Math.floor(SPAN_MS / msPerStep)));
}

export interface Means {
  readonly loss: number;
  readonly accuracy: number;
}

export function means({ lossSum, correct, samples }: Sums): Means {
  return { loss: lossSum / samples, accuracy: correct / samples };
}

interface EvaluationFigures {
  readonly trainLoss: number;
  readonly trainAccuracy: number;
  readonly testLoss: number;
  readonly testAccuracy: number;
}

/** Undefined if `signal` aborts meanwhile. */
async function evaluate(node: TrainingNode, signal?: AbortSignal): Promise<EvaluationFigures | undefined> {
  const cut = (): void => node.cut();
  signal?.addEventListener('abort', cut);
  try {
    const trainSums = await node.evaluate('train');
    const testSums = trainSums && (await node.evaluate('test'));
    return testSums && figuresOf(means(trainSums), means(testSums));
  } finally {
    signal?.removeEventListener('abort', cut);
  }
}

function figuresOf(train: Means, test: Means): EvaluationFigures {
  return {
    trainLoss: train.loss,
    trainAccuracy: train.accuracy,
    testLoss: test.loss,
    testAccuracy: test.accuracy,
  };
}

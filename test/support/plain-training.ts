// Training as the design defines it, in plain loops on one thread: what every run must equal, bit for bit.

import { addLeaf, gradientBound, lossBound } from '#dist/shared/exact-sum.js';
import type { Dataset } from '#dist/shared/dataset.js';
import type { EventOf } from '#dist/shared/events.js';
import { chainHash, formatHash } from '#dist/shared/hash.js';
import { initialWeights } from '#dist/shared/initial-weights.js';
import { initialBetaPowers, update, updateScalars, type Bank } from '#dist/shared/optimizer.js';
import { datasetOrder, Schedule } from '#dist/shared/schedule.js';
import { jobHash, type Job } from '#dist/shared/settings.js';
import { referenceArithmetic } from '#dist/worker/engines/reference.js';

/** What an `epoch` event tells of losses and accuracies. */
export type EpochFigures = Pick<
  EventOf<'epoch'>,
  'runningLoss' | 'runningAccuracy' | 'trainLoss' | 'trainAccuracy' | 'testLoss' | 'testAccuracy'
>;

export interface PlainTraining {
  /** The hash after every step. */
  readonly hashes: readonly string[];
  readonly epochs: readonly EpochFigures[];
  readonly weights: Float32Array;
}

function everyPosition(count: number): Uint32Array {
  return Uint32Array.from({ length: count }, (_, i) => i);
}

export function trainPlainly(job: Job, dataset: Dataset): PlainTraining {
  const { bits, model, normalization } = job;
  const samples = dataset.train.labels.length;
  const size = dataset.train.images.length / samples;
  const order = datasetOrder(dataset.digest, samples);
  const train = {
    images: new Uint8Array(samples * size),
    labels: Uint8Array.from(order, sample => dataset.train.labels[sample]),
  };
  for (const [position, sample] of order.entries()) {
    train.images.set(dataset.train.images.subarray(sample * size, (sample + 1) * size), position * size);
  }
  const { batch, leaf, seed } = bits;
  const schedule = new Schedule({ samples, seed, batch, leaf });
  const sets = { train, test: dataset.test };
  const larger = Math.max(samples, dataset.test.labels.length);
  const engineJob = { model, normalization, sets, seed, leaf, lossBound: lossBound(larger) };
  const arithmetic = referenceArithmetic(engineJob, 'f32');

  const bank = (weights: Float32Array): Bank => ({
    weights,
    first: new Float32Array(model.paddedCount),
    second: new Float32Array(model.paddedCount),
  });
  let present = bank(initialWeights(model, seed));
  let powers = initialBetaPowers;
  let hash = jobHash(job);
  const hashes: string[] = [];
  const epochs: EpochFigures[] = [];
  let running = { lossSum: 0, correct: 0 };
  for (let step = 0; step < job.totalSteps; step++) {
    const sums = new Float64Array(model.paddedCount);
    const gradient = new Float32Array(model.paddedCount);
    for (let lane = 0; lane < schedule.lanes; lane++) {
      const positions = schedule.leafPositions(step, lane);
      const { lossSum, correct } = arithmetic.gradient(present.weights, { step, lane, positions }, gradient);
      running = { lossSum: running.lossSum + lossSum, correct: running.correct + correct };
      if (!addLeaf(gradient, sums, gradientBound(schedule.lanes), false)) throw new Error('bad leaf');
    }
    const next = updateScalars(bits.optimizer, bits.learningRate, step, powers);
    const to = bank(new Float32Array(model.paddedCount));
    update(bits.optimizer, next.scalars, present, to, sums, schedule.samplesInStep(step));
    present = to;
    powers = next.powers;
    hash = chainHash(hash, present.weights, step + 1);
    hashes.push(formatHash(hash));
    if ((step + 1) % job.stepsPerEpoch === 0) {
      const testSamples = dataset.test.labels.length;
      const onTrain = arithmetic.evaluate(present.weights, 'train', everyPosition(samples));
      const onTest = arithmetic.evaluate(present.weights, 'test', everyPosition(testSamples));
      epochs.push({
        runningLoss: running.lossSum / samples,
        runningAccuracy: running.correct / samples,
        trainLoss: onTrain.lossSum / samples,
        trainAccuracy: onTrain.correct / samples,
        testLoss: onTest.lossSum / testSamples,
        testAccuracy: onTest.correct / testSamples,
      });
      running = { lossSum: 0, correct: 0 };
    }
  }
  return { hashes, epochs, weights: present.weights.subarray(0, model.parameterCount) };
}

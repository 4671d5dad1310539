// The numerics check: bits of known leaves, by which a node of another arithmetic is found before it computes for a run.

import type { Clock } from '../shared/clock.js';
import type { LabelledImages } from '../shared/dataset.js';
import { canonicalJson, sha256 } from '../shared/hash.js';
import { initialWeights } from '../shared/initial-weights.js';
import type { LeafJob, Numerics } from '../shared/leaf-job.js';
import { seedKey, streams, WORD_COUNT, wordsOf } from '../shared/philox.js';
import type { LostThread, PartSums } from '../shared/node.js';
import { sizeOf } from '../shared/shape.js';
import type { TensorflowPlace } from './engines/tensorflow/runtime.js';
import { createAgentNode } from './pool.js';

/** Leaves that take longer are not computed more often than needed. */
const MOST_REPEATED_MS = 100;

export interface CheckOptions {
  readonly clock: Clock;
  /** Where the job's engine is `tensorflow`. */
  readonly tensorflow?: TensorflowPlace | undefined;
  readonly onThreadLost?: ((lost: LostThread) => void) | undefined;
}

const held = new Map<string, Promise<Numerics>>();

/**
 * Computes the known leaves of a job on one thread, once in a process.
 * @throws LOCKSTEP_MEMORY, LOCKSTEP_BUILD, LOCKSTEP_THREAD_DIES
 */
export function checkNumerics(job: LeafJob, options: CheckOptions): Promise<Numerics> {
  const { model, normalization, leaf, seed, engine, profile } = job;
  const { spec, input, classes } = model;
  const shapes = { layers: spec.layers, input, classes };
  const name = canonicalJson({ shapes, normalization, leaf, seed, engine, profile });
  const known = held.get(name);
  if (known) return known;
  const checking = computeKnownLeaves(job, initialWeights(model, seed), options);
  held.set(name, checking);
  checking.catch(() => held.delete(name));
  return checking;
}

/** As `checkNumerics`, with weights of one's own (`model.paddedCount`), and computed every time. */
export async function computeKnownLeaves(
  job: LeafJob,
  weights: Float32Array,
  { clock, tensorflow, onThreadLost = () => {} }: CheckOptions,
): Promise<Numerics> {
  const { model, leaf } = job;
  const { images, labels } = knownSamples(job);
  const node = await createAgentNode({
    // One lane, whose samples are a full leaf and a short one.
    job: { ...job, batch: leaf, samples: { train: labels.length, test: 0 } },
    name: 'the node that is checked',
    threads: 1,
    cores: 1,
    clock,
    tensorflow,
    onThreadLost,
    onWarning: () => {},
  });
  try {
    node.loadShard('train', 0, labels.length, Buffer.concat([images, labels]));
    const digestOf = async (step: number): Promise<string> => {
      node.setWeights(step, weights.subarray(0, model.parameterCount));
      return digestOfSums(await node.compute({ kind: 'gradient', set: 'train', step }, { from: 0, to: 1 }));
    };
    const full = await digestOf(0);
    const short = await digestOf(1);
    const startMs = clock.nowMs();
    const again = await digestOf(0);
    const profile = tensorflow?.profile ?? job.profile;
    let leafMs = clock.nowMs() - startMs;
    let shortMs = Infinity;
    // The least of some, as far as they take no time: what is done for the first time takes longer, and others compute too.
    for (let i = 0; i < 3; i++) {
      const shortStartMs = clock.nowMs();
      await digestOf(1);
      const fullStartMs = clock.nowMs();
      shortMs = Math.min(shortMs, fullStartMs - shortStartMs);
      if (leafMs >= MOST_REPEATED_MS) break;
      await digestOf(0);
      leafMs = Math.min(leafMs, clock.nowMs() - fullStartMs);
    }
    return { profile, digests: [full, short, again], leafMs, shortMs };
  } finally {
    await node.close();
  }
}

/** The first 64 bits of the SHA-256 of the gradient's sums, the loss sum and the count, all as f64. */
export function digestOfSums({ gradient, lossSum, correct }: Omit<PartSums, 'samples'>): string {
  const numbers = new Float64Array(gradient.length + 2);
  numbers.set(gradient);
  numbers.set([lossSum, correct], gradient.length);
  return sha256(new Uint8Array(numbers.buffer)).slice(0, 16);
}

/**
 * Samples of the known leaves. Their pixels are within two deviations of the training set's mean, so that no gradient
 * comes near its bound; which of them are blank depends on that as in the training set.
 */
export function knownSamples({ model, normalization, leaf }: LeafJob): LabelledImages {
  const { scale, shift } = normalization;
  const samples = leaf + ((leaf >> 1) | 1);
  const pixel = wordsOf(seedKey(0), 0, 0, streams.knownSamples);
  const label = wordsOf(seedKey(0), 1, 0, streams.knownSamples);
  const images = Uint8Array.from({ length: samples * sizeOf(model.input) }, (_, i) => {
    const deviations = (pixel(i) / WORD_COUNT) * 4 - 2;
    return Math.max(0, Math.min(255, Math.floor((shift + deviations) / scale)));
  });
  return { images, labels: Uint8Array.from({ length: samples }, (_, i) => label(i) % model.classes) };
}

// Initial weights, from the seed and the model alone.

import type { Model } from './model.js';
import { seedKey, streams, WORD_COUNT, wordsOf } from './philox.js';

/**
 * Uniform within +-1/sqrt(fanIn) for kernels and biases, as PyTorch initializes both layer kinds; tensors that have one are their constant.
 * Length `model.paddedCount`, zeros behind the last parameter.
 */
export function initialWeights(model: Model, seed: number): Float32Array {
  const weights = new Float32Array(model.paddedCount);
  for (const [index, { offset, size, fanIn, constant }] of model.tensors.entries()) {
    if (constant !== undefined) {
      weights.fill(constant, offset, offset + size);
      continue;
    }
    const word = wordsOf(seedKey(seed), index, 0, streams.initialWeights);
    const bound = 1 / Math.sqrt(fanIn);
    for (let i = 0; i < size; i++) weights[offset + i] = (((word(i) + 0.5) / WORD_COUNT) * 2 - 1) * bound;
  }
  return weights;
}

// The digests and the hash chain of the kernels against `src/shared/hash.ts`.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BLOCK_PARAMETERS, chainHash, formatHash } from '#dist/shared/hash.js';
import { KernelMemory } from '../support/kernel-memory.js';
import { randomTest, type Random } from '../support/random.js';

/** The next value of the chain by the kernels, the blocks digested in the given slices. */
function chainByKernels(
  previous: bigint,
  weights: Float32Array,
  step: number,
  slices: readonly (readonly [number, number])[] = [[0, weights.length / BLOCK_PARAMETERS]],
): bigint {
  const blocks = weights.length / BLOCK_PARAMETERS;
  const memory = new KernelMemory(weights.byteLength + blocks * 8 + 4096);
  const weightsView = memory.f32(weights);
  const digests = memory.u64(blocks);
  const chain = memory.u64(2);
  chain[0] = previous;
  const before = memory.bytes().slice();
  for (const [from, to] of slices) {
    memory.kernels.digestBlocks(weightsView.byteOffset, digests.byteOffset, from, to);
  }
  memory.kernels.chainHash(chain.byteOffset, chain.byteOffset + 8, step, digests.byteOffset, blocks);
  const next = chain[1];
  assert.equal(chain[0], previous, 'the previous value is kept');
  digests.fill(0xffff_ffff_ffff_ffffn);
  chain[1] = 0xffff_ffff_ffff_ffffn;
  assert.deepEqual(memory.bytes(), before, 'something else than the digests was written');
  return next;
}

function randomBits(length: number, random: Random): Float32Array {
  return new Float32Array(Uint32Array.from({ length }, () => random.word()).buffer);
}

for (const blocks of [1, 2, 3, 7, 87]) {
  randomTest(`the chain over ${blocks} blocks is that of the scalar form, step after step`, random => {
    let hash = (BigInt(random.word()) << 32n) | BigInt(random.word());
    for (const step of [0, 1, 2, 4690, 2 ** 31, 2 ** 32 - 1]) {
      // Any bits, NaN with its payload too.
      const weights = randomBits(blocks * BLOCK_PARAMETERS, random);
      const next = chainHash(hash, weights, step);
      assert.equal(formatHash(chainByKernels(hash, weights, step)), formatHash(next));
      hash = next;
    }
  });
}

randomTest('it does not matter who digests which block, nor in which order', random => {
  const blocks = 7;
  const weights = randomBits(blocks * BLOCK_PARAMETERS, random);
  const expected = chainHash(1n, weights, 5);
  for (let i = 0; i < 50; i++) {
    const cuts = [...random.distinct(random.integer(blocks), blocks - 1)].map(cut => cut + 1);
    const edges = [0, ...cuts.toSorted((a, b) => a - b), blocks];
    const slices = edges.slice(1).map((to, j) => [edges[j], to] as const);
    const order = [...random.distinct(slices.length, slices.length)].map(j => slices[j]);
    assert.equal(chainByKernels(1n, weights, 5, order), expected, JSON.stringify(order));
  }
  // As many threads as there are blocks, and more: some have an empty slice.
  const single = Array.from({ length: blocks }, (_, b) => [b, b + 1] as const);
  assert.equal(chainByKernels(1n, weights, 5, [...single, [3, 3]]), expected);
});

randomTest('the chain tells every bit of the weights, the step and the past', random => {
  const weights = randomBits(2 * BLOCK_PARAMETERS, random);
  const values = new Set([chainByKernels(9n, weights, 5)]);
  const words = new Uint32Array(weights.buffer);
  let changes = 0;
  for (let i = 0; i < words.length; i += 13) {
    const bit = 1 << random.integer(32);
    words[i] ^= bit;
    values.add(chainByKernels(9n, weights, 5));
    words[i] ^= bit;
    changes++;
  }
  values.add(chainByKernels(9n, weights, 6));
  values.add(chainByKernels(8n, weights, 5));
  // Two blocks exchanged.
  const [a, b] = [weights.slice(0, BLOCK_PARAMETERS), weights.slice(BLOCK_PARAMETERS)];
  const exchanged = new Float32Array(weights.length);
  exchanged.set(b);
  exchanged.set(a, BLOCK_PARAMETERS);
  values.add(chainByKernels(9n, exchanged, 5));
  assert.equal(values.size, 1 + changes + 3);
});

test('-0 and +0 have different digests', () => {
  const zeros = new Float32Array(BLOCK_PARAMETERS);
  const negative = zeros.slice();
  negative[511] = -0;
  assert.notEqual(chainByKernels(0n, zeros, 0), chainByKernels(0n, negative, 0));
});

// The hash: a 64-bit chain over the weights of every step, begun from the settings that decide bits.
//
// Weights are digested in blocks of 512 parameters, and the block digests are mixed in block order, so it does not
// matter which thread digests which block. The kernels in `kernels/digest.ts` do the same with native 64-bit integers.

import { createHash } from 'node:crypto';

/** Parameters in a block: the unit of digests, of slices, and of anything else that is summed across parameters. */
export const BLOCK_PARAMETERS = 512;

const MASK = (1n << 64n) - 1n;
/** The multipliers of SplitMix64's finalizer (Steele, Lea, Flood 2014; Stafford's variant 13). */
const FIRST_MULTIPLIER = 0xbf58476d1ce4e5b9n;
const SECOND_MULTIPLIER = 0x94d049bb133111ebn;

export function blockCount(parameterCount: number): number {
  return Math.ceil(parameterCount / BLOCK_PARAMETERS);
}

/**
 * One mixing step: xor, then multiply, fold the high half into the low one, multiply. A bijection of `h`. With one
 * multiplication less, the flipped signs of some weights would cancel those of others whatever the weights are.
 */
function mix(h: bigint, value: bigint): bigint {
  const product = ((h ^ value) * FIRST_MULTIPLIER) & MASK;
  return ((product ^ (product >> 32n)) * SECOND_MULTIPLIER) & MASK;
}

/** The digest of one block of 512 f32 weights: four interleaved lanes of 64-bit words, then one over the lanes. */
function digestBlock(words: BigUint64Array): bigint {
  const lanes: [bigint, bigint, bigint, bigint] = [1n, 2n, 3n, 4n];
  for (let i = 0; i < words.length; i++) lanes[i & 3] = mix(lanes[i & 3], words[i]);
  let h = 0n;
  for (const lane of lanes) h = mix(h, lane);
  return h;
}

/**
 * The next value of the chain, after `step` updates, from the previous value and the weights
 * (length a multiple of 512, zeros behind the last parameter). Scalar reference, slow.
 */
export function chainHash(previous: bigint, weights: Float32Array, step: number): bigint {
  const words = new BigUint64Array(weights.slice().buffer);
  const wordsPerBlock = BLOCK_PARAMETERS / 2;
  let h = mix(previous, BigInt(step));
  for (let at = 0; at < words.length; at += wordsPerBlock) {
    h = mix(h, digestBlock(words.subarray(at, at + wordsPerBlock)));
  }
  return h;
}

/** The value as it is written everywhere: 16 hexadecimal digits. */
export function formatHash(hash: bigint): string {
  return hash.toString(16).padStart(16, '0');
}

/** As `formatHash` writes it. So are keys, nodes, incarnations and checks named, all of 64 bits. */
export const hex64 = /^[0-9a-f]{16}$/;
/** As `sha256` writes it. */
export const hex256 = /^[0-9a-f]{64}$/;

export function sha256(bytes: Uint8Array | string): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** JSON with sorted keys and no white space: equal values have equal text. */
export function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(',')}]`;
  if (value !== null && typeof value === 'object') {
    const entries = Object.entries(value)
      .filter(([, held]) => held !== undefined)
      .toSorted(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, held]) => `${JSON.stringify(key)}:${canonicalJson(held)}`);
    return `{${entries.join(',')}}`;
  }
  return JSON.stringify(value);
}

/** Where the chain starts: the first 64 bits of the SHA-256 of the settings that decide bits. */
export function initialHash(bitSettings: unknown): bigint {
  return BigInt(`0x${sha256(canonicalJson(bitSettings)).slice(0, 16)}`);
}

// Counter-based random numbers: Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).

/**
 * The fourth counter word says what a number is for, so that no two uses ever share one.
 * `kernels/dropout.ts` is given the finished word.
 */
export const streams = { order: 1, lane: 2, initialWeights: 3, dropout: 4, knownSamples: 5 } as const;

/** How many unsigned words there are: 2^32. */
export const WORD_COUNT = 4294967296;

/** The 64-bit key of a generator, as two unsigned 32-bit words. */
export type Key = readonly [number, number];

/** The key that belongs to a seed, an integer in [0, 2^53). */
export function seedKey(seed: number): Key {
  return [seed >>> 0, Math.floor(seed / WORD_COUNT)];
}

/** The high 32 bits of the 64-bit product of two unsigned 32-bit words. */
function multiplyHigh(a: number, b: number): number {
  const aLow = a & 0xffff;
  const aHigh = a >>> 16;
  const bLow = b & 0xffff;
  const bHigh = b >>> 16;
  const middle = aHigh * bLow + ((aLow * bLow) >>> 16);
  const carry = aLow * bHigh + (middle & 0xffff);
  return (aHigh * bHigh + Math.floor(middle / 65536) + Math.floor(carry / 65536)) >>> 0;
}

/** Writes the four unsigned words that belong to (key, counter) into `out`. */
export function philox(key: Key, c0: number, c1: number, c2: number, c3: number, out: Uint32Array): void {
  let [k0, k1] = key;
  let x0 = c0;
  let x1 = c1;
  let x2 = c2;
  let x3 = c3;
  for (let round = 0; round < 10; round++) {
    const high0 = multiplyHigh(0xd2511f53, x0);
    const low0 = Math.imul(0xd2511f53, x0);
    const high1 = multiplyHigh(0xcd9e8d57, x2);
    const low1 = Math.imul(0xcd9e8d57, x2);
    x0 = (high1 ^ x1 ^ k0) >>> 0;
    x1 = low1 >>> 0;
    x2 = (high0 ^ x3 ^ k1) >>> 0;
    x3 = low0 >>> 0;
    k0 = (k0 + 0x9e3779b9) >>> 0;
    k1 = (k1 + 0xbb67ae85) >>> 0;
  }
  out[0] = x0;
  out[1] = x1;
  out[2] = x2;
  out[3] = x3;
}

/** A function from an index to the index-th unsigned word of the stream (key, c1, c2, c3). */
export function wordsOf(key: Key, c1: number, c2: number, c3: number): (index: number) => number {
  const four = new Uint32Array(4);
  let held = -1;
  return index => {
    const counter = index >>> 2;
    if (counter !== held) {
      philox(key, counter, c1, c2, c3, four);
      held = counter;
    }
    return four[index & 3];
  };
}

/**
 * A permutation of 0 .. length - 1 (Fisher-Yates, Durstenfeld's form). The product of a word and a bound
 * below 2^21 is exact in a double, so its division by 2^32 picks a position without a rounding error.
 */
export function permutation(length: number, word: (index: number) => number): Uint32Array {
  const order = new Uint32Array(length);
  for (let i = 0; i < length; i++) order[i] = i;
  for (let i = length - 1; i > 0; i--) {
    const j = Math.floor((word(i) * (i + 1)) / WORD_COUNT);
    const held = order[i];
    order[i] = order[j];
    order[j] = held;
  }
  return order;
}

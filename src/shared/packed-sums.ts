// Exact sums on the wire. They are whole multiples of 2^-36, and most of them are small: a block of parameters is sent in
// as many bytes each as its largest needs. Nothing is lost but the sign of a zero, which no sum of ours has.
//
// First a byte for each block, the width of its components; then, from a multiple of 8 on, block after block:
//   0  all are zero, nothing follows
//   4  i32, multiples of 2^-36
//   5  the low 32 bits of all (u32), then the high 8 of all (i8)
//   8  f64

import { LockstepError } from './errors.js';
import { LARGEST_SUM } from './exact-sum.js';
import { BLOCK_PARAMETERS } from './hash.js';

/** 2^36, 2^32 and their inverses: powers of two, so products with them are exact. */
const GRID = 68_719_476_736;
const UNIT = 1 / GRID;
const LOW = 4_294_967_296;
const HIGH_UNIT = 1 / LOW;
/** What 32 and 40 bits hold of multiples of 2^-36. */
const LEAST_OF_FIVE = 1 / 32;
const LEAST_OF_EIGHT = 8;

/** The widths of all blocks, up to a multiple of 8. */
function headBytes(count: number): number {
  return Math.ceil(Math.ceil(count / BLOCK_PARAMETERS) / 8) * 8;
}

/** What `count` components take at most. */
export function mostPackedBytes(count: number): number {
  return headBytes(count) + count * 8;
}

/** One side's memory for sums of `count` components: made once, since steps follow each other by the hundred a second. */
export class SumsPacker {
  readonly #count: number;
  readonly #bytes: Uint8Array;
  readonly #signed: Int8Array;
  readonly #ints: Int32Array;
  readonly #words: Uint32Array;
  readonly #doubles: Float64Array;

  constructor(count: number) {
    const buffer = new ArrayBuffer(Math.ceil(mostPackedBytes(count) / 8) * 8);
    this.#count = count;
    this.#bytes = new Uint8Array(buffer);
    this.#signed = new Int8Array(buffer);
    this.#ints = new Int32Array(buffer);
    this.#words = new Uint32Array(buffer);
    this.#doubles = new Float64Array(buffer);
  }

  /** A view, which lasts until the next call of anything here. */
  pack(sums: Float64Array): Uint8Array {
    const count = this.#count;
    let at = headBytes(count);
    for (let from = 0; from < count; from += BLOCK_PARAMETERS) {
      const to = Math.min(from + BLOCK_PARAMETERS, count);
      const width = widthOf(sums, from, to);
      this.#bytes[from / BLOCK_PARAMETERS] = width;
      if (width === 8) this.#doubles.set(sums.subarray(from, to), at / 8);
      else if (width === 5) packFive(sums, from, to, this.#words, this.#signed, at);
      else if (width === 4) packFour(sums, from, to, this.#ints, at / 4);
      at += width * (to - from);
    }
    return this.#bytes.subarray(0, at);
  }

  /**
   * Takes a copy of packed sums, for `addTo`.
   * @throws LOCKSTEP_PROTOCOL if these are no sums of so many components, each exact: a multiple of 2^-36 up to 2^16
   */
  read(packed: Uint8Array): void {
    const count = this.#count;
    if (packed.length > this.#bytes.length) throw notPacked('too many bytes');
    // What arrives is rarely aligned.
    this.#bytes.set(packed);
    let at = headBytes(count);
    if (packed.length < at) throw notPacked('too few bytes');
    for (let from = 0; from < count; from += BLOCK_PARAMETERS) {
      const length = Math.min(BLOCK_PARAMETERS, count - from);
      const width = this.#bytes[from / BLOCK_PARAMETERS];
      if (width !== 0 && width !== 4 && width !== 5 && width !== 8)
        throw notPacked(`a block of width ${width}`);
      if (at + width * length > packed.length) throw notPacked('too few bytes');
      if (width === 8 && !areExact(this.#doubles, at / 8, length)) throw notPacked('a component is no sum');
      at += width * length;
    }
    if (at !== packed.length) throw notPacked('too many bytes');
  }

  /** Adds what was read last. */
  addTo(total: Float64Array): void {
    const count = this.#count;
    let at = headBytes(count);
    for (let from = 0; from < count; from += BLOCK_PARAMETERS) {
      const to = Math.min(from + BLOCK_PARAMETERS, count);
      const width = this.#bytes[from / BLOCK_PARAMETERS];
      if (width === 8) addEight(total, from, to, this.#doubles, at / 8);
      else if (width === 5) addFive(total, from, to, this.#words, this.#signed, at);
      else if (width === 4) addFour(total, from, to, this.#ints, at / 4);
      at += width * (to - from);
    }
  }
}

// Loops of their own, over local variables only: they run at every step, and anything else in them makes them slow.

function widthOf(sums: Float64Array, from: number, to: number): number {
  let most = 0;
  for (let i = from; i < to; i++) most = Math.max(most, Math.abs(sums[i]));
  if (most === 0) return 0;
  if (most < LEAST_OF_FIVE) return 4;
  return most < LEAST_OF_EIGHT ? 5 : 8;
}

function packFour(sums: Float64Array, from: number, to: number, ints: Int32Array, at: number): void {
  for (let i = from; i < to; i++) ints[at + i - from] = sums[i] * GRID;
}

function packFive(
  sums: Float64Array,
  from: number,
  to: number,
  words: Uint32Array,
  signed: Int8Array,
  at: number,
): void {
  const lowAt = at / 4;
  const highAt = at + 4 * (to - from);
  for (let i = from; i < to; i++) {
    const multiple = sums[i] * GRID;
    const high = Math.floor(multiple * HIGH_UNIT);
    words[lowAt + i - from] = multiple - high * LOW;
    signed[highAt + i - from] = high;
  }
}

/** False for NaN too. */
function areExact(sums: Float64Array, at: number, length: number): boolean {
  let isExact = true;
  for (let i = at; i < at + length; i++) {
    const multiple = sums[i] * GRID;
    isExact = Math.abs(sums[i]) <= LARGEST_SUM && Math.floor(multiple) === multiple && isExact;
  }
  return isExact;
}

function addFour(total: Float64Array, from: number, to: number, ints: Int32Array, at: number): void {
  for (let i = from; i < to; i++) total[i] += ints[at + i - from] * UNIT;
}

function addFive(
  total: Float64Array,
  from: number,
  to: number,
  words: Uint32Array,
  signed: Int8Array,
  at: number,
): void {
  const lowAt = at / 4;
  const highAt = at + 4 * (to - from);
  for (let i = from; i < to; i++) {
    total[i] += (signed[highAt + i - from] * LOW + words[lowAt + i - from]) * UNIT;
  }
}

function addEight(total: Float64Array, from: number, to: number, doubles: Float64Array, at: number): void {
  for (let i = from; i < to; i++) total[i] += doubles[at + i - from];
}

function notPacked(what: string): LockstepError {
  return new LockstepError('LOCKSTEP_PROTOCOL', `The sums of a part cannot be read: ${what}.`);
}

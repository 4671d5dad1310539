// Exact sums on the wire. They are whole multiples of 2^-36, and most of them are small: a block of parameters is sent in
// as many bytes each as its largest needs. Nothing is lost but the sign of a zero, which no sum of ours has.
//
// First a byte for each block, the width of its components; then, from a multiple of 8 on, block after block:
//   0  all are zero, nothing follows
//   4  i32, multiples of 2^-36
//   5  the low 32 bits of all (u32), then the high 8 of all (i8)
//   8  f64

import { LockstepError } from './errors.js';
import { BLOCK_PARAMETERS } from './hash.js';

/** 2^36 and 2^32. */
const GRID = 68_719_476_736;
const LOW = 4_294_967_296;
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

  /** A view, which lasts until the next call. */
  pack(sums: Float64Array): Uint8Array {
    const count = this.#count;
    let at = headBytes(count);
    for (let from = 0; from < count; from += BLOCK_PARAMETERS) {
      const to = Math.min(from + BLOCK_PARAMETERS, count);
      const width = widthOf(sums, from, to);
      this.#bytes[from / BLOCK_PARAMETERS] = width;
      if (width === 8) this.#doubles.set(sums.subarray(from, to), at / 8);
      else if (width === 5) this.#packFive(sums, from, to, at);
      else if (width === 4) for (let i = from, to4 = at / 4; i < to; i++) this.#ints[to4++] = sums[i] * GRID;
      at += width * (to - from);
    }
    return this.#bytes.subarray(0, at);
  }

  #packFive(sums: Float64Array, from: number, to: number, at: number): void {
    const lowAt = at / 4;
    const highAt = at + 4 * (to - from);
    for (let i = from; i < to; i++) {
      const multiple = sums[i] * GRID;
      const high = Math.floor(multiple / LOW);
      this.#words[lowAt + i - from] = multiple - high * LOW;
      this.#signed[highAt + i - from] = high;
    }
  }

  /** @throws LOCKSTEP_PROTOCOL if these are no packed sums of so many components */
  unpack(packed: Uint8Array, sums: Float64Array): void {
    const count = this.#count;
    if (packed.length > this.#bytes.length) throw notPacked('too many bytes');
    // What arrives is rarely aligned.
    this.#bytes.set(packed);
    let at = headBytes(count);
    if (packed.length < at) throw notPacked('too few bytes');
    for (let from = 0; from < count; from += BLOCK_PARAMETERS) {
      const to = Math.min(from + BLOCK_PARAMETERS, count);
      const width = this.#bytes[from / BLOCK_PARAMETERS];
      if (at + width * (to - from) > packed.length) throw notPacked('too few bytes');
      if (width === 0) sums.fill(0, from, to);
      else if (width === 4) for (let i = from, at4 = at / 4; i < to; i++) sums[i] = this.#ints[at4++] / GRID;
      else if (width === 5) this.#unpackFive(sums, from, to, at);
      else if (width === 8) sums.set(this.#doubles.subarray(at / 8, at / 8 + to - from), from);
      else throw notPacked(`a block of width ${width}`);
      at += width * (to - from);
    }
    if (at !== packed.length) throw notPacked('too many bytes');
  }

  #unpackFive(sums: Float64Array, from: number, to: number, at: number): void {
    const lowAt = at / 4;
    const highAt = at + 4 * (to - from);
    for (let i = from; i < to; i++) {
      sums[i] = (this.#signed[highAt + i - from] * LOW + this.#words[lowAt + i - from]) / GRID;
    }
  }
}

function widthOf(sums: Float64Array, from: number, to: number): number {
  let most = 0;
  for (let i = from; i < to; i++) most = Math.max(most, Math.abs(sums[i]));
  if (most === 0) return 0;
  if (most < LEAST_OF_FIVE) return 4;
  return most < LEAST_OF_EIGHT ? 5 : 8;
}

function notPacked(what: string): LockstepError {
  return new LockstepError('LOCKSTEP_PROTOCOL', `The sums of a part cannot be read: ${what}.`);
}

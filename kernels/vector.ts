// What several kernels share: partial stores, and the weighted sum of rows that dense layers are made of.

/** Stores the first `lanes` (1 to 4) floats of a vector. */
// @ts-ignore: decorator
@inline
export function storeLanes(at: usize, vector: v128, lanes: i32): void {
  if (lanes >= 4) {
    v128.store(at, vector);
    return;
  }
  if (lanes == 1) {
    v128.store_lane<f32>(at, vector, 0);
    return;
  }
  v128.store_lane<u64>(at, vector, 0);
  if (lanes == 3) v128.store_lane<f32>(at, vector, 2, 8);
}

/** The magnitudes' bits: as integers they are ordered as the numbers are, and a NaN is above all of them. */
// @ts-ignore: decorator
@inline
export function magnitudeBits(vector: v128): v128 {
  return v128.and(vector, i32x4.splat(0x7fffffff));
}

/** A list of live terms: pairs of (u32 byte offset, f32 value), 8 bytes each. */
export const TERM_BYTES: usize = 8;

/** Writes a term at `end` and gives the list's new end: behind it, or the same if the value (bits of an f32) is zero. */
// @ts-ignore: decorator
@inline
export function appendTerm(end: usize, offset: usize, value: u32): usize {
  store<u64>(end, (u64(value) << 32) | u64(offset));
  return end + (usize(value << 1 != 0) << 3);
}

/** Lists the x[i] that are not zero, with offset i * offsetStep, i ascending. Returns the list's end. */
export function listTerms(x: usize, xStep: usize, count: i32, offsetStep: i32, list: usize): usize {
  let end = list;
  let offset: usize = 0;
  for (let i = 0; i < count; i++) {
    end = appendTerm(end, offset, load<u32>(x));
    x += xStep;
    offset += usize(offsetStep);
  }
  return end;
}

/**
 * out[j] = start[j] + sum over the terms of value * base[offset + j], j < count, added in list order; `start` 0 means
 * zeros. Blocks of 9, 5, 3 and 1 vectors are held in registers over the whole list, each in a function of its own: in
 * a loop nest the accumulators would be spilled to memory.
 */
export function weightedRows(out: usize, start: usize, base: usize, list: usize, end: usize, count: i32): void {
  let j = 0;
  for (; j + 32 < count; j += 36) {
    const at = usize(j) << 2;
    weightedNine(out + at, start ? start + at : 0, base + at, list, end, count - j);
  }
  for (; j + 16 < count; j += 20) {
    const at = usize(j) << 2;
    weightedFive(out + at, start ? start + at : 0, base + at, list, end, count - j);
  }
  for (; j + 8 < count; j += 12) {
    const at = usize(j) << 2;
    weightedThree(out + at, start ? start + at : 0, base + at, list, end, count - j);
  }
  for (; j < count; j += 4) {
    const at = usize(j) << 2;
    weightedOne(out + at, start ? start + at : 0, base + at, list, end, count - j);
  }
}

function weightedNine(out: usize, start: usize, base: usize, list: usize, end: usize, left: i32): void {
  let a0 = f32x4.splat(0);
  let a1 = a0;
  let a2 = a0;
  let a3 = a0;
  let a4 = a0;
  let a5 = a0;
  let a6 = a0;
  let a7 = a0;
  let a8 = a0;
  if (start) {
    a0 = v128.load(start);
    a1 = v128.load(start, 16);
    a2 = v128.load(start, 32);
    a3 = v128.load(start, 48);
    a4 = v128.load(start, 64);
    a5 = v128.load(start, 80);
    a6 = v128.load(start, 96);
    a7 = v128.load(start, 112);
    a8 = v128.load(start, 128);
  }
  for (let term = list; term < end; term += TERM_BYTES) {
    const row = base + load<u32>(term);
    const value = v128.load_splat<f32>(term, 4);
    a0 = f32x4.add(a0, f32x4.mul(value, v128.load(row)));
    a1 = f32x4.add(a1, f32x4.mul(value, v128.load(row, 16)));
    a2 = f32x4.add(a2, f32x4.mul(value, v128.load(row, 32)));
    a3 = f32x4.add(a3, f32x4.mul(value, v128.load(row, 48)));
    a4 = f32x4.add(a4, f32x4.mul(value, v128.load(row, 64)));
    a5 = f32x4.add(a5, f32x4.mul(value, v128.load(row, 80)));
    a6 = f32x4.add(a6, f32x4.mul(value, v128.load(row, 96)));
    a7 = f32x4.add(a7, f32x4.mul(value, v128.load(row, 112)));
    a8 = f32x4.add(a8, f32x4.mul(value, v128.load(row, 128)));
  }
  v128.store(out, a0);
  v128.store(out, a1, 16);
  v128.store(out, a2, 32);
  v128.store(out, a3, 48);
  v128.store(out, a4, 64);
  v128.store(out, a5, 80);
  v128.store(out, a6, 96);
  v128.store(out, a7, 112);
  storeLanes(out + 128, a8, left - 32);
}

function weightedFive(out: usize, start: usize, base: usize, list: usize, end: usize, left: i32): void {
  let a0 = f32x4.splat(0);
  let a1 = a0;
  let a2 = a0;
  let a3 = a0;
  let a4 = a0;
  if (start) {
    a0 = v128.load(start);
    a1 = v128.load(start, 16);
    a2 = v128.load(start, 32);
    a3 = v128.load(start, 48);
    a4 = v128.load(start, 64);
  }
  for (let term = list; term < end; term += TERM_BYTES) {
    const row = base + load<u32>(term);
    const value = v128.load_splat<f32>(term, 4);
    a0 = f32x4.add(a0, f32x4.mul(value, v128.load(row)));
    a1 = f32x4.add(a1, f32x4.mul(value, v128.load(row, 16)));
    a2 = f32x4.add(a2, f32x4.mul(value, v128.load(row, 32)));
    a3 = f32x4.add(a3, f32x4.mul(value, v128.load(row, 48)));
    a4 = f32x4.add(a4, f32x4.mul(value, v128.load(row, 64)));
  }
  v128.store(out, a0);
  v128.store(out, a1, 16);
  v128.store(out, a2, 32);
  v128.store(out, a3, 48);
  storeLanes(out + 64, a4, left - 16);
}

function weightedThree(out: usize, start: usize, base: usize, list: usize, end: usize, left: i32): void {
  let a0 = f32x4.splat(0);
  let a1 = a0;
  let a2 = a0;
  if (start) {
    a0 = v128.load(start);
    a1 = v128.load(start, 16);
    a2 = v128.load(start, 32);
  }
  for (let term = list; term < end; term += TERM_BYTES) {
    const row = base + load<u32>(term);
    const value = v128.load_splat<f32>(term, 4);
    a0 = f32x4.add(a0, f32x4.mul(value, v128.load(row)));
    a1 = f32x4.add(a1, f32x4.mul(value, v128.load(row, 16)));
    a2 = f32x4.add(a2, f32x4.mul(value, v128.load(row, 32)));
  }
  v128.store(out, a0);
  v128.store(out, a1, 16);
  storeLanes(out + 32, a2, left - 8);
}

function weightedOne(out: usize, start: usize, base: usize, list: usize, end: usize, left: i32): void {
  let a0 = start ? v128.load(start) : f32x4.splat(0);
  for (let term = list; term < end; term += TERM_BYTES) {
    a0 = f32x4.add(a0, f32x4.mul(v128.load_splat<f32>(term, 4), v128.load(base + load<u32>(term))));
  }
  storeLanes(out, a0, left);
}

// The exact sum, as in `src/shared/exact-sum.ts`: round first by (g + C) - C, then add.

import { magnitudeBits } from './vector';

/** 1.5 * 2^16, the rounder of |g| < 2^15 to multiples of 2^-36. */
const ROUNDER: f64 = 98304;

/**
 * Adds a leaf's gradient (f32 [count]) to a sum (f64 [count]), or stores it there if `first`. count is a multiple of 4.
 * Returns 0 if a component is NaN or its magnitude exceeds `bound`, else 1.
 */
export function addLeaf(gradient: usize, sum: usize, count: i32, bound: f32, first: i32): i32 {
  return addRounded(gradient, first ? 0 : sum, sum, count, bound);
}

/** sum = base + the rounded gradient, base 0 meaning zeros; the answer is that of `addLeaf`. */
function addRounded(gradient: usize, base: usize, sum: usize, count: i32, bound: f32): i32 {
  const rounder = f64x2.splat(ROUNDER);
  // Of bits, and not of numbers: a maximum of these would lose a NaN.
  let largest = i32x4.splat(0);
  const end = gradient + (usize(count) << 2);
  if (base) {
    for (; gradient < end; gradient += 16) {
      const g = v128.load(gradient);
      largest = i32x4.max_s(largest, magnitudeBits(g));
      const low = f64x2.promote_low_f32x4(g);
      const high = f64x2.promote_low_f32x4(v128.shuffle<f64>(g, g, 1, 1));
      v128.store(sum, f64x2.add(v128.load(base), f64x2.sub(f64x2.add(low, rounder), rounder)));
      v128.store(sum, f64x2.add(v128.load(base, 16), f64x2.sub(f64x2.add(high, rounder), rounder)), 16);
      base += 32;
      sum += 32;
    }
  } else {
    for (; gradient < end; gradient += 16) {
      const g = v128.load(gradient);
      largest = i32x4.max_s(largest, magnitudeBits(g));
      const low = f64x2.promote_low_f32x4(g);
      const high = f64x2.promote_low_f32x4(v128.shuffle<f64>(g, g, 1, 1));
      v128.store(sum, f64x2.sub(f64x2.add(low, rounder), rounder));
      v128.store(sum, f64x2.sub(f64x2.add(high, rounder), rounder), 16);
      sum += 32;
    }
  }
  return i32(!v128.any_true(i32x4.gt_s(largest, f32x4.splat(bound))));
}

/**
 * The reduce-scatter of one slice: sums[i] = the sum of what the threads have, for from <= i < to (multiples of 4).
 * sources: u32 [threads][2], addresses of a thread's sum (f64) and of its last leaf's gradient (f32), which is rounded
 * here; 0 where it has none. Returns 0 if such a gradient has a component that is NaN or beyond `bound`, else 1.
 */
export function reduce(sums: usize, sources: usize, threads: i32, from: i32, to: i32, bound: f32): i32 {
  let within = 1;
  // In pieces whose sums stay in the first cache.
  for (let piece = from; piece < to; piece += PIECE) {
    const count = min(PIECE, to - piece);
    const sum = sums + (usize(piece) << 3);
    // Where what has been added so far lies: the first thread's sum is read in its place.
    let base: usize = 0;
    for (let t = 0; t < threads; t++) {
      const source = sources + (usize(t) << 3);
      const part = usize(load<u32>(source));
      if (part) {
        const at = part + (usize(piece) << 3);
        if (base) {
          add(base, at, sum, count);
          base = sum;
        } else {
          base = at;
        }
      }
      const gradient = usize(load<u32>(source, 4));
      if (gradient) {
        within &= addRounded(gradient + (usize(piece) << 2), base, sum, count, bound);
        base = sum;
      }
    }
    if (!base) memory.fill(sum, 0, usize(count) << 3);
    else if (base != sum) memory.copy(sum, base, usize(count) << 3);
  }
  return within;
}

const PIECE: i32 = 1024;

/** sum = a + b, f64 [count]. */
function add(a: usize, b: usize, sum: usize, count: i32): void {
  const end = sum + (usize(count) << 3);
  for (; sum < end; sum += 16) {
    v128.store(sum, f64x2.add(v128.load(a), v128.load(b)));
    a += 16;
    b += 16;
  }
}

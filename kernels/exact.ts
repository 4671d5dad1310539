// The exact sum, as in `src/shared/exact-sum.ts`: round first by (g + C) - C, then add.

/** 1.5 * 2^16, the rounder of |g| < 2^15 to multiples of 2^-36. */
const ROUNDER: f64 = 98304;

/**
 * Adds a leaf's gradient (f32 [count]) to a sum (f64 [count]), or stores it there if `first`. count is a multiple of 4.
 * Returns 0 if a component is NaN or its magnitude exceeds `bound`, else 1; ANDing comparisons keeps a NaN visible.
 */
export function addLeaf(gradient: usize, sum: usize, count: i32, bound: f32, first: i32): i32 {
  const rounder = f64x2.splat(ROUNDER);
  const bounds = f32x4.splat(bound);
  let within = i32x4.splat(-1);
  const end = gradient + (usize(count) << 2);
  if (first) {
    for (; gradient < end; gradient += 16) {
      const g = v128.load(gradient);
      within = v128.and(within, f32x4.le(f32x4.abs(g), bounds));
      const low = f64x2.promote_low_f32x4(g);
      const high = f64x2.promote_low_f32x4(v128.shuffle<f64>(g, g, 1, 1));
      v128.store(sum, f64x2.sub(f64x2.add(low, rounder), rounder));
      v128.store(sum, f64x2.sub(f64x2.add(high, rounder), rounder), 16);
      sum += 32;
    }
  } else {
    for (; gradient < end; gradient += 16) {
      const g = v128.load(gradient);
      within = v128.and(within, f32x4.le(f32x4.abs(g), bounds));
      const low = f64x2.promote_low_f32x4(g);
      const high = f64x2.promote_low_f32x4(v128.shuffle<f64>(g, g, 1, 1));
      v128.store(sum, f64x2.add(v128.load(sum), f64x2.sub(f64x2.add(low, rounder), rounder)));
      v128.store(sum, f64x2.add(v128.load(sum, 16), f64x2.sub(f64x2.add(high, rounder), rounder)), 16);
      sum += 32;
    }
  }
  return i32(i32x4.all_true(within));
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
    const end = min(piece + PIECE, to);
    const sum = sums + (usize(piece) << 3);
    let first = 1;
    for (let t = 0; t < threads; t++) {
      const part = usize(load<u32>(sources + (usize(t) << 3)));
      if (part) {
        addPart(part + (usize(piece) << 3), sum, end - piece, first);
        first = 0;
      }
      const gradient = usize(load<u32>(sources + (usize(t) << 3), 4));
      if (gradient) {
        within &= addLeaf(gradient + (usize(piece) << 2), sum, end - piece, bound, first);
        first = 0;
      }
    }
    if (first) memory.fill(sum, 0, usize(end - piece) << 3);
  }
  return within;
}

const PIECE: i32 = 1024;

function addPart(part: usize, sum: usize, count: i32, first: i32): void {
  if (first) {
    memory.copy(sum, part, usize(count) << 3);
    return;
  }
  const end = sum + (usize(count) << 3);
  for (; sum < end; sum += 16) {
    v128.store(sum, f64x2.add(v128.load(sum), v128.load(part)));
    part += 16;
  }
}

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
 * The reduce-scatter of one slice: sums[i] = the sum over the threads that have one, for from <= i < to (even).
 * parts: f64 [threads][stride]; present: i32 [threads], 0 where a thread has added no leaf in this step.
 */
export function reduce(
  sums: usize,
  parts: usize,
  stride: i32,
  present: usize,
  threads: i32,
  from: i32,
  to: i32,
): void {
  let first = true;
  for (let t = 0; t < threads; t++) {
    if (!load<i32>(present + (usize(t) << 2))) continue;
    let part = parts + ((usize(t) * usize(stride) + usize(from)) << 3);
    let sum = sums + (usize(from) << 3);
    const end = sums + (usize(to) << 3);
    if (first) {
      memory.copy(sum, part, end - sum);
      first = false;
    } else {
      for (; sum < end; sum += 16) {
        v128.store(sum, f64x2.add(v128.load(sum), v128.load(part)));
        part += 16;
      }
    }
  }
  if (first) memory.fill(sums + (usize(from) << 3), 0, usize(to - from) << 3);
}

// What the arithmetic of this machine can do at most: multiply-adds on registers alone, without a load or a store.

/** Twelve accumulators of four: what every iteration of `peak` does. */
export const multiplyAddsPerIteration: i32 = 12 * 4;

/** So many independent f32 multiply-adds, each a multiplication and an addition, over and over. */
export function peak(iterations: i32): f32 {
  const x = f32x4.splat(0.999);
  const y = f32x4.splat(0.001);
  let a0 = y;
  let a1 = y;
  let a2 = y;
  let a3 = y;
  let a4 = y;
  let a5 = y;
  let a6 = y;
  let a7 = y;
  let a8 = y;
  let a9 = y;
  let a10 = y;
  let a11 = y;
  for (let i = 0; i < iterations; i++) {
    a0 = f32x4.add(f32x4.mul(a0, x), y);
    a1 = f32x4.add(f32x4.mul(a1, x), y);
    a2 = f32x4.add(f32x4.mul(a2, x), y);
    a3 = f32x4.add(f32x4.mul(a3, x), y);
    a4 = f32x4.add(f32x4.mul(a4, x), y);
    a5 = f32x4.add(f32x4.mul(a5, x), y);
    a6 = f32x4.add(f32x4.mul(a6, x), y);
    a7 = f32x4.add(f32x4.mul(a7, x), y);
    a8 = f32x4.add(f32x4.mul(a8, x), y);
    a9 = f32x4.add(f32x4.mul(a9, x), y);
    a10 = f32x4.add(f32x4.mul(a10, x), y);
    a11 = f32x4.add(f32x4.mul(a11, x), y);
  }
  const low = f32x4.add(f32x4.add(f32x4.add(a0, a1), f32x4.add(a2, a3)), f32x4.add(a4, a5));
  const high = f32x4.add(f32x4.add(f32x4.add(a6, a7), f32x4.add(a8, a9)), f32x4.add(a10, a11));
  return f32x4.extract_lane(f32x4.add(low, high), 0);
}

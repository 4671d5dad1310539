// ReLU, in place. A NaN stays one: `pmax(v, 0)` is v unless v < 0.

/** x[i] = x[i] < 0 ? 0 : x[i]. */
export function reluForward(x: usize, count: i32): void {
  const zero = f32x4.splat(0);
  let i = 0;
  for (; i + 4 <= count; i += 4) {
    v128.store(x, f32x4.pmax(v128.load(x), zero));
    x += 16;
  }
  for (; i < count; i++) {
    if (load<f32>(x) < 0) store<f32>(x, 0);
    x += 4;
  }
}

/** dy[i] = y[i] > 0 ? dy[i] : 0, where y is what the forward pass gave. */
export function reluBackward(y: usize, dy: usize, count: i32): void {
  const zero = f32x4.splat(0);
  let i = 0;
  for (; i + 4 <= count; i += 4) {
    v128.store(dy, v128.and(v128.load(dy), f32x4.gt(v128.load(y), zero)));
    y += 16;
    dy += 16;
  }
  for (; i < count; i++) {
    if (!(load<f32>(y) > 0)) store<f32>(dy, 0);
    y += 4;
    dy += 4;
  }
}

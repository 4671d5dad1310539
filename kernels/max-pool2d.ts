// Max-pooling over windows that do not overlap; rows and columns that fill no window are dropped.

import { storeLanes } from './vector';

/**
 * y = the maximum of each window, the first of equals in raster order; NaN if one is in it.
 * winners[...] = its place in the window, counted in raster order.
 */
export function maxPool2dForward(
  x: usize,
  y: usize,
  winners: usize,
  samples: i32,
  height: i32,
  width: i32,
  channels: i32,
  poolSize: i32,
): void {
  const outHeight = height / poolSize;
  const outWidth = width / poolSize;
  const pixelBytes = usize(channels) << 2;
  const rowBytes = usize(width) * pixelBytes;
  for (let s = 0; s < samples; s++) {
    for (let oy = 0; oy < outHeight; oy++) {
      const row = x + usize(s * height + oy * poolSize) * rowBytes;
      const at = usize((s * outHeight + oy) * outWidth) * pixelBytes;
      poolRow(row, y + at, winners + at, outWidth, channels, poolSize, pixelBytes, rowBytes);
    }
  }
}

/** One row of windows; x is its first pixel. */
export function poolRow(
  x: usize,
  y: usize,
  winners: usize,
  outWidth: i32,
  channels: i32,
  poolSize: i32,
  pixelBytes: usize,
  rowBytes: usize,
): void {
  for (let ox = 0; ox < outWidth; ox++) {
    for (let c = 0; c < channels; c += 4) {
      const from = x + (usize(c) << 2);
      let best = v128.load(from);
      let winner = i32x4.splat(0);
      if (poolSize == 2) {
        const b = v128.load(from + pixelBytes);
        const bWins = winsOver(b, best);
        best = v128.bitselect(b, best, bWins);
        winner = v128.and(i32x4.splat(1), bWins);
        const third = v128.load(from + rowBytes);
        const thirdWins = winsOver(third, best);
        best = v128.bitselect(third, best, thirdWins);
        winner = v128.bitselect(i32x4.splat(2), winner, thirdWins);
        const fourth = v128.load(from + rowBytes + pixelBytes);
        const fourthWins = winsOver(fourth, best);
        best = v128.bitselect(fourth, best, fourthWins);
        winner = v128.bitselect(i32x4.splat(3), winner, fourthWins);
      } else {
        for (let place = 1; place < poolSize * poolSize; place++) {
          const value = v128.load(from + usize(place / poolSize) * rowBytes + usize(place % poolSize) * pixelBytes);
          const wins = winsOver(value, best);
          best = v128.bitselect(value, best, wins);
          winner = v128.bitselect(i32x4.splat(place), winner, wins);
        }
      }
      const lanes = min(4, channels - c);
      storeLanes(y, best, lanes);
      storeLanes(winners, winner, lanes);
      y += usize(lanes) << 2;
      winners += usize(lanes) << 2;
    }
    x += usize(poolSize) * pixelBytes;
  }
}

// @ts-ignore: decorator
@inline
export function winsOver(value: v128, best: v128): v128 {
  return v128.or(f32x4.gt(value, best), f32x4.ne(value, value));
}

/** dx[winner] = dy, zero elsewhere. height, width, channels: of the input. */
export function maxPool2dBackward(
  dy: usize,
  winners: usize,
  dx: usize,
  samples: i32,
  height: i32,
  width: i32,
  channels: i32,
  poolSize: i32,
): void {
  memory.fill(dx, 0, usize(samples * height * width * channels) << 2);
  for (let s = 0; s < samples; s++) {
    for (let oy = 0; oy < height / poolSize; oy++) {
      for (let ox = 0; ox < width / poolSize; ox++) {
        const cell = ((s * height + oy * poolSize) * width + ox * poolSize) * channels;
        for (let c = 0; c < channels; c++) {
          const winner = load<i32>(winners);
          const pixel = (winner / poolSize) * width + (winner % poolSize);
          store<f32>(dx + (usize(cell + pixel * channels + c) << 2), load<f32>(dy));
          dy += 4;
          winners += 4;
        }
      }
    }
  }
}

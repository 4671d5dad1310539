// Max-pooling over windows that do not overlap; rows and columns that fill no window are dropped.

import { storeLanes } from './vector';

/**
 * y = the maximum of each window, the first of equals; NaN if one is in it. winners[...] = its index in the sample.
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
  const laneIndex = i32x4(0, 1, 2, 3);
  for (let s = 0; s < samples; s++) {
    const sample = x + (usize(s * height * width * channels) << 2);
    for (let oy = 0; oy < outHeight; oy++) {
      for (let ox = 0; ox < outWidth; ox++) {
        for (let c = 0; c < channels; c += 4) {
          let index = (oy * width + ox) * poolSize * channels + c;
          let best = v128.load(sample + (usize(index) << 2));
          let winner = i32x4.add(i32x4.splat(index), laneIndex);
          for (let py = 0; py < poolSize; py++) {
            for (let px = py == 0 ? 1 : 0; px < poolSize; px++) {
              index = ((oy * poolSize + py) * width + ox * poolSize + px) * channels + c;
              const value = v128.load(sample + (usize(index) << 2));
              const wins = v128.or(f32x4.gt(value, best), f32x4.ne(value, value));
              best = v128.bitselect(value, best, wins);
              winner = v128.bitselect(i32x4.add(i32x4.splat(index), laneIndex), winner, wins);
            }
          }
          const lanes = min(4, channels - c);
          storeLanes(y, best, lanes);
          storeLanes(winners, winner, lanes);
          y += usize(lanes) << 2;
          winners += usize(lanes) << 2;
        }
      }
    }
  }
}

/** dx[winner] = dy, zero elsewhere. inputSize, outputSize: elements of one sample. */
export function maxPool2dBackward(
  dy: usize,
  winners: usize,
  dx: usize,
  samples: i32,
  inputSize: i32,
  outputSize: i32,
): void {
  memory.fill(dx, 0, usize(samples * inputSize) << 2);
  for (let s = 0; s < samples; s++) {
    for (let i = 0; i < outputSize; i++) {
      store<f32>(dx + (usize(load<u32>(winners)) << 2), load<f32>(dy));
      dy += 4;
      winners += 4;
    }
    dx += usize(inputSize) << 2;
  }
}

// Average-pooling over windows that do not overlap; rows and columns that fill no window are dropped.

import { storeLanes } from './vector';

/** y = the sum of each window, from 0 on in raster order, divided by poolSize^2; NaN if one is in it. */
export function avgPool2dForward(
  x: usize,
  y: usize,
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
  const windowBytes = usize(poolSize) * pixelBytes;
  const size = f32x4.splat(f32(poolSize * poolSize));
  for (let s = 0; s < samples; s++) {
    for (let oy = 0; oy < outHeight; oy++) {
      let window = x + usize(s * height + oy * poolSize) * rowBytes;
      for (let ox = 0; ox < outWidth; ox++) {
        for (let c = 0; c < channels; c += 4) {
          let row = window + (usize(c) << 2);
          let sum = f32x4.splat(0);
          for (let py = 0; py < poolSize; py++) {
            const end = row + windowBytes;
            for (let from = row; from < end; from += pixelBytes) sum = f32x4.add(sum, v128.load(from));
            row += rowBytes;
          }
          const lanes = min(4, channels - c);
          storeLanes(y, f32x4.div(sum, size), lanes);
          y += usize(lanes) << 2;
        }
        window += windowBytes;
      }
    }
  }
}

/** dx = dy / poolSize^2 all over each window, zero elsewhere. height, width, channels: of the input. */
export function avgPool2dBackward(
  dy: usize,
  dx: usize,
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
  const windowBytes = usize(poolSize) * pixelBytes;
  const size = f32x4.splat(f32(poolSize * poolSize));
  memory.fill(dx, 0, usize(samples * height) * rowBytes);
  for (let s = 0; s < samples; s++) {
    for (let oy = 0; oy < outHeight; oy++) {
      let window = dx + usize(s * height + oy * poolSize) * rowBytes;
      for (let ox = 0; ox < outWidth; ox++) {
        for (let c = 0; c < channels; c += 4) {
          const lanes = min(4, channels - c);
          const share = f32x4.div(v128.load(dy), size);
          let row = window + (usize(c) << 2);
          for (let py = 0; py < poolSize; py++) {
            const end = row + windowBytes;
            for (let to = row; to < end; to += pixelBytes) storeLanes(to, share, lanes);
            row += rowBytes;
          }
          dy += usize(lanes) << 2;
        }
        window += windowBytes;
      }
    }
  }
}

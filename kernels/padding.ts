// The padding of convolutions: images in the middle of larger ones. Sizes in floats; a row is width * channels.

import { storeLanes } from './vector';

/**
 * padded [samples][paddedRows][paddedRowSize] = value, but for x [samples][rows][rowSize], which begins `offset` floats
 * after the beginning of each padded image.
 */
export function padImages(
  x: usize,
  padded: usize,
  samples: i32,
  rows: i32,
  rowSize: i32,
  paddedRows: i32,
  paddedRowSize: i32,
  offset: i32,
  value: f32,
): void {
  const values = f32x4.splat(value);
  const size = samples * paddedRows * paddedRowSize;
  for (let i = 0; i < size; i += 4) storeLanes(padded + (usize(i) << 2), values, size - i);
  const rowBytes = usize(rowSize) << 2;
  for (let s = 0; s < samples; s++) {
    let to = padded + (usize(s * paddedRows * paddedRowSize + offset) << 2);
    for (let row = 0; row < rows; row++) {
      memory.copy(to, x, rowBytes);
      to += usize(paddedRowSize) << 2;
      x += rowBytes;
    }
  }
}

/** x = what `padImages` would have taken to make `padded`. */
export function unpadImages(
  padded: usize,
  x: usize,
  samples: i32,
  rows: i32,
  rowSize: i32,
  paddedRows: i32,
  paddedRowSize: i32,
  offset: i32,
): void {
  const rowBytes = usize(rowSize) << 2;
  for (let s = 0; s < samples; s++) {
    let from = padded + (usize(s * paddedRows * paddedRowSize + offset) << 2);
    for (let row = 0; row < rows; row++) {
      memory.copy(x, from, rowBytes);
      from += usize(paddedRowSize) << 2;
      x += rowBytes;
    }
  }
}

// Convolutions without padding (see `padImages`), channels last, pooled in the same pass: the `size` floats of a patch row are
// contiguous in the input, size = kernelSize * channels. Kernels of shape [kernelSize, kernelSize, channels, filters].
//
// A cell is the window of poolSize x poolSize outputs that max-pooling makes one of (poolSize 1: a single output).
// Outputs that fill no window are never computed. Only a cell's winner has a gradient, so the backward pass walks
// lists of the live ones: after pooling and ReLU that is at most one position in four.

import { poolRow, winsOver } from './max-pool2d';
import { appendTerm, storeLanes, TERM_BYTES, weightedRows } from './vector';

/**
 * conv[s][oy][ox][f] = bias[f] + sum over the patch, row by row, of x * kernel; y = the maximum of each cell, and
 * winners = its place in the cell, as in `maxPool2dForward` (neither pooled nor written if poolSize is 1).
 * Register tiles: 2 pixels x 16 filters, 4 pixels x 8 filters, or 1 x 4 at the edges.
 * rows: scratch for poolSize rows of outputs.
 */
export function conv2dForward(
  x: usize,
  kernel: usize,
  bias: usize,
  y: usize,
  winners: usize,
  rows: usize,
  samples: i32,
  height: i32,
  width: i32,
  channels: i32,
  kernelSize: i32,
  filters: i32,
  poolSize: i32,
  stride: i32,
): void {
  const cellRows = ((height - kernelSize) / stride + 1) / poolSize;
  const outWidth = (((width - kernelSize) / stride + 1) / poolSize) * poolSize;
  const stepBytes = usize(channels * stride) << 2;
  const outPixelBytes = usize(filters) << 2;
  const xRowBytes = usize(width * channels) << 2;
  const rowBytes = usize(outWidth) * outPixelBytes;
  const cellRowBytes = rowBytes / usize(poolSize);
  for (let s = 0; s < samples; s++) {
    for (let cellRow = 0; cellRow < cellRows; cellRow++) {
      const from = x + usize(s * height + cellRow * poolSize * stride) * xRowBytes;
      const at = usize(s * cellRows + cellRow) * cellRowBytes;
      const to = poolSize == 1 ? y + at : rows;
      for (let py = 0; py < poolSize; py++) {
        convolveRow(
          from + usize(py * stride) * xRowBytes,
          kernel,
          bias,
          to + usize(py) * rowBytes,
          outWidth,
          filters,
          xRowBytes,
          stepBytes,
          kernelSize,
          usize(kernelSize * channels) << 2,
        );
      }
      if (poolSize > 1) {
        poolRow(rows, y + at, winners + at, outWidth / poolSize, filters, poolSize, outPixelBytes, rowBytes);
      }
    }
  }
}

/**
 * One row of outputs; x is the first pixel of its first patch, whose rows are rowBytes apart; pixelBytes lie between one
 * patch and the next.
 */
export function convolveRow(
  x: usize,
  kernel: usize,
  bias: usize,
  y: usize,
  outWidth: i32,
  filters: i32,
  rowBytes: usize,
  pixelBytes: usize,
  patchRows: i32,
  patchRowBytes: usize,
): void {
  const outPixelBytes = usize(filters) << 2;
  let f = 0;
  while (f < filters) {
    const left = filters - f;
    const vectors = left > 12 ? 4 : left > 4 ? 2 : 1;
    const shift = usize(f) << 2;
    const kernelAt = kernel + shift;
    const biasAt = bias + shift;
    let ox = 0;
    if (vectors == 4) {
      for (; ox + 2 <= outWidth; ox += 2) {
        const from = x + usize(ox) * pixelBytes;
        const to = y + usize(ox) * outPixelBytes + shift;
        tile2x4(from, kernelAt, biasAt, to, rowBytes, pixelBytes, outPixelBytes, patchRows, patchRowBytes, left);
      }
    } else if (vectors == 2) {
      for (; ox + 4 <= outWidth; ox += 4) {
        const from = x + usize(ox) * pixelBytes;
        const to = y + usize(ox) * outPixelBytes + shift;
        tile4x2(from, kernelAt, biasAt, to, rowBytes, pixelBytes, outPixelBytes, patchRows, patchRowBytes, left);
      }
    }
    for (; ox < outWidth; ox++) {
      const from = x + usize(ox) * pixelBytes;
      const to = y + usize(ox) * outPixelBytes + shift;
      for (let k = 0; k < vectors && (k << 2) < left; k++) {
        const at = usize(k) << 4;
        const lanes = left - (k << 2);
        tile1x1(from, kernelAt + at, biasAt + at, to + at, rowBytes, outPixelBytes, patchRows, patchRowBytes, lanes);
      }
    }
    f += vectors << 2;
  }
}

function tile2x4(
  x: usize,
  kernel: usize,
  bias: usize,
  y: usize,
  rowBytes: usize,
  pixelBytes: usize,
  filterBytes: usize,
  patchRows: i32,
  patchRowBytes: usize,
  left: i32,
): void {
  let a0 = v128.load(bias);
  let a1 = v128.load(bias, 16);
  let a2 = v128.load(bias, 32);
  let a3 = v128.load(bias, 48);
  let b0 = a0;
  let b1 = a1;
  let b2 = a2;
  let b3 = a3;
  for (let row = 0; row < patchRows; row++) {
    let from = x + usize(row) * rowBytes;
    const end = from + patchRowBytes;
    while (from < end) {
      const p = v128.load_splat<f32>(from);
      const q = v128.load_splat<f32>(from + pixelBytes);
      const k0 = v128.load(kernel);
      const k1 = v128.load(kernel, 16);
      const k2 = v128.load(kernel, 32);
      const k3 = v128.load(kernel, 48);
      a0 = f32x4.add(a0, f32x4.mul(p, k0));
      b0 = f32x4.add(b0, f32x4.mul(q, k0));
      a1 = f32x4.add(a1, f32x4.mul(p, k1));
      b1 = f32x4.add(b1, f32x4.mul(q, k1));
      a2 = f32x4.add(a2, f32x4.mul(p, k2));
      b2 = f32x4.add(b2, f32x4.mul(q, k2));
      a3 = f32x4.add(a3, f32x4.mul(p, k3));
      b3 = f32x4.add(b3, f32x4.mul(q, k3));
      from += 4;
      kernel += filterBytes;
    }
  }
  v128.store(y, a0);
  v128.store(y, a1, 16);
  v128.store(y, a2, 32);
  storeLanes(y + 48, a3, left - 12);
  v128.store(y + filterBytes, b0);
  v128.store(y + filterBytes, b1, 16);
  v128.store(y + filterBytes, b2, 32);
  storeLanes(y + filterBytes + 48, b3, left - 12);
}

function tile4x2(
  x: usize,
  kernel: usize,
  bias: usize,
  y: usize,
  rowBytes: usize,
  pixelBytes: usize,
  filterBytes: usize,
  patchRows: i32,
  patchRowBytes: usize,
  left: i32,
): void {
  let a0 = v128.load(bias);
  let a1 = v128.load(bias, 16);
  let b0 = a0;
  let b1 = a1;
  let c0 = a0;
  let c1 = a1;
  let d0 = a0;
  let d1 = a1;
  for (let row = 0; row < patchRows; row++) {
    let from = x + usize(row) * rowBytes;
    const end = from + patchRowBytes;
    while (from < end) {
      const k0 = v128.load(kernel);
      const k1 = v128.load(kernel, 16);
      const p = v128.load_splat<f32>(from);
      const q = v128.load_splat<f32>(from + pixelBytes);
      const r = v128.load_splat<f32>(from + 2 * pixelBytes);
      const t = v128.load_splat<f32>(from + 3 * pixelBytes);
      a0 = f32x4.add(a0, f32x4.mul(p, k0));
      a1 = f32x4.add(a1, f32x4.mul(p, k1));
      b0 = f32x4.add(b0, f32x4.mul(q, k0));
      b1 = f32x4.add(b1, f32x4.mul(q, k1));
      c0 = f32x4.add(c0, f32x4.mul(r, k0));
      c1 = f32x4.add(c1, f32x4.mul(r, k1));
      d0 = f32x4.add(d0, f32x4.mul(t, k0));
      d1 = f32x4.add(d1, f32x4.mul(t, k1));
      from += 4;
      kernel += filterBytes;
    }
  }
  const second = left - 4;
  v128.store(y, a0);
  storeLanes(y + 16, a1, second);
  v128.store(y + filterBytes, b0);
  storeLanes(y + filterBytes + 16, b1, second);
  v128.store(y + 2 * filterBytes, c0);
  storeLanes(y + 2 * filterBytes + 16, c1, second);
  v128.store(y + 3 * filterBytes, d0);
  storeLanes(y + 3 * filterBytes + 16, d1, second);
}

function tile1x1(
  x: usize,
  kernel: usize,
  bias: usize,
  y: usize,
  rowBytes: usize,
  filterBytes: usize,
  patchRows: i32,
  patchRowBytes: usize,
  left: i32,
): void {
  let a0 = v128.load(bias);
  for (let row = 0; row < patchRows; row++) {
    let from = x + usize(row) * rowBytes;
    const end = from + patchRowBytes;
    while (from < end) {
      a0 = f32x4.add(a0, f32x4.mul(v128.load_splat<f32>(from), v128.load(kernel)));
      from += 4;
      kernel += filterBytes;
    }
  }
  storeLanes(y, a0, left);
}

/**
 * `conv2dForward` for images of one channel whose background is exactly zero, in cells of 2 x 2: the same bits, and
 * rows that are blank under a tile are skipped. Register tiles: 2 rows x 8 columns x 2 filters, vectors along the width,
 * pooled in registers. At least 8 columns of outputs and at most 64 rows of inputs; bias is never -0.
 * splatted: `packImageConv2d`'s; taps: u32 [kernelSize * kernelSize], byte offset of each tap in the input.
 */
export function imageConv2dForward(
  x: usize,
  splatted: usize,
  bias: usize,
  y: usize,
  winners: usize,
  taps: usize,
  samples: i32,
  height: i32,
  width: i32,
  kernelSize: i32,
  filters: i32,
): void {
  const rowBytes = usize(width) << 2;
  const cellRows = (height - kernelSize + 1) >> 1;
  const cellColumns = (width - kernelSize + 1) >> 1;
  const tileVectors = (8 + kernelSize - 1 + 3) >> 2;
  const filterBytes = usize(kernelSize * kernelSize) << 4;
  const tapRowBytes = usize(kernelSize) << 2;
  for (let s = 0; s < samples; s++) {
    const image = x + usize(s * height) * rowBytes;
    const cells = usize(s * cellRows * cellColumns);
    for (let column = 0; column < cellColumns; column += 4) {
      // The last tile overlaps its neighbour where columns are not a multiple of 4.
      const cellColumn = min(column, cellColumns - 4);
      const from = image + (usize(cellColumn) << 3);
      let ink = inkedRows(from, height, tileVectors, rowBytes);
      for (let cellRow = 0; cellRow < cellRows; cellRow++) {
        // Both rows of the tile together see kernelSize + 1 rows of the image.
        const seen = ink & (~u64(0) >> u64(63 - kernelSize));
        const firstRow = seen ? max(0, i32(ctz(seen)) - 1) : 0;
        const endRow = seen ? min(kernelSize, 64 - i32(clz(seen))) : 0;
        ink >>= 2;
        const at = from + (usize(cellRow) << 1) * rowBytes;
        const cell = (cells + usize(cellRow * cellColumns + cellColumn)) * usize(filters);
        for (let f = 0; f < filters; f += 2) {
          const g = min(f + 1, filters - 1);
          imageTile(
            at,
            at + rowBytes,
            splatted + usize(f) * filterBytes + usize(firstRow) * (tapRowBytes << 2),
            splatted + usize(g) * filterBytes + usize(firstRow) * (tapRowBytes << 2),
            taps + usize(firstRow) * tapRowBytes,
            taps + usize(endRow) * tapRowBytes,
            load<f32>(bias + (usize(f) << 2)),
            load<f32>(bias + (usize(g) << 2)),
            y + ((cell + usize(f)) << 2),
            winners + ((cell + usize(f)) << 2),
            usize(g - f) << 2,
            usize(filters) << 2,
          );
        }
      }
    }
  }
}

/** Bit r is set if row r has ink in the given vectors. */
function inkedRows(from: usize, height: i32, vectors: i32, rowBytes: usize): u64 {
  let ink: u64 = 0;
  for (let row = 0; row < height; row++) {
    let any = v128.load(from);
    for (let v = 1; v < vectors; v++) any = v128.or(any, v128.load(from + (usize(v) << 4)));
    ink |= u64(v128.any_true(any)) << u64(row);
    from += rowBytes;
  }
  return ink;
}

function imageTile(
  upper: usize,
  lower: usize,
  weights: usize,
  otherWeights: usize,
  tap: usize,
  tapEnd: usize,
  bias: f32,
  otherBias: f32,
  y: usize,
  winners: usize,
  otherBytes: usize,
  pixelBytes: usize,
): void {
  let a0 = f32x4.splat(bias);
  let a1 = a0;
  let a2 = a0;
  let a3 = a0;
  let b0 = f32x4.splat(otherBias);
  let b1 = b0;
  let b2 = b0;
  let b3 = b0;
  for (; tap < tapEnd; tap += 4) {
    const offset = load<u32>(tap);
    const w = v128.load(weights);
    const v = v128.load(otherWeights);
    const x0 = v128.load(upper + offset);
    const x1 = v128.load(upper + offset, 16);
    const x2 = v128.load(lower + offset);
    const x3 = v128.load(lower + offset, 16);
    a0 = f32x4.add(a0, f32x4.mul(x0, w));
    b0 = f32x4.add(b0, f32x4.mul(x0, v));
    a1 = f32x4.add(a1, f32x4.mul(x1, w));
    b1 = f32x4.add(b1, f32x4.mul(x1, v));
    a2 = f32x4.add(a2, f32x4.mul(x2, w));
    b2 = f32x4.add(b2, f32x4.mul(x2, v));
    a3 = f32x4.add(a3, f32x4.mul(x3, w));
    b3 = f32x4.add(b3, f32x4.mul(x3, v));
    weights += 16;
    otherWeights += 16;
  }
  poolTile(a0, a1, a2, a3, y, winners, pixelBytes);
  poolTile(b0, b1, b2, b3, y + otherBytes, winners + otherBytes, pixelBytes);
}

/** Two rows of 8 outputs to 4 cells, each pixelBytes behind the one before. */
// @ts-ignore: decorator
@inline
function poolTile(
  upper0: v128,
  upper1: v128,
  lower0: v128,
  lower1: v128,
  y: usize,
  winners: usize,
  pixelBytes: usize,
): void {
  let best = v128.shuffle<f32>(upper0, upper1, 0, 2, 4, 6);
  const second = v128.shuffle<f32>(upper0, upper1, 1, 3, 5, 7);
  const third = v128.shuffle<f32>(lower0, lower1, 0, 2, 4, 6);
  const fourth = v128.shuffle<f32>(lower0, lower1, 1, 3, 5, 7);
  const secondWins = winsOver(second, best);
  best = v128.bitselect(second, best, secondWins);
  let winner = v128.and(i32x4.splat(1), secondWins);
  const thirdWins = winsOver(third, best);
  best = v128.bitselect(third, best, thirdWins);
  winner = v128.bitselect(i32x4.splat(2), winner, thirdWins);
  const fourthWins = winsOver(fourth, best);
  best = v128.bitselect(fourth, best, fourthWins);
  winner = v128.bitselect(i32x4.splat(3), winner, fourthWins);
  v128.store_lane<f32>(y, best, 0);
  v128.store_lane<u32>(winners, winner, 0);
  v128.store_lane<f32>(y + pixelBytes, best, 1);
  v128.store_lane<u32>(winners + pixelBytes, winner, 1);
  v128.store_lane<f32>(y + 2 * pixelBytes, best, 2);
  v128.store_lane<u32>(winners + 2 * pixelBytes, winner, 2);
  v128.store_lane<f32>(y + 3 * pixelBytes, best, 3);
  v128.store_lane<u32>(winners + 3 * pixelBytes, winner, 3);
}

/** splatted[f][tap] = kernel[tap][f] in all four lanes; taps[ky][kx] = byte offset of the tap in rows of `width`. */
export function packImageConv2d(
  kernel: usize,
  splatted: usize,
  taps: usize,
  width: i32,
  kernelSize: i32,
  filters: i32,
): void {
  const size = kernelSize * kernelSize;
  for (let tap = 0; tap < size; tap++) {
    const offset = (tap / kernelSize) * width + (tap % kernelSize);
    store<u32>(taps + (usize(tap) << 2), offset << 2);
    for (let f = 0; f < filters; f++) {
      const value = load<f32>(kernel + (usize(tap * filters + f) << 2));
      v128.store(splatted + (usize(f * size + tap) << 4), f32x4.splat(value));
    }
  }
}

/**
 * Lists the live gradients of one filter over all samples: terms of (byte offset of the winner's patch in the input,
 * value), samples ascending, cells in raster order.
 * Branch-free: every term is written, and the next overwrites it unless it is live. Returns the list's end.
 */
function listLive(
  dy: usize,
  winners: usize,
  shifts: usize,
  samples: i32,
  cellRows: i32,
  cellColumns: i32,
  filterBytes: usize,
  sampleBytes: usize,
  cellRowBytes: usize,
  cellBytes: usize,
  list: usize,
): usize {
  let end = list;
  for (let s = 0; s < samples; s++) {
    let row = usize(s) * sampleBytes;
    for (let cellRow = 0; cellRow < cellRows; cellRow++) {
      let cell = row;
      const rowEnd = row + usize(cellColumns) * cellBytes;
      for (; cell < rowEnd; cell += cellBytes) {
        const shift = load<u32>(shifts + (usize(load<u32>(winners)) << 3));
        end = appendTerm(end, cell + shift, load<u32>(dy));
        dy += filterBytes;
        winners += filterBytes;
      }
      row += cellRowBytes;
    }
  }
  return end;
}

/**
 * The gradients of a convolution with cells. dy, winners: [samples][cellRows][cellColumns][filters].
 *
 * Weights: adds to dPacked [filters][kernelSize][vectors][4], whose rows are patch rows padded to whole vectors, and to
 * dBias; `first`: from zero instead. For each component samples ascend, then cells in raster order.
 * Inputs, unless dx is 0: dx = sum over cells in raster order, then filters ascending, of dy * packed. A cell's patches
 * together are a window of kernelSize + (poolSize - 1) * stride rows; each row of it is held in registers over the cell's live
 * filters. packed: `packConv2d`'s, whose zeros around a kernel shift it to its place in the window.
 * Terms with a zero gradient are skipped.
 * shifts: pairs of u32 a place in the cell: byte offset of its patch in the input, and of its row 0 in `packed`.
 * list: room for a term more than the cells of all samples, and than the filters.
 */
export function conv2dBackward(
  x: usize,
  dy: usize,
  winners: usize,
  shifts: usize,
  packed: usize,
  dPacked: usize,
  dBias: usize,
  dx: usize,
  samples: i32,
  height: i32,
  width: i32,
  channels: i32,
  kernelSize: i32,
  filters: i32,
  poolSize: i32,
  stride: i32,
  list: usize,
  first: i32,
): void {
  const cellRows = ((height - kernelSize) / stride + 1) / poolSize;
  const cellColumns = ((width - kernelSize) / stride + 1) / poolSize;
  const filterBytes = usize(filters) << 2;
  const cellBytes = usize(poolSize * stride * channels) << 2;
  const rowBytes = usize(width * channels) << 2;
  const cellRowBytes = rowBytes * usize(poolSize * stride);
  const sampleBytes = usize(height) * rowBytes;
  const vectors = (kernelSize * channels + 3) >> 2;
  const filterVectors = kernelSize * vectors;
  const dPackedBytes = usize(filterVectors) << 4;
  if (first) memory.fill(dPacked, 0, usize(filters) * dPackedBytes);
  addBias(dy, dBias, samples * cellRows * cellColumns, filters, first);
  for (let f = 0; f < filters; f++) {
    const at = usize(f) << 2;
    const end = listLive(
      dy + at,
      winners + at,
      shifts,
      samples,
      cellRows,
      cellColumns,
      filterBytes,
      sampleBytes,
      cellRowBytes,
      cellBytes,
      list,
    );
    addWeightTerms(x, list, end, dPacked + usize(f) * dPackedBytes, filterVectors, vectors, rowBytes);
  }
  if (!dx) return;
  memory.fill(dx, 0, usize(samples) * sampleBytes);
  const margin = (poolSize - 1) * stride;
  const windowSize = kernelSize + margin;
  const packedRowBytes = packedRowSize(channels, kernelSize, margin) << 2;
  const packedBytes = usize(windowSize + margin) * packedRowBytes;
  for (let s = 0; s < samples; s++) {
    for (let cellRow = 0; cellRow < cellRows; cellRow++) {
      let cell = dx + usize(s) * sampleBytes + usize(cellRow) * cellRowBytes;
      for (let column = 0; column < cellColumns; column++) {
        let end = list;
        let weights = packed;
        for (let f = 0; f < filters; f++) {
          const shift = load<u32>(shifts + (usize(load<u32>(winners)) << 3), 4);
          end = appendTerm(end, weights + shift, load<u32>(dy));
          dy += 4;
          winners += 4;
          weights += packedBytes;
        }
        if (end > list) {
          for (let row = 0; row < windowSize; row++) {
            const to = cell + usize(row) * rowBytes;
            weightedRows(to, to, usize(row) * packedRowBytes, list, end, windowSize * channels);
          }
        }
        cell += cellBytes;
      }
    }
  }
}

/** dBias[f] += the sum over the cells of dy, in their order. */
function addBias(dy: usize, dBias: usize, cells: i32, filters: i32, first: i32): void {
  const filterBytes = usize(filters) << 2;
  const end = dy + usize(cells) * filterBytes;
  for (let f = 0; f < filters; f += 4) {
    const at = usize(f) << 2;
    let sum = first ? f32x4.splat(0) : v128.load(dBias + at);
    for (let from = dy + at; from < end; from += filterBytes) sum = f32x4.add(sum, v128.load(from));
    storeLanes(dBias + at, sum, filters - f);
  }
}

/** packed[v] += sum over the terms of value * x[patch][v]. */
function addWeightTerms(
  x: usize,
  list: usize,
  end: usize,
  packed: usize,
  filterVectors: i32,
  vectors: i32,
  rowBytes: usize,
): void {
  let v = 0;
  for (; v + 5 <= filterVectors; v += 5) {
    addToFive(
      packed + (usize(v) << 4),
      list,
      end,
      x + vectorOffset(v, vectors, rowBytes),
      x + vectorOffset(v + 1, vectors, rowBytes),
      x + vectorOffset(v + 2, vectors, rowBytes),
      x + vectorOffset(v + 3, vectors, rowBytes),
      x + vectorOffset(v + 4, vectors, rowBytes),
    );
  }
  for (; v < filterVectors; v++) {
    addToOne(packed + (usize(v) << 4), list, end, x + vectorOffset(v, vectors, rowBytes));
  }
}

/** Five vectors, held in registers over the whole list. A function of its own: in a loop nest they would spill. */
function addToFive(
  packed: usize,
  list: usize,
  end: usize,
  x0: usize,
  x1: usize,
  x2: usize,
  x3: usize,
  x4: usize,
): void {
  let a0 = v128.load(packed);
  let a1 = v128.load(packed, 16);
  let a2 = v128.load(packed, 32);
  let a3 = v128.load(packed, 48);
  let a4 = v128.load(packed, 64);
  for (let term = list; term < end; term += TERM_BYTES) {
    const patch = load<u32>(term);
    const value = v128.load_splat<f32>(term, 4);
    a0 = f32x4.add(a0, f32x4.mul(value, v128.load(x0 + patch)));
    a1 = f32x4.add(a1, f32x4.mul(value, v128.load(x1 + patch)));
    a2 = f32x4.add(a2, f32x4.mul(value, v128.load(x2 + patch)));
    a3 = f32x4.add(a3, f32x4.mul(value, v128.load(x3 + patch)));
    a4 = f32x4.add(a4, f32x4.mul(value, v128.load(x4 + patch)));
  }
  v128.store(packed, a0);
  v128.store(packed, a1, 16);
  v128.store(packed, a2, 32);
  v128.store(packed, a3, 48);
  v128.store(packed, a4, 64);
}

function addToOne(packed: usize, list: usize, end: usize, x: usize): void {
  let a0 = v128.load(packed);
  for (let term = list; term < end; term += TERM_BYTES) {
    a0 = f32x4.add(a0, f32x4.mul(v128.load_splat<f32>(term, 4), v128.load(x + load<u32>(term))));
  }
  v128.store(packed, a0);
}

/** Where the v-th vector of a patch lies, counted over all its rows. */
// @ts-ignore: decorator
@inline
function vectorOffset(v: i32, vectors: i32, rowBytes: usize): usize {
  return usize(v / vectors) * rowBytes + (usize(v % vectors) << 4);
}

/** Floats of a row of `packConv2d`: a patch row with `margin` pixels of zeros on both sides, in whole vectors. */
// @ts-ignore: decorator
@inline
function packedRowSize(channels: i32, kernelSize: i32, margin: i32): usize {
  return usize(((kernelSize + 2 * margin) * channels + 3) & ~3);
}

/**
 * packed[f][margin + ky][margin * channels + k] = kernel[ky][k][f], margin = (poolSize - 1) * stride; zeros around, left
 * as they are.
 */
export function packConv2d(
  kernel: usize,
  packed: usize,
  channels: i32,
  kernelSize: i32,
  filters: i32,
  poolSize: i32,
  stride: i32,
): void {
  const size = kernelSize * channels;
  const margin = (poolSize - 1) * stride;
  const rowBytes = packedRowSize(channels, kernelSize, margin) << 2;
  for (let f = 0; f < filters; f++) {
    for (let ky = 0; ky < kernelSize; ky++) {
      const row = f * (kernelSize + 2 * margin) + margin + ky;
      const to = packed + usize(row) * rowBytes + (usize(margin * channels) << 2);
      for (let k = 0; k < size; k++) {
        store<f32>(to + (usize(k) << 2), load<f32>(kernel + (usize((ky * size + k) * filters + f) << 2)));
      }
    }
  }
}

/** dKernel[ky][k][f] = dPacked[f][ky][k]. */
export function unpackConv2dGradient(
  dPacked: usize,
  dKernel: usize,
  channels: i32,
  kernelSize: i32,
  filters: i32,
): void {
  const size = kernelSize * channels;
  const padded = (size + 3) & ~3;
  for (let ky = 0; ky < kernelSize; ky++) {
    for (let k = 0; k < size; k++) {
      const to = dKernel + (usize((ky * size + k) * filters) << 2);
      for (let f = 0; f < filters; f++) {
        const value = load<f32>(dPacked + (usize((f * kernelSize + ky) * padded + k) << 2));
        store<f32>(to + (usize(f) << 2), value);
      }
    }
  }
}

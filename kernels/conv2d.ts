// Convolutions without padding, stride 1, channels last: the `size` floats of a patch row are contiguous in the input,
// size = kernelSize * channels. Kernels of shape [kernelSize, kernelSize, channels, filters].

import { appendTerm, storeLanes, TERM_BYTES } from './vector';

/**
 * y[s][oy][ox][f] = bias[f] + sum over the patch, row by row, of x * kernel.
 * Register tiles: 2 pixels x 16 filters, 4 pixels x 8 filters, or 1 x 4 at the edges.
 */
export function conv2dForward(
  x: usize,
  kernel: usize,
  bias: usize,
  y: usize,
  samples: i32,
  height: i32,
  width: i32,
  channels: i32,
  kernelSize: i32,
  filters: i32,
): void {
  const outHeight = height - kernelSize + 1;
  const outWidth = width - kernelSize + 1;
  const pixelBytes = usize(channels) << 2;
  const outPixelBytes = usize(filters) << 2;
  const rowBytes = usize(width) * pixelBytes;
  for (let s = 0; s < samples; s++) {
    for (let oy = 0; oy < outHeight; oy++) {
      const xRow = x + usize(s * height + oy) * rowBytes;
      const yRow = y + usize((s * outHeight + oy) * outWidth) * outPixelBytes;
      let f = 0;
      while (f < filters) {
        const left = filters - f;
        const vectors = left > 12 ? 4 : left > 4 ? 2 : 1;
        const kernelAt = kernel + (usize(f) << 2);
        const biasAt = bias + (usize(f) << 2);
        let ox = 0;
        if (vectors == 4) {
          for (; ox + 2 <= outWidth; ox += 2) {
            const from = xRow + usize(ox) * pixelBytes;
            const to = yRow + usize(ox) * outPixelBytes + (usize(f) << 2);
            tile2x4(from, kernelAt, biasAt, to, rowBytes, pixelBytes, outPixelBytes, kernelSize, channels, left);
          }
        } else if (vectors == 2) {
          for (; ox + 4 <= outWidth; ox += 4) {
            const from = xRow + usize(ox) * pixelBytes;
            const to = yRow + usize(ox) * outPixelBytes + (usize(f) << 2);
            tile4x2(from, kernelAt, biasAt, to, rowBytes, pixelBytes, outPixelBytes, kernelSize, channels, left);
          }
        }
        for (; ox < outWidth; ox++) {
          const from = xRow + usize(ox) * pixelBytes;
          const to = yRow + usize(ox) * outPixelBytes + (usize(f) << 2);
          for (let k = 0; k < vectors && (k << 2) < left; k++) {
            const shift = usize(k) << 4;
            tile1x1(
              from,
              kernelAt + shift,
              biasAt + shift,
              to + shift,
              rowBytes,
              outPixelBytes,
              kernelSize,
              channels,
              left - (k << 2),
            );
          }
        }
        f += vectors << 2;
      }
    }
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
  kernelSize: i32,
  channels: i32,
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
  const patchRowBytes = usize(kernelSize * channels) << 2;
  for (let ky = 0; ky < kernelSize; ky++) {
    let from = x + usize(ky) * rowBytes;
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
  kernelSize: i32,
  channels: i32,
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
  const patchRowBytes = usize(kernelSize * channels) << 2;
  for (let ky = 0; ky < kernelSize; ky++) {
    let from = x + usize(ky) * rowBytes;
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
  kernelSize: i32,
  channels: i32,
  left: i32,
): void {
  let a0 = v128.load(bias);
  const patchRowBytes = usize(kernelSize * channels) << 2;
  for (let ky = 0; ky < kernelSize; ky++) {
    let from = x + usize(ky) * rowBytes;
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
 * Lists the live gradients of one filter over all samples, those that are not zero (max-pooling and ReLU leave few):
 * terms of (byte offset of the patch in the input, value), samples ascending, positions in raster order.
 * Branch-free: every term is written, and the next overwrites it unless it is live. Returns the list's end.
 */
function listLive(
  dy: usize,
  samples: i32,
  outHeight: i32,
  outWidth: i32,
  filterBytes: usize,
  sampleBytes: usize,
  rowBytes: usize,
  pixelBytes: usize,
  list: usize,
): usize {
  let end = list;
  for (let s = 0; s < samples; s++) {
    let row = usize(s) * sampleBytes;
    for (let oy = 0; oy < outHeight; oy++) {
      let offset = row;
      for (let ox = 0; ox < outWidth; ox++) {
        end = appendTerm(end, offset, load<u32>(dy));
        offset += pixelBytes;
        dy += filterBytes;
      }
      row += rowBytes;
    }
  }
  return end;
}

/**
 * The gradients of a convolution, filter by filter.
 *
 * Weights: adds to dPacked [filters][kernelSize][vectors][4], whose rows are patch rows padded to whole vectors, and to
 * dBias; `first`: from zero instead. For each component samples ascend, then positions in raster order.
 * Inputs, unless dx is 0: dx = sum over filters ascending, then positions in raster order, of dy * packed (see
 * `packConv2d`; its zeros behind a patch row leave the neighbours' values as they are).
 * Terms with a zero gradient are skipped. list: room for a term more than the positions of all samples.
 */
export function conv2dBackward(
  x: usize,
  dy: usize,
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
  list: usize,
  first: i32,
): void {
  const outHeight = height - kernelSize + 1;
  const outWidth = width - kernelSize + 1;
  const filterBytes = usize(filters) << 2;
  const pixelBytes = usize(channels) << 2;
  const rowBytes = usize(width) * pixelBytes;
  const sampleBytes = usize(height) * rowBytes;
  const vectors = (kernelSize * channels + 3) >> 2;
  const filterVectors = kernelSize * vectors;
  const packedBytes = usize(filterVectors) << 4;
  if (first) {
    memory.fill(dPacked, 0, usize(filters) * packedBytes);
    memory.fill(dBias, 0, filterBytes);
  }
  if (dx) memory.fill(dx, 0, usize(samples) * sampleBytes);
  for (let f = 0; f < filters; f++) {
    const at = usize(f) << 2;
    const end = listLive(
      dy + at,
      samples,
      outHeight,
      outWidth,
      filterBytes,
      sampleBytes,
      rowBytes,
      pixelBytes,
      list,
    );
    let bias = load<f32>(dBias + at);
    for (let term = list; term < end; term += TERM_BYTES) bias += load<f32>(term, 4);
    store<f32>(dBias + at, bias);
    addWeightTerms(x, list, end, dPacked + usize(f) * packedBytes, filterVectors, vectors, rowBytes);
    if (dx) addInputTerms(dx, list, end, packed + usize(f) * packedBytes, kernelSize, vectors, rowBytes);
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

/** dx[patch] += value * packed, for each term. */
function addInputTerms(
  dx: usize,
  list: usize,
  end: usize,
  packed: usize,
  kernelSize: i32,
  vectors: i32,
  rowBytes: usize,
): void {
  for (let term = list; term < end; term += TERM_BYTES) {
    const value = v128.load_splat<f32>(term, 4);
    let row = dx + load<u32>(term);
    let weights = packed;
    for (let ky = 0; ky < kernelSize; ky++) {
      const rowEnd = row + (usize(vectors) << 4);
      for (let at = row; at < rowEnd; at += 16) {
        v128.store(at, f32x4.add(v128.load(at), f32x4.mul(value, v128.load(weights))));
        weights += 16;
      }
      row += rowBytes;
    }
  }
}

/** packed[f][ky][k] = kernel[ky][k][f], patch rows padded with zeros to whole vectors. */
export function packConv2d(kernel: usize, packed: usize, channels: i32, kernelSize: i32, filters: i32): void {
  const size = kernelSize * channels;
  const padded = (size + 3) & ~3;
  for (let f = 0; f < filters; f++) {
    for (let ky = 0; ky < kernelSize; ky++) {
      const row = packed + (usize((f * kernelSize + ky) * padded) << 2);
      for (let k = 0; k < padded; k++) {
        const value = k < size ? load<f32>(kernel + (usize((ky * size + k) * filters + f) << 2)) : 0;
        store<f32>(row + (usize(k) << 2), value);
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

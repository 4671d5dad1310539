// Convolutions of 5 x 5 with fewer multiplications: Winograd's F(4, 5) along the height (Lavin and Gray 2016,
// arXiv:1509.09308), for the points 0, 1, -1, 2, -2, 1/2, -1/2 and infinity.
//
// Four outputs below one another need 8 products for each column of a kernel's taps, in place of 20. Eight rows of
// inputs become one row a point, the row of a point is convolved with the kernel's row for it, and four rows of outputs
// are combined from the results. Along the width nothing is transformed.

import { convolveRow } from './conv2d';
import { poolRow } from './max-pool2d';
import { storeLanes } from './vector';

const POINTS = 8;
const TILE_ROWS = 4;
const KERNEL_SIZE = 5;

/**
 * `conv2dForward` for kernels of 5 x 5 and a height of outputs that is a multiple of 4, as is poolSize (1, 2 or 4).
 * packed: `packWinogradConv2d`'s. points: scratch for 8 rows of inputs, in whole vectors. products: for 8 of outputs.
 */
export function winogradConv2dForward(
  x: usize,
  packed: usize,
  y: usize,
  winners: usize,
  points: usize,
  products: usize,
  samples: i32,
  height: i32,
  width: i32,
  channels: i32,
  filters: i32,
  poolSize: i32,
): void {
  const tiles = (height - KERNEL_SIZE + 1) / TILE_ROWS;
  const outWidth = ((width - KERNEL_SIZE + 1) / poolSize) * poolSize;
  const pixelBytes = usize(channels) << 2;
  const outPixelBytes = usize(filters) << 2;
  const xRowBytes = usize(width) * pixelBytes;
  const pointBytes = (xRowBytes + 15) & ~15;
  const patchRowBytes = usize(KERNEL_SIZE) * pixelBytes;
  const packedBytes = usize(1 + KERNEL_SIZE * channels) * outPixelBytes;
  const rowBytes = usize(outWidth) * outPixelBytes;
  const cellRowBytes = rowBytes / usize(poolSize);
  for (let s = 0; s < samples; s++) {
    const image = x + usize(s * height) * xRowBytes;
    for (let tile = 0; tile < tiles; tile++) {
      transformRows(image + usize(tile * TILE_ROWS) * xRowBytes, points, xRowBytes, pointBytes);
      for (let point = 0; point < POINTS; point++) {
        const start = packed + usize(point) * packedBytes;
        convolveRow(
          points + usize(point) * pointBytes,
          start + outPixelBytes,
          start,
          products + usize(point) * rowBytes,
          outWidth,
          filters,
          pointBytes,
          pixelBytes,
          1,
          patchRowBytes,
        );
      }
      const at = y + usize((s * tiles + tile) * (TILE_ROWS / poolSize)) * cellRowBytes;
      if (poolSize == 1) {
        combineRows(products, at, rowBytes);
      } else {
        combineRows(products, products, rowBytes);
        for (let cellRow = 0; cellRow < TILE_ROWS / poolSize; cellRow++) {
          const from = products + usize(cellRow * poolSize) * rowBytes;
          const to = at + usize(cellRow) * cellRowBytes;
          poolRow(from, to, to - y + winners, outWidth / poolSize, filters, poolSize, outPixelBytes, rowBytes);
        }
      }
    }
  }
}

/** Eight rows of inputs to one row a point. A point and its negative share the sums of even and of odd rows. */
function transformRows(x: usize, points: usize, rowBytes: usize, pointBytes: usize): void {
  const end = x + rowBytes;
  for (; x < end; x += 16) {
    const x0 = v128.load(x);
    const x1 = v128.load(x + rowBytes);
    const x2 = v128.load(x + 2 * rowBytes);
    const x3 = v128.load(x + 3 * rowBytes);
    const x4 = v128.load(x + 4 * rowBytes);
    const x5 = v128.load(x + 5 * rowBytes);
    const x6 = v128.load(x + 6 * rowBytes);
    const x7 = v128.load(x + 7 * rowBytes);
    v128.store(points, f32x4.add(f32x4.sub(x0, x6), scaled(f32x4.sub(x4, x2), 5.25)));
    const even1 = f32x4.add(f32x4.sub(x2, scaled(x4, 4.25)), x6);
    const odd1 = f32x4.add(f32x4.sub(x1, scaled(x3, 4.25)), x5);
    v128.store(points + pointBytes, f32x4.add(even1, odd1));
    v128.store(points + 2 * pointBytes, f32x4.sub(even1, odd1));
    const even2 = f32x4.add(f32x4.sub(scaled(x2, 0.25), scaled(x4, 1.25)), x6);
    const odd2 = f32x4.add(f32x4.sub(scaled(x1, 0.5), scaled(x3, 2.5)), scaled(x5, 2));
    v128.store(points + 3 * pointBytes, f32x4.add(even2, odd2));
    v128.store(points + 4 * pointBytes, f32x4.sub(even2, odd2));
    const evenHalf = f32x4.add(f32x4.sub(scaled(x2, 4), scaled(x4, 5)), x6);
    const oddHalf = f32x4.add(f32x4.sub(scaled(x1, 2), scaled(x3, 2.5)), scaled(x5, 0.5));
    v128.store(points + 5 * pointBytes, f32x4.add(evenHalf, oddHalf));
    v128.store(points + 6 * pointBytes, f32x4.sub(evenHalf, oddHalf));
    v128.store(points + 7 * pointBytes, f32x4.add(f32x4.sub(x7, x1), scaled(f32x4.sub(x3, x5), 5.25)));
    points += 16;
  }
}

/** The products of the points to four rows of outputs; y may be products. */
function combineRows(products: usize, y: usize, rowBytes: usize): void {
  const end = products + rowBytes;
  for (; products < end; products += 16) {
    const p1 = v128.load(products + rowBytes);
    const n1 = v128.load(products + 2 * rowBytes);
    const p2 = v128.load(products + 3 * rowBytes);
    const n2 = v128.load(products + 4 * rowBytes);
    const pHalf = v128.load(products + 5 * rowBytes);
    const nHalf = v128.load(products + 6 * rowBytes);
    const even1 = f32x4.add(p1, n1);
    const odd1 = f32x4.sub(p1, n1);
    const even2 = f32x4.add(p2, n2);
    const odd2 = f32x4.sub(p2, n2);
    const evenHalf = f32x4.add(pHalf, nHalf);
    const oddHalf = f32x4.sub(pHalf, nHalf);
    const first = f32x4.add(f32x4.add(f32x4.add(v128.load(products), even1), even2), evenHalf);
    const second = f32x4.add(f32x4.add(odd1, scaled(odd2, 2)), scaled(oddHalf, 0.5));
    const third = f32x4.add(f32x4.add(even1, scaled(even2, 4)), scaled(evenHalf, 0.25));
    const fourth = f32x4.add(f32x4.add(odd1, scaled(odd2, 8)), scaled(oddHalf, 0.125));
    const last = f32x4.add(fourth, v128.load(products + 7 * rowBytes));
    const lanes = i32(end - products) >> 2;
    storeLanes(y, first, lanes);
    storeLanes(y + rowBytes, second, lanes);
    storeLanes(y + 2 * rowBytes, third, lanes);
    storeLanes(y + 3 * rowBytes, last, lanes);
    y += 16;
  }
}

// @ts-ignore: decorator
@inline
function scaled(x: v128, factor: f32): v128 {
  return f32x4.mul(x, f32x4.splat(factor));
}

/**
 * packed[point]: first the row [filters] that sums begin with, then the kernel's rows [5 * channels][filters] for the
 * point. Sums of the point 1, which every output takes once, begin with the bias, the others with zero.
 */
export function packWinogradConv2d(kernel: usize, bias: usize, packed: usize, channels: i32, filters: i32): void {
  const filterBytes = usize(filters) << 2;
  const rowBytes = usize(KERNEL_SIZE * channels) * filterBytes;
  const packedBytes = filterBytes + rowBytes;
  for (let point = 0; point < POINTS; point++) memory.fill(packed + usize(point) * packedBytes, 0, filterBytes);
  memory.copy(packed + packedBytes, bias, filterBytes);
  packed += filterBytes;
  const end = kernel + rowBytes;
  for (; kernel < end; kernel += 16) {
    const k0 = v128.load(kernel);
    const k1 = v128.load(kernel + rowBytes);
    const k2 = v128.load(kernel + 2 * rowBytes);
    const k3 = v128.load(kernel + 3 * rowBytes);
    const k4 = v128.load(kernel + 4 * rowBytes);
    const even1 = f32x4.add(f32x4.add(k0, k2), k4);
    const odd1 = f32x4.add(k1, k3);
    const even2 = f32x4.add(f32x4.add(k0, scaled(k2, 4)), scaled(k4, 16));
    const odd2 = f32x4.add(scaled(k1, 2), scaled(k3, 8));
    const evenHalf = f32x4.add(f32x4.add(scaled(k0, 16), scaled(k2, 4)), k4);
    const oddHalf = f32x4.add(scaled(k1, 8), scaled(k3, 2));
    const lanes = i32(end - kernel) >> 2;
    storeLanes(packed, k0, lanes);
    storeLanes(packed + packedBytes, dividedBy(f32x4.add(even1, odd1), -4.5), lanes);
    storeLanes(packed + 2 * packedBytes, dividedBy(f32x4.sub(even1, odd1), -4.5), lanes);
    storeLanes(packed + 3 * packedBytes, dividedBy(f32x4.add(even2, odd2), 90), lanes);
    storeLanes(packed + 4 * packedBytes, dividedBy(f32x4.sub(even2, odd2), 90), lanes);
    storeLanes(packed + 5 * packedBytes, dividedBy(f32x4.add(evenHalf, oddHalf), 22.5), lanes);
    storeLanes(packed + 6 * packedBytes, dividedBy(f32x4.sub(evenHalf, oddHalf), 22.5), lanes);
    storeLanes(packed + 7 * packedBytes, k4, lanes);
    packed += 16;
  }
}

// @ts-ignore: decorator
@inline
function dividedBy(x: v128, divisor: f32): v128 {
  return f32x4.div(x, f32x4.splat(divisor));
}

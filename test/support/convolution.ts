// Convolutions with cells for single kernels: what the host lays out for them, and plain loops of one rounding each.

/** Sizes as the kernels take them, in their order. Channels last; height, width and channels are of the input. */
export interface Convolution {
  readonly samples: number;
  readonly height: number;
  readonly width: number;
  readonly channels: number;
  readonly kernelSize: number;
  readonly filters: number;
  readonly poolSize: number;
  /** 1 by default. */
  readonly stride?: number;
}

/** What follows from the sizes of a convolution. */
export function sizesOf(shape: Convolution) {
  const { samples, height, width, channels, kernelSize, filters, poolSize, stride = 1 } = shape;
  const outWidth = Math.floor((width - kernelSize) / stride) + 1;
  const cellRows = Math.floor((Math.floor((height - kernelSize) / stride) + 1) / poolSize);
  const cellColumns = Math.floor(outWidth / poolSize);
  const margin = (poolSize - 1) * stride;
  const cells = samples * cellRows * cellColumns;
  const paddedRow = Math.ceil((kernelSize * channels) / 4) * 4;
  return {
    cellRows,
    cellColumns,
    inputs: samples * height * width * channels,
    outputs: cells * filters,
    kernelCount: kernelSize ** 2 * channels * filters,
    rowsCount: poolSize * outWidth * filters,
    gradientCount: filters * kernelSize * paddedRow,
    packedCount: filters * (kernelSize + 2 * margin) * packedRowSize(channels, kernelSize, margin),
    /** Words of a list with a term more than there are cells, or filters. */
    listWords: 2 * (Math.max(cells, filters) + 1),
  };
}

/** Floats of a row of `packConv2d`: a patch row with `margin` pixels on both sides, in whole vectors of 4. */
export function packedRowSize(channels: number, kernelSize: number, margin: number): number {
  return Math.ceil(((kernelSize + 2 * margin) * channels) / 4) * 4;
}

/** For each place of a cell: byte offset of its patch in the input, and of its window's row 0 in a packed kernel. */
export function shiftsOf({ width, channels, kernelSize, poolSize, stride = 1 }: Convolution): number[] {
  const margin = (poolSize - 1) * stride;
  const rowSize = packedRowSize(channels, kernelSize, margin);
  return Array.from({ length: poolSize ** 2 }, (_, place) => {
    const [py, px] = [Math.floor(place / poolSize) * stride, (place % poolSize) * stride];
    const inPacked = (margin - py) * rowSize + (margin - px) * channels;
    return [(py * width + px) * channels * 4, inPacked * 4];
  }).flat();
}

/** The maximum of each cell, the first of equals, or its last NaN; and its place in the cell. */
export function plainForward(
  shape: Convolution,
  x: Float32Array,
  kernel: Float32Array,
  bias: Float32Array,
): { y: Float32Array; winners: Uint32Array } {
  const { filters, poolSize } = shape;
  const { outputs } = sizesOf(shape);
  const [y, winners] = [new Float32Array(outputs), new Uint32Array(outputs)];
  for (const { at, corner } of cellsOf(shape)) {
    for (let f = 0; f < filters; f++) {
      for (let place = 0; place < poolSize ** 2; place++) {
        let sum = bias[f];
        for (const { from, tap } of patchOf(shape, corner, place)) {
          sum = Math.fround(sum + Math.fround(x[from] * kernel[tap * filters + f]));
        }
        if (place > 0 && !(sum > y[at + f]) && !Number.isNaN(sum)) continue;
        y[at + f] = sum;
        winners[at + f] = place;
      }
    }
  }
  return { y, winners };
}

/** Every output in f64, [cells][places in the cell][filters]. */
export function exactOutputs(
  shape: Convolution,
  x: Float32Array,
  kernel: Float32Array,
  bias: Float32Array,
): Float64Array {
  const { filters, poolSize } = shape;
  const exact = new Float64Array(sizesOf(shape).outputs * poolSize ** 2);
  let to = 0;
  for (const { corner } of cellsOf(shape)) {
    for (let place = 0; place < poolSize ** 2; place++) {
      for (let f = 0; f < filters; f++) {
        exact[to] = bias[f];
        for (const { from, tap } of patchOf(shape, corner, place))
          exact[to] += x[from] * kernel[tap * filters + f];
        to++;
      }
    }
  }
  return exact;
}

/** Adds to dKernel and dBias, and gives dx: samples and cells ascending in raster order, then filters. */
export function plainBackward(
  shape: Convolution,
  x: Float32Array,
  kernel: Float32Array,
  dy: Float32Array,
  winners: Uint32Array,
  dKernel: Float32Array,
  dBias: Float32Array,
): Float32Array {
  const { filters } = shape;
  const dx = new Float32Array(x.length);
  for (const { at, corner } of cellsOf(shape)) {
    for (let f = 0; f < filters; f++) {
      const value = dy[at + f];
      if (value === 0) continue;
      dBias[f] = Math.fround(dBias[f] + value);
      for (const { from, tap } of patchOf(shape, corner, winners[at + f])) {
        const k = tap * filters + f;
        dKernel[k] = Math.fround(dKernel[k] + Math.fround(value * x[from]));
        dx[from] = Math.fround(dx[from] + Math.fround(value * kernel[k]));
      }
    }
  }
  return dx;
}

/** Index of each cell's first output, and of its first pixel in the input without channels. */
function* cellsOf(shape: Convolution): Generator<{ at: number; corner: number }> {
  const { samples, height, width, filters, poolSize, stride = 1 } = shape;
  const { cellRows, cellColumns } = sizesOf(shape);
  let at = 0;
  for (let s = 0; s < samples; s++) {
    for (let row = 0; row < cellRows; row++) {
      for (let column = 0; column < cellColumns; column++) {
        yield { at, corner: (s * height + row * poolSize * stride) * width + column * poolSize * stride };
        at += filters;
      }
    }
  }
}

/** What the output at a place of the cell sees: indexes in the input, and in a kernel of one filter. */
function* patchOf(
  { width, channels, kernelSize, poolSize, stride = 1 }: Convolution,
  corner: number,
  place: number,
): Generator<{ from: number; tap: number }> {
  const first = corner + (Math.floor(place / poolSize) * width + (place % poolSize)) * stride;
  let tap = 0;
  for (let ky = 0; ky < kernelSize; ky++) {
    for (let i = 0; i < kernelSize * channels; i++) {
      yield { from: (first + ky * width) * channels + i, tap: tap++ };
    }
  }
}

/** The sizes as arguments of `conv2dForward` and `conv2dBackward`. */
export function sizeArguments({
  samples,
  height,
  width,
  channels,
  kernelSize,
  filters,
  poolSize,
  stride = 1,
}: Convolution): [number, number, number, number, number, number, number, number] {
  return [samples, height, width, channels, kernelSize, filters, poolSize, stride];
}

/** For `winogradConv2dForward`: its packed weights, and scratch for what the points see and for their products. */
export function winogradSizesOf({ width, channels, filters, poolSize }: Convolution) {
  const outWidth = Math.floor((width - 4) / poolSize) * poolSize;
  return {
    packedCount: 8 * (1 + 5 * channels) * filters,
    pointsCount: 8 * Math.ceil((width * channels) / 4) * 4,
    productsCount: 8 * outWidth * filters,
  };
}

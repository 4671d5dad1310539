// The convolution kernels, one by one: with cells against plain loops, and the one for images against the general one.

import assert from 'node:assert/strict';
import { assertSameBits } from '../support/bits.js';
import { largestMagnitude } from '../support/engine-fixture.js';
import {
  exactOutputs,
  plainBackward,
  plainForward,
  shiftsOf,
  sizeArguments,
  sizesOf,
  winogradSizesOf,
  type Convolution,
} from '../support/convolution.js';
import { KernelMemory, PAGE_BYTES } from '../support/kernel-memory.js';
import { randomTest, type Random } from '../support/random.js';

function describe({
  height,
  width,
  channels,
  kernelSize,
  filters,
  poolSize,
  stride = 1,
}: Convolution): string {
  return `${height}x${width}x${channels}, size ${kernelSize} in steps of ${stride}, ${filters} filters, cells of ${poolSize}`;
}

/** Whole numbers often, so that there are equals in a cell; zeros of both signs among them. */
function mixed(random: Random, length: number, zeros: number): Float32Array {
  return Float32Array.from({ length }, () => {
    if (random.chance(zeros)) return random.chance(0.5) ? 0 : -0;
    return random.chance(0.3) ? random.integer(5) - 2 : random.uniform(-1, 1);
  });
}

/** One cell, rows and columns of cells, and every number of rows and columns that are left over. */
function* grids(random: Random, poolSize: number): Generator<Convolution> {
  for (const kernelSize of [1, 2, 3, 5]) {
    for (const channels of [1, 2, 3, 6]) {
      for (const filters of [1, 2, 4, 5, 7, 17]) {
        for (const stride of [1, 2 + random.integer(3)]) {
          const extent = (cells: number): number =>
            (cells * poolSize + random.integer(poolSize) - 1) * stride + random.integer(stride) + kernelSize;
          yield {
            samples: 1 + random.integer(3),
            height: extent(1 + random.integer(3)),
            width: extent(1 + random.integer(4)),
            channels,
            kernelSize,
            filters,
            poolSize,
            stride,
          };
        }
      }
    }
  }
}

for (const poolSize of [1, 2, 3]) {
  randomTest(
    `a convolution with cells of ${poolSize} gives each cell's first maximum and its place`,
    random => {
      for (const shape of grids(random, poolSize)) {
        const { inputs, outputs, kernelCount, rowsCount } = sizesOf(shape);
        const memory = new KernelMemory(8 * PAGE_BYTES);
        const x = memory.f32(mixed(random, inputs, 0.5));
        const kernel = memory.f32(mixed(random, kernelCount, 0.3));
        const bias = memory.f32(mixed(random, shape.filters, 0.3));
        const [y, winners, rows] = [memory.f32(outputs), memory.u32(outputs), memory.f32(rowsCount)];
        memory.kernels.conv2dForward(
          x.byteOffset,
          kernel.byteOffset,
          bias.byteOffset,
          y.byteOffset,
          winners.byteOffset,
          rows.byteOffset,
          ...sizeArguments(shape),
        );
        const expected = plainForward(shape, x, kernel, bias);
        assertSameBits(y, expected.y, describe(shape));
        // The only place of a cell of one output is the host's to write.
        const places = poolSize === 1 ? winners.slice().fill(2 ** 32 - 1) : expected.winners;
        assert.deepEqual(winners, places, `${describe(shape)}: winners`);
      }
    },
  );
}

/** What `winogradConv2dForward` makes of a convolution. */
function winogradForward(
  shape: Convolution,
  x: Float32Array,
  kernel: Float32Array,
  bias: Float32Array,
): { y: Float32Array; winners: Uint32Array } {
  const { samples, height, width, channels, filters, poolSize } = shape;
  const { outputs } = sizesOf(shape);
  const { packedCount, pointsCount, productsCount } = winogradSizesOf(shape);
  const memory = new KernelMemory(4 * PAGE_BYTES);
  const packed = memory.f32(packedCount).byteOffset;
  memory.kernels.packWinogradConv2d(
    memory.f32(kernel).byteOffset,
    memory.f32(bias).byteOffset,
    packed,
    channels,
    filters,
  );
  const [y, winners] = [memory.f32(outputs), memory.u32(new Uint32Array(outputs))];
  memory.kernels.winogradConv2dForward(
    memory.f32(x).byteOffset,
    packed,
    y.byteOffset,
    winners.byteOffset,
    memory.f32(pointsCount).byteOffset,
    memory.f32(productsCount).byteOffset,
    samples,
    height,
    width,
    channels,
    filters,
    poolSize,
  );
  return { y, winners };
}

/** One or two tiles of rows; every number of columns that are left over. */
function* winogradGrid(random: Random, poolSize: number): Generator<Convolution> {
  for (const channels of [1, 2, 3, 6, 7]) {
    for (const filters of [1, 2, 4, 5, 7, 13, 17]) {
      yield {
        samples: 1 + random.integer(3),
        height: random.pick([8, 12]),
        width: 4 + (1 + random.integer(3)) * poolSize + random.integer(poolSize),
        channels,
        kernelSize: 5,
        filters,
        poolSize,
      };
    }
  }
}

for (const poolSize of [1, 2, 4]) {
  randomTest(`Winograd's convolution with cells of ${poolSize} is near the plain one in f64`, random => {
    for (const shape of winogradGrid(random, poolSize)) {
      const { inputs, kernelCount, outputs } = sizesOf(shape);
      const x = mixed(random, inputs, 0.5);
      const kernel = mixed(random, kernelCount, 0.3);
      const bias = mixed(random, shape.filters, 0.3);
      const { y, winners } = winogradForward(shape, x, kernel, bias);
      const exact = exactOutputs(shape, x, kernel, bias);
      const tolerance = 4e-6 * largestMagnitude(exact);
      for (let at = 0; at < outputs; at++) {
        const places = placesOf(shape, exact, at);
        const largest = Math.max(...places);
        const error = Math.abs(y[at] - largest);
        assert.ok(error <= tolerance, `${describe(shape)}: output ${at} is ${y[at]}, exactly ${largest}`);
        const won = places[winners[at]];
        assert.ok(won >= largest - tolerance, `${describe(shape)}: place ${winners[at]} of output ${at}`);
      }
    }
  });

  randomTest(`what is not finite shows behind Winograd's convolution, cells of ${poolSize}`, random => {
    for (const shape of winogradGrid(random, poolSize)) {
      const { inputs, kernelCount, outputs } = sizesOf(shape);
      const values = {
        x: mixed(random, inputs, 0.5),
        kernel: mixed(random, kernelCount, 0.3),
        bias: mixed(random, shape.filters, 0.3),
      };
      for (const poisoned of ['x', 'kernel', 'bias'] as const) {
        for (const poison of [NaN, Infinity, -Infinity]) {
          const target = values[poisoned].slice();
          const { x, kernel, bias } = { ...values, [poisoned]: target } satisfies typeof values;
          target[random.integer(target.length)] = poison;
          const { y } = winogradForward(shape, x, kernel, bias);
          const exact = exactOutputs(shape, x, kernel, bias);
          for (let at = 0; at < outputs; at++) {
            if (Number.isFinite(y[at])) {
              const isSound = placesOf(shape, exact, at).every(value => value < Infinity);
              assert.ok(isSound, `${describe(shape)}: ${poison} in ${poisoned} is lost in output ${at}`);
            }
          }
        }
      }
    }
  });
}

/** The values that the pooling chooses from for an output. */
function placesOf({ filters, poolSize }: Convolution, exact: Float64Array, at: number): number[] {
  const places = poolSize ** 2;
  const [cell, f] = [Math.floor(at / filters), at % filters];
  return Array.from({ length: places }, (_, place) => exact[(cell * places + place) * filters + f]);
}

interface Gradients {
  readonly dKernel: Float32Array;
  readonly dBias: Float32Array;
  readonly dx: Float32Array;
}

/** The kernel's and the plain loops' gradients; from zero, or added to what is given. */
function bothGradients(
  shape: Convolution,
  values: { x: Float32Array; kernel: Float32Array; dy: Float32Array; winners: Uint32Array },
  start?: { dKernel: Float32Array; dBias: Float32Array },
  withInputs = true,
): { actual: Gradients; expected: Gradients } {
  const { channels, kernelSize, filters, poolSize, stride = 1 } = shape;
  const { gradientCount, packedCount, listWords } = sizesOf(shape);
  const memory = new KernelMemory(8 * PAGE_BYTES);
  const { kernels } = memory;
  const [x, kernel, dy] = [memory.f32(values.x), memory.f32(values.kernel), memory.f32(values.dy)];
  const winners = memory.u32(values.winners);
  const shifts = memory.u32(shiftsOf(shape));
  const packed = memory.f32(new Float32Array(packedCount));
  const dPacked = memory.f32(gradientCount);
  const [dKernel, dBias, dx] = [memory.f32(kernel.length), memory.f32(filters), memory.f32(x.length)];
  const list = memory.u32(listWords);
  kernels.packConv2d(kernel.byteOffset, packed.byteOffset, channels, kernelSize, filters, poolSize, stride);
  if (start) {
    const paddedRow = gradientCount / filters / kernelSize;
    const row = kernelSize * channels;
    for (const [at, value] of start.dKernel.entries()) {
      const [tap, f] = [Math.floor(at / filters), at % filters];
      dPacked[(f * kernelSize + Math.floor(tap / row)) * paddedRow + (tap % row)] = value;
    }
    dBias.set(start.dBias);
  }
  kernels.conv2dBackward(
    x.byteOffset,
    dy.byteOffset,
    winners.byteOffset,
    shifts.byteOffset,
    packed.byteOffset,
    dPacked.byteOffset,
    dBias.byteOffset,
    withInputs ? dx.byteOffset : 0,
    ...sizeArguments(shape),
    list.byteOffset,
    start ? 0 : 1,
  );
  kernels.unpackConv2dGradient(dPacked.byteOffset, dKernel.byteOffset, channels, kernelSize, filters);
  const expected = {
    dKernel: start?.dKernel.slice() ?? new Float32Array(kernel.length),
    dBias: start?.dBias.slice() ?? new Float32Array(filters),
  };
  const expectedInputs = plainBackward(
    shape,
    values.x,
    values.kernel,
    values.dy,
    values.winners,
    expected.dKernel,
    expected.dBias,
  );
  return { actual: { dKernel, dBias, dx }, expected: { ...expected, dx: expectedInputs } };
}

function assertSameGradients(actual: Gradients, expected: Gradients, what: string): void {
  assertSameBits(actual.dKernel, expected.dKernel, `${what}: kernel`);
  assertSameBits(actual.dBias, expected.dBias, `${what}: bias`);
  assertSameBits(actual.dx, expected.dx, `${what}: inputs`);
}

for (const poolSize of [1, 2, 3]) {
  randomTest(
    `gradients of cells of ${poolSize} go to their winners' patches, in the order of cells`,
    random => {
      for (const shape of grids(random, poolSize)) {
        const { inputs, outputs, kernelCount } = sizesOf(shape);
        for (const zeros of [0.1, 0.6, 1]) {
          const values = {
            x: mixed(random, inputs, 0.3),
            kernel: mixed(random, kernelCount, 0.1),
            dy: mixed(random, outputs, zeros),
            winners: Uint32Array.from({ length: outputs }, () => random.integer(poolSize ** 2)),
          };
          const what = `${describe(shape)}, ${zeros} of the gradients are zero`;
          const fromZero = bothGradients(shape, values);
          assertSameGradients(fromZero.actual, fromZero.expected, what);
          const start = {
            dKernel: random.floats(kernelCount, -1, 1),
            dBias: random.floats(shape.filters, -1, 1),
          };
          const added = bothGradients(shape, values, start);
          assertSameGradients(added.actual, added.expected, `${what}, added`);
          const { actual, expected } = bothGradients(shape, values, start, false);
          const untouched = actual.dx.every(value => Number.isNaN(value));
          assert.ok(untouched, `${what}: a gradient of the inputs that nobody asked for`);
          assertSameGradients({ ...actual, dx: expected.dx }, expected, `${what}, of the weights only`);
        }
      }
    },
  );

  randomTest(`a lone gradient at every place of every cell of ${poolSize} x ${poolSize}`, random => {
    for (const kernelSize of [1, 2, 4]) {
      for (const channels of [1, 3]) {
        const shape = {
          samples: 2,
          height: 2 * poolSize + kernelSize - 1,
          width: 3 * poolSize + kernelSize,
          channels,
          kernelSize,
          filters: 2,
          poolSize,
        };
        const { inputs, outputs, kernelCount } = sizesOf(shape);
        const [x, kernel] = [random.floats(inputs, -1, 1), random.floats(kernelCount, -1, 1)];
        for (let at = 0; at < outputs; at++) {
          for (let place = 0; place < poolSize ** 2; place++) {
            const winners = Uint32Array.from({ length: outputs }, () => random.integer(poolSize ** 2));
            winners[at] = place;
            const dy = new Float32Array(outputs);
            dy[at] = random.uniform(0.5, 1);
            const { actual, expected } = bothGradients(shape, { x, kernel, dy, winners });
            assertSameGradients(actual, expected, `${describe(shape)}, place ${place} of output ${at}`);
          }
        }
      }
    }
  });
}

type ImageShape = Convolution & { readonly channels: 1; readonly poolSize: 2 };

function imageShape(samples: number, height: number, width: number, kernelSize: number, filters: number) {
  return { samples, height, width, channels: 1, kernelSize, filters, poolSize: 2 } satisfies ImageShape;
}

/** Both kernels on the same images; `x` is [samples][height][width]. */
function compareOnImages(random: Random, shape: ImageShape, x: Float32Array): void {
  const { samples, height, width, kernelSize, filters } = shape;
  const { outputs, kernelCount, rowsCount } = sizesOf(shape);
  const bytes = 4 * (x.length + 4 * outputs + rowsCount + 6 * kernelCount) + 2048;
  const memory = new KernelMemory(bytes);
  const { kernels } = memory;
  const images = memory.f32(x);
  const kernel = memory.f32(mixed(random, kernelCount, 0.1));
  // Never -0, which a skipped term of +0 would have changed.
  const bias = memory.f32(mixed(random, filters, 0.3).map(value => value + 0));
  const splatted = memory.f32(4 * kernelCount);
  const taps = memory.u32(kernelSize ** 2);
  const rows = memory.f32(rowsCount);
  const [y, winners] = [memory.f32(outputs), memory.u32(outputs)];
  const [expectedY, expectedWinners] = [memory.f32(outputs), memory.u32(outputs)];
  const { byteOffset: tapsAt } = taps;
  kernels.packImageConv2d(kernel.byteOffset, splatted.byteOffset, tapsAt, width, kernelSize, filters);
  kernels.imageConv2dForward(
    images.byteOffset,
    splatted.byteOffset,
    bias.byteOffset,
    y.byteOffset,
    winners.byteOffset,
    taps.byteOffset,
    samples,
    height,
    width,
    kernelSize,
    filters,
  );
  kernels.conv2dForward(
    images.byteOffset,
    kernel.byteOffset,
    bias.byteOffset,
    expectedY.byteOffset,
    expectedWinners.byteOffset,
    rows.byteOffset,
    ...sizeArguments(shape),
  );
  assertSameBits(y, expectedY, describe(shape));
  assert.deepEqual(winners, expectedWinners, `${describe(shape)}: winners`);
}

/** Images with ink in bands, spots and lines, or none, or everywhere. */
function inkedImages(random: Random, samples: number, height: number, width: number): Float32Array {
  const x = new Float32Array(samples * height * width);
  for (let s = 0; s < samples; s++) {
    const row = Array.from({ length: height }, () => random.chance(0.5));
    const column = Array.from({ length: width }, () => random.chance(0.6));
    const [top, left] = [random.integer(height), random.integer(width)];
    const isInked = random.pick<(r: number, c: number) => boolean>([
      () => true,
      () => false,
      (r, c) => row[r] && column[c],
      (r, c) => row[r] || column[c],
      r => row[r],
      (_, c) => column[c],
      r => r < top,
      r => r > top,
      (_, c) => c < left,
      (_, c) => c > left,
      (r, c) => Math.abs(r - top) < 3 && Math.abs(c - left) < 3,
    ]);
    for (let r = 0; r < height; r++) {
      for (let c = 0; c < width; c++) {
        if (isInked(r, c)) x[(s * height + r) * width + c] = Math.fround(random.integer(256) / 255);
      }
    }
  }
  return x;
}

for (const kernelSize of [1, 2, 3, 5, 7]) {
  randomTest(`the kernel for images gives the bits of the general one, size ${kernelSize}`, random => {
    for (let filters = 1; filters <= 7; filters++) {
      for (let outWidth = 8; outWidth <= 19; outWidth++) {
        const height = kernelSize + 1 + random.integer(18);
        const shape = imageShape(6, height, outWidth + kernelSize - 1, kernelSize, filters);
        compareOnImages(random, shape, inkedImages(random, 6, height, shape.width));
      }
      for (const height of [62, 63, 64]) {
        const shape = imageShape(5, height, 8 + random.integer(9) + kernelSize - 1, kernelSize, filters);
        compareOnImages(random, shape, inkedImages(random, 5, height, shape.width));
      }
    }
  });

  randomTest(`the kernel for images of one pixel of ink, wherever it is, size ${kernelSize}`, random => {
    for (const [outHeight, outWidth] of [
      [2, 8],
      [5, 11],
      [6, 14],
    ]) {
      const [height, width] = [outHeight + kernelSize - 1, outWidth + kernelSize - 1];
      const samples = height * width;
      const x = new Float32Array(samples * samples);
      for (let s = 0; s < samples; s++) x[s * samples + s] = random.uniform(0.1, 1);
      compareOnImages(random, imageShape(samples, height, width, kernelSize, 3), x);
    }
  });

  randomTest(`the kernel for images of one row of ink among 64, size ${kernelSize}`, random => {
    const [height, width] = [64, 9 + kernelSize];
    const x = new Float32Array(height * height * width);
    for (let s = 0; s < height; s++) {
      for (let c = 0; c < width; c++) x[(s * height + s) * width + c] = random.uniform(0.1, 1);
    }
    compareOnImages(random, imageShape(height, height, width, kernelSize, 2), x);
  });
}

randomTest('the kernel for images, with kernels as high as images may be', random => {
  for (const [height, kernelSize] of [
    [33, 31],
    [33, 32],
    [64, 61],
    [64, 62],
    [64, 63],
  ]) {
    const shape = imageShape(3, height, kernelSize + 9, kernelSize, 2);
    compareOnImages(random, shape, inkedImages(random, 3, height, shape.width));
    compareOnImages(random, shape, random.floats(3 * height * shape.width, 0, 1));
  }
});

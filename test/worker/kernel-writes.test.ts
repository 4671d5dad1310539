// Kernels write to the regions that they are given, and nowhere else: a store behind a buffer may be overwritten by
// the next pixel or row, and never shows in a result.

import assert from 'node:assert/strict';
import { shiftsOf, sizeArguments, sizesOf, winogradSizesOf } from '../support/convolution.js';
import { KernelMemory, PAGE_BYTES } from '../support/kernel-memory.js';
import { randomTest, type Random } from '../support/random.js';

/** A region between others that no kernel may write to. */
const GUARD_BYTES = 512;

/** Runs a kernel, and fails if anything but the given regions has changed. */
function assertWritesOnly(
  memory: KernelMemory,
  outputs: readonly { readonly byteOffset: number; readonly byteLength: number }[],
  what: string,
  kernel: () => void,
): void {
  const before = memory.bytes().slice();
  kernel();
  const after = memory.bytes().slice();
  for (const { byteOffset, byteLength } of outputs) {
    after.set(before.subarray(byteOffset, byteOffset + byteLength), byteOffset);
  }
  if (Buffer.compare(after, before) === 0) return;
  const changed = after.findIndex((byte, i) => byte !== before[i]);
  const places = outputs.map(({ byteOffset, byteLength }) => `${byteOffset}..${byteOffset + byteLength}`);
  assert.fail(`${what} writes to byte ${changed}, its regions are ${places.join(', ')}`);
}

/** Regions of floats with guards between them; what nobody has written is a harmless number. */
function guarded(): { memory: KernelMemory; region: (values: ArrayLike<number> | number) => Float32Array } {
  const memory = new KernelMemory(4 * PAGE_BYTES);
  memory.bytes().fill(0x3f);
  return {
    memory,
    region(values) {
      memory.take(GUARD_BYTES);
      const view = memory.f32(values);
      memory.take(GUARD_BYTES);
      return view;
    },
  };
}

/** Places of a cell, in a region of floats: what a float's random bits would be read as lies outside of everything. */
function setPlaces(region: Float32Array, random: Random, poolSize: number): void {
  const { buffer, byteOffset, length } = region;
  const places = new Uint32Array(buffer, byteOffset, length);
  for (let i = 0; i < length; i++) places[i] = random.integer(poolSize ** 2);
}

for (const filters of [1, 2, 3, 4, 5, 6, 8, 9, 11, 12, 13, 16, 17, 20, 21]) {
  randomTest(`convolutions of ${filters} filters write to their outputs and nowhere else`, random => {
    for (const poolSize of [1, 2, 3]) {
      for (const kernelSize of [1, 2, 3, 5]) {
        for (const channels of [1, 3, 6]) {
          for (let outWidth = poolSize; outWidth <= poolSize + 4; outWidth++) {
            // Two rows of outputs without cells; a row of cells and a row that is left over with them.
            // A stride of 2 on every other shape, with a column that is left over.
            const stride = 1 + ((outWidth + channels) % 2);
            const height = kernelSize + poolSize * stride;
            const [width, samples] = [kernelSize + outWidth * stride - 1, 2];
            const shape = { samples, height, width, channels, kernelSize, filters, poolSize, stride };
            const sizes = sizesOf(shape);
            const { memory, region } = guarded();
            const x = region(random.floats(sizes.inputs, -1, 1));
            const kernel = region(random.floats(sizes.kernelCount, -1, 1));
            const bias = region(random.floats(filters, -1, 1));
            const [y, winners] = [region(sizes.outputs), region(sizes.outputs)];
            const rows = region(sizes.rowsCount);
            const dy = region(random.floats(sizes.outputs, -1, 1));
            const dBias = region(filters);
            const packed = region(new Float32Array(sizes.packedCount));
            const dPacked = region(sizes.gradientCount);
            const [dKernel, dx] = [region(sizes.kernelCount), region(x.length)];
            const list = region(sizes.listWords);
            const shifts = memory.u32(shiftsOf(shape));
            const { kernels } = memory;
            const given = sizeArguments(shape);
            const what = `size ${kernelSize}, ${channels} channels, ${outWidth} columns, cells of ${poolSize}:`;
            const forward = poolSize === 1 ? [y] : [y, winners, rows];
            assertWritesOnly(memory, forward, `${what} forward`, () =>
              kernels.conv2dForward(
                x.byteOffset,
                kernel.byteOffset,
                bias.byteOffset,
                y.byteOffset,
                winners.byteOffset,
                rows.byteOffset,
                ...given,
              ),
            );
            assertWritesOnly(memory, [packed], `${what} packing`, () =>
              kernels.packConv2d(
                kernel.byteOffset,
                packed.byteOffset,
                channels,
                kernelSize,
                filters,
                poolSize,
                stride,
              ),
            );
            setPlaces(winners, random, poolSize);
            for (const first of [1, 0]) {
              for (const dxAt of [dx.byteOffset, 0]) {
                const written = [dPacked, dBias, list, ...(dxAt === 0 ? [] : [dx])];
                assertWritesOnly(memory, written, `${what} gradients`, () =>
                  kernels.conv2dBackward(
                    x.byteOffset,
                    dy.byteOffset,
                    winners.byteOffset,
                    shifts.byteOffset,
                    packed.byteOffset,
                    dPacked.byteOffset,
                    dBias.byteOffset,
                    dxAt,
                    ...given,
                    list.byteOffset,
                    first,
                  ),
                );
              }
            }
            assertWritesOnly(memory, [dKernel], `${what} unpacking`, () =>
              kernels.unpackConv2dGradient(
                dPacked.byteOffset,
                dKernel.byteOffset,
                channels,
                kernelSize,
                filters,
              ),
            );
          }
        }
      }
    }
  });
}

randomTest('the convolution for images writes to its outputs and nowhere else', random => {
  for (const kernelSize of [1, 2, 3, 5, 7]) {
    for (let filters = 1; filters <= 7; filters++) {
      for (const outWidth of [8, 9, 10, 12, 13, 15, 16]) {
        const [height, width, samples] = [kernelSize + 1 + (outWidth % 3), kernelSize + outWidth - 1, 2];
        const shape = { samples, height, width, channels: 1, kernelSize, filters, poolSize: 2 };
        const { inputs, outputs, kernelCount } = sizesOf(shape);
        const { memory, region } = guarded();
        // The first image has ink everywhere, the second none.
        const x = region(random.floats(inputs, 0, 1).fill(0, inputs / 2));
        const kernel = region(random.floats(kernelCount, -1, 1));
        const bias = region(random.floats(filters, -1, 1));
        const [splatted, taps] = [region(4 * kernelCount), region(kernelSize ** 2)];
        const [y, winners] = [region(outputs), region(outputs)];
        const { kernels } = memory;
        const what = `size ${kernelSize}, ${filters} filters, ${outWidth} columns:`;
        assertWritesOnly(memory, [splatted, taps], `${what} packing`, () =>
          kernels.packImageConv2d(
            kernel.byteOffset,
            splatted.byteOffset,
            taps.byteOffset,
            width,
            kernelSize,
            filters,
          ),
        );
        assertWritesOnly(memory, [y, winners], `${what} forward`, () =>
          kernels.imageConv2dForward(
            x.byteOffset,
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
          ),
        );
      }
    }
  }
});

randomTest("Winograd's convolution writes to its outputs and nowhere else", random => {
  for (const poolSize of [1, 2, 4]) {
    for (const filters of [1, 2, 3, 4, 5, 8, 13, 16, 17]) {
      for (const channels of [1, 3, 6]) {
        for (let outWidth = poolSize; outWidth <= poolSize + 4; outWidth++) {
          const [height, width, samples] = [12, 4 + outWidth, 2];
          const shape = { samples, height, width, channels, kernelSize: 5, filters, poolSize };
          const { inputs, outputs, kernelCount } = sizesOf(shape);
          const { packedCount, pointsCount, productsCount } = winogradSizesOf(shape);
          const { memory, region } = guarded();
          const x = region(random.floats(inputs, -1, 1));
          const kernel = region(random.floats(kernelCount, -1, 1));
          const bias = region(random.floats(filters, -1, 1));
          const packed = region(packedCount);
          const [y, winners] = [region(outputs), region(outputs)];
          const [points, products] = [region(pointsCount), region(productsCount)];
          const { kernels } = memory;
          const what = `${filters} filters, ${channels} channels, ${outWidth} columns, cells of ${poolSize}:`;
          assertWritesOnly(memory, [packed], `${what} packing`, () =>
            kernels.packWinogradConv2d(
              kernel.byteOffset,
              bias.byteOffset,
              packed.byteOffset,
              channels,
              filters,
            ),
          );
          const written = poolSize === 1 ? [y, points, products] : [y, winners, points, products];
          assertWritesOnly(memory, written, `${what} forward`, () =>
            kernels.winogradConv2dForward(
              x.byteOffset,
              packed.byteOffset,
              y.byteOffset,
              winners.byteOffset,
              points.byteOffset,
              products.byteOffset,
              samples,
              height,
              width,
              channels,
              filters,
              poolSize,
            ),
          );
        }
      }
    }
  }
});

randomTest('max-pooling writes to its outputs and nowhere else', random => {
  for (const poolSize of [1, 2, 3]) {
    for (const channels of [1, 2, 3, 4, 5, 7, 8]) {
      for (let rest = 0; rest < poolSize; rest++) {
        const [height, width, samples] = [2 * poolSize + rest, 3 * poolSize + rest, 2];
        const { memory, region } = guarded();
        const x = region(random.floats(samples * height * width * channels, -1, 1));
        const [y, winners] = [region(samples * 6 * channels), region(samples * 6 * channels)];
        const dy = region(random.floats(y.length, -1, 1));
        const dx = region(x.length);
        const { kernels } = memory;
        const shape = [samples, height, width, channels, poolSize] as const;
        const what = `${channels} channels in windows of ${poolSize}, ${rest} left over:`;
        assertWritesOnly(memory, [y, winners], `${what} forward`, () =>
          kernels.maxPool2dForward(x.byteOffset, y.byteOffset, winners.byteOffset, ...shape),
        );
        assertWritesOnly(memory, [dx], `${what} backward`, () =>
          kernels.maxPool2dBackward(dy.byteOffset, winners.byteOffset, dx.byteOffset, ...shape),
        );
      }
    }
  }
});

randomTest('average-pooling writes to its outputs and nowhere else', random => {
  for (const poolSize of [1, 2, 3]) {
    for (const channels of [1, 2, 3, 4, 5, 7, 8]) {
      for (let rest = 0; rest < poolSize; rest++) {
        const [height, width, samples] = [2 * poolSize + rest, 3 * poolSize + rest, 2];
        const { memory, region } = guarded();
        const x = region(random.floats(samples * height * width * channels, -1, 1));
        const y = region(samples * 6 * channels);
        const dy = region(random.floats(y.length, -1, 1));
        const dx = region(x.length);
        const { kernels } = memory;
        const shape = [samples, height, width, channels, poolSize] as const;
        const what = `${channels} channels in windows of ${poolSize}, ${rest} left over:`;
        assertWritesOnly(memory, [y], `${what} forward`, () =>
          kernels.avgPool2dForward(x.byteOffset, y.byteOffset, ...shape),
        );
        assertWritesOnly(memory, [dx], `${what} backward`, () =>
          kernels.avgPool2dBackward(dy.byteOffset, dx.byteOffset, ...shape),
        );
      }
    }
  }
});

randomTest('padding writes to its outputs and nowhere else', random => {
  for (const rowSize of [1, 2, 3, 4, 5, 9]) {
    for (const [rows, paddedRows, paddedRowSize, offset] of [
      [1, 1, rowSize, 0],
      [3, 5, rowSize + 2, rowSize + 3],
      [2, 3, rowSize + 3, 0],
    ]) {
      const { memory, region } = guarded();
      const x = region(random.floats(2 * rows * rowSize, -1, 1));
      const padded = region(2 * paddedRows * paddedRowSize);
      const { kernels } = memory;
      const sizes = [2, rows, rowSize, paddedRows, paddedRowSize, offset] as const;
      assertWritesOnly(memory, [padded], `rows of ${rowSize} in ${paddedRowSize}`, () =>
        kernels.padImages(x.byteOffset, padded.byteOffset, ...sizes, 1),
      );
      assertWritesOnly(memory, [x], `rows of ${rowSize} out of ${paddedRowSize}`, () =>
        kernels.unpadImages(padded.byteOffset, x.byteOffset, ...sizes),
      );
    }
  }
});

randomTest('dense layers write to their outputs and nowhere else', random => {
  const samples = 3;
  for (const inputs of [1, 3, 4, 9, 20, 21]) {
    for (const outputs of [1, 2, 3, 4, 5, 8, 9, 12, 13, 20, 21, 22, 24, 25, 44, 49]) {
      const { memory, region } = guarded();
      const x = region(random.floats(samples * inputs, -1, 1));
      const kernel = region(random.floats(inputs * outputs, -1, 1));
      const bias = region(random.floats(outputs, -1, 1));
      const y = region(samples * outputs);
      const dy = region(random.floats(samples * outputs, -1, 1));
      const [dKernel, dBias, dx] = [region(kernel.length), region(outputs), region(x.length)];
      const transposed = region(kernel.length);
      // 8 bytes for each input, output or sample, and one term more.
      const list = region(2 * Math.max(inputs, outputs, samples) + 2);
      const { kernels } = memory;
      const shape = [samples, inputs, outputs, list.byteOffset] as const;
      const what = `${inputs} to ${outputs}:`;
      assertWritesOnly(memory, [y, list], `${what} forward`, () =>
        kernels.denseForward(x.byteOffset, kernel.byteOffset, bias.byteOffset, y.byteOffset, ...shape),
      );
      for (const first of [1, 0]) {
        assertWritesOnly(memory, [dKernel, dBias, list], `${what} gradient of the weights`, () =>
          kernels.denseBackwardWeights(
            x.byteOffset,
            dy.byteOffset,
            dKernel.byteOffset,
            dBias.byteOffset,
            ...shape,
            first,
          ),
        );
      }
      assertWritesOnly(memory, [transposed], `${what} packing`, () =>
        kernels.packDense(kernel.byteOffset, transposed.byteOffset, inputs, outputs),
      );
      assertWritesOnly(memory, [dx, list], `${what} gradient of the inputs`, () =>
        kernels.denseBackwardInputs(dy.byteOffset, transposed.byteOffset, dx.byteOffset, ...shape),
      );
    }
  }
});

randomTest(
  'a dense layer on lists of pixels, and the lists, write to their outputs and nowhere else',
  random => {
    const samples = 3;
    for (const inputs of [1, 3, 15, 16, 17, 33]) {
      for (let outputs = 1; outputs <= 49; outputs++) {
        const { memory, region } = guarded();
        const bytes = Uint8Array.from({ length: samples * inputs }, () =>
          random.chance(0.4) ? 0 : random.integer(256),
        );
        const images = memory.u8(bytes);
        const positions = memory.u32([2, 0, 1]);
        // No term more than there are live pixels.
        const [list, ends] = [region(2 * bytes.filter(byte => byte !== 0).length), region(samples)];
        const kernel = region(random.floats(inputs * outputs, -1, 1));
        const bias = region(random.floats(outputs, -1, 1));
        const y = region(samples * outputs);
        const dy = region(random.floats(samples * outputs, -1, 1));
        const [dKernel, dBias, shifted] = [region(kernel.length), region(outputs), region(outputs)];
        const { kernels } = memory;
        const what = `${inputs} to ${outputs}:`;
        const [listAt, endsAt] = [list.byteOffset, ends.byteOffset];
        assertWritesOnly(memory, [list, ends], `${what} lists`, () =>
          kernels.listPixels(
            images.byteOffset,
            positions.byteOffset,
            samples,
            inputs,
            0.25,
            4 * outputs,
            listAt,
            endsAt,
          ),
        );
        assertWritesOnly(memory, [y], `${what} forward`, () =>
          kernels.sparseDenseForward(
            listAt,
            endsAt,
            kernel.byteOffset,
            bias.byteOffset,
            y.byteOffset,
            samples,
            outputs,
          ),
        );
        for (const first of [1, 0]) {
          assertWritesOnly(memory, [dKernel, dBias], `${what} gradient of the weights`, () =>
            kernels.sparseDenseBackwardWeights(
              listAt,
              endsAt,
              dy.byteOffset,
              dKernel.byteOffset,
              dBias.byteOffset,
              samples,
              inputs,
              outputs,
              first,
            ),
          );
        }
        assertWritesOnly(memory, [shifted], `${what} shift of the bias`, () =>
          kernels.shiftBias(kernel.byteOffset, bias.byteOffset, shifted.byteOffset, 0.75, inputs, outputs),
        );
        assertWritesOnly(memory, [dKernel], `${what} shift of the gradient`, () =>
          kernels.shiftGradient(dKernel.byteOffset, dBias.byteOffset, 0.75, inputs, outputs),
        );
      }
    }
  },
);

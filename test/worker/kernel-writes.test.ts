// Kernels write to the regions that they are given, and nowhere else: a store behind a buffer may be overwritten by
// the next pixel or row, and never shows in a result.

import assert from 'node:assert/strict';
import { KernelMemory, PAGE_BYTES } from '../support/kernel-memory.js';
import { randomTest } from '../support/random.js';

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

for (const filters of [1, 2, 3, 4, 5, 6, 8, 9, 11, 12, 13, 16, 17, 20, 21]) {
  randomTest(`convolutions of ${filters} filters write to their outputs and nowhere else`, random => {
    for (const kernelSize of [1, 2, 3, 5]) {
      for (const channels of [1, 3, 6]) {
        for (let outWidth = 1; outWidth <= 5; outWidth++) {
          const [height, width, samples] = [kernelSize + 1, kernelSize + outWidth - 1, 2];
          const kernelCount = kernelSize * kernelSize * channels * filters;
          const outCount = samples * 2 * outWidth * filters;
          const packedCount = filters * kernelSize * Math.ceil((kernelSize * channels) / 4) * 4;
          const { memory, region } = guarded();
          const x = region(random.floats(samples * height * width * channels, -1, 1));
          const kernel = region(random.floats(kernelCount, -1, 1));
          const bias = region(random.floats(filters, -1, 1));
          const y = region(outCount);
          const dy = region(random.floats(outCount, -1, 1));
          const dBias = region(filters);
          const [packed, dPacked] = [region(packedCount), region(packedCount)];
          const [dKernel, dx] = [region(kernelCount), region(x.length)];
          // A list of all positions of all samples, and one term more.
          const list = region((outCount / filters) * 2 + 2);
          const { kernels } = memory;
          const shape = [samples, height, width, channels, kernelSize, filters] as const;
          const what = `size ${kernelSize}, ${channels} channels, ${outWidth} columns:`;
          assertWritesOnly(memory, [y], `${what} forward`, () =>
            kernels.conv2dForward(x.byteOffset, kernel.byteOffset, bias.byteOffset, y.byteOffset, ...shape),
          );
          assertWritesOnly(memory, [packed], `${what} packing`, () =>
            kernels.packConv2d(kernel.byteOffset, packed.byteOffset, channels, kernelSize, filters),
          );
          for (const first of [1, 0]) {
            for (const dxAt of [dx.byteOffset, 0]) {
              const written = [dPacked, dBias, list, ...(dxAt === 0 ? [] : [dx])];
              assertWritesOnly(memory, written, `${what} gradients`, () =>
                kernels.conv2dBackward(
                  x.byteOffset,
                  dy.byteOffset,
                  packed.byteOffset,
                  dPacked.byteOffset,
                  dBias.byteOffset,
                  dxAt,
                  ...shape,
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
  });
}

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

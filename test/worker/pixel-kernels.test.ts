// What is done for a dense first layer: lists of live pixels, layers on them, and the shift that left the pixels.

import assert from 'node:assert/strict';
import { assertSameBits } from '../support/bits.js';
import { KernelMemory, PAGE_BYTES } from '../support/kernel-memory.js';
import { randomTest, type Random } from '../support/random.js';

/** Bytes, the given part of them 0. */
function pixelBytes(random: Random, length: number, blank: number): Uint8Array {
  return Uint8Array.from({ length }, () => (random.chance(blank) ? 0 : 1 + random.integer(255)));
}

const sizes = [...Array.from({ length: 50 }, (_, i) => i + 1), 784];

for (const blank of [0, 0.2, 0.8, 1]) {
  randomTest(`lists of the pixels of images of which ${blank} is blank`, random => {
    for (const size of sizes) {
      const images = pixelBytes(random, 5 * size, blank);
      // One image is blank, one full, one has ink only in its corners.
      images
        .fill(0, size, 2 * size)
        .fill(255, 2 * size, 3 * size)
        .fill(0, 3 * size, 4 * size);
      images[3 * size] = 1;
      images[4 * size - 1] = 255;
      const positions = [4, 1, 3, 0, 0, 2, 1];
      const scale = Math.fround(random.uniform(0.001, 0.1));
      const offsetStep = 4 * (1 + random.integer(100));
      const words: number[] = [];
      const counts = positions.map(position => {
        for (let i = 0; i < size; i++) {
          const byte = images[position * size + i];
          if (byte !== 0) words.push(i * offsetStep, bitsOfFloat(Math.fround(byte * scale)));
        }
        return words.length / 2;
      });

      const memory = new KernelMemory(2 * PAGE_BYTES);
      const imagesAt = memory.u8(images).byteOffset;
      const positionsAt = memory.u32(positions).byteOffset;
      const [list, ends] = [memory.u32(words.length), memory.u32(positions.length)];
      memory.kernels.listPixels(
        imagesAt,
        positionsAt,
        positions.length,
        size,
        scale,
        offsetStep,
        list.byteOffset,
        ends.byteOffset,
      );
      assert.deepEqual([...list], words, `images of ${size} bytes`);
      assert.deepEqual(
        [...ends],
        counts.map(count => list.byteOffset + 8 * count),
        `images of ${size} bytes: ends`,
      );
    }
  });
}

function bitsOfFloat(value: number): number {
  return new Uint32Array(Float32Array.of(value).buffer)[0];
}

/** Floats of which some are zeros of both signs. */
function withZeros(random: Random, length: number): Float32Array {
  return random
    .floats(length, -2, 2)
    .map(value => (random.chance(0.1) ? 0 : random.chance(0.05) ? -0 : value));
}

/** The same bytes as floats and as lists of those that are not zero, in one memory. */
function onPixels(random: Random, samples: number, inputs: number, outputs: number) {
  const memory = new KernelMemory(4 * PAGE_BYTES);
  const bytes = pixelBytes(random, samples * inputs, random.pick([0, 0.5, 0.9]));
  // The first and the last but one are blank.
  bytes.fill(0, 0, inputs).fill(0, (samples - 2) * inputs, (samples - 1) * inputs);
  const scale = Math.fround(random.uniform(0.001, 0.1));
  const images = memory.u8(bytes);
  const positions = memory.u32(Array.from({ length: samples }, (_, s) => s));
  const pixels = memory.u32(2 * bytes.length + 2);
  const ends = memory.u32(samples);
  memory.kernels.listPixels(
    images.byteOffset,
    positions.byteOffset,
    samples,
    inputs,
    scale,
    4 * outputs,
    pixels.byteOffset,
    ends.byteOffset,
  );
  const x = memory.f32(Float32Array.from(bytes, byte => byte * scale));
  const list = memory.u32(2 * Math.max(samples, inputs) + 2);
  return { memory, pixels: pixels.byteOffset, ends: ends.byteOffset, x: x.byteOffset, list: list.byteOffset };
}

const SAMPLES = 5;

randomTest('a dense layer on lists of pixels gives the bits of the one on pixels', random => {
  for (const inputs of [1, 2, 15, 16, 17, 40]) {
    for (let outputs = 1; outputs <= 49; outputs++) {
      const { memory, pixels, ends, x, list } = onPixels(random, SAMPLES, inputs, outputs);
      const kernel = memory.f32(withZeros(random, inputs * outputs)).byteOffset;
      const bias = memory.f32(withZeros(random, outputs)).byteOffset;
      const [actual, expected] = [memory.f32(SAMPLES * outputs), memory.f32(SAMPLES * outputs)];
      const { kernels } = memory;
      kernels.sparseDenseForward(pixels, ends, kernel, bias, actual.byteOffset, SAMPLES, outputs);
      kernels.denseForward(x, kernel, bias, expected.byteOffset, SAMPLES, inputs, outputs, list);
      assertSameBits(actual, expected, `${inputs} to ${outputs}`);
      assert.ok(expected.every(value => !Number.isNaN(value)));
    }
  }
});

for (const first of [0, 1]) {
  const start = first ? 'from zero' : 'added to what is there';
  randomTest(`the gradient on lists of pixels gives the bits of the one on pixels, ${start}`, random => {
    for (const inputs of [1, 2, 15, 16, 17, 40]) {
      for (let outputs = 1; outputs <= 49; outputs++) {
        const { memory, pixels, ends, x, list } = onPixels(random, SAMPLES, inputs, outputs);
        const dy = memory.f32(withZeros(random, SAMPLES * outputs)).byteOffset;
        // What is there is NaN if it must not be read.
        const before = (length: number) => (first ? length : withZeros(random, length));
        const actual = { kernel: memory.f32(before(inputs * outputs)), bias: memory.f32(before(outputs)) };
        const expected = {
          kernel: memory.f32(first ? inputs * outputs : actual.kernel),
          bias: memory.f32(first ? outputs : actual.bias),
        };
        const { kernels } = memory;
        kernels.sparseDenseBackwardWeights(
          pixels,
          ends,
          dy,
          actual.kernel.byteOffset,
          actual.bias.byteOffset,
          SAMPLES,
          inputs,
          outputs,
          first,
        );
        kernels.denseBackwardWeights(
          x,
          dy,
          expected.kernel.byteOffset,
          expected.bias.byteOffset,
          SAMPLES,
          inputs,
          outputs,
          list,
          first,
        );
        assertSameBits(actual.kernel, expected.kernel, `${inputs} to ${outputs}: kernel`);
        assertSameBits(actual.bias, expected.bias, `${inputs} to ${outputs}: bias`);
        assert.ok(expected.kernel.every(value => !Number.isNaN(value)));
      }
    }
  });
}

randomTest("a shift is moved into the bias by the kernel's column sums, and leaves no -0", random => {
  for (const inputs of [1, 2, 5, 25, 33]) {
    for (let outputs = 1; outputs <= 49; outputs++) {
      for (const shift of [0, -0, 1, Math.fround(random.uniform(-2, 2))]) {
        const memory = new KernelMemory(PAGE_BYTES);
        const kernel = memory.f32(withZeros(random, inputs * outputs));
        const bias = memory.f32(withZeros(random, outputs));
        // A column of zeros under a bias of -0, and one whose sum is the bias.
        const zero = random.integer(outputs);
        const equal = random.integer(outputs);
        for (let i = 0; i < inputs; i++) kernel[i * outputs + zero] = i % 2 ? 0 : -0;
        bias[zero] = -0;
        const shifted = memory.f32(outputs);
        const expected = new Float32Array(outputs);
        for (let j = 0; j < outputs; j++) {
          let sum = 0;
          for (let i = 0; i < inputs; i++) sum = Math.fround(sum + kernel[i * outputs + j]);
          if (j === equal && j !== zero) bias[j] = Math.fround(shift * sum);
          expected[j] = Math.fround(bias[j] - Math.fround(shift * sum)) + 0;
        }
        memory.kernels.shiftBias(
          kernel.byteOffset,
          bias.byteOffset,
          shifted.byteOffset,
          shift,
          inputs,
          outputs,
        );
        assertSameBits(shifted, expected, `${inputs} to ${outputs}, shift ${shift}`);
        assert.ok(
          shifted.every(value => !Object.is(value, -0)),
          '-0',
        );
      }
    }
  }
});

randomTest("a kernel's gradient gives up the shift times its bias' gradient", random => {
  for (const inputs of [1, 2, 5, 25, 33]) {
    for (let outputs = 1; outputs <= 49; outputs++) {
      for (const shift of [0, 1, Math.fround(random.uniform(-2, 2))]) {
        const memory = new KernelMemory(PAGE_BYTES);
        const dKernel = memory.f32(withZeros(random, inputs * outputs));
        const dBias = memory.f32(withZeros(random, outputs));
        const bias = dBias.slice();
        const expected = dKernel
          .slice()
          .map((value, at) => Math.fround(value - Math.fround(shift * bias[at % outputs])));
        memory.kernels.shiftGradient(dKernel.byteOffset, dBias.byteOffset, shift, inputs, outputs);
        assertSameBits(dKernel, expected, `${inputs} to ${outputs}, shift ${shift}`);
        assertSameBits(dBias, bias, 'the gradient of the bias');
      }
    }
  }
});

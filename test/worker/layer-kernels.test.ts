// Single kernels of the layers: random words, unpacking, what NaN and infinities do, and edges that models hide.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { lossBound, roundLoss } from '#dist/shared/exact-sum.js';
import { exp, log } from '#dist/shared/math.js';
import { seedKey, wordsOf } from '#dist/shared/philox.js';
import { dropoutThreshold } from '#dist/worker/engines/engine.js';
import { assertSameBits } from '../support/bits.js';
import { packedRowSize } from '../support/convolution.js';
import { KernelMemory, PAGE_BYTES } from '../support/kernel-memory.js';
import { randomTest } from '../support/random.js';

for (const rate of [0, 0.1, 0.25, 0.5, 0.999]) {
  randomTest(
    `dropout at rate ${rate} takes the words of its counter, wherever in a leaf it begins`,
    random => {
      for (const seed of [0, 1, 2 ** 32 - 1, 2 ** 32, 2 ** 53 - 1]) {
        for (const firstElement of [0, 1, 2, 3, 4, 1023, 2 ** 31 + 5]) {
          const count = 1 + random.integer(40);
          const counter = [random.word(), random.word(), random.word()] as const;
          const values = random.floats(count, -2, 2);
          const memory = new KernelMemory(PAGE_BYTES);
          const [x, multipliers, words] = [memory.f32(values), memory.f32(count), memory.u32(4)];
          const dy = memory.f32(values);
          const { kernels } = memory;
          const scale = 1 / (1 - rate);
          kernels.dropoutForward(
            x.byteOffset,
            multipliers.byteOffset,
            count,
            firstElement,
            ...seedKey(seed),
            ...counter,
            dropoutThreshold(rate),
            scale,
            words.byteOffset,
          );
          const word = wordsOf(seedKey(seed), ...counter);
          const expected = Float32Array.from({ length: count }, (_, i) =>
            word(firstElement + i) >= rate * 2 ** 32 ? scale : 0,
          );
          assertSameBits(multipliers, expected, 'multipliers');
          const product = values.map((value, i) => value * expected[i]);
          assertSameBits(x, product, 'outputs');
          kernels.dropoutBackward(dy.byteOffset, multipliers.byteOffset, count);
          assertSameBits(dy, product, 'gradients');
          assertBehindUntouched(x, multipliers, dy);
        }
      }
    },
  );
}

test('an element whose word is the threshold is kept, one whose word is one less is dropped', () => {
  const counter = [5, 6, 7] as const;
  const word = wordsOf(seedKey(1), ...counter);
  for (let i = 0; i < 8; i++) {
    for (const [threshold, multiplier] of [
      [word(i), 2],
      [word(i) + 1, 0],
    ]) {
      const memory = new KernelMemory(PAGE_BYTES);
      const [x, multipliers, words] = [memory.f32(new Float32Array(8)), memory.f32(8), memory.u32(4)];
      const { byteOffset: at } = multipliers;
      memory.kernels.dropoutForward(
        x.byteOffset,
        at,
        8,
        0,
        ...seedKey(1),
        ...counter,
        threshold,
        2,
        words.byteOffset,
      );
      assert.equal(multipliers[i], multiplier);
    }
  }
});

/** The float behind each region is still the NaN that nobody wrote. */
function assertBehindUntouched(...regions: Float32Array[]): void {
  for (const { buffer, byteOffset, byteLength } of regions) {
    assert.equal(new Uint32Array(buffer, byteOffset + byteLength, 1)[0], 0xffff_ffff);
  }
}

randomTest(
  'images are unpacked as fround(fround(b * scale) - shift), every byte and every rest of eight',
  random => {
    for (const size of [1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 31, 256, 784]) {
      const memory = new KernelMemory(4 * PAGE_BYTES);
      const images = memory.u8(
        Uint8Array.from({ length: 5 * size }, (_, i) => (size === 256 ? i : random.integer(256))),
      );
      const positions = memory.u32([4, 0, 3, 3]);
      const x = memory.f32(4 * size);
      const [scale, shift] = [Math.fround(random.uniform(0.001, 0.1)), Math.fround(random.uniform(-1, 1))];
      memory.kernels.unpackImages(
        images.byteOffset,
        positions.byteOffset,
        4,
        size,
        x.byteOffset,
        scale,
        shift,
      );
      const expected = Float32Array.from({ length: 4 * size }, (_, i) => {
        const byte = images[positions[Math.floor(i / size)] * size + (i % size)];
        return Math.fround(Math.fround(byte * scale) - shift);
      });
      assertSameBits(x, expected, `images of ${size} bytes`);
      assertBehindUntouched(x);
    }
  },
);

test('relu keeps what is positive, NaN and -0, and makes the rest +0', () => {
  const values = [-1, 0, -0, 1, NaN, Infinity, -Infinity, -1e-45, 1e-45, -3.4e38, 2];
  const expected = [0, 0, -0, 1, NaN, Infinity, 0, 0, 1e-45, 0, 2];
  for (let shift = 0; shift < values.length; shift++) {
    const rotate = (list: readonly number[]) => [...list.slice(shift), ...list.slice(0, shift)];
    for (let count = 1; count <= values.length; count++) {
      const memory = new KernelMemory(PAGE_BYTES);
      const x = memory.f32(rotate(values).slice(0, count));
      memory.kernels.reluForward(x.byteOffset, count);
      assert.deepStrictEqual([...x], [...Float32Array.from(rotate(expected).slice(0, count))]);
      assertBehindUntouched(x);
    }
  }
});

test('relu passes a gradient on where its output is positive, and only there', () => {
  const outputs = [1, 0, -0, NaN, 2, Infinity, 1e-45, 0, 3];
  const gradients = [5, 6, 7, 8, NaN, -9, 10, NaN, Infinity];
  const expected = [5, 0, 0, 0, NaN, -9, 10, 0, Infinity];
  for (let count = 1; count <= outputs.length; count++) {
    const memory = new KernelMemory(PAGE_BYTES);
    const [y, dy] = [memory.f32(outputs.slice(0, count)), memory.f32(gradients.slice(0, count))];
    memory.kernels.reluBackward(y.byteOffset, dy.byteOffset, count);
    assert.deepStrictEqual([...dy], expected.slice(0, count));
    assertBehindUntouched(dy);
  }
});

for (const poolSize of [1, 2, 3]) {
  randomTest(
    `a NaN makes the maximum of its own window of ${poolSize} x ${poolSize} NaN, and no other`,
    random => {
      for (const channels of [1, 2, 3, 4, 5, 6, 9]) {
        const [height, width] = [2 * poolSize + (poolSize > 1 ? 1 : 0), 2 * poolSize];
        const size = height * width * channels;
        const healthy = random.floats(size, -1, 1);
        const outputs = 4 * channels;
        for (let at = 0; at < size; at++) {
          const memory = new KernelMemory(PAGE_BYTES);
          const [x, y, winners] = [memory.f32(healthy), memory.f32(outputs), memory.u32(outputs)];
          x[at] = NaN;
          const { kernels } = memory;
          kernels.maxPool2dForward(
            x.byteOffset,
            y.byteOffset,
            winners.byteOffset,
            1,
            height,
            width,
            channels,
            poolSize,
          );
          const row = Math.floor(at / (width * channels));
          const column = Math.floor(at / channels) % width;
          const [oy, ox, c] = [Math.floor(row / poolSize), Math.floor(column / poolSize), at % channels];
          for (let i = 0; i < outputs; i++) {
            const isHit = i === (oy * 2 + ox) * channels + c && oy < 2;
            assert.equal(Number.isNaN(y[i]), isHit, `output ${i} with NaN at ${at}`);
            assert.ok(winners[i] < poolSize ** 2, `winner of output ${i} is ${winners[i]}`);
            const [wy, wx] = [Math.floor(winners[i] / poolSize), winners[i] % poolSize];
            const [cellY, cellX] = [Math.floor(i / channels / 2), Math.floor(i / channels) % 2];
            const pixel = (cellY * poolSize + wy) * width + cellX * poolSize + wx;
            assert.ok(Object.is(y[i], x[pixel * channels + (i % channels)]), `winner of output ${i}`);
          }
          assertBehindUntouched(y);
        }
      }
    },
  );
}

test('the first of equals wins a window, +0 and -0 are equal, and its gradient goes there alone', () => {
  const memory = new KernelMemory(PAGE_BYTES);
  // Two windows of 2 x 2 next to each other, one channel: rows of four.
  const x = memory.f32([-0, 0, 3, 7, 0, -0, 7, 7]);
  const [y, winners] = [memory.f32(2), memory.u32(2)];
  const dy = memory.f32([11, 13]);
  const dx = memory.f32(8);
  const { kernels } = memory;
  kernels.maxPool2dForward(x.byteOffset, y.byteOffset, winners.byteOffset, 1, 2, 4, 1, 2);
  assert.deepStrictEqual([...y], [-0, 7]);
  // Places in the windows: of the second, the upper right is the first of three that are 7.
  assert.deepEqual([...winners], [0, 1]);
  kernels.maxPool2dBackward(dy.byteOffset, winners.byteOffset, dx.byteOffset, 1, 2, 4, 1, 2);
  assert.deepStrictEqual([...dx], [11, 0, 0, 13, 0, 0, 0, 0]);
});

for (const poolSize of [1, 2, 3, 4]) {
  randomTest(
    `windows of ${poolSize} x ${poolSize}: the maximum, its place, and where its gradient goes`,
    random => {
      for (const channels of [1, 2, 3, 4, 5, 9]) {
        for (let rest = 0; rest < poolSize; rest++) {
          const [samples, height, width] = [2, 2 * poolSize + rest, 3 * poolSize + (rest % 2)];
          const outputs = samples * 6 * channels;
          const memory = new KernelMemory(PAGE_BYTES);
          // Few different values, so that there are equals in a window.
          const values = Float32Array.from({ length: samples * height * width * channels }, () =>
            random.chance(0.5) ? random.integer(3) : random.uniform(-1, 3),
          );
          const x = memory.f32(values);
          const [y, winners] = [memory.f32(outputs), memory.u32(outputs)];
          const [dy, dx] = [memory.f32(random.floats(outputs, -1, 1)), memory.f32(x.length)];
          const expected = { y: new Float32Array(outputs), places: new Uint32Array(outputs) };
          const expectedGradient = new Float32Array(x.length);
          for (let i = 0; i < outputs; i++) {
            const [window, c] = [Math.floor(i / channels), i % channels];
            const [row, column] = [Math.floor(window / 3) % 2, window % 3];
            const at = (place: number): number => {
              const line = row * poolSize + Math.floor(place / poolSize);
              const pixel = column * poolSize + (place % poolSize);
              return ((Math.floor(window / 6) * height + line) * width + pixel) * channels + c;
            };
            const inWindow = Array.from({ length: poolSize ** 2 }, (_, place) => values[at(place)]);
            expected.y[i] = Math.max(...inWindow);
            expected.places[i] = inWindow.indexOf(expected.y[i]);
            expectedGradient[at(expected.places[i])] = dy[i];
          }
          const shape = [samples, height, width, channels, poolSize] as const;
          const { kernels } = memory;
          kernels.maxPool2dForward(x.byteOffset, y.byteOffset, winners.byteOffset, ...shape);
          assertSameBits(y, expected.y, `${channels} channels`);
          assert.deepEqual(winners, expected.places);
          kernels.maxPool2dBackward(dy.byteOffset, winners.byteOffset, dx.byteOffset, ...shape);
          assertSameBits(dx, expectedGradient, `${channels} channels: gradient`);
          assertBehindUntouched(y, dx);
        }
      }
    },
  );
}

for (const poolSize of [1, 2, 3, 4]) {
  randomTest(
    `windows of ${poolSize} x ${poolSize}: their mean, NaN if one is in it, and its gradient`,
    random => {
      for (const channels of [1, 2, 3, 4, 5, 9]) {
        for (let rest = 0; rest < poolSize; rest++) {
          const [samples, height, width] = [2, 2 * poolSize + rest, 3 * poolSize + (rest % 2)];
          const outputs = samples * 6 * channels;
          const memory = new KernelMemory(PAGE_BYTES);
          const x = memory.f32(random.floats(samples * height * width * channels, -1, 1));
          for (let i = 0; i < x.length; i++) if (random.chance(0.05)) x[i] = NaN;
          const [y, dx] = [memory.f32(outputs), memory.f32(x.length)];
          const dy = memory.f32(random.floats(outputs, -1, 1));
          const expected = new Float32Array(outputs);
          const expectedGradient = new Float32Array(x.length);
          for (let s = 0; s < samples; s++) {
            for (let row = 0; row < 2 * poolSize; row++) {
              for (let column = 0; column < 3 * poolSize; column++) {
                for (let c = 0; c < channels; c++) {
                  const from = ((s * height + row) * width + column) * channels + c;
                  const window = (s * 2 + Math.floor(row / poolSize)) * 3 + Math.floor(column / poolSize);
                  const at = window * channels + c;
                  expected[at] = Math.fround(expected[at] + x[from]);
                  expectedGradient[from] = Math.fround(dy[at] / poolSize ** 2);
                }
              }
            }
          }
          const shape = [samples, height, width, channels, poolSize] as const;
          memory.kernels.avgPool2dForward(x.byteOffset, y.byteOffset, ...shape);
          const means = expected.map(sum => sum / poolSize ** 2);
          // One quiet NaN may have another sign than the next.
          assert.deepEqual([...y], [...means], `${channels} channels`);
          memory.kernels.avgPool2dBackward(dy.byteOffset, dx.byteOffset, ...shape);
          assertSameBits(dx, expectedGradient, `${channels} channels: gradient`);
          assertBehindUntouched(y, dx);
        }
      }
    },
  );
}

randomTest('padding puts images into the middle of a value, and its gradient is what lies there', random => {
  for (const channels of [1, 2, 3, 4]) {
    for (const [top, bottom, left, right] of [
      [0, 0, 0, 0],
      [1, 1, 1, 1],
      [0, 1, 0, 1],
      [2, 3, 1, 0],
      [0, 0, 4, 5],
    ]) {
      const [samples, height, width] = [3, 1 + random.integer(4), 1 + random.integer(4)];
      const [rowSize, paddedRowSize] = [width * channels, (left + width + right) * channels];
      const paddedRows = top + height + bottom;
      const memory = new KernelMemory(PAGE_BYTES);
      const x = memory.f32(random.floats(samples * height * rowSize, -1, 1));
      const padded = memory.f32(samples * paddedRows * paddedRowSize);
      const back = memory.f32(x.length);
      const expected = new Float32Array(padded.length).fill(0.3);
      for (const [i, value] of x.entries()) {
        const [s, row] = [Math.floor(i / rowSize / height), Math.floor(i / rowSize) % height];
        expected[(s * paddedRows + top + row) * paddedRowSize + left * channels + (i % rowSize)] = value;
      }
      const sizes = [
        samples,
        height,
        rowSize,
        paddedRows,
        paddedRowSize,
        top * paddedRowSize + left * channels,
      ] as const;
      memory.kernels.padImages(x.byteOffset, padded.byteOffset, ...sizes, 0.3);
      assertSameBits(padded, expected, `${channels} channels in ${top}, ${bottom}, ${left}, ${right}`);
      memory.kernels.unpadImages(padded.byteOffset, back.byteOffset, ...sizes);
      assertSameBits(back, x, `${channels} channels out of ${top}, ${bottom}, ${left}, ${right}`);
      assertBehindUntouched(padded, back);
    }
  }
});

interface Softmax {
  readonly isWithin: number;
  readonly lossSum: number;
  readonly correct: number;
  readonly dLogits: Float32Array;
}

/** Rows of logits with a label each; the totals begin at 1.5 and 100. */
function softmax(
  rows: readonly (readonly number[])[],
  labels: readonly number[],
  withGradient = true,
  bound = lossBound(1),
): Softmax {
  const memory = new KernelMemory(4 * PAGE_BYTES);
  const classes = rows[0].length;
  const logits = memory.f32(rows.flat());
  // Labels are read at positions: here from behind, with others between.
  const held = memory.u8(labels.flatMap(label => [label, 255]).toReversed());
  const positions = memory.u32(labels.map((_, i) => 2 * (labels.length - i) - 1));
  const dLogits = memory.f32(rows.length * classes);
  const totals = new DataView(memory.memory.buffer, memory.take(16), 16);
  totals.setFloat64(0, 1.5, true);
  totals.setInt32(8, 100, true);
  const isWithin = memory.kernels.softmaxCrossEntropy(
    logits.byteOffset,
    held.byteOffset,
    positions.byteOffset,
    withGradient ? dLogits.byteOffset : 0,
    rows.length,
    classes,
    totals.byteOffset,
    memory.f64(classes).byteOffset,
    bound,
  );
  assertBehindUntouched(dLogits);
  if (!withGradient) assert.ok(dLogits.every(Number.isNaN), 'a gradient was written that nobody asked for');
  const lossSum = totals.getFloat64(0, true) - 1.5;
  return { isWithin, lossSum, correct: totals.getInt32(8, true) - 100, dLogits };
}

randomTest('softmax gives the scalar loss on its grid, the correct count and softmax - one-hot', random => {
  for (const classes of [1, 2, 3, 10, 37]) {
    const rows = Array.from({ length: 9 }, () => [...random.floats(classes, -8, 8)]);
    const labels = rows.map(() => random.integer(classes));
    const { isWithin, lossSum, correct, dLogits } = softmax(rows, labels);
    let expectedLoss = 0;
    let expectedCorrect = 0;
    const expected = rows.flatMap((row, s) => {
      const most = Math.max(...row);
      const exps = row.map(logit => exp(logit - most));
      const sum = exps.reduce((total, e) => total + e, 0);
      expectedLoss += roundLoss(log(sum) - (row[labels[s]] - most));
      if (row.indexOf(most) === labels[s]) expectedCorrect++;
      return exps.map((e, c) => e / sum - (c === labels[s] ? 1 : 0));
    });
    assert.equal(isWithin, 1);
    assert.equal(lossSum, expectedLoss);
    assert.equal(correct, expectedCorrect);
    assertSameBits(dLogits, Float32Array.from(expected), `${classes} classes`);
    const { lossSum: evaluated, correct: counted } = softmax(rows, labels, false);
    assert.deepEqual([evaluated, counted], [lossSum, correct]);
  }
});

for (const bad of [NaN, Infinity]) {
  test(`a logit that is ${bad} gives 0, in every class, for every label, in every row`, () => {
    for (const classes of [1, 2, 3, 10]) {
      for (let at = 0; at < classes; at++) {
        for (let label = 0; label < classes; label++) {
          for (let row = 0; row < 3; row++) {
            const rows = Array.from({ length: 3 }, () => Array.from({ length: classes }, (_, c) => c / 4));
            rows[row][at] = bad;
            for (const withGradient of [true, false]) {
              const { isWithin } = softmax(rows, [label, label, label], withGradient);
              assert.equal(isWithin, 0, `logit ${at} of ${classes} in row ${row}, label ${label}`);
            }
          }
        }
      }
    }
  });
}

test('-Infinity gives 0 if it is the logit of the label, or of all classes', () => {
  assert.equal(softmax([[1, -Infinity, 2]], [1]).isWithin, 0);
  assert.equal(softmax([[-Infinity, -Infinity]], [1]).isWithin, 0);
  assert.equal(softmax([[-Infinity]], [0]).isWithin, 0);
});

test('a class that is impossible and not the label costs nothing: its logit is -Infinity, its gradient 0', () => {
  const { isWithin, lossSum, correct, dLogits } = softmax([[2, -Infinity, 2]], [0]);
  assert.equal(isWithin, 1);
  assert.equal(lossSum, roundLoss(log(2)));
  assert.equal(correct, 1);
  assert.deepStrictEqual([...dLogits], [-0.5, 0, 0.5]);
});

test('a loss may reach its bound, and not one step more', () => {
  for (const samples of [1, 2 ** 17, 2 ** 20]) {
    const bound = lossBound(samples);
    const at = (loss: number): number => {
      const rows = [
        [0, loss],
        [0, 0],
      ];
      return softmax(rows, [0, 1], true, bound).isWithin;
    };
    assert.equal(at(bound), 1);
    assert.equal(at(bound + 2 ** -8), 0);
    assert.equal(at(1e30), 0);
  }
  // The softmax of huge logits does not overflow where the right class leads.
  assert.equal(softmax([[3e38, -3e38]], [0]).isWithin, 1);
});

test('a dense layer skips zeros of either sign among its inputs and gradients', () => {
  const memory = new KernelMemory(PAGE_BYTES);
  // Whatever is multiplied with a zero is NaN, so a term that is not skipped shows.
  const x = memory.f32([0, 2, -0]);
  const kernel = memory.f32([NaN, NaN, 3, 4, NaN, NaN]);
  const [bias, y] = [memory.f32([-0, 1]), memory.f32(2)];
  const { kernels } = memory;
  const list = memory.take(64);
  kernels.denseForward(x.byteOffset, kernel.byteOffset, bias.byteOffset, y.byteOffset, 1, 3, 2, list);
  assert.deepStrictEqual([...y], [6, 9]);

  const [dKernel, dBias, dy] = [memory.f32(6), memory.f32(2), memory.f32([NaN, 5])];
  const at = [x.byteOffset, dy.byteOffset, dKernel.byteOffset, dBias.byteOffset] as const;
  kernels.denseBackwardWeights(...at, 1, 3, 2, list, 1);
  assert.deepStrictEqual([...dKernel], [0, 0, NaN, 10, 0, 0]);

  const transposed = memory.f32([NaN, NaN, NaN, 1, 2, 3]);
  const dx = memory.f32(3);
  dy.set([-0, 5]);
  kernels.denseBackwardInputs(dy.byteOffset, transposed.byteOffset, dx.byteOffset, 1, 3, 2, list);
  assert.deepStrictEqual([...dx], [5, 10, 15]);
});

randomTest('packing a dense kernel transposes it, at every size around whole tiles', random => {
  for (let inputs = 1; inputs <= 13; inputs++) {
    for (let outputs = 1; outputs <= 13; outputs++) {
      const memory = new KernelMemory(PAGE_BYTES);
      const kernel = memory.f32(random.floats(inputs * outputs, -1, 1));
      const transposed = memory.f32(inputs * outputs);
      memory.kernels.packDense(kernel.byteOffset, transposed.byteOffset, inputs, outputs);
      const expected = transposed.map((_, at) => kernel[(at % inputs) * outputs + Math.floor(at / inputs)]);
      assertSameBits(transposed.slice(), expected.slice(), `${inputs} x ${outputs}`);
      assertBehindUntouched(transposed);
    }
  }
});

/** Kernel size, channels and filters. */
const packings = [
  [1, 1, 1],
  [2, 1, 3],
  [3, 2, 4],
  [5, 1, 6],
  [5, 6, 16],
  [3, 7, 5],
];

for (const poolSize of [1, 2, 3]) {
  randomTest(
    `packing a convolution for cells of ${poolSize} x ${poolSize} puts its kernels between margins it leaves alone`,
    random => {
      for (const [kernelSize, channels, filters] of packings) {
        const size = kernelSize * channels;
        const stride = 1 + random.integer(3);
        const margin = (poolSize - 1) * stride;
        const rows = kernelSize + 2 * margin;
        const rowSize = packedRowSize(channels, kernelSize, margin);
        const memory = new KernelMemory(4 * PAGE_BYTES);
        const kernel = memory.f32(random.floats(kernelSize * size * filters, -1, 1));
        const packed = memory.f32(new Float32Array(filters * rows * rowSize).fill(77));
        memory.kernels.packConv2d(
          kernel.byteOffset,
          packed.byteOffset,
          channels,
          kernelSize,
          filters,
          poolSize,
          stride,
        );
        for (const [at, value] of packed.entries()) {
          const k = (at % rowSize) - margin * channels;
          const ky = (Math.floor(at / rowSize) % rows) - margin;
          const filter = Math.floor(at / rowSize / rows);
          const isInside = k >= 0 && k < size && ky >= 0 && ky < kernelSize;
          const expected = isInside ? kernel[(ky * size + k) * filters + filter] : 77;
          assert.ok(Object.is(value, expected), `filter ${filter}, row ${ky}, ${k}`);
        }
        assertBehindUntouched(packed);
      }
    },
  );
}

randomTest('unpacking the gradient of a convolution drops what pads its patch rows', random => {
  for (const [kernelSize, channels, filters] of packings) {
    const size = kernelSize * channels;
    const padded = Math.ceil(size / 4) * 4;
    const memory = new KernelMemory(PAGE_BYTES);
    const packed = memory.f32(random.floats(filters * kernelSize * padded, -1, 1));
    const kernel = memory.f32(kernelSize * size * filters);
    memory.kernels.unpackConv2dGradient(packed.byteOffset, kernel.byteOffset, channels, kernelSize, filters);
    const expected = kernel.map((_, at) => {
      const [row, k] = [Math.floor(at / filters / size), Math.floor(at / filters) % size];
      return packed[((at % filters) * kernelSize + row) * padded + k];
    });
    assertSameBits(kernel.slice(), expected.slice(), `size ${kernelSize}, ${channels} channels`);
    assertBehindUntouched(packed, kernel);
  }
});

randomTest('the gradient of a convolution without cells is packed as its kernels are', random => {
  for (const [kernelSize, channels, filters] of packings) {
    const memory = new KernelMemory(PAGE_BYTES);
    const kernel = memory.f32(random.floats(kernelSize ** 2 * channels * filters, -1, 1));
    const packed = memory.f32(filters * kernelSize * packedRowSize(channels, kernelSize, 0));
    const back = memory.f32(kernel.length);
    const { kernels } = memory;
    kernels.packConv2d(kernel.byteOffset, packed.byteOffset, channels, kernelSize, filters, 1, 1);
    kernels.unpackConv2dGradient(packed.byteOffset, back.byteOffset, channels, kernelSize, filters);
    assertSameBits(back, kernel, 'unpacked');
    assertBehindUntouched(packed, back);
  }
});

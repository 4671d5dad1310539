// `predict`: a test image by its index, and the same image as a file in many forms.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import jpeg from 'jpeg-js';
import { loadMnist } from '#dist/coordinator/mnist.js';
import { predict, train, type Prediction } from '#dist/library/index.js';
import { pngFile } from '../support/png.js';
import { Random } from '../support/random.js';
import { cyclicLabels, dataFiles, folderWith } from '../support/idx.js';
import { tinyDataset, tinyModel } from '../support/tiny.js';

const dir = mkdtempSync(join(tmpdir(), 'lockstep-predict-'));
after(() => rmSync(dir, { recursive: true }));
const { images, labels } = loadMnist().test;
const digit = (index: number): Uint8Array => images.subarray(index * 784, (index + 1) * 784);
const run = join(dir, 'lenet5');

before(() => train({ maxSteps: 300, out: run }));

const random = new Random('photo');
let files = 0;
function fileOf(bytes: Uint8Array): string {
  const path = join(dir, `image-${files++}`);
  writeFileSync(path, bytes);
  return path;
}

/** A test image drawn smoothly, `scale` times as large, on a larger ground; `tone` makes gray values of ink from 0 to 1. */
function drawn(
  index: number,
  [width, height]: readonly [number, number],
  [scale, left, top]: readonly [number, number, number],
  tone: (ink: number, x: number, y: number) => number,
): number[] {
  const pixels = digit(index);
  const at = (x: number, y: number): number =>
    x < 0 || y < 0 || x > 27 || y > 27 ? 0 : pixels[y * 28 + x] / 255;
  return Array.from({ length: width * height }, (_, i) => {
    const [x, y] = [i % width, Math.floor(i / width)];
    const [u, v] = [(x + 0.5 - left) / scale - 0.5, (y + 0.5 - top) / scale - 0.5];
    const [column, row] = [Math.floor(u), Math.floor(v)];
    const [right, down] = [u - column, v - row];
    const upper = at(column, row) * (1 - right) + at(column + 1, row) * right;
    const lower = at(column, row + 1) * (1 - right) + at(column + 1, row + 1) * right;
    return Math.max(0, Math.min(255, Math.round(tone(upper * (1 - down) + lower * down, x, y))));
  });
}

/** Of the first images. */
const indexes = Array.from({ length: 12 }, (_, i) => i);
const byIndex: Promise<Prediction>[] = [];
function predicted(index: number): Promise<Prediction> {
  return (byIndex[index] ??= predict(run, index));
}

/** Blue ink on paper that is lit from one side, and noise. */
function photographed(ink: number, x: number, y: number): number {
  const paper = 130 + 0.25 * x + 0.2 * y;
  return paper + (60 - paper) * ink + random.uniform(-8, 8);
}

test('an index gives the label and probabilities that sum to 1', async () => {
  let right = 0;
  for (const index of indexes) {
    const prediction = await predicted(index);
    assert.equal(prediction.label, labels[index]);
    assert.equal(prediction.preparation, null);
    assert.deepEqual(prediction.pixels, digit(index));
    const { probabilities } = prediction;
    assert.equal(probabilities.length, 10);
    assert.ok(Math.abs(probabilities.reduce((a, b) => a + b) - 1) < 1e-12);
    assert.equal(prediction.class, probabilities.indexOf(Math.max(...probabilities)));
    if (prediction.class === prediction.label) right++;
  }
  assert.ok(right >= 11, `${right} of ${indexes.length}`);
});

test('a PNG of a test image, and its inverse, give the bits of its index', async () => {
  for (const index of indexes) {
    const expected = await predicted(index);
    const pixels = digit(index);
    for (const isInverted of [false, true]) {
      const samples = isInverted ? pixels.map(gray => 255 - gray) : pixels;
      const prediction = await predict(run, fileOf(pngFile({ width: 28, height: 28, samples })));
      assert.deepEqual(prediction.probabilities, expected.probabilities);
      assert.deepEqual([prediction.class, prediction.label], [expected.class, null]);
      assert.deepEqual(prediction.preparation, {
        width: 28,
        height: 28,
        isTurned: false,
        isInverted,
        isStretched: false,
        isCropped: false,
        isScaled: false,
      });
    }
  }
});

const forms: Record<string, (index: number) => Uint8Array> = {
  'five times as large': index =>
    pngFile({ width: 140, height: 140, samples: drawn(index, [140, 140], [5, 0, 0], ink => 255 * ink) }),
  'dark on light in a corner of a wide image': index =>
    pngFile({
      width: 400,
      height: 200,
      samples: drawn(index, [400, 200], [4, 280, 80], ink => 255 - 255 * ink),
    }),
  'half as large': index =>
    pngFile({ width: 14, height: 14, samples: drawn(index, [14, 14], [0.5, 0, 0], ink => 255 - 255 * ink) }),
  'black on transparent': index =>
    pngFile({
      width: 84,
      height: 84,
      color: 'grayAlpha',
      samples: drawn(index, [84, 84], [3, 0, 0], ink => 255 * ink).flatMap(alpha => [0, alpha]),
    }),
  'a photograph: blue ink, uneven light, noise, JPEG': index => {
    const gray = drawn(index, [320, 240], [6, 80, 30], photographed);
    const data = Uint8Array.from(
      gray.flatMap(value => [value * 0.9, value, Math.min(255, value * 1.2), 255]),
    );
    return jpeg.encode({ width: 320, height: 240, data }, 80).data;
  },
};

for (const [form, make] of Object.entries(forms)) {
  test(`the same class: ${form}`, async () => {
    const wrong: string[] = [];
    for (const index of indexes) {
      const expected = await predicted(index);
      const prediction = await predict(run, fileOf(make(index)));
      const { isCropped, isScaled, isInverted } = prediction.preparation!;
      assert.deepEqual([isCropped, isScaled, isInverted], [true, true, form !== 'five times as large']);
      if (prediction.class !== expected.class)
        wrong.push(`${index}: ${prediction.class}, not ${expected.class}`);
    }
    assert.deepEqual(wrong, []);
  });
}

test('as it is, an image is scaled and nothing else', async () => {
  const samples = drawn(0, [56, 56], [2, 0, 0], ink => 255 - 255 * ink);
  const { preparation, pixels } = await predict(run, fileOf(pngFile({ width: 56, height: 56, samples })), {
    asIs: true,
  });
  assert.deepEqual(preparation, {
    width: 56,
    height: 56,
    isTurned: false,
    isInverted: false,
    isStretched: false,
    isCropped: false,
    isScaled: true,
  });
  assert.equal(pixels[0], 255);
});

test('an index beyond the test set is a bad setting', async () => {
  for (const index of [-1, 10_000, 0.5, NaN]) {
    await assert.rejects(predict(run, index), {
      code: 'LOCKSTEP_BAD_SETTING',
      message: /^There is no test image .*: mnist has 10000, counted from 0\.$/,
    });
  }
});

test('what is wrong with a file is told', async () => {
  const blank = fileOf(pngFile({ width: 1, height: 1, samples: [0] }));
  await assert.rejects(predict(run, blank), {
    code: 'LOCKSTEP_IMAGE_FORMAT',
    message: /^The image shows nothing/,
  });
  await assert.rejects(predict(run, join(dir, 'none')), { code: 'LOCKSTEP_IMAGE_MISSING' });
});

test("an index counts in the run's data, or in others of its shape", async t => {
  const out = join(dir, 'five');
  const data = folderWith(t, dataFiles(cyclicLabels(30, 5), cyclicLabels(7, 5), 16));
  await train({ model: 'mlp', data, maxSteps: 2, out });
  const { label, shape, pixels } = await predict(out, 6);
  assert.deepEqual([label, shape, pixels.length], [1, { height: 16, width: 16, channels: 1 }, 256]);
  const others = folderWith(t, dataFiles(cyclicLabels(30, 5, 1), cyclicLabels(9, 5, 1), 16));
  assert.equal((await predict(out, 8, { data: others, labelOffset: 1 })).label, 3);
});

test('a run of arrays takes files without them', async () => {
  const out = join(dir, 'tiny');
  const dataset = tinyDataset();
  await train({ model: tinyModel, dataset, maxSteps: 2, out });
  const samples = Uint8Array.from({ length: 63 }, (_, i) => (i % 7 === 3 && i > 10 && i < 50 ? 255 : 0));
  const { probabilities } = await predict(out, fileOf(pngFile({ width: 7, height: 9, samples })));
  assert.equal(probabilities.length, 3);
  await assert.rejects(predict(out, 0), { code: 'LOCKSTEP_DATA_MISSING' });
  assert.equal((await predict(out, 0, { dataset })).label, dataset.test.labels[0]);
});

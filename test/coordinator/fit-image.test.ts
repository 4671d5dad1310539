// Pictures made fit for a model: when they are inverted, cropped, scaled, and where the ink goes.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fitImage, type FittedImage, type GrayImage } from '#dist/coordinator/fit-image.js';
import { loadMnist } from '#dist/coordinator/mnist.js';
import { LockstepError } from '#dist/shared/errors.js';

const size = { width: 28, height: 28 };
const { images } = loadMnist().test;
const digit = (index: number): Uint8Array => images.subarray(index * 784, (index + 1) * 784);
const inverse = (pixels: Uint8Array): Uint8Array => pixels.map(gray => 255 - gray);

function doneTo({ pixels: _pixels, ...done }: FittedImage) {
  return done;
}

/** An upright bar of `ink` on `ground`. */
function bar(
  width: number,
  height: number,
  { left, top, right, bottom }: { left: number; top: number; right: number; bottom: number },
  [ground, ink]: readonly [number, number],
): GrayImage {
  const isInk = (x: number, y: number): boolean => x >= left && x < right && y >= top && y < bottom;
  const pixels = Uint8Array.from({ length: width * height }, (_, i) =>
    isInk(i % width, Math.floor(i / width)) ? ink : ground,
  );
  return { width, height, pixels };
}

function inkOf(pixels: Uint8Array): { left: number; top: number; right: number; bottom: number } {
  const columns = [...pixels.keys()].filter(i => pixels[i] > 0).map(i => i % 28);
  const rows = [...pixels.keys()].filter(i => pixels[i] > 0).map(i => Math.floor(i / 28));
  return {
    left: Math.min(...columns),
    top: Math.min(...rows),
    right: Math.max(...columns) + 1,
    bottom: Math.max(...rows) + 1,
  };
}

test('every test image is taken as it is, and its inverse is inverted', () => {
  const none = { isInverted: false, isStretched: false, isCropped: false, isScaled: false };
  for (let index = 0; index < 2000; index++) {
    const pixels = digit(index);
    const same = fitImage({ ...size, pixels }, size);
    assert.deepEqual(same.pixels, pixels, `image ${index}`);
    assert.deepEqual(doneTo(same), none, `image ${index}`);
    const inverted = fitImage({ ...size, pixels: inverse(pixels) }, size);
    assert.deepEqual(inverted.pixels, pixels, `inverse of ${index}`);
    assert.deepEqual(doneTo(inverted), { ...none, isInverted: true }, `inverse of ${index}`);
  }
});

test('ink fills 20 of 28 pixels with its aspect kept, wherever it was and however large', () => {
  for (const [scale, left, top] of [
    [1, 3, 40],
    [3, 60, 5],
    [6, 20, 1],
  ]) {
    const box = { left, top, right: left + 10 * scale, bottom: top + 20 * scale };
    for (const grays of [
      [0, 255],
      [255, 0],
    ] as const) {
      const fitted = fitImage(bar(120, 210, box, grays), size);
      assert.deepEqual(doneTo(fitted), {
        isInverted: grays[0] === 255,
        isStretched: false,
        isCropped: true,
        isScaled: true,
      });
      // A center between two pixels goes to the center of pixel 14, so the edges cover half pixels.
      assert.deepEqual(inkOf(fitted.pixels), { left: 9, top: 4, right: 20, bottom: 25 });
      assert.equal(fitted.pixels[14 * 28 + 14], 255);
      assert.ok([127, 128].includes(fitted.pixels[14 * 28 + 9]));
    }
  }
});

test('the mean over the area that a pixel covers is exact', () => {
  // Every second column is ink, from edge to edge: 40 columns on 20 pixels.
  const width = 41;
  const pixels = Uint8Array.from({ length: width * 41 }, (_, i) => ((i % width) % 2 === 0 ? 200 : 0));
  const { pixels: fitted } = fitImage({ width, height: 41, pixels }, { width: 41, height: 82 }, true);
  assert.deepEqual(
    [...fitted.subarray(0, 41)],
    Array.from({ length: 41 }, () => 0),
    'above',
  );
  assert.deepEqual([...fitted.subarray(41 * 40, 41 * 41)], [...pixels.subarray(0, 41)]);
  const stripes = Uint8Array.from({ length: 1600 }, (_, i) => (i % 2 === 0 ? 200 : 0));
  const half = fitImage({ width: 40, height: 40, pixels: stripes }, { width: 20, height: 20 }, true);
  assert.deepEqual([...new Set(half.pixels)], [100], 'two columns each');
});

test("ink keeps inside the image even where its center of mass is far from its middle's", () => {
  const image = bar(100, 100, { left: 10, top: 10, right: 90, bottom: 12 }, [0, 255]);
  // A heavy foot under one end of a thin line.
  for (let y = 12; y < 60; y++) for (let x = 10; x < 30; x++) image.pixels[y * 100 + x] = 255;
  const { left, right } = inkOf(fitImage(image, size).pixels);
  assert.ok(left >= 0 && right <= 28 && right - left >= 20, `${left} to ${right}`);
});

test('a large image gives what a smaller one gives', () => {
  const box = { left: 300, top: 100, right: 400, bottom: 700 };
  const small = fitImage(bar(1000, 900, box, [220, 40]), size);
  const grown = Object.entries(box).map(([side, at]) => [side, 4 * at]);
  const large = fitImage(bar(4000, 3600, Object.fromEntries(grown), [220, 40]), size);
  assert.deepEqual(doneTo(large), doneTo(small));
  for (const [i, gray] of large.pixels.entries()) {
    assert.ok(Math.abs(gray - small.pixels[i]) <= 1, `pixel ${i}: ${gray}, not ${small.pixels[i]}`);
  }
  // The last of its squares are not whole.
  const plain = { width: 4097, height: 4097, pixels: new Uint8Array(4097 ** 2).fill(90) };
  assert.deepEqual([...new Set(fitImage(plain, size, true).pixels)], [90]);
});

/** A seven, cut out so closely that it touches all edges. */
function isInSeven(x: number, y: number): boolean {
  return y < 12 || (x >= 88 - y * 0.6 && x < 100 - y * 0.6);
}

test('an edge that is full of ink is not taken for ground', () => {
  const pixels = Uint8Array.from({ length: 100 * 140 }, (_, i) =>
    isInSeven(i % 100, Math.floor(i / 100)) ? 255 : 0,
  );
  const fitted = fitImage({ width: 100, height: 140, pixels }, size);
  assert.deepEqual([fitted.isInverted, fitted.isStretched], [false, false]);
  const { left, top, right, bottom } = inkOf(fitted.pixels);
  assert.ok(bottom - top >= 20 && bottom - top <= 21 && right - left >= 14 && right - left <= 16);
  const inverted = fitImage({ width: 100, height: 140, pixels: inverse(pixels) }, size);
  assert.deepEqual(inverted.pixels, fitted.pixels);
});

test('light that falls from one side and faint ink are evened out', () => {
  const image = bar(90, 120, { left: 30, top: 20, right: 50, bottom: 100 }, [0, 1]);
  for (const sign of [1, -1]) {
    const pixels = image.pixels.map((ink, i) => 120 + sign * ((i % 90) - 45) + sign * 40 * ink);
    const fitted = fitImage({ ...image, pixels }, size);
    assert.deepEqual([fitted.isInverted, fitted.isStretched], [sign < 0, true]);
    const clean = fitImage(bar(90, 120, { left: 30, top: 20, right: 50, bottom: 100 }, [0, 255]), size);
    assert.deepEqual(fitted.pixels, clean.pixels);
  }
});

test('an image that shows nothing is an error, or as it is', () => {
  for (const [width, height] of [
    [1, 1],
    [28, 28],
    [300, 2],
    [1, 50],
  ]) {
    for (const noise of [0, 5]) {
      const pixels = Uint8Array.from({ length: width * height }, (_, i) => 180 + (i % 3 === 0 ? noise : 0));
      assert.throws(
        () => fitImage({ width, height, pixels }, size),
        (error: unknown) => error instanceof LockstepError && error.code === 'LOCKSTEP_IMAGE_FORMAT',
      );
      const whole = fitImage({ width, height, pixels }, size, true);
      assert.equal(whole.pixels.length, 784);
      assert.equal(whole.isInverted, false);
    }
  }
});

test('as it is means the whole image, as large as it can be, in the middle', () => {
  const image = bar(56, 14, { left: 0, top: 0, right: 56, bottom: 14 }, [0, 90]);
  const { pixels, ...done } = fitImage(image, size, true);
  assert.deepEqual(done, { isInverted: false, isStretched: false, isCropped: false, isScaled: true });
  // 28 x 7 pixels, between 10.5 above and below.
  const rows = Array.from({ length: 28 }, (_, y) => pixels[y * 28 + 5]);
  assert.deepEqual(rows, [
    ...Array<number>(10).fill(0),
    45,
    ...Array<number>(6).fill(90),
    45,
    ...Array<number>(10).fill(0),
  ]);
});

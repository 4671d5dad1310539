// Datasets: a digest that sees every byte, and normalization against a direct computation.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { createDataset, normalizationOf, type Dataset } from '#dist/shared/dataset.js';
import { checkProperty } from '../support/property.js';

function content(): Omit<Dataset, 'digest'> {
  return {
    name: 'six',
    shape: { height: 2, width: 3, channels: 1 },
    classes: 4,
    train: {
      images: Uint8Array.from({ length: 36 }, (_, i) => 7 * i),
      labels: Uint8Array.of(0, 1, 2, 3, 0, 1),
    },
    test: { images: Uint8Array.from({ length: 12 }, (_, i) => 200 - i), labels: Uint8Array.of(3, 0) },
  };
}

test('a dataset keeps what it is made of and has a digest of 64 hexadecimal digits', () => {
  const { digest, ...rest } = createDataset(content());
  assert.deepEqual(rest, content());
  assert.match(digest, /^[\da-f]{64}$/);
});

// Computed by a separate program: SHA-256 of {"classes":4,"digests":[...],"shape":{"channels":1,"height":2,"width":3}}.
test('the digest of a small dataset never changes', () => {
  assert.equal(
    createDataset(content()).digest,
    '16f590713b352688c2cd920956ac07ecf63674f4c3b8113ac29aeeb6fddd5e74',
  );
});

test('the digest follows from the bytes, the shape and the classes, not from the name', () => {
  const { digest } = createDataset(content());
  assert.equal(createDataset(content()).digest, digest);
  assert.equal(createDataset({ ...content(), name: 'other' }).digest, digest);
});

test('one changed pixel or label of either set gives another digest', () => {
  const { digest } = createDataset(content());
  const place = fc.record({
    set: fc.constantFrom('train', 'test'),
    array: fc.constantFrom('images', 'labels'),
    at: fc.nat(),
    change: fc.integer({ min: 1, max: 255 }),
  });
  checkProperty(
    fc.property(place, ({ set, array, at, change }) => {
      const changed = content();
      const bytes = changed[set][array];
      // Labels stay below the four classes.
      bytes[at % bytes.length] ^= array === 'labels' ? (change % 3) + 1 : change;
      assert.notEqual(createDataset(changed).digest, digest);
    }),
  );
});

const six = content();
const bad = [
  [
    { train: { images: six.train.images, labels: Uint8Array.of(0, 1, 2, 4, 0, 1) } },
    /train set of six has label 4 at sample 3/,
  ],
  [
    { test: { images: six.test.images, labels: Uint8Array.of(3) } },
    /test set of six has 1 labels and 2 images/,
  ],
  [{ test: { images: new Uint8Array(), labels: new Uint8Array() } }, /test set of six is empty/],
  [
    { train: { images: new Uint8Array(), labels: new Uint8Array(2_097_153) } },
    /2097153 samples, and 2097152 are possible/,
  ],
] as const;

for (const [change, message] of bad) {
  test(`content that would train wrongly is refused: ${message.source}`, () => {
    assert.throws(() => createDataset({ ...content(), ...change }), {
      code: 'LOCKSTEP_DATA_FORMAT',
      message,
    });
  });
}

test('another shape, other classes and exchanged sets give other digests', () => {
  const digests = [
    six,
    { ...six, shape: { height: 3, width: 2, channels: 1 } },
    { ...six, shape: { height: 2, width: 1, channels: 3 } },
    { ...six, classes: 5 },
    { ...six, train: six.test, test: six.train },
    { ...six, test: { images: six.test.images.subarray(0, 6), labels: six.test.labels.subarray(0, 1) } },
  ].map(one => createDataset(one).digest);
  assert.equal(new Set(digests).size, digests.length);
});

/** Mean and variance in two passes. */
function momentsOf(values: ArrayLike<number>): { mean: number; variance: number } {
  const list = Array.from(values);
  const mean = list.reduce((sum, value) => sum + value, 0) / list.length;
  return { mean, variance: list.reduce((sum, value) => sum + (value - mean) ** 2, 0) / list.length };
}

function assertClose(actual: number, expected: number): void {
  assert.ok(Math.abs(actual - expected) <= 1e-6 * Math.abs(expected), `${actual}, expected ${expected}`);
}

test('normalization is what mean and deviation, computed directly, give', () => {
  const pixels = fc.oneof(
    fc.uint8Array({ minLength: 1, maxLength: 500 }),
    fc.uint8Array({ minLength: 1, maxLength: 500, min: 254 }),
  );
  checkProperty(
    fc.property(pixels, images => {
      const { mean, variance } = momentsOf(images);
      const deviation = variance === 0 ? 1 : Math.sqrt(variance);
      const { scale, shift } = normalizationOf(images);
      assertClose(scale, 1 / deviation);
      assertClose(shift, mean / deviation);
      assert.equal(Math.fround(scale), scale);
      assert.equal(Math.fround(shift), shift);
    }),
    { runs: 500 },
  );
});

test('normalized pixels have mean 0 and variance 1', () => {
  const images = Uint8Array.from({ length: 784 }, (_, i) => (i * i) % 251);
  const { scale, shift } = normalizationOf(images);
  const normalized = Array.from(images, pixel => Math.fround(Math.fround(pixel * scale) - shift));
  const { mean, variance } = momentsOf(normalized);
  assert.ok(Math.abs(mean) < 1e-6, `mean ${mean}`);
  assert.ok(Math.abs(variance - 1) < 1e-6, `variance ${variance}`);
});

test('normalization is the same wherever in a buffer the pixels lie', () => {
  const pixels = Array.from({ length: 203 }, (_, i) => (i % 11 < 7 ? 0 : (i * i) % 256));
  const expected = normalizationOf(Uint8Array.from(pixels));
  for (let offset = 1; offset < 8; offset++) {
    const held = new Uint8Array(pixels.length + offset).fill(255);
    held.set(pixels, offset);
    assert.deepEqual(normalizationOf(held.subarray(offset)), expected, `offset ${offset}`);
  }
});

test('so is that of a few pixels, wherever they lie and whatever their number', () => {
  for (let length = 0; length <= 9; length++) {
    const pixels = Uint8Array.from({ length }, (_, i) => (i % 3 === 1 ? 0 : 20 * i + 7));
    const { mean, variance } = momentsOf(pixels);
    const deviation = variance > 0 ? Math.sqrt(variance) : 1;
    for (let offset = 0; offset < 8; offset++) {
      const held = new Uint8Array(length + offset);
      held.set(pixels, offset);
      const { scale, shift } = normalizationOf(held.subarray(offset));
      const where = `${length} pixels at ${offset}`;
      assert.deepEqual({ scale, shift }, normalizationOf(pixels), where);
      if (length === 0) continue;
      assert.ok(Math.abs(scale * deviation - 1) < 1e-6 && Math.abs(shift * deviation - mean) < 1e-4, where);
    }
  }
});

for (const gray of [0, 1, 77, 255]) {
  test(`images of nothing but ${gray} are only shifted, to 0`, () => {
    assert.deepEqual(normalizationOf(new Uint8Array(999).fill(gray)), { scale: 1, shift: gray });
  });
}

test('a single odd pixel among ten million counts', () => {
  const images = new Uint8Array(10_000_000).fill(255);
  images[1234] = 254;
  const { scale, shift } = normalizationOf(images);
  // The variance of one deviating value among n is (n - 1) / n^2.
  const deviation = Math.sqrt(9_999_999) / 1e7;
  assert.ok(Math.abs(scale * deviation - 1) < 1e-3, `scale ${scale}`);
  assert.ok(Math.abs(shift / scale - 255) < 1e-3, `shift ${shift}`);
});

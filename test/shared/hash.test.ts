// The hash: canonical JSON, where the chain starts, and that no bit of any weight escapes it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  BLOCK_PARAMETERS,
  blockCount,
  canonicalJson,
  chainHash,
  formatHash,
  initialHash,
  sha256,
} from '#dist/shared/hash.js';
import { checkProperty } from '../support/property.js';

const ramp = (length: number) => Float32Array.from({ length }, (_, i) => i / 512 - 1);

test('canonical JSON sorts keys at every depth, keeps the order of arrays and has no white space', () => {
  assert.equal(
    canonicalJson({ b: { d: 1, c: [3, 1, 2] }, a: 'x y', B: null, 10: true, 9: 1e-8 }),
    '{"10":true,"9":1e-8,"B":null,"a":"x y","b":{"c":[3,1,2],"d":1}}',
  );
  assert.equal(canonicalJson([{ b: 1, a: 2 }]), '[{"a":2,"b":1}]');
  assert.equal(canonicalJson('"\n'), String.raw`"\"\n"`);
});

test('canonical JSON leaves out what is undefined', () => {
  assert.equal(canonicalJson({ a: undefined, b: 1 }), canonicalJson({ b: 1 }));
});

/** The same value with the keys of every object in the opposite order. */
function reversed(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(reversed);
  if (value === null || typeof value !== 'object') return value;
  const entries = Object.entries(value).map(([key, held]) => [key, reversed(held)]);
  return Object.fromEntries(entries.toReversed());
}

test('the order in which keys were set does not matter, and the text reads back as the value', () => {
  checkProperty(
    fc.property(fc.jsonValue(), value => {
      const text = canonicalJson(value);
      assert.equal(canonicalJson(reversed(value)), text);
      assert.equal(canonicalJson(JSON.parse(text)), text);
      assert.deepEqual(JSON.parse(text), JSON.parse(JSON.stringify(value)));
    }),
    { runs: 300 },
  );
});

test('the chain starts from the first 64 bits of the SHA-256 of the canonical JSON', () => {
  assert.equal(formatHash(initialHash({})), '44136fa355b3678a');
  assert.equal(formatHash(initialHash({ b: { d: true, c: null }, a: [1, 'x'] })), '800353e95fd8ae2d');
  assert.equal(sha256(''), 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855');
});

test('a hash is written as 16 hexadecimal digits', () => {
  assert.equal(formatHash(0n), '0000000000000000');
  assert.equal(formatHash(0xabcn), '0000000000000abc');
  assert.equal(formatHash(2n ** 64n - 1n), 'ffffffffffffffff');
});

test('blocks are of 512 parameters, the last one begun counts', () => {
  assert.deepEqual([0, 1, 511, 512, 513, 44_426].map(blockCount), [0, 1, 1, 1, 2, 87]);
});

// Computed by a separate program from the description.
test('the chain has the values it always had', () => {
  assert.equal(formatHash(chainHash(0n, new Float32Array(512), 1)), 'af6f1191ae26e3f6');
  assert.equal(formatHash(chainHash(0x0123456789abcdefn, ramp(1024), 7)), '0274b9d34e2b370c');
});

test('a change of any single bit of any weight changes the hash', () => {
  const weights = ramp(3 * BLOCK_PARAMETERS);
  const words = new Uint32Array(weights.buffer);
  const before = chainHash(5n, weights, 9);
  checkProperty(
    fc.property(fc.nat(weights.length - 1), fc.nat(31), (index, bit) => {
      words[index] ^= 1 << bit;
      assert.notEqual(chainHash(5n, weights, 9), before);
      words[index] ^= 1 << bit;
    }),
    { runs: 300 },
  );
  assert.equal(chainHash(5n, weights, 9), before);
});

test('flipped signs of several weights never cancel each other', () => {
  const weights = ramp(512);
  const before = chainHash(5n, weights, 1);
  const words = new Uint32Array(weights.buffer);
  checkProperty(
    fc.property(fc.uniqueArray(fc.nat(31), { minLength: 1, maxLength: 4 }), fc.nat(479), (offsets, at) => {
      for (const offset of offsets) words[at + offset] ^= 0x80000000;
      assert.notEqual(chainHash(5n, weights, 1), before);
      for (const offset of offsets) words[at + offset] ^= 0x80000000;
    }),
    { runs: 3000 },
  );
  for (const [a, b, c] of [
    [1, 8, 9],
    [501, 508, 509],
  ]) {
    const flipped = weights.map((weight, i) => (i === a || i === b || i === c ? -weight : weight));
    assert.notEqual(chainHash(5n, flipped, 1), before);
  }
});

test('the sign of a zero changes the hash', () => {
  const weights = new Float32Array(512);
  const before = chainHash(0n, weights, 1);
  weights[511] = -0;
  assert.notEqual(chainHash(0n, weights, 1), before);
});

test('the hash depends on the step, the value before it, the order of blocks and the order inside a block', () => {
  const weights = ramp(1024);
  const swappedBlocks = Float32Array.from([...weights.subarray(512), ...weights.subarray(0, 512)]);
  const hashes = [
    chainHash(1n, weights, 1),
    chainHash(1n, weights, 2),
    chainHash(100n, weights, 1),
    chainHash(100n, weights, 2),
    chainHash(1n, swappedBlocks, 1),
    chainHash(1n, weights.toReversed(), 1),
    chainHash(1n, Float32Array.from([...weights, ...new Float32Array(512)]), 1),
  ];
  // Words of one interleaved lane, and words of two lanes, in the opposite order.
  for (const [a, b] of [
    [0, 8],
    [0, 2],
    [0, 1],
  ]) {
    const swapped = weights.slice();
    [swapped[a], swapped[b]] = [swapped[b], swapped[a]];
    hashes.push(chainHash(1n, swapped, 1));
  }
  assert.equal(new Set(hashes).size, hashes.length);
});

test('the hash is of the values, wherever they lie in memory', () => {
  const weights = ramp(512);
  const shifted = new Float32Array(513);
  shifted.set(weights, 1);
  assert.equal(chainHash(3n, shifted.subarray(1), 4), chainHash(3n, weights, 4));
});

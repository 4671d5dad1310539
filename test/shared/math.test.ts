// exp, log and cos against the built-ins over dense ranges, and bits that never change.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { cosPi, exp, log } from '#dist/shared/math.js';

/** What exp and log promise relative to the true value, and cos absolutely; the built-ins are within 3e-16. */
const TOLERANCE = 1e-15;

function* points(from: number, to: number, count: number): Generator<number> {
  for (let i = 0; i < count; i++) yield from + ((to - from) * i) / (count - 1);
}

/** A double as 16 hexadecimal digits. */
function bitsOf(value: number): string {
  const view = new DataView(new ArrayBuffer(8));
  view.setFloat64(0, value);
  return view.getBigUint64(0).toString(16).padStart(16, '0');
}

function assertClose(actual: number, expected: number, allowed: number, of: string): void {
  if (Math.abs(actual - expected) <= allowed) return;
  assert.fail(`${of} is ${actual}, expected ${expected} within ${allowed}`);
}

function assertExp(x: number): void {
  assertClose(exp(x), Math.exp(x), TOLERANCE * Math.exp(x), `exp(${x})`);
}

function assertLog(x: number): void {
  assertClose(log(x), Math.log(x), TOLERANCE * Math.abs(Math.log(x)), `log(${x})`);
}

test('exp is within 1e-15 of the true value from -708 to 709', () => {
  for (const x of points(-708, 709, 300_000)) assertExp(x);
  for (const x of points(-30, 1, 300_000)) assertExp(x);
  for (const x of points(-1e-6, 1e-6, 10_001)) assertExp(x);
});

test('log is within 1e-15 of the true value for all powers of two and all significands', () => {
  for (let exponent = -1022; exponent <= 1023; exponent++) {
    for (const significand of points(1, 2 - 2 ** -52, 151)) {
      assertLog(significand * 2 ** exponent);
    }
  }
  for (const x of points(0.5, 2, 300_000)) assertLog(x);
  for (const x of points(1 - 1e-9, 1 + 1e-9, 10_001)) assertLog(x);
});

test('cosPi is within 1e-15 of the true value from 0 to 1', () => {
  for (const t of points(0, 1, 300_000))
    assertClose(cosPi(t), Math.cos(Math.PI * t), TOLERANCE, `cosPi(${t})`);
});

function isSorted(values: readonly number[]): boolean {
  return values.every((value, i) => i === 0 || values[i - 1] <= value);
}

test('exp and log never fall and cosPi never rises', () => {
  assert.ok(isSorted(Array.from(points(-708, 709, 200_000), exp)));
  assert.ok(isSorted(Array.from(points(1e-9, 10, 200_000), log)));
  assert.ok(isSorted(Array.from(points(1, 0, 200_000), cosPi)));
});

test('special values are exact', () => {
  assert.equal(exp(0), 1);
  assert.equal(exp(-0), 1);
  assert.ok(exp(-708) >= 2 ** -1022);
  assert.equal(exp(-708.0000001), 0);
  assert.equal(exp(-1e300), 0);
  assert.equal(exp(-Infinity), 0);
  assert.equal(log(1), 0);
  assert.deepEqual([cosPi(0), cosPi(0.5), cosPi(1)], [1, 0, -1]);
});

test('NaN stays NaN', () => {
  assert.deepEqual([exp(NaN), log(NaN), cosPi(NaN)], [NaN, NaN, NaN]);
});

// Each within 0.7 units in the last place of the value to 60 digits.
const goldenBits: [string, (x: number) => number, [number, string][]][] = [
  [
    'exp',
    exp,
    [
      [1, '4005bf0a8b14576a'],
      [-1, '3fd78b56362cef38'],
      [0.1, '3ff1aec7b35a00d4'],
      [-Math.LN2, '3fe0000000000000'],
      [-17.25, '3e614f49dbc5078c'],
      [-104, '368f1e6b68529e33'],
      [-708, '0017c8ab2288c9ac'],
      [88.7, '47ef4705bbffae5c'],
      [709, '7fdd422d2be5dc9b'],
    ],
  ],
  [
    'log',
    log,
    [
      [2, '3fe62e42fefa39ef'],
      [0.5, 'bfe62e42fefa39ef'],
      [0.1, 'c0026bb1bbb55515'],
      [0.9999, 'bf1a3738d2cf1cc2'],
      [1.5, '3fd9f323ecbf984c'],
      [10, '40026bb1bbb55516'],
      [12345.678, '4022d79559791e31'],
      [2 ** -1022, 'c086232bdd7abcd2'],
      [Number.MAX_VALUE, '40862e42fefa39ef'],
    ],
  ],
  [
    'cosPi',
    cosPi,
    [
      [0.1, '3fee6f0e134454ff'],
      [0.25, '3fe6a09e667f3bcd'],
      [1 / 3, '3fe0000000000000'],
      [0.4, '3fd3c6ef372fe94e'],
      [0.6, 'bfd3c6ef372fe94e'],
      [0.75, 'bfe6a09e667f3bcc'],
      [0.9, 'bfee6f0e13445500'],
    ],
  ],
];

for (const [name, compute, inputs] of goldenBits) {
  test(`${name} has the bits it always had`, () => {
    assert.deepEqual(
      inputs.map(([x]) => [x, bitsOf(compute(x))]),
      inputs,
    );
  });
}

// Comparing floating-point numbers by their bits, where -0 differs from +0.

import assert from 'node:assert/strict';

type Floats = Float32Array | Float64Array;

/** Fails at the first component whose bits differ, and says how many do. `name` names a component by its index. */
export function assertSameBits(
  actual: Floats,
  expected: Floats,
  what: string,
  name: (index: number) => string = String,
): void {
  assert.equal(actual.constructor, expected.constructor, `${what}: other types`);
  assert.equal(actual.length, expected.length, `${what}: other lengths`);
  const [a, b] = [bitsOf(actual), bitsOf(expected)];
  const wordsEach = a.length / actual.length;
  const differing = new Set<number>();
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) differing.add(Math.floor(i / wordsEach));
  if (differing.size === 0) return;
  const [first] = differing;
  assert.fail(
    `${what}: ${differing.size} of ${actual.length} components differ in their bits, the first at ${name(first)}: ` +
      `${show(actual[first])}, expected ${show(expected[first])}`,
  );
}

/** The bits of each float as one (f32) or two (f64) words. */
export function bitsOf(values: Floats): Uint32Array {
  const copy = values.slice();
  return new Uint32Array(copy.buffer, copy.byteOffset, copy.byteLength / 4);
}

export function hasSameBits(a: Floats, b: Floats): boolean {
  const [x, y] = [bitsOf(a), bitsOf(b)];
  return x.length === y.length && x.every((word, i) => word === y[i]);
}

function show(value: number): string {
  return Object.is(value, -0) ? '-0' : String(value);
}

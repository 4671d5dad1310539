// exp, log and the square root of the kernels against their scalar forms, bit for bit.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { exp, log } from '#dist/shared/math.js';
import { KernelMemory } from '../support/kernel-memory.js';
import { randomTest, type Random } from '../support/random.js';

const { kernels } = new KernelMemory(65_536);

function assertSame(name: string, x: number, actual: number, expected: number): void {
  if (!Object.is(actual, expected)) assert.fail(`${name}(${x}) = ${actual}, expected ${expected}`);
}

test('exp has the bits of the scalar form over its whole range', () => {
  // About 1.4 million arguments: the step is no binary fraction, so that all their bits vary.
  for (let x = -709.5; x <= 709; x += 0.00101) assertSame('exp', x, kernels.expOf(x), exp(x));
});

test('exp has the bits of the scalar form at special arguments', () => {
  const edges = [-709, -708.5, -708.0000001, -708, -707.9999999, -1, -0.5, 0.5, 1, 708, 709];
  const tiny = [0, -0, 5e-324, -5e-324, 1e-300, -1e-300, 1e-17, -1e-17];
  for (const x of [...edges, ...tiny, NaN, -1e9, -1e300, -Infinity]) {
    assertSame('exp', x, kernels.expOf(x), exp(x));
  }
  // Where the integer part of x / ln 2 changes, and beside it.
  for (let n = -1021; n <= 1022; n++) {
    for (const beside of [-1e-12, 0, 1e-12]) {
      const x = (n + 0.5) * Math.LN2 + beside;
      if (x <= 709) assertSame('exp', x, kernels.expOf(x), exp(x));
    }
  }
});

test('exp is 1 at 0, 0 from far below, NaN of NaN', () => {
  assert.ok(Object.is(kernels.expOf(0), 1) && Object.is(kernels.expOf(-0), 1));
  assert.ok(Object.is(kernels.expOf(-708.001), 0) && Object.is(kernels.expOf(-Infinity), 0));
  assert.ok(Number.isNaN(kernels.expOf(NaN)));
});

test('log has the bits of the scalar form from 1 to 1,000,000, where softmax needs it', () => {
  for (let x = 1; x <= 20; x += 0.0000317) assertSame('log', x, kernels.logOf(x), log(x));
  for (let x = 20; x <= 1_000_000; x *= 1.0000317) assertSame('log', x, kernels.logOf(x), log(x));
});

randomTest('log has the bits of the scalar form for every normal number', random => {
  for (let i = 0; i < 400_000; i++) {
    const x = positiveNormal(random);
    assertSame('log', x, kernels.logOf(x), log(x));
  }
});

/** The ends of the interval, and both sides of where m is halved. */
const mantissas = [1, 1 + 2 ** -52, Math.SQRT2 - 2 ** -52, Math.SQRT2, Math.SQRT2 + 2 ** -52, 2 - 2 ** -52];

test('log has the bits of the scalar form at special arguments', () => {
  for (let e = -1022; e <= 1023; e++) {
    for (const m of mantissas) {
      const x = m * 2 ** e;
      assertSame('log', x, kernels.logOf(x), log(x));
    }
  }
  for (const x of [NaN, Infinity, Number.MAX_VALUE, 2 ** -1022, 1 - 2 ** -53]) {
    assertSame('log', x, kernels.logOf(x), log(x));
  }
  assert.ok(Object.is(kernels.logOf(1), 0));
  assert.ok(Number.isNaN(kernels.logOf(NaN)));
});

randomTest('the square root is that of JavaScript: a million numbers of every magnitude', random => {
  for (let i = 0; i < 500_000; i++) {
    const x = positiveNormal(random);
    assertSame('sqrt', x, kernels.sqrtOf(x), Math.sqrt(x));
    const near = 1 + random.uniform(0, 3);
    assertSame('sqrt', near, kernels.sqrtOf(near), Math.sqrt(near));
  }
  for (const x of [0, -0, 5e-324, 2 ** -1022, Infinity, NaN, -1, Number.MAX_VALUE]) {
    assertSame('sqrt', x, kernels.sqrtOf(x), Math.sqrt(x));
  }
});

const view = new DataView(new ArrayBuffer(8));

/** A positive normal double with random bits. */
function positiveNormal(random: Random): number {
  view.setUint32(0, ((1 + random.integer(2046)) << 20) | random.integer(2 ** 20));
  view.setUint32(4, random.word());
  return view.getFloat64(0);
}

// The exact sum: equal bits for every grouping and order, and controls that show which sums do not have that.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  addLeaf,
  gradientBound,
  GRADIENT_ROUNDER,
  lossBound,
  LOSS_ROUNDER,
  roundGradient,
  roundLoss,
} from '#dist/shared/exact-sum.js';
import { checkProperty } from '../support/property.js';

/** The grid of gradients, 2^-36, and of losses, 2^-20. */
const GRADIENT_UNIT = 2 ** -36;
const LOSS_UNIT = 2 ** -20;

/** Gradient components, all f32 values, with those that are hard to add: ties of the grid, bounds, tiny ones, -0. */
function components(bound: number): fc.Arbitrary<number> {
  return fc.oneof(
    fc.integer({ min: -(2 ** 23), max: 2 ** 23 - 1 }).map(k => (2 * k + 1) * (GRADIENT_UNIT / 2)),
    fc.constantFrom(bound, -bound, 0, -0, 2 ** -149, -(2 ** -149), GRADIENT_UNIT / 2, -GRADIENT_UNIT / 2),
    fc.float({ min: -bound, max: bound, noNaN: true }),
    fc.float({ min: Math.fround(-1e-4), max: Math.fround(1e-4), noNaN: true }),
  );
}

type Add = (a: number, b: number) => number;
const plus: Add = (a, b) => a + b;

/** Sums in an arbitrary tree: each pair of picks takes two numbers out of the pool and puts their sum back. */
function sumAsTree(numbers: readonly number[], picks: readonly number[], add: Add = plus): number {
  const pool = [...numbers];
  for (let pick = 0; pool.length > 1; pick += 2) {
    const [a] = pool.splice(picks[pick % picks.length] % pool.length, 1);
    const [b] = pool.splice(picks[(pick + 1) % picks.length] % pool.length, 1);
    pool.push(add(a, b));
  }
  return pool[0];
}

/** The sum of multiples of `unit` in integers of any length, as a double. */
function integerSum(multiples: readonly number[], unit: number): number {
  return Number(multiples.reduce((sum, multiple) => sum + BigInt(multiple / unit), 0n)) * unit;
}

interface Case {
  readonly leaves: readonly number[];
  readonly picks: readonly number[];
}

/** One component of each of up to 70 leaves, and an order and grouping to add them in. */
const cases: fc.Arbitrary<Case> = fc.integer({ min: 1, max: 70 }).chain(lanes =>
  fc.record({
    leaves: fc.array(components(gradientBound(lanes)), { minLength: lanes, maxLength: lanes }),
    picks: fc.array(fc.nat(), { minLength: 2 * lanes, maxLength: 2 * lanes }),
  }),
);

/** Fails unless a tree of sums gives the bits of the sum from left to right. */
function sameForEveryTree({ leaves, picks }: Case, round: (component: number) => number, add: Add): void {
  const rounded = leaves.map(round);
  let inOrder = rounded[0];
  for (const component of rounded.slice(1)) inOrder = add(inOrder, component);
  assert.equal(sumAsTree(rounded, picks, add), inOrder);
}

test('a sum has the same bits for every grouping and every order, those of the sum in integers', () => {
  checkProperty(
    fc.property(cases, ({ leaves, picks }) => {
      const rounded = leaves.map(roundGradient);
      sameForEveryTree({ leaves, picks }, roundGradient, plus);
      assert.equal(sumAsTree(rounded, picks), integerSum(rounded, GRADIENT_UNIT));
    }),
    { runs: 1000 },
  );
});

test('every partial sum is exact where all leaves are at the bound', () => {
  for (const lanes of [1, 2, 3, 7, 8, 64, 80, 1000, 4097]) {
    for (const sign of [1, -1]) {
      const component = roundGradient(sign * gradientBound(lanes));
      assert.equal(component, sign * gradientBound(lanes));
      let sum = 0;
      for (let lane = 1; lane <= lanes; lane++) {
        sum += component;
        assert.equal(BigInt(sum / GRADIENT_UNIT), BigInt(component / GRADIENT_UNIT) * BigInt(lane));
      }
    }
  }
});

test('control: f32 addition, f64 without rounding and a grid too fine for the bound depend on the grouping', () => {
  const others: [string, (component: number) => number, Add][] = [
    ['f32', component => component, (a, b) => Math.fround(a + b)],
    ['f64 without rounding', component => component, plus],
    ['a grid too fine for the bound', component => component + 1.5 * 2 ** 8 - 1.5 * 2 ** 8, plus],
  ];
  for (const [name, round, add] of others) {
    const property = fc.property(cases, one => sameForEveryTree(one, round, add));
    assert.ok(fc.check(property, { numRuns: 1000, seed: 1 }).failed, `${name} passed`);
  }
});

test('control: an accumulator that is biased once depends on the order', () => {
  const [whole, half] = [GRADIENT_UNIT, GRADIENT_UNIT / 2];
  assert.equal(GRADIENT_ROUNDER + whole + half - GRADIENT_ROUNDER, 2 * whole);
  assert.equal(GRADIENT_ROUNDER + half + whole - GRADIENT_ROUNDER, whole);
});

test('a component is rounded to the nearest multiple of 2^-36, ties to even', () => {
  checkProperty(
    fc.property(components(32768), component => {
      const scaled = component / GRADIENT_UNIT;
      const below = Math.floor(scaled);
      const isUp = scaled - below > 0.5 || (scaled - below === 0.5 && below % 2 !== 0);
      assert.equal(roundGradient(component) / GRADIENT_UNIT, (isUp ? below + 1 : below) + 0);
    }),
    { runs: 1000 },
  );
});

test('control: rounding half up, as Math.round does, gives other values', () => {
  const roundHalfUp = (component: number) => Math.round(component / GRADIENT_UNIT) * GRADIENT_UNIT;
  assert.equal(roundGradient(GRADIENT_UNIT / 2), 0);
  assert.equal(roundHalfUp(GRADIENT_UNIT / 2), GRADIENT_UNIT);
  assert.equal(roundGradient(-1.5 * GRADIENT_UNIT), -2 * GRADIENT_UNIT);
  assert.equal(roundHalfUp(-1.5 * GRADIENT_UNIT), -GRADIENT_UNIT);
});

test('negative zero and what rounds to it become +0', () => {
  for (const component of [-0, -(2 ** -149), -GRADIENT_UNIT / 2]) {
    assert.equal(roundGradient(component), 0);
    const sum = Float64Array.of(NaN);
    addLeaf(Float32Array.of(component), sum, 1024, true);
    assert.equal(sum[0], 0);
  }
});

test('leaves added in groups, and the groups added, give the sums of all leaves in order', () => {
  const inputs = fc.integer({ min: 1, max: 20 }).chain(lanes => {
    const leaf = fc.array(components(gradientBound(lanes)), { minLength: 7, maxLength: 7 });
    return fc.record({
      leaves: fc.array(leaf, { minLength: lanes, maxLength: lanes }),
      groupOf: fc.array(fc.nat(3), { minLength: lanes, maxLength: lanes }),
    });
  });
  checkProperty(
    fc.property(inputs, ({ leaves, groupOf }) => {
      const bound = gradientBound(leaves.length);
      const inOrder = new Float64Array(7);
      const groups = Array.from({ length: 4 }, () => new Float64Array(7));
      const isBegun = [false, false, false, false];
      for (const [lane, leaf] of leaves.entries()) {
        assert.ok(addLeaf(Float32Array.from(leaf), inOrder, bound, lane === 0));
        const group = groupOf[lane];
        assert.ok(addLeaf(Float32Array.from(leaf), groups[group], bound, !isBegun[group]));
        isBegun[group] = true;
      }
      const [a, b, c, d] = groups;
      const together = a.map((_, i) => d[i] + c[i] + (b[i] + a[i]));
      assert.deepEqual(together, inOrder);
    }),
  );
});

test('the first leaf replaces whatever the sum held', () => {
  const sum = Float64Array.of(NaN, Infinity, 5);
  assert.ok(addLeaf(Float32Array.of(1, -2, 0), sum, 1024, true));
  assert.deepEqual([...sum], [1, -2, 0]);
});

test('a component that is no number or beyond the bound is found wherever it stands', () => {
  const inputs = fc.record({
    length: fc.integer({ min: 1, max: 70 }),
    at: fc.nat(),
    bad: fc.constantFrom(NaN, Infinity, -Infinity, 1e30, 1024 + 2 ** -13, -1024 - 2 ** -13),
    first: fc.boolean(),
  });
  checkProperty(
    fc.property(inputs, ({ length, at, bad, first }) => {
      const gradient = Float32Array.from({ length }, (_, i) => (i % 2 === 0 ? 1024 : -1024));
      assert.ok(addLeaf(gradient, new Float64Array(length), 1024, first));
      gradient[at % length] = bad;
      assert.ok(!addLeaf(gradient, new Float64Array(length), 1024, first));
    }),
    { runs: 500 },
  );
});

function assertBound(lanes: number): void {
  const bound = gradientBound(lanes);
  assert.equal(Math.fround(bound), bound);
  assert.ok(bound <= 32768);
  assert.ok(bound * lanes <= 65536, `${lanes} lanes`);
  assert.ok(bound >= Math.min(32768, 65536 / lanes) * (1 - 2 ** -21), `${lanes} lanes waste their bound`);
}

test('the bound of a component times the lanes is at most 2^16, and the bound is an f32 value', () => {
  for (let lanes = 1; lanes <= 5000; lanes++) assertBound(lanes);
  checkProperty(fc.property(fc.integer({ min: 1, max: 1_048_576 }), assertBound), { runs: 2000 });
  assert.deepEqual([1, 2, 4, 64].map(gradientBound), [32768, 32768, 16384, 1024]);
});

test('losses sum exactly for every grouping and order', () => {
  const bound = lossBound(1);
  const losses = fc.oneof(
    fc.double({ min: 0, max: bound, noNaN: true }),
    fc.constantFrom(0, -0, bound, LOSS_UNIT / 2, 1.5 * LOSS_UNIT),
    fc.double({ min: 0, max: 5, noNaN: true }),
  );
  const inputs = fc.record({
    leaves: fc.array(losses, { minLength: 1, maxLength: 50 }),
    picks: fc.array(fc.nat(), { minLength: 10, maxLength: 100 }),
  });
  checkProperty(
    fc.property(inputs, ({ leaves, picks }) => {
      const rounded = leaves.map(roundLoss);
      for (const [i, loss] of rounded.entries()) assert.ok(Math.abs(loss - leaves[i]) <= LOSS_UNIT / 2);
      assert.equal(sumAsTree(rounded, picks), integerSum(rounded, LOSS_UNIT));
    }),
    { runs: 500 },
  );
});

function sumOf(numbers: readonly number[]): number {
  return numbers.reduce((total, loss) => total + loss, 0);
}

function sumInPairs(numbers: readonly number[]): number {
  if (numbers.length === 1) return numbers[0];
  const half = numbers.length >> 1;
  return sumInPairs(numbers.slice(0, half)) + sumInPairs(numbers.slice(half));
}

for (const samples of [131_072, 200_000, 1_000_003]) {
  test(`the losses of ${samples} samples near their bound sum exactly, in any order and in pairs`, () => {
    const bound = lossBound(samples);
    const losses = Array.from({ length: samples }, (_, i) => roundLoss(bound - (i % 1000) * 1.7e-6));
    const exact = integerSum(losses, LOSS_UNIT);
    assert.equal(sumOf(losses), exact);
    assert.equal(sumOf(losses.toReversed()), exact);
    assert.equal(sumInPairs(losses), exact);
  });
}

test('the bound of a loss times the samples is at most 2^32, and up to 2^17 samples it is 2^15', () => {
  assert.deepEqual([1, 60_000, 131_072].map(lossBound), [32768, 32768, 32768]);
  assert.deepEqual([131_073, 1_000_000, 2_097_152].map(lossBound), [2 ** 32 / 131_073, 4294.967296, 2048]);
  assert.equal(LOSS_ROUNDER, 1.5 * 2 ** 32);
});

// The kernels of the exact sum against their scalar form and against answers known in closed form.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { addLeaf, gradientBound, roundGradient } from '#dist/shared/exact-sum.js';
import { assertSameBits } from '../support/bits.js';
import { KernelMemory } from '../support/kernel-memory.js';
import { randomTest, type Random } from '../support/random.js';

const GRID = 2 ** -36;

/** The kernel on copies of a gradient and a sum: its answer, and the sum afterwards. */
function addLeafByKernel(
  gradient: Float32Array,
  sum: Float64Array,
  bound: number,
  first: boolean,
): { isWithin: number; sum: Float64Array } {
  const memory = new KernelMemory(gradient.length * 12 + 4096);
  const { kernels } = memory;
  const [gradientView, sumView] = [memory.f32(gradient), memory.f64(sum)];
  const before = memory.bytes().slice();
  const isWithin = kernels.addLeaf(
    gradientView.byteOffset,
    sumView.byteOffset,
    gradient.length,
    bound,
    first ? 1 : 0,
  );
  const result = sumView.slice();
  sumView.set(sum);
  assert.deepEqual(memory.bytes(), before, 'something else than the sum was written');
  return { isWithin, sum: result };
}

function assertSameAsScalar(gradient: Float32Array, sum: Float64Array, bound: number, first: boolean): void {
  const actual = addLeafByKernel(gradient, sum, bound, first);
  const expected = sum.slice();
  const isWithin = addLeaf(gradient, expected, bound, first);
  assertSameBits(actual.sum, expected, first ? 'stored' : 'added');
  assert.equal(actual.isWithin, isWithin ? 1 : 0);
}

/** Gradients of every magnitude, many of them ties between two grid points. */
function gradients(count: number, random: Random): Float32Array {
  return Float32Array.from({ length: count }, () => {
    const sign = random.chance(0.5) ? 1 : -1;
    switch (random.integer(6)) {
      case 0:
        return sign > 0 ? 0 : -0;
      case 1: // A tie: an odd multiple of half the grid.
        return sign * (2 * random.integer(2 ** 22) + 1) * (GRID / 2);
      case 2: // Just beside a tie.
        return sign * ((2 * random.integer(64) + 1) * (GRID / 2) + random.uniform(-1, 1) * GRID * 2 ** -10);
      case 3: // Smaller than the grid, denormal too.
        return sign * 2 ** -random.integer(150);
      case 4:
        return sign * random.uniform(0, 2 ** 15);
      default:
        return sign * random.uniform(0, 1) * 2 ** -random.integer(30);
    }
  });
}

for (const count of [4, 8, 12, 512, 2048, 44_544]) {
  for (const first of [true, false]) {
    randomTest(
      `a leaf of ${count} components is ${first ? 'stored' : 'added'} with the bits of the scalar form`,
      random => {
        const sum = Float64Array.from(
          { length: count },
          () => random.integer(2 ** 30) * GRID * (random.chance(0.5) ? 1 : -1),
        );
        // Where a leaf is stored, nothing of what was there before may be left.
        assertSameAsScalar(gradients(count, random), first ? sum.fill(NaN) : sum, 2 ** 15, first);
      },
    );
  }
}

test('ties go to the even neighbour, on both sides of zero', () => {
  const ties = [0.5, 1.5, 2.5, 3.5, -0.5, -1.5, -2.5, -3.5];
  const gradient = Float32Array.from(ties, tie => tie * GRID);
  const { sum } = addLeafByKernel(gradient, new Float64Array(8), 1, true);
  assert.deepEqual(
    [...sum].map(value => value / GRID),
    [0, 2, 2, 4, 0, -2, -2, -4],
  );
});

test('multiples of 2^-36 are kept as they are, up to the largest', () => {
  const multiples = [1, 3, -1, -3, 2 ** 24 - 1, 1 - 2 ** 24, 2 ** 51, -(2 ** 51)];
  const { sum } = addLeafByKernel(
    Float32Array.from(multiples, multiple => multiple * GRID),
    new Float64Array(8),
    2 ** 15,
    true,
  );
  assert.deepEqual(
    [...sum].map(value => value / GRID),
    multiples,
  );
});

test('a stored zero is +0, whatever the sign of the gradient', () => {
  const gradient = Float32Array.of(-0, -1e-30, 0, 1e-30);
  const { sum } = addLeafByKernel(gradient, new Float64Array(4).fill(NaN), 1, true);
  assertSameBits(sum, new Float64Array(4), 'zeros');
});

for (const lanes of [1, 2, 3, 4, 7, 8, 64, 1000, 65_537]) {
  test(`a component may reach the bound of ${lanes} lanes, and not one step more`, () => {
    const bound = gradientBound(lanes);
    const above = new Float32Array(1);
    above[0] = bound;
    new Uint32Array(above.buffer)[0]++;
    for (let at = 0; at < 8; at++) {
      for (const sign of [1, -1]) {
        for (const first of [true, false]) {
          const gradient = new Float32Array(8);
          gradient[at] = sign * bound;
          assertSameAsScalar(gradient, new Float64Array(8), bound, first);
          assert.equal(addLeafByKernel(gradient, new Float64Array(8), bound, first).isWithin, 1);
          gradient[at] = sign * above[0];
          assert.equal(
            addLeafByKernel(gradient, new Float64Array(8), bound, first).isWithin,
            0,
            `place ${at}`,
          );
        }
      }
    }
  });
}

for (const [name, bits] of [
  ['NaN', 0x7fc00000],
  ['a negative NaN', 0xffc00000],
  ['a signalling NaN', 0x7f800001],
  ['Infinity', 0x7f800000],
  ['-Infinity', 0xff800000],
  ['a component beyond the bound', 0x3f800001],
] as const) {
  randomTest(`${name} is reported at every place, stored or added`, random => {
    for (const count of [4, 8, 20]) {
      for (let at = 0; at < count; at++) {
        for (const first of [true, false]) {
          const gradient = random.floats(count, -1, 1);
          assert.equal(addLeafByKernel(gradient, new Float64Array(count), 1, first).isWithin, 1);
          new Uint32Array(gradient.buffer)[at] = bits;
          const { isWithin } = addLeafByKernel(gradient, new Float64Array(count), 1, first);
          assert.equal(isWithin, 0, `place ${at} of ${count}`);
        }
      }
    }
  });
}

randomTest('any order and any grouping of leaves gives the same bits', random => {
  const count = 64;
  const lanes = 8;
  const bound = gradientBound(lanes);
  // As large as the bound allows, so that partial sums use every bit that they have.
  const leaves = Array.from({ length: lanes }, () => random.floats(count, -bound, bound));
  const sumOf = (order: Iterable<number>): Float64Array => {
    let sum: Float64Array = new Float64Array(count);
    let first = true;
    for (const leaf of order) {
      ({ sum } = addLeafByKernel(leaves[leaf], sum, bound, first));
      first = false;
    }
    return sum;
  };
  const whole = sumOf(leaves.keys());
  for (let i = 0; i < 20; i++) {
    const order = random.distinct(lanes, lanes);
    assertSameBits(sumOf(order), whole, 'another order');
    const cut = 1 + random.integer(lanes - 1);
    const [left, right] = [sumOf(order.subarray(0, cut)), sumOf(order.subarray(cut))];
    assertSameBits(
      left.map((value, j) => value + right[j]),
      whole,
      'two groups',
    );
  }
});

function ramp(length: number, value: (i: number) => number): number[] {
  return Array.from({ length }, (_, i) => value(i));
}

for (const threads of [1, 2, 4, 7]) {
  for (const count of [512, 1024, 2048]) {
    test(`${threads} threads reduce ${count} components to the sum of what they have`, () => {
      // Each thread has nothing, a sum, a gradient or both; for many threads a spread of the combinations.
      const combinations = threads <= 2 ? 4 ** threads : 60;
      for (let n = 0; n < combinations; n++) {
        const combination = threads <= 2 ? n : (n * 2731 + 16383) % 16384;
        const hasSum = (t: number): boolean => ((combination >> (2 * t)) & 1) === 1;
        const hasGradient = (t: number): boolean => ((combination >> (2 * t)) & 2) === 2;
        const memory = new KernelMemory(2 * (threads + 2) * (count + 64) * 8 + 16_384);
        // What a thread does not have holds the values of an earlier step, or worse.
        const parts = Array.from({ length: threads }, (_, t) =>
          memory.f64(ramp(count, i => (hasSum(t) ? (i - 100) * (t + 1) * GRID : NaN))),
        );
        // Two thirds of a grid step round up, and minus two thirds down.
        const last = Array.from({ length: threads }, (_, t) =>
          memory.f32(ramp(count, i => (i - 50 + 2 / 3) * (t + 1) * GRID)),
        );
        const addresses = parts.flatMap((part, t) => [
          hasSum(t) ? part.byteOffset : 0,
          hasGradient(t) ? last[t].byteOffset : 0,
        ]);
        const sources = memory.u32(addresses);
        const sums = memory.f64(count);
        const { kernels } = memory;
        const before = [...parts, ...last].map(values => values.slice());
        const reduceTo = (to: Float64Array, from: number, end: number): number =>
          kernels.reduce(to.byteOffset, sources.byteOffset, threads, from, end, 1);
        // Slice by slice, the last one first.
        for (let from = count - 512; from >= 0; from -= 512) {
          const at = sums.slice(0, from);
          assert.equal(reduceTo(sums, from, from + 512), 1);
          assertSameBits(sums.slice(0, from), at, 'before the slice');
        }
        const expected = Float64Array.from({ length: count }, (_, i) => {
          let sum = 0;
          for (let t = 0; t < threads; t++) {
            if (hasSum(t)) sum += parts[t][i];
            if (hasGradient(t)) sum += roundGradient(last[t][i]);
          }
          return sum;
        });
        assertSameBits(sums, expected, `combination ${combination.toString(4)}`);
        for (const [index, values] of [...parts, ...last].entries()) {
          assertSameBits(values.slice(), before[index], 'what the threads have');
        }

        const whole = memory.f64(count);
        reduceTo(whole, 0, count);
        assertSameBits(whole, sums, 'all at once');
      }
    });
  }
}

randomTest(
  'slices of every length around the pieces that are reduced at once have the bits of the scalar form',
  random => {
    const count = 3 * 1024;
    const memory = new KernelMemory(6 * count * 8);
    const parts = [0, 1].map(() => memory.f64(ramp(count, () => (random.integer(2 ** 30) - 2 ** 29) * GRID)));
    const last = [0, 1].map(() => memory.f32(gradients(count, random)));
    const sources = memory.u32([0, 1].flatMap(t => [parts[t].byteOffset, last[t].byteOffset]));
    const sums = memory.f64(count);
    for (const threads of [1, 2]) {
      const expected = parts[0].slice();
      addLeaf(last[0], expected, 2 ** 15, false);
      if (threads === 2) {
        for (let i = 0; i < count; i++) expected[i] += parts[1][i];
        addLeaf(last[1], expected, 2 ** 15, false);
      }
      for (const from of [0, 4, 1020, 1024]) {
        for (const length of [0, 4, 8, 12, 1016, 1020, 1024, 1028, 2044, 2048]) {
          sums.fill(-7);
          const to = from + length;
          assert.equal(
            memory.kernels.reduce(sums.byteOffset, sources.byteOffset, threads, from, to, 2 ** 15),
            1,
          );
          const whole = new Float64Array(count).fill(-7);
          whole.set(expected.subarray(from, to), from);
          assertSameBits(sums.slice(), whole, `${threads} threads, ${from}..${to}`);
        }
      }
    }
  },
);

test('a gradient that is NaN or beyond the bound is noticed in the slice where it is, and nowhere else', () => {
  for (const bad of [NaN, Infinity, -Infinity, 8.000001]) {
    for (const at of [0, 511, 512, 1535, 2047]) {
      const memory = new KernelMemory(65_536);
      const last = [memory.f32(new Float32Array(2048).fill(8)), memory.f32(new Float32Array(2048))];
      last[1][at] = bad;
      const part = memory.f64(new Float64Array(2048));
      const sums = memory.f64(2048);
      const sources = memory.u32([0, last[0].byteOffset, part.byteOffset, last[1].byteOffset]);
      for (let from = 0; from < 2048; from += 512) {
        const isGood = at < from || at >= from + 512;
        const result = memory.kernels.reduce(sums.byteOffset, sources.byteOffset, 2, from, from + 512, 8);
        assert.equal(result, isGood ? 1 : 0, `${bad} at ${at}, slice from ${from}`);
      }
    }
  }
});

randomTest('a slice of whole blocks touches nothing outside of it', random => {
  for (const [from, to] of [
    [0, 512],
    [512, 1024],
    [512, 2048],
    [1536, 2048],
  ]) {
    const memory = new KernelMemory(65_536 * 2);
    const parts = memory.f64(Array.from({ length: 3 * 2048 }, () => random.integer(1000)));
    const present = [0, 1, 2].flatMap(t => [parts.byteOffset + t * 2048 * 8, 0]);
    const sums = memory.f64(new Float64Array(2048).fill(-7));
    const { kernels } = memory;
    for (const sources of [memory.u32(present), memory.u32([0, 0, 0, 0, 0, 0])]) {
      const all = sources[0] !== 0;
      const before = memory.bytes().slice();
      kernels.reduce(sums.byteOffset, sources.byteOffset, 3, from, to, 1);
      for (let i = from; i < to; i++) {
        const sum = all ? parts[i] + parts[2048 + i] + parts[4096 + i] : 0;
        assert.equal(sums[i], sum);
        sums[i] = -7;
      }
      assert.deepEqual(memory.bytes(), before);
    }
  }
});

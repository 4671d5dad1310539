// The update kernels against `update` in `src/shared/optimizer.ts`, bit for bit, step after step.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  initialBetaPowers,
  STATE_FLUSH_BOUND,
  update,
  updateScalars,
  type Bank,
  type UpdateScalars,
} from '#dist/shared/optimizer.js';
import type { OptimizerConfig } from '#dist/shared/settings.js';
import { assertSameBits } from '../support/bits.js';
import { KernelMemory } from '../support/kernel-memory.js';
import { randomTest, type Random } from '../support/random.js';

const BLOCK = 512;
const COUNT = 4 * BLOCK;
const adamNumbers = { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };

const optimizers: Record<string, OptimizerConfig> = {
  'plain SGD': { name: 'sgd', momentum: 0, nesterov: false, weightDecay: 0 },
  'SGD with momentum': { name: 'sgd', momentum: 0.9, nesterov: false, weightDecay: 0 },
  'SGD with Nesterov momentum': { name: 'sgd', momentum: 0.9, nesterov: true, weightDecay: 0 },
  'SGD with weight decay': { name: 'sgd', momentum: 0, nesterov: false, weightDecay: 1e-3 },
  'SGD with everything': { name: 'sgd', momentum: 0.85, nesterov: true, weightDecay: 5e-4 },
  Adam: { name: 'adam', ...adamNumbers, weightDecay: 0 },
  'Adam with weight decay': { name: 'adam', ...adamNumbers, weightDecay: 1e-2 },
  'Adam with other numbers': { name: 'adam', beta1: 0.7, beta2: 0.95, epsilon: 1e-4, weightDecay: 0 },
  AdamW: { name: 'adamw', ...adamNumbers, weightDecay: 1e-2 },
};

/** Two banks and the sums in a shared memory, and the kernel of an optimizer on them. */
class KernelUpdate {
  readonly memory = new KernelMemory(7 * COUNT * 8 + 65_536);
  readonly banks: readonly [Bank, Bank] = [this.#bank(), this.#bank()];
  readonly sums = this.memory.f64(COUNT);
  readonly optimizer: OptimizerConfig;

  constructor(optimizer: OptimizerConfig) {
    this.optimizer = optimizer;
  }

  #bank(): Bank {
    const vector = (): Float32Array => this.memory.f32(new Float32Array(COUNT));
    return { weights: vector(), first: vector(), second: vector() };
  }

  /** Updates components from..to of bank `step` mod 2 into the other one. */
  run(step: number, scalars: UpdateScalars, samples: number, from = 0, to = COUNT): number {
    const { optimizer, sums } = this;
    const { kernels } = this.memory;
    const source = this.banks[step & 1];
    const target = this.banks[(step + 1) & 1];
    if (optimizer.name === 'sgd') {
      return kernels.updateSgd(
        source.weights.byteOffset,
        source.first.byteOffset,
        target.weights.byteOffset,
        target.first.byteOffset,
        sums.byteOffset,
        from,
        to,
        1 / samples,
        scalars.stepSize,
        optimizer.momentum,
        optimizer.nesterov ? 1 : 0,
        optimizer.weightDecay,
      );
    }
    const { beta1, beta2, epsilon, weightDecay } = optimizer;
    return kernels.updateAdam(
      source.weights.byteOffset,
      source.first.byteOffset,
      source.second.byteOffset,
      target.weights.byteOffset,
      target.first.byteOffset,
      target.second.byteOffset,
      sums.byteOffset,
      from,
      to,
      1 / samples,
      scalars.stepSize,
      beta1,
      1 - beta1,
      beta2,
      1 - beta2,
      epsilon,
      scalars.secondMomentScale,
      optimizer.name === 'adamw' ? 0 : weightDecay,
      scalars.decayFactor,
    );
  }
}

/** Sums of every magnitude: ordinary ones, exact zeros, and some so small that state falls below its bound. */
function randomSums(random: Random): Float64Array {
  return Float64Array.from({ length: COUNT }, () => {
    if (random.chance(0.1)) return 0;
    if (random.chance(0.2)) return random.uniform(-1, 1) * 2 ** -(90 + random.integer(30));
    return random.uniform(-1, 1) * 2 ** random.integer(12);
  });
}

/** Numbers around the bound, of both signs in every lane. */
function tiny(i: number): number {
  const exponent = 95 + (Math.floor(i / 8) % 12);
  return (i % 2 === 0 ? 1 : -1) * 2 ** -exponent * (i % 3 === 0 ? 1 : 1.5);
}

function copyOf({ weights, first, second }: Bank): Bank {
  return { weights: weights.slice(), first: first.slice(), second: second.slice() };
}

const rates = { schedule: 'constant', peak: 0.0173, warmupSteps: 3 } as const;

for (const [name, optimizer] of Object.entries(optimizers)) {
  randomTest(`${name}: the bits of the scalar form over ten steps`, random => {
    const kernel = new KernelUpdate(optimizer);
    kernel.banks[0].weights.set(random.floats(COUNT, -1, 1));
    const expected: [Bank, Bank] = [copyOf(kernel.banks[0]), copyOf(kernel.banks[1])];
    let powers = initialBetaPowers;
    for (let step = 0; step < 10; step++) {
      const next = updateScalars(optimizer, rates, step, powers);
      powers = next.powers;
      // A last step of an epoch is short: 1 / samples is no power of two.
      const samples = step === 4 ? 37 : 64;
      kernel.sums.set(randomSums(random));
      assert.equal(kernel.run(step, next.scalars, samples), 1);
      const to = expected[(step + 1) & 1];
      update(optimizer, next.scalars, expected[step & 1], to, kernel.sums, samples);
      const actual = kernel.banks[(step + 1) & 1];
      assertSameBits(actual.weights, to.weights, `weights after step ${step}`);
      assertSameBits(actual.first, to.first, `first state after step ${step}`);
      if (optimizer.name !== 'sgd')
        assertSameBits(actual.second, to.second, `second state after step ${step}`);
    }
  });

  randomTest(`${name}: state below 2^-100 becomes +0, with the bits of the scalar form`, random => {
    const kernel = new KernelUpdate(optimizer);
    const [from, to] = kernel.banks;
    for (let i = 0; i < COUNT; i++) {
      from.first[i] = tiny(i);
      from.second[i] = Math.abs(tiny(i));
    }
    kernel.sums.set(Float64Array.from({ length: COUNT }, () => random.uniform(-1, 1) * 2 ** -106));
    const { scalars } = updateScalars(optimizer, rates, 5, { beta1: 0.5, beta2: 0.9 });
    kernel.run(0, scalars, 1);
    const expected = copyOf(to);
    update(optimizer, scalars, from, expected, kernel.sums, 1);
    const states = optimizer.name === 'sgd' ? (['first'] as const) : (['first', 'second'] as const);
    for (const state of states) {
      assertSameBits(to[state], expected[state], state);
      const flushed = to[state].filter(value => Object.is(value, 0)).length;
      assert.ok(flushed > 0, `no ${state} state was small enough`);
      for (const value of to[state]) assert.ok(Object.is(value, 0) || Math.abs(value) >= STATE_FLUSH_BOUND);
      if (optimizer.name === 'sgd' && optimizer.momentum === 0) continue;
      assert.ok(flushed < COUNT, `every ${state} state was flushed`);
    }
  });

  randomTest(`${name}: slices give the bits of the whole and write nothing outside`, random => {
    const start = random.floats(COUNT, -1, 1);
    const sums = randomSums(random);
    const { scalars } = updateScalars(optimizer, rates, 5, { beta1: 0.5, beta2: 0.9 });
    const run = (cuts: readonly number[]): Bank => {
      const kernel = new KernelUpdate(optimizer);
      kernel.banks[0].weights.set(start);
      kernel.banks[0].first.set(start.map(value => value / 7));
      kernel.banks[0].second.set(start.map(value => value * value));
      kernel.sums.set(sums);
      const target = kernel.banks[1];
      for (let i = 1; i < cuts.length; i++) {
        const [from, to] = [cuts[i - 1], cuts[i]];
        const before = copyOf(target);
        const source = copyOf(kernel.banks[0]);
        assert.equal(kernel.run(0, scalars, 64, from, to), 1);
        for (const vector of ['weights', 'first', 'second'] as const) {
          before[vector].set(target[vector].subarray(from, to), from);
          assertSameBits(target[vector], before[vector], `${vector} outside of ${from}..${to}`);
          assertSameBits(kernel.banks[0][vector], source[vector], `${vector} that the step reads`);
        }
        assertSameBits(kernel.sums, sums, 'the sums');
      }
      return copyOf(target);
    };
    const whole = run([0, COUNT]);
    for (const cuts of [
      [0, 512, 1024, 1536, 2048],
      [0, 1536, 2048],
      [0, 512, 512, 2048],
    ]) {
      const { weights, first, second } = run(cuts);
      assertSameBits(weights, whole.weights, 'weights');
      assertSameBits(first, whole.first, 'first');
      assertSameBits(second, whole.second, 'second');
    }
  });

  randomTest(
    `${name}: slices of every length have the bits of the scalar form, and an empty one writes nothing`,
    random => {
      const kernel = new KernelUpdate(optimizer);
      const [source, target] = kernel.banks;
      source.weights.set(random.floats(COUNT, -1, 1));
      source.first.set(random.floats(COUNT, -1, 1));
      source.second.set(random.floats(COUNT, 0, 1));
      kernel.sums.set(randomSums(random));
      const { scalars } = updateScalars(optimizer, rates, 5, { beta1: 0.5, beta2: 0.9 });
      const whole = copyOf(target);
      update(optimizer, scalars, source, whole, kernel.sums, 37);
      for (const from of [0, 4, 508, 512, COUNT - 4, COUNT]) {
        for (const length of [0, 4, 8, 12, 16, 508, 516]) {
          const to = Math.min(from + length, COUNT);
          for (const vector of Object.values(target)) vector.fill(-7);
          const expected = copyOf(target);
          for (const vector of ['weights', 'first', 'second'] as const) {
            if (optimizer.name === 'sgd' && vector === 'second') continue;
            expected[vector].set(whole[vector].subarray(from, to), from);
          }
          assert.equal(kernel.run(0, scalars, 37, from, to), 1);
          for (const vector of ['weights', 'first', 'second'] as const) {
            assertSameBits(target[vector], expected[vector], `${vector} of ${from}..${to}`);
          }
        }
      }
    },
  );

  randomTest(`${name}: a weight that is no finite number is reported at every place`, random => {
    const { scalars } = updateScalars(optimizer, rates, 0, initialBetaPowers);
    for (let at = 0; at < 24; at++) {
      for (const bad of [NaN, Infinity, -Infinity]) {
        for (const where of ['weights', 'sums'] as const) {
          const kernel = new KernelUpdate(optimizer);
          kernel.banks[0].weights.set(random.floats(COUNT, -1, 1));
          kernel.sums.set(randomSums(random));
          assert.equal(kernel.run(0, scalars, 64, 0, 24), 1);
          if (where === 'weights') kernel.banks[0].weights[at] = bad;
          else kernel.sums[at] = bad;
          assert.equal(kernel.run(0, scalars, 64, 0, 24), 0, `${bad} in ${where}[${at}]`);
          // Weights behind the slice are someone else's.
          assert.equal(kernel.run(0, scalars, 64, 24, COUNT), 1);
        }
      }
    }
  });
}

test('state of exactly 2^-100 stays, the next smaller number becomes +0, of either sign', () => {
  const halves: OptimizerConfig[] = [
    { name: 'sgd', momentum: 0.5, nesterov: false, weightDecay: 0 },
    { name: 'adam', beta1: 0.5, beta2: 0.5, epsilon: 1e-8, weightDecay: 0 },
  ];
  for (const optimizer of halves) {
    const kernel = new KernelUpdate(optimizer);
    const [from, to] = kernel.banks;
    // Without a gradient all state is halved, exactly.
    kernel.sums.fill(0);
    const twice = 2 * STATE_FLUSH_BOUND;
    const below = twice * (1 - 2 ** -24);
    const states = [twice, -twice, below, -below, below, twice, -below, -twice];
    const halved = [twice / 2, -twice / 2, 0, 0, 0, twice / 2, 0, -twice / 2];
    from.first.set(states);
    from.second.set(states.map(Math.abs));
    kernel.run(0, { stepSize: 1, secondMomentScale: 1, decayFactor: 1 }, 1);
    assert.deepStrictEqual([...to.first.subarray(0, 8)], halved);
    if (optimizer.name === 'adam') {
      assert.deepStrictEqual([...to.second.subarray(0, 8)], halved.map(Math.abs));
    }
  }
});

test('a NaN weight is reported even where the gradient is zero', () => {
  // A dense layer skips inputs that are zero: such a weight passes through a leaf unseen, and is caught here.
  for (const [name, optimizer] of Object.entries(optimizers)) {
    const kernel = new KernelUpdate(optimizer);
    kernel.banks[0].weights[COUNT - 1] = NaN;
    kernel.sums.fill(0);
    const { scalars } = updateScalars(optimizer, rates, 0, initialBetaPowers);
    assert.equal(kernel.run(0, scalars, 64), 0, name);
  }
});

test('the largest finite weights are not reported, and one step beyond them is', () => {
  const optimizer = optimizers['plain SGD'];
  const kernel = new KernelUpdate(optimizer);
  const largest = Math.fround(3.4028234663852886e38);
  kernel.banks[0].weights.fill(largest);
  kernel.banks[0].weights.fill(-largest, 0, 512);
  kernel.sums.fill(0);
  const scalars = { stepSize: 1, secondMomentScale: 0, decayFactor: 1 };
  assert.equal(kernel.run(0, scalars, 1), 1);
  kernel.sums[513] = -largest / 2;
  assert.equal(kernel.run(0, scalars, 1), 0);
});

test('a gradient is the sum times 1 / samples in f64, rounded once', () => {
  const kernel = new KernelUpdate(optimizers['plain SGD']);
  kernel.sums.fill(0);
  // 1 + 2^-24 + 2^-50 rounds up to 1 + 2^-23 in f32 only if nothing was rounded before.
  kernel.sums[2] = (1 + 2 ** -24 + 2 ** -50) * 4;
  kernel.run(0, { stepSize: 1, secondMomentScale: 0, decayFactor: 1 }, 4);
  assert.equal(kernel.banks[1].weights[2], -(1 + 2 ** -23));
});

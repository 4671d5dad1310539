// The optimizers against PyTorch's update rules, worked out by hand in f64 for three steps of three weights.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  initialBetaPowers,
  STATE_FLUSH_BOUND,
  update,
  updateScalars,
  type Bank,
} from '#dist/shared/optimizer.js';
import type { LearningRateConfig, OptimizerConfig } from '#dist/shared/settings.js';

const startWeights = [0.5, -1.25, 2];
/** The mean gradients of three steps. The sums handed to `update` are these times the samples. */
const gradients = [
  [0.5, -0.25, 1],
  [-1, 0.75, 0.125],
  [0.25, 2, -0.5],
];
const SAMPLES = 4;

interface Case {
  readonly name: string;
  readonly optimizer: OptimizerConfig;
  readonly rate: number;
  /** After each step. */
  readonly weights: readonly (readonly number[])[];
  /** After the last step: momentum, or the first moment; and the second moment. */
  readonly first?: readonly number[];
  readonly second?: readonly number[];
}

const sgd = { name: 'sgd', momentum: 0, nesterov: false, weightDecay: 0 } as const;
const adam = { name: 'adam', beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0 } as const;

const cases: Case[] = [
  {
    // w - rate g
    name: 'plain SGD',
    optimizer: sgd,
    rate: 0.1,
    weights: [
      [0.45, -1.225, 1.9],
      [0.55, -1.3, 1.8875],
      [0.525, -1.5, 1.9375],
    ],
  },
  {
    // g + 0.1 w in place of g
    name: 'SGD with weight decay',
    optimizer: { ...sgd, weightDecay: 0.1 },
    rate: 0.1,
    weights: [
      [0.445, -1.2125, 1.88],
      [0.54055, -1.275375, 1.8487],
      [0.5101445, -1.46262125, 1.880213],
    ],
  },
  {
    // b = 0.9 b + g, w - rate b
    name: 'SGD with momentum',
    optimizer: { ...sgd, momentum: 0.9 },
    rate: 0.1,
    weights: [
      [0.45, -1.225, 1.9],
      [0.505, -1.2775, 1.7975],
      [0.5295, -1.52475, 1.75525],
    ],
    first: [-0.245, 2.4725, 0.4225],
  },
  {
    // b = 0.9 b + g, w - rate (g + 0.9 b)
    name: 'SGD with Nesterov momentum',
    optimizer: { ...sgd, momentum: 0.9, nesterov: true },
    rate: 0.1,
    weights: [
      [0.405, -1.2025, 1.81],
      [0.5545, -1.32475, 1.70525],
      [0.55155, -1.747275, 1.717225],
    ],
    first: [-0.245, 2.4725, 0.4225],
  },
  {
    name: 'SGD with Nesterov momentum and weight decay',
    optimizer: { ...sgd, momentum: 0.8, nesterov: true, weightDecay: 0.05 },
    rate: 0.1,
    weights: [
      [0.4055, -1.19375, 1.802],
      [0.5482505, -1.29800625, 1.692882],
      [0.5341386455, -1.67450419375, 1.697559662],
    ],
    first: [-0.170367475, 2.2873496875, 0.4607241],
  },
  {
    // m = b1 m + (1 - b1) g, v = b2 v + (1 - b2) g g, w - rate / (1 - b1^t) m / (sqrt(v) / sqrt(1 - b2^t) + eps)
    name: 'Adam',
    optimizer: adam,
    rate: 0.01,
    weights: [
      [0.4900000002, -1.2400000004, 1.9900000001],
      [0.493661035424, -1.24494189864, 1.98242776872],
      [0.495027942034, -1.25228681509, 1.98002675707],
    ],
    first: [-0.0245, 0.24725, 0.04225],
    second: [0.00131100025, 0.0046243125625, 0.001263610375],
  },
  {
    // An epsilon that matters: it is added after the bias correction.
    name: 'Adam with other betas and a large epsilon',
    optimizer: { ...adam, beta1: 0.8, beta2: 0.9, epsilon: 0.25 },
    rate: 0.05,
    weights: [
      [0.466666666667, -1.225, 1.96],
      [0.482495135672, -1.24361635179, 1.93278695504],
      [0.487699205276, -1.27594265461, 1.92719542122],
    ],
    first: [-0.046, 0.488, 0.048],
    second: [0.1165, 0.4556875, 0.10740625],
  },
  {
    // The decay enters the gradient, and so the moments.
    name: 'Adam with weight decay',
    optimizer: { ...adam, weightDecay: 0.1 },
    rate: 0.01,
    weights: [
      [0.490000000182, -1.24000000027, 1.99000000008],
      [0.493089130591, -1.24294235983, 1.98159066772],
      [0.493712753718, -1.24972051507, 1.976783005],
    ],
    first: [-0.0111091086925, 0.213535576399, 0.096175906678],
    second: [0.0012949777269, 0.00405010012776, 0.00163310041298],
  },
  {
    // The decay shrinks the weights alone: w (1 - rate decay) before the update.
    name: 'AdamW',
    optimizer: { ...adam, name: 'adamw', weightDecay: 0.1 },
    rate: 0.01,
    weights: [
      [0.4895000002, -1.2387500004, 1.9880000001],
      [0.492671535424, -1.24245314864, 1.97843976872],
      [0.493545770498, -1.24855561194, 1.9740603173],
    ],
    first: [-0.0245, 0.24725, 0.04225],
    second: [0.00131100025, 0.0046243125625, 0.001263610375],
  },
];

function constantRate(peak: number): LearningRateConfig {
  return { schedule: 'constant', peak, warmupSteps: 0 };
}

function bankOf(weights: readonly number[], first?: readonly number[], second?: readonly number[]): Bank {
  const zeros = weights.map(() => 0);
  return {
    weights: Float32Array.from(weights),
    first: Float32Array.from(first ?? zeros),
    second: Float32Array.from(second ?? zeros),
  };
}

/** One update from the state of a first step. */
function updated(optimizer: OptimizerConfig, from: Bank, sums: readonly number[], samples = SAMPLES): Bank {
  const { scalars } = updateScalars(optimizer, constantRate(0.01), 0, initialBetaPowers);
  const to = bankOf(sums.map(() => NaN));
  update(optimizer, scalars, from, to, Float64Array.from(sums), samples);
  return to;
}

/** The banks after each of the updates with `sums`. */
function train(
  optimizer: OptimizerConfig,
  rate: number,
  start: readonly number[],
  sums: readonly (readonly number[])[],
  samples: number,
): Bank[] {
  let present = bankOf(start);
  let powers = initialBetaPowers;
  return sums.map((ofStep, step) => {
    const next = updateScalars(optimizer, constantRate(rate), step, powers);
    const to = bankOf(start.map(() => NaN));
    update(optimizer, next.scalars, present, to, Float64Array.from(ofStep), samples);
    powers = next.powers;
    present = to;
    return to;
  });
}

function assertClose(actual: Float32Array, expected: readonly number[], what: string): void {
  for (const [i, value] of expected.entries()) {
    const error = Math.abs(actual[i] / value - 1);
    assert.ok(error <= 1e-6, `${what}: component ${i} is ${actual[i]}, expected ${value}`);
  }
}

for (const { name, optimizer, rate, weights, first, second } of cases) {
  test(`${name} follows the rule worked out by hand`, () => {
    const sums = gradients.map(gradient => gradient.map(component => component * SAMPLES));
    const banks = train(optimizer, rate, startWeights, sums, SAMPLES);
    for (const [step, expected] of weights.entries()) {
      assertClose(banks[step].weights, expected, `weights after step ${step + 1}`);
    }
    if (first) assertClose(banks[2].first, first, 'first');
    if (second) assertClose(banks[2].second, second, 'second');
  });
}

// Computed by a separate program that rounds to f32 after every operation, in the documented order.
const goldenBits: [OptimizerConfig, Record<keyof Bank, number[]>][] = [
  [
    { name: 'sgd', momentum: 0.9, nesterov: true, weightDecay: 0.05 },
    {
      weights: [0x3de01dba, 0xbfa8800a, 0x402b5405],
      first: [0xbe8a56a6, 0x3f65b30d, 0x3f081bf6],
      second: [NaN, NaN, NaN],
    },
  ],
  [
    { ...adam, name: 'adamw', weightDecay: 0.05 },
    {
      weights: [0x3dce738e, 0xbfa67610, 0x402b47e6],
      first: [0xbce8c514, 0x3ddbcf15, 0x3c890a5a],
      second: [0x397a5ad5, 0x3a638d7c, 0x3987406c],
    },
  ],
];

for (const [optimizer, expected] of goldenBits) {
  test(`the bits of ${optimizer.name} are those of f32 arithmetic, one rounding an operation`, () => {
    const sums = [
      [0.1, -0.7, 3.1],
      [-3.3, 2.2, 0.4],
      [0.9, 6.1, -1.7],
    ];
    const last = train(optimizer, 0.01, [0.1, -1.3, 2.7], sums, 7).at(-1)!;
    for (const part of ['weights', 'first', 'second'] as const) {
      if (part === 'second' && optimizer.name === 'sgd') continue;
      assert.deepEqual([...new Uint32Array(last[part].buffer)], expected[part], part);
    }
  });
}

test('an update reads one bank, writes the other and can be done again', () => {
  for (const { optimizer } of cases) {
    const from = bankOf(startWeights, [0.1, 0.2, -0.3], [0.1, 0.2, 0.3]);
    const once = updated(optimizer, from, [1, 2, 3]);
    assert.deepEqual(from, bankOf(startWeights, [0.1, 0.2, -0.3], [0.1, 0.2, 0.3]));
    assert.deepEqual(updated(optimizer, from, [1, 2, 3]), once);
  }
});

test('the gradient is the sum divided by the samples', () => {
  assert.deepEqual(updated(sgd, bankOf([1]), [12], 3), updated(sgd, bankOf([1]), [4], 1));
  assert.notDeepEqual(updated(sgd, bankOf([1]), [12], 3), updated(sgd, bankOf([1]), [12], 4));
});

test('the mean gradient is rounded to f32 before the decay is added', () => {
  // 1 + 2^-24 is a tie that becomes 1; with 2^-30 more it would become 1 + 2^-23.
  const decaying = { ...sgd, weightDecay: 2 ** -30 };
  assert.equal(train(decaying, 1, [1], [[1 + 2 ** -24]], 1)[0].weights[0], 0);
});

test('optimizer state below 2^-100 becomes +0, and state of 2^-100 stays', () => {
  assert.equal(STATE_FLUSH_BOUND, 2 ** -100);
  const halving = { ...sgd, momentum: 0.5 };
  const momenta = [2 ** -99, -(2 ** -99), 1.99 * 2 ** -100, -1.99 * 2 ** -100, 2 ** -148, -0];
  const weights = momenta.map(() => 1);
  const zeros = momenta.map(() => 0);
  assert.deepEqual(
    [...updated(halving, bankOf(weights, momenta), zeros).first],
    [2 ** -100, -(2 ** -100), 0, 0, 0, 0],
  );
  const halvingAdam = { ...adam, beta1: 0.5, beta2: 0.5 };
  const { first, second } = updated(halvingAdam, bankOf(weights, momenta, momenta.map(Math.abs)), zeros);
  assert.deepEqual([...first], [2 ** -100, -(2 ** -100), 0, 0, 0, 0]);
  assert.deepEqual([...second], [2 ** -100, 2 ** -100, 0, 0, 0, 0]);
});

test('a parameter without gradient and state does not move', () => {
  for (const optimizer of [sgd, { ...sgd, momentum: 0.9, nesterov: true }, adam]) {
    const { weights, first, second } = updated(optimizer, bankOf([0.3, 0]), [0, 0]);
    assert.deepEqual([...weights], [Math.fround(0.3), 0]);
    assert.deepEqual([...first, ...second].slice(0, 2), [0, 0]);
  }
});

test('a NaN in the sums reaches the weights', () => {
  for (const { name, optimizer } of cases) {
    assert.deepEqual(
      [...updated(optimizer, bankOf([1, 1]), [NaN, 0]).weights].map(Number.isNaN),
      [true, false],
      name,
    );
  }
});

test('bias corrections come from running products of the betas, handed from step to step', () => {
  let powers = initialBetaPowers;
  let [product1, product2] = [1, 1];
  for (let step = 0; step < 2000; step++) {
    const next = updateScalars(adam, constantRate(0.01), step, powers);
    product1 *= 0.9;
    product2 *= 0.999;
    powers = next.powers;
    assert.deepEqual(powers, { beta1: product1, beta2: product2 });
    assert.equal(next.scalars.stepSize, Math.fround(0.01 / (1 - product1)));
    assert.equal(next.scalars.secondMomentScale, Math.fround(1 / Math.sqrt(1 - product2)));
    assert.equal(next.scalars.decayFactor, 1);
  }
  const resumed = updateScalars(adam, constantRate(1), 0, { beta1: 0.5, beta2: 0.75 });
  assert.deepEqual(resumed.powers, { beta1: 0.45, beta2: 0.75 * 0.999 });
  assert.equal(resumed.scalars.stepSize, Math.fround(1 / 0.55));
});

test('SGD leaves the powers alone and steps by the rate of the step', () => {
  const rates: LearningRateConfig = { schedule: 'constant', peak: 1, warmupSteps: 4 };
  const powers = { beta1: 0.3, beta2: 0.4 };
  for (const [step, stepSize] of [0.25, 0.5, 0.75, 1, 1].entries()) {
    const next = updateScalars({ ...sgd, weightDecay: 0.1 }, rates, step, powers);
    assert.equal(next.scalars.stepSize, stepSize);
    assert.equal(next.scalars.decayFactor, 1);
    assert.deepEqual(next.powers, powers);
  }
});

test('AdamW decays by the rate of the step', () => {
  const rates: LearningRateConfig = { schedule: 'constant', peak: 0.5, warmupSteps: 2 };
  const adamw = { ...adam, name: 'adamw', weightDecay: 0.5 } as const;
  const factors = [0, 1, 2].map(
    step => updateScalars(adamw, rates, step, initialBetaPowers).scalars.decayFactor,
  );
  assert.deepEqual(factors, [0.875, 0.75, 0.75]);
});

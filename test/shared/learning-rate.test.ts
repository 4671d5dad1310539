// Learning rates against values computed by hand from the formulas of PyTorch's schedulers.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { learningRate } from '#dist/shared/learning-rate.js';
import type { LearningRateConfig } from '#dist/shared/settings.js';
import { checkProperty } from '../support/property.js';

interface Case {
  readonly name: string;
  readonly config: LearningRateConfig;
  readonly rates: readonly (readonly [step: number, rate: number])[];
}

const cases: Case[] = [
  {
    name: 'a constant rate is the peak at every step',
    config: { schedule: 'constant', peak: 0.3, warmupSteps: 0 },
    rates: [
      [0, 0.3],
      [1, 0.3],
      [1_000_000, 0.3],
    ],
  },
  {
    name: 'a warm-up of 4 steps rises by quarters of the peak and reaches it at its last step',
    config: { schedule: 'constant', peak: 2, warmupSteps: 4 },
    rates: [
      [0, 0.5],
      [1, 1],
      [2, 1.5],
      [3, 2],
      [4, 2],
      [99, 2],
    ],
  },
  {
    // peak (1 + cos(pi step / 8)) / 2: the end, 0, would be step 8.
    name: 'a cosine falls from the peak to where the next step would have 0',
    config: { schedule: 'cosine', peak: 1, warmupSteps: 0, totalSteps: 8 },
    rates: [
      [0, 1],
      [1, 0.961939766255643],
      [2, 0.853553390593274],
      [4, 0.5],
      [5, 0.308658283817455],
      [7, 0.0380602337443566],
    ],
  },
  {
    name: 'a cosine after a warm-up covers the steps that are left',
    config: { schedule: 'cosine', peak: 1, warmupSteps: 2, totalSteps: 10 },
    rates: [
      [0, 0.5],
      [1, 1],
      [2, 1],
      [3, 0.961939766255643],
      [6, 0.5],
      [9, 0.0380602337443566],
    ],
  },
  {
    // OneCycleLR(max_lr=1, total_steps=10, pct_start=0.3): up in steps 0 to 2, down in steps 2 to 9.
    name: 'one-cycle over 10 steps begins at peak / 25, is at the peak in step 2 and ends at peak / 250,000',
    config: { schedule: 'one-cycle', peak: 1, warmupSteps: 3, totalSteps: 10 },
    rates: [
      [0, 0.04],
      [1, 0.52],
      [2, 1],
      [3, 0.950484632013474],
      [4, 0.811745653949763],
      [5, 0.611262021936289],
      [6, 0.388741978063711],
      [7, 0.188258346050237],
      [8, 0.0495193679865263],
      [9, 4e-6],
    ],
  },
  {
    name: 'one-cycle over 30 steps with a peak of 0.004',
    config: { schedule: 'one-cycle', peak: 0.004, warmupSteps: 9, totalSteps: 30 },
    rates: [
      [0, 0.00016],
      [1, 0.000306151297578329],
      [4, 0.00208],
      [8, 0.004],
      [9, 0.00397766174180365],
      [15, 0.003000004],
      [18, 0.0021494675893321],
      [29, 1.6e-8],
    ],
  },
  {
    name: 'one-cycle without warm-up begins at the peak',
    config: { schedule: 'one-cycle', peak: 1, warmupSteps: 0, totalSteps: 3 },
    rates: [
      [0, 1],
      [1, 0.500002],
      [2, 4e-6],
    ],
  },
  {
    name: 'one-cycle of a single step is at the peak',
    config: { schedule: 'one-cycle', peak: 1, warmupSteps: 0, totalSteps: 1 },
    rates: [[0, 1]],
  },
];

for (const { name, config, rates } of cases) {
  test(name, () => {
    for (const [step, expected] of rates) {
      const rate = learningRate(config, step);
      assert.ok(
        Math.abs(rate - expected) <= 1e-13 * config.peak,
        `step ${step}: ${rate}, expected ${expected}`,
      );
    }
  });
}

test('every rate is above 0 and at most the peak, up to one rounding', () => {
  const inputs = fc
    .record({
      schedule: fc.constantFrom('constant', 'cosine', 'one-cycle'),
      peak: fc.double({ min: 1e-6, max: 10, noNaN: true }),
      totalSteps: fc.integer({ min: 1, max: 300 }),
      warmupShare: fc.double({ min: 0, max: 0.999, noNaN: true }),
    })
    .map(({ schedule, peak, totalSteps, warmupShare }) => {
      return { schedule, peak, totalSteps, warmupSteps: Math.floor(warmupShare * totalSteps) };
    });
  checkProperty(
    fc.property(inputs, config => {
      for (let step = 0; step < config.totalSteps; step++) {
        const rate = learningRate(config, step);
        assert.ok(rate > 0 && rate <= config.peak * (1 + 1e-15), `step ${step}: ${rate}`);
        if (step < config.warmupSteps && step > 0) assert.ok(rate > learningRate(config, step - 1));
      }
    }),
  );
});

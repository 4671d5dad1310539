// The schedule: which samples, when. Properties over random sizes, and examples computed by hand.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { datasetOrder, defaultLeaf, Schedule, type ScheduleOptions } from '#dist/shared/schedule.js';
import { checkProperty } from '../support/property.js';

/** Awkward sizes by hand: one sample, more lanes than samples, the whole set, short last steps, leaf 1. */
const awkward = [
  { samples: 1, batch: 1, leaf: 1 },
  { samples: 1, batch: 64, leaf: 8 },
  { samples: 7, batch: 64, leaf: 8 },
  { samples: 64, batch: 64, leaf: 8 },
  { samples: 64, batch: 64, leaf: 64 },
  { samples: 65, batch: 64, leaf: 8 },
  { samples: 63, batch: 64, leaf: 8 },
  { samples: 203, batch: 24, leaf: 3 },
  { samples: 500, batch: 500, leaf: 1 },
  { samples: 500, batch: 10, leaf: 1 },
  { samples: 997, batch: 96, leaf: 32 },
  { samples: 60_000, batch: 64, leaf: 8 },
  { samples: 60_000, batch: 60_000, leaf: 800 },
];

const randomOptions: fc.Arbitrary<ScheduleOptions> = fc
  .record({
    samples: fc.integer({ min: 1, max: 400 }),
    seed: fc.maxSafeNat(),
    lanes: fc.integer({ min: 1, max: 40 }),
    leaf: fc.integer({ min: 1, max: 30 }),
  })
  .map(({ samples, seed, lanes, leaf }) => ({ samples, seed, batch: lanes * leaf, leaf }));

/** Checks a promise on the awkward sizes and on random ones. */
function forAnyOptions(promise: (options: ScheduleOptions) => void): void {
  for (const sizes of awkward) promise({ ...sizes, seed: 1 });
  checkProperty(fc.property(randomOptions, promise));
}

function laneLengths(schedule: Schedule): number[] {
  return Array.from(
    { length: schedule.lanes },
    (_, lane) => schedule.laneStart(lane + 1) - schedule.laneStart(lane),
  );
}

/** The positions of all leaves of a step, lane after lane. */
function leaves(schedule: Schedule, step: number): number[][] {
  return Array.from({ length: schedule.lanes }, (_, lane) => [...schedule.leafPositions(step, lane)]);
}

test('every sample appears exactly once in an epoch', () => {
  forAnyOptions(options => {
    const schedule = new Schedule(options);
    const { samples, stepsPerEpoch } = schedule;
    for (const epoch of [0, 3]) {
      const seen = new Uint8Array(samples);
      let total = 0;
      for (let step = epoch * stepsPerEpoch; step < (epoch + 1) * stepsPerEpoch; step++) {
        for (const position of leaves(schedule, step).flat()) {
          seen[position]++;
          total++;
        }
      }
      assert.equal(total, samples);
      assert.ok(seen.every(times => times === 1));
    }
  });
});

test('an epoch has ceil(laneLength / leaf) steps, and only its last step has short leaves', () => {
  forAnyOptions(options => {
    const schedule = new Schedule(options);
    const { samples, lanes, leaf, stepsPerEpoch } = schedule;
    assert.equal(lanes, options.batch / options.leaf);
    assert.equal(stepsPerEpoch, Math.ceil(Math.max(...laneLengths(schedule)) / leaf));
    for (let step = 0; step < stepsPerEpoch - 1; step++) {
      assert.equal(schedule.samplesInStep(step), options.batch);
    }
    assert.equal(schedule.samplesInStep(stepsPerEpoch - 1), samples - (stepsPerEpoch - 1) * options.batch);
  });
});

test('a step has as many samples as its leaves together, at least one, the same in every epoch', () => {
  forAnyOptions(options => {
    const schedule = new Schedule(options);
    const { leaf, stepsPerEpoch } = schedule;
    for (const step of new Set([0, Math.floor(stepsPerEpoch / 2), stepsPerEpoch - 1])) {
      const lengths = leaves(schedule, step).map(positions => positions.length);
      assert.ok(lengths.every(length => length <= leaf));
      const sum = lengths.reduce((total, length) => total + length, 0);
      assert.equal(schedule.samplesInStep(step), sum);
      assert.ok(sum > 0);
      assert.equal(schedule.samplesInStep(step + 5 * stepsPerEpoch), sum);
    }
  });
});

test('lanes are consecutive slices of the order whose lengths differ by at most one', () => {
  forAnyOptions(options => {
    const schedule = new Schedule(options);
    const lengths = laneLengths(schedule);
    assert.equal(schedule.laneStart(0), 0);
    assert.equal(schedule.laneStart(schedule.lanes), options.samples);
    assert.ok(Math.max(...lengths) - Math.min(...lengths) <= 1);
    for (const step of [0, schedule.stepsPerEpoch - 1, schedule.stepsPerEpoch]) {
      for (const [lane, positions] of leaves(schedule, step).entries()) {
        assert.ok(positions.every(at => at >= schedule.laneStart(lane) && at < schedule.laneStart(lane + 1)));
      }
    }
  });
});

test('a leaf is the same whatever was asked before it', () => {
  const query = fc.record({ epoch: fc.nat(3), step: fc.nat(), lane: fc.nat() });
  checkProperty(
    fc.property(randomOptions, fc.array(query, { minLength: 2, maxLength: 20 }), (options, queries) => {
      const used = new Schedule(options);
      for (const { epoch, step, lane } of queries) {
        const at = epoch * used.stepsPerEpoch + (step % used.stepsPerEpoch);
        const positions = [...used.leafPositions(at, lane % used.lanes)];
        assert.deepEqual(positions, [...new Schedule(options).leafPositions(at, lane % used.lanes)]);
      }
    }),
  );
});

test('a batch that is not a multiple of leaf is an invariant broken', () => {
  assert.throws(() => new Schedule({ samples: 10, seed: 1, batch: 10, leaf: 4 }), RangeError);
});

/** What lane `lane` of 4 lanes of 100 samples does in an epoch: offsets into the lane. */
function laneOrder(seed: number, epoch: number, lane: number): string {
  const schedule = new Schedule({ samples: 400, seed, batch: 40, leaf: 10 });
  const steps = Array.from({ length: 10 }, (_, k) => schedule.leafPositions(epoch * 10 + k, lane));
  return steps.flatMap(positions => Array.from(positions, at => at - schedule.laneStart(lane))).join();
}

test('other epochs, other seeds and other lanes have other orders', () => {
  const orders = [
    laneOrder(1, 0, 0),
    laneOrder(1, 1, 0),
    laneOrder(1, 2, 0),
    laneOrder(2, 0, 0),
    laneOrder(1 + 2 ** 32, 0, 0),
    laneOrder(1, 0, 1),
    laneOrder(1, 1, 1),
    laneOrder(1, 0, 2),
  ];
  assert.equal(new Set(orders).size, orders.length);
  assert.equal(laneOrder(1, 2, 0), orders[2]);
});

test('the order of a dataset holds every sample once and follows from its digest', () => {
  const digits = fc.array(fc.nat(15), { minLength: 64, maxLength: 64 });
  const digest = digits.map(each => each.map(digit => digit.toString(16)).join(''));
  checkProperty(
    fc.property(digest, fc.integer({ min: 1, max: 500 }), (text, samples) => {
      const order = datasetOrder(text, samples);
      assert.deepEqual(
        [...order].toSorted((a, b) => a - b),
        Array.from({ length: samples }, (_, i) => i),
      );
      assert.deepEqual(datasetOrder(text, samples), order);
    }),
  );
});

test('another digest gives another order', () => {
  const digest = '5'.repeat(64);
  const orders = Array.from({ length: 16 }, (_, digit) =>
    datasetOrder(`${digest.slice(0, digit)}6${digest.slice(digit + 1)}`, 100).join(),
  );
  orders.push(datasetOrder(digest, 100).join());
  assert.equal(new Set(orders).size, 17);
});

// Computed by a separate program from the description: Philox 4x32-10, Fisher-Yates, streams 1 and 2.
test('the order and the leaves of a small dataset never change', () => {
  assert.deepEqual(
    [...datasetOrder('0123456789abcdef'.padEnd(64, '0'), 12)],
    [10, 11, 1, 8, 6, 3, 9, 4, 5, 2, 7, 0],
  );
  const schedule = new Schedule({ samples: 11, seed: 7, batch: 4, leaf: 2 });
  assert.deepEqual(
    Array.from({ length: 6 }, (_, step) => leaves(schedule, step)),
    [
      [
        [2, 3],
        [10, 8],
      ],
      [
        [4, 1],
        [6, 5],
      ],
      [[0], [7, 9]],
      [
        [0, 3],
        [9, 7],
      ],
      [
        [1, 2],
        [5, 10],
      ],
      [[4], [8, 6]],
    ],
  );
});

const leafExamples = [
  [1, 1],
  [7, 1],
  [8, 1],
  [16, 2],
  [32, 4],
  [64, 8],
  [100, 10],
  [128, 16],
  [256, 32],
  [512, 32],
  [4096, 64],
  [60_000, 800],
  [997, 1],
  [65_537, 1],
] as const;

for (const [batch, leaf] of leafExamples) {
  test(`the default leaf of batch ${batch} is ${leaf}`, () => {
    assert.equal(defaultLeaf(batch, 'wasm'), leaf);
  });
}

test('with tensorflow there are 4 lanes by default, of up to 64 samples', () => {
  const defaultsOf = [4, 128, 256, 1024, 60_000].map(batch => defaultLeaf(batch, 'tensorflow'));
  assert.deepEqual(defaultsOf, [1, 32, 64, 64, 800]);
});

test('the default leaf is the largest divisor of the batch within 8 lanes and max(32, batch / 64)', () => {
  for (let batch = 1; batch <= 3000; batch++) {
    const fits = (leaf: number) => batch / leaf >= 8 && leaf <= Math.max(32, batch / 64);
    const divisors = Array.from({ length: batch }, (_, i) => i + 1).filter(leaf => batch % leaf === 0);
    assert.equal(defaultLeaf(batch, 'wasm'), divisors.findLast(fits) ?? 1, `batch ${batch}`);
  }
});

test('batches of 8 or more have at least 8 lanes by default', () => {
  checkProperty(
    fc.property(fc.integer({ min: 8, max: 1_048_576 }), batch => {
      const leaf = defaultLeaf(batch, 'wasm');
      assert.equal(batch % leaf, 0);
      assert.ok(batch / leaf >= 8);
    }),
  );
});

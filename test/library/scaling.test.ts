// What follows from a sweep: statistics, rows and advice, on figures made by hand.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  advise,
  defaultWorkers,
  rowOf,
  spreadOf,
  type BenchRow,
  type Limit,
  type Measurement,
  type Spread,
} from '#dist/library/scaling.js';

test('median, low and high, of odd and even counts in any order', () => {
  assert.deepEqual(spreadOf([3]), { median: 3, low: 3, high: 3 });
  assert.deepEqual(spreadOf([9, 1, 4]), { median: 4, low: 1, high: 9 });
  assert.deepEqual(spreadOf([10, 2, 4, 1]), { median: 3, low: 1, high: 10 });
  assert.throws(() => spreadOf([]), RangeError);
});

test('workers double up to the cores', () => {
  assert.deepEqual([1, 2, 3, 4, 6, 8].map(defaultWorkers), [
    [1],
    [1, 2],
    [1, 2, 3],
    [1, 2, 4],
    [1, 2, 4, 6],
    [1, 2, 4, 8],
  ]);
});

/** 10 steps of 64 samples in `trainMs`. */
function measurement(trainMs: number, chosen: Partial<Measurement> = {}): Measurement {
  return {
    samples: 640,
    steps: 10,
    trainMs,
    timesMs: { compute: trainMs, wait: trainMs / 2, reduce: trainMs / 4, update: trainMs / 8 },
    ceilingImagesPerSecond: 20_000,
    cpuShare: 1,
    ...chosen,
  };
}

const configuration = { workers: 2, batch: 64, leaf: 8, lanes: 8 };

test('a row has rates, shares of all threads, and efficiency against one worker of the same repetition', () => {
  const alone = [measurement(80), measurement(160), measurement(320)];
  const made = rowOf(configuration, [measurement(64), measurement(80), measurement(160)], alone);
  assert.deepEqual(made.imagesPerSecond, { median: 8000, low: 4000, high: 10_000 });
  assert.deepEqual(made.stepMs, { median: 8, low: 6.4, high: 16 });
  assert.deepEqual(made.efficiency, { median: 1, low: 80 / 128, high: 1 });
  assert.deepEqual(made.shares, { compute: 0.5, wait: 0.25, reduce: 0.125, update: 0.0625, other: 0.0625 });
  assert.deepEqual(made.ceilingImagesPerSecond, { median: 20_000, low: 20_000, high: 20_000 });
  assert.deepEqual(made.shareOfCeiling, { median: 0.4, low: 0.2, high: 0.5 });
});

test('without one worker in the sweep there is no efficiency', () => {
  assert.equal(rowOf(configuration, [measurement(64)], undefined).efficiency, null);
});

interface RowFigures extends Partial<
  Pick<BenchRow, 'workers' | 'batch' | 'leaf' | 'lanes' | 'shares' | 'efficiency'>
> {
  readonly rate: number;
  readonly ofCeiling?: number;
  readonly cpuShare?: number;
}

const busyComputing = { compute: 0.95, wait: 0.02, reduce: 0.01, update: 0.01, other: 0.01 };

function exactly(value: number): Spread {
  return { median: value, low: value, high: value };
}

function row({ rate, ofCeiling = 0.97, cpuShare = 1, ...chosen }: RowFigures): BenchRow {
  return {
    workers: 1,
    batch: 64,
    leaf: 8,
    lanes: 64,
    shares: busyComputing,
    efficiency: exactly(1),
    ...chosen,
    imagesPerSecond: exactly(rate),
    stepMs: exactly(1),
    ceilingImagesPerSecond: exactly(rate / ofCeiling),
    shareOfCeiling: exactly(ofCeiling),
    cpuShare: exactly(cpuShare),
  };
}

test('where every worker helps, that is all there is to say', () => {
  const rows = [row({ rate: 100 }), row({ workers: 4, rate: 390 }), row({ workers: 2, rate: 199 })];
  assert.deepEqual(advise(rows, 4), [
    {
      batch: 64,
      leaf: 8,
      workers: 4,
      limit: null,
      text: 'More workers help up to 4, the most measured: 3.90 times the images/s of 1.',
    },
  ]);
});

interface Case {
  readonly limit: Limit;
  readonly last: RowFigures;
  readonly cores: number;
  readonly text: RegExp;
}

const waiting = { ...busyComputing, compute: 0.6, wait: 0.37 };
const updating = { ...busyComputing, compute: 0.6, reduce: 0.2, update: 0.18 };

const cases: Case[] = [
  {
    limit: 'cores',
    last: { workers: 4, rate: 198, shares: waiting },
    cores: 2,
    text: /2 cores for 4 workers/,
  },
  {
    limit: 'busy',
    last: { workers: 4, rate: 198, cpuShare: 0.5, shares: waiting },
    cores: 4,
    text: /got 50 % of the processor time/,
  },
  {
    limit: 'lanes',
    last: { workers: 8, rate: 200, lanes: 2, shares: waiting },
    cores: 8,
    text: /leaves for 2 of 8 workers.*: use a larger --batch or a smaller --leaf/,
  },
  {
    limit: 'uneven',
    last: { workers: 3, rate: 204, lanes: 4, shares: waiting },
    cores: 4,
    text: /4 lanes .* 3 workers: some compute 2 leaves of a step, others 1.* 6 lanes/,
  },
  {
    limit: 'updates',
    last: { workers: 4, rate: 180, shares: updating },
    cores: 4,
    text: /Reducing and updating take 38 % of the time: a larger --batch/,
  },
  {
    limit: 'waiting',
    last: { workers: 4, rate: 150, shares: waiting, ofCeiling: 0.5 },
    cores: 4,
    text: /wait 37 % of the time: a larger --batch/,
  },
  {
    limit: 'machine',
    last: { workers: 4, rate: 190, shares: waiting, ofCeiling: 0.95 },
    cores: 4,
    text: /Without barriers 4 workers reach 200 images\/s and 2 reach 203,/,
  },
  {
    limit: 'waiting',
    last: { workers: 4, rate: 190, shares: { ...busyComputing, compute: 0.75, wait: 0.12 }, ofCeiling: 0.5 },
    cores: 4,
    text: /Workers wait 12 % of the time, and 1 % of it passes between spans.*larger --batch/,
  },
  {
    limit: 'spans',
    last: { workers: 4, rate: 190, shares: { ...busyComputing, compute: 0.6, other: 0.36 }, ofCeiling: 0.5 },
    cores: 4,
    text: /Workers wait 2 % of the time, and 36 % of it passes between spans.*leave a core/,
  },
  {
    limit: 'noise',
    last: { workers: 4, rate: 190, ofCeiling: 0.5 },
    cores: 4,
    text: /images\/s went from 190 to 190: measure longer \(--measure-ms\)/,
  },
];

for (const { limit, last, cores, text } of cases) {
  test(`workers that do not help, and the limit is ${limit}`, () => {
    const [advice] = advise([row({ rate: 100 }), row({ workers: 2, rate: 197 }), row(last)], cores);
    assert.equal(advice.workers, 2);
    assert.equal(advice.limit, limit);
    assert.match(advice.text, /^Workers beyond 2 do not help: images\/s change by [+-]\d+ % from 2 to \d\. /);
    assert.match(advice.text, text);
  });
}

test('workers that help little have a limit too', () => {
  const efficiency = exactly(0.6);
  const rows = [
    row({ rate: 100 }),
    row({ workers: 2, rate: 120, efficiency, shares: waiting, ofCeiling: 0.6 }),
  ];
  const [advice] = advise(rows, 2);
  assert.deepEqual([advice.workers, advice.limit], [2, 'waiting']);
});

test('a number of workers that does not help ends nothing if more do', () => {
  const rates = { 1: 100, 4: 390, 6: 395, 8: 760 };
  const rows = Object.entries(rates).map(([workers, rate]) => row({ workers: Number(workers), rate }));
  const [advice] = advise(rows, 8);
  assert.deepEqual([advice.workers, advice.limit], [8, null]);
  assert.match(advice.text, /^More workers help up to 8, the most measured: 7\.60 times/);
});

test('small gains add up, and the reason is that of the row behind the last that helps', () => {
  const rates = [100, 103, 106, 106, 90];
  const rows = rates.map((rate, i) =>
    row({ workers: i + 1, rate, shares: i === 3 ? updating : waiting, ofCeiling: 0.4 }),
  );
  const [advice] = advise(rows, 8);
  assert.deepEqual([advice.workers, advice.limit], [3, 'updates']);
  assert.match(advice.text, /by \+0 % from 3 to 4\./);
});

for (const [shares, limit] of [
  [{ compute: 0.5, wait: 0.4, reduce: 0.01, update: 0.01, other: 0.08 }, 'spans'],
  [{ compute: 0.98, wait: 0, reduce: 0.01, update: 0.01, other: 0 }, 'noise'],
] as const) {
  test(`one worker far from its ceiling hears nothing of barriers: ${limit}`, () => {
    const [advice] = advise([row({ rate: 100, ofCeiling: 0.6, shares })], 4);
    assert.equal(advice.limit, limit);
    assert.match(advice.text, /^Only 1 worker was measured, at 60 % of the ceiling\. /);
    assert.doesNotMatch(advice.text, /barrier|wait/);
  });
}

test('every batch and leaf has its own advice, and one number of workers is told as such', () => {
  const rows = [
    row({ rate: 100 }),
    row({ batch: 512, leaf: 32, workers: 2, rate: 300, ofCeiling: 0.7, shares: waiting }),
    row({ workers: 2, rate: 102, lanes: 1 }),
  ];
  const [small, large] = advise(rows, 2);
  assert.deepEqual([small.batch, small.workers, small.limit], [64, 1, 'lanes']);
  assert.deepEqual([large.batch, large.leaf, large.limit], [512, 32, 'waiting']);
  assert.match(large.text, /^Only 2 workers were measured, at 70 % of the ceiling\. Workers wait 37 %/);
});

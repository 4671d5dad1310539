// `bench` as a library: its settings, and a measurement of the real pool, whose parts must add up.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { measure, steadySettings, systemMeters } from '#dist/library/bench.js';
import { bench, type BenchOptions } from '#dist/library/index.js';
import type { Clock } from '#dist/shared/clock.js';
import type { LocalNode } from '#dist/shared/node.js';
import { resolveSettings } from '#dist/shared/settings.js';
import { createTinyPool, tinyDataset, tinyJob } from '../support/tiny.js';

const bad: [BenchOptions, RegExp][] = [
  [{ workers: [] }, /workers is Array, expected a list that is not empty/],
  [{ workers: [1, 0] }, /workers\.1 is 0/],
  [{ batch: [] }, /batch/],
  [{ batch: [64, 2.5] }, /batch\.1 is 2\.5/],
  [{ leaf: [0] }, /leaf\.0 is 0/],
  [{ batch: [64, 60], leaf: [4, 8] }, /batch \(60\) must be a multiple of leaf \(8\)/],
  [{ repetitions: 0 }, /repetitions is 0/],
  [{ measureMs: 0 }, /measureMs is 0/],
  [{ warmUpMs: -1 }, /warmUpMs is -1/],
  [{ model: 'resnet50' }, /model is "resnet50"/],
  // @ts-expect-error -- not a setting
  [{ epochs: 1 }, /There is no setting epochs/],
];

const failIfMeasured = (): void => assert.fail('something was measured');

for (const [options, message] of bad) {
  test(`refused before anything is measured: ${JSON.stringify(options)}`, async () => {
    await assert.rejects(bench({ ...options, onProgress: failIfMeasured }), {
      code: 'LOCKSTEP_BAD_SETTING',
      message,
    });
  });
}

const fail = (): never => assert.fail('not part of a measurement');

/**
 * A node without threads. Time passes in it alone: 5 ms a step, of which its two threads spend 4, 3, 2 and 1 in all in
 * the four parts of a step; a race lasts as long as it should, takes 1.5 times that in processor time, and gives the
 * next of `rates`.
 */
function createFakeNode(rates: number[]) {
  let nowMs = 1000;
  let cpuMs = 77;
  let stepsDone = 0;
  const calls: string[] = [];
  const node: LocalNode = {
    threads: 2,
    spanLimit: 4,
    async train(firstStep, scalars) {
      calls.push(`train ${firstStep}-${firstStep + scalars.length}`);
      nowMs += 5 * scalars.length;
      stepsDone += scalars.length;
      return scalars.map(() => ({ lossSum: 1, correct: 1, samples: 10, hash: 0n }));
    },
    async race(firstStep, scalars, durationMs) {
      calls.push(`race ${firstStep}-${firstStep + scalars.length} for ${durationMs}`);
      nowMs += durationMs;
      cpuMs += 1.5 * durationMs;
      return rates.shift() ?? fail();
    },
    reports: () =>
      [0.25, 0.75].map((part, thread) => ({
        thread,
        leaves: stepsDone,
        busyMs: 7 * part * stepsDone,
        computeMs: 4 * part * stepsDone,
        waitMs: 3 * part * stepsDone,
        reduceMs: 2 * part * stepsDone,
        updateMs: part * stepsDone,
      })),
    compute: fail,
    update: fail,
    weights: fail,
    evaluate: fail,
    cut: fail,
    state: fail,
    close: fail,
  };
  const clock: Clock = { nowMs: () => nowMs, every: fail, after: fail };
  return { node, calls, meters: { clock, processorMs: () => cpuMs } };
}

function fourStepSpans(from: number, to: number): string[] {
  return Array.from({ length: (to - from) / 4 }, (_, i) => `train ${from + 4 * i}-${from + 4 * i + 4}`);
}

test('a measurement warms up, takes bursts of training and of the ceiling in turns, and adds them up', async () => {
  const { node, calls, meters } = createFakeNode([99_999, 1000, 0, 0, 3000]);
  const measured = await measure(node, tinyJob(), meters, 4, { warmUpMs: 100, measureMs: 300 });
  // Two bursts of 150 ms; a span takes 4 steps and 20 ms, so a burst of training takes 160.
  assert.deepEqual(measured, {
    samples: 640,
    steps: 64,
    trainMs: 320,
    timesMs: { compute: 256, wait: 192, reduce: 128, update: 64 },
    ceilingImagesPerSecond: 2000,
    // Of two threads on four cores.
    cpuShare: 0.75,
  });
  assert.deepEqual(calls, [
    'train 0-1',
    ...fourStepSpans(1, 21),
    'race 21-25 for 100',
    ...fourStepSpans(21, 53),
    'race 53-57 for 150',
    ...fourStepSpans(53, 85),
    'race 85-89 for 150',
    'race 85-89 for 300',
    'race 85-89 for 600',
  ]);
});

test('the processor time of the process is read in milliseconds', () => {
  const before = process.cpuUsage();
  const readMs = systemMeters.processorMs();
  const after = process.cpuUsage();
  assert.ok((before.user + before.system) / 1000 <= readMs && readMs <= (after.user + after.system) / 1000);
});

test('the processor time that threads can use is bounded by lanes and cores', async () => {
  for (const [job, cores] of [
    [tinyJob({ batch: 3, leaf: 3 }), 4],
    [tinyJob(), 1],
  ] as const) {
    const { node, meters } = createFakeNode([1000]);
    const { cpuShare } = await measure(node, job, meters, cores, { warmUpMs: 0, measureMs: 10 });
    assert.equal(cpuShare, 1.5);
  }
});

test('a ceiling in which no thread ever gets a leaf done ends the measurement', async () => {
  const { node, meters } = createFakeNode(Array<number>(100).fill(0));
  await assert.rejects(measure(node, tinyJob(), meters, 2, { warmUpMs: 0, measureMs: 10 }), {
    code: 'LOCKSTEP_BAD_SETTING',
    message: /measureMs is 10, .* 8 bursts of the ceiling, the last 1280 ms long/,
  });
});

test('the learning rate is that of train, constant, and shrinks with a batch below the default', () => {
  const rates = [8, 128, 512].map(size => steadySettings({ model: 'mlp', batch: size }).lr);
  const { lr } = resolveSettings({ model: 'mlp' });
  assert.deepEqual(rates, [lr / 16, lr, lr]);
  assert.equal(steadySettings({}).lrSchedule, 'constant');
});

test('a measurement counts whole steps, and the times of its threads fit into the time of training', async () => {
  const dataset = tinyDataset();
  const job = tinyJob({ lrSchedule: 'constant', batch: 14, leaf: 1 }, dataset);
  const node = await createTinyPool({ job, dataset, threads: 2 });
  try {
    const { samples, steps, trainMs, timesMs, ceilingImagesPerSecond, cpuShare } = await measure(
      node,
      job,
      systemMeters,
      2,
      { warmUpMs: 20, measureMs: 400 },
    );
    // 203 samples are 14 lanes of 14 or 15: steps of 14 samples, and one of 7 an epoch.
    assert.ok(samples > 14 * 0.8 * steps && samples <= 14 * steps);
    assert.ok(trainMs >= 400 && ceilingImagesPerSecond > 0 && cpuShare > 0.01 && cpuShare < 3);
    const { compute, wait, reduce, update } = timesMs;
    assert.ok(Math.min(compute, wait, reduce, update) > 0);
    assert.ok(compute + wait + reduce + update <= 2 * trainMs);
  } finally {
    await node.close();
  }
});

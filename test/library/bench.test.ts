// `bench` as a library: its settings, and a measurement of the real pool, whose parts must add up.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { measure } from '#dist/library/bench.js';
import { bench, type BenchOptions } from '#dist/library/index.js';
import { systemClock } from '#dist/shared/clock.js';
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

test('a measurement counts whole steps, and the times of its threads fit into the time of training', async () => {
  const dataset = tinyDataset();
  const job = tinyJob({ lrSchedule: 'constant', batch: 14, leaf: 1 }, dataset);
  const node = await createTinyPool({ job, dataset, threads: 2 });
  try {
    const { samples, steps, trainMs, times, ceilingImagesPerSecond, cpuShare } = await measure(
      node,
      job,
      systemClock,
      2,
      { warmUpMs: 20, measureMs: 400 },
    );
    // 203 samples are 14 lanes of 14 or 15: steps of 14 samples, and one of 7 an epoch.
    assert.ok(samples > 14 * 0.8 * steps && samples <= 14 * steps);
    assert.ok(trainMs >= 400 && ceilingImagesPerSecond > 0 && cpuShare > 0);
    const { compute, wait, reduce, update } = times;
    assert.ok(Math.min(compute, wait, reduce, update) > 0);
    assert.ok(compute + wait + reduce + update <= 2 * trainMs);
  } finally {
    await node.close();
  }
});

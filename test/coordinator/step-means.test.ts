// The steps of a run, read from its metrics as means of which a figure can be drawn.

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { readStepMeans } from '#dist/coordinator/metrics-file.js';
import { inTemporaryFolder } from '../support/cli.js';

const step = (n: number, changed: object = {}) =>
  JSON.stringify({
    type: 'step',
    step: n,
    epoch: 1,
    learningRate: n / 100,
    loss: n,
    ...changed,
  });
const epoch = JSON.stringify({ type: 'epoch', step: 2, epoch: 1, testLoss: 9 });

function read(lines: readonly string[], steps: number, most: number) {
  return inTemporaryFolder(async dir => {
    writeFileSync(join(dir, 'metrics.jsonl'), lines.map(line => `${line}\n`).join(''));
    return readStepMeans(dir, steps, most);
  });
}

const seven = [step(1), step(2), epoch, step(3), step(4), step(5), step(6), step(7)];

test('steps are means over as many as it takes to be few enough, the last group is what is left', async () => {
  assert.deepEqual(await read(seven, 7, 3), [
    { step: 3, loss: 2, learningRate: 0.03 },
    { step: 6, loss: 5, learningRate: 0.06 },
    { step: 7, loss: 7, learningRate: 0.07 },
  ]);
  assert.equal((await read(seven, 7, 7)).length, 7);
  assert.deepEqual(await read(seven, 7, 1), [{ step: 7, loss: 4, learningRate: 0.07 }]);
  for (let steps = 1; steps <= 7; steps++) {
    for (let most = 1; most <= 8; most++) {
      const means = await read(seven, steps, most);
      assert.ok(means.length >= 1 && means.length <= most);
      assert.equal(means.at(-1)!.step, steps);
    }
  }
});

test('steps behind those that are asked for are of a process at work', async () => {
  assert.deepEqual(
    (await read(seven, 4, 2)).map(means => means.step),
    [2, 4],
  );
  assert.deepEqual(await read([], 0, 400), []);
});

test('a line that is no step, epoch or end, or lacks a figure, is named', async () => {
  for (const bad of ['{"type":"st', step(2, { loss: null })]) {
    await assert.rejects(read([step(1), bad], 2, 2), {
      code: 'LOCKSTEP_FILE_DAMAGED',
      message: /metrics\.jsonl cannot be used: line 2 is not the figures of a step\.$/,
    });
  }
});

// The epochs of a run, read from its metrics: whole lines, in order, or none of them.

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { readEpochs } from '#dist/coordinator/metrics-file.js';
import type { EpochFigures } from '#dist/shared/metrics.js';
import { inTemporaryFolder } from '../support/cli.js';

const figures = { trainLoss: 0.5, trainAccuracy: 0.75, testLoss: 0.25, testAccuracy: 1 };

const step = (n: number) => JSON.stringify({ type: 'step', step: n, epoch: 1, loss: 2, accuracy: 0.5 });
const epoch = (n: number, changed: object = {}) =>
  JSON.stringify({ type: 'epoch', step: 2 * n, epoch: n, runningLoss: 1, ...figures, hash: 'x', ...changed });
const done = JSON.stringify({ type: 'done', step: 4, ...figures });

function read(lines: readonly string[], rest = ''): Promise<EpochFigures[]> {
  return inTemporaryFolder(async dir => {
    writeFileSync(join(dir, 'metrics.jsonl'), lines.map(line => `${line}\n`).join('') + rest);
    return readEpochs(dir);
  });
}

test('every epoch has its figures; half a line at the end is none', async () => {
  const both = [
    { epoch: 1, step: 2, ...figures },
    { epoch: 2, step: 4, ...figures },
  ];
  assert.deepEqual(await read([step(1), step(2), epoch(1), step(3), step(4), epoch(2), done]), both);
  assert.deepEqual(await read([step(1), step(2), epoch(1)], epoch(2)), both.slice(0, 1));
  assert.deepEqual(await read([]), []);
});

const damages: [string, string[], number][] = [
  ['no JSON', [step(1), '{"type":"ep', epoch(1)], 2],
  ['no number', [epoch(1, { testLoss: null })], 1],
  ['an accuracy above 1', [epoch(1, { testAccuracy: 1.5 })], 1],
  ['an epoch twice', [epoch(1), epoch(1)], 2],
  ['an epoch that is missing', [step(1), epoch(2)], 2],
];

for (const [what, lines, number] of damages) {
  test(`a file with ${what} is damaged, in line ${number}`, async () => {
    await assert.rejects(read(lines), {
      code: 'LOCKSTEP_FILE_DAMAGED',
      message: new RegExp(`metrics\\.jsonl cannot be used: line ${number} is not `),
    });
  });
}

test('a file that is missing is damaged', async () => {
  await inTemporaryFolder(async dir => {
    assert.throws(() => readEpochs(dir), { code: 'LOCKSTEP_FILE_DAMAGED' });
  });
});

// How far a run has come, by the ends of its files.

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { readProgress, type RunProgress } from '#dist/coordinator/stored-run.js';
import { inTemporaryFolder } from '../support/cli.js';

const hash = '0123456789abcdef';
const end = { hash, weightsSha256: 'digest' };
const step = JSON.stringify({ type: 'step', step: 1, loss: 2 });
const epoch = JSON.stringify({ type: 'epoch', step: 1, epoch: 1, testAccuracy: 0.5, ...end });
const done = JSON.stringify({ type: 'done', step: 1, testAccuracy: 0.75, ...end });

function progress(lines: readonly string[], rest = ''): Promise<RunProgress> {
  return inTemporaryFolder(async dir => {
    writeFileSync(join(dir, 'hashes.txt'), `${hash}\n`);
    writeFileSync(join(dir, 'metrics.jsonl'), lines.map(line => `${line}\n`).join('') + rest);
    return readProgress(dir);
  });
}

test('the end of a finished run is in its last whole line', async () => {
  const known = { step: 1, hash };
  const finished = { ...known, isFinished: true, testAccuracy: 0.75, end };
  assert.deepEqual(await progress([step, epoch, done]), finished);
  assert.deepEqual(await progress([done], step), finished);
  const unfinished = { ...known, isFinished: false, testAccuracy: 0.5, end: null };
  assert.deepEqual(await progress([step, epoch]), unfinished);
  assert.deepEqual(await progress([epoch], done), unfinished);
  assert.deepEqual(await progress([epoch, done, step]), unfinished);
});

const damages: [string, string][] = [
  ['no JSON', '{"type":"do'],
  ['no type', '{"step":1}'],
  ['an end without a hash', JSON.stringify({ type: 'done', weightsSha256: 'digest' })],
  ['an end without weights', JSON.stringify({ type: 'done', hash })],
];

for (const [what, line] of damages) {
  test(`a last line with ${what} is damage`, async () => {
    await assert.rejects(progress([epoch, line]), {
      code: 'LOCKSTEP_FILE_DAMAGED',
      message: /metrics\.jsonl cannot be used: it has the line "/,
    });
  });
}

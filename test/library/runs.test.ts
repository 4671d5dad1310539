// `listRuns`: every state a run folder can be in, newest first.

import assert from 'node:assert/strict';
import {
  appendFileSync,
  mkdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { lockFolder } from '#dist/coordinator/folder-lock.js';
import { listRuns, train, type RunResult, type RunSummary } from '#dist/library/index.js';
import { inTemporaryFolder } from '../support/cli.js';
import { tinyDataset, tinyModel } from '../support/tiny.js';

const tiny = { model: tinyModel, dataset: tinyDataset(), batch: 24, leaf: 3, epochs: 3, workers: 1 } as const;

/** A finished run, whose files say that they were written at `second`. */
async function finished(dir: string, second: number): Promise<RunResult> {
  const result = await train({ ...tiny, out: dir });
  writtenAt(dir, second);
  return result;
}

function writtenAt(dir: string, second: number): void {
  for (const name of ['config.json', 'metrics.jsonl']) utimesSync(join(dir, name), second, second);
}

function linesOf(dir: string): string[] {
  return readFileSync(join(dir, 'metrics.jsonl'), 'utf8').split('\n');
}

function onlySummary(dir: string): RunSummary {
  const [run, ...others] = listRuns(dir);
  assert.deepEqual(others, []);
  assert.ok(run.state !== 'damaged');
  return run;
}

test('finished, running, interrupted and damaged runs, the one that wrote last first', async () => {
  await inTemporaryFolder(async dir => {
    const { hash, testAccuracy } = await finished(join(dir, 'a'), 1000);
    const summary = { model: 'tiny', dataset: 'tiny', step: 27, totalSteps: 27, testAccuracy, hash };
    assert.deepEqual(listRuns(dir), [{ dir: join(dir, 'a'), state: 'finished', ...summary }]);

    // As a process that was killed after 14 steps leaves it, in the middle of two lines.
    const killed = join(dir, 'b');
    await finished(killed, 0);
    const lines = linesOf(killed);
    const until = lines.findIndex(line => line.startsWith('{"type":"step","step":15,'));
    writeFileSync(join(killed, 'metrics.jsonl'), `${lines.slice(0, until).join('\n')}\n{"type":"epoch","st`);
    truncateSync(join(killed, 'hashes.txt'), 14 * 17 + 5);
    writtenAt(killed, 3000);
    const kept = lines
      .slice(0, until)
      .map((line): { type: string; testAccuracy: number } => JSON.parse(line));
    const stopped: RunSummary = {
      ...summary,
      dir: killed,
      state: 'interrupted',
      step: 14,
      testAccuracy: kept.findLast(({ type }) => type === 'epoch')!.testAccuracy,
      hash: readFileSync(join(killed, 'hashes.txt'), 'latin1').split('\n')[13],
    };

    mkdirSync(join(dir, 'c'));
    writeFileSync(join(dir, 'c', 'hashes.txt'), '');
    mkdirSync(join(dir, 'no-run'));
    writeFileSync(join(dir, 'notes.txt'), 'no run');
    const unlock = lockFolder(join(dir, 'a'));
    const runs = listRuns(dir);
    unlock();
    assert.deepEqual(runs, [
      stopped,
      { dir: join(dir, 'a'), state: 'running', ...summary },
      {
        dir: join(dir, 'c'),
        state: 'damaged',
        problem: `${join(dir, 'c')} holds no run: there is no config.json in it.`,
      },
    ]);
    assert.deepEqual(
      listRuns(dir).map(({ state }) => state),
      ['interrupted', 'finished', 'damaged'],
    );
    assert.deepEqual(listRuns(join(dir, 'b')), [stopped], 'a folder that is a run itself');
  });
});

test('a run that has only begun has neither accuracy nor hash', async () => {
  await inTemporaryFolder(async dir => {
    const run = join(dir, 'run');
    await finished(run, 0);
    for (const content of ['', '{"type":"st']) {
      writeFileSync(join(run, 'metrics.jsonl'), content);
      writeFileSync(join(run, 'hashes.txt'), content.slice(0, 9));
      const { state, step, testAccuracy, hash } = onlySummary(run);
      assert.deepEqual(
        { state, step, testAccuracy, hash },
        { state: 'interrupted', step: 0, testAccuracy: null, hash: null },
      );
    }
  });
});

test('a run without a whole epoch has the accuracy of its end', async () => {
  await inTemporaryFolder(async dir => {
    const { testAccuracy } = await train({ ...tiny, maxSteps: 2, out: join(dir, 'run') });
    assert.equal(onlySummary(join(dir, 'run')).testAccuracy, testAccuracy);
  });
});

test('an accuracy of 0 is one', async () => {
  await inTemporaryFolder(async dir => {
    const run = join(dir, 'run');
    await finished(run, 0);
    const done = { type: 'done', step: 27, testAccuracy: 0, hash: '', weightsSha256: '' };
    appendFileSync(join(run, 'metrics.jsonl'), `${JSON.stringify(done)}\n`);
    assert.equal(onlySummary(run).testAccuracy, 0);
  });
});

const spoilers: Record<string, [(run: string) => void, RegExp]> = {
  'a config that is no JSON': [
    run => writeFileSync(join(run, 'config.json'), '{'),
    /config\.json cannot be read/,
  ],
  'a config of another version': [
    run => writeFileSync(join(run, 'config.json'), '{}'),
    /config\.json is not of this version/,
  ],
  'no metrics': [run => rmSync(join(run, 'metrics.jsonl')), /metrics\.jsonl cannot be used: ENOENT/],
  'no hashes': [run => rmSync(join(run, 'hashes.txt')), /hashes\.txt cannot be used: ENOENT/],
  'a line of metrics that is none': [
    run => appendFileSync(join(run, 'metrics.jsonl'), 'what\n'),
    /metrics\.jsonl cannot be used: it has the line "what"\.$/,
  ],
  'hashes that are none': [
    run => writeFileSync(join(run, 'hashes.txt'), 'no hash at all, and more'),
    /hashes\.txt cannot be used: line 1 is no hash\.$/,
  ],
};

for (const [what, [spoil, problem]] of Object.entries(spoilers)) {
  test(`${what}: listed as damaged`, async () => {
    await inTemporaryFolder(async dir => {
      const run = join(dir, 'run');
      await finished(run, 0);
      spoil(run);
      const [found] = listRuns(dir);
      assert.ok(found.state === 'damaged');
      assert.match(found.problem, problem);
    });
  });
}

test('a folder without runs has none, and one that is not there is an error', async () => {
  await inTemporaryFolder(async dir => {
    assert.deepEqual(listRuns(dir), []);
    assert.throws(() => listRuns(join(dir, 'none')), { code: 'LOCKSTEP_RUN_MISSING', message: /ENOENT/ });
  });
});

test('a link that leads nowhere is no run, and hides none', async () => {
  await inTemporaryFolder(async dir => {
    symlinkSync('loop', join(dir, 'loop'));
    symlinkSync('nothing', join(dir, 'broken'));
    await finished(join(dir, 'run'), 1000);
    assert.equal(onlySummary(dir).dir, join(dir, 'run'));
  });
});

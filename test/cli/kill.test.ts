// kill -9 at any moment, then --resume with another number of workers: what is kept equals an uninterrupted run's.

import assert from 'node:assert/strict';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { eventsOf, inTemporaryFolder, lockstep, onlyEvent } from '../support/cli.js';
import { keptIn, withoutTimes, type KeptRun } from '../support/kept-run.js';
import { randomTest } from '../support/random.js';

/** The first seven are aimed; `.ci/run` has 20. */
const KILLS = Number(process.env['LOCKSTEP_TEST_KILLS'] ?? 10);
const preload = `--import=${import.meta.resolve('../support/kill-at.js')}`;
const job = [
  'train',
  'mlp',
  '--seed',
  '5',
  '--batch',
  '600',
  '--epochs',
  '2',
  '--max-steps',
  '150',
  '--json',
];
/** Every step: a kill at a random moment then falls into the writing of a checkpoint more often than not. */
const often = ['--checkpoint-every', '1'];

interface Finished extends KeptRun {
  readonly hash: string;
  readonly weightsSha256: string;
  readonly lastEpoch: object | undefined;
}

/** What a finished run tells and keeps, times aside. */
function finishedRun(stdout: string): Finished {
  const events = eventsOf(stdout);
  const { hash, weightsSha256, runDir } = onlyEvent(events, 'done');
  const lastEpoch = events.findLast(event => event.type === 'epoch');
  return { hash, weightsSha256, lastEpoch: lastEpoch && withoutTimes(lastEpoch), ...keptIn(runDir) };
}

let whole: Promise<Finished> | undefined;

function uninterrupted(): Promise<Finished> {
  whole ??= inTemporaryFolder(async cwd => {
    const { stdout, stderr, code } = await lockstep(job, { cwd });
    assert.equal(code, 0, stderr);
    return finishedRun(stdout);
  });
  return whole;
}

for (let kill = 0; kill < KILLS; kill++) {
  randomTest(`kill -9 number ${kill + 1} of ${KILLS} costs nothing`, async random => {
    await inTemporaryFolder(async cwd => {
      const workers = 1 + random.integer(3);
      // The first kills are aimed, the others strike when the n-th event has come, wherever the process is by then.
      const aimed = ['start', 'write 1', 'rename 1', 'renamed 1', 'write', 'rename', 'renamed'][kill];
      const place =
        aimed === undefined || aimed === 'start' || / /.test(aimed)
          ? aimed
          : `${aimed} ${2 + random.integer(120)}`;
      const eventsBefore = aimed === 'start' ? 1 : 1 + random.integer(150);
      let events = 0;
      let isSent = false;
      const { code } = await lockstep([...job, ...often, '--out', 'run', '--workers', String(workers)], {
        cwd,
        ...(place && place !== 'start'
          ? { env: { LOCKSTEP_TEST_KILL: place, NODE_OPTIONS: preload } }
          : {
              onOutput: (text, signal) => {
                events += text.split('\n').length - 1;
                if (isSent || events < eventsBefore) return;
                isSent = true;
                signal('SIGKILL');
              },
            }),
      });
      assert.equal(code, null, 'the process ended before it was killed');
      const dir = join(cwd, 'run');
      const parts = existsSync(join(dir, 'checkpoints')) ? readdirSync(join(dir, 'checkpoints')) : [];
      const resumed = ['train', '--resume', 'run', '--json', '--workers', String(1 + (workers % 3))];
      const { stdout, stderr, code: resumedCode } = await lockstep(resumed, { cwd });
      assert.equal(resumedCode, 0, `${stderr}${stdout}`);
      const kept = finishedRun(stdout);
      const expected = await uninterrupted();
      // If the last epoch ended before the kill, its event was told then.
      const lastEpoch = kept.lastEpoch ?? expected.lastEpoch;
      assert.deepEqual(
        { ...kept, lastEpoch },
        expected,
        `killed at ${place ?? `event ${eventsBefore}`}: ${parts.join(' ')}`,
      );
    });
  });
}

test('a run that is killed before it has a config is begun again in the same folder', async () => {
  await inTemporaryFolder(async cwd => {
    const args = [...job, '--out', 'run'];
    const env = { LOCKSTEP_TEST_KILL: 'config 1', NODE_OPTIONS: preload };
    const killed = await lockstep(args, { cwd, env });
    assert.deepEqual([killed.code, killed.stdout], [null, '']);
    const { code, stdout, stderr } = await lockstep(args, { cwd });
    assert.equal(code, 0, stderr);
    assert.deepEqual(finishedRun(stdout), await uninterrupted());
  });
});

test('a second process does not get a run that is at work', async () => {
  await inTemporaryFolder(async cwd => {
    let second: ReturnType<typeof lockstep> | undefined;
    await lockstep(['train', 'lenet5', '--out', 'run', '--json'], {
      cwd,
      onOutput: (text, signal) => {
        if (second || !text.includes('"type":"step"')) return;
        second = lockstep(['train', '--resume', 'run'], { cwd });
        void second.then(() => signal('SIGKILL'));
      },
    });
    const { code, stderr } = await second!;
    assert.equal(code, 1);
    assert.match(stderr, /^LOCKSTEP_RUN_LOCKED: Process \d+ is at work in /);
  });
});

// `lockstep train --config`: the file's settings, what wins over them, and how a bad file is told.

import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { eventsOf, inTemporaryFolder, lockstep, onlyEvent } from '../support/cli.js';

test('a flag wins over the file, the file over the preset; paths begin at the file', async () => {
  await inTemporaryFolder(async cwd => {
    mkdirSync(join(cwd, 'configs'));
    const config = { model: 'mlp', seed: 3, 'max-steps': 2, batch: 256, out: '../kept', workers: 2 };
    // With what editors on Windows leave in a file.
    const text = `\uFEFF${JSON.stringify(config, null, 2).replaceAll('\n', '\r\n')}`;
    writeFileSync(join(cwd, 'configs', 'mine.json'), text);
    const args = ['train', '--config', 'configs/mine.json', '--seed', '4', '--json'];
    const { code, stdout, stderr } = await lockstep(args, { cwd });
    assert.equal(code, 0, stderr);
    const { model, seed, batch, totalSteps, workers, runDir } = onlyEvent(eventsOf(stdout), 'start');
    assert.deepEqual(
      { model, seed, batch, totalSteps, workers, runDir },
      { model: 'mlp', seed: 4, batch: 256, totalSteps: 2, workers: 2, runDir: join(cwd, 'kept') },
    );
    const { hash } = onlyEvent(eventsOf(stdout), 'done');
    const flags = ['train', 'mlp', '--seed', '4', '--batch', '256', '--max-steps', '2', '--json'];
    assert.equal(onlyEvent(eventsOf((await lockstep(flags, { cwd })).stdout), 'done').hash, hash);
  });
});

test('with --resume a config is like flags: what decides bits is refused by name, the rest may change', async () => {
  await inTemporaryFolder(async cwd => {
    const begin = { model: 'mlp', 'lr-schedule': 'constant', epochs: 1, batch: 20_000, out: 'kept' };
    writeFileSync(join(cwd, 'begin.json'), JSON.stringify(begin));
    writeFileSync(join(cwd, 'more.json'), JSON.stringify({ ...begin, epochs: 2, workers: 1 }));
    writeFileSync(join(cwd, 'other.json'), JSON.stringify({ ...begin, epochs: 2, seed: 9 }));
    const done = async (...args: string[]) => {
      const { code, stdout } = await lockstep(['train', '--json', ...args], { cwd });
      return { code, events: eventsOf(stdout) };
    };
    assert.equal((await done('--config', 'begin.json')).code, 0);
    const other = await done('--config', 'other.json', '--resume', 'kept');
    assert.equal(other.code, 1);
    assert.match(
      onlyEvent(other.events, 'error').message,
      /^Setting seed is 9, and the run was begun with 1/,
    );
    // The file names the folder of the run itself, which is no change.
    const more = await done('--config', 'more.json', '--resume', 'kept');
    assert.equal(more.code, 0);
    assert.equal(onlyEvent(more.events, 'start').resumedStep, 3);
    assert.equal(onlyEvent(more.events, 'done').steps, 6);
  });
});

test('a bad config exits with 2 and names file and key, as JSON too', async () => {
  await inTemporaryFolder(async cwd => {
    writeFileSync(join(cwd, 'mine.json'), '{ "epoch": 3 }');
    const message = 'mine.json: epoch is unknown; the nearest setting is epochs.';
    const plain = await lockstep(['train', '--config', 'mine.json'], { cwd });
    assert.deepEqual(plain, { code: 2, stdout: '', stderr: `LOCKSTEP_CONFIG_FILE: ${message}\n` });
    const { code, stdout, stderr } = await lockstep(['train', '--config', 'mine.json', '--json'], { cwd });
    assert.deepEqual([code, stderr], [2, '']);
    assert.deepEqual(JSON.parse(stdout), {
      type: 'error',
      code: 'LOCKSTEP_CONFIG_FILE',
      message,
      step: 0,
      timeMs: 0,
    });
  });
});

// `lockstep verify`: honest runs of several machines, and what it says of others.

import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Verification } from '#dist/library/index.js';
import { eventsOf, inTemporaryFolder, lockstep, onlyEvent } from '../support/cli.js';
import { Field } from '../support/processes.js';

test('a run whose first agent was killed, and whose second joined late, is verified by any number of threads', async t => {
  const field = new Field(t);
  const cwd = field.dir;
  const args = ['mlp', '--max-steps', '300', '--workers', '0', '--out', 'run'];
  const coordinator = field.coordinate(args);
  const line = await coordinator.join();
  const first = field.work(line, { name: 'first' });
  await coordinator.step(40);
  first.kill('SIGKILL');
  field.work(line, { name: 'late' });
  await coordinator.joined('late');
  const { nodes, hash } = await coordinator.done();
  assert.ok(
    nodes?.every(({ parts }) => parts > 0),
    coordinator.tail(),
  );
  for (const workers of ['1', '3']) {
    const { code, stdout, stderr } = await lockstep(['verify', 'run', '--workers', workers, '--json'], {
      cwd,
    });
    assert.deepEqual([code, stderr], [0, ''], stdout);
    const verified: Verification = JSON.parse(stdout);
    assert.deepEqual([verified.hash, verified.to, verified.workers], [hash, 300, Number(workers)]);
    assert.deepEqual([verified.compared.hashes, verified.compared.weights], [300, true]);
  }
});

test('it says what was compared; the first step that differs, with exit code 1; and steps that are none', async () => {
  await inTemporaryFolder(async cwd => {
    const trained = await lockstep(['train', 'mlp', '--max-steps', '60', '--out', 'run', '--json'], { cwd });
    const { hash } = onlyEvent(eventsOf(trained.stdout), 'done');
    const { code, stdout, stderr } = await lockstep(['verify', 'run', '--workers', '2'], { cwd });
    assert.deepEqual([code, stderr], [0, '']);
    const [what, equal, verdict] = stdout.trimEnd().split('\n');
    assert.match(
      what,
      /^mlp on mnist: all 60 steps; 60 computed again from the beginning, 2 workers, [\d.]+ s$/,
    );
    assert.equal(
      equal,
      'equal: 60 hashes, figures of 60 steps and 0 epochs, 2 checkpoints, final weights, result',
    );
    assert.equal(verdict, `verified  hash ${hash} after step 60`);

    const path = join(cwd, 'run', 'hashes.txt');
    const lines = readFileSync(path, 'utf8').split('\n');
    lines[41] = '0123456789abcdef';
    writeFileSync(path, lines.join('\n'));
    const bad = await lockstep(['verify', 'run'], { cwd });
    assert.deepEqual([bad.code, bad.stdout], [1, '']);
    assert.match(
      bad.stderr,
      /^LOCKSTEP_VERIFY: .*run differs at step 42, .* hashes\.txt: line 42 is "0123456789abcdef", and not "[0-9a-f]{16}"\.\n$/,
    );
    const json = await lockstep(['verify', 'run', '--json'], { cwd });
    assert.deepEqual([json.code, json.stderr], [1, '']);
    const error = onlyEvent(eventsOf(json.stdout), 'error');
    assert.deepEqual([error.code, error.step], ['LOCKSTEP_VERIFY', 42]);

    const some = await lockstep(['verify', 'run', '--steps', '43..60'], { cwd });
    assert.equal(some.code, 0);
    assert.match(some.stdout, /: steps 43 to 60 of 60; 60 computed again from the beginning, /);
    const end = await lockstep(['verify', 'run', '--steps=60..60'], { cwd });
    assert.match(end.stdout, /; 0 computed again from checkpoints\/step-000000060\.safetensors, /);
    const none = await lockstep(['verify', 'run', '--steps', '43..61'], { cwd });
    assert.equal(none.code, 2);
    assert.match(none.stderr, /^LOCKSTEP_BAD_SETTING: Setting steps is '43\.\.61', expected steps up to 60/);
  });
});

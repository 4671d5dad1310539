// `lockstep study`: what it prints for people and for programs, what it writes, and how it ends early.

import assert from 'node:assert/strict';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { inTemporaryFolder, lockstep } from '../support/cli.js';
import { goodFigures, hashOf, writeRuns } from '../support/study.js';

test('it prints the table and where the rest is; with --json the same as study.json, and the folder', async () => {
  await inTemporaryFolder(async cwd => {
    writeRuns(join(cwd, 'digits'), [1, 2], goodFigures);
    const { code, stdout, stderr } = await lockstep(['study', '--seeds', '2', '--out', 'digits'], { cwd });
    assert.deepEqual([code, stderr], [0, '']);
    const lines = stdout.trimEnd().split('\n');
    assert.deepEqual(lines.slice(0, 2), [
      '6 runs, 6 of them done before',
      'study on mnist, 5 epochs, seeds 1 to 2',
    ]);
    const mlp = lines.findIndex(line => line.startsWith('│ MLP '));
    assert.match(lines[mlp], /│ here .* 97\.06 ± 0\.01 % │$/);
    assert.match(lines[mlp + 1], /│ published │ +0\.1362 │ +96\.00 % │ +0\.1575 │ +95\.27 % │$/);
    assert.deepEqual(lines.slice(-3), [
      'All 6 mean test figures are at least as good as the published ones.',
      'All 6 mean training figures are at least as good as the published ones.',
      `wrote ${['study.json', 'README.md', 'study.html'].map(name => join('digits', name)).join(', ')} and 10 figures`,
    ]);
    assert.ok(existsSync(join(cwd, 'digits', 'figures', 'mlp-loss.svg')));
    const text = readFileSync(join(cwd, 'digits', 'README.md'), 'utf8');
    assert.match(text, new RegExp(`\\| mlp --seed 2 \\| ${hashOf('mlp', 2)} \\| `));

    const json = await lockstep(['study', '--seeds', '2', '--out', 'digits', '--json'], { cwd });
    assert.deepEqual([json.code, json.stderr], [0, '']);
    const { dir, files, trained, warnings, ...result } = JSON.parse(json.stdout);
    assert.deepEqual([dir, files.length, trained, warnings], [join(cwd, 'digits'), 13, 0, []]);
    const { published: _, ...kept } = JSON.parse(readFileSync(join(cwd, 'digits', 'study.json'), 'utf8'));
    assert.deepEqual(result, kept);
  });
});

test('interrupted, it says that the same command goes on', async () => {
  await inTemporaryFolder(async cwd => {
    const { code, stdout, stderr } = await lockstep(['study', '--seeds', '1'], {
      cwd,
      onOutput: (_, kill) => kill('SIGINT'),
    });
    assert.deepEqual([code, stdout], [130, '3 runs\n']);
    assert.match(
      stderr,
      /^LOCKSTEP_INTERRUPTED: Interrupted after 0 of 3 runs, in that of lenet5 with seed 1, which is saved\. The same command goes on with the study\.\n$/,
    );
  });
});

test('a folder that cannot be had, and seeds that are none', async () => {
  await inTemporaryFolder(async cwd => {
    writeFileSync(join(cwd, 'study'), 'a file');
    const taken = await lockstep(['study'], { cwd });
    assert.deepEqual([taken.code, taken.stdout], [1, '']);
    assert.match(taken.stderr, /^LOCKSTEP_RUN_FOLDER: Cannot write the study's folder .*study: ENOTDIR/);
    const none = await lockstep(['study', '--seeds', 'two'], { cwd });
    assert.equal(none.code, 2);
    assert.match(
      none.stderr,
      /^LOCKSTEP_BAD_SETTING: Setting seeds is NaN, expected a whole number from 1 to 100/,
    );
  });
});

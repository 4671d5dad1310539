// `lockstep report`: what it prints, for people and for programs.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { train } from '#dist/library/index.js';
import { inTemporaryFolder, lockstep } from '../support/cli.js';
import { tinyDataset, tinyModel } from '../support/tiny.js';

test('it says what it wrote, and what is missing in it', async () => {
  await inTemporaryFolder(async cwd => {
    const options = { model: tinyModel, dataset: tinyDataset(), batch: 24, maxSteps: 3 };
    const { hash } = await train({ ...options, out: join(cwd, 'one') });
    await train({ ...options, maxSteps: 4, out: join(cwd, 'two') });
    const { code, stdout, stderr } = await lockstep(['report', 'one', 'two', '--out', 'both.html'], { cwd });
    assert.deepEqual([code, stderr], [0, '']);
    assert.match(
      stdout,
      /^warning {2}one: The test set is not evaluated\. .*\nwarning {2}two: .*\none {2}finished after step 3\ntwo {2}finished after step 4\nwrote both\.html, \d+ KiB\n$/,
    );
    assert.ok(existsSync(join(cwd, 'both.html')));

    const json = await lockstep(['report', 'one', '--json'], { cwd });
    const { path, runs } = JSON.parse(json.stdout);
    assert.equal(path, join(cwd, 'one', 'report.html'));
    const run = {
      name: 'one',
      runDir: join(cwd, 'one'),
      state: 'finished',
      step: 3,
      hash,
      testAccuracy: null,
      testStep: null,
    };
    assert.deepEqual(runs, [run]);

    const twice = await lockstep(['report', 'one', '--out', 'a.html', '--out', 'b.html'], { cwd });
    assert.equal(twice.code, 2);
    assert.match(twice.stderr, /^LOCKSTEP_USAGE: Flag --out is given twice: give it once\./);
  });
});

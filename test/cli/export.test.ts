// `lockstep export`: what it prints, for people and for programs.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { train } from '#dist/library/index.js';
import { inTemporaryFolder, lockstep } from '../support/cli.js';
import { tinyDataset, tinyModel } from '../support/tiny.js';

test('it says what it wrote and what the model takes and gives', async () => {
  await inTemporaryFolder(async cwd => {
    const dataset = tinyDataset();
    const { hash } = await train({
      model: tinyModel,
      dataset,
      maxSteps: 3,
      batch: 24,
      out: join(cwd, 'run'),
    });
    const { code, stdout } = await lockstep(['export', 'run', '--to', 'tfjs', '--out', 'web'], { cwd });
    assert.equal(code, 0);
    assert.match(
      stdout,
      /^tiny after all 3 steps: run\/weights\.safetensors\nwrote web, \d+ KiB\n {2}takes {2}bytes .*\n {2}gives {2}logits, N x 3\n$/,
    );
    assert.ok(existsSync(join(cwd, 'web', 'model.json')));
    const json = await lockstep(['export', 'run', '--to', 'onnx', '--softmax', '--json'], { cwd });
    const { path, output, hash: told } = JSON.parse(json.stdout);
    assert.deepEqual(
      [path, output, told],
      [join(cwd, 'run', 'export', 'tiny.onnx'), 'probabilities, N x 3', hash],
    );
    for (const args of [[], ['--to', 'keras']]) {
      const wrong = await lockstep(['export', 'run', ...args], { cwd });
      assert.equal(wrong.code, 2);
      assert.match(wrong.stderr, /^LOCKSTEP_USAGE: /);
    }
  });
});

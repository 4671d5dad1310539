// `lockstep model`: the layer table.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ModelDescription } from '#dist/library/index.js';
import { lockstep } from '../support/cli.js';
import { cyclicLabels, dataFiles, folderWith } from '../support/idx.js';

test('lenet5 has 44,426 parameters, 30,840 of them in fc1', async () => {
  const { code, stdout } = await lockstep(['model', 'lenet5']);
  assert.equal(code, 0);
  assert.match(stdout, /fc1 .* 120 .* 30,840 .* 256 x 120 \+ 120/);
  assert.match(stdout, /conv2 .* 8 x 8 x 16 .* 2,416/);
  assert.match(stdout, /total .* 44,426/);
});

test('mlp has 15,910', async () => {
  const { stdout } = await lockstep(['model', 'mlp', '--json']);
  const { parameters, layers }: ModelDescription = JSON.parse(stdout);
  assert.equal(parameters, 15_910);
  assert.deepEqual(
    layers.map(layer => layer.parameters),
    [0, 15_700, 0, 210],
  );
});

test('an unknown model is bad usage', async () => {
  const { code, stderr } = await lockstep(['model', 'resnet50']);
  assert.equal(code, 2);
  assert.match(stderr, /lenet5-regularized/);
});

test('a label offset is checked, and belongs to a folder', async t => {
  const data = folderWith(t, dataFiles(cyclicLabels(10, 3, 1), cyclicLabels(5, 3, 1)));
  const { stdout } = await lockstep(['model', 'mlp', '--data', data, '--label-offset', '1', '--json']);
  const { parameters }: ModelDescription = JSON.parse(stdout);
  assert.equal(parameters, 15_910 - 7 * 21);
  for (const [flags, message] of [
    [['--data', data, '--label-offset', 'one'], /^LOCKSTEP_BAD_SETTING: Setting labelOffset is NaN/],
    [['--data', data, '--label-offset', '-3'], /^LOCKSTEP_BAD_SETTING: Setting labelOffset is -3/],
    [['--label-offset', '1'], /^LOCKSTEP_BAD_SETTING: .* the labels of MNIST begin at 0/],
  ] as const) {
    const { code, stderr } = await lockstep(['model', 'mlp', ...flags]);
    assert.equal(code, 2);
    assert.match(stderr, message);
  }
});

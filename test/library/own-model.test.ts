// A model of one's own, with strides, padding and average pools, through `train`, `describeModel` and the command line.

import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { describeModel, train, type ModelDescription } from '#dist/library/index.js';
import { eventsOf, inTemporaryFolder, lockstep, onlyEvent } from '../support/cli.js';

const layers = [
  { type: 'conv2d', filters: 4, kernelSize: 3, stride: 3, padding: 'same' },
  { type: 'relu' },
  { type: 'avgPool2d', poolSize: 2 },
  { type: 'conv2d', filters: 5, kernelSize: 3, padding: 1 },
  { type: 'relu' },
  { type: 'maxPool2d', poolSize: 2 },
  { type: 'flatten' },
  { type: 'dropout', rate: 0.25 },
  { type: 'dense', units: 10 },
];
const text = JSON.stringify({ layers });

test('it trains to the same hash with 1, 2 and 3 workers and with both engines', async () => {
  await inTemporaryFolder(async dir => {
    const model = join(dir, 'mine.json');
    writeFileSync(model, text);
    const results = [];
    for (const more of [
      { workers: 1 },
      { workers: 2 },
      { workers: 3 },
      { workers: 2, engine: 'reference' as const },
    ]) {
      const out = join(dir, `run-${results.length}`);
      const {
        hash,
        weightsSha256,
        testLoss,
        model: name,
      } = await train({ model, maxSteps: 60, out, ...more });
      results.push({ hash, weightsSha256, testLoss, name });
    }
    assert.equal(results[0].name, 'mine');
    // Chance gives 2.303.
    assert.ok(results[0].testLoss < 2, `test loss ${results[0].testLoss}`);
    for (const result of results) assert.deepEqual(result, results[0]);
  });
});

test('defaults that are written out do not change the hash, and the name does not', async () => {
  await inTemporaryFolder(async dir => {
    const [first, second] = [join(dir, 'first.json'), join(dir, 'second.json')];
    const convolution = { type: 'conv2d', filters: 1, kernelSize: 9 };
    const behind = layers.slice(5);
    writeFileSync(first, JSON.stringify({ layers: [convolution, ...behind] }));
    const spelledOut = { ...convolution, stride: 1, padding: 'valid' };
    writeFileSync(second, JSON.stringify({ name: 'other', layers: [spelledOut, ...behind] }));
    const hashes = [];
    for (const model of [first, second]) {
      hashes.push((await train({ model, maxSteps: 2, workers: 2, out: `${model}-run` })).hash);
    }
    assert.equal(hashes[1], hashes[0]);
  });
});

test('lockstep model shows its layers, lockstep train keeps it under its name', async () => {
  await inTemporaryFolder(async cwd => {
    mkdirSync(join(cwd, 'sub'));
    writeFileSync(join(cwd, 'sub', 'my model.json'), text);
    const file = join('sub', 'my model.json');
    const shown = await lockstep(['model', file], { cwd });
    assert.equal(shown.code, 0, shown.stderr);
    assert.match(shown.stdout, /^my-model: sub.my model\.json\n/);
    assert.match(
      shown.stdout,
      /conv1 .* conv2d, stride 3, padding same .* 10 x 10 x 4 .* 3 x 3 x 1 x 4 \+ 4/,
    );
    assert.match(shown.stdout, /pool1 .* avgPool2d .* 5 x 5 x 4 /);

    const { stdout } = await lockstep(['model', file, '--json'], { cwd });
    const { model, parameters }: ModelDescription = JSON.parse(stdout);
    assert.deepEqual([model, parameters], ['my-model', 40 + 185 + 210]);

    const trained = await lockstep(['train', file, '--max-steps', '1', '--json'], { cwd });
    assert.equal(trained.code, 0, trained.stderr);
    assert.equal(onlyEvent(eventsOf(trained.stdout), 'start').model, 'my-model');
    assert.deepEqual(readdirSync(join(cwd, 'runs')), ['my-model-1']);
  });
});

test('a file that is wrong, or whose layers do not fit, ends a command before anything is written', async () => {
  await inTemporaryFolder(async cwd => {
    writeFileSync(join(cwd, 'typo.json'), text.replace('avgPool2d', 'averagePool'));
    const large = { type: 'conv2d', filters: 2, kernelSize: 12 };
    writeFileSync(
      join(cwd, 'large.json'),
      JSON.stringify({ layers: [layers[0], large, ...layers.slice(6)] }),
    );
    for (const command of ['model', 'train']) {
      const typo = await lockstep([command, 'typo.json'], { cwd });
      assert.equal(typo.code, 1);
      assert.match(
        typo.stderr,
        /^LOCKSTEP_MODEL_FILE: typo\.json: layers\[2\]\.type is "averagePool", .*nearest is avgPool2d/,
      );
      const misfit = await lockstep([command, 'large.json'], { cwd });
      assert.equal(misfit.code, 1);
      assert.match(
        misfit.stderr,
        /^LOCKSTEP_MODEL_SHAPE: Layer conv2 \(number 2 of model large\) gets 10 x 10 x 4 and needs at least 12 x 12 /,
      );
    }
    assert.equal(existsSync(join(cwd, 'runs')), false);
  });
});

test('a model that is described but cannot be had is refused', () => {
  assert.throws(() => describeModel('nowhere.json'), { code: 'LOCKSTEP_MODEL_FILE' });
});

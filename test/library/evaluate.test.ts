// `evaluate`: the figures that the run told, bit for bit, with the weights that its folder holds.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { test } from 'node:test';
import { mnistPaths } from '#dist/coordinator/mnist.js';
import { evaluate, train, type Evaluation } from '#dist/library/index.js';
import { inTemporaryFolder } from '../support/cli.js';
import { cyclicLabels, dataFiles, folderWith, names } from '../support/idx.js';
import { damage, trainUntil } from '../support/kept-run.js';
import { tinyDataset, tinyModel } from '../support/tiny.js';

const tiny = { model: tinyModel, dataset: tinyDataset(), batch: 24, leaf: 3, epochs: 3, workers: 2 } as const;

function sumOf(evaluation: Evaluation): number {
  return evaluation.confusion.flat().reduce((sum, count) => sum + count, 0);
}

for (const model of ['mlp', 'lenet5']) {
  test(`${model} on MNIST: loss and accuracy are those of the run's end, for any number of workers`, async () => {
    await inTemporaryFolder(async dir => {
      const done = await train({ model, maxSteps: 60, out: join(dir, 'run'), workers: 2 });
      for (const workers of [1, 3, 'auto'] as const) {
        const evaluation = await evaluate(done.runDir, { workers });
        const { loss, accuracy, step, isFinished, file, hash, isOwnData, samples } = evaluation;
        assert.deepEqual(
          { loss, accuracy, hash },
          { loss: done.testLoss, accuracy: done.testAccuracy, hash: done.hash },
        );
        assert.deepEqual([step, isFinished, file, isOwnData], [60, true, 'weights.safetensors', true]);
        assert.deepEqual([samples, sumOf(evaluation), evaluation.warnings], [10_000, 10_000, []]);
        const correct = evaluation.classes.reduce((sum, { correct: right }) => sum + right, 0);
        assert.equal(correct / 10_000, accuracy);
      }
    });
  });
}

test("MNIST's files in a folder are the run's own data; the normalization stays the run's", async t => {
  const data = folderWith(t, {});
  const { train: trainPaths, test: testPaths } = mnistPaths();
  for (const path of [...Object.values(trainPaths), ...Object.values(testPaths)]) {
    symlinkSync(path, join(data, basename(path)));
  }
  await inTemporaryFolder(async dir => {
    const done = await train({ model: 'mlp', maxSteps: 20, out: join(dir, 'run') });
    const { loss, isOwnData, dataset } = await evaluate(done.runDir, { data });
    assert.deepEqual([loss, isOwnData, dataset], [done.testLoss, true, basename(data)]);
    // Another training set, which would give other constants, and the same test set.
    const { [names.trainImages]: images, [names.trainLabels]: labels } = dataFiles(cyclicLabels(30, 10), [0]);
    const other = folderWith(t, { [names.trainImages]: images, [names.trainLabels]: labels });
    for (const path of Object.values(testPaths)) symlinkSync(path, join(other, basename(path)));
    const mixed = await evaluate(done.runDir, { data: other });
    assert.deepEqual([mixed.loss, mixed.isOwnData], [done.testLoss, false]);
  });
});

test('a run that was interrupted is evaluated with its newest good checkpoint', async () => {
  await inTemporaryFolder(async dir => {
    const out = join(dir, 'run');
    const options = { ...tiny, lrSchedule: 'constant' } as const;
    const { dataset } = tiny;
    await trainUntil({ ...options, out }, 9);
    const checkpoints = join(out, 'checkpoints');
    const files = readdirSync(checkpoints).toSorted().toReversed();
    assert.equal(files.length, 3);
    for (const [older, name] of files.entries()) {
      const step = Number(/\d+/.exec(name));
      const { loss, ...rest } = await evaluate(out, { dataset });
      const { file, isFinished, totalSteps, warnings } = rest;
      assert.deepEqual([file, rest.step, totalSteps, isFinished], [`checkpoints/${name}`, step, 27, false]);
      assert.equal(warnings.length, older);
      const { testLoss } = await train({ ...options, maxSteps: step, out: join(dir, name) });
      assert.equal(loss, testLoss);
      damage(join(checkpoints, name));
    }
    await assert.rejects(evaluate(out, { dataset }), {
      code: 'LOCKSTEP_FILE_DAMAGED',
      message: /^No weights of .* can be used\. .*step-/,
    });
    rmSync(checkpoints, { recursive: true });
    await assert.rejects(evaluate(out, { dataset }), {
      code: 'LOCKSTEP_RUN_MISSING',
      message: /no checkpoint yet/,
    });
  });
});

test('damaged final weights are named, and the last checkpoint is used, which has the same', async () => {
  await inTemporaryFolder(async dir => {
    const { testLoss, runDir } = await train({ ...tiny, out: join(dir, 'run') });
    const { runDir: otherDir } = await train({ ...tiny, seed: 2, out: join(dir, 'other') });
    const weights = join(runDir, 'weights.safetensors');
    const own = readFileSync(weights);
    for (const spoil of [
      () => damage(weights),
      () => writeFileSync(weights, readFileSync(join(otherDir, 'weights.safetensors'))),
      () => rmSync(weights),
    ]) {
      writeFileSync(weights, own);
      spoil();
      const { loss, file, isFinished, warnings } = await evaluate(runDir, { dataset: tiny.dataset });
      assert.deepEqual([loss, file, isFinished], [testLoss, 'checkpoints/step-000000027.safetensors', true]);
      assert.equal(warnings.length, 1);
      assert.match(warnings[0], /weights\.safetensors.*checkpoints\/step-000000027\.safetensors is used\.$/);
    }
  });
});

test('arrays must be handed over again, and only one dataset can be', async () => {
  await inTemporaryFolder(async dir => {
    const { runDir } = await train({ ...tiny, maxSteps: 2, out: join(dir, 'run') });
    await assert.rejects(evaluate(runDir), {
      code: 'LOCKSTEP_DATA_MISSING',
      message: /was trained on arrays/,
    });
    const both = { dataset: tiny.dataset, data: 'somewhere' };
    await assert.rejects(evaluate(runDir, both), { code: 'LOCKSTEP_BAD_SETTING' });
    await assert.rejects(evaluate(runDir, { dataset: tiny.dataset, workers: 0 }), {
      code: 'LOCKSTEP_BAD_SETTING',
      message: /^Setting workers is 0/,
    });
  });
});

test('data of another shape or class count are refused, changed data are told', async t => {
  await inTemporaryFolder(async dir => {
    const labels = cyclicLabels(30, 5);
    const data = folderWith(t, dataFiles(labels, labels, 16));
    const { runDir, testLoss } = await train({ model: 'mlp', data, maxSteps: 2, out: join(dir, 'run') });
    assert.equal((await evaluate(runDir)).loss, testLoss);
    for (const [files, message] of [
      [dataFiles(labels, labels, 17), /has images of 17 x 17 x 1 in 5 classes.* 16 x 16 x 1 in 5\.$/],
      [dataFiles(cyclicLabels(30, 6), labels, 16), /has images of 16 x 16 x 1 in 6 classes/],
    ] as const) {
      await assert.rejects(evaluate(runDir, { data: folderWith(t, files) }), {
        code: 'LOCKSTEP_DATA_SHAPE',
        message,
      });
    }
    for (const [name, file] of Object.entries(dataFiles(cyclicLabels(31, 5), labels, 16))) {
      writeFileSync(join(data, name), file);
    }
    const { isOwnData, warnings } = await evaluate(runDir);
    assert.equal(isOwnData, false);
    assert.match(warnings[0], /are no longer those that the run was trained on\.$/);
    rmSync(data, { recursive: true });
    await assert.rejects(evaluate(runDir), { code: 'LOCKSTEP_DATA_MISSING' });
    // The folder is removed after the test too.
    symlinkSync(dir, data);
  });
});

test('a folder that holds no run is refused', async () => {
  await inTemporaryFolder(async dir => {
    await assert.rejects(evaluate(dir), { code: 'LOCKSTEP_RUN_MISSING' });
  });
});

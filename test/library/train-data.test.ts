// Training on anyone's images: other sizes, other classes, very few samples, and MNIST from a folder.

import assert from 'node:assert/strict';
import { readFileSync, symlinkSync } from 'node:fs';
import { basename, join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { loadIdxFolder } from '#dist/coordinator/idx-folder.js';
import { mnistPaths } from '#dist/coordinator/mnist.js';
import { evaluate, train, type RunEvent, type RunResult, type TrainOptions } from '#dist/library/index.js';
import { presetNames } from '#dist/shared/presets.js';
import {
  cyclicLabels,
  dataFiles,
  folderWith,
  gzipped,
  imagesFile,
  labelsFile,
  names,
  type Files,
} from '../support/idx.js';
import { trainUntil } from '../support/kept-run.js';

/** Trains and gives the result with the `start` event. */
async function trainOn(t: TestContext, options: TrainOptions) {
  let start: Extract<RunEvent, { type: 'start' }> | undefined;
  const training = train({ workers: 2, out: join(folderWith(t, {}), 'run'), ...options });
  for await (const event of training) if (event.type === 'start') start = event;
  const result = await training;
  assert.ok(start);
  return { start, result };
}

function bitsOf({ hash, weightsSha256, trainLoss, testLoss, testAccuracy }: RunResult) {
  return { hash, weightsSha256, trainLoss, testLoss, testAccuracy };
}

const ten = dataFiles(cyclicLabels(10, 3), cyclicLabels(10, 3));

for (const model of presetNames) {
  test(`${model} learns 10 samples by heart`, async t => {
    const data = folderWith(t, gzipped(ten));
    const { start, result } = await trainOn(t, { model, data, epochs: 40 });
    assert.deepEqual([start.trainSamples, start.testSamples, start.totalSteps], [10, 10, 40]);
    assert.equal(result.trainAccuracy, 1);
  });
}

test('one sample is enough, and one class', async t => {
  const data = folderWith(t, dataFiles([0], [0]));
  const { result } = await trainOn(t, { model: 'mlp', data, epochs: 1 });
  assert.deepEqual([result.steps, result.testAccuracy, result.testLoss], [1, 1, 0]);
});

for (const classes of [26, 62]) {
  test(`LeNet-5 takes ${classes} classes and learns them`, async t => {
    const labels = cyclicLabels(classes * 12, classes);
    const data = folderWith(t, dataFiles(labels, cyclicLabels(classes, classes)));
    const { start, result } = await trainOn(t, { data, epochs: 25, batch: 64 });
    // 84 inputs and a bias for each class in place of 10.
    assert.equal(start.parameters, 44_426 + (classes - 10) * 85);
    assert.ok(result.testAccuracy > 0.9, `test accuracy ${result.testAccuracy}`);
  });
}

const shapes = [
  [32, 32],
  [17, 40],
  [70, 21],
  [16, 16],
] as const;

for (const [height, width] of shapes) {
  test(`images of ${height} x ${width}: 3 workers and the reference give the same bits`, async t => {
    const labels = cyclicLabels(12, 5);
    const data = folderWith(t, {
      ...dataFiles(labels, labels),
      [names.trainImages]: imagesFile(labels, height, width),
      [names.testImages]: imagesFile(labels, height, width),
    });
    for (const model of ['lenet5', 'mlp']) {
      const chosen = { model, data, maxSteps: 2, batch: 8 };
      const { start, result } = await trainOn(t, { ...chosen, workers: 3 });
      const { result: expected } = await trainOn(t, { ...chosen, engine: 'reference' });
      assert.deepEqual(bitsOf(result), bitsOf(expected), model);
      const [h, w] = [height, width].map(extent => Math.floor((Math.floor((extent - 4) / 2) - 4) / 2));
      const inputs = model === 'mlp' ? height * width * 20 - 784 * 20 : (h * w * 16 - 256) * 120;
      const outputs = (5 - 10) * (model === 'mlp' ? 21 : 85);
      assert.equal(start.parameters, (model === 'mlp' ? 15_910 : 44_426) + inputs + outputs);
    }
  });
}

test('images too small for LeNet-5 are LOCKSTEP_MODEL_SHAPE, and enough for the MLP', async t => {
  const data = folderWith(t, dataFiles([0, 1], [1], 13));
  await assert.rejects(trainOn(t, { data }), {
    code: 'LOCKSTEP_MODEL_SHAPE',
    message: /^Layer conv2 .* gets 4 x 4 x 6 and needs at least 5 x 5/,
  });
  const { result } = await trainOn(t, { data, model: 'mlp', epochs: 1 });
  assert.equal(result.steps, 1);
});

/** The same images with labels from `first` on. */
function tenFrom(first: number): Files {
  const labels = labelsFile(cyclicLabels(10, 3, first));
  return { ...ten, [names.trainLabels]: labels, [names.testLabels]: labels };
}

test('labels from 1 with their offset give the bits of labels from 0', async t => {
  const { result } = await trainOn(t, { data: folderWith(t, tenFrom(0)), maxSteps: 3 });
  const shifted = { data: folderWith(t, tenFrom(1)), labelOffset: 1, maxSteps: 3 };
  assert.deepEqual(bitsOf((await trainOn(t, shifted)).result), bitsOf(result));
  await assert.rejects(trainOn(t, { ...shifted, labelOffset: 0 }), {
    code: 'LOCKSTEP_DATA_FORMAT',
    message: /--label-offset 1/,
  });
});

test("MNIST's files in a folder give MNIST's bits, and the run keeps where they were", async t => {
  const data = folderWith(t, {});
  const { train: trainPaths, test: testPaths } = mnistPaths();
  for (const path of [...Object.values(trainPaths), ...Object.values(testPaths)]) {
    symlinkSync(path, join(data, basename(path)));
  }
  const chosen = { model: 'mlp', maxSteps: 5 };
  const { start, result } = await trainOn(t, { ...chosen, data });
  const { result: expected } = await trainOn(t, chosen);
  assert.deepEqual(bitsOf(result), bitsOf(expected));
  assert.equal(start.dataset, basename(data));
  const config = JSON.parse(readFileSync(join(result.runDir, 'config.json'), 'utf8'));
  assert.deepEqual([config.settings.data, config.settings.labelOffset], [data, 0]);
});

test('classes without training images are said', async t => {
  const data = folderWith(t, dataFiles([0, 3, 200], [0, 3]));
  const warnings: string[] = [];
  const training = train({ model: 'mlp', data, epochs: 1, workers: 1, out: join(folderWith(t, {}), 'run') });
  for await (const event of training) if (event.type === 'warning') warnings.push(event.message);
  assert.match(
    warnings[0],
    /^198 classes of 201 have no training images \(1, 2, 4, .*, \.\.\.\): is a label wrong\?$/,
  );
});

test('a run on files goes on with the same images as arrays; arrays have no folder and no label offset', async t => {
  const data = folderWith(t, tenFrom(1));
  const files = loadIdxFolder(data, 1);
  const chosen = { data, labelOffset: 1, maxSteps: 4, batch: 4, model: 'mlp' };
  const { result: whole } = await trainOn(t, chosen);
  const out = join(folderWith(t, {}), 'run');
  await trainUntil({ ...chosen, out }, 2);
  for (const [option, message] of [
    [{ data }, /^There is a dataset of arrays, and setting data names another/],
    [{ labelOffset: 1 }, /^Setting labelOffset is 1, and the labels of arrays begin at 0/],
  ] as const) {
    const refusal = { code: 'LOCKSTEP_BAD_SETTING', message };
    await assert.rejects(train({ resume: out, dataset: files, ...option }), refusal);
    await assert.rejects(trainOn(t, { dataset: files, ...option }), refusal);
    await assert.rejects(evaluate(out, { dataset: files, ...option }), refusal);
  }
  assert.deepEqual(bitsOf(await train({ resume: out, dataset: files })), bitsOf(whole));
});

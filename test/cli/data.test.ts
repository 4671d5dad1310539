// `lockstep data`: what it prints of MNIST and of a folder, for people and for programs.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { describeData, type DataDescription } from '#dist/library/index.js';
import { eventsOf, inTemporaryFolder, lockstep, onlyEvent } from '../support/cli.js';
import { cyclicLabels, dataFiles, folderWith, gzipped, names } from '../support/idx.js';

test('MNIST: digests, classes, shards and pictures', async () => {
  const { code, stdout } = await lockstep(['data']);
  assert.equal(code, 0);
  assert.match(stdout, /^mnist: 60,000 training and 10,000 test images of 28 x 28 pixels, 10 classes\n/);
  assert.match(stdout, /\ndigest 44aead6280c46bc879a473b309be3ee29e4477654ff000dc1aca3d8c6333bbb8\n/);
  assert.match(
    stdout,
    / t10k-images-idx3-ubyte +│ +7,840,016 │ 0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661c/,
  );
  assert.match(stdout, / 1 │ +6,742 │ 11.24 % │ █{20} │ +1,135 │ +11.35 % │/);
  // Kept here so that caches hit from version to version.
  assert.match(stdout, / training │ +59 │ +1,024 │ +608 │ +47,100,000 │ 8a9db7e2d9a9 d3106df83a7f │/);
  // The 0 and the 1 that come first.
  assert.match(stdout, /\n {7}▄██ +▄▄ .*\n {5}▄█▀▀ █ +█▀ /);
  const widest = stdout.split('\n').findLast(line => /[▀▄]/.test(line));
  assert.ok(widest !== undefined && widest.length <= 80, widest);
});

test('a folder as JSON: everything but pixels', async t => {
  const dir = folderWith(t, gzipped(dataFiles([1, 3, 3, 1, 3], [2, 3, 1])));
  const { code, stdout } = await lockstep(['data', dir, '--label-offset', '1', '--json']);
  assert.equal(code, 0);
  const printed: DataDescription = JSON.parse(stdout);
  const { examples, ...rest } = describeData(dir, 1);
  assert.deepEqual({ ...printed, examples: [] }, { ...rest, examples: [] });
  assert.deepEqual(printed.examples, [
    { class: 0, sample: 0 },
    { class: 2, sample: 1 },
  ]);
  assert.deepEqual(
    examples.map(({ pixels }) => pixels.length),
    [784, 784],
  );
  assert.equal(printed.classes, 3);
  assert.deepEqual(printed.sets.train.perClass, [2, 0, 3]);
  assert.deepEqual(printed.sets.test.perClass, [1, 1, 1]);
  assert.ok(printed.sets.train.files.images.path.endsWith(`${names.trainImages}.gz`));
  assert.deepEqual(
    printed.shards.map(({ set, samples }) => [set, samples]),
    [
      ['train', 5],
      ['test', 3],
    ],
  );
});

test('62 classes of 32 x 32 pixels have 62 rows and pictures of the first', async t => {
  const labels = cyclicLabels(124, 62);
  const { code, stdout } = await lockstep(['data', folderWith(t, dataFiles(labels, labels, 32))]);
  assert.equal(code, 0);
  assert.match(stdout, /: 124 training and 124 test images of 32 x 32 pixels, 62 classes\n/);
  assert.match(stdout, / 61 │ +2 │ +1.61 % │ █{20} │/);
  assert.match(stdout, /\n0 {18}1 {18}2 {18}3\n/);
  assert.match(stdout, /\n4 {18}5 {18}6 {18}7\n/);
});

test('a folder that is not there is an error, as JSON too', async () => {
  const plain = await lockstep(['data', 'no-such-folder']);
  assert.equal(plain.code, 1);
  assert.match(plain.stderr, /^LOCKSTEP_DATA_MISSING: Cannot read the folder no-such-folder: ENOENT/);
  const { code, stdout } = await lockstep(['data', 'no-such-folder', '--json']);
  assert.equal(code, 1);
  assert.equal(JSON.parse(stdout).code, 'LOCKSTEP_DATA_MISSING');
});

test('a label offset that is no number from 0 to 255 is bad usage', async () => {
  const { code, stderr } = await lockstep(['data', '--label-offset', 'one']);
  assert.equal(code, 2);
  assert.match(
    stderr,
    /^LOCKSTEP_BAD_SETTING: Setting labelOffset is NaN, expected a whole number from 0 to 255/,
  );
});

test('an unknown flag is bad usage and names the nearest', async () => {
  const { code, stderr } = await lockstep(['data', '--label-ofset', '1']);
  assert.equal(code, 2);
  assert.match(stderr, /The nearest is --label-offset\./);
});

test('train takes a folder and its label offset', async t => {
  const data = folderWith(t, gzipped(dataFiles(cyclicLabels(40, 26, 1), cyclicLabels(26, 26, 1))));
  await inTemporaryFolder(async cwd => {
    const train = ['train', 'mlp', '--max-steps', '2', '--json', '--data', data];
    const { code, stdout, stderr } = await lockstep([...train, '--label-offset', '1'], { cwd });
    assert.equal(code, 0, stderr);
    const { trainSamples, testSamples, parameters } = onlyEvent(eventsOf(stdout), 'start');
    assert.deepEqual([trainSamples, testSamples, parameters], [40, 26, 15_700 + 26 * 21]);
    const refused = await lockstep(train, { cwd });
    assert.equal(refused.code, 1);
    assert.match(onlyEvent(eventsOf(refused.stdout), 'error').message, /use --label-offset 1/);
  });
});

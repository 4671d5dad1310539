// IDX files of a test's making: images that tell their label, in a temporary folder.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { gzipSync } from 'node:zlib';

/** A file of big-endian words and then bytes. */
export function idxFile(words: readonly number[], bytes: ArrayLike<number> = []): Uint8Array {
  const made = new Uint8Array(4 * words.length + bytes.length);
  const view = new DataView(made.buffer);
  for (const [i, word] of words.entries()) view.setUint32(4 * i, word);
  made.set(bytes, 4 * words.length);
  return made;
}

export function labelsFile(labels: ArrayLike<number>): Uint8Array {
  return idxFile([0x801, labels.length], labels);
}

/** For each label an image that is black but for noise and a bright pixel that tells the label. */
export function imagesFile(labels: ArrayLike<number>, height = 28, width = height): Uint8Array {
  const size = height * width;
  const bytes = new Uint8Array(labels.length * size);
  for (let i = 0; i < bytes.length; i++) bytes[i] = i % 3 === 0 ? (i * 37) & 63 : 0;
  for (let s = 0; s < labels.length; s++) bytes[s * size + ((labels[s] * 29 + 7) % size)] = 255;
  return idxFile([0x803, labels.length, height, width], bytes);
}

/** `count` labels in which each class from `first` on is as often as the others. */
export function cyclicLabels(count: number, classes: number, first = 0): Uint8Array {
  return Uint8Array.from({ length: count }, (_, i) => first + (i % classes));
}

export type Files = Record<string, Uint8Array>;

export const names = {
  trainImages: 'train-images-idx3-ubyte',
  trainLabels: 'train-labels-idx1-ubyte',
  testImages: 't10k-images-idx3-ubyte',
  testLabels: 't10k-labels-idx1-ubyte',
} as const;

/** The four files of a dataset, named as MNIST's. */
export function dataFiles(train: ArrayLike<number>, test: ArrayLike<number>, side = 28): Files {
  return {
    [names.trainImages]: imagesFile(train, side),
    [names.trainLabels]: labelsFile(train),
    [names.testImages]: imagesFile(test, side),
    [names.testLabels]: labelsFile(test),
  };
}

export function gzipped(files: Files): Files {
  return Object.fromEntries(Object.entries(files).map(([name, file]) => [`${name}.gz`, gzipSync(file)]));
}

/** A folder that holds `files`, and is removed after the test. */
export function folderWith(t: TestContext, files: Files): string {
  const dir = mkdtempSync(join(tmpdir(), 'lockstep-data-'));
  t.after(() => rmSync(dir, { recursive: true }));
  for (const [name, file] of Object.entries(files)) writeFileSync(join(dir, name), file);
  return dir;
}

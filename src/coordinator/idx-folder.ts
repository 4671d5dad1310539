// Anyone's IDX files: which four of a folder make a dataset, and what it is.

import { readdirSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { createDataset, type Dataset, type LabelledImages, type SetName } from '../shared/dataset.js';
import { LockstepError, messageOf } from '../shared/errors.js';
import { statsOf } from './disk.js';
import {
  fail,
  parseIdxImages,
  parseIdxLabels,
  readIdxFile,
  type IdxImages,
  type IdxKind,
  type IdxPaths,
} from './idx.js';

interface Role {
  readonly kind: IdxKind;
  readonly what: string;
  readonly pattern: string;
  readonly matches: (name: string) => boolean;
}

/** A name that says train is no test file whatever else it says: "latest-train-images" holds the word test. */
function roleOf(set: SetName, kind: IdxKind): Role {
  if (set === 'train') {
    const isTrain = new RegExp(`train.*${kind}`, 'i');
    return {
      kind,
      what: `training ${kind}`,
      pattern: `*train*${kind}*`,
      matches: name => isTrain.test(name),
    };
  }
  const isKind = new RegExp(kind, 'i');
  return {
    kind,
    what: `test ${kind}`,
    pattern: `*t10k*${kind}* or *test*${kind}*`,
    matches: name => /t10k|test/i.test(name) && isKind.test(name) && !/train/i.test(name),
  };
}

const roles = {
  train: { images: roleOf('train', 'images'), labels: roleOf('train', 'labels') },
  test: { images: roleOf('test', 'images'), labels: roleOf('test', 'labels') },
};

/**
 * The four files of a dataset, by their names; case does not matter, hidden files and folders are passed over. A file
 * and its packed copy (`x` and `x.gz`) count as one if they hold the same bytes.
 * @throws LOCKSTEP_DATA_MISSING, LOCKSTEP_DATA_AMBIGUOUS, and what reading throws
 */
export function findIdxFiles(dir: string): IdxPaths {
  const entries = list(dir);
  const isFolder = (name: string): boolean => statsOf(join(dir, name))?.isDirectory() ?? false;
  const names = entries.filter(name => !isFolder(name));
  const missing = Object.values(roles)
    .flatMap(ofSet => Object.values(ofSet))
    .filter(({ matches }) => !names.some(matches));
  if (missing.length > 0) {
    const wanted = missing.map(({ what, pattern }) => `the ${what} (${pattern})`).join(', ');
    const there = entries.map(name => (isFolder(name) ? `${name}/` : name));
    throw new LockstepError(
      'LOCKSTEP_DATA_MISSING',
      `The folder ${dir} has no file for ${wanted}. ${there.length === 0 ? 'It is empty.' : `It has: ${few(there)}.`}`,
    );
  }
  const pathOf = (role: Role): string => join(dir, choose(dir, names.filter(role.matches), role));
  const { train, test } = roles;
  return {
    train: { images: pathOf(train.images), labels: pathOf(train.labels) },
    test: { images: pathOf(test.images), labels: pathOf(test.labels) },
  };
}

function list(dir: string): string[] {
  try {
    return readdirSync(dir)
      .filter(name => !name.startsWith('.'))
      .toSorted();
  } catch (cause) {
    throw new LockstepError(
      'LOCKSTEP_DATA_MISSING',
      `Cannot read the folder ${dir}: ${messageOf(cause)}. Name a folder that holds four IDX files.`,
      { cause },
    );
  }
}

function choose(dir: string, candidates: string[], { kind, what, pattern }: Role): string {
  if (candidates.length === 1) return candidates[0];
  const [plain, packed] = candidates.toSorted((a, b) => a.length - b.length);
  if (candidates.length === 2 && packed.toLowerCase() === `${plain}.gz`.toLowerCase()) {
    const [a, b] = [plain, packed].map(name => readIdxFile(join(dir, name), kind));
    if (Buffer.compare(a, b) === 0) return plain;
  }
  throw new LockstepError(
    'LOCKSTEP_DATA_AMBIGUOUS',
    `The folder ${dir} has ${candidates.length} files for the ${what} (${pattern}): ${few(candidates)}. ` +
      'Give every dataset a folder of its own, with one file of each kind.',
  );
}

function few(names: readonly string[]): string {
  const most = 20;
  const rest = names.length - most;
  return names.slice(0, most).join(', ') + (rest > 0 ? ` and ${rest} more` : '');
}

/**
 * The dataset of a folder. There are as many classes as the largest training label says, `labelOffset` taken off.
 * @throws LOCKSTEP_DATA_MISSING, LOCKSTEP_DATA_AMBIGUOUS, LOCKSTEP_DATA_FORMAT, LOCKSTEP_MEMORY
 */
export function loadIdxFolder(dir: string, labelOffset: number): Dataset {
  const paths = findIdxFiles(dir);
  const pairs = { train: readPair(paths, 'train'), test: readPair(paths, 'test') };
  const { height, width } = pairs.train.images;
  if (pairs.test.images.height !== height || pairs.test.images.width !== width) {
    fail(
      paths.test.images,
      `images of ${height} x ${width} pixels as in ${paths.train.images}`,
      `${pairs.test.images.height} x ${pairs.test.images.width}`,
    );
  }
  const smallest = Math.min(smallestOf(pairs.train.labels), smallestOf(pairs.test.labels));
  if (labelOffset === 0 && smallest === 1) {
    fail(paths.train.labels, 'labels from 0', 'labels from 1: use --label-offset 1');
  }
  const set = (name: SetName): LabelledImages => {
    const { images, labels } = pairs[name];
    const wrong = labels.findIndex(label => label < labelOffset);
    if (wrong >= 0) {
      const expected = `labels from ${labelOffset}, as --label-offset says`;
      fail(paths[name].labels, expected, `label ${labels[wrong]} at sample ${wrong}`);
    }
    return { images: images.bytes, labels: Uint8Array.from(labels, label => label - labelOffset) };
  };
  const [train, test] = [set('train'), set('test')];
  const classes = 1 + largestOf(train.labels);
  const unknown = test.labels.findIndex(label => label >= classes);
  if (unknown >= 0) {
    const found = `label ${test.labels[unknown] + labelOffset} at sample ${unknown}`;
    const expected = `labels up to ${classes - 1 + labelOffset}, the largest in ${paths.train.labels}`;
    fail(paths.test.labels, expected, found);
  }
  return createDataset({
    name: basename(resolve(dir)),
    shape: { height, width, channels: 1 },
    classes,
    train,
    test,
  });
}

function readPair(paths: IdxPaths, set: SetName): { images: IdxImages; labels: Uint8Array } {
  const { images: imagesPath, labels: labelsPath } = paths[set];
  const images = parseIdxImages(readIdxFile(imagesPath, 'images'), imagesPath);
  const labels = parseIdxLabels(readIdxFile(labelsPath, 'labels'), labelsPath);
  if (labels.length !== images.count) {
    fail(labelsPath, `${images.count} labels, one for each image of ${imagesPath}`, `${labels.length}`);
  }
  return { images, labels };
}

function smallestOf(labels: Uint8Array): number {
  return labels.reduce((smallest, label) => Math.min(smallest, label), 255);
}

function largestOf(labels: Uint8Array): number {
  return labels.reduce((largest, label) => Math.max(largest, label), 0);
}

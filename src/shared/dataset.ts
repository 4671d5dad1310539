// A dataset in memory, its digest, and the normalization constants that training uses.

import * as v from 'valibot';
import { LockstepError } from './errors.js';
import { canonicalJson, sha256 } from './hash.js';
import { sizeOf, type Shape } from './shape.js';

export interface LabelledImages {
  /** `labels.length` images of `height * width * channels` bytes each. */
  readonly images: Uint8Array;
  readonly labels: Uint8Array;
}

export interface Dataset {
  readonly name: string;
  /** SHA-256 over the canonical JSON of shape, classes and the SHA-256 of each of the four byte arrays. */
  readonly digest: string;
  readonly shape: Shape;
  readonly classes: number;
  readonly train: LabelledImages;
  readonly test: LabelledImages;
}

const extent = v.pipe(
  v.number('a whole number'),
  v.integer('a whole number'),
  v.minValue(1, 'at least 1'),
  v.maxValue(65_536, 'at most 65536'),
);
const bytes = v.instance(Uint8Array, 'a Uint8Array');
const labelledImages = v.object({ images: bytes, labels: bytes }, 'an object with images and labels');

const datasetContentSchema = v.object(
  {
    name: v.optional(v.string('a text'), 'arrays'),
    shape: v.object({ height: extent, width: extent, channels: extent }, 'height, width and channels'),
    classes: v.pipe(extent, v.maxValue(256, 'at most 256')),
    train: labelledImages,
    test: labelledImages,
  },
  'an object with shape, classes, train and test',
);

/** A dataset as a caller of the library hands it over. */
export type DatasetContent = Omit<Dataset, 'digest' | 'name'> & { readonly name?: string };

/** @throws LOCKSTEP_DATA_FORMAT naming what is not as it should be */
export function datasetFromArrays(content: DatasetContent): Dataset {
  const parsed = v.safeParse(datasetContentSchema, content);
  if (parsed.success) return createDataset(parsed.output);
  const [issue] = parsed.issues;
  throw new LockstepError(
    'LOCKSTEP_DATA_FORMAT',
    `The dataset's ${v.getDotPath(issue) ?? 'content'} is ${issue.received}, expected ${issue.message}.`,
  );
}

export type SetName = 'train' | 'test';

/** Of one set. So many are permuted exactly, see `permutation`, and leave losses a bound far above healthy ones. */
export const MOST_SAMPLES = 2_097_152;

/**
 * Checks the content and digests it.
 * @throws LOCKSTEP_DATA_FORMAT for a set that is empty or too large, images and labels of different counts, and labels
 * that are no class
 */
export function createDataset(content: Omit<Dataset, 'digest'>): Dataset {
  const { shape, classes, train, test } = content;
  for (const [name, { images, labels }] of Object.entries({ train, test })) {
    const fail = (what: string): never => {
      throw new LockstepError('LOCKSTEP_DATA_FORMAT', `The ${name} set of ${content.name} ${what}.`);
    };
    if (labels.length === 0) fail('is empty');
    if (labels.length > MOST_SAMPLES) fail(`has ${labels.length} samples, and ${MOST_SAMPLES} are possible`);
    if (images.length !== labels.length * sizeOf(shape)) {
      fail(`has ${labels.length} labels and ${images.length / sizeOf(shape)} images`);
    }
    const wrong = labels.findIndex(label => label >= classes);
    if (wrong >= 0)
      fail(`has label ${labels[wrong]} at sample ${wrong}, and ${classes} classes counted from 0`);
  }
  const digests = [train.images, train.labels, test.images, test.labels].map(sha256);
  return { ...content, digest: sha256(canonicalJson({ shape, classes, digests })) };
}

/** Classes of which there is nothing to learn from. */
export function emptyClasses({ classes, train }: Dataset): number[] {
  const seen = new Set(train.labels);
  return Array.from({ length: classes }, (_, label) => label).filter(label => !seen.has(label));
}

/** A pixel byte b means b * scale - shift: mean 0, variance 1 over the training set. */
export interface Normalization {
  readonly scale: number;
  readonly shift: number;
}

/**
 * From exact integer sums over all training pixels; images of one gray value are only shifted. Four blank pixels at once
 * are passed over: most are, and they add nothing to the sums.
 */
export function normalizationOf(images: Uint8Array): Normalization {
  const histogram = new Uint32Array(256);
  const count = (from: number, to: number): void => {
    for (let i = from; i < to; i++) histogram[images[i]]++;
  };
  const { buffer, byteOffset, length } = images;
  const head = length < 4 ? length : -byteOffset & 3;
  const words =
    length < 4 ? new Uint32Array() : new Uint32Array(buffer, byteOffset + head, (length - head) >> 2);
  count(0, head);
  for (let w = 0, at = head; w < words.length; w++, at += 4) if (words[w] !== 0) count(at, at + 4);
  count(head + words.length * 4, length);
  let sum = 0;
  let squares = 0;
  for (let value = 1; value < 256; value++) {
    sum += value * histogram[value];
    squares += value * value * histogram[value];
  }
  const mean = sum / images.length;
  const variance = squares / images.length - mean * mean;
  const deviation = variance > 0 ? Math.sqrt(variance) : 1;
  return { scale: Math.fround(1 / deviation), shift: Math.fround(mean / deviation) };
}

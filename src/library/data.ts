// What a dataset holds, for people.

import { dataPaths, loadData } from '../coordinator/data.js';
import { readDataFile, type IdxKind } from '../coordinator/idx.js';
import type { SetName } from '../shared/dataset.js';
import { sha256 } from '../shared/hash.js';
import { resolveSettings } from '../shared/settings.js';
import { sizeOf, type Shape } from '../shared/shape.js';
import { shardsOf, type Shard } from '../shared/shards.js';

export interface DataFile {
  readonly path: string;
  /** Of the file as it is, packed or not. */
  readonly sizeBytes: number;
  readonly sha256: string;
}

export interface SetDescription {
  readonly samples: number;
  /** Samples of each class. */
  readonly perClass: readonly number[];
  readonly files: Readonly<Record<IdxKind, DataFile>>;
}

/** A training image. */
export interface Example {
  readonly class: number;
  /** Its index in the training set. */
  readonly sample: number;
  /** Rows of gray values. */
  readonly pixels: Uint8Array;
}

export interface DataDescription {
  readonly name: string;
  /** What decides bits: shape, classes and the bytes of all images and labels. */
  readonly digest: string;
  readonly shape: Shape;
  readonly classes: number;
  readonly sets: Readonly<Record<SetName, SetDescription>>;
  readonly shards: readonly Shard[];
  /** The first image of each class that has one. */
  readonly examples: readonly Example[];
}

/**
 * The dataset of the folder `dir`, or MNIST.
 * @throws LOCKSTEP_BAD_SETTING, LOCKSTEP_DATA_MISSING, LOCKSTEP_DATA_AMBIGUOUS, LOCKSTEP_DATA_FORMAT,
 * LOCKSTEP_DATA_DIGEST, LOCKSTEP_MEMORY
 */
export function describeData(dir?: string, labelOffset = 0): DataDescription {
  const { data } = resolveSettings({ ...(dir !== undefined && { data: dir }), labelOffset });
  const dataset = loadData(data, labelOffset);
  const { name, digest, shape, classes, train } = dataset;
  const paths = dataPaths(data);
  const set = (of: SetName): SetDescription => {
    const { labels } = dataset[of];
    const perClass = Array.from({ length: classes }, () => 0);
    for (const label of labels) perClass[label]++;
    const { images, labels: labelsPath } = paths[of];
    return {
      samples: labels.length,
      perClass,
      files: { images: describeFile(images), labels: describeFile(labelsPath) },
    };
  };
  const size = sizeOf(shape);
  const examples = Array.from({ length: classes }, (_, label) => train.labels.indexOf(label)).flatMap(
    (sample, label) =>
      sample < 0
        ? []
        : [{ class: label, sample, pixels: train.images.slice(sample * size, (sample + 1) * size) }],
  );
  return {
    name,
    digest,
    shape,
    classes,
    sets: { train: set('train'), test: set('test') },
    shards: shardsOf(dataset),
    examples,
  };
}

function describeFile(path: string): DataFile {
  const file = readDataFile(path);
  return { path, sizeBytes: file.length, sha256: sha256(file) };
}

// Shards: fixed slices of a dataset, each named by the SHA-256 of its bytes; the unit of transfer and caching.

import type { Dataset, SetName } from './dataset.js';
import { sha256 } from './hash.js';
import { datasetOrder } from './schedule.js';
import { sizeOf, type Shape } from './shape.js';

const MOST_SAMPLES = 1024;
/** So that a shard fits a frame, whatever the images; a single one may have more. */
const MOST_BYTES = 8_388_608;

/** Samples of a shard of images of this shape; the last shard of a set may have fewer. */
export function shardSamples(shape: Shape): number {
  return Math.max(1, Math.min(MOST_SAMPLES, Math.floor(MOST_BYTES / (sizeOf(shape) + 1))));
}

export interface Shard {
  readonly set: SetName;
  /** Position of its first sample. */
  readonly from: number;
  readonly samples: number;
  readonly sizeBytes: number;
  readonly sha256: string;
}

/**
 * All shards: the training set in the dataset's order, the test set as it is. They follow from the dataset alone; tests
 * have other ones of `most` samples.
 */
export function shardsOf(dataset: Dataset, most = shardSamples(dataset.shape)): Shard[] {
  const order = datasetOrder(dataset.digest, dataset.train.labels.length);
  const shards: Shard[] = [];
  for (const set of ['train', 'test'] as const) {
    const { length } = dataset[set].labels;
    for (let from = 0; from < length; from += most) {
      const samples = Math.min(most, length - from);
      const bytes = shardBytes(dataset, order, { set, from, samples });
      shards.push({ set, from, samples, sizeBytes: bytes.length, sha256: sha256(bytes) });
    }
  }
  return shards;
}

/** What a shard is: the images of its samples, then their labels. `order` is the dataset's, see `datasetOrder`. */
export function shardBytes(
  dataset: Dataset,
  order: Uint32Array,
  { set, from, samples }: Pick<Shard, 'set' | 'from' | 'samples'>,
): Uint8Array<ArrayBuffer> {
  const size = sizeOf(dataset.shape);
  const { images, labels } = dataset[set];
  const bytes = new Uint8Array(samples * (size + 1));
  for (let i = 0; i < samples; i++) {
    const index = set === 'train' ? order[from + i] : from + i;
    bytes.set(images.subarray(index * size, (index + 1) * size), i * size);
    bytes[samples * size + i] = labels[index];
  }
  return bytes;
}

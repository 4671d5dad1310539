// Shards: fixed slices of a dataset, each named by the SHA-256 of its bytes; the unit of transfer and caching.

import type { Dataset, SetName } from './dataset.js';
import { sha256 } from './hash.js';
import { datasetOrder } from './schedule.js';
import { sizeOf } from './shape.js';

/** Samples of a shard; the last one of a set may have fewer. */
export const SHARD_SAMPLES = 1024;

export interface Shard {
  readonly set: SetName;
  /** Position of its first sample. */
  readonly from: number;
  readonly samples: number;
  readonly sizeBytes: number;
  readonly sha256: string;
}

/** All shards: the training set in the dataset's order, the test set as it is. They follow from the dataset alone. */
export function shardsOf(dataset: Dataset): Shard[] {
  const order = datasetOrder(dataset.digest, dataset.train.labels.length);
  const shards: Shard[] = [];
  for (const set of ['train', 'test'] as const) {
    const { length } = dataset[set].labels;
    for (let from = 0; from < length; from += SHARD_SAMPLES) {
      const samples = Math.min(SHARD_SAMPLES, length - from);
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

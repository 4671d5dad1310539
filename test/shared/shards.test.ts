// Shards: every sample in exactly one, under a name that follows from its bytes.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { datasetFromArrays } from '#dist/shared/dataset.js';
import { datasetOrder } from '#dist/shared/schedule.js';
import { shardBytes, shardSamples, shardsOf } from '#dist/shared/shards.js';
import { tinyDataset } from '../support/tiny.js';

const dataset = tinyDataset(2500);
const size = 63;

test('shards are slices of 1,024 samples; the last of each set has the rest', () => {
  assert.equal(shardSamples(dataset.shape), 1024);
  assert.deepEqual(
    shardsOf(dataset).map(({ set, from, samples, sizeBytes }) => [set, from, samples, sizeBytes]),
    [
      ['train', 0, 1024, 1024 * (size + 1)],
      ['train', 1024, 1024, 1024 * (size + 1)],
      ['train', 2048, 452, 452 * (size + 1)],
      ['test', 0, 50, 50 * (size + 1)],
    ],
  );
  assert.deepEqual(
    shardsOf(tinyDataset(1024)).map(({ samples }) => samples),
    [1024, 50],
  );
});

test('shards of large images have fewer samples, and at least one', () => {
  for (const [height, width, channels, samples] of [
    [28, 28, 1, 1024],
    [1, 8191, 1, 1024],
    [1, 8192, 1, 1023],
    [512, 512, 3, 10],
    [65_536, 65_536, 4, 1],
  ]) {
    assert.equal(shardSamples({ height, width, channels }), samples);
  }
  const large = datasetFromArrays({
    shape: { height: 1024, width: 1024, channels: 3 },
    classes: 2,
    train: { images: new Uint8Array(7 * 3_145_728), labels: new Uint8Array(7) },
    test: { images: new Uint8Array(3_145_728), labels: new Uint8Array(1) },
  });
  assert.deepEqual(
    shardsOf(large).map(({ set, from, samples, sizeBytes }) => [set, from, samples, sizeBytes]),
    [
      ['train', 0, 2, 6_291_458],
      ['train', 2, 2, 6_291_458],
      ['train', 4, 2, 6_291_458],
      ['train', 6, 1, 3_145_729],
      ['test', 0, 1, 3_145_729],
    ],
  );
});

test('a shard is named by its images and labels, the training set in the order of the dataset', () => {
  const order = datasetOrder(dataset.digest, 2500);
  for (const { set, from, samples, sha256 } of shardsOf(dataset)) {
    const { images, labels } = dataset[set];
    const indexes = Array.from({ length: samples }, (_, i) => (set === 'train' ? order[from + i] : from + i));
    const hash = createHash('sha256');
    for (const index of indexes) hash.update(images.subarray(index * size, (index + 1) * size));
    hash.update(Uint8Array.from(indexes, index => labels[index]));
    assert.equal(sha256, hash.digest('hex'), `${set} from ${from}`);
    const bytes = shardBytes(dataset, order, { set, from, samples });
    assert.equal(createHash('sha256').update(bytes).digest('hex'), sha256);
  }
});

test('shards follow from the content, not from the name', () => {
  assert.deepEqual(shardsOf({ ...dataset, name: 'other' }), shardsOf(dataset));
  const changed = tinyDataset(2500, (_, images) => (images[100] ^= 1));
  assert.notDeepEqual(shardsOf(changed), shardsOf(dataset));
});

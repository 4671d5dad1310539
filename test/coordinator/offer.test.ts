// What a joining node is sent is what the schemas say, and is encoded once for all.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { offerOf } from '#dist/coordinator/offer.js';
import { decode } from '#dist/shared/codec.js';
import { sha256 } from '#dist/shared/hash.js';
import { formatHash } from '#dist/shared/hash.js';
import { jobHash } from '#dist/shared/settings.js';
import { shardsOf } from '#dist/shared/shards.js';
import { tinyDataset, tinyJob } from '../support/tiny.js';

const incarnation = '0123456789abcdef';
/** Three training shards and one of the test set. */
const dataset = tinyDataset(3000);
const job = tinyJob({}, dataset);

test('the job', () => {
  const offer = offerOf(job, dataset, incarnation);
  const message = decode(offer.jobFrame, 'agent', 1e9);
  assert.ok(message.type === 'job');
  assert.equal(message.run, formatHash(jobHash(job)));
  assert.equal(message.incarnation, incarnation);
  assert.deepEqual(message.model, job.model.spec);
  assert.deepEqual([message.batch, message.leaf, message.seed], [24, 3, 1]);
  assert.deepEqual(message.samples, { train: 3000, test: 50 });
  assert.deepEqual(message.shape, dataset.shape);
  assert.deepEqual(message.normalization, job.normalization);
  assert.equal(offer.shardCount, 4);
  assert.deepEqual(
    message.shards,
    shardsOf(dataset).map(({ set, from, samples, sha256: digest }) => ({
      set,
      from,
      samples,
      sha256: digest,
    })),
  );
});

test('the name of a dataset is told without what a terminal would obey, and not for ever', () => {
  const { jobFrame } = offerOf(job, { ...dataset, name: `my\x1b[2J\ndata${'.'.repeat(2000)}` }, incarnation);
  const message = decode(jobFrame, 'agent', 1e9);
  assert.ok(message.type === 'job' && message.dataset.name.startsWith('my [2J data.'));
  assert.equal(message.dataset.name.length, 1000);
});

test('shards have the digests that the job names', () => {
  const { shardCount, shardFrame } = offerOf(job, dataset, incarnation);
  const shards = shardsOf(dataset);
  for (let index = 0; index < shardCount; index++) {
    const message = decode(shardFrame(index), 'agent', 1e9);
    assert.ok(message.type === 'shard');
    assert.equal(message.index, index);
    assert.equal(sha256(message.data), shards[index].sha256);
  }
});

test('shards of another size, where a test wants many', () => {
  const shards = shardsOf(dataset, 100);
  const { jobFrame, shardCount, largestShardBytes, shardFrame } = offerOf(job, dataset, incarnation, {
    shards,
  });
  assert.deepEqual([shardCount, largestShardBytes], [31, 6400]);
  const message = decode(jobFrame, 'agent', 1e9);
  const last = decode(shardFrame(29), 'agent', 1e9);
  assert.ok(message.type === 'job' && last.type === 'shard');
  assert.equal(sha256(last.data), message.shards[29].sha256);
  assert.deepEqual([message.shards[29].from, message.shards[29].samples], [2900, 100]);
});

test('a shard is encoded once, and only so much is kept', () => {
  const roomy = offerOf(job, dataset, incarnation);
  assert.equal(roomy.shardFrame(1), roomy.shardFrame(1));
  const [first] = shardsOf(dataset);
  // There is room for two.
  const tight = offerOf(job, dataset, incarnation, { keptBytes: 2.5 * first.sizeBytes });
  const frames = [0, 1].map(index => tight.shardFrame(index));
  assert.equal(tight.shardFrame(0), frames[0]);
  tight.shardFrame(2);
  // 1 was asked for longest ago.
  assert.equal(tight.shardFrame(0), frames[0]);
  assert.notEqual(tight.shardFrame(1), frames[1]);
  // One that is larger than what is kept is made each time and given all the same.
  const none = offerOf(job, dataset, incarnation, { keptBytes: 0 });
  assert.deepEqual(none.shardFrame(1), frames[1]);
});

// What a joining node is sent: the job, and the shards under its lanes, each encoded once for all who ask.

import { encode } from '../shared/codec.js';
import type { Dataset } from '../shared/dataset.js';
import { formatHash } from '../shared/hash.js';
import { leafJobOf } from '../shared/leaf-job.js';
import { MOST_NAME, plainText } from '../shared/messages.js';
import { datasetOrder } from '../shared/schedule.js';
import { jobHash, type Job } from '../shared/settings.js';
import { shardBytes, shardsOf, type Shard } from '../shared/shards.js';

const KEPT_BYTES = 64_000_000;

export interface Offer {
  readonly jobFrame: Uint8Array;
  readonly shardCount: number;
  readonly largestShardBytes: number;
  /** @throws RangeError if there is no such shard */
  shardFrame(this: void, index: number): Uint8Array;
}

export interface OfferOptions {
  /** Whether nodes of other arithmetics may compute too. */
  readonly isMixed?: boolean;
  /** Of encoded shards, kept for the next node that asks. */
  readonly keptBytes?: number;
  /** Other slices of the dataset than it usually has. */
  readonly shards?: readonly Shard[];
}

/** `incarnation`: 16 hexadecimal digits, drawn by this process. */
export function offerOf(
  job: Job,
  dataset: Dataset,
  incarnation: string,
  { keptBytes = KEPT_BYTES, shards = shardsOf(dataset), isMixed = false }: OfferOptions = {},
): Offer {
  const { model, normalization, samples, batch, leaf, seed, engine, profile } = leafJobOf(job, dataset);
  const order = datasetOrder(dataset.digest, dataset.train.labels.length);
  const jobFrame = encode({
    type: 'job',
    run: formatHash(jobHash(job)),
    incarnation,
    model: model.spec,
    shape: dataset.shape,
    classes: dataset.classes,
    normalization,
    samples,
    batch,
    leaf,
    seed,
    engine,
    profile,
    isMixed,
    dataset: { name: plainText(dataset.name, MOST_NAME), digest: dataset.digest },
    shards: shards.map(({ set, from, samples: count, sha256 }) => ({ set, from, samples: count, sha256 })),
  });
  const kept = new LeastRecent(keptBytes, index => {
    const data = shardBytes(dataset, order, shards[index]);
    return encode({ type: 'shard', index, data });
  });
  return {
    jobFrame,
    shardCount: shards.length,
    largestShardBytes: Math.max(...shards.map(({ sizeBytes }) => sizeBytes)),
    shardFrame: index => kept.get(index),
  };
}

/** Frames by number, made when they are asked for; those that were not asked for longest go first. */
class LeastRecent {
  readonly #mostBytes: number;
  readonly #make: (index: number) => Uint8Array;
  /** In the order in which they were asked for last. */
  readonly #frames = new Map<number, Uint8Array>();
  #bytes = 0;

  constructor(mostBytes: number, make: (index: number) => Uint8Array) {
    this.#mostBytes = mostBytes;
    this.#make = make;
  }

  get(index: number): Uint8Array {
    const held = this.#frames.get(index);
    const frame = held ?? this.#make(index);
    if (held) this.#frames.delete(index);
    else this.#bytes += frame.length;
    this.#frames.set(index, frame);
    for (const [other, { length }] of this.#frames) {
      if (this.#bytes <= this.#mostBytes || other === index) break;
      this.#frames.delete(other);
      this.#bytes -= length;
    }
    return frame;
  }
}

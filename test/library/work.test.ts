// `work` with everything real: threads, network, cache. The coordinator is the test, which knows what each part sums to.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { join } from 'node:path';
import { offerOf } from '#dist/coordinator/offer.js';
import { startServer } from '#dist/coordinator/server.js';
import { work } from '#dist/library/index.js';
import { systemClock } from '#dist/shared/clock.js';
import { bytesOf, decode, encode } from '#dist/shared/codec.js';
import type { Connection } from '#dist/shared/connection.js';
import { initialWeights } from '#dist/shared/initial-weights.js';
import { formatHash } from '#dist/shared/hash.js';
import { formatJoin } from '#dist/shared/join.js';
import type { Message, MessageOf, ToCoordinator } from '#dist/shared/messages.js';
import { SumsPacker } from '#dist/shared/packed-sums.js';
import { systemRandom } from '#dist/shared/random.js';
import { jobHash } from '#dist/shared/settings.js';
import { inTemporaryFolder } from '../support/cli.js';
import { createTinyPool, tinyDataset, tinyJob } from '../support/tiny.js';

/** More than one shard. */
const dataset = tinyDataset(2500);
const job = tinyJob({ batch: 24, leaf: 3 }, dataset);
const { model, lanes } = job;
const run = formatHash(jobHash(job));
const incarnation = '0000000000000001';
const offer = offerOf(job, dataset, incarnation);
const weights = '00000000000000bb';
const values = initialWeights(model, 1).subarray(0, model.parameterCount);

const tasks = [
  { kind: 'gradient', set: 'train' },
  { kind: 'evaluate', set: 'train' },
  { kind: 'evaluate', set: 'test' },
] as const;
const parts = [
  { from: 0, to: 3 },
  { from: 3, to: lanes },
];

/** Coordinates for whoever connects: prepares the node for all lanes and takes a sum of every part of every task. */
class Coordinator {
  readonly sums: MessageOf<'sum'>[] = [];
  fetched = 0;
  /** So many connections are cut when their first sum has come. */
  cuts = 0;
  hasLeft = false;
  /** Called when the node holds its shards. */
  onPrepared: (() => void) | undefined;
  readonly #connections = new Set<Connection>();

  take(connection: Connection): void {
    this.#connections.add(connection);
    const say = (message: Message): void => connection.send(encode(message));
    connection.onClose = () => this.#connections.delete(connection);
    connection.onFrame = frame => this.#answer(decode(frame, 'coordinator', 1_000_000), say, connection);
  }

  #answer(message: ToCoordinator, say: (message: Message) => void, connection: Connection): void {
    switch (message.type) {
      case 'hello':
        return connection.send(offer.jobFrame);
      case 'checked':
        return say({ type: 'plan', plan: 1, from: 0, to: lanes });
      case 'fetch':
        for (const index of message.shards) {
          this.fetched++;
          connection.send(offer.shardFrame(index));
        }
        return;
      case 'prepared':
        this.onPrepared?.();
        say({ type: 'weights', step: 0, weights, data: bytesOf(values) });
        return this.#lease(say);
      case 'sum':
        if (this.cuts > 0) {
          this.cuts--;
          return connection.destroy('a test');
        }
        this.sums.push(message);
        if (this.sums.length === tasks.length * parts.length) {
          return say({ type: 'end', code: '', message: '' });
        }
        if (this.sums.length % parts.length === 0) this.#lease(say);
        return;
      case 'leave':
        this.hasLeft = true;
        return;
      case 'bad-leaf':
      case 'pong':
        throw new Error(`an agent sent ${message.type}`);
    }
  }

  #lease(say: (message: Message) => void): void {
    const task = tasks[Math.floor(this.sums.length / parts.length)];
    say({ type: 'lease', run, incarnation, step: 0, weights, ...task, parts });
  }
}

async function workFor(
  coordinator: Coordinator,
  isInsecure: boolean,
  cacheDir: string,
  signal?: AbortSignal,
) {
  const key = { id: '00112233aabbccdd', secret: systemRandom(32) };
  const limits = { clock: systemClock, random: systemRandom, maxFrameBytes: 1_000_000 };
  const door = await startServer({
    ...limits,
    host: '127.0.0.1',
    port: 0,
    key,
    isInsecure,
    onConnection: connection => coordinator.take(connection),
  });
  try {
    const line = formatJoin({ ...door.address, key, isEncrypted: !isInsecure });
    return await work(line, {
      workers: 2,
      name: 'tiny',
      cacheDir,
      signal,
      onWarning: message => assert.fail(message),
    });
  } finally {
    await door.close();
  }
}

test('parts come out as they do in the pool of the coordinator, over both kinds of connection, and shards once', async () => {
  await inTemporaryFolder(async dir => {
    const cacheDir = join(dir, 'shards');
    const encrypted = new Coordinator();
    const first = await workFor(encrypted, false, cacheDir);
    assert.deepEqual(
      [first.end, first.parts, first.shardsFetched, first.shardsFromCache, first.reconnections],
      ['finished', 6, offer.shardCount, 0, 0],
    );

    // Cut in the middle of its work, and joined again, with what the node holds.
    const insecure = new Coordinator();
    insecure.cuts = 1;
    const second = await workFor(insecure, true, cacheDir);
    assert.deepEqual(
      [second.end, second.shardsFetched, second.shardsFromCache, second.reconnections, insecure.fetched],
      ['finished', 0, offer.shardCount, 1, 0],
    );

    const pool = await createTinyPool({ job, dataset, threads: 1 });
    try {
      for (const [i, task] of tasks.entries()) {
        for (const [j, part] of parts.entries()) {
          const { gradient, lossSum, correct, samples } = await pool.compute({ ...task, step: 0 }, part);
          const packer = new SumsPacker(model.parameterCount);
          const expected = task.kind === 'gradient' ? packer.pack(gradient) : new Uint8Array(0);
          for (const { sums } of [encrypted, insecure]) {
            const sum = sums[i * parts.length + j];
            assert.deepEqual(
              [sum.kind, sum.set, sum.part, sum.lossSum, sum.correct, sum.samples],
              [task.kind, task.set, part, lossSum, correct, samples],
            );
            assert.deepEqual(Buffer.from(sum.gradient), Buffer.from(expected));
          }
        }
      }
    } finally {
      await pool.close();
    }
  });
});

test('a node that is told to end says so to the coordinator, over both kinds of connection', async () => {
  await inTemporaryFolder(async dir => {
    for (const isInsecure of [false, true]) {
      const abort = new AbortController();
      const coordinator = new Coordinator();
      coordinator.onPrepared = () => abort.abort();
      const { end } = await workFor(coordinator, isInsecure, dir, abort.signal);
      assert.deepEqual([end, coordinator.hasLeft], ['left', true]);
    }
  });
});

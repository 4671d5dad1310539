// What the coordinator takes of a node, and what it does not: a node by hand against the real cluster.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Cluster } from '#dist/coordinator/cluster.js';
import { offerOf } from '#dist/coordinator/offer.js';
import { decode, encode } from '#dist/shared/codec.js';
import type { RunEventBody } from '#dist/shared/events.js';
import { formatHash } from '#dist/shared/hash.js';
import { PROTOCOL_VERSION, type Message, type MessageOf, type ToAgent } from '#dist/shared/messages.js';
import { initialState } from '#dist/shared/node.js';
import { SumsPacker } from '#dist/shared/packed-sums.js';
import { Schedule } from '#dist/shared/schedule.js';
import { jobHash } from '#dist/shared/settings.js';
import { shardsOf } from '#dist/shared/shards.js';
import { standInDataset, standInJob, StandInLocalNode } from '../support/stand-in.js';
import { Link, Process, World } from '../support/world.js';

const MAX_FRAME_BYTES = 100_000;
const digests: [string, string, string] = ['0'.repeat(16), '1'.repeat(16), '2'.repeat(16)];
const incarnation = 'c'.repeat(16);
const dataset = standInDataset(64, 16, 1);
const job = standInJob(dataset, 8, 2, 1);
const { parameterCount } = job.model;

/** A coordinator that computes nothing, in a simulated world, and one connection to it. */
class Bench {
  readonly world = new World();
  readonly told: RunEventBody[] = [];
  readonly cluster: Cluster;
  readonly #sent: ToAgent[] = [];
  readonly #near: Process;
  readonly #far: Process;
  readonly #link: Link;
  /** Why the connection has ended. */
  ended: string | undefined;
  training: Promise<unknown> | undefined;

  constructor() {
    this.#near = new Process(this.world, 0);
    this.#far = new Process(this.world, 5000);
    const from = { ...initialState(job), hash: jobHash(job) };
    const offer = offerOf(job, dataset, incarnation, { shards: shardsOf(dataset, 16) });
    this.cluster = new Cluster({
      ...offer,
      job,
      samples: { train: 64, test: 16 },
      own: new StandInLocalNode(this.#far, 0, 1, job, dataset, from),
      from,
      incarnation,
      maxFrameBytes: MAX_FRAME_BYTES,
      audit: 0,
      patienceMs: Infinity,
      reference: async () => ({ profile: 'f32', digests }),
      clock: this.#far.clock,
      random: () => 0.5,
      afterInput: action => this.#far.afterInput(action),
      emit: event => this.told.push(event),
      onGiveUp: () => {},
    });
    this.#link = new Link(this.world, this.#near, this.#far, { delayMs: 1, bytesPerMs: 1_000_000 });
    this.#link.a.onFrame = frame => this.#sent.push(decode(frame, 'agent', MAX_FRAME_BYTES));
    this.#link.a.onClose = reason => (this.ended = reason);
    this.cluster.accept(this.#link.b, 'a'.repeat(16));
  }

  async say(...messages: readonly Message[]): Promise<void> {
    for (const message of messages) this.#link.a.send(encode(message));
    await this.pass(5);
  }

  async pass(ms: number): Promise<void> {
    const endMs = this.world.nowMs + ms;
    this.world.at(endMs, undefined, () => {});
    await this.world.run(() => this.world.nowMs >= endMs, Infinity);
  }

  /** What the coordinator has sent of a type since this was asked last. */
  take<Type extends ToAgent['type']>(type: Type): MessageOf<Type>[] {
    const isWanted = (message: ToAgent): message is ToAgent & MessageOf<Type> => message.type === type;
    const taken = this.#sent.filter(isWanted);
    this.#sent.splice(0, this.#sent.length, ...this.#sent.filter(message => !isWanted(message)));
    return taken;
  }

  async join(): Promise<void> {
    await this.say(hello);
    await this.say({ type: 'checked', profile: 'f32', digests, leafMs: 1, shortMs: 1 });
  }

  /** Begins a step, and gives the lease of it. */
  async begin(): Promise<MessageOf<'lease'>> {
    const scalars = [{ stepSize: 1, secondMomentScale: 1, decayFactor: 1 }];
    this.training = this.cluster.train(0, scalars);
    this.training.catch(() => {});
    await this.pass(5);
    const [lease] = this.take('lease');
    return lease;
  }
}

const hello: MessageOf<'hello'> = {
  type: 'hello',
  protocol: PROTOCOL_VERSION,
  version: 'test',
  name: 'hand',
  threads: 1,
};

/** A sum of the first part of a lease, as it should be. */
function sumOf({ parts: [part], ...work }: MessageOf<'lease'>): MessageOf<'sum'> {
  const schedule = new Schedule({ samples: 64, seed: job.bits.seed, batch: 8, leaf: 2 });
  return {
    ...work,
    type: 'sum',
    part,
    lossSum: 1,
    correct: 0,
    samples: schedule.samplesInStep(0, part.from, part.to),
    computeMs: 1,
    gradient: new SumsPacker(parameterCount).pack(new Float64Array(parameterCount).fill(0.25)).slice(),
  };
}

function packed(component: number): Uint8Array {
  const gradient = new Float64Array(parameterCount);
  gradient[1] = component;
  return new SumsPacker(parameterCount).pack(gradient).slice();
}

test('a node that says all in order is told the job, joins, and gets the weights before its first lease', async () => {
  const bench = new Bench();
  await bench.say(hello);
  assert.equal(bench.take('job')[0].run, formatHash(jobHash(job)));
  assert.deepEqual(
    bench.told.map(({ type }) => type),
    [],
  );
  await bench.say({ type: 'checked', profile: 'f32', digests, leafMs: 1, shortMs: 1 });
  assert.deepEqual(
    bench.told.map(({ type }) => type),
    ['node-joined'],
  );
  const lease = await bench.begin();
  const [weights] = bench.take('weights');
  assert.deepEqual([weights.step, weights.weights], [lease.step, lease.weights]);
  assert.equal(bench.ended, undefined);
});

const early: readonly Message[] = [
  { type: 'checked', profile: 'f32', digests, leafMs: 1, shortMs: 1 },
  { type: 'prepared', plan: 1 },
  { type: 'fetch', shards: [0] },
];
for (const message of early) {
  test(`${message.type} before hello ends the connection`, async () => {
    const bench = new Bench();
    await bench.say(message);
    assert.match(bench.ended ?? '', /out of order/);
    assert.deepEqual(
      bench.told.map(({ type }) => type),
      ['node-refused'],
    );
  });
}

test('a second hello, and a fetch before the check, end the connection', async () => {
  const unexpected: Message[] = [hello, { type: 'fetch', shards: [0] }];
  for (const message of unexpected) {
    const bench = new Bench();
    await bench.say(hello);
    await bench.say(message);
    assert.match(bench.ended ?? '', /out of order/);
  }
});

test('another protocol and other bits of the known leaves are refused for good', async () => {
  const other = new Bench();
  await other.say({ ...hello, protocol: PROTOCOL_VERSION + 1 });
  assert.equal(other.take('end')[0].code, 'LOCKSTEP_PROTOCOL_VERSION');
  const wrong = new Bench();
  await wrong.say(hello);
  await wrong.say({
    type: 'checked',
    profile: 'f32',
    digests: [digests[0], digests[1], 'f'.repeat(16)],
    leafMs: 1,
    shortMs: 1,
  });
  assert.equal(wrong.take('end')[0].code, 'LOCKSTEP_PROFILE');
  assert.deepEqual(
    wrong.told.map(({ type }) => type),
    ['node-refused'],
  );
});

test('shards are sent as they are asked for, no more than 16 at once, and none that there is not', async () => {
  const bench = new Bench();
  await bench.join();
  await bench.say({ type: 'fetch', shards: [3, 0] });
  assert.deepEqual(
    bench.take('shard').map(({ index }) => index),
    [3, 0],
  );
  await bench.say({ type: 'fetch', shards: [5] });
  assert.match(bench.ended ?? '', /there is no shard 5/);
  const greedy = new Bench();
  await greedy.join();
  const all = Array.from({ length: 16 }, () => 0);
  await greedy.say({ type: 'fetch', shards: all });
  assert.equal(greedy.ended, undefined);
});

test('a step is complete with the sums of all parts, each counted once', async () => {
  const bench = new Bench();
  await bench.join();
  const lease = await bench.begin();
  for (const part of lease.parts) await bench.say(sumOf({ ...lease, parts: [part] }));
  const results = await bench.training;
  assert.ok(Array.isArray(results) && results.length === 1);
  assert.equal(bench.cluster.openLeases, 0);
});

const wrongSums: readonly [string, Partial<MessageOf<'sum'>>, RegExp][] = [
  ['too few components', { gradient: new Uint8Array(3) }, /cannot be read/],
  ['a component beyond its bound', { gradient: packed(70_000) }, /is no sum/],
  ['a component that is no number', { gradient: packed(NaN) }, /is no sum/],
  ['other samples', { samples: 1 }, /of 1 samples/],
  ['more found than there are', { correct: 2_000_000 }, /beyond its bound/],
  ['a loss beyond its bound', { lossSum: 1e12 }, /beyond its bound/],
  ['no lanes', { part: { from: 2, to: 2 } }, /no lanes/],
  ['lanes that there are not', { part: { from: 0, to: 99 } }, /no lanes/],
];
for (const [what, change, reason] of wrongSums) {
  test(`a sum with ${what} ends the connection, and its lanes are free`, async () => {
    const bench = new Bench();
    await bench.join();
    const lease = await bench.begin();
    await bench.say({ ...sumOf(lease), ...change });
    assert.match(bench.ended ?? '', reason);
    assert.equal(bench.cluster.openLeases, 0);
    assert.ok(bench.told.some(({ type }) => type === 'node-lost'));
  });
}

const foreign: readonly [string, Partial<MessageOf<'sum'>>][] = [
  ['another run', { run: 'd'.repeat(16) }],
  ['another incarnation', { incarnation: 'd'.repeat(16) }],
  ['other weights', { weights: 'd'.repeat(16) }],
  ['another step', { step: 1 }],
];
for (const [what, change] of foreign) {
  test(`a sum of ${what} is dropped and counted, and the connection stays`, async () => {
    const bench = new Bench();
    await bench.join();
    const lease = await bench.begin();
    const before = bench.cluster.openLeases;
    await bench.say({ ...sumOf(lease), ...change });
    assert.equal(bench.ended, undefined);
    assert.equal(bench.cluster.openLeases, before);
    assert.equal(bench.cluster.nodeReports()[0].dropped, 1);
  });
}

test('a node that leaves is gone at once, and its leases with it', async () => {
  const bench = new Bench();
  await bench.join();
  await bench.begin();
  await bench.say({ type: 'leave', reason: 'it was told to' });
  assert.equal(bench.cluster.openLeases, 0);
  assert.ok(
    bench.told.some(event => event.type === 'node-lost' && event.reason === 'it left: it was told to'),
  );
});

test('a node that says nothing at all is ended: after hello, and when it has joined', async () => {
  const mute = new Bench();
  await mute.pass(12_000);
  assert.match(mute.ended ?? '', /said no hello/);
  const silent = new Bench();
  await silent.join();
  await silent.pass(59_000);
  assert.equal(silent.ended, undefined);
  await silent.pass(4000);
  assert.match(silent.ended ?? '', /nothing was heard/);
});

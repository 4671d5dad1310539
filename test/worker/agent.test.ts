// The agent between a coordinator, a node and a clock that are the test.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LockstepError } from '#dist/shared/errors.js';
import { SumsPacker } from '#dist/shared/packed-sums.js';
import { sha256 } from '#dist/shared/hash.js';
import { MOST_FETCHES, MOST_PARTS, PROTOCOL_VERSION } from '#dist/shared/messages.js';
import { backoffMs } from '#dist/worker/agent.js';
import { SILENCE_MS } from '#dist/worker/session.js';
import {
  digests,
  FakeConnection,
  Harness,
  job,
  leaseOf,
  settle,
  shardBytes,
  shardOf,
  weightsOf,
} from '../support/agent-harness.js';

const refusal = (code: 'LOCKSTEP_KEY' | 'LOCKSTEP_BUILD') => new LockstepError(code, 'refused');

// Joining.

test('it says hello, checks its numerics, and starts no node before there is a plan or a lease', async () => {
  const agent = await Harness.start();
  assert.deepEqual(agent.connection.takeOne('hello'), {
    type: 'hello',
    protocol: PROTOCOL_VERSION,
    version: '0.1.0',
    name: 'here',
    threads: 2,
  });
  await agent.connection.say(job);
  assert.deepEqual(agent.connection.takeOne('checked'), {
    type: 'checked',
    profile: 'stand-in',
    digests,
    leafMs: 1.5,
    shortMs: 1,
  });
  assert.equal(agent.nodes.length, 0);
  await agent.connection.say({ type: 'plan', plan: 1, from: 0, to: 0 });
  assert.equal(agent.connection.takeOne('prepared').plan, 1);
  assert.equal(agent.nodes.length, 0);
  await agent.connection.say({ type: 'plan', plan: 2, from: 0, to: 1 });
  assert.equal(agent.nodes.length, 1);
  const [{ model, samples, batch, leaf, seed, profile }] = agent.jobs;
  assert.deepEqual(
    [model.parameterCount, samples, batch, leaf, seed, profile],
    [10, job.samples, 8, 2, 1, 'stand-in'],
  );
});

test('pings are answered from the first moment', async () => {
  const agent = await Harness.start();
  agent.connection.takeOne('hello');
  await agent.connection.say({ type: 'ping', sentMs: 12.5 });
  assert.deepEqual(agent.connection.take(), [{ type: 'pong', sentMs: 12.5 }]);
});

test('another arithmetic is final, and the coordinator hears of it', async () => {
  const agent = await Harness.start();
  agent.connection.takeOne('hello');
  await agent.connection.say({ ...job, profile: 'lockstep-f32-99' });
  agent.connection.takeOne('leave');
  assert.ok(agent.error instanceof LockstepError);
  assert.equal(agent.error.code, 'LOCKSTEP_PROFILE');
  assert.match(agent.error.message, /lockstep-f32-99.*stand-in/);
});

test('a check that cannot be done is final', async () => {
  const agent = await Harness.start({ check: () => Promise.reject(refusal('LOCKSTEP_BUILD')) });
  agent.connection.takeOne('hello');
  await agent.connection.say(job);
  agent.connection.takeOne('leave');
  assert.deepEqual(agent.error, refusal('LOCKSTEP_BUILD'));
});

const [firstShard, secondShard, ...otherShards] = job.shards;
const senseless: [string, object][] = [
  ['a batch that is no multiple of the leaf', { leaf: 3 }],
  ['no leaf', { leaf: 0 }],
  ['no training samples', { samples: { train: 0, test: 30 } }],
  ['a model that cannot be', { classes: 3 }],
  ['shards with a gap', { shards: [firstShard, ...otherShards] }],
  ['shards out of order', { shards: [secondShard, firstShard, ...otherShards] }],
  ['too few shards', { shards: job.shards.slice(0, -1) }],
  ['shards of the training set alone', { shards: job.shards.slice(0, 10) }],
  ['a shard too many', { shards: [...job.shards, { ...firstShard, set: 'test', from: 30 }] }],
];
for (const [what, change] of senseless) {
  test(`a job that makes no sense ends the connection: ${what}`, async () => {
    const agent = await Harness.start();
    agent.connection.takeOne('hello');
    await agent.connection.say({ ...job, ...change });
    assert.match(agent.connection.ended ?? '', /^closed: The coordinator's job makes no sense: /);
    assert.deepEqual(
      [agent.connection.take(), agent.ended, agent.statuses.at(-1)?.state],
      [[], undefined, 'reconnecting'],
    );
  });
}

test('a job whose test set is empty is one', async () => {
  const agent = await Harness.start();
  await agent.join({ samples: { train: 100, test: 0 }, shards: job.shards.slice(0, 10) });
});

// Shards.

/** Takes what was sent, which must be nothing but `fetch`. */
function fetchedBy(agent: Harness): number[] {
  return agent.connection.take().flatMap(message => {
    if (message.type !== 'fetch') throw new Error(`sent ${message.type}, expected fetch`);
    return message.shards;
  });
}

test('it fetches the shards under its lanes and no others, verifies, loads and keeps them, and says so', async () => {
  const agent = await Harness.start();
  await agent.join();
  // Lane 1: training positions 25 to 49, test positions 7 to 14.
  await agent.connection.say({ type: 'plan', plan: 7, from: 1, to: 2 });
  assert.deepEqual(fetchedBy(agent), [2, 3, 4, 10, 11]);
  for (const index of [4, 2, 3, 10]) await agent.connection.say(shardOf(index));
  assert.deepEqual(agent.connection.take(), []);
  await agent.connection.say(shardOf(11));
  assert.equal(agent.connection.takeOne('prepared').plan, 7);
  assert.deepEqual(agent.node.loaded, [
    ['train', 40, 10],
    ['train', 20, 10],
    ['train', 30, 10],
    ['test', 0, 10],
    ['test', 10, 10],
  ]);
  assert.deepEqual(
    [...agent.cache.kept.keys()],
    [4, 2, 3, 10, 11].map(index => sha256(shardBytes[index])),
  );
});

test('what the cache has is not fetched', async () => {
  const agent = await Harness.start();
  for (const index of [2, 4, 10]) agent.cache.kept.set(sha256(shardBytes[index]), shardBytes[index]);
  await agent.join();
  await agent.connection.say({ type: 'plan', plan: 7, from: 1, to: 2 });
  assert.deepEqual(fetchedBy(agent), [3, 11]);
  await agent.connection.say(shardOf(3));
  await agent.connection.say(shardOf(11));
  agent.connection.takeOne('prepared');
  agent.abort.abort();
  await settle();
  assert.deepEqual([agent.result.shardsFetched, agent.result.shardsFromCache], [2, 3]);
});

/** 40 training shards of one sample each, in one lane. */
const manyBytes = Array.from({ length: 40 }, (_, i) => Uint8Array.of(i, 0, 0, 0, 0));
const many = {
  samples: { train: 40, test: 0 },
  batch: 2,
  shards: manyBytes.map((bytes, from) => ({
    set: 'train' as const,
    from,
    samples: 1,
    sha256: sha256(bytes),
  })),
};

test('so many shards are asked for and not more, also while a slow disk keeps those that came', async () => {
  const puts: (() => void)[] = [];
  const put = () => new Promise<void>(resolve => puts.push(resolve));
  const agent = await Harness.start({ cache: { get: async () => undefined, put } });
  await agent.join(many);
  await agent.connection.say({ type: 'plan', plan: 1, from: 0, to: 1 });
  assert.equal(agent.connection.take().length, MOST_FETCHES);
  for (let i = 0; i < 3; i++) await agent.connection.say(shardOf(i, manyBytes[i]));
  assert.deepEqual(agent.connection.take(), []);
  for (const kept of puts) kept();
  await settle();
  assert.deepEqual(fetchedBy(agent), [16, 17, 18]);
});

test('a newer plan replaces the one before', async () => {
  const agent = await Harness.start();
  await agent.join();
  await agent.connection.say({ type: 'plan', plan: 1, from: 0, to: 1 });
  await agent.connection.say({ type: 'plan', plan: 2, from: 3, to: 4 });
  assert.deepEqual(fetchedBy(agent), [0, 1, 2, 10, 7, 8, 9, 12]);
  for (const index of [7, 8, 9, 12]) await agent.connection.say(shardOf(index));
  assert.equal(agent.connection.takeOne('prepared').plan, 2);
  for (const index of [0, 1, 2, 10]) await agent.connection.say(shardOf(index));
  assert.deepEqual(agent.connection.take(), []);
  // They are held all the same.
  await agent.connection.say({ type: 'plan', plan: 3, from: 0, to: 1 });
  assert.equal(agent.connection.takeOne('prepared').plan, 3);
});

test('a bad shard is asked for once more; a second bad one ends the agent: the dataset is not what it says', async () => {
  const agent = await Harness.start();
  await agent.join();
  await agent.connection.say({ type: 'plan', plan: 1, from: 0, to: 1 });
  agent.connection.take();
  const damaged = shardBytes[0].map((byte, i) => (i === 17 ? byte ^ 1 : byte));
  await agent.connection.say(shardOf(0, damaged));
  assert.deepEqual(agent.connection.takeOne('fetch').shards, [0]);
  await agent.connection.say(shardOf(0));
  await agent.connection.say(shardOf(1, shardBytes[1].slice(1)));
  assert.deepEqual(agent.connection.takeOne('fetch').shards, [1]);
  assert.equal(agent.connection.ended, undefined);
  await agent.connection.say(shardOf(1, damaged));
  assert.match(agent.connection.ended ?? '', /^closed: Shard 1 .* is not what its SHA-256 says, twice/);
  assert.deepEqual(agent.node.loaded, [['train', 0, 10]]);
  assert.deepEqual([...agent.cache.kept.values()], [shardBytes[0]]);
  await settle();
  assert.ok(agent.error instanceof LockstepError && agent.error.code === 'LOCKSTEP_DATA_DIGEST');
});

test('a shard of another length than its samples is bad, whatever the list says of its SHA-256', async () => {
  const agent = await Harness.start();
  const short = shardBytes[0].slice(1);
  await agent.join({ shards: [{ ...firstShard, sha256: sha256(short) }, secondShard, ...otherShards] });
  agent.cache.kept.set(sha256(short), short);
  await agent.connection.say({ type: 'plan', plan: 1, from: 0, to: 1 });
  assert.ok(fetchedBy(agent).includes(0));
  await agent.connection.say(shardOf(0, short));
  assert.deepEqual(fetchedBy(agent), [0]);
});

// Parts.

test('parts are computed in their order with the weights of the lease, and answered one by one', async () => {
  const agent = await Harness.start();
  await agent.prepare();
  agent.node.isHeldUp = true;
  await agent.connection.say(weightsOf(5));
  await agent.connection.say(
    leaseOf(5, [
      [2, 4],
      [0, 1],
    ]),
  );
  assert.deepEqual(agent.connection.take(), []);
  await agent.clock.advance(40);
  await agent.node.release();
  const { gradient, ...sum } = agent.connection.takeOne('sum');
  assert.deepEqual(sum, {
    type: 'sum',
    run: job.run,
    incarnation: job.incarnation,
    step: 5,
    weights: '0000000000000005',
    kind: 'gradient',
    set: 'train',
    part: { from: 2, to: 4 },
    lossSum: 0.5,
    correct: 1,
    samples: 4,
    computeMs: 40,
  });
  // Of all parameters, and nothing behind them.
  const sums = new Float64Array(10);
  const packer = new SumsPacker(10);
  packer.read(gradient);
  packer.addTo(sums);
  assert.deepEqual([...sums], Array.from({ length: 10 }).fill(7));
  await agent.node.release();
  assert.deepEqual(agent.connection.takeOne('sum').part, { from: 0, to: 1 });
  const weights = Array.from({ length: 10 }, (_, i) => 5 + i);
  const task = { kind: 'gradient', set: 'train', step: 5 };
  assert.deepEqual(agent.node.computed, [
    { task, lanes: { from: 2, to: 4 }, weights },
    { task, lanes: { from: 0, to: 1 }, weights },
  ]);
  agent.abort.abort();
  await settle();
  const { parts, leaves, samples, computeMs } = agent.result;
  assert.deepEqual([parts, leaves, samples, computeMs], [2, 3, 6, 40]);
});

test('evaluations have no gradient', async () => {
  const agent = await Harness.start();
  await agent.prepare();
  await agent.connection.say(weightsOf(5));
  await agent.connection.say(leaseOf(5, [[0, 4]], { kind: 'evaluate', set: 'test' }));
  const sum = agent.connection.takeOne('sum');
  assert.deepEqual([sum.kind, sum.set, sum.gradient.length], ['evaluate', 'test', 0]);
});

test('a part whose shards are missing fetches them before the rest of the plan, then is computed', async () => {
  const agent = await Harness.start();
  // Two lanes of 20 shards.
  await agent.join({ ...many, batch: 4 });
  await agent.connection.say(weightsOf(5));
  await agent.connection.say({ type: 'plan', plan: 1, from: 0, to: 2 });
  await agent.connection.say(leaseOf(5, [[1, 2]]));
  for (let i = 0; i < MOST_FETCHES; i++) await agent.connection.say(shardOf(i, manyBytes[i]));
  const asked = fetchedBy(agent);
  const ofPart = Array.from({ length: 20 }, (_, i) => 20 + i);
  assert.deepEqual(asked, [...Array.from({ length: MOST_FETCHES }, (_, i) => i), ...ofPart.slice(0, 16)]);
  for (const index of ofPart.slice(0, 19)) await agent.connection.say(shardOf(index, manyBytes[index]));
  assert.deepEqual(fetchedBy(agent), [...ofPart.slice(16), 16, 17, 18, 19]);
  assert.equal(agent.node.computed.length, 0);
  await agent.connection.say(shardOf(39, manyBytes[39]));
  assert.deepEqual(agent.connection.takeOne('sum').part, { from: 1, to: 2 });
  for (const index of [16, 17, 18, 19]) await agent.connection.say(shardOf(index, manyBytes[index]));
  agent.connection.takeOne('prepared');
});

test('without a plan, a lease starts the node and fetches what its parts need', async () => {
  const agent = await Harness.start();
  await agent.join();
  await agent.connection.say(weightsOf(5));
  await agent.connection.say(leaseOf(5, [[3, 4]], { kind: 'evaluate', set: 'test' }));
  assert.equal(agent.nodes.length, 1);
  assert.deepEqual(agent.connection.takeOne('fetch').shards, [12]);
  await agent.connection.say(shardOf(12));
  agent.connection.takeOne('sum');
});

const stale: [string, Parameters<typeof leaseOf>[2]][] = [
  ['another run', { run: '00000000000000ab' }],
  ['another incarnation', { incarnation: '0000000000000002' }],
];
for (const [what, change] of stale) {
  test(`a lease of ${what} is dropped silently`, async () => {
    const agent = await Harness.start();
    await agent.prepare();
    await agent.connection.say(weightsOf(5));
    await agent.connection.say(leaseOf(5, [[0, 1]], change));
    assert.deepEqual([agent.connection.take(), agent.node.computed], [[], []]);
    assert.equal(agent.connection.ended, undefined);
    agent.abort.abort();
    await settle();
    assert.equal(agent.result.droppedParts, 1);
  });
}

test('a stale lease does not disturb what is queued', async () => {
  const agent = await Harness.start();
  await agent.prepare();
  agent.node.isHeldUp = true;
  await agent.connection.say(weightsOf(5));
  await agent.connection.say(
    leaseOf(5, [
      [0, 1],
      [1, 2],
    ]),
  );
  await agent.connection.say(leaseOf(5, [[2, 3]], { run: '00000000000000ab' }));
  await agent.node.release();
  await agent.node.release();
  assert.deepEqual(
    agent.connection.take().map(message => message.type === 'sum' && message.part.from),
    [0, 1],
  );
});

test('newer weights drop what is queued; what is at work is answered for the weights it was computed with', async () => {
  const agent = await Harness.start();
  await agent.prepare();
  agent.node.isHeldUp = true;
  await agent.connection.say(weightsOf(5));
  await agent.connection.say(
    leaseOf(5, [
      [0, 1],
      [1, 2],
    ]),
  );
  await agent.connection.say(weightsOf(6));
  await agent.connection.say(leaseOf(6, [[3, 4]]));
  await agent.node.release();
  const { step, weights, part } = agent.connection.takeOne('sum');
  assert.deepEqual([step, weights, part], [5, '0000000000000005', { from: 0, to: 1 }]);
  await agent.node.release();
  const next = agent.connection.takeOne('sum');
  assert.deepEqual([next.step, next.part], [6, { from: 3, to: 4 }]);
  assert.deepEqual(
    agent.node.computed.map(({ weights: [value] }) => value),
    [5, 6],
  );
});

test('a lease of the same task is queued, one of another task takes the place of what is queued', async () => {
  const agent = await Harness.start();
  await agent.prepare();
  agent.node.isHeldUp = true;
  await agent.connection.say(weightsOf(5));
  await agent.connection.say(leaseOf(5, [[0, 1]]));
  await agent.connection.say(leaseOf(5, [[1, 2]]));
  await agent.node.release();
  assert.deepEqual(agent.connection.takeOne('sum').part, { from: 0, to: 1 });
  await agent.connection.say(leaseOf(5, [[2, 3]]));
  await agent.connection.say(leaseOf(5, [[3, 4]], { kind: 'evaluate', set: 'test' }));
  await agent.node.release();
  await agent.node.release();
  assert.deepEqual(
    agent.connection.take().map(message => message.type === 'sum' && [message.kind, message.part.from]),
    [
      ['gradient', 1],
      ['evaluate', 3],
    ],
  );
});

test('more parts than a node may have end the connection, and parts that are stale do not count', async () => {
  const agent = await Harness.start();
  await agent.prepare();
  agent.node.isHeldUp = true;
  const most = Array.from({ length: MOST_PARTS }, (): [number, number] => [0, 1]);
  for (const step of [5, 6]) {
    await agent.connection.say(weightsOf(step));
    await agent.connection.say(leaseOf(step, most));
    assert.equal(agent.connection.ended, undefined);
  }
  await agent.node.release();
  agent.connection.takeOne('sum');
  await agent.connection.say(leaseOf(6, [[0, 1]]));
  assert.match(agent.connection.ended ?? '', /^closed: .*a lease beyond the 64 parts/);
  await agent.node.release();
  assert.deepEqual(agent.connection.take(), []);
});

test('a bad leaf is told, and the next part is computed', async () => {
  const agent = await Harness.start();
  await agent.prepare();
  await agent.connection.say(weightsOf(5));
  agent.node.nextError = new LockstepError('LOCKSTEP_BAD_LEAF', `lane 0 ${'x'.repeat(3000)}`);
  await agent.connection.say(
    leaseOf(5, [
      [0, 1],
      [1, 2],
    ]),
  );
  const [bad, sum] = agent.connection.take();
  assert.ok(bad.type === 'bad-leaf' && sum.type === 'sum');
  assert.deepEqual([bad.part, bad.step, bad.message.slice(0, 6)], [{ from: 0, to: 1 }, 5, 'lane 0']);
  assert.deepEqual(sum.part, { from: 1, to: 2 });
});

test('a node that fails is final, and its leases are given back', async () => {
  const agent = await Harness.start();
  await agent.prepare();
  await agent.connection.say(weightsOf(5));
  const error = new LockstepError('LOCKSTEP_THREAD_DIES', 'five in a row');
  agent.node.nextError = error;
  await agent.connection.say(leaseOf(5, [[0, 1]]));
  agent.connection.takeOne('leave');
  assert.equal(agent.error, error);
  assert.ok(agent.node.isClosed);
  assert.equal(agent.clock.timers, 0);
});

test('a node that cannot be had is final', async () => {
  const error = new LockstepError('LOCKSTEP_MEMORY', 'too little');
  const agent = await Harness.start({ createNode: () => Promise.reject(error) });
  await agent.join();
  await agent.connection.say({ type: 'plan', plan: 1, from: 0, to: 1 });
  agent.connection.takeOne('leave');
  assert.equal(agent.error, error);
});

test('sums that the network does not take hold the next part up, and stale parts are gone by then', async () => {
  const agent = await Harness.start();
  await agent.prepare();
  agent.connection.bufferedBytes = 65_537;
  await agent.connection.say(weightsOf(5));
  await agent.connection.say(leaseOf(5, [[0, 1]]));
  await agent.clock.advance(500);
  assert.deepEqual([agent.connection.take(), agent.node.computed], [[], []]);
  await agent.connection.say(weightsOf(6));
  await agent.connection.say(leaseOf(6, [[1, 2]]));
  agent.connection.bufferedBytes = 65_536;
  await agent.clock.advance(10);
  assert.deepEqual(agent.connection.takeOne('sum').part, { from: 1, to: 2 });
  assert.equal(agent.node.computed.length, 1);
});

// The protocol.

const otherWeights: [string, Parameters<typeof leaseOf>[2]][] = [
  ['another step', { step: 6 }],
  ['other weights', { weights: '0000000000000006' }],
];
for (const [what, change] of otherWeights) {
  test(`a lease of ${what} than the weights held ends the connection, so that its parts are free at once`, async () => {
    const agent = await Harness.start();
    await agent.prepare();
    await agent.connection.say(weightsOf(5));
    await agent.connection.say(leaseOf(5, [[0, 1]], change));
    assert.match(agent.connection.ended ?? '', /^closed: .* a lease of weights that it has not sent/);
    assert.deepEqual([agent.connection.take(), agent.node.computed], [[], []]);
  });
}

const forbidden: [string, object][] = [
  ['a second job', job],
  ['a lease before any weights', leaseOf(0, [[0, 1]])],
  ['lanes that there are not', { type: 'plan', plan: 1, from: 0, to: 5 }],
  ['lanes backwards', { type: 'plan', plan: 1, from: 2, to: 1 }],
  ['a part without lanes', leaseOf(5, [[1, 1]])],
  ['a part of lanes that there are not', leaseOf(5, [[3, 5]])],
  ['a gradient of the test set', leaseOf(5, [[0, 1]], { set: 'test' })],
  ['a shard that was not asked for', shardOf(3)],
  ['a shard that there is not', shardOf(13, new Uint8Array(50))],
  ['weights of another length', { ...weightsOf(5), data: new Uint8Array(36) }],
  ['a message for coordinators', { type: 'leave' }],
  ['an unknown key', { type: 'ping', sentMs: 1, more: 1 }],
  ['a frame larger than any of this job', { type: 'shard', index: 0, data: new Uint8Array(4_194_304) }],
];
for (const [what, message] of forbidden) {
  test(`ends the connection, is counted, and the agent joins again: ${what}`, async () => {
    const agent = await Harness.start();
    await agent.join();
    await agent.connection.sayAnything(message);
    assert.match(agent.connection.ended ?? '', /^closed: ./);
    assert.deepEqual(agent.connection.take(), []);
    await agent.clock.advance(10_000);
    assert.equal(agent.connections.length, 2);
    await agent.join();
    agent.abort.abort();
    await settle();
    const { protocolErrors, reconnections } = agent.result;
    assert.deepEqual([protocolErrors, reconnections], [1, 1]);
  });
}

for (const message of [
  weightsOf(1),
  leaseOf(1, [[0, 1]]),
  shardOf(1),
  { type: 'plan', plan: 1, from: 0, to: 1 },
]) {
  test(`too early: ${message.type}`, async () => {
    const agent = await Harness.start();
    agent.connection.takeOne('hello');
    await agent.connection.sayAnything(message);
    assert.match(agent.connection.ended ?? '', /before the node was checked/);
  });
}

test('noise ends the connection', async () => {
  const agent = await Harness.start();
  await agent.connection.sayFrame(Uint8Array.of(0xc1, 1, 2));
  assert.match(agent.connection.ended ?? '', /^closed: ./);
});

// The end.

test('a finished run ends the agent well', async () => {
  const agent = await Harness.start();
  await agent.prepare();
  await agent.connection.say({ type: 'end', code: '', message: 'done' });
  assert.equal(agent.result.end, 'finished');
  assert.ok(agent.node.isClosed);
  assert.equal(agent.clock.timers, 0);
  assert.ok(agent.result.receivedBytes > 0 && agent.result.sentBytes > 0);
});

test('a refusal ends it with its code, and a code that it does not know as a matter of the protocol', async () => {
  for (const [code, expected] of [
    ['LOCKSTEP_PROFILE', 'LOCKSTEP_PROFILE'],
    ['LOCKSTEP_OF_TOMORROW', 'LOCKSTEP_PROTOCOL'],
  ]) {
    const agent = await Harness.start();
    await agent.connection.say({ type: 'end', code, message: 'other bits' });
    assert.deepEqual(agent.error instanceof LockstepError && [agent.error.code, agent.error.message], [
      expected,
      'other bits',
    ]);
    assert.equal(agent.attempts, 1);
  }
});

test('Ctrl-C hands the leases back, waits for the node and resolves', async () => {
  const agent = await Harness.start();
  await agent.prepare();
  agent.node.isHeldUp = true;
  await agent.connection.say(weightsOf(5));
  await agent.connection.say(leaseOf(5, [[0, 1]]));
  agent.connection.isSlowToClose = true;
  agent.abort.abort();
  await settle();
  assert.deepEqual(agent.connection.take(), [{ type: 'leave', reason: 'it was told to' }]);
  assert.equal(agent.connection.ended, 'closed: the node leaves');
  assert.ok(agent.node.isClosed);
  // The last message may still be on its way.
  assert.equal(agent.ended, undefined);
  agent.connection.onClose('gone');
  await settle();
  assert.equal(agent.result.end, 'left');
  assert.equal(agent.clock.timers, 0);
});

test('a coordinator that does not take the last message is not waited for', async () => {
  const agent = await Harness.start();
  agent.connection.isSlowToClose = true;
  agent.abort.abort();
  await settle();
  assert.equal(agent.ended, undefined);
  await agent.clock.advance(2000);
  assert.equal(agent.result.end, 'left');
});

test('Ctrl-C before, during and between attempts to connect', async () => {
  const before = await Harness.start({ signal: AbortSignal.abort() });
  assert.deepEqual([before.result.end, before.attempts], ['left', 0]);

  let giveConnection: ((connection: FakeConnection) => void) | undefined;
  let told: AbortSignal | undefined;
  const during = await Harness.start({
    connect: signal => {
      told = signal;
      return new Promise(resolve => {
        giveConnection = resolve;
      });
    },
  });
  during.abort.abort();
  await settle();
  assert.deepEqual([during.result.end, told?.aborted], ['left', true]);
  const late = new FakeConnection();
  giveConnection?.(late);
  await settle();
  assert.equal(late.ended, 'destroyed: the node leaves');

  const between = await Harness.start();
  await between.connection.cut('reset');
  assert.equal(between.statuses.at(-1)?.state, 'reconnecting');
  between.abort.abort();
  await settle();
  assert.deepEqual([between.result.end, between.clock.timers], ['left', 0]);
});

// Connecting again.

test('a node that comes back keeps its threads and shards, fetches nothing, and is not checked twice', async () => {
  const agent = await Harness.start();
  await agent.prepare();
  const loaded = agent.node.loaded.length;
  await agent.connection.cut('reset');
  await agent.clock.advance(200);
  const gets = agent.cache.gets;
  await agent.join({ incarnation: '0000000000000002' });
  await agent.connection.say({ type: 'plan', plan: 1, from: 0, to: 4 });
  agent.connection.takeOne('prepared');
  assert.deepEqual(
    [agent.nodes.length, agent.node.loaded.length, agent.cache.gets, agent.checks],
    [1, loaded, gets, 1],
  );
  // Weights and leases of the process before are gone.
  await agent.connection.say(leaseOf(5, [[0, 1]]));
  await agent.connection.say(weightsOf(5));
  await agent.connection.say(leaseOf(5, [[0, 1]]));
  assert.deepEqual(agent.connection.take(), []);
  await agent.connection.say(leaseOf(5, [[0, 1]], { incarnation: '0000000000000002' }));
  assert.equal(agent.connection.takeOne('sum').incarnation, '0000000000000002');
});

test('a part at work when the connection is lost is answered to nobody, and the node does one at a time', async () => {
  const agent = await Harness.start();
  await agent.prepare();
  agent.node.isHeldUp = true;
  await agent.connection.say(weightsOf(5));
  await agent.connection.say(
    leaseOf(5, [
      [0, 1],
      [1, 2],
    ]),
  );
  const [lost] = agent.connections;
  await lost.cut('reset');
  await agent.clock.advance(200);
  await agent.join();
  await agent.connection.say(weightsOf(6));
  await agent.connection.say(leaseOf(6, [[2, 3]]));
  assert.equal(agent.node.computed.length, 1);
  await agent.node.release();
  assert.deepEqual([lost.take(), agent.connection.take()], [[], []]);
  await agent.node.release();
  assert.deepEqual(agent.connection.takeOne('sum').part, { from: 2, to: 3 });
  assert.deepEqual(
    agent.node.computed.map(({ lanes }) => lanes.from),
    [0, 2],
  );
});

test('another job gets another node, after the first has ended', async () => {
  const agent = await Harness.start();
  await agent.prepare();
  const [before] = agent.nodes;
  await agent.connection.cut('reset');
  await agent.clock.advance(200);
  await agent.join({ run: '00000000000000bb', seed: 2 });
  assert.ok(before.isClosed);
  assert.equal(agent.checks, 2);
  await agent.connection.say({ type: 'plan', plan: 1, from: 0, to: 4 });
  agent.connection.takeOne('prepared');
  assert.deepEqual([agent.nodes.length, agent.jobs.map(({ seed }) => seed)], [2, [1, 2]]);
});

test('a silent coordinator is given up after 30 s, one that pings is not', async () => {
  const agent = await Harness.start();
  await agent.join();
  for (let second = 0; second < 60; second++) {
    await agent.clock.advance(1000);
    await agent.connection.say({ type: 'ping', sentMs: second });
  }
  const [silent] = agent.connections;
  await agent.clock.advance(SILENCE_MS);
  assert.equal(silent.ended, undefined);
  await agent.clock.advance(2000);
  assert.equal(silent.ended, 'destroyed: no sign of the coordinator for 30 s');
});

test('bytes of a large frame are a sign too', async () => {
  const agent = await Harness.start();
  await agent.join();
  for (let second = 0; second < 60; second++) {
    await agent.clock.advance(1000);
    agent.connection.receivedBytes += 1000;
  }
  assert.equal(agent.connection.ended, undefined);
});

test('the first job again while its node ends gets a new node, after that end', async () => {
  const agent = await Harness.start();
  await agent.prepare();
  const before = agent.node;
  let end: (() => void) | undefined;
  before.closing = new Promise(resolve => (end = resolve));
  await agent.connection.cut('reset');
  await agent.clock.advance(10_000);
  agent.connection.takeOne('hello');
  await agent.connection.say({ ...job, seed: 2 });
  await agent.connection.cut('reset');
  await agent.clock.advance(10_000);
  agent.connection.takeOne('hello');
  await agent.connection.say(job);
  assert.deepEqual(agent.connection.take(), [], 'it waits for the end of the node before');
  end?.();
  await settle();
  agent.connection.takeOne('checked');
  await agent.connection.say({ type: 'plan', plan: 1, from: 0, to: 4 });
  agent.connection.takeOne('prepared');
  assert.deepEqual([before.isClosed, agent.nodes.length, agent.node.isClosed], [true, 2, false]);
});

test('an agent that was stopped itself looks at what has come first', async () => {
  const agent = await Harness.start();
  await agent.join();
  await agent.clock.advance(2000);
  await agent.clock.jump(120_000);
  assert.equal(agent.connection.ended, undefined);
  await agent.connection.say({ type: 'ping', sentMs: 1 });
  await agent.clock.advance(SILENCE_MS - 1000);
  assert.equal(agent.connection.ended, undefined);
});

test('waits double up to 10 s and are spread over all of it', () => {
  const most = Array.from({ length: 9 }, (_, attempt) => backoffMs(attempt, 1));
  assert.deepEqual(most, [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000, 10_000]);
  assert.equal(backoffMs(3, 0.5), 800);
  for (const attempt of [0, 31, 32, 1e9]) {
    assert.equal(backoffMs(attempt, 0), 50);
    assert.ok(backoffMs(attempt, 0.999) <= 10_000);
  }
});

test('it tries with growing waits for as long as it was told, then says what the trouble was', async () => {
  const agent = await Harness.start({
    retryMs: 60_000,
    connect: () => Promise.reject(new Error('ECONNREFUSED')),
  });
  const waits: number[] = [];
  while (agent.ended === undefined) {
    const waitMs = agent.clock.nextMs();
    waits.push(waitMs);
    await agent.clock.advance(waitMs);
  }
  assert.deepEqual(waits.slice(0, 8), [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
  assert.equal(agent.clock.nowMs(), 61_000);
  assert.ok(agent.error instanceof LockstepError);
  assert.equal(agent.error.code, 'LOCKSTEP_UNREACHABLE');
  assert.match(agent.error.message, /^No run could be joined for 60\.0 s; .*ECONNREFUSED/);
});

test('the time to try counts from when it was joined last, and a good connection shortens the waits again', async () => {
  const agent = await Harness.start({ retryMs: 5000 });
  for (let i = 0; i < 4; i++) agent.troubles.push(new Error('down'));
  await agent.connection.cut('reset');
  await agent.clock.advance(4000);
  assert.equal(agent.connections.length, 2);
  await agent.join();
  for (let second = 0; second < 20; second++) {
    await agent.clock.advance(1000);
    await agent.connection.say({ type: 'ping', sentMs: second });
  }
  await agent.connection.cut('reset');
  assert.equal(agent.ended, undefined);
  assert.equal(agent.clock.nextMs(), 100);
});

test('connections that are lost as soon as they are joined do not make it hurry', async () => {
  const agent = await Harness.start();
  const waits: number[] = [];
  for (let i = 0; i < 5; i++) {
    await agent.join();
    await agent.connection.cut('reset');
    waits.push(agent.clock.nextMs());
    await agent.clock.advance(waits[i]);
  }
  assert.deepEqual(waits, [100, 200, 400, 800, 1600]);
});

test('a refused key is believed when it has come three times in a row', async () => {
  const agent = await Harness.start({});
  const key = refusal('LOCKSTEP_KEY');
  agent.troubles.push(key, key, new Error('reset'), key, key, key);
  await agent.connection.cut('reset');
  await agent.clock.advance(60_000);
  assert.equal(agent.error, key);
  assert.equal(agent.attempts, 7);
});

test('other refusals are believed at once', async () => {
  const agent = await Harness.start({ connect: () => Promise.reject(refusal('LOCKSTEP_BUILD')) });
  assert.deepEqual(agent.error, refusal('LOCKSTEP_BUILD'));
});

// What it says.

test('it says what it is doing when that changes, and no more', async () => {
  const agent = await Harness.start();
  await agent.join();
  await agent.connection.say({ type: 'plan', plan: 1, from: 3, to: 4 });
  for (const index of [7, 8, 9, 12]) await agent.connection.say(shardOf(index));
  for (let step = 0; step < 5; step++) {
    await agent.connection.say(weightsOf(step));
    await agent.connection.say(leaseOf(step, [[3, 4]]));
  }
  await agent.clock.advance(1000);
  await agent.connection.say(leaseOf(4, [[3, 4]]));
  await agent.connection.say(leaseOf(4, [[3, 4]]));
  await agent.clock.advance(1000);
  await agent.clock.advance(5000);
  await agent.connection.cut('connection reset');
  assert.deepEqual(
    agent.statuses.map(({ text }) => text),
    [
      'connecting to the coordinator',
      'checking that this node computes the bits of small',
      'waiting for work on small',
      'fetching shards for small: 0 of 4',
      'fetching shards for small: 1 of 4',
      'fetching shards for small: 2 of 4',
      'fetching shards for small: 3 of 4',
      'waiting for work on small',
      'computing for small',
      'computing for small: step 4, 10 images/s',
      'computing for small: step 4, 4 images/s',
      'waiting for work on small',
      'no connection (connection reset): trying again in 0.1 s',
    ],
  );
});

// Parts: computed apart, by any node, added, and given to the update, they leave the bits of training.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { planSpan } from '#dist/coordinator/run.js';
import { systemClock } from '#dist/shared/clock.js';
import type { Dataset, SetName } from '#dist/shared/dataset.js';
import { faultKinds, phases, type Fault } from '#dist/shared/faults.js';
import { formatHash } from '#dist/shared/hash.js';
import { leafJobOf } from '#dist/shared/leaf-job.js';
import {
  initialState,
  type AgentNode,
  type ComputingNode,
  type Lanes,
  type LocalNode,
  type LostThread,
  type PartSums,
  type Task,
} from '#dist/shared/node.js';
import { initialBetaPowers } from '#dist/shared/optimizer.js';
import { datasetOrder } from '#dist/shared/schedule.js';
import type { Job } from '#dist/shared/settings.js';
import { shardBytes, shardsOf } from '#dist/shared/shards.js';
import { computesInOwnThread } from '#dist/worker/crew.js';
import { control } from '#dist/worker/memory.js';
import { createAgentNode, type AgentNodeOptions } from '#dist/worker/pool.js';
import { assertSameBits } from '../support/bits.js';
import { trainPlainly } from '../support/plain-training.js';
import { checkAsyncProperty, Random, randomTest } from '../support/random.js';
import { createTinyPool, hastyClock, ignore, tinyDataset, tinyJob } from '../support/tiny.js';

const sets = ['train', 'test'] as const;

/** A part and who computes it. */
type Share = readonly [ComputingNode, Lanes];

/** Lanes 0 to `lanes` in parts between random cuts, some of them empty, in random order. */
function randomParts(random: Random, lanes: number): Lanes[] {
  const cuts = Array.from({ length: random.integer(5) }, () => random.integer(lanes + 1));
  const ends = [...cuts, lanes].toSorted((a, b) => a - b);
  const parts = ends.map((to, i) => ({ from: ends[i - 1] ?? 0, to }));
  return Array.from(random.distinct(parts.length, parts.length), i => parts[i]);
}

/** Computes the parts one after another and adds their sums. */
async function sumsOf(task: Task, shares: readonly Share[], job: Job): Promise<PartSums> {
  const gradient = new Float64Array(task.kind === 'gradient' ? job.model.paddedCount : 0);
  let [lossSum, correct, samples] = [0, 0, 0];
  for (const [node, lanes] of shares) {
    const part = await node.compute(task, lanes);
    assert.equal(part.gradient.length, gradient.length);
    for (const [i, sum] of part.gradient.entries()) gradient[i] += sum;
    lossSum += part.lossSum;
    correct += part.correct;
    samples += part.samples;
  }
  return { gradient, lossSum, correct, samples };
}

/** Trains `job` step by step, each in shares; gives the hash after every step. */
async function trainInParts(job: Job, node: LocalNode, sharesOf: (step: number) => readonly Share[]) {
  const { scalars } = planSpan(job, 0, job.totalSteps, initialBetaPowers);
  const results = [];
  for (let step = 0; step < job.totalSteps; step++) {
    const sums = await sumsOf({ kind: 'gradient', set: 'train', step }, sharesOf(step), job);
    results.push(await node.update(step, scalars[step], sums));
  }
  return results;
}

test('parts of random lanes give the results of training and of the whole evaluation', async () => {
  const inputs = fc.record({
    samples: fc.integer({ min: 1, max: 150 }),
    lanes: fc.integer({ min: 1, max: 9 }),
    leaf: fc.integer({ min: 1, max: 5 }),
    threads: fc.integer({ min: 1, max: 3 }),
    seed: fc.nat(),
  });
  const property = fc.asyncProperty(inputs, async ({ samples, lanes, leaf, threads, seed }) => {
    const dataset = tinyDataset(samples);
    const chosen = { batch: lanes * leaf, leaf, epochs: 2, maxSteps: 5, lrSchedule: 'constant' } as const;
    const job = tinyJob(chosen, dataset);
    const random = new Random('parts', seed);
    const whole = await createTinyPool({ job, dataset, threads: 1 });
    const node = await createTinyPool({ job, dataset, threads });
    try {
      const { scalars } = planSpan(job, 0, job.totalSteps, initialBetaPowers);
      const trained = await whole.train(0, scalars);
      const shares = (): Share[] => randomParts(random, lanes).map(part => [node, part]);
      assert.deepEqual(await trainInParts(job, node, shares), trained);
      assertSameBits(node.weights(), whole.weights(), 'weights');
      assert.deepEqual(node.state(), whole.state());
      for (const set of sets) {
        const task = { kind: 'evaluate', set, step: job.totalSteps } as const;
        const { gradient: _, ...sums } = await sumsOf(task, shares(), job);
        assert.deepEqual(sums, await whole.evaluate(set));
        assert.equal(sums.samples, dataset[set].labels.length);
      }
    } finally {
      await Promise.all([whole.close(), node.close()]);
    }
  });
  await checkAsyncProperty(property, 20);
});

const dataset = tinyDataset();
const job = tinyJob({ epochs: 1 }, dataset);
const { hashes: plainHashes } = trainPlainly(job, dataset);
const [early, late] = [
  { from: 0, to: 3 },
  { from: 3, to: job.lanes },
];

/** Trains and evaluates in two parts with a fault; gives the hashes and who was lost where. */
async function trainWithFault(fault: Fault) {
  const lost: LostThread[] = [];
  const onThreadLost = (one: LostThread) => lost.push(one);
  const node = await createTinyPool({ job, dataset, threads: 3, clock: hastyClock, fault, onThreadLost });
  const shares: Share[] = [
    [node, late],
    [node, early],
  ];
  try {
    const results = await trainInParts(job, node, () => shares);
    const task = { kind: 'evaluate', set: 'train', step: job.totalSteps } as const;
    const { gradient: _, ...sums } = await sumsOf(task, shares, job);
    assert.deepEqual(sums, await node.evaluate('train'));
    return { hashes: results.map(({ hash }) => formatHash(hash)), lost };
  } finally {
    await node.close();
  }
}

for (const kind of faultKinds) {
  for (const thread of [1, 'any'] as const) {
    // All phases at once: a hang is noticed only after a while.
    test(`in any phase, thread ${thread} lost by ${kind} changes no bit of parts and updates`, async () => {
      await Promise.all(
        phases.map(async phase => {
          const { hashes, lost } = await trainWithFault({ kind, thread, step: 4, phase, times: 1 });
          assert.deepEqual(hashes, plainHashes, phase);
          assert.ok(lost.length > 0, phase);
          assert.deepEqual(new Set(lost.map(one => one.phase)), new Set([phase]));
          if (thread === 1) assert.equal(lost.map(one => one.thread).join(), '1');
        }),
      );
    });
  }
}

test('a stop that comes just behind the publishing of an update does not repeat it', async t => {
  const node = await createTinyPool({ job, dataset, threads: 2 });
  const [scalars] = planSpan(job, 0, 1, initialBetaPowers).scalars;
  try {
    const all = { from: 0, to: job.lanes };
    const sums = await node.compute({ kind: 'gradient', set: 'train', step: 0 }, all);
    // What wakes the threads for a command; they have functions of their own.
    const { add } = Atomics;
    let commandsGiven = 0;
    t.mock.method(Atomics, 'add', (words: Int32Array, index: number, value: number) => {
      const before = add(words, index, value);
      if (index === control.command && ++commandsGiven === 1) {
        Atomics.notify(words, index);
        for (let i = 0; i < 1e9 && Atomics.load(words, control.published) === 0; i++);
        Atomics.store(words, control.stop, 1);
      }
      return before;
    });
    assert.equal(formatHash((await node.update(0, scalars, sums)).hash), plainHashes[0]);
    assert.equal(commandsGiven, 2);
    assert.equal(node.state().step, 1);
  } finally {
    await node.close();
  }
});

test('lanes whose leaves are empty in a short step count nothing', async () => {
  // Lanes of 3, 3, 4, 3, 3, 4, 3 and 4 samples.
  const few = tinyDataset(27);
  const fewJob = tinyJob({ epochs: 1, lrSchedule: 'constant' }, few);
  const node = await createTinyPool({ job: fewJob, dataset: few, threads: 2 });
  try {
    const { scalars } = planSpan(fewJob, 0, 1, initialBetaPowers);
    await node.train(0, scalars);
    const task = { kind: 'gradient', set: 'train', step: 1 } as const;
    const full = await node.compute(task, { from: 0, to: 8 });
    assert.equal(full.samples, 3);
    assert.ok(full.gradient.some(sum => sum !== 0));
    const { gradient, ...sums } = await node.compute(task, { from: 3, to: 5 });
    assert.deepEqual(sums, { lossSum: 0, correct: 0, samples: 0 });
    assert.ok(gradient.every(sum => Object.is(sum, 0)));
  } finally {
    await node.close();
  }
});

test('work for other weights than the present ones, and sums of some lanes, are refused', async () => {
  const node = await createTinyPool({ job, dataset, threads: 1 });
  const [scalars] = planSpan(job, 0, 1, initialBetaPowers).scalars;
  try {
    for (const kind of ['gradient', 'evaluate'] as const) {
      await assert.rejects(node.compute({ kind, set: 'train', step: 1 }, early), /of step 0, not of step 1/);
    }
    const sums = await node.compute({ kind: 'gradient', set: 'train', step: 0 }, early);
    await assert.rejects(node.update(0, scalars, sums), /24 samples, its sums are of 9/);
    const whole = await node.compute({ kind: 'gradient', set: 'train', step: 0 }, { from: 0, to: job.lanes });
    await assert.rejects(node.update(1, scalars, whole), /of step 0, not of step 1/);
    assert.equal(formatHash((await node.update(0, scalars, whole)).hash), plainHashes[0]);
  } finally {
    await node.close();
  }
});

test('a cut that comes while a part is computed does not end it', async () => {
  const node = await createTinyPool({ job, dataset, threads: 2 });
  try {
    const expected = (await node.evaluate('train'))!;
    const part = node.compute({ kind: 'evaluate', set: 'train', step: 0 }, { from: 0, to: job.lanes });
    node.cut();
    const { gradient, ...sums } = await part;
    assert.deepEqual([sums, gradient.length], [expected, 0]);
  } finally {
    await node.close();
  }
});

function createTinyAgent(
  of: Job,
  data: Dataset,
  options: Partial<AgentNodeOptions> = {},
): Promise<AgentNode> {
  return createAgentNode({
    job: leafJobOf(of, data),
    name: 'node alpha',
    threads: 2,
    cores: 2,
    clock: systemClock,
    onThreadLost: ignore,
    onWarning: ignore,
    ...options,
  });
}

/** Hands an agent the shards of a dataset, all or those of one set. */
function fill(agent: AgentNode, data: Dataset, only: readonly SetName[] = sets): void {
  const order = datasetOrder(data.digest, data.train.labels.length);
  for (const shard of shardsOf(data)) {
    const bytes = shardBytes(data, order, shard);
    if (only.includes(shard.set)) agent.loadShard(shard.set, shard.from, shard.samples, bytes);
  }
}

const ownThread = { threads: 1, inThisThread: true };

for (const [engine, options] of [
  ['wasm', {}],
  ['wasm', ownThread],
  ['reference', {}],
  ['reference', ownThread],
] as const) {
  randomTest(
    `an agent's node on ${engine}${options === ownThread ? ' without threads' : ''}, filled with shards, gives the coordinator's bits`,
    async random => {
      const large = tinyDataset(engine === 'wasm' ? 2500 : 1100);
      const whole = tinyJob({ batch: 96, leaf: 12, maxSteps: 3, lrSchedule: 'constant' }, large);
      const remote = tinyJob({ ...whole.settings, engine }, large);
      const node = await createTinyPool({ job: whole, dataset: large, threads: 2 });
      const agent = await createTinyAgent(remote, large, options);
      fill(agent, large);
      try {
        const { scalars } = planSpan(whole, 0, whole.totalSteps, initialBetaPowers);
        for (let step = 0; step <= whole.totalSteps; step++) {
          agent.setWeights(step, node.weights());
          const tasks = [
            { kind: 'gradient', set: 'train', step },
            { kind: 'evaluate', set: 'test', step },
            { kind: 'evaluate', set: 'train', step },
          ] as const;
          for (const task of tasks) {
            for (const part of randomParts(random, whole.lanes)) {
              const { gradient: expected, ...expectedSums } = await node.compute(task, part);
              const { gradient, ...sums } = await agent.compute(task, part);
              assert.deepEqual(sums, expectedSums);
              assert.equal(gradient.length, expected.length);
              assert.ok(Buffer.from(gradient.slice().buffer).equals(Buffer.from(expected.slice().buffer)));
            }
          }
          if (step < whole.totalSteps) await node.train(step, [scalars[step]]);
        }
      } finally {
        await Promise.all([node.close(), agent.close()]);
      }
    },
  );
}

for (const options of [{}, ownThread]) {
  const where = options === ownThread ? ', without threads' : '';
  test(`a part that is bad twice names the agent's node, which then goes on${where}`, async () => {
    const agent = await createTinyAgent(job, dataset, options);
    fill(agent, dataset);
    const { weights } = initialState(job).bank;
    const present = weights.subarray(0, job.model.parameterCount);
    const task = { kind: 'gradient', set: 'train', step: 2 } as const;
    try {
      agent.setWeights(
        2,
        present.map(() => Number.NaN),
      );
      for (const kind of ['gradient', 'evaluate'] as const) {
        await assert.rejects(agent.compute({ ...task, kind }, early), {
          code: 'LOCKSTEP_BAD_LEAF',
          message: /computed twice on node alpha \(thread \d\): layer conv1 \(conv1\.kernel\)/,
        });
      }
      agent.setWeights(2, present);
      assert.equal((await agent.compute(task, early)).samples, 9);
    } finally {
      await agent.close();
    }
  });
}

test('who computes in its own thread breathes between leaves, and ends early when it is closed', async () => {
  let nowMs = 0;
  // Each look at the clock is ten milliseconds after the one before: every leaf is a long one.
  const clock = { ...systemClock, nowMs: () => (nowMs += 10) };
  const agent = await createTinyAgent(job, dataset, { ...ownThread, clock });
  fill(agent, dataset);
  agent.setWeights(2, initialState(job).bank.weights.subarray(0, job.model.parameterCount));
  const task = { kind: 'gradient', set: 'train', step: 2 } as const;
  let turns = 0;
  let isOver = false;
  const count = (): void => {
    turns++;
    if (!isOver) setImmediate(count);
  };
  setImmediate(count);
  try {
    const whole = { from: 0, to: job.lanes };
    await agent.compute(task, whole);
    assert.ok(turns >= job.lanes, `${turns} turns of the event loop in ${job.lanes} leaves`);
    turns = 0;
    const { samples } = await agent.compute({ kind: 'evaluate', set: 'test', step: 2 }, whole);
    const leaves = Math.ceil(samples / job.bits.leaf);
    assert.ok(turns >= leaves, `${turns} turns in ${leaves} leaves of an evaluation`);
    turns = 0;
    const rejected = assert.rejects(agent.compute(task, whole), /closed while it was at work/);
    await agent.close();
    await rejected;
    assert.ok(turns < job.lanes, 'all leaves were computed after it was closed');
  } finally {
    // Else a test that fails would count for ever.
    isOver = true;
    await agent.close();
  }
});

for (const [errors, end] of [
  [2, 'is computed again'],
  [5, 'ends the node'],
] as const) {
  test(`what throws ${errors} times in a thread of its own ${end}`, async () => {
    let left = 0;
    // The clock is looked at between leaves.
    const nowMs = (): number => {
      if (left-- > 0 && left % 2 === 0) throw new Error('thrown');
      return systemClock.nowMs();
    };
    const lost: LostThread[] = [];
    const agent = await createTinyAgent(job, dataset, {
      ...ownThread,
      clock: { ...systemClock, nowMs },
      onThreadLost: one => lost.push(one),
    });
    try {
      fill(agent, dataset);
      agent.setWeights(2, initialState(job).bank.weights.subarray(0, job.model.parameterCount));
      const task = { kind: 'gradient', set: 'train', step: 2 } as const;
      const whole = { from: 0, to: job.lanes };
      const expected = (await agent.compute(task, whole)).gradient.slice();
      left = 2 * errors;
      const computing = agent.compute(task, whole);
      if (errors === 2) assert.deepEqual((await computing).gradient, expected);
      else
        await assert.rejects(computing, {
          code: 'LOCKSTEP_THREAD_DIES',
          message: /5 worker threads .* thrown/,
        });
      const told = { step: 2, thread: 0, reason: 'thrown', phase: 'leaf' };
      assert.deepEqual(
        lost,
        Array.from({ length: errors }, () => told),
      );
    } finally {
      await agent.close();
    }
  });
}

test('an agent computes in its own thread if it may, has one, and its leaves are short', () => {
  const node = { mayBlock: true, threads: 1, fault: undefined, leafMs: 50 };
  const fault = { kind: 'exit', thread: 0, step: 1, phase: 'leaf', times: 1 } as const;
  assert.equal(computesInOwnThread(node), true);
  for (const other of [{ mayBlock: false }, { threads: 2 }, { fault }, { leafMs: 51 }]) {
    assert.equal(computesInOwnThread({ ...node, ...other }), false, JSON.stringify(other));
  }
});

test('a shard of the wrong size, or beyond its set, is refused', async () => {
  const agent = await createTinyAgent(job, dataset, { threads: 1 });
  try {
    assert.throws(() => agent.loadShard('test', 0, 2, new Uint8Array(2 * 63)), /2 samples/);
    assert.throws(() => agent.loadShard('test', 49, 2, new Uint8Array(2 * 64)), RangeError);
  } finally {
    await agent.close();
  }
});

for (const [threads, phase] of [
  [0, 'none'],
  [1, 'update'],
  [1, 'hash'],
] as const) {
  test(`a node of ${threads} threads updates with the sums of agents; a thread is lost in phase: ${phase}`, async () => {
    const fault =
      phase === 'none' ? undefined : ({ kind: 'exit', thread: 0, step: 3, phase, times: 1 } as const);
    const lost: LostThread[] = [];
    const onThreadLost = (one: LostThread) => lost.push(one);
    const node = await createTinyPool({ job, dataset, threads, fault, onThreadLost });
    const agents = [await createTinyAgent(job, dataset, { threads: 1 }), await createTinyAgent(job, dataset)];
    for (const agent of agents) fill(agent, dataset, ['train']);
    try {
      assert.deepEqual([node.threads, node.reports().length], [threads, threads]);
      const results = await trainInParts(job, node, step => {
        for (const agent of agents) agent.setWeights(step, node.weights());
        return [
          [agents[0], late],
          [agents[1], early],
        ];
      });
      assert.deepEqual(
        results.map(({ hash }) => formatHash(hash)),
        plainHashes,
      );
      const { step, hash, bank } = node.state();
      assert.deepEqual([step, formatHash(hash)], [job.totalSteps, plainHashes.at(-1)]);
      assertSameBits(bank.weights.subarray(0, job.model.parameterCount), node.weights(), 'weights');
      assert.deepEqual(
        lost.map(one => one.phase),
        phase === 'none' ? [] : [phase],
      );
      if (threads > 0) return;
      await assert.rejects(node.evaluate('test'), /only updates/);
      await assert.rejects(node.compute({ kind: 'gradient', set: 'train', step }, early), /only updates/);
    } finally {
      await Promise.all([node, ...agents].map(one => one.close()));
    }
  });
}

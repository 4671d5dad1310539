// The pool: equal bits for any number of threads and any span, and through every death of a thread.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { planSpan } from '#dist/coordinator/run.js';
import { tensorBytes } from '#dist/coordinator/safetensors.js';
import { systemClock, type Clock } from '#dist/shared/clock.js';
import { faultKinds, phases } from '#dist/shared/faults.js';
import { formatHash, sha256 } from '#dist/shared/hash.js';
import type { RunEventBody } from '#dist/shared/events.js';
import { initialState, type LocalNode, type LostThread } from '#dist/shared/node.js';
import { initialBetaPowers } from '#dist/shared/optimizer.js';
import type { Job } from '#dist/shared/settings.js';
import { control } from '#dist/worker/memory.js';
import type { PoolOptions } from '#dist/worker/pool.js';
import type { EventOf } from '#dist/library/index.js';
import { assertSameBits } from '../support/bits.js';
import { trainPlainly, type EpochFigures } from '../support/plain-training.js';
import { createTinyPool, hastyClock, runTiny, tinyDataset, tinyJob } from '../support/tiny.js';

/** What every run of the tiny job must give: kept here so that a change of bits is seen and must be explained. */
const golden = {
  hash: '342c824223f11a68',
  weightsSha256: '0ef5a1742e2a0831d18915adcd65dede6dc467f9a37b12f2c11845a9fbbe2557',
};

function bitsOf({
  hash,
  weightsSha256,
  trainLoss,
  testLoss,
  testAccuracy,
}: Awaited<ReturnType<typeof runTiny>>['result']) {
  return { hash, weightsSha256, trainLoss, testLoss, testAccuracy };
}

function figuresOf(event: EventOf<'epoch'> | Omit<EventOf<'epoch'>, 'step' | 'timeMs'>): EpochFigures {
  const { runningLoss, runningAccuracy, trainLoss, trainAccuracy, testLoss, testAccuracy } = event;
  return { runningLoss, runningAccuracy, trainLoss, trainAccuracy, testLoss, testAccuracy };
}

test('the tiny run has the bits it always had', async () => {
  const { hash, weightsSha256 } = (await runTiny()).result;
  assert.deepEqual({ hash, weightsSha256 }, golden);
});

for (const chosen of [
  {},
  { optimizer: 'sgd', nesterov: true, weightDecay: 0.01, lr: 0.05 },
  { optimizer: 'adamw', weightDecay: 0.1, lrSchedule: 'cosine', warmup: 3 },
  { batch: 21, leaf: 7, lrSchedule: 'constant' },
] as const) {
  test(`threads, barriers and banks give what plain loops give: ${JSON.stringify(chosen)}`, async () => {
    const dataset = tinyDataset(603);
    const job = tinyJob(chosen, dataset);
    const plain = trainPlainly(job, dataset);
    const { result, hashes, events } = await runTiny({
      job,
      dataset,
      threads: 3,
      fault: { kind: 'throw', phase: 'update' },
    });
    assert.deepEqual(hashes, plain.hashes);
    assert.deepEqual(events.filter(event => event.type === 'epoch').map(figuresOf), plain.epochs);
    assert.equal(result.weightsSha256, sha256(tensorBytes(plain.weights)));
  });
}

for (const threads of [1, 3, 4, 7]) {
  test(`${threads} threads give the bits of 2`, async () => {
    assert.deepEqual(bitsOf((await runTiny({ threads })).result), bitsOf((await runTiny()).result));
  });
}

for (const spanLimit of [1, 2, 7]) {
  test(`a run in spans of at most ${spanLimit} steps gives the same bits`, async () => {
    assert.equal((await runTiny({ spanLimit })).result.hash, golden.hash);
  });
}

test('threads without a lane change nothing', async () => {
  const job = tinyJob({ batch: 6, leaf: 3 });
  const [few, many] = [await runTiny({ job, threads: 1 }), await runTiny({ job, threads: 5 })];
  assert.deepEqual(bitsOf(many.result), bitsOf(few.result));
});

for (const optimizer of ['sgd', 'adamw'] as const) {
  test(`${optimizer} gives the same bits on 1 and 3 threads`, async () => {
    const job = tinyJob({ optimizer, nesterov: optimizer === 'sgd', weightDecay: 0.01, lr: 0.02 });
    const [one, three] = [await runTiny({ job, threads: 1 }), await runTiny({ job, threads: 3 })];
    assert.deepEqual(bitsOf(three.result), bitsOf(one.result));
  });
}

test('the reference engine gives the bits of the wasm engine', async () => {
  const reference = await runTiny({ job: tinyJob({ engine: 'reference' }), threads: 3 });
  assert.equal(reference.result.hash, golden.hash);
  assert.equal(reference.result.weightsSha256, golden.weightsSha256);
});

test('another seed, another label or another pixel gives another hash and other weights', async () => {
  const results = [
    (await runTiny()).result,
    (await runTiny({ job: tinyJob({ seed: 2 }) })).result,
    ...(await Promise.all(
      [
        (labels: Uint8Array) => void (labels[77] = (labels[77] + 1) % 3),
        (_: Uint8Array, images: Uint8Array) => void (images[4321] ^= 1),
      ].map(async change => {
        const dataset = tinyDataset(203, change);
        return (await runTiny({ dataset, job: tinyJob({}, dataset) })).result;
      }),
    )),
  ];
  assert.equal(new Set(results.map(({ hash }) => hash)).size, 4);
  assert.equal(new Set(results.map(({ weightsSha256 }) => weightsSha256)).size, 4);
});

test('an epoch of one step over the whole training set runs', async () => {
  const dataset = tinyDataset(120);
  const job = tinyJob({ batch: 120, leaf: 5, epochs: 2, lrSchedule: 'constant' }, dataset);
  const [one, three] = [
    await runTiny({ dataset, job, threads: 1 }),
    await runTiny({ dataset, job, threads: 3 }),
  ];
  assert.equal(one.result.steps, 2);
  assert.deepEqual(bitsOf(three.result), bitsOf(one.result));
});

test('a batch larger than the training set runs, with one short step an epoch', async () => {
  const dataset = tinyDataset(20);
  const job = tinyJob({ batch: 64, leaf: 8, epochs: 2, lrSchedule: 'constant' }, dataset);
  assert.equal((await runTiny({ dataset, job })).result.steps, 2);
});

const reasons = { exit: /code: 13/, throw: /injected fault/, trap: /unreachable/, hang: /no sign of life/ };

for (const kind of faultKinds) {
  // All phases at once: a hang is noticed only after a while.
  test(`a thread lost by ${kind} in any phase changes no bit`, async () => {
    await Promise.all(
      phases.map(async phase => {
        const { result, lost } = await runTiny({
          threads: 3,
          clock: hastyClock,
          fault: { kind, phase, thread: 1 },
        });
        assert.deepEqual({ hash: result.hash, weightsSha256: result.weightsSha256 }, golden, phase);
        assert.equal(lost.length, 1);
        assert.equal(lost[0].thread, 1);
        assert.equal(lost[0].phase, phase);
        assert.match(lost[0].reason, reasons[kind]);
      }),
    );
  });
}

for (const kind of faultKinds) {
  test(`all threads lost by ${kind} in one step change no bit`, async () => {
    const { result, lost } = await runTiny({
      threads: 3,
      clock: hastyClock,
      fault: { kind, phase: 'update', thread: 'any' },
    });
    assert.equal(result.hash, golden.hash);
    assert.ok(lost.length >= 3);
    assert.equal(new Set(lost.map(({ thread }) => thread)).size, 3);
  });
}

test('the only thread may die', async () => {
  const { result, lost } = await runTiny({ threads: 1, fault: { kind: 'exit', phase: 'update' } });
  assert.equal(result.hash, golden.hash);
  assert.equal(lost.length, 1);
});

test('a thread may die several times, as long as steps are done in between or it stops dying', async () => {
  const { result, lost } = await runTiny({ threads: 2, fault: { kind: 'exit', phase: 'reduce', times: 4 } });
  assert.equal(result.hash, golden.hash);
  assert.equal(lost.length, 4);
});

test('a thread that keeps dying ends the run with a code', async () => {
  await assert.rejects(runTiny({ threads: 2, fault: { kind: 'exit', phase: 'leaf', times: 1000 } }), {
    code: 'LOCKSTEP_THREAD_DIES',
    message: /code: 13/,
  });
});

test('an infinite learning rate is found at once, by name', async () => {
  const job = tinyJob({ optimizer: 'sgd', lr: 3e38, lrSchedule: 'constant' });
  await assert.rejects(runTiny({ job }), { code: /LOCKSTEP_BAD_(WEIGHTS|LEAF)/, message: /step \d+/i });
});

test('weights that grow beyond all bounds end the run, and the message names step, lane, layer and node', async () => {
  const job = tinyJob({ optimizer: 'sgd', momentum: 0, lr: 1e12, lrSchedule: 'constant' });
  await assert.rejects(runTiny({ job }), {
    code: 'LOCKSTEP_BAD_LEAF',
    message: /Step \d+, lane \d+, computed twice on the coordinator's node.*(layer \w+|the loss)/,
  });
});

test('closing a pool that is at work ends the work with an error', async () => {
  const dataset = tinyDataset();
  const job = tinyJob({}, dataset);
  const pool = await createTinyPool({ job, dataset, threads: 2 });
  const work = pool.train(0, [{ stepSize: 0.1, secondMomentScale: 1, decayFactor: 1 }]);
  const settled = assert.rejects(work, /closed/);
  await pool.close();
  await settled;
});

test('an aborted run ends at a step boundary with its code', async () => {
  const controller = new AbortController();
  const job = tinyJob({ epochs: 1000 });
  const told: unknown[] = [];
  const onEvent = ({ type }: RunEventBody, step: number | undefined): void => {
    told.push([type, step]);
    if (type === 'step') controller.abort();
  };
  const aborted = runTiny({ job, signal: controller.signal, onEvent });
  const message = /^Interrupted after step 1 of 9000, which is saved\./;
  await assert.rejects(aborted, { code: 'LOCKSTEP_INTERRUPTED', message });
  assert.deepEqual(told, [
    ['checkpoint', 0],
    ['step', 1],
    ['checkpoint', 1],
    ['interrupted', 1],
  ]);
});

test('a cut ends a span after a step, an evaluation at once, and changes no bit', async () => {
  const dataset = tinyDataset();
  const job = tinyJob({}, dataset);
  const node = await createTinyPool({ job, dataset, threads: 2 });
  try {
    const lengths: number[] = [];
    let powers = initialBetaPowers;
    let hash = 0n;
    for (let step = 0; step < job.totalSteps;) {
      const span = planSpan(job, step, job.totalSteps, powers);
      const training = node.train(step, span.scalars);
      if (step < 10) node.cut();
      const results = await training;
      lengths.push(results.length);
      step += results.length;
      powers = span.powers[results.length - 1];
      ({ hash } = results.at(-1)!);
      const evaluation = node.evaluate('test');
      node.cut();
      assert.equal(await evaluation, undefined);
    }
    assert.deepEqual(lengths, [...Array<number>(10).fill(1), job.totalSteps - 10]);
    assert.equal(formatHash(hash), golden.hash);
    assert.equal((await node.evaluate('test'))?.samples, 50);
  } finally {
    await node.close();
  }
});

test('an evaluation that is cut when it is tried again warns of nothing', async t => {
  const dataset = tinyDataset();
  const job = tinyJob({}, dataset);
  const { bank, ...state } = initialState(job);
  const bad = { ...state, bank: { ...bank, weights: bank.weights.map(() => Number.NaN) } };
  const warnings: string[] = [];
  const onWarning = (message: string) => warnings.push(message);
  const node = await createTinyPool({ job, dataset, threads: 2, state: bad, onWarning });
  // What wakes the threads for a command; they have functions of their own.
  const { add } = Atomics;
  let commandsGiven = 0;
  t.mock.method(Atomics, 'add', (words: Int32Array, index: number, value: number) => {
    if (index === control.command && ++commandsGiven === 2) node.cut();
    return add(words, index, value);
  });
  try {
    assert.equal(await node.evaluate('test'), undefined);
    assert.deepEqual([commandsGiven, warnings], [2, []]);
  } finally {
    await node.close();
  }
});

test('two pools in one process do not disturb each other', async () => {
  const runs = await Promise.all([runTiny({ threads: 2 }), runTiny({ threads: 3 })]);
  assert.deepEqual(
    runs.map(({ result }) => result.hash),
    [golden.hash, golden.hash],
  );
});

/** Trains the whole job in spans of 7 steps, with `between` before each; gives the last hash. */
async function trainInSpans(job: Job, node: LocalNode, between: (step: number) => Promise<void>) {
  let powers = initialBetaPowers;
  let hash = 0n;
  for (let step = 0; step < job.totalSteps; step += 7) {
    await between(step);
    const span = planSpan(job, step, Math.min(step + 7, job.totalSteps), powers);
    powers = span.powers.at(-1)!;
    hash = (await node.train(step, span.scalars)).at(-1)!.hash;
  }
  return formatHash(hash);
}

const updates = { stepSize: 0.1, secondMomentScale: 1, decayFactor: 1 };

/** Races, longer each time, until one race adds at least `leaves` leaves to every thread that has lanes. */
async function raceUntil(job: Job, node: LocalNode, leaves: number, step: number, stepSize = 0.1) {
  const racers = Math.min(node.threads, job.lanes);
  let least = 0;
  for (let durationMs = 2; least < leaves && durationMs < 5000; durationMs *= 2) {
    const before = node.reports();
    const samplesPerSecond = await node.race(
      step,
      Array.from(Array(5), () => ({ ...updates, stepSize })),
      durationMs,
    );
    const added = node.reports().map((report, thread) => report.leaves - before[thread].leaves);
    least = Math.min(...added.slice(0, racers));
    assert.equal(samplesPerSecond > 0, Math.max(...added) > 0);
    const idle = node.reports().slice(racers);
    assert.ok(idle.every((report, i) => report.leaves === 0 && report.busyMs === before[racers + i].busyMs));
  }
  assert.ok(least >= leaves, `${least} leaves`);
}

for (const threads of [1, 3]) {
  test(`races of ${threads} threads without barriers leave no trace in the training`, async () => {
    const dataset = tinyDataset();
    const job = tinyJob({}, dataset);
    const node = await createTinyPool({ job, dataset, threads });
    try {
      assert.equal(await trainInSpans(job, node, step => raceUntil(job, node, 4, step)), golden.hash);
    } finally {
      await node.close();
    }
  });
}

test('a race goes on with numbers that are not finite', async () => {
  const dataset = tinyDataset();
  const job = tinyJob({}, dataset);
  const node = await createTinyPool({ job, dataset, threads: 2 });
  try {
    await raceUntil(job, node, 100, 0, Number.NaN);
    assert.equal(await trainInSpans(job, node, async () => {}), golden.hash);
  } finally {
    await node.close();
  }
});

test('a race with fewer lanes than threads is run by those that have lanes', async () => {
  const dataset = tinyDataset();
  const job = tinyJob({ batch: 6, leaf: 3 }, dataset);
  const node = await createTinyPool({ job, dataset, threads: 4 });
  try {
    await raceUntil(job, node, 10, 0);
  } finally {
    await node.close();
  }
});

test('a thread that is lost in a race ends it and is replaced', async () => {
  const dataset = tinyDataset();
  const job = tinyJob({}, dataset);
  const lost: number[] = [];
  const node = await createTinyPool({
    job,
    dataset,
    threads: 3,
    fault: { kind: 'exit', thread: 1, step: 1, phase: 'update', times: 1 },
    onThreadLost: ({ thread }) => lost.push(thread),
  });
  try {
    await node.race(0, [updates], 60_000);
    assert.deepEqual(lost, [1]);
    assert.equal(await trainInSpans(job, node, async () => {}), golden.hash);
  } finally {
    await node.close();
  }
});

test('a race that ends with an error leaves no timer behind', async () => {
  const dataset = tinyDataset();
  const job = tinyJob({}, dataset);
  let timers = 0;
  const clock: Clock = {
    ...systemClock,
    every(periodMs, tick) {
      timers++;
      const end = systemClock.every(periodMs, tick);
      return () => {
        timers--;
        end();
      };
    },
  };
  const fault = { kind: 'throw', thread: 1, step: 1, phase: 'update', times: 1000 } as const;
  const node = await createTinyPool({ job, dataset, threads: 2, clock, fault });
  try {
    const watchdogs = timers;
    const raceForever = async (): Promise<never> => {
      for (;;) await node.race(0, [updates], 60_000);
    };
    await assert.rejects(raceForever, { code: 'LOCKSTEP_THREAD_DIES' });
    assert.equal(timers, watchdogs);
  } finally {
    await node.close();
  }
});

test("a thread's times add up, and are no longer than the time that passed", async () => {
  const dataset = tinyDataset();
  const job = tinyJob({}, dataset);
  const node = await createTinyPool({ job, dataset, threads: 3 });
  try {
    const startMs = systemClock.nowMs();
    await trainInSpans(job, node, async () => {});
    const passedMs = systemClock.nowMs() - startMs;
    const trained = node.reports();
    for (const { busyMs, computeMs, reduceMs, updateMs, waitMs } of trained) {
      assert.equal(busyMs, computeMs + reduceMs + updateMs);
      assert.ok(busyMs + waitMs <= passedMs);
      for (const ms of [computeMs, reduceMs, updateMs, waitMs]) assert.ok(ms > 0);
    }
    await node.evaluate('train');
    for (const [thread, after] of node.reports().entries()) {
      const before = trained[thread];
      assert.ok(after.computeMs > before.computeMs);
      assert.deepEqual({ ...after, computeMs: 0, busyMs: 0 }, { ...before, computeMs: 0, busyMs: 0 });
    }
  } finally {
    await node.close();
  }
});

test('logits are kept on demand: those of the reference, for any number of threads and through a death', async () => {
  const { train, ...rest } = tinyDataset(700);
  const dataset = { ...rest, train, test: train };
  const logitsOf = async (threads: number, options: Partial<PoolOptions> = {}) => {
    const lost: LostThread[] = [];
    const job = tinyJob(threads === 1 ? { engine: 'reference' } : {}, dataset);
    const onThreadLost = (thread: LostThread) => lost.push(thread);
    const node = await createTinyPool({ job, dataset, threads, keepsLogits: true, onThreadLost, ...options });
    try {
      const { logits, ...sums } = (await node.evaluate('test'))!;
      assert.ok(logits);
      assert.equal('logits' in (await node.evaluate('train'))!, false, 'only of the test set');
      return { logits, sums, lost };
    } finally {
      await node.close();
    }
  };
  const expected = await logitsOf(1);
  assert.equal(expected.logits.length, 700 * 3);
  const fault = { kind: 'exit', thread: 1, step: 0, phase: 'evaluate', times: 1 } as const;
  for (const [threads, options] of [
    [3, {}],
    [2, { fault }],
  ] as const) {
    const { logits, sums, lost } = await logitsOf(threads, options);
    assertSameBits(logits, expected.logits, `${threads} threads`);
    assert.deepEqual(sums, expected.sums);
    assert.equal(lost.length, 'fault' in options ? 1 : 0);
  }
});

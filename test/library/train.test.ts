// `train` as a library call: what is checked at the door, and what a caller's own errors do.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { decodeSafetensors } from '#dist/coordinator/safetensors.js';
import { describeModel, LockstepError, train, type RunEvent, type Training } from '#dist/library/index.js';
import { inTemporaryFolder } from '../support/cli.js';
import { tinyDataset, tinyModel } from '../support/tiny.js';

const short = { model: 'mlp', maxSteps: 20, workers: 2 } as const;

async function eventsOf(training: Training): Promise<RunEvent[]> {
  const events: RunEvent[] = [];
  for await (const event of training) events.push(event);
  return events;
}

test('train resolves with what its last event says, and with the weights', async () => {
  await inTemporaryFolder(async dir => {
    const training = train({ ...short, out: join(dir, 'run') });
    const { type, step, timeMs, ...rest } = (await eventsOf(training)).at(-1)!;
    assert.deepEqual([type, step], ['done', 20]);
    assert.ok(timeMs > 0);
    const { weights, ...result } = await training;
    assert.deepEqual(rest, result);
    const kept = decodeSafetensors(readFileSync(join(result.runDir, 'weights.safetensors')), 'weights');
    assert.deepEqual(
      Object.entries(weights).map(([name, { shape, values }]) => ({ name, shape, values })),
      kept.tensors,
    );
    assert.deepEqual(Object.keys(weights), ['fc1.kernel', 'fc1.bias', 'fc2.kernel', 'fc2.bias']);
  });
});

const refused = [
  { options: { out: '' }, code: 'LOCKSTEP_BAD_SETTING' },
  { options: { batch: 10, leaf: 4 }, code: 'LOCKSTEP_BAD_SETTING' },
  { options: { model: 'nope' }, code: 'LOCKSTEP_BAD_SETTING' },
  { options: { checkpointEvery: '5 minutes' }, code: 'LOCKSTEP_BAD_SETTING' },
  { options: { inject: 'zap:thread=1,step=1,phase=leaf' }, code: 'LOCKSTEP_BAD_INJECT' },
] as const;

for (const { options, code } of refused) {
  test(`train(${JSON.stringify(options)}) is refused with ${code}, by an event too`, async () => {
    const training = train({ ...short, ...options });
    const events: RunEvent[] = [];
    const isRefusal = (error: unknown): boolean => error instanceof LockstepError && error.code === code;
    await assert.rejects(async () => {
      for await (const event of training) events.push(event);
    }, isRefusal);
    await assert.rejects(training, isRefusal);
    assert.deepEqual(
      events.map(event => event.type === 'error' && event.code),
      [code],
    );
  });
}

test('a setting without effect is said', async () => {
  await inTemporaryFolder(async dir => {
    const events = await eventsOf(
      train({ ...short, optimizer: 'adam', momentum: 0.5, out: join(dir, 'run') }),
    );
    const warnings = events.flatMap(event => (event.type === 'warning' ? [event.message] : []));
    assert.equal(warnings.length, 1);
    assert.match(warnings[0], /momentum .* no effect with adam/);
  });
});

test('every reader of the events gets all of them, and the promise needs no reader', async () => {
  await inTemporaryFolder(async dir => {
    const training = train({ ...short, out: join(dir, 'run') });
    const [first, second] = await Promise.all([eventsOf(training), eventsOf(training)]);
    assert.ok(first.length > 3);
    assert.deepEqual(second, first);
    const { hash } = await train({ ...short, out: join(dir, 'other') });
    assert.equal(hash, (await training).hash);
  });
});

test('a loop that begins when the training has ended ends, with what the training ended with', async () => {
  await inTemporaryFolder(async dir => {
    const training = train({ ...short, out: join(dir, 'run') });
    await training;
    assert.deepEqual(await eventsOf(training), []);
    const failing = train({ ...short, batch: 0 });
    await assert.rejects(failing, { code: 'LOCKSTEP_BAD_SETTING' });
    await assert.rejects(eventsOf(failing), { code: 'LOCKSTEP_BAD_SETTING' });
  });
});

test('leaving the loop ends the training, saved; what is thrown in the loop is thrown by it', async () => {
  await inTemporaryFolder(async dir => {
    const out = join(dir, 'run');
    const whole = train({ ...short, maxSteps: 2000, out });
    const thrown = new Error('mine');
    await assert.rejects(async () => {
      for await (const event of whole) if (event.type === 'step') throw thrown;
    }, thrown);
    await assert.rejects(whole, { code: 'LOCKSTEP_INTERRUPTED', message: /lockstep train --resume/ });
    const { hash } = await train({ resume: out });
    assert.equal(hash, (await train({ ...short, maxSteps: 2000, out: join(dir, 'other') })).hash);
  });
});

test('two trainings at once in one process do not disturb each other', async () => {
  await inTemporaryFolder(async dir => {
    const options = { ...short, maxSteps: 300 };
    const [first, second] = await Promise.all([
      train({ ...options, out: join(dir, 'a') }),
      train({ ...options, seed: 2, out: join(dir, 'b') }),
    ]);
    assert.notEqual(first.hash, second.hash);
    assert.equal((await train({ ...options, out: join(dir, 'c') })).hash, first.hash);
    assert.equal((await train({ ...options, seed: 2, out: join(dir, 'd') })).hash, second.hash);
  });
});

test('a model as layers and a dataset as arrays are trained, and resumed when they are handed over again', async () => {
  await inTemporaryFolder(async dir => {
    const options = {
      model: tinyModel,
      dataset: tinyDataset(),
      batch: 24,
      epochs: 2,
      lrSchedule: 'constant',
      out: join(dir, 'run'),
    } as const;
    const result = await train(options);
    assert.equal(result.model, 'tiny');
    assert.deepEqual(result.weights['conv1.kernel'].shape, [3, 3, 1, 5]);
    await assert.rejects(train({ resume: result.runDir }), {
      code: 'LOCKSTEP_RESUME_SETTING',
      message: /arrays/,
    });
    const longer = await train({ resume: result.runDir, epochs: 3, dataset: tinyDataset() });
    assert.equal(longer.hash, (await train({ ...options, epochs: 3, out: join(dir, 'other') })).hash);
    const shorter = train({ resume: result.runDir, epochs: 1, dataset: tinyDataset() });
    await assert.rejects(shorter, { code: 'LOCKSTEP_RUN_FINISHED' });
  });
});

test('a finished run says what limits its steps, and that it can be raised', async () => {
  await inTemporaryFolder(async dir => {
    const dataset = tinyDataset(48);
    const options = { model: tinyModel, dataset, batch: 24, lrSchedule: 'constant' } as const;
    for (const [name, limits, flags] of [
      ['steps', { maxSteps: 3, epochs: 5 }, '--max-steps'],
      ['epochs', { epochs: 2 }, '--epochs'],
      ['both', { maxSteps: 4, epochs: 2 }, '--epochs and --max-steps'],
    ] as const) {
      const { runDir } = await train({ ...options, ...limits, out: join(dir, name) });
      const again = train({ resume: runDir, dataset, epochs: limits.epochs });
      const message = new RegExp(` has done its \\d steps\\. More can be added with ${flags} where `);
      await assert.rejects(again, { code: 'LOCKSTEP_RUN_FINISHED', message });
      assert.equal((await train({ resume: runDir, dataset, epochs: 10, maxSteps: 5 })).steps, 5);
    }
  });
});

test('a model that does not exist cannot be described', () => {
  assert.throws(() => describeModel('nope'), { code: 'LOCKSTEP_BAD_SETTING', message: /nope.*lenet5/ });
});

// `train` as a library call: what is checked at the door, and what a caller's own errors do.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { describeModel, LockstepError, train, type RunEvent } from '#dist/library/index.js';
import { inTemporaryFolder } from '../support/cli.js';

const short = { model: 'mlp', maxSteps: 20, workers: 2 } as const;

test('train resolves with what its last event says', async () => {
  await inTemporaryFolder(async dir => {
    const events: RunEvent[] = [];
    const result = await train({ ...short, out: join(dir, 'run'), onEvent: event => events.push(event) });
    const { type, step, timeMs, ...rest } = events.at(-1)!;
    assert.deepEqual([type, step], ['done', 20]);
    assert.ok(timeMs > 0);
    assert.deepEqual(rest, result);
    assert.ok(existsSync(join(result.runDir, 'weights.safetensors')));
  });
});

const refused = [
  { options: { out: '' }, code: 'LOCKSTEP_BAD_SETTING' },
  { options: { batch: 10, leaf: 4 }, code: 'LOCKSTEP_BAD_SETTING' },
  { options: { inject: 'zap:thread=1,step=1,phase=leaf' }, code: 'LOCKSTEP_BAD_INJECT' },
] as const;

for (const { options, code } of refused) {
  test(`train(${JSON.stringify(options)}) is refused with ${code}, by an event too`, async () => {
    const events: RunEvent[] = [];
    const refusal = train({ ...short, ...options, onEvent: event => events.push(event) });
    await assert.rejects(refusal, (error: unknown) => error instanceof LockstepError && error.code === code);
    assert.deepEqual(
      events.map(event => event.type === 'error' && event.code),
      [code],
    );
  });
}

test('a setting without effect is said', async () => {
  await inTemporaryFolder(async dir => {
    const warnings: string[] = [];
    const onEvent = (event: RunEvent): void => {
      if (event.type === 'warning') warnings.push(event.message);
    };
    await train({ ...short, optimizer: 'adam', momentum: 0.5, out: join(dir, 'run'), onEvent });
    assert.equal(warnings.length, 1);
    assert.match(warnings[0], /momentum .* no effect with adam/);
  });
});

for (const type of ['start', 'step', 'thread-lost'] as const) {
  test(`what a caller throws at a ${type} event rejects its promise and nothing else`, async () => {
    await inTemporaryFolder(async dir => {
      const thrown = new Error('mine');
      const call = train({
        ...short,
        out: join(dir, 'run'),
        inject: 'throw:thread=0,step=2,phase=update',
        onEvent: event => {
          if (event.type === type) throw thrown;
        },
      });
      await assert.rejects(call, thrown);
    });
  });
}

test('a model that does not exist cannot be described', () => {
  assert.throws(() => describeModel('nope'), { code: 'LOCKSTEP_BAD_SETTING', message: /nope.*lenet5/ });
});

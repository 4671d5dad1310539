// The events that a run folder keeps: what was told, and nothing that is secret.

import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { LockstepError, train, type RunEvent, type TrainOptions } from '#dist/library/index.js';
import { inTemporaryFolder } from '../support/cli.js';
import { tinyDataset, tinyModel } from '../support/tiny.js';

const tiny = { model: tinyModel, dataset: tinyDataset(), batch: 24, leaf: 3, epochs: 3, workers: 2 } as const;

/** What a training tells until it ends, with an error or without; it is aborted behind the checkpoint of `lastStep`. */
async function toldBy(options: TrainOptions, lastStep = Infinity): Promise<RunEvent[]> {
  const told: RunEvent[] = [];
  const stop = new AbortController();
  try {
    for await (const event of train({ ...options, signal: stop.signal })) {
      told.push(event);
      if (event.type === 'checkpoint' && event.step >= lastStep) stop.abort();
    }
  } catch (error) {
    assert.ok(error instanceof LockstepError, String(error));
  }
  return told;
}

function keptIn(dir: string): unknown[] {
  const lines = readFileSync(join(dir, 'events.jsonl'), 'utf8').trimEnd().split('\n');
  return lines.map((line): unknown => JSON.parse(line));
}

function withoutJoin(event: RunEvent): object {
  if (event.type !== 'listening') return event;
  const { join: line, ...rest } = event;
  assert.ok(line !== undefined);
  return rest;
}

test('a run folder keeps every event that was told, those of a resume behind those before it', async () => {
  await inTemporaryFolder(async dir => {
    const out = join(dir, 'run');
    const keyFile = join(dir, 'key');
    const inject = 'throw:thread=1,step=3,phase=leaf';
    const begun = { ...tiny, out, inject, listen: '0', keyFile, checkpointEvery: '5' };
    const first = await toldBy(begun, 10);
    const types = first.map(({ type }) => type);
    for (const type of ['thread-lost', 'listening', 'interrupted'] as const)
      assert.ok(types.includes(type), type);
    assert.equal(types.at(-1), 'interrupted');
    assert.deepEqual(keptIn(out), first.map(withoutJoin));

    const second = await toldBy({ resume: out, dataset: tiny.dataset });
    assert.deepEqual([second[0].type, second.at(-1)!.type], ['start', 'done']);
    assert.deepEqual(keptIn(out), [...first.map(withoutJoin), ...second]);

    // It has nothing left to do, and says so to its caller alone.
    await assert.rejects(train({ resume: out, dataset: tiny.dataset }), { code: 'LOCKSTEP_RUN_FINISHED' });
    assert.deepEqual(keptIn(out), [...first.map(withoutJoin), ...second]);
    assert.ok(!readdirSync(out).some(name => name.startsWith('lock')));
  });
});

test('the event start says when the run began, interrupted what the threads did', async () => {
  await inTemporaryFolder(async dir => {
    const out = join(dir, 'run');
    const before = new Date().toISOString();
    const told = await toldBy({ ...tiny, out, checkpointEvery: '5' }, 5);
    const start = told.find(event => event.type === 'start')!;
    assert.match(start.startedAt, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
    assert.ok(before <= start.startedAt && start.startedAt <= new Date().toISOString());
    const { threads } = told.find(event => event.type === 'interrupted')!;
    assert.deepEqual(
      threads.map(({ thread }) => thread),
      [0, 1],
    );
    assert.ok(threads.reduce((sum, { leaves }) => sum + leaves, 0) >= 40);
  });
});

test('an error that ends a run is kept; of a run that could not begin nothing is', async () => {
  await inTemporaryFolder(async dir => {
    const out = join(dir, 'run');
    const inject = 'exit:thread=any,step=1,phase=leaf,times=99';
    const dying = await toldBy({ ...tiny, out, inject });
    assert.deepEqual(keptIn(out), dying);
    assert.equal(dying.at(-1)!.type, 'error');

    const other = join(dir, 'other');
    const told = await toldBy({ ...tiny, out: other, listen: '0', joinFile: join(other, 'join') });
    assert.deepEqual(
      told.map(({ type }) => type),
      ['start', 'error'],
    );
    assert.ok(!existsSync(other));
  });
});

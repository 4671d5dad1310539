// Which nodes compute, and how fast, decides no bit: real processes, each test ends in the hash of one thread.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { parseJoin } from '#dist/shared/join.js';
import { assertOneHash, Field, samplesIn, through } from '../support/processes.js';
import { startFaultyProxy } from '../support/proxy.js';
import { Random } from '../support/random.js';

const settings = ['lenet5', '--seed', '7', '--batch', '128', '--max-steps', '100'];

test('2 local threads and 2 agents', async context => {
  const field = new Field(context);
  const coordinator = field.coordinate([...settings, '--workers', '2', '--min-nodes', '2']);
  const line = await coordinator.join();
  const agents = ['alpha', 'beta'].map(name => field.work(line, { name }));
  for (const agent of agents) await agent.said(/checking/);
  assertHidden(line);
  const done = await assertOneHash(coordinator, settings);
  assert.deepEqual(done.nodes?.map(({ name }) => name).toSorted(), ['alpha', 'beta']);
  for (const { ended } of agents) assert.equal((await ended).code, 0);
});

/** No process shows the key, nor any thread of one. */
function assertHidden(line: string): void {
  if (process.platform !== 'linux') return;
  const secret = Buffer.from(parseJoin(line).key.secret).toString('base64url');
  let seen = 0;
  for (const pid of readdirSync('/proc').filter(name => /^\d+$/.test(name))) {
    let shown: string;
    try {
      shown = readFileSync(`/proc/${pid}/cmdline`, 'latin1');
    } catch {
      // It has ended meanwhile.
      continue;
    }
    assert.ok(!shown.includes(secret), 'a process shows the key');
    if (shown.startsWith('lockstep worker')) seen++;
  }
  assert.ok(seen > 0, 'no agent is in the list');
}

test('no local thread and 3 agents of unequal speed; each sample once an epoch', async context => {
  const field = new Field(context);
  const coordinator = field.coordinate([...settings, '--workers', '0', '--min-nodes', '3']);
  const line = await coordinator.join();
  const slow = await startFaultyProxy(context, parseJoin(line), new Random('unequal speed'), () => [
    { kind: 'delay', delayMs: 2 },
    { kind: 'throttle', bytesPerSecond: 20_000_000 },
  ]);
  const agents = [
    field.work(line, { name: 'alpha' }),
    field.work(through(line, slow), { name: 'slow' }),
    field.work(line, { name: 'double', workers: 2 }),
  ];
  const done = await assertOneHash(coordinator, settings);
  const { lanes, batch, totalSteps } = await coordinator.event('start');
  const counted = done.nodes?.reduce((sum, { samples }) => sum + samples, 0);
  assert.equal(counted, samplesIn(totalSteps, batch, lanes));
  for (const { ended } of agents) assert.equal((await ended).code, 0);
  assert.equal(slow.connections, 1);
});

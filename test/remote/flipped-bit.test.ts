// A node that computes one bit wrongly, once, is found out by `--audit`, and the run can go on without it.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { parseJoin } from '#dist/shared/join.js';
import { assertOneHash, Field, through } from '../support/processes.js';
import { startFaultyProxy } from '../support/proxy.js';
import { Random, randomTest } from '../support/random.js';

const settings = ['lenet5', '--seed', '7', '--batch', '256', '--max-steps', '250'];
const script = new URL('../support/flipping-agent.js', import.meta.url);

randomTest(
  '--audit 1 names the node that flipped a bit, the other and the lanes',
  async (random, context) => {
    const field = new Field(context);
    const flags = ['--workers', '0', '--audit', '1'];
    const args = [...settings, ...flags, '--out', 'run', '--checkpoint-every', '10', '--min-nodes', '2'];
    const audited = field.coordinate(args);
    const line = await audited.join();
    const honest = field.work(line, { name: 'honest' });
    const flipArgs = ['flipping', join(field.dir, 'shards-flipping')];
    const flipping = field.run(script, flipArgs, { LOCKSTEP_JOIN: line });
    await audited.step(random.integer(60));
    flipping.kill('SIGUSR2');
    await audited.event('error');
    const [{ code, message }] = audited.all('error');
    assert.equal(code, 'LOCKSTEP_SUMS_DIFFER');
    const [, flippedStep, lanes] = /in step (\d+), lanes (\d+ to \d+)/.exec(await flipping.said(/flipped/))!;
    assert.match(message, /\bflipping\b/);
    assert.match(message, /\bhonest\b/);
    assert.match(message, new RegExp(`lanes ${lanes} of step ${flippedStep}\\b`));
    assert.equal((await audited.ended).code, 1);
    flipping.kill('SIGKILL');
    await flipping.ended;

    const { port } = parseJoin(line);
    const resumed = field.coordinate(['--resume', 'run', ...flags, '--min-nodes', '1'], String(port));
    await assertOneHash(resumed, settings);
    assert.ok(resumed.all('start')[0].resumedStep < Number(flippedStep));
    assert.equal((await honest.ended).code, 0);
  },
);

test('--audit 1 compares also what the own threads would do alone', async context => {
  const field = new Field(context);
  const flags = ['--workers', '1', '--audit', '1', '--min-nodes', '1'];
  const audited = field.coordinate([...settings, ...flags]);
  const line = await audited.join();
  // So far away that it is given no lanes.
  const slow = await startFaultyProxy(context, parseJoin(line), new Random('a spare'), () => [
    { kind: 'delay', delayMs: 50 },
  ]);
  const flipping = field.run(script, ['flipping', join(field.dir, 'shards-flipping')], {
    LOCKSTEP_JOIN: through(line, slow),
  });
  await audited.step(20);
  flipping.kill('SIGUSR2');
  const { code } = await audited.event('error');
  assert.equal(code, 'LOCKSTEP_SUMS_DIFFER');
});

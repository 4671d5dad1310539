// A node that computes one bit wrongly, once, is found out by `--audit`, and the run can go on without it.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { parseJoin } from '#dist/shared/join.js';
import { assertOneHash, Field } from '../support/processes.js';
import { randomTest } from '../support/random.js';

const settings = ['lenet5', '--seed', '7', '--batch', '256', '--max-steps', '80'];
const script = new URL('../support/flipping-agent.js', import.meta.url);

randomTest('--audit 1 names the node that flipped a bit, the other and the lanes', async (random, context) => {
  const field = new Field(context);
  const flags = ['--workers', '0', '--audit', '1'];
  const args = [...settings, ...flags, '--out', 'run', '--checkpoint-every', '10'];
  const audited = field.coordinate([...args, '--min-nodes', '2']);
  const line = await audited.join();
  const honest = field.work(line, { name: 'honest' });
  const step = 10 + random.integer(30);
  const flipArgs = ['flipping', String(step), join(field.dir, 'shards-flipping')];
  const flipping = field.run(script, flipArgs, { LOCKSTEP_JOIN: line });
  const { code, message } = await audited.event('error');
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
});

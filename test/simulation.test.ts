// The shipped coordinator and agents in a simulated world, a thousand seeds long.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LockstepError } from '#dist/shared/errors.js';
import { faultNames, noFaults, simulate, type SimulationOptions } from './support/simulation.js';

const firstSeed = Number(process.env.LOCKSTEP_SIMULATION_SEED ?? 1);
const seeds = Number(process.env.LOCKSTEP_SIMULATION_SEEDS ?? 1000);
/** How often each fault has to strike over a thousand seeds. */
const LEAST_OF_EACH = 500;

test(`${seeds} simulated runs, whatever goes wrong in them, end with the bits of a plain loop`, async t => {
  const fired = noFaults();
  let lostInStep = 0;
  let parts = 0;
  for (let seed = firstSeed; seed < firstSeed + seeds; seed++) {
    const run = await simulate(seed);
    for (const name of faultNames) fired[name] += run.faults[name];
    if (run.lostInStep > 0) lostInStep++;
    parts += run.parts;
  }
  for (const [name, count] of Object.entries(fired)) t.diagnostic(`${name}: ${count}`);
  t.diagnostic(`runs that lost a node which owed a part of the step: ${lostInStep}; parts counted: ${parts}`);
  if (seeds < 1000) return t.diagnostic('how often faults struck is asserted over 1000 seeds only');
  for (const [name, count] of Object.entries(fired))
    assert.ok(count >= LEAST_OF_EACH, `${name}: only ${count}`);
  assert.ok(lostInStep >= seeds / 2, `only ${lostInStep} runs lost a node inside a step`);
});

/** Runs with three agents in which nothing goes wrong but what is said. */
function calm(options: SimulationOptions): SimulationOptions {
  return { faults: [], agents: 3, ownThreads: 0, audit: 0, ...options };
}

const fewSeeds = Array.from({ length: 20 }, (_, i) => i + 1);

/** The refusal that a run ends with. */
async function refusalOf(seed: number, options: SimulationOptions): Promise<LockstepError> {
  try {
    await simulate(seed, options);
  } catch (error) {
    if (error instanceof Error && error.cause instanceof LockstepError) return error.cause;
    throw error;
  }
  throw new Error(`seed ${seed}: the run went on`);
}

test('one bit of one component of one sum ends a run that is audited, and both nodes are named', async () => {
  for (const seed of fewSeeds) {
    const { code, message } = await refusalOf(seed, calm({ audit: 1, wrong: 'sum' }));
    assert.equal(code, 'LOCKSTEP_SUMS_DIFFER', `seed ${seed}`);
    assert.match(message, /node agent-0 \([0-9a-f]{8}\)/);
    assert.match(message, /node agent-[12] \([0-9a-f]{8}\)/);
    assert.match(message, /lanes \d+ to \d+ of step \d+/);
  }
});

test('a node with other bits of the known leaves is refused, and the run goes on without it', async () => {
  for (const seed of fewSeeds) {
    const { told } = await simulate(seed, calm({ wrong: 'digests' }));
    const refused = told.filter(({ type }) => type === 'node-refused');
    assert.equal(refused.length, 1, `seed ${seed}`);
    assert.match(JSON.stringify(refused), /node agent-0 .* has other bits of the known leaves/);
    assert.equal(told.filter(({ type }) => type === 'node-joined').length, 2);
  }
});

test('a leaf that is bad on one node alone is computed by another, and the node is named', async () => {
  for (const seed of fewSeeds) {
    const { told } = await simulate(seed, calm({ wrong: 'bad leaf' }));
    const warnings = told.filter(({ type }) => type === 'warning');
    assert.equal(warnings.length, 1, `seed ${seed}`);
    assert.match(JSON.stringify(warnings), /node agent-0 .* found a bad leaf/);
  }
});

test('a leaf that is bad on two nodes ends the run, and on the only one too', async () => {
  for (const seed of fewSeeds) {
    for (const agents of [1, 3]) {
      const { code, message } = await refusalOf(seed, calm({ agents, wrong: 'bad leaf everywhere' }));
      assert.equal(code, 'LOCKSTEP_BAD_LEAF', `seed ${seed}`);
      assert.equal(message.match(/node agent-/g)?.length, Math.min(agents, 2));
    }
  }
});

test('a coordinator that stalls takes nobody for late', async () => {
  for (const seed of fewSeeds) {
    const { told, faults } = await simulate(seed, calm({ faults: ['coordinator stalled'] }));
    assert.ok(faults['coordinator stalled'] > 5);
    assert.deepEqual(
      told.filter(({ type }) => type === 'lease-expired' || type === 'node-lost'),
      [],
      `seed ${seed}`,
    );
  }
});

test('nodes that nothing happens to are never late, and nothing of theirs is dropped', async () => {
  for (const seed of fewSeeds) {
    const { told } = await simulate(seed, calm({ ownThreads: 1 }));
    assert.deepEqual(
      told.filter(({ type }) => type !== 'node-joined' && type !== 'waiting'),
      [],
      `seed ${seed}`,
    );
  }
});

// The shipped coordinator and agents in a simulated world, a thousand seeds long.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { faultNames, noFaults, simulate } from './support/simulation.js';

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

// The numerics check: equal for engines of one profile, other for another arithmetic and for a single other bit.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemClock, type Clock } from '#dist/shared/clock.js';
import { roundGradient } from '#dist/shared/exact-sum.js';
import { initialWeights } from '#dist/shared/initial-weights.js';
import { leafJobOf, type LeafJob } from '#dist/shared/leaf-job.js';
import { compileModel, type LayerSpec } from '#dist/shared/model.js';
import { Schedule } from '#dist/shared/schedule.js';
import { referenceArithmetic, type Precision } from '#dist/worker/engines/reference.js';
import {
  checkNumerics,
  computeKnownLeaves,
  digestOfSums,
  knownSamples,
} from '#dist/worker/numerics-check.js';
import { tinyDataset, tinyJob } from '../support/tiny.js';

const dataset = tinyDataset();
const job = leafJobOf(tinyJob({ batch: 48, leaf: 6 }, dataset), dataset);
const options = { clock: systemClock };

/** The digests by plain loops. */
function plainDigests(of: LeafJob, precision: Precision): string[] {
  const { model, normalization, leaf, seed } = of;
  const train = knownSamples(of);
  const samples = train.labels.length;
  const engineJob = { model, normalization, sets: { train, test: train }, seed, leaf, lossBound: 2 ** 15 };
  const schedule = new Schedule({ samples, seed, batch: leaf, leaf });
  const arithmetic = referenceArithmetic(engineJob, precision);
  return [0, 1, 0].map(step => {
    const gradient = new Float64Array(model.paddedCount);
    const positions = schedule.leafPositions(step, 0);
    const weights = initialWeights(model, seed);
    const result = arithmetic.gradient(weights, { step, lane: 0, positions }, gradient);
    return digestOfSums({ ...result, gradient: gradient.map(roundGradient) });
  });
}

for (const leaf of [1, 2, 6, 32, 40]) {
  test(`with leaves of ${leaf}, both engines have the bits of plain loops in f32, and not those in f64`, async () => {
    const ofLeaf = { ...job, leaf };
    const [wasm, reference] = [
      await checkNumerics({ ...ofLeaf, engine: 'wasm' }, options),
      await checkNumerics({ ...ofLeaf, engine: 'reference' }, options),
    ];
    assert.deepEqual(wasm.digests, plainDigests(ofLeaf, 'f32'));
    assert.deepEqual(reference.digests, wasm.digests);
    const [full, short, again] = wasm.digests;
    assert.equal(again, full);
    assert.notEqual(short, full);
    const f64 = plainDigests(ofLeaf, 'f64');
    for (const [i, digest] of wasm.digests.entries()) assert.notEqual(digest, f64[i]);
    assert.ok(wasm.leafMs > 0);
  });
}

test('lane 0 has one full and one short leaf', () => {
  for (const [leaf, short] of [
    [2, 1],
    [3, 1],
    [4, 3],
    [32, 17],
  ]) {
    assert.equal(knownSamples({ ...job, leaf }).labels.length, leaf + short);
  }
});

test('one other bit in a weight, the normalization or the seed gives other digests', async () => {
  const { digests } = await checkNumerics(job, options);
  const { scale, shift } = job.normalization;
  const weights = initialWeights(job.model, job.seed);
  // Of the first kernel: the last bit of a bias is lost where it is added.
  new Uint32Array(weights.buffer)[0] ^= 1;
  const nextShift = Float32Array.of(shift);
  new Uint32Array(nextShift.buffer)[0] ^= 1;
  const others = [
    await computeKnownLeaves(job, weights, options),
    await checkNumerics({ ...job, normalization: { scale, shift: nextShift[0] } }, options),
    await checkNumerics({ ...job, seed: job.seed + 1 }, options),
  ];
  for (const other of others) {
    assert.notEqual(other.digests[0], digests[0]);
    assert.notEqual(other.digests[1], digests[1]);
  }
});

test('no normalization brings a gradient of the known leaves near its bound', async () => {
  const layers: LayerSpec[] = [{ type: 'flatten' }, { type: 'dense', units: 3 }];
  const model = compileModel({ name: 'dense', layers }, job.model.input, 3);
  for (const [mean, deviation] of [
    [0.001, 0.03],
    [254.9, 0.5],
    [127, 127.5],
    [17, 1],
  ]) {
    const normalization = { scale: Math.fround(1 / deviation), shift: Math.fround(mean / deviation) };
    const { digests } = await checkNumerics({ ...job, model, normalization }, options);
    assert.equal(digests[0], digests[2]);
  }
});

test('a job is checked once in a process, whatever its batch and samples', async () => {
  let starts = 0;
  const clock: Clock = {
    ...systemClock,
    every(periodMs, tick) {
      starts++;
      return systemClock.every(periodMs, tick);
    },
  };
  const other = { ...job, seed: 77 };
  const same = { ...other, batch: 12, samples: { train: 5, test: 5 } };
  const checks = await Promise.all([other, same, { ...other }].map(one => checkNumerics(one, { clock })));
  assert.equal(starts, 1);
  for (const check of checks) assert.deepEqual(check, checks[0]);
  await checkNumerics({ ...other, leaf: 5 }, { clock });
  assert.equal(starts, 2);
});

test('a check that fails is tried again when it is asked for again', async () => {
  const impossible = { ...job, profile: 'another' };
  const first = checkNumerics(impossible, options);
  await assert.rejects(first, { code: 'LOCKSTEP_THREAD_DIES', message: /has profile/ });
  const second = checkNumerics(impossible, options);
  assert.notEqual(second, first);
  await assert.rejects(second, { code: 'LOCKSTEP_THREAD_DIES' });
});

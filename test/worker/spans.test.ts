// Spans of steps: given to the pool as they are, however long, they leave the hashes and the weights of single steps.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { planSpan } from '#dist/coordinator/run.js';
import type { Fault } from '#dist/shared/faults.js';
import { formatHash } from '#dist/shared/hash.js';
import type { LostThread } from '#dist/shared/node.js';
import { initialBetaPowers } from '#dist/shared/optimizer.js';
import { trainPlainly } from '../support/plain-training.js';
import { createTinyPool, tinyDataset, tinyJob } from '../support/tiny.js';

// 600 steps an epoch: no span below ends for that reason.
const dataset = tinyDataset(1800);
const steps = 512;
const job = tinyJob({ batch: 3, leaf: 1, epochs: 1, maxSteps: steps }, dataset);
const plain = trainPlainly(job, dataset);

/** Trains in spans of the given lengths, the last one again and again. */
async function trainInSpans(lengths: readonly number[], threads: number, fault?: Fault) {
  const lost: LostThread[] = [];
  const node = await createTinyPool({ job, dataset, threads, fault, onThreadLost: one => lost.push(one) });
  try {
    assert.equal(node.spanLimit, steps);
    const hashes: string[] = [];
    let powers = initialBetaPowers;
    for (let span = 0; hashes.length < steps; span++) {
      const from = hashes.length;
      const planned = planSpan(job, from, from + lengths[Math.min(span, lengths.length - 1)], powers);
      powers = planned.powers.at(-1)!;
      const results = await node.train(from, planned.scalars);
      hashes.push(...results.map(({ hash }) => formatHash(hash)));
    }
    return { hashes, weights: node.state().bank.weights.subarray(0, job.model.parameterCount), lost };
  } finally {
    await node.close();
  }
}

function assertPlain({ hashes, weights }: { hashes: readonly string[]; weights: Float32Array }): void {
  assert.equal(job.stepsPerEpoch, 600);
  assert.deepEqual(hashes, plain.hashes);
  assert.deepEqual(weights, plain.weights);
}

for (const lengths of [[1], [2], [511, 1], [512]]) {
  test(`spans of ${lengths.join(' and ')} give every hash and the weights of plain loops`, async () => {
    assertPlain(await trainInSpans(lengths, 2));
  });
}

for (const length of [1, 512]) {
  for (const phase of ['leaf', 'reduce', 'update', 'hash'] as const) {
    test(`a thread lost in phase ${phase} of a span of ${length} changes no hash and no weight`, async () => {
      const fault: Fault = { kind: 'throw', thread: 1, step: 300, phase, times: 1 };
      const trained = await trainInSpans([length], 2, fault);
      assert.deepEqual(
        trained.lost.map(({ thread, phase: where }) => [thread, where]),
        [[1, phase]],
      );
      assertPlain(trained);
    });
  }
}

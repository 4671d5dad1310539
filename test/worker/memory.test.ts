// The shared memory at its limits: sets of gigabytes, of which only the pages that are written to exist.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { normalizationOf } from '#dist/shared/dataset.js';
import { lossBound } from '#dist/shared/exact-sum.js';
import { compileModel, type ModelSpec } from '#dist/shared/model.js';
import { sizeOf } from '#dist/shared/shape.js';
import { createReferenceEngine } from '#dist/worker/engines/reference.js';
import { createWasmEngine } from '#dist/worker/engines/wasm.js';
import { instantiateKernels, loadKernelModule } from '#dist/worker/kernels.js';
import { createMemory, planMemory, viewMemory } from '#dist/worker/memory.js';
import { assertSameBits } from '../support/bits.js';
import { randomWeights } from '../support/engine-fixture.js';
import { randomTest } from '../support/random.js';

const input = { height: 32, width: 32, channels: 1 };
const spec: ModelSpec = {
  name: 'large',
  layers: [
    { type: 'conv2d', filters: 4, kernelSize: 5 },
    { type: 'relu' },
    { type: 'maxPool2d', poolSize: 2 },
    { type: 'flatten' },
    { type: 'dense', units: 8 },
    { type: 'relu' },
    { type: 'dense', units: 3 },
  ],
};
const model = compileModel(spec, input, 3);

randomTest('images, labels and scratch beyond 3 GiB give the bits of the reference', async random => {
  const samples = { train: 2_000_000, test: 1_200_000 };
  const plan = { model, threads: 1, leaf: 8, samples };
  const layout = planMemory(plan);
  const memory = createMemory(layout);
  const views = viewMemory(memory, layout, plan);
  const { scratch } = layout.threads[0];
  assert.ok(scratch > 3 * 2 ** 30);

  const positions = Uint32Array.from({ length: 8 }, (_, i) => samples.test - 8 + i);
  const from = positions[0] * sizeOf(input);
  for (let i = from; i < views.sets.test.images.length; i++) views.sets.test.images[i] = random.integer(256);
  for (const position of positions) views.sets.test.labels[position] = random.integer(3);
  views.banks[0].weights.set(randomWeights(model, random));
  const job = {
    model,
    normalization: normalizationOf(views.sets.test.images.slice(from)),
    // The engines train on what lies highest.
    sets: { train: views.sets.test, test: views.sets.test },
    seed: 1,
    leaf: 8,
    lossBound: lossBound(samples.train),
  };
  const kernels = instantiateKernels(loadKernelModule(), memory);
  const gradients = [];
  for (const engine of [
    createWasmEngine(job, kernels, memory, scratch, () => {}),
    createReferenceEngine(job, () => {}),
  ]) {
    const { gradient } = views.threads[0];
    await engine.useWeights(views.banks[0].weights);
    const { lossSum, isLossFinite } = await engine.gradient({ step: 0, lane: 0, positions }, gradient);
    assert.ok(isLossFinite && lossSum > 0);
    gradients.push(gradient.slice());
  }
  assertSameBits(gradients[0], gradients[1], 'gradient');
});

test('a dataset that no memory holds is LOCKSTEP_MEMORY with what is needed, and by what', () => {
  const layout = planMemory({ model, threads: 1, leaf: 8, samples: { train: 2_000_000, test: 2_300_000 } });
  assert.throws(() => createMemory(layout), {
    code: 'LOCKSTEP_MEMORY',
    message:
      /^This run needs 42\d\d MiB of shared memory, 42\d\d MiB of it for the dataset: more than the 4096 MiB that/,
  });
});

// The contract of engines, run against each; and what only some of them promise.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createFixture, engineNames, randomWeights } from '../support/engine-fixture.js';
import { compileModel, type LayerSpec } from '#dist/shared/model.js';
import { usesWinograd } from '#dist/worker/engines/engine.js';
import { Random, randomTest } from '../support/random.js';
import { engineContract } from './engine-contract.js';

for (const name of engineNames) engineContract(name);

const small = {
  input: { height: 6, width: 7, channels: 1 },
  layers: [
    { type: 'conv2d', filters: 5, kernelSize: 3 },
    { type: 'relu' },
    { type: 'flatten' },
    { type: 'dense', units: 3 },
  ],
} as const;

test('wasm and its scalar twin name the same arithmetic', () => {
  const { createEngine } = createFixture({ ...small, samples: 1, random: new Random('profile') });
  assert.equal(createEngine('wasm').profile, createEngine('reference').profile);
});

const conv = (kernelSize: number): LayerSpec => ({ type: 'conv2d', filters: 2, kernelSize });
const pool = (poolSize: number): LayerSpec => ({ type: 'maxPool2d', poolSize });
const relu: LayerSpec = { type: 'relu' };

/** Whether the last convolution is computed by Winograd's formula. */
function isWinograd(height: number, ...front: LayerSpec[]): boolean {
  const layers: LayerSpec[] = [...front, { type: 'flatten' }, { type: 'dense', units: 3 }];
  const model = compileModel({ name: 'test', layers }, { height, width: 13, channels: 1 }, 3);
  return usesWinograd(
    model,
    layers.findLastIndex(({ type }) => type === 'conv2d'),
  );
}

test("Winograd's convolution is for sizes of 5, whole tiles of rows and whole cells, behind another layer", () => {
  assert.equal(isWinograd(8, conv(1), conv(5)), true);
  assert.equal(isWinograd(12, conv(1), relu, conv(5), pool(2)), true);
  assert.equal(isWinograd(12, relu, conv(1), conv(5), relu, pool(4)), true);
  assert.equal(isWinograd(9, conv(2), relu, conv(5), relu), true);
  assert.equal(isWinograd(8, relu, conv(5)), true);
  assert.equal(isWinograd(8, conv(5)), false);
  assert.equal(isWinograd(10, conv(2), relu, conv(5), relu), false);
  assert.equal(isWinograd(8, conv(1), conv(5), relu, pool(3)), false);
  assert.equal(isWinograd(12, conv(1), conv(3)), false);
});

test('wasm refuses weights and gradients that do not lie in its memory', async () => {
  const random = new Random('foreign');
  const { createEngine, model, putWeights } = createFixture({ ...small, samples: 1, random });
  const engine = createEngine('wasm');
  const foreign = new Float32Array(model.paddedCount);
  await assert.rejects(engine.useWeights(foreign), /another memory/);
  await engine.useWeights(putWeights(randomWeights(model, random)));
  const leaf = { step: 0, lane: 0, positions: Uint32Array.of(0) };
  await assert.rejects(engine.gradient(leaf, foreign), /another memory/);
});

randomTest('wasm gives a sign of life after every 32 samples', async random => {
  const { createEngine, model, putWeights, gradientOf } = createFixture({ ...small, samples: 70, random });
  let signs = 0;
  const engine = createEngine('wasm', () => signs++);
  await engine.useWeights(putWeights(randomWeights(model, random)));
  const positions = random.distinct(70, 70);
  await gradientOf(engine, { step: 0, lane: 0, positions });
  assert.equal(signs, 3);
  await engine.evaluate('test', positions);
  assert.equal(signs, 6);
});

randomTest(
  'wasm writes to its scratch region and to the gradient, nowhere else in the memory',
  async random => {
    const fixture = createFixture({ ...small, samples: 40, random });
    const { gradient, memory, model, scratches } = fixture;
    const engine = fixture.createEngine('wasm');
    const bank = fixture.putWeights(randomWeights(model, random));
    const before = new Uint8Array(memory.buffer).slice();
    await engine.useWeights(bank);
    await engine.gradient({ step: 0, lane: 0, positions: random.distinct(40, 40) }, gradient);
    await engine.evaluate('test', random.distinct(40, 40));

    const own = [{ at: gradient.byteOffset, bytes: gradient.byteLength }, ...scratches];
    const after = new Uint8Array(memory.buffer).slice();
    for (const { at, bytes } of own) after.set(before.subarray(at, at + bytes), at);
    const changed = after.findIndex((byte, i) => byte !== before[i]);
    assert.equal(changed, -1, `byte ${changed} of the memory has changed`);
  },
);

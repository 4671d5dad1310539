// Initial weights: their range, their spread, and values that never change.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sha256 } from '#dist/shared/hash.js';
import { initialWeights } from '#dist/shared/initial-weights.js';
import { compileModel } from '#dist/shared/model.js';
import { presetSpec } from '#dist/shared/presets.js';

const image = { height: 28, width: 28, channels: 1 };
const lenet5 = compileModel(presetSpec('lenet5', 10), image, 10);
const mlp = compileModel(presetSpec('mlp', 10), image, 10);

test('weights lie within +-1/sqrt(fan-in) of their layer and fill that range', () => {
  const weights = initialWeights(lenet5, 1);
  const fanIns = [25, 25, 150, 150, 256, 256, 120, 120, 84, 84];
  for (const [index, { name, offset, size }] of lenet5.tensors.entries()) {
    const bound = 1 / Math.sqrt(fanIns[index]);
    const values = weights.subarray(offset, offset + size);
    assert.ok(
      values.every(value => Math.abs(value) <= Math.fround(bound)),
      name,
    );
    if (size >= 100) {
      assert.ok(Math.max(...values) > 0.9 * bound, name);
      assert.ok(Math.min(...values) < -0.9 * bound, name);
    }
  }
});

test('the weights of a large layer have the mean and variance of a uniform distribution', () => {
  const { offset, size } = lenet5.tensors.find(({ name }) => name === 'fc1.kernel')!;
  const values = Array.from(initialWeights(lenet5, 1).subarray(offset, offset + size), value => value * 16);
  const mean = values.reduce((sum, value) => sum + value, 0) / size;
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / size;
  // The standard errors are sqrt(1/3 / 30,720) = 0.0033 and sqrt(4/45 / 30,720) = 0.0017.
  assert.ok(Math.abs(mean) < 0.014, `mean ${mean}`);
  assert.ok(Math.abs(variance - 1 / 3) < 0.007, `variance ${variance}`);
});

test('the vector is whole blocks long, with zeros behind the last parameter', () => {
  for (const model of [lenet5, mlp]) {
    const weights = initialWeights(model, 1);
    assert.equal(weights.length, model.paddedCount);
    assert.ok(weights.subarray(0, model.parameterCount).every(value => value !== 0));
    assert.ok(weights.subarray(model.parameterCount).every(value => Object.is(value, 0)));
  }
});

test('equal seeds give equal weights, other seeds and other tensors other weights', () => {
  const weights = initialWeights(mlp, 1);
  assert.deepEqual(initialWeights(mlp, 1), weights);
  for (const seed of [0, 2, 1 + 2 ** 32]) {
    const others = initialWeights(mlp, seed);
    assert.ok(others.subarray(0, mlp.parameterCount).every((value, i) => value !== weights[i]));
  }
  const [kernel, bias] = mlp.tensors;
  assert.notDeepEqual(
    weights.slice(kernel.offset, kernel.offset + 20),
    weights.slice(bias.offset, bias.offset + 20),
  );
});

// Computed by a separate program from the description: Philox 4x32-10, stream 3, one counter word a tensor.
const golden = [
  [1, 'fc1.kernel', [0xbbcf48dc, 0x3c49d0e1, 0xbc00c6d7]],
  [1, 'fc1.bias', [0x3a66a2aa, 0x3cdc5f4e, 0x3ca9d6b8]],
  [1, 'fc2.kernel', [0xbe54563c, 0x3bdc3184, 0xbdeec511]],
  [1, 'fc2.bias', [0xbe34c3c5, 0x3d9ffc9c, 0xbd431b46]],
  [1 + 2 ** 32, 'fc1.kernel', [0xbcd07af6, 0x3c202d0e, 0x3c4aebcd]],
  [1 + 2 ** 32, 'fc2.bias', [0xbd989aab, 0x3e2fce0e, 0x3e42b241]],
] as const;

for (const [seed, name, bits] of golden) {
  test(`the first weights of ${name} with seed ${seed} have the bits they always had`, () => {
    const { offset } = mlp.tensors.find(tensor => tensor.name === name)!;
    const weights = initialWeights(mlp, seed).slice(offset, offset + 3);
    assert.deepEqual([...new Uint32Array(weights.buffer)], [...bits]);
  });
}

test('all weights of mlp with seed 1 have the bits they always had', () => {
  const weights = initialWeights(mlp, 1).slice(0, mlp.parameterCount);
  assert.equal(
    sha256(new Uint8Array(weights.buffer)),
    'd5d3df60a98e2451295f90bbc8561663ad74cff7e420a1707bdab17919a4645b',
  );
});

// The engine `tensorflow` on the native binding: the contract of engines, agreement with `reference`, and no leak.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { presetSpec } from '#dist/shared/presets.js';
import {
  chooseRuntime,
  findRuntimes,
  setupFolder,
  tensorflowEnvironment,
} from '#dist/worker/engines/tensorflow/runtime.js';
import { loadTensorflow } from '#dist/worker/engines/tensorflow/native.js';
import { createFixture, largestMagnitude, randomWeights, useTensorflow } from '../support/engine-fixture.js';
import { Random } from '../support/random.js';
import { engineContract } from '../worker/engine-contract.js';

Object.assign(process.env, tensorflowEnvironment('cpu', process.env));
const runtime = chooseRuntime(findRuntimes(setupFolder(process.env), process.cwd()), 'cpu');
const tf = loadTensorflow(runtime, 'cpu');
useTensorflow(tf);
engineContract('tensorflow');

const SAMPLES = 64;
const input = { height: 28, width: 28, channels: 1 };

for (const preset of ['lenet5', 'mlp', 'lenet5-regularized'] as const) {
  test(`${preset}: gradients and losses are those of the reference, but for rounding`, async () => {
    const random = new Random(`native ${preset}`);
    const { layers } = presetSpec(preset, 10);
    const fixture = createFixture({ layers, input, samples: SAMPLES, random });
    const { model } = fixture;
    const weights = fixture.putWeights(randomWeights(model, random));
    const leaf = { step: 4, lane: 3, positions: random.distinct(SAMPLES, SAMPLES) };
    const resultOf = async (name: 'tensorflow' | 'reference') => {
      const engine = fixture.createEngine(name);
      await engine.useWeights(weights);
      return {
        ...(await fixture.gradientOf(engine, leaf)),
        evaluated: await engine.evaluate('test', leaf.positions),
      };
    };
    const [native, reference] = [await resultOf('tensorflow'), await resultOf('reference')];
    for (const { name, offset, size } of model.tensors) {
      const [actual, expected] = [native, reference].map(({ gradient }) =>
        gradient.subarray(offset, offset + size),
      );
      const tolerance = 1e-4 * largestMagnitude(expected);
      for (const [i, value] of expected.entries()) {
        assert.ok(
          Math.abs(actual[i] - value) <= tolerance,
          `${name}[${i}]: ${actual[i]}, reference ${value}`,
        );
      }
    }
    for (const [actual, expected] of [
      [native, reference],
      [native.evaluated, reference.evaluated],
    ]) {
      assert.ok(Math.abs(actual.lossSum - expected.lossSum) <= 1e-5 * expected.lossSum);
      assert.equal(actual.correct, expected.correct);
    }
  });
}

test('1,000 leaves and evaluations leave no tensor behind', async () => {
  const random = new Random('native leak');
  const { layers } = presetSpec('lenet5-regularized', 10);
  const fixture = createFixture({ layers, input, samples: SAMPLES, random });
  const engine = fixture.createEngine('tensorflow');
  const weights = fixture.putWeights(randomWeights(fixture.model, random));
  const compute = async (step: number): Promise<void> => {
    await engine.useWeights(weights);
    await engine.gradient({ step, lane: 0, positions: random.distinct(4, SAMPLES) }, fixture.gradient);
    if (step % 50 === 0) await engine.evaluate('test', random.distinct(4, SAMPLES));
  };
  await compute(0);
  const { numTensors, numBytes } = tf.memory();
  for (let step = 1; step <= 1000; step++) await compute(step);
  assert.deepEqual([tf.memory().numTensors, tf.memory().numBytes], [numTensors, numBytes]);
});

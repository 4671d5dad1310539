// Loss, logits, accuracy and gradients of every engine against the engine `tensorflow` on the plain CPU backend of
// TensorFlow.js, on MNIST digits.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { loadMnist } from '#dist/coordinator/mnist.js';
import { initialWeights } from '#dist/shared/initial-weights.js';
import type { LayerSpec } from '#dist/shared/model.js';
import { sizeOf } from '#dist/shared/shape.js';
import { presetNames, presetSpec } from '#dist/shared/presets.js';
import type { Engine, Leaf } from '#dist/worker/engines/engine.js';
import {
  createFixture,
  engineNames,
  largestMagnitude,
  randomWeights,
  useTensorflow,
  type EngineFixture,
} from '../support/engine-fixture.js';
import { Random } from '../support/random.js';
import { tf } from '../support/tensorflow.js';

/** Of the largest component of a tensor. */
const TOLERANCE = 1e-5;
const SAMPLES = 16;
const SEED = 11;
const mnist = loadMnist();
const first = ({ images, labels }: typeof mnist.train) => ({
  images: images.subarray(0, SAMPLES * sizeOf(mnist.shape)),
  labels: labels.subarray(0, SAMPLES),
});

function onMnist(layers: readonly LayerSpec[]): EngineFixture {
  const sets = { train: first(mnist.train), test: first(mnist.test) };
  return createFixture({
    layers,
    input: mnist.shape,
    samples: SAMPLES,
    seed: SEED,
    sets,
    random: new Random('unused'),
  });
}

const leaf: Leaf = { step: 4, lane: 3, positions: Uint32Array.from({ length: SAMPLES }, (_, i) => i) };

function assertClose(actual: Float32Array, expected: Float32Array, what: string): void {
  assert.equal(actual.length, expected.length);
  const largest = largestMagnitude(expected);
  assert.ok(largest > 0, `${what} is all zero`);
  for (const [i, value] of expected.entries()) {
    const error = Math.abs(actual[i] - value);
    assert.ok(error <= TOLERANCE * largest, `${what}[${i}]: ${actual[i]}, TensorFlow ${value}`);
  }
}

function assertCloseLoss(actual: number, expected: number, what: string): void {
  const error = Math.abs(actual - expected);
  assert.ok(error <= TOLERANCE * expected, `${what}: loss ${actual}, TensorFlow ${expected}`);
}

useTensorflow(tf);

const models: Record<string, readonly LayerSpec[]> = {
  ...Object.fromEntries(presetNames.map(name => [name, presetSpec(name, mnist.classes).layers])),
  'pool by 3, dropout between convolutions, no relu': [
    { type: 'conv2d', filters: 5, kernelSize: 4 },
    { type: 'maxPool2d', poolSize: 3 },
    { type: 'dropout', rate: 0.25 },
    { type: 'conv2d', filters: 7, kernelSize: 3 },
    { type: 'flatten' },
    { type: 'dense', units: 13 },
    { type: 'dropout', rate: 0.5 },
    { type: 'dense', units: 10 },
  ],
  "stride 2 with padding 'same', average pools": [
    { type: 'conv2d', filters: 5, kernelSize: 4, padding: 'same' },
    { type: 'relu' },
    { type: 'avgPool2d', poolSize: 3 },
    { type: 'conv2d', filters: 7, kernelSize: 3, stride: 2, padding: 'same' },
    { type: 'relu' },
    { type: 'avgPool2d', poolSize: 2 },
    { type: 'flatten' },
    { type: 'dense', units: 10 },
  ],
  'strides and padding by a number, with a pool': [
    { type: 'conv2d', filters: 6, kernelSize: 5, padding: 2 },
    { type: 'relu' },
    { type: 'maxPool2d', poolSize: 2 },
    { type: 'conv2d', filters: 5, kernelSize: 2, stride: 3 },
    { type: 'conv2d', filters: 9, kernelSize: 3, stride: 2, padding: 1 },
    { type: 'relu' },
    { type: 'maxPool2d', poolSize: 2 },
    { type: 'flatten' },
    { type: 'dense', units: 10 },
  ],
};

for (const [name, layers] of Object.entries(models)) {
  const fixture = onMnist(layers);
  const { model } = fixture;
  const tensorflow = fixture.createEngine('tensorflow');
  const engines = engineNames.map(engineName => ({ engineName, engine: fixture.createEngine(engineName) }));
  const weightKinds = {
    initial: initialWeights(model, SEED),
    larger: randomWeights(model, new Random(`tensorflow ${name}`)),
  };
  for (const [kind, weights] of Object.entries(weightKinds)) {
    test(`gradients agree with TensorFlow: ${name}, ${kind} weights`, async () => {
      await tensorflow.useWeights(fixture.putWeights(weights));
      const expected = await fixture.gradientOf(tensorflow, leaf);
      for (const { engineName, engine } of engines) {
        await engine.useWeights(fixture.putWeights(weights));
        const { gradient, lossSum } = await fixture.gradientOf(engine, leaf);
        for (const { name: tensor, offset, size } of model.tensors) {
          const [actual, wanted] = [gradient, expected.gradient].map(g => g.subarray(offset, offset + size));
          assertClose(actual, wanted, `${engineName}: gradient of ${tensor}`);
        }
        assertCloseLoss(lossSum, expected.lossSum, engineName);
      }
    });

    test(`loss, correct count and logits agree with TensorFlow: ${name}, ${kind} weights`, async () => {
      for (const set of ['train', 'test'] as const) {
        const evaluate = async (engine: Engine) => {
          await engine.useWeights(fixture.putWeights(weights));
          const logits = new Float32Array(SAMPLES * model.classes);
          return { logits, ...(await engine.evaluate(set, leaf.positions, logits)) };
        };
        const expected = await evaluate(tensorflow);
        for (const { engineName, engine } of engines) {
          const { logits, lossSum, correct } = await evaluate(engine);
          assertCloseLoss(lossSum, expected.lossSum, `${engineName} on ${set}`);
          assert.equal(correct, expected.correct, `${engineName} on ${set}`);
          for (const position of leaf.positions) {
            const [row, wanted] = [logits, expected.logits].map(all =>
              all.subarray(position * model.classes, (position + 1) * model.classes),
            );
            assertClose(row, wanted, `${engineName}: logits of ${set} image ${position}`);
          }
        }
      }
    });
  }
}

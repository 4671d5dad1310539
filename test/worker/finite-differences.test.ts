// The gradient against central differences of the loss, in f64 arithmetic, for every kind of layer.

import assert from 'node:assert/strict';
import type { LayerSpec, Tensor } from '#dist/shared/model.js';
import type { Leaf } from '#dist/worker/engines/engine.js';
import { referenceArithmetic } from '#dist/worker/engines/reference.js';
import { createFixture, largestMagnitude, randomWeights, zeroBlack } from '../support/engine-fixture.js';
import { randomTest } from '../support/random.js';

/** Half the width of a difference: rounding costs about 1e-9 of the loss's slope, curvature nothing visible. */
const STEP = 2 ** -22;
/** Of the largest component of the tensor. */
const TOLERANCE = 1e-6;
/**
 * ReLU and max-pooling have kinks. A component is left out where the gradient itself jumps between the two ends of
 * its difference by more than this part of the tensor's largest component; smooth curvature stays far below.
 */
const KINK = 1e-4;
const MOST_KINKS = 0.01;

const relu: LayerSpec = { type: 'relu' };
const flatten: LayerSpec = { type: 'flatten' };
const conv = (filters: number, kernelSize: number): LayerSpec => ({ type: 'conv2d', filters, kernelSize });
const pool = (poolSize: number): LayerSpec => ({ type: 'maxPool2d', poolSize });
const average = (poolSize: number): LayerSpec => ({ type: 'avgPool2d', poolSize });
const strided = (
  filters: number,
  kernelSize: number,
  stride: number,
  padding: 'same' | number,
): LayerSpec => ({ type: 'conv2d', filters, kernelSize, stride, padding });
const dense = (units: number): LayerSpec => ({ type: 'dense', units });
const dropout = (rate: number): LayerSpec => ({ type: 'dropout', rate });

const models: Record<string, LayerSpec[]> = {
  'one dense layer': [flatten, dense(3)],
  'dense layers with relu': [flatten, dense(6), relu, dense(5), relu, dense(3)],
  'a convolution': [conv(3, 2), flatten, dense(3)],
  'a convolution of one pixel': [conv(4, 1), relu, flatten, dense(3)],
  'two convolutions in a row': [conv(3, 3), conv(4, 2), flatten, dense(3)],
  'convolution, relu, pool': [conv(4, 2), relu, pool(2), flatten, dense(3)],
  'convolution, pool, relu': [conv(4, 2), pool(3), relu, flatten, dense(3)],
  'LeNet in small': [conv(3, 2), relu, pool(2), conv(4, 2), relu, flatten, dense(6), relu, dense(3)],
  "Winograd's convolution": [conv(2, 1), conv(3, 5), relu, pool(2), flatten, dense(3)],
  'pool and relu first': [pool(2), relu, conv(3, 2), flatten, dense(3)],
  'dropout in the middle': [
    conv(4, 2),
    relu,
    dropout(0.25),
    pool(2),
    flatten,
    dense(6),
    relu,
    dropout(0.5),
    dense(3),
  ],
  'average pools': [conv(3, 2), average(2), relu, average(3), flatten, dense(3)],
  'average pool first': [average(3), conv(3, 2), flatten, dense(3)],
  'stride, same padding': [
    strided(4, 3, 2, 'same'),
    relu,
    strided(3, 3, 1, 'same'),
    pool(2),
    flatten,
    dense(3),
  ],
  'stride above the kernel, padding by a number': [
    relu,
    strided(4, 3, 1, 2),
    relu,
    strided(5, 2, 3, 1),
    flatten,
    dense(3),
  ],
  'cells in steps of 2': [strided(4, 2, 2, 0), pool(2), conv(2, 1), flatten, dense(3)],
  'dropout first': [dropout(0.25), conv(3, 3), relu, flatten, dense(3)],
  'dropout before relu': [flatten, dense(8), dropout(0.5), relu, dense(3)],
  'ends without a dense layer': [conv(5, 3), relu, conv(3, 4), pool(2), flatten],
};

for (const [name, layers] of Object.entries(models)) {
  for (const normalization of [undefined, zeroBlack]) {
    randomTest(`differences of the loss${normalization ? ', black pixels zero' : ''}: ${name}`, random => {
      const fixture = createFixture({
        layers,
        input: { height: 8, width: 8, channels: 2 },
        classes: 3,
        samples: 4,
        random,
        ...(normalization && { normalization }),
      });
      const { model, job } = fixture;
      const arithmetic = referenceArithmetic(job, 'f64');
      const leaf: Leaf = { step: 5, lane: 1, positions: Uint32Array.of(2, 0, 3) };
      const exact = new Float64Array(model.paddedCount);
      const hasGradient = ({ offset, size }: Tensor): boolean =>
        largestMagnitude(exact.subarray(offset, offset + size)) > 0;
      // Few samples can leave a small layer without any live unit: then there is nothing to compare, so draw again.
      let weights = new Float64Array();
      for (let draws = 0; draws === 0 || !model.tensors.every(hasGradient); draws++) {
        assert.ok(draws < 20, 'weights with which every tensor has a gradient are hard to find');
        weights = Float64Array.from(randomWeights(model, random));
        arithmetic.gradient(weights, leaf, exact);
      }

      let kinks = 0;
      const [low, high] = [new Float64Array(model.paddedCount), new Float64Array(model.paddedCount)];
      for (const { name: tensor, offset, size } of model.tensors) {
        const largest = largestMagnitude(exact.subarray(offset, offset + size));
        for (let i = offset; i < offset + size; i++) {
          const held = weights[i];
          weights[i] = held + STEP;
          const above = arithmetic.gradient(weights, leaf, high).lossSum;
          weights[i] = held - STEP;
          const below = arithmetic.gradient(weights, leaf, low).lossSum;
          weights[i] = held;
          if (Math.abs(high[i] - low[i]) > KINK * largest) {
            kinks++;
            continue;
          }
          const difference = (above - below) / (2 * STEP);
          assert.ok(
            Math.abs(difference - exact[i]) <= TOLERANCE * largest,
            `${tensor}[${i - offset}]: gradient ${exact[i]}, difference ${difference}`,
          );
        }
      }
      assert.ok(kinks <= MOST_KINKS * model.parameterCount, `${kinks} components lie at a kink`);
    });
  }

  randomTest(`f32 gives the numbers of f64, rounded: ${name}`, random => {
    const { model, job } = createFixture({
      layers,
      input: { height: 8, width: 8, channels: 2 },
      classes: 3,
      samples: 20,
      random,
    });
    const weights = randomWeights(model, random);
    const positions = Uint32Array.from({ length: 20 }, (_, i) => i);
    const leaf: Leaf = { step: 5, lane: 1, positions };
    const [single, double] = [new Float32Array(model.paddedCount), new Float64Array(model.paddedCount)];
    const rounded = referenceArithmetic(job, 'f32').gradient(weights, leaf, single);
    const exact = referenceArithmetic(job, 'f64').gradient(Float64Array.from(weights), leaf, double);
    assert.equal(rounded.correct, exact.correct);
    assert.ok(Math.abs(rounded.lossSum - exact.lossSum) < 1e-4);
    for (const { name: tensor, offset, size } of model.tensors) {
      const tolerance = 1e-5 * largestMagnitude(double.subarray(offset, offset + size));
      for (let i = offset; i < offset + size; i++) {
        const error = Math.abs(single[i] - double[i]);
        assert.ok(error <= tolerance, `${tensor}[${i - offset}]: ${single[i]}, in f64 ${double[i]}`);
      }
    }
  });
}

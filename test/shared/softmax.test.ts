// Probabilities out of logits, and the class that counts as predicted.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { predictedClass, softmax } from '#dist/shared/softmax.js';

test('equal logits are equally likely, whatever their size', () => {
  for (const logit of [0, -3e38, 3e38, 1]) {
    assert.deepEqual([...softmax(new Float32Array(4).fill(logit))], [0.25, 0.25, 0.25, 0.25]);
  }
});

test('probabilities are those of the definition and sum to 1', () => {
  const logits = Float32Array.of(-1, 0, 2.5, 7);
  const sum = logits.reduce((total, logit) => total + Math.exp(logit), 0);
  const probabilities = softmax(logits);
  for (const [c, probability] of probabilities.entries()) {
    const expected = Math.exp(logits[c]) / sum;
    assert.ok(Math.abs(probability - expected) < 1e-14 * expected, `${probability}, expected ${expected}`);
  }
  assert.ok(Math.abs(probabilities.reduce((a, b) => a + b) - 1) < 1e-15);
});

test('logits that are far apart give 1 and 0', () => {
  assert.deepEqual([...softmax(Float32Array.of(1000, -1000))], [1, 0]);
});

test('the first of the largest logits is the prediction', () => {
  assert.equal(predictedClass(Float32Array.of(1, 5, 5, 2)), 1);
  assert.equal(predictedClass(Float32Array.of(-2)), 0);
  assert.equal(predictedClass(Float32Array.of(-2, -3, -1)), 2);
});

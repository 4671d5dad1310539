// The TensorFlow engine: leaves as graphs of TensorFlow.js, on whatever backend it has been given.
//
// Losses and predictions are taken from the logits by our own arithmetic, dropout masks from our own random words, and
// gradients are sums over a leaf: what differs from the other engines is rounding.

import type * as core from '@tensorflow/tfjs-core';
import { roundLoss } from '../../../shared/exact-sum.js';
import type { SetName } from '../../../shared/dataset.js';
import { exp, log } from '../../../shared/math.js';
import { sizeOf } from '../../../shared/shape.js';
import { predictedClass } from '../../../shared/softmax.js';
import { TENSORFLOW_PROFILE, type Engine, type EngineJob, type LeafResult } from '../engine.js';
import { buildGraph, type Graph } from './graph.js';

export type Tfjs = typeof core;

/**
 * Samples that pass through the layers together in an evaluation, always so many: the bits of a sample's logits depend on
 * their number, and must not depend on where an evaluation is cut.
 */
const EVALUATION_SAMPLES = 256;

/** `showProgress` is called after every leaf, as a sign of life. */
export function createTensorflowEngine(tf: Tfjs, job: EngineJob, showProgress: () => void): Engine {
  const { model, normalization, sets, lossBound } = job;
  const { classes, parameterCount } = model;
  const size = sizeOf(model.input);
  const { height, width, channels } = model.input;
  let built: Promise<Graph> | undefined;

  function graphOf(): Promise<Graph> {
    return (built ??= buildGraph(tf, job));
  }

  /** The normalized images of some samples, zeros for those behind them. */
  function imagesOf(set: SetName, positions: Uint32Array, rows: number): core.Tensor4D {
    const { images } = sets[set];
    const { scale, shift } = normalization;
    const values = new Float32Array(rows * size);
    for (const [row, position] of positions.entries()) {
      for (let i = 0; i < size; i++) values[row * size + i] = images[position * size + i] * scale - shift;
    }
    return tf.tensor4d(values, [rows, height, width, channels]);
  }

  function judge(set: SetName, positions: Uint32Array, logits: Float32Array): LeafResult {
    const result = { lossSum: 0, correct: 0, isLossFinite: true };
    for (const [row, position] of positions.entries()) {
      const own = logits.subarray(row * classes, (row + 1) * classes);
      const label = sets[set].labels[position];
      const predicted = predictedClass(own);
      const most = own[predicted];
      let sum = 0;
      for (const logit of own) sum += exp(logit - most);
      const loss = log(sum) - (own[label] - most);
      result.isLossFinite &&= loss <= lossBound;
      result.lossSum += roundLoss(loss);
      result.correct += predicted === label ? 1 : 0;
    }
    return result;
  }

  return {
    profile: TENSORFLOW_PROFILE,
    async useWeights(weights) {
      const { variables } = await graphOf();
      tf.tidy(() => {
        for (const [i, { shape, offset, size: count }] of model.tensors.entries()) {
          // A copy: the weights may lie in memory that threads share, of which a backend knows nothing.
          variables[i].assign(tf.tensor(weights.slice(offset, offset + count), [...shape]));
        }
      });
    },
    async gradient(leaf, gradient) {
      const graph = await graphOf();
      const { positions } = leaf;
      const logits = tf.tidy(() => {
        const images = imagesOf('train', positions, positions.length);
        const labels = Int32Array.from(positions, position => sets.train.labels[position]);
        const truth = tf.cast(tf.oneHot(tf.tensor1d(labels, 'int32'), classes), 'float32');
        let outputs: core.Tensor | undefined;
        const { grads } = tf.variableGrads(() => {
          outputs = tf.keep(graph.logits(images, leaf));
          return tf.neg(tf.sum(tf.mul(truth, tf.logSoftmax(outputs))));
        }, [...graph.variables]);
        for (const [i, { offset }] of model.tensors.entries()) {
          gradient.set(grads[graph.variables[i].name].dataSync<'float32'>(), offset);
        }
        const values = outputs!.dataSync<'float32'>();
        outputs!.dispose();
        return values;
      });
      gradient.fill(0, parameterCount);
      showProgress();
      return judge('train', positions, logits);
    },
    async evaluate(set, positions, logits) {
      const graph = await graphOf();
      const total = { lossSum: 0, correct: 0, isLossFinite: true };
      for (let from = 0; from < positions.length; from += EVALUATION_SAMPLES) {
        const some = positions.subarray(from, from + EVALUATION_SAMPLES);
        const values = tf.tidy(() =>
          graph.logits(imagesOf(set, some, EVALUATION_SAMPLES)).dataSync<'float32'>(),
        );
        logits?.set(values.subarray(0, some.length * classes), from * classes);
        const { lossSum, correct, isLossFinite } = judge(set, some, values);
        total.lossSum += lossSum;
        total.correct += correct;
        total.isLossFinite &&= isLossFinite;
        showProgress();
      }
      return total;
    },
  };
}

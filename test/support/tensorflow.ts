// Our models as TensorFlow.js graphs on its plain CPU backend: an independent forward and backward pass.

import { register } from 'node:module';
import * as tf from '@tensorflow/tfjs-core';
import type { LabelledImages, Normalization } from '#dist/shared/dataset.js';
import { type Layer, type Model } from '#dist/shared/model.js';
import { sizeOf } from '#dist/shared/shape.js';

register('./tensorflow-hooks.js', import.meta.url);
await import('@tensorflow/tfjs-backend-cpu');
await import('@tensorflow/tfjs-core/dist/register_all_gradients.js');
// As in its own tests: no banner that recommends the native backend.
tf.env().set('IS_TEST', true);
await tf.setBackend('cpu');

/** What each element of a dropout layer's input is multiplied by, for the samples of a leaf in turn. */
export type Masks = ReadonlyMap<Layer, Float32Array>;

export interface TensorflowResult {
  readonly lossSum: number;
  readonly correct: number;
  /** One row of `model.classes` numbers for each sample. */
  readonly logits: Float32Array;
  /** In the order of the flat parameter vector. */
  readonly gradient: Float32Array;
}

/** Without masks dropout layers do nothing, as in evaluation. */
export function runTensorflow(
  model: Model,
  weights: Float32Array,
  { images, labels }: LabelledImages,
  { scale, shift }: Normalization,
  positions: Uint32Array,
  masks: Masks = new Map(),
): TensorflowResult {
  return tf.tidy(() => {
    const { height, width, channels } = model.input;
    const size = sizeOf(model.input);
    const pixels = Float32Array.from({ length: positions.length * size }, (_, i) => {
      const byte = images[positions[Math.floor(i / size)] * size + (i % size)];
      return Math.fround(byte * scale) - shift;
    });
    const x = tf.tensor4d(pixels, [positions.length, height, width, channels]);
    const parameters = model.tensors.map(({ shape, offset, size: count }) =>
      tf.tensor(weights.slice(offset, offset + count), [...shape]),
    );
    const truth = Int32Array.from(positions, position => labels[position]);
    const oneHot = tf.oneHot(tf.tensor1d(truth, 'int32'), model.classes);
    let logits = tf.zeros([0]);
    const lossOf = (...given: tf.Tensor[]): tf.Scalar => {
      logits = tf.keep(logitsOf(model, given, x, masks));
      return tf.neg(tf.sum(tf.mul(tf.cast(oneHot, 'float32'), tf.logSoftmax(logits))));
    };
    const { value, grads } = tf.valueAndGrads(lossOf)(parameters);
    const gradient = new Float32Array(model.paddedCount);
    for (const [i, { offset }] of model.tensors.entries()) gradient.set(floats(grads[i]), offset);
    const predicted = tf.argMax(logits, 1).dataSync();
    return {
      lossSum: floats(value)[0],
      correct: truth.filter((label, i) => label === predicted[i]).length,
      logits: floats(logits),
      gradient,
    };
  });
}

function floats(tensor: tf.Tensor): Float32Array {
  return Float32Array.from(tensor.dataSync());
}

function logitsOf(model: Model, parameters: tf.Tensor[], images: tf.Tensor4D, masks: Masks): tf.Tensor2D {
  const parameterOf = new Map(model.tensors.map((tensor, i) => [tensor, parameters[i]]));
  const samples = images.shape[0];
  let x: tf.Tensor = images;
  for (const layer of model.layers) {
    const { spec, input } = layer;
    const kernel = layer.parameters && parameterOf.get(layer.parameters.kernel)!;
    const bias = layer.parameters && parameterOf.get(layer.parameters.bias)!;
    const pixels = (): tf.Tensor4D =>
      tf.reshape<tf.Rank.R4>(x, [samples, input.height, input.width, input.channels]);
    switch (spec.type) {
      case 'conv2d': {
        const { filters, kernelSize: k, stride = 1, padding = 'valid' } = spec;
        const filter = tf.reshape<tf.Rank.R4>(kernel!, [k, k, input.channels, filters]);
        const rounding = typeof padding === 'number' ? 'floor' : undefined;
        x = tf.add(tf.conv2d(pixels(), filter, stride, padding, 'NHWC', 1, rounding), bias!);
        break;
      }
      case 'maxPool2d':
        x = tf.maxPool(pixels(), spec.poolSize, spec.poolSize, 'valid');
        break;
      case 'avgPool2d':
        x = tf.avgPool(pixels(), spec.poolSize, spec.poolSize, 'valid');
        break;
      case 'dense':
        x = tf.add(tf.matMul(x, kernel!), bias!);
        break;
      case 'relu':
        x = tf.relu(x);
        break;
      case 'flatten':
        x = tf.reshape(x, [samples, -1]);
        break;
      case 'dropout': {
        const mask = masks.get(layer);
        if (mask) x = tf.mul(x, tf.tensor(mask, x.shape));
        break;
      }
    }
  }
  return tf.reshape<tf.Rank.R2>(x, [samples, model.classes]);
}

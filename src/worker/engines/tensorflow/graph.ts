// A model as operations of TensorFlow.js: its variables, in the order of the flat parameter vector, and its logits.

import type * as core from '@tensorflow/tfjs-core';
import { seedKey, streams, wordsOf } from '../../../shared/philox.js';
import type { Layer } from '../../../shared/model.js';
import { dropoutCounter, dropoutThreshold, type EngineJob, type Leaf } from '../engine.js';

export interface Graph {
  readonly variables: readonly core.Variable[];
  /** Of a batch of images, `model.classes` each. With a leaf in training mode. */
  logits(images: core.Tensor4D, leaf?: Leaf): core.Tensor2D;
}

export async function buildGraph(tf: typeof core, job: EngineJob): Promise<Graph> {
  const { model, seed } = job;
  const variables = model.tensors.map(({ shape }) => tf.tidy(() => tf.variable(tf.zeros([...shape]))));
  const variableOf = new Map(model.tensors.map((tensor, i) => [tensor, variables[i]]));

  function apply(layer: Layer, index: number, x: core.Tensor, leaf: Leaf | undefined): core.Tensor {
    const { spec, input } = layer;
    const kernel = layer.parameters && variableOf.get(layer.parameters.kernel)!;
    const bias = layer.parameters && variableOf.get(layer.parameters.bias)!;
    const [samples] = x.shape;
    const pixels = (): core.Tensor4D =>
      tf.reshape<core.Rank.R4>(x, [samples, input.height, input.width, input.channels]);
    switch (spec.type) {
      case 'conv2d': {
        const { kernelSize: k, filters, stride = 1, padding = 'valid' } = spec;
        const filter = tf.reshape<core.Rank.R4>(kernel!, [k, k, input.channels, filters]);
        if (typeof padding === 'string') return tf.add(tf.conv2d(pixels(), filter, stride, padding), bias!);
        // The native backend knows no padding by a number.
        const sides: [number, number] = [padding, padding];
        const padded = tf.pad(pixels(), [[0, 0], sides, sides, [0, 0]]);
        return tf.add(tf.conv2d(padded, filter, stride, 'valid'), bias!);
      }
      case 'maxPool2d':
        return tf.maxPool(pixels(), spec.poolSize, spec.poolSize, 'valid');
      case 'avgPool2d':
        return tf.avgPool(pixels(), spec.poolSize, spec.poolSize, 'valid');
      case 'dense':
        return tf.add(tf.matMul(x, kernel!), bias!);
      case 'relu':
        return tf.relu(x);
      case 'flatten':
        return tf.reshape(x, [samples, -1]);
      case 'dropout':
        return leaf ? tf.mul(x, dropoutMask(tf, seed, leaf, index, spec.rate, x.shape)) : x;
      case 'layersModel':
        throw new Error('a model of tf.layers is no layer among others');
    }
  }

  return {
    variables,
    logits(images, leaf) {
      let x: core.Tensor = images;
      for (const [index, layer] of model.layers.entries()) x = apply(layer, index, x, leaf);
      return tf.reshape<core.Rank.R2>(x, [images.shape[0], model.classes]);
    },
  };
}

/** What each element is multiplied by: the same masks as in every other engine. */
function dropoutMask(
  tf: typeof core,
  seed: number,
  leaf: Leaf,
  layer: number,
  rate: number,
  shape: readonly number[],
): core.Tensor {
  const word = wordsOf(seedKey(seed), ...dropoutCounter(leaf, layer, streams.dropout));
  const threshold = dropoutThreshold(rate);
  const kept = Math.fround(1 / (1 - rate));
  const length = shape.reduce((product, extent) => product * extent, 1);
  const values = Float32Array.from({ length }, (_, i) => (word(i) >= threshold ? kept : 0));
  return tf.tensor(values, [...shape]);
}

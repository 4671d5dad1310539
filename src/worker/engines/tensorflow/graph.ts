// A model as operations of TensorFlow.js: its variables, in the order of the flat parameter vector, and its logits.
//
// A model of tf.layers is built by TensorFlow.js itself, from its topology, and its layers are applied one after another.

import type * as core from '@tensorflow/tfjs-core';
import { seedKey, streams, wordsOf } from '../../../shared/philox.js';
import { LockstepError, messageOf } from '../../../shared/errors.js';
import { inputShapeOf, readTopology, type LayersModelSpec } from '../../../shared/layers-model.js';
import { layersModelOf, type Layer } from '../../../shared/model.js';
import { dropoutCounter, dropoutThreshold, type EngineJob, type Leaf } from '../engine.js';

export interface Graph {
  readonly variables: readonly core.Variable[];
  /** Of a batch of images, `model.classes` each. With a leaf in training mode. */
  logits(images: core.Tensor4D, leaf?: Leaf): core.Tensor2D;
}

/** @throws LOCKSTEP_MODEL_LAYER where TensorFlow.js cannot build a model of tf.layers */
export async function buildGraph(tf: typeof core, job: EngineJob): Promise<Graph> {
  const { model, seed } = job;
  const layersModel = layersModelOf(model.spec);
  if (layersModel) return buildLayersModel(tf, job, layersModel);
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

/** What of tf.layers is used here: the packages with a native binding have it, the core alone does not. */
interface Layers {
  loadLayersModel(handler: core.io.IOHandler): Promise<{
    readonly layers: readonly LoadedLayer[];
    readonly outputs: readonly { readonly shape: readonly (number | null)[] }[];
  }>;
}

interface LoadedLayer {
  readonly trainableWeights: readonly { read(): core.Tensor }[];
  readonly nonTrainableWeights: readonly unknown[];
  apply(x: core.Tensor): core.Tensor;
}

async function buildLayersModel(tf: typeof core, job: EngineJob, spec: LayersModelSpec): Promise<Graph> {
  const { model, seed } = job;
  const { name } = model.spec;
  const fail = (what: string, cause?: unknown): never => {
    const message = `TensorFlow.js cannot build the model ${name}: ${what}.`;
    throw new LockstepError('LOCKSTEP_MODEL_LAYER', message, { cause });
  };
  if (!hasLayers(tf)) return fail('this installation of it has no tf.layers');
  const topology = readTopology(name, spec);
  const inputShape = inputShapeOf(name, topology, model.input);
  const layers = topology.map((layer, index) => {
    if (index > 0) return layer;
    return { ...layer, config: { ...layer.config, batch_input_shape: [null, ...inputShape] } };
  });
  // Which variable a tensor belongs to, TensorFlow.js knows by rules for names that differ between versions of Keras. So
  // every tensor is loaded full of its own index, and found again by it.
  const marks = new Float32Array(model.parameterCount);
  for (const [index, { offset, size }] of model.tensors.entries()) marks.fill(index, offset, offset + size);
  const weightSpecs = model.tensors.map(({ name: tensorName, shape }) => ({
    name: tensorName,
    shape: [...shape],
    dtype: 'float32' as const,
  }));
  const built = await tf
    .loadLayersModel(
      tf.io.fromMemory({
        modelTopology: { class_name: 'Sequential', config: { name: 'model', layers } },
        weightSpecs,
        weightData: marks.buffer,
      }),
    )
    .catch((cause: unknown) => fail(messageOf(cause).split(/\.? This may be due|\.?\n|\.$/)[0], cause));
  if (built.layers.some(({ nonTrainableWeights }) => nonTrainableWeights.length > 0)) {
    fail('it has weights that no gradient trains');
  }
  const outputs = built.outputs.map(({ shape }) => shape.slice(1).join(' x ')).join(' and ');
  if (outputs !== String(model.classes)) {
    throw new LockstepError(
      'LOCKSTEP_MODEL_SHAPE',
      `Model ${name} ends with ${outputs} outputs, and the dataset has ${model.classes} classes.`,
    );
  }
  const variables: core.Variable[] = [];
  for (const weight of built.layers.flatMap(layer => layer.trainableWeights)) {
    const variable = weight.read();
    if (!(variable instanceof tf.Variable)) return fail('its weights are no variables');
    variables[tf.tidy(() => tf.max(variable).dataSync<'float32'>())[0]] = variable;
  }
  if (Object.keys(variables).length !== model.tensors.length) fail('it has other weights than its file says');

  return {
    variables,
    logits(images, leaf) {
      const [samples] = images.shape;
      let x: core.Tensor = tf.reshape(images, [samples, ...inputShape]);
      for (const [index, layer] of built.layers.entries()) {
        const { class_name, config } = topology[index];
        if (class_name !== 'Dropout') x = layer.apply(x);
        else if (leaf) x = tf.mul(x, dropoutMask(tf, seed, leaf, index, Number(config['rate']), x.shape));
      }
      return tf.reshape<core.Rank.R2>(x, [samples, model.classes]);
    },
  };
}

function hasLayers(tf: typeof core | (typeof core & Layers)): tf is typeof core & Layers {
  return 'loadLayersModel' in tf;
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
  const values = new Float32Array(length);
  for (let i = 0; i < length; i++) values[i] = word(i) >= threshold ? kept : 0;
  return tf.tensor(values, [...shape]);
}

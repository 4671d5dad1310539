// Models are data: a list of layers, whose shapes are checked once against the dataset.
//
// Activations are height x width x channels (channels last). Parameters lie in one flat f32 vector, tensor after
// tensor: convolution kernels as [height, width, input, output], dense kernels as [input, output], each followed by
// its bias. These are TensorFlow's layouts.

import * as v from 'valibot';
import { LockstepError } from './errors.js';
import { BLOCK_PARAMETERS, blockCount } from './hash.js';
import { formatShape, isVector, sizeOf, type Shape } from './shape.js';

const positiveInteger = v.pipe(v.number(), v.integer(), v.minValue(1));

const layerSpecSchema = v.variant('type', [
  v.strictObject({ type: v.literal('conv2d'), filters: positiveInteger, kernelSize: positiveInteger }),
  v.strictObject({ type: v.literal('maxPool2d'), poolSize: positiveInteger }),
  v.strictObject({ type: v.literal('dense'), units: positiveInteger }),
  v.strictObject({ type: v.literal('relu') }),
  v.strictObject({ type: v.literal('flatten') }),
  v.strictObject({ type: v.literal('dropout'), rate: v.pipe(v.number(), v.minValue(0), v.ltValue(1)) }),
]);

export const modelSpecSchema = v.strictObject({
  name: v.pipe(v.string(), v.regex(/^[\w.-]+$/, 'letters, digits, dot, dash and underscore only')),
  layers: v.pipe(v.array(layerSpecSchema), v.minLength(1)),
});

export type LayerSpec = v.InferOutput<typeof layerSpecSchema>;
export type ModelSpec = v.InferOutput<typeof modelSpecSchema>;

/** A named tensor in the flat parameter vector. */
export interface Tensor {
  readonly name: string;
  readonly shape: readonly number[];
  /** Index of the first component in the flat vector. */
  readonly offset: number;
  readonly size: number;
  /** Inputs of one unit: initial values are uniform within +-1/sqrt(fanIn). */
  readonly fanIn: number;
}

export interface Layer {
  readonly name: string;
  readonly spec: LayerSpec;
  readonly input: Shape;
  readonly output: Shape;
  /** Kernel and bias, for layers that have them. */
  readonly parameters?: { readonly kernel: Tensor; readonly bias: Tensor };
}

export interface Model {
  readonly spec: ModelSpec;
  readonly input: Shape;
  readonly classes: number;
  readonly layers: readonly Layer[];
  /** All tensors, in the order of the flat vector. */
  readonly tensors: readonly Tensor[];
  readonly parameterCount: number;
  /** `parameterCount` rounded up to whole blocks: the length of weight vectors, zeros behind the last parameter. */
  readonly paddedCount: number;
}

/**
 * Checks the shapes of a model against the images and classes of a dataset and lays out its parameters.
 * @throws LOCKSTEP_MODEL_SHAPE, naming the layer, what it gets and what it needs.
 */
export function compileModel(spec: ModelSpec, input: Shape, classes: number): Model {
  const layers: Layer[] = [];
  const tensors: Tensor[] = [];
  const counts = new Map<string, number>();
  let parameterCount = 0;
  let shape = input;

  const tensor = (name: string, tensorShape: number[], fanIn: number): Tensor => {
    const size = tensorShape.reduce((product, extent) => product * extent, 1);
    const made = { name, shape: tensorShape, offset: parameterCount, size, fanIn };
    parameterCount += size;
    tensors.push(made);
    return made;
  };

  for (const layerSpec of spec.layers) {
    const prefix = namePrefixes[layerSpec.type];
    const count = (counts.get(prefix) ?? 0) + 1;
    counts.set(prefix, count);
    const name = `${prefix}${count}`;
    const fail = (need: string): never => {
      throw new LockstepError(
        'LOCKSTEP_MODEL_SHAPE',
        `Layer ${name} (number ${layers.length + 1} of model ${spec.name}) gets ${formatShape(shape)} and needs ${need}.`,
      );
    };
    const output = outputShape(layerSpec, shape, fail);
    let parameters: Layer['parameters'];
    if (layerSpec.type === 'conv2d') {
      const { kernelSize: k, filters } = layerSpec;
      const fanIn = k * k * shape.channels;
      parameters = {
        kernel: tensor(`${name}.kernel`, [k, k, shape.channels, filters], fanIn),
        bias: tensor(`${name}.bias`, [filters], fanIn),
      };
    } else if (layerSpec.type === 'dense') {
      parameters = {
        kernel: tensor(`${name}.kernel`, [shape.channels, layerSpec.units], shape.channels),
        bias: tensor(`${name}.bias`, [layerSpec.units], shape.channels),
      };
    }
    layers.push({ name, spec: layerSpec, input: shape, output, ...(parameters && { parameters }) });
    shape = output;
  }

  if (!isVector(shape) || shape.channels !== classes) {
    throw new LockstepError(
      'LOCKSTEP_MODEL_SHAPE',
      `Model ${spec.name} ends with ${formatShape(shape)} outputs, and the dataset has ${classes} classes: ` +
        `let its last layer be dense with units ${classes}.`,
    );
  }
  if (parameterCount === 0) {
    throw new LockstepError('LOCKSTEP_MODEL_SHAPE', `Model ${spec.name} has no parameters to train.`);
  }
  const paddedCount = blockCount(parameterCount) * BLOCK_PARAMETERS;
  return { spec, input, classes, layers, tensors, parameterCount, paddedCount };
}

const namePrefixes: Record<LayerSpec['type'], string> = {
  conv2d: 'conv',
  maxPool2d: 'pool',
  dense: 'fc',
  relu: 'relu',
  flatten: 'flatten',
  dropout: 'dropout',
};

function outputShape(spec: LayerSpec, input: Shape, fail: (need: string) => never): Shape {
  switch (spec.type) {
    case 'conv2d': {
      const { kernelSize: k, filters } = spec;
      if (input.height < k || input.width < k) fail(`at least ${k} x ${k} positions for its kernel`);
      return { height: input.height - k + 1, width: input.width - k + 1, channels: filters };
    }
    case 'maxPool2d': {
      const { poolSize: p } = spec;
      if (input.height < p || input.width < p) fail(`at least ${p} x ${p} positions for its window`);
      return {
        height: Math.floor(input.height / p),
        width: Math.floor(input.width / p),
        channels: input.channels,
      };
    }
    case 'dense':
      if (!isVector(input)) fail('a vector: put a flatten layer before it');
      return { height: 1, width: 1, channels: spec.units };
    case 'flatten':
      return { height: 1, width: 1, channels: sizeOf(input) };
    case 'relu':
    case 'dropout':
      return input;
  }
}

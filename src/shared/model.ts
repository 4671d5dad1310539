// Models are data: a list of layers, whose shapes are checked once against the dataset.
//
// Activations are height x width x channels (channels last). Parameters lie in one flat f32 vector, tensor after
// tensor: convolution kernels as [height, width, input, output], dense kernels as [input, output], each followed by
// its bias. These are TensorFlow's layouts. A model of tf.layers is one layer with tensors of its own: `layers-model.ts`.

import * as v from 'valibot';
import type { Normalization } from './dataset.js';
import { LockstepError } from './errors.js';
import { BLOCK_PARAMETERS, blockCount } from './hash.js';
import { compileLayersModel, layersModelSchema, type LayersModelSpec } from './layers-model.js';
import { formatShape, isVector, sizeOf, type Shape } from './shape.js';

const MOST = 65_536;
/** One thread needs 44 bytes a parameter of the 4 GiB that WebAssembly can address. */
export const MOST_PARAMETERS = 67_108_864;

/** The message of an issue is what was expected, as in all our schemas; the description goes into the JSON schema. */
function sizeSchema(description: string, least = 1) {
  const expected = `a whole number from ${least} to ${MOST}`;
  return v.pipe(
    v.number(expected),
    v.integer(expected),
    v.minValue(least, expected),
    v.maxValue(MOST, expected),
    v.description(description),
  );
}

const paddingSchema = v.union(
  [v.picklist(['valid', 'same']), sizeSchema('Rows and columns on each side', 0)],
  `'valid', 'same' or a whole number from 0 to ${MOST}`,
);

const conv2dSchema = v.pipe(
  v.strictObject({
    type: v.literal('conv2d'),
    filters: sizeSchema('Outputs of each position'),
    kernelSize: sizeSchema('Rows and columns of the kernel'),
    stride: v.exactOptional(sizeSchema('Rows and columns from one position to the next; 1 by default')),
    padding: v.exactOptional(
      v.pipe(
        paddingSchema,
        v.description(
          "Zeros around the normalized input: 'valid' (default) none, 'same' as TensorFlow defines it, or so many on each side",
        ),
      ),
    ),
  }),
  // Defaults are left out, so that a layer has one canonical form, and the hash of its runs one value.
  v.transform(({ stride = 1, padding = 'valid', ...layer }) => ({
    ...layer,
    ...(stride !== 1 && { stride }),
    ...(padding !== 'valid' && padding !== 0 && { padding }),
  })),
);

const poolSize = sizeSchema('Rows and columns of a window, and from one window to the next');
const rateExpected = 'a number from 0 to below 1';
const rate = v.pipe(
  v.number(rateExpected),
  v.minValue(0, rateExpected),
  v.ltValue(1, rateExpected),
  v.description('The part of its inputs that a step sets to zero'),
);

const layerSpecSchema = v.variant('type', [
  conv2dSchema,
  v.strictObject({ type: v.literal('maxPool2d'), poolSize }),
  v.strictObject({ type: v.literal('avgPool2d'), poolSize }),
  v.strictObject({ type: v.literal('dense'), units: sizeSchema('Outputs') }),
  v.strictObject({ type: v.literal('relu') }),
  v.strictObject({ type: v.literal('flatten') }),
  v.strictObject({ type: v.literal('dropout'), rate }),
]);

const nameExpected = 'letters, digits, dots, dashes and underscores';
const nameSchema = v.pipe(
  v.string(nameExpected),
  v.regex(/^[\w.-]+$/, nameExpected),
  v.description(`Names the run's folder; by default the file's name: ${nameExpected}`),
);

/** The only definition of the format of our own models; `docs/model.schema.json` is made from it. */
export const modelSpecSchema = v.strictObject(
  {
    name: nameSchema,
    layers: v.pipe(
      v.array(layerSpecSchema, 'a list of layers'),
      v.minLength(1, 'a list of at least one layer'),
      v.description('From the image to one output for each class'),
    ),
  },
  'an object with name and layers',
);

/** What runs keep and tell: a model of ours, or one of tf.layers, which nobody writes by hand. */
export const anyModelSpecSchema: v.GenericSchema<unknown, ModelSpec> = v.union([
  modelSpecSchema,
  v.strictObject({ name: nameSchema, layers: v.pipe(v.array(layersModelSchema), v.length(1)) }),
]);

export type LayerSpec = v.InferOutput<typeof layerSpecSchema> | LayersModelSpec;
export interface ModelSpec {
  readonly name: string;
  readonly layers: readonly LayerSpec[];
}
export type Conv2dSpec = Extract<LayerSpec, { readonly type: 'conv2d' }>;

/** The keys of each type of layer, those first that it needs. */
export const layerKeys = Object.fromEntries(
  layerSpecSchema.options.map(({ entries }) => [entries.type.literal, Object.keys(entries)]),
);

/** A named tensor in the flat parameter vector. */
export interface Tensor {
  readonly name: string;
  readonly shape: readonly number[];
  /** Index of the first component in the flat vector. */
  readonly offset: number;
  readonly size: number;
  /** Inputs of one unit: initial values are uniform within +-1/sqrt(fanIn). */
  readonly fanIn: number;
  /** The initial value, where all components have the same. */
  readonly constant?: number;
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
  /** What a pixel's byte means to it; by default that follows from the training set. */
  readonly normalization?: Normalization;
}

/** The layer that a model of tf.layers is. */
export function layersModelOf({ layers: [first] }: ModelSpec): LayersModelSpec | undefined {
  return first?.type === 'layersModel' ? first : undefined;
}

/**
 * Checks the shapes of a model against the images and classes of a dataset and lays out its parameters.
 * @throws LOCKSTEP_MODEL_SHAPE, naming the layer, what it gets and what it needs; LOCKSTEP_MODEL_LAYER
 */
export function compileModel(spec: ModelSpec, input: Shape, classes: number): Model {
  const layers: Layer[] = [];
  const tensors: Tensor[] = [];
  const counts = new Map<string, number>();
  let normalization: Normalization | undefined;
  let parameterCount = 0;
  let shape = input;

  const tensor = (name: string, tensorShape: readonly number[], fanIn: number, constant?: number): Tensor => {
    const size = tensorShape.reduce((product, extent) => product * extent, 1);
    const fill = constant !== undefined && { constant };
    const made = { name, shape: tensorShape, offset: parameterCount, size, fanIn, ...fill };
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
      const { height, width, channels } = shape;
      const got = layerSpec.type === 'dense' ? formatShape(shape) : `${height} x ${width} x ${channels}`;
      throw new LockstepError(
        'LOCKSTEP_MODEL_SHAPE',
        `Layer ${name} (number ${layers.length + 1} of model ${spec.name}) gets ${got} and needs ${need}.`,
      );
    };
    const output =
      layerSpec.type === 'layersModel'
        ? { height: 1, width: 1, channels: classes }
        : outputShape(layerSpec, shape, fail);
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
    } else if (layerSpec.type === 'layersModel') {
      const compiled = compileLayersModel(spec.name, layerSpec, input, classes);
      ({ normalization } = compiled);
      for (const made of compiled.tensors) tensor(made.name, made.shape, made.fanIn, made.constant);
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
  if (parameterCount > MOST_PARAMETERS) {
    throw new LockstepError(
      'LOCKSTEP_MODEL_SHAPE',
      `Model ${spec.name} has ${parameterCount} parameters, and ${MOST_PARAMETERS} are possible.`,
    );
  }
  const paddedCount = blockCount(parameterCount) * BLOCK_PARAMETERS;
  return {
    spec,
    input,
    classes,
    layers,
    tensors,
    parameterCount,
    paddedCount,
    ...(normalization && { normalization }),
  };
}

const namePrefixes: Record<LayerSpec['type'], string> = {
  conv2d: 'conv',
  maxPool2d: 'pool',
  avgPool2d: 'pool',
  dense: 'fc',
  relu: 'relu',
  flatten: 'flatten',
  dropout: 'dropout',
  layersModel: 'layers',
};

function outputShape(
  spec: Exclude<LayerSpec, LayersModelSpec>,
  input: Shape,
  fail: (need: string) => never,
): Shape {
  switch (spec.type) {
    case 'conv2d': {
      const { kernelSize: k, stride = 1, padding, filters } = spec;
      if (typeof padding === 'number' && padding >= k) {
        fail(`a padding below its kernelSize of ${k}, not ${padding}: further out it sees nothing but zeros`);
      }
      const { height, width } = paddedInput(spec, input).shape;
      if (height < k || width < k) fail(`at least ${k} x ${k} positions for its kernel, padding included`);
      return {
        height: Math.floor((height - k) / stride) + 1,
        width: Math.floor((width - k) / stride) + 1,
        channels: filters,
      };
    }
    case 'maxPool2d':
    case 'avgPool2d': {
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

/** What a convolution runs over: its input with the padding around it, and where in it the input begins. */
export interface PaddedInput {
  readonly shape: Shape;
  readonly top: number;
  readonly left: number;
}

export function paddedInput({ kernelSize, stride = 1, padding }: Conv2dSpec, input: Shape): PaddedInput {
  const [top, bottom] = paddingOf(input.height, kernelSize, stride, padding);
  const [left, right] = paddingOf(input.width, kernelSize, stride, padding);
  const { height, width, channels } = input;
  return { shape: { height: height + top + bottom, width: width + left + right, channels }, top, left };
}

/** Before and behind an extent. 'same' gives ceil(extent / stride) positions; an odd zero goes behind. */
function paddingOf(
  extent: number,
  kernelSize: number,
  stride: number,
  padding: Conv2dSpec['padding'] = 0,
): [number, number] {
  if (typeof padding === 'number') return [padding, padding];
  const total = Math.max(0, (Math.ceil(extent / stride) - 1) * stride + kernelSize - extent);
  return [Math.floor(total / 2), Math.ceil(total / 2)];
}

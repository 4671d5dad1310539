// A run's model as an ONNX file, from bytes to logits: https://github.com/onnx/onnx/blob/main/docs/IR.md
//
// Images are [N, height, width, channels] as everywhere here. ONNX convolves and pools [N, channels, height, width]: one
// Transpose in the graph leads there and one back before the first dense layer, and kernels of convolutions are stored
// as [output, input, height, width]. The file is a protobuf message, of which a dozen types occur here:
// https://github.com/onnx/onnx/blob/main/onnx/onnx.proto has the numbers of their fields.

import { LockstepError } from '../shared/errors.js';
import { describeTopologyLayer, readTopology } from '../shared/layers-model.js';
import { layersModelOf, paddedInput, type Model, type Tensor } from '../shared/model.js';
import { isVector, type Shape } from '../shared/shape.js';
import type { Normalization } from '../shared/dataset.js';
import type { Exported, ToExport } from './export.js';
import { readPackage } from './package.js';

/** Operators as of ONNX 1.8 (2020), so that older runtimes read the files too. */
const OPSET = 13;
const IR_VERSION = 7;

/** Numbers of the format. */
const elementTypes = { f32: 1, u8: 2, i64: 7 } as const;
const attributeTypes = { int: 2, ints: 7 } as const;

interface Node {
  readonly op: string;
  readonly name: string;
  readonly inputs: readonly string[];
  readonly attributes: Readonly<Record<string, number | readonly number[]>>;
}

/** @throws LOCKSTEP_EXPORT for a tf.LayersModel, whose layers have no counterpart here */
export function encodeOnnx({ config, model, weights, metadata, softmax, source }: ToExport): Exported {
  const given = layersModelOf(model.spec);
  if (given) {
    const [first] = readTopology(model.spec.name, given);
    throw new LockstepError(
      'LOCKSTEP_EXPORT',
      `Model ${source.model} is a tf.LayersModel, and ONNX files are made of Lockstep's own layers only: its layer ` +
        `${describeTopologyLayer(first)} has no counterpart. Use --to tfjs.`,
    );
  }
  const { height, width, channels } = config.dataset.shape;
  const input = `bytes from 0 to 255 as uint8, N x ${height} x ${width} x ${channels}`;
  const output = `${softmax ? 'probabilities' : 'logits'}, N x ${model.classes}`;
  const { nodes, initializers } = buildGraph(model, weights, config.normalization, softmax);
  const outputName = softmax ? 'probabilities' : 'logits';
  const graph = message(
    ...nodes.map((node, i): Field => [1, encodeNode(node, i === nodes.length - 1 ? outputName : node.name)]),
    [2, model.spec.name],
    ...initializers.map((initializer): Field => [5, initializer]),
    [11, encodeValue('images', elementTypes.u8, ['N', height, width, channels])],
    [12, encodeValue(outputName, elementTypes.f32, ['N', model.classes])],
  );
  const content = message(
    [1, IR_VERSION],
    [2, 'Lockstep'],
    [3, readPackage().version],
    [7, graph],
    // The empty domain, that of ONNX itself.
    [8, message([1, ''], [2, OPSET])],
    ...Object.entries({ ...metadata, input, output }).map(([key, value]): Field => [
      14,
      message([1, key], [2, value]),
    ]),
  );
  return { files: [['', content]], input, output };
}

/** Each node takes what the one before it gives. */
function buildGraph(
  { layers }: Model,
  weights: Float32Array,
  { scale, shift }: Normalization,
  softmax: boolean,
): { nodes: readonly Node[]; initializers: readonly Uint8Array[] } {
  const nodes: Node[] = [];
  const initializers: Uint8Array[] = [];
  let order: 'channels last' | 'channels first' | 'vector' = 'channels last';
  let last = 'images';

  const add = (
    op: string,
    name: string,
    attributes: Node['attributes'] = {},
    constants: string[] = [],
  ): void => {
    nodes.push({ op, name, inputs: [last, ...constants], attributes });
    last = name;
  };
  const constant = (name: string, dims: readonly number[], values: Float32Array | BigInt64Array): string => {
    const type = values instanceof Float32Array ? elementTypes.f32 : elementTypes.i64;
    const raw = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    initializers.push(message(...dims.map((dim): Field => [1, dim]), [2, type], [8, name], [9, raw]));
    return name;
  };
  const valuesOf = ({ offset, size }: Tensor): Float32Array => weights.subarray(offset, offset + size);
  const toChannelsFirst = (name: string, { channels }: Shape): void => {
    if (order === 'channels last') add('Transpose', `${name}.transposed`, { perm: [0, 3, 1, 2] });
    if (order === 'vector') {
      // A 0 keeps the extent: that of the batch.
      const shape = constant(`${name}.shape`, [4], BigInt64Array.of(0n, BigInt(channels), 1n, 1n));
      add('Reshape', `${name}.reshaped`, {}, [shape]);
    }
    order = 'channels first';
  };
  const toVector = (name: string, shape: Shape): void => {
    if (order === 'vector') return;
    if (order === 'channels first' && !isVector(shape)) {
      add('Transpose', `${name}.transposed`, { perm: [0, 2, 3, 1] });
    }
    add('Flatten', `${name}.flat`, { axis: 1 });
    order = 'vector';
  };

  add('Cast', 'floats', { to: elementTypes.f32 });
  add('Mul', 'scaled', {}, [constant('normalization.scale', [], Float32Array.of(scale))]);
  add('Sub', 'normalized', {}, [constant('normalization.shift', [], Float32Array.of(shift))]);
  for (const { name, spec, input, parameters } of layers) {
    switch (spec.type) {
      case 'conv2d': {
        const { kernel, bias } = parameters!;
        const { kernelSize: k, stride = 1, filters } = spec;
        const { shape, top, left } = paddedInput(spec, input);
        toChannelsFirst(name, input);
        const values = outputsFirst(valuesOf(kernel), k * k, input.channels, filters);
        const constants = [
          constant(kernel.name, [filters, input.channels, k, k], values),
          constant(bias.name, bias.shape, valuesOf(bias)),
        ];
        const pads = [top, left, shape.height - input.height - top, shape.width - input.width - left];
        add('Conv', name, { kernel_shape: [k, k], strides: [stride, stride], pads }, constants);
        break;
      }
      case 'maxPool2d':
      case 'avgPool2d': {
        const window = [spec.poolSize, spec.poolSize];
        toChannelsFirst(name, input);
        add(spec.type === 'maxPool2d' ? 'MaxPool' : 'AveragePool', name, {
          kernel_shape: window,
          strides: window,
        });
        break;
      }
      case 'dense': {
        const { kernel, bias } = parameters!;
        toVector(name, input);
        add('Gemm', name, {}, [
          constant(kernel.name, kernel.shape, valuesOf(kernel)),
          constant(bias.name, bias.shape, valuesOf(bias)),
        ]);
        break;
      }
      case 'relu':
        add('Relu', name);
        break;
      case 'flatten':
        toVector(name, input);
        break;
      case 'dropout':
        break;
      case 'layersModel':
        throw new Error('a model of tf.layers is no layer among others');
    }
  }
  toVector('end', layers.at(-1)!.output);
  if (softmax) add('Softmax', 'softmax', { axis: 1 });
  return { nodes, initializers };
}

/** [positions, input, output] as [output, input, positions]. */
function outputsFirst(
  kernel: Float32Array,
  positions: number,
  inputs: number,
  outputs: number,
): Float32Array {
  const turned = new Float32Array(kernel.length);
  let at = 0;
  for (let o = 0; o < outputs; o++) {
    for (let i = 0; i < inputs; i++) {
      for (let p = 0; p < positions; p++) turned[at++] = kernel[(p * inputs + i) * outputs + o];
    }
  }
  return turned;
}

function encodeNode({ op, name, inputs, attributes }: Node, output: string): Uint8Array {
  return message(
    ...inputs.map((value): Field => [1, value]),
    [2, output],
    [3, name],
    [4, op],
    ...Object.entries(attributes).map(([key, value]): Field => [
      5,
      typeof value === 'number'
        ? message([1, key], [3, value], [20, attributeTypes.int])
        : message([1, key], ...value.map((entry): Field => [8, entry]), [20, attributeTypes.ints]),
    ]),
  );
}

/** An input or output of the graph; an extent that is a text may be any. */
function encodeValue(name: string, type: number, shape: readonly (string | number)[]): Uint8Array {
  const dims = shape.map((extent): Field => [1, message([typeof extent === 'number' ? 1 : 2, extent])]);
  return message([1, name], [2, message([1, message([1, type], [2, message(...dims)])])]);
}

/** The number of a field and its value: a whole number from 0, a text, or bytes and messages. */
type Field = readonly [number: number, value: number | string | Uint8Array];

/** A message of protobuf: https://protobuf.dev/programming-guides/encoding */
function message(...fields: readonly Field[]): Uint8Array {
  return Buffer.concat(
    fields.flatMap(([number, value]) => {
      if (typeof value === 'number') return [varint(number * 8), varint(value)];
      const bytes = typeof value === 'string' ? Buffer.from(value) : value;
      return [varint(number * 8 + 2), varint(bytes.length), bytes];
    }),
  );
}

/** Seven bits a byte, the lowest first; the highest bit says that more follow. */
function varint(value: number): Uint8Array {
  const bytes: number[] = [];
  for (let rest = value; ; rest = Math.floor(rest / 128)) {
    if (rest < 128) return Uint8Array.from([...bytes, rest]);
    bytes.push((rest % 128) + 128);
  }
}

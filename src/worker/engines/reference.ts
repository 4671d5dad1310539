// The reference engine: plain loops, one rounding an operation. In f32 it gives the bits of the `wasm` engine.

import type { SetName } from '../../shared/dataset.js';
import { roundLoss } from '../../shared/exact-sum.js';
import { exp, log } from '../../shared/math.js';
import { paddedInput, type Conv2dSpec, type Layer } from '../../shared/model.js';
import { sizeOf, type Shape } from '../../shared/shape.js';
import { seedKey, streams, wordsOf } from '../../shared/philox.js';
import {
  cellSize,
  dropoutCounter,
  dropoutThreshold,
  F32_PROFILE,
  shiftedLayer,
  usesWinograd,
  type Engine,
  type EngineJob,
  type Leaf,
  type LeafResult,
} from './engine.js';
import { inputsAtPoints, outputsOfPoints, tapsAtPoints } from './winograd.js';

/** Of Winograd's convolution: as many points as rows of inputs that a tile sees. */
const POINTS = [0, 1, 2, 3, 4, 5, 6, 7];
const TAPS = [0, 1, 2, 3, 4];

type Floats = Float32Array | Float64Array;

/** `f32` rounds every operation to f32; `f64` is for finite differences, where rounding would drown them. */
export type Precision = 'f32' | 'f64';

export interface ReferenceArithmetic {
  /** The leaf's result, and its gradient written to `gradient`. */
  gradient(weights: Floats, leaf: Leaf, gradient: Floats): LeafResult;
  /** `logits` gets a row for each of the positions. */
  evaluate(weights: Floats, set: SetName, positions: Uint32Array, logits?: Floats): LeafResult;
}

/** What the backward pass of a layer needs from its forward pass on one sample. */
interface ForwardRecord {
  /** Of a convolution with its padding. */
  readonly x: Floats;
  readonly y: Floats;
  /** Max-pooling: index of each winner. */
  readonly winners?: Uint32Array;
  /** Dropout: what each element was multiplied by. */
  readonly multipliers?: Floats;
}

/** `afterSample` is called after every sample, as a sign of life. */
export function referenceArithmetic(
  job: EngineJob,
  precision: Precision,
  afterSample: () => void = () => {},
): ReferenceArithmetic {
  const { model, normalization, sets } = job;
  const f = precision === 'f32' ? Math.fround : (x: number) => x;
  const zeros = (length: number): Floats =>
    precision === 'f32' ? new Float32Array(length) : new Float64Array(length);
  const first = shiftedLayer(model);
  const shift = f(normalization.shift);

  function input(set: SetName, position: number): Floats {
    const size = sizeOf(model.input);
    const x = zeros(size);
    for (let i = 0; i < size; i++) {
      const byte = sets[set].images[position * size + i];
      x[i] = f(f(byte * normalization.scale) - (first ? 0 : shift));
    }
    return x;
  }

  /** The bias of the first layer less the shift's part: what is left of it must not be -0. */
  function shiftedBias({ parameters }: Layer, weights: Floats, output: number): number {
    const { kernel, bias } = parameters!;
    let sum = 0;
    for (let at = output; at < kernel.size; at += bias.size) sum = f(sum + weights[kernel.offset + at]);
    return f(weights[bias.offset + output] - f(shift * sum)) + 0;
  }

  function biasOf(layer: Layer, weights: Floats, output: number): number {
    return layer === first
      ? shiftedBias(layer, weights, output)
      : weights[layer.parameters!.bias.offset + output];
  }

  function forwardLayer(
    layer: Layer,
    index: number,
    x: Floats,
    weights: Floats,
    training?: Training,
  ): ForwardRecord {
    const { spec } = layer;
    const size = sizeOf(layer.output);
    switch (spec.type) {
      case 'conv2d': {
        const padded = pad(layer, spec, x);
        const convolve = usesWinograd(model, index) ? winogradConv2d : conv2d;
        return { x: padded, y: convolve(layer, spec, padded, weights) };
      }
      case 'maxPool2d':
        return maxPool2d(layer, spec.poolSize, x);
      case 'avgPool2d':
        return { x, y: avgPool2d(layer, spec.poolSize, x) };
      case 'dense': {
        const { kernel } = layer.parameters!;
        const y = zeros(size);
        for (let j = 0; j < size; j++) {
          let sum = biasOf(layer, weights, j);
          for (let i = 0; i < x.length; i++) {
            if (x[i] !== 0) sum = f(sum + f(x[i] * weights[kernel.offset + i * size + j]));
          }
          y[j] = sum;
        }
        return { x, y };
      }
      case 'relu':
        return { x, y: x.map(value => (value < 0 ? 0 : value)) };
      case 'dropout': {
        if (!training) return { x, y: x };
        const word = wordsOf(seedKey(job.seed), ...dropoutCounter(training.leaf, index, streams.dropout));
        const scale = f(1 / (1 - spec.rate));
        const multipliers = zeros(size);
        for (let i = 0; i < size; i++) {
          const isKept = word(training.sample * size + i) >= dropoutThreshold(spec.rate);
          multipliers[i] = isKept ? scale : 0;
        }
        return { x, y: x.map((value, i) => f(value * multipliers[i])), multipliers };
      }
      case 'flatten':
        return { x, y: x };
      case 'layersModel':
        throw new Error('only TensorFlow computes models of tf.layers');
    }
  }

  /** Zeros around the normalized input: where the shift is still in the pixels, pixels of its size. */
  function pad(layer: Layer, spec: Conv2dSpec, x: Floats): Floats {
    const { shape, top, left } = paddedInput(spec, layer.input);
    const padded = zeros(sizeOf(shape)).fill(layer === first ? shift : 0);
    const rowSize = layer.input.width * shape.channels;
    for (let row = 0; row < layer.input.height; row++) {
      const at = ((top + row) * shape.width + left) * shape.channels;
      padded.set(x.subarray(row * rowSize, (row + 1) * rowSize), at);
    }
    return padded;
  }

  /** The gradient of the input out of that of the padded input. */
  function unpad(layer: Layer, spec: Conv2dSpec, padded: Floats): Floats {
    const { shape, top, left } = paddedInput(spec, layer.input);
    const dx = zeros(sizeOf(layer.input));
    const rowSize = layer.input.width * shape.channels;
    for (let row = 0; row < layer.input.height; row++) {
      const at = ((top + row) * shape.width + left) * shape.channels;
      dx.set(padded.subarray(at, at + rowSize), row * rowSize);
    }
    return dx;
  }

  function conv2d(layer: Layer, spec: Conv2dSpec, x: Floats, weights: Floats): Floats {
    const { kernelSize: k, filters, stride = 1 } = spec;
    const { kernel } = layer.parameters!;
    const { width, channels } = paddedInput(spec, layer.input).shape;
    const y = zeros(sizeOf(layer.output));
    const biases = Array.from({ length: filters }, (_, filter) => biasOf(layer, weights, filter));
    let at = 0;
    for (const { oy, ox } of pixels(layer.output)) {
      for (let filter = 0; filter < filters; filter++) {
        let sum = biases[filter];
        for (let ky = 0; ky < k; ky++) {
          for (let i = 0; i < k * channels; i++) {
            const value = x[((oy * stride + ky) * width + ox * stride) * channels + i];
            const weight = weights[kernel.offset + (ky * k * channels + i) * filters + filter];
            sum = f(sum + f(value * weight));
          }
        }
        y[at++] = sum;
      }
    }
    return y;
  }

  /** Four rows of outputs at a time. Each point has a sum over a row of the patch; the point 1's begins with the bias. */
  function winogradConv2d(layer: Layer, spec: Conv2dSpec, x: Floats, weights: Floats): Floats {
    const { filters } = spec;
    const { kernel } = layer.parameters!;
    const { height, width } = layer.output;
    const { shape } = paddedInput(spec, layer.input);
    const { channels } = shape;
    const rowSize = shape.width * channels;
    const patchSize = 5 * channels;
    const y = zeros(sizeOf(layer.output));
    const taps = Array.from({ length: patchSize * filters }, (_, at) => {
      const column = TAPS.map(ky => weights[kernel.offset + ky * patchSize * filters + at]);
      return tapsAtPoints(f, column);
    });
    for (let top = 0; top < height; top += 4) {
      const inputs = Array.from({ length: rowSize }, (_, at) => {
        const column = POINTS.map(row => x[(top + row) * rowSize + at]);
        return inputsAtPoints(f, column);
      });
      for (let ox = 0; ox < width; ox++) {
        for (let filter = 0; filter < filters; filter++) {
          const products = POINTS.map(point => {
            let sum = point === 1 ? biasOf(layer, weights, filter) : 0;
            for (let i = 0; i < patchSize; i++) {
              sum = f(sum + f(inputs[ox * channels + i][point] * taps[i * filters + filter][point]));
            }
            return sum;
          });
          for (const [row, value] of outputsOfPoints(f, products).entries()) {
            y[((top + row) * width + ox) * filters + filter] = value;
          }
        }
      }
    }
    return y;
  }

  function maxPool2d(layer: Layer, p: number, x: Floats): ForwardRecord {
    const { width, channels } = layer.input;
    const y = zeros(sizeOf(layer.output));
    const winners = new Uint32Array(y.length);
    let at = 0;
    for (const { oy, ox } of pixels(layer.output)) {
      for (let c = 0; c < channels; c++) {
        let winner = (oy * p * width + ox * p) * channels + c;
        for (const index of windowOf(layer.input, p, oy, ox, c)) {
          if (x[index] > x[winner] || Number.isNaN(x[index])) winner = index;
        }
        winners[at] = winner;
        y[at++] = x[winner];
      }
    }
    return { x, y, winners };
  }

  function avgPool2d(layer: Layer, p: number, x: Floats): Floats {
    const y = zeros(sizeOf(layer.output));
    let at = 0;
    for (const { oy, ox } of pixels(layer.output)) {
      for (let c = 0; c < layer.output.channels; c++) {
        let sum = 0;
        for (const index of windowOf(layer.input, p, oy, ox, c)) sum = f(sum + x[index]);
        y[at++] = f(sum / (p * p));
      }
    }
    return y;
  }

  function avgPool2dBackward(layer: Layer, p: number, dy: Floats): Floats {
    const dx = zeros(sizeOf(layer.input));
    let at = 0;
    for (const { oy, ox } of pixels(layer.output)) {
      for (let c = 0; c < layer.output.channels; c++) {
        const share = f(dy[at++] / (p * p));
        for (const index of windowOf(layer.input, p, oy, ox, c)) dx[index] = share;
      }
    }
    return dx;
  }

  /** Adds the layer's part of one sample's gradient; gives the gradient of the layer's input. */
  function backwardLayer(
    layer: Layer,
    record: ForwardRecord,
    dy: Floats,
    weights: Floats,
    gradient: Floats,
  ): Floats {
    const { spec } = layer;
    const { x, y } = record;
    switch (spec.type) {
      case 'conv2d':
        return unpad(layer, spec, conv2dBackward(layer, spec, x, dy, weights, gradient));
      case 'maxPool2d': {
        const dx = zeros(x.length);
        for (const [i, winner] of record.winners!.entries()) dx[winner] = dy[i];
        return dx;
      }
      case 'avgPool2d':
        return avgPool2dBackward(layer, spec.poolSize, dy);
      case 'dense': {
        const { kernel, bias } = layer.parameters!;
        const dx = zeros(x.length);
        for (let j = 0; j < dy.length; j++) {
          gradient[bias.offset + j] = f(gradient[bias.offset + j] + dy[j]);
        }
        for (let i = 0; i < x.length; i++) {
          let sum = 0;
          for (let j = 0; j < dy.length; j++) {
            const at = kernel.offset + i * dy.length + j;
            if (x[i] !== 0) gradient[at] = f(gradient[at] + f(x[i] * dy[j]));
            if (dy[j] !== 0) sum = f(sum + f(dy[j] * weights[at]));
          }
          dx[i] = sum;
        }
        return dx;
      }
      case 'relu':
        return dy.map((value, i) => (y[i] > 0 ? value : 0));
      case 'dropout':
        return dy.map((value, i) => f(value * record.multipliers![i]));
      case 'flatten':
        return dy;
      case 'layersModel':
        throw new Error('only TensorFlow computes models of tf.layers');
    }
  }

  function conv2dBackward(
    layer: Layer,
    spec: Conv2dSpec,
    x: Floats,
    dy: Floats,
    weights: Floats,
    gradient: Floats,
  ): Floats {
    const { kernelSize: k, filters, stride = 1 } = spec;
    const { kernel, bias } = layer.parameters!;
    const { width, channels } = paddedInput(spec, layer.input).shape;
    const dx = zeros(x.length);
    for (const cell of cells(layer.output, cellSize(model, model.layers.indexOf(layer)))) {
      for (let filter = 0; filter < filters; filter++) {
        for (const { oy, ox } of cell) {
          const value = dy[(oy * layer.output.width + ox) * filters + filter];
          if (value === 0) continue;
          gradient[bias.offset + filter] = f(gradient[bias.offset + filter] + value);
          for (let ky = 0; ky < k; ky++) {
            for (let i = 0; i < k * channels; i++) {
              const from = ((oy * stride + ky) * width + ox * stride) * channels + i;
              const at = kernel.offset + (ky * k * channels + i) * filters + filter;
              gradient[at] = f(gradient[at] + f(value * x[from]));
              dx[from] = f(dx[from] + f(value * weights[at]));
            }
          }
        }
      }
    }
    return dx;
  }

  /** From the gradient for unshifted inputs to the first layer's: what the bias' gradient tells of it is taken off. */
  function shiftGradient({ parameters }: Layer, gradient: Floats): void {
    const { kernel, bias } = parameters!;
    for (let at = 0; at < kernel.size; at++) {
      const moved = f(shift * gradient[bias.offset + (at % bias.size)]);
      gradient[kernel.offset + at] = f(gradient[kernel.offset + at] - moved);
    }
  }

  function forward(weights: Floats, x: Floats, training?: Training): ForwardRecord[] {
    const records: ForwardRecord[] = [];
    for (const [index, layer] of model.layers.entries()) {
      records.push(forwardLayer(layer, index, records.at(-1)?.y ?? x, weights, training));
    }
    return records;
  }

  /** Loss and correctness of a set's samples; `onSample` gets each one's records and gradient of the logits. */
  function overSamples(
    weights: Floats,
    set: SetName,
    positions: Uint32Array,
    leaf?: Leaf,
    onSample?: (records: ForwardRecord[], dLogits: Floats) => void,
  ): LeafResult {
    let lossSum = 0;
    let correct = 0;
    let isLossFinite = true;
    for (const [sample, position] of positions.entries()) {
      const records = forward(weights, input(set, position), leaf && { leaf, sample });
      const logits = records.at(-1)!.y;
      const label = sets[set].labels[position];
      let most = logits[0];
      for (const logit of logits) if (logit > most) most = logit;
      const exps = Array.from(logits, logit => exp(logit - most));
      const sum = exps.reduce((total, e) => total + e, 0);
      const loss = log(sum) - (logits[label] - most);
      isLossFinite &&= loss <= job.lossBound;
      lossSum += precision === 'f32' ? roundLoss(loss) : loss;
      correct += logits.indexOf(most) === label ? 1 : 0;
      onSample?.(
        records,
        logits.map((_, c) => exps[c] / sum - (c === label ? 1 : 0)),
      );
      afterSample();
    }
    return { lossSum, correct, isLossFinite };
  }

  return {
    gradient(weights, leaf, gradient) {
      gradient.fill(0);
      const result = overSamples(weights, 'train', leaf.positions, leaf, (records, dLogits) => {
        let dy = dLogits;
        for (let index = model.layers.length - 1; index >= 0; index--) {
          dy = backwardLayer(model.layers[index], records[index], dy, weights, gradient);
        }
      });
      if (first) shiftGradient(first, gradient);
      return result;
    },
    evaluate(weights, set, positions, logits) {
      let at = 0;
      return overSamples(weights, set, positions, undefined, records => {
        logits?.set(records.at(-1)!.y, at);
        at += model.classes;
      });
    },
  };
}

/** Which sample of which leaf is being trained on: what dropout is keyed by. */
interface Training {
  readonly leaf: Leaf;
  readonly sample: number;
}

/** Output positions in raster order. */
function* pixels({ height, width }: Shape): Generator<{ oy: number; ox: number }> {
  for (let oy = 0; oy < height; oy++) for (let ox = 0; ox < width; ox++) yield { oy, ox };
}

/** Indexes of a pooling window of one channel, in raster order. */
function* windowOf(
  { width, channels }: Shape,
  p: number,
  oy: number,
  ox: number,
  c: number,
): Generator<number> {
  for (let py = 0; py < p; py++) {
    for (let px = 0; px < p; px++) yield ((oy * p + py) * width + ox * p + px) * channels + c;
  }
}

/** The output positions of each cell, both in raster order; those that fill no cell are left out. */
function* cells(shape: Shape, side: number): Generator<{ oy: number; ox: number }[]> {
  const { height, width, channels } = shape;
  const corners = { height: Math.floor(height / side), width: Math.floor(width / side), channels };
  for (const corner of pixels(corners)) {
    const places = pixels({ height: side, width: side, channels });
    yield [...places].map(({ oy, ox }) => ({ oy: corner.oy * side + oy, ox: corner.ox * side + ox }));
  }
}

/** `onSample` is called after every sample, as a sign of life. */
export function createReferenceEngine(job: EngineJob, onSample: () => void): Engine {
  const arithmetic = referenceArithmetic(job, 'f32', onSample);
  let weights: Float32Array = new Float32Array();
  return {
    profile: F32_PROFILE,
    async useWeights(given) {
      weights = given;
    },
    async gradient(leaf, gradient) {
      return arithmetic.gradient(weights, leaf, gradient);
    },
    async evaluate(set, positions, logits) {
      return arithmetic.evaluate(weights, set, positions, logits);
    },
  };
}

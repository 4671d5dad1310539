// The default engine: a list of kernel calls on the shared memory, layer by layer over tiles of up to 32 samples.

import type { SetName } from '../../shared/dataset.js';
import { layersModelOf, paddedInput, type Layer, type Model } from '../../shared/model.js';
import { sizeOf, type Shape } from '../../shared/shape.js';
import { seedKey, streams } from '../../shared/philox.js';
import { Arena } from '../arena.js';
import type { Kernels } from '../kernels.js';
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

const F32 = 4;
const TERM = 8;

/** Samples that pass through the layers together: enough to reuse weights, few enough to stay in the cache. */
function tileSize(leaf: number): number {
  return Math.max(8, Math.min(32, leaf));
}

interface Cells {
  readonly layer: Layer;
  /** With its padding. */
  readonly input: Shape;
  readonly kernelSize: number;
  readonly stride: number;
  readonly filters: number;
  readonly poolSize: number;
  readonly winners: number;
  /** Scratch for a row of cells, or for `winogradConv2dForward`'s products. */
  readonly rows: number;
  /** For each place in a cell, offsets in the input and in `packed`. */
  readonly shifts: number;
  /** The kernel's gradient, patch rows padded. */
  readonly packedGradient: number;
  /** For `imageConv2dForward` where it can be used, else 0: its weights and taps. */
  readonly splatted: number;
  readonly taps: number;
  /** For `winogradConv2dForward` where it is used, else 0: its weights, and scratch for what its points see. */
  readonly winograd: number;
  readonly points: number;
}

/** A kernel call forward and one or two backward, with the addresses of what they read and write. */
type Operation = {
  readonly x: number;
  /** Equal to x where it works in place. */
  readonly y: number;
  /** Elements of y for each sample. */
  readonly size: number;
  /** The kernel as the input gradient reads it; 0 if none is needed. */
  readonly packed: number;
  /** The bias less what the shift of the normalization makes; 0 where it was not moved here. */
  readonly shifted: number;
} & (
  | ({ readonly type: 'conv2d' } & Cells)
  | { readonly type: 'dense'; readonly layer: Layer; readonly inputs: number }
  | {
      readonly type: 'pad';
      /** Rows and their size, without padding and with it, and where the first one begins: in floats. */
      readonly sizes: readonly [number, number, number, number, number];
      /** Where the shift of the normalization is still in the pixels, zeros of the normalized input are of its size. */
      readonly isShifted: boolean;
    }
  | { readonly type: 'maxPool2d'; readonly winners: number; readonly poolSize: number; readonly input: Shape }
  | { readonly type: 'avgPool2d'; readonly poolSize: number; readonly input: Shape }
  | { readonly type: 'relu' }
  | {
      readonly type: 'dropout';
      readonly multipliers: number;
      readonly rate: number;
      readonly layerIndex: number;
    }
);

interface Plan {
  readonly operations: readonly Operation[];
  /** Index of the first operation with parameters: no gradient is needed below it. */
  readonly firstTrained: number;
  readonly tile: number;
  readonly positions: number;
  readonly input: number;
  /** Lists of live pixels, where a dense layer begins the model, else 0; and the end of each sample's. */
  readonly pixels: number;
  readonly pixelEnds: number;
  readonly totals: number;
  readonly exps: number;
  readonly words: number;
  /** Terms that are not zero. */
  readonly list: number;
  readonly logits: number;
  /** Two buffers that the gradients of activations alternate between. */
  readonly gradients: readonly [number, number];
}

function plan(model: Model, leaf: number, arena: Arena): Plan {
  const tile = tileSize(leaf);
  const inputSize = sizeOf(model.input);
  const input = arena.take(tile * inputSize * F32);
  const first = shiftedLayer(model);
  const hasPixelLists = first?.spec.type === 'dense';
  const operations: Operation[] = [];
  let x = input;
  let listTerms = tile;
  /** A convolution does the max-pooling behind it. */
  let isPooled = false;
  for (const [layerIndex, layer] of model.layers.entries()) {
    const { spec } = layer;
    const size = isPooled ? operations.at(-1)!.size : sizeOf(layer.output);
    const shifted = layer === first ? arena.take(layer.parameters!.bias.size * F32) : 0;
    const common = { x, y: x, size, packed: 0, shifted };
    switch (spec.type) {
      case 'conv2d': {
        const cells = planCells(model, layerIndex, arena);
        const { poolSize } = cells;
        const padding = planPadding(layer, cells.input);
        if (padding) {
          const y = arena.take(tile * padding.size * F32);
          operations.push({ ...common, ...padding, shifted: 0, y, isShifted: layer === first });
          x = y;
        }
        const pooled = Math.floor(layer.output.height / poolSize) * Math.floor(layer.output.width / poolSize);
        const cellCount = tile * pooled;
        const winners = arena.take(cellCount * cells.filters * F32);
        const y = arena.take(cellCount * cells.filters * F32);
        const packed = layer === first ? 0 : arena.take(packedKernelBytes(cells));
        listTerms = Math.max(listTerms, cellCount, cells.filters);
        operations.push({
          ...common,
          type: 'conv2d',
          ...cells,
          x,
          y,
          size: pooled * cells.filters,
          packed,
          winners,
        });
        isPooled = poolSize > 1;
        break;
      }
      case 'maxPool2d':
        if (!isPooled) {
          const winners = arena.take(tile * size * F32);
          const y = arena.take(tile * size * F32);
          operations.push({
            ...common,
            type: 'maxPool2d',
            y,
            winners,
            poolSize: spec.poolSize,
            input: layer.input,
          });
        }
        isPooled = false;
        break;
      case 'avgPool2d': {
        const y = arena.take(tile * size * F32);
        operations.push({ ...common, type: 'avgPool2d', y, poolSize: spec.poolSize, input: layer.input });
        break;
      }
      case 'dense': {
        const inputs = sizeOf(layer.input);
        const y = arena.take(tile * size * F32);
        const packed = layer === first ? 0 : arena.take(inputs * size * F32);
        listTerms = Math.max(listTerms, inputs, size);
        operations.push({ ...common, type: 'dense', layer, y, packed, inputs });
        break;
      }
      case 'relu':
        operations.push({ ...common, type: 'relu' });
        break;
      case 'dropout': {
        const multipliers = arena.take(tile * size * F32);
        operations.push({ ...common, type: 'dropout', multipliers, rate: spec.rate, layerIndex });
        break;
      }
      case 'flatten':
        break;
      case 'layersModel':
        throw new Error('only TensorFlow computes models of tf.layers');
    }
    x = operations.at(-1)?.y ?? x;
  }
  const widest = Math.max(inputSize, ...operations.map(({ size }) => size));
  return {
    operations,
    firstTrained: operations.findIndex(({ type }) => type === 'conv2d' || type === 'dense'),
    tile,
    positions: arena.take(tile * F32),
    input,
    pixels: hasPixelLists ? arena.take((tile * inputSize + 1) * TERM) : 0,
    pixelEnds: hasPixelLists ? arena.take(tile * F32) : 0,
    totals: arena.take(16),
    exps: arena.take(model.classes * 8),
    words: arena.take(16),
    // One entry more: a list writes its next term before it knows whether it is live.
    list: arena.take((listTerms + 1) * TERM),
    logits: x,
    gradients: [arena.take(tile * widest * F32), arena.take(tile * widest * F32)],
  };
}

/** What `padImages` makes for a convolution, if it has any padding. */
function planPadding({ spec, input }: Layer, padded: Shape) {
  if (spec.type !== 'conv2d' || sizeOf(padded) === sizeOf(input)) return undefined;
  const { top, left } = paddedInput(spec, input);
  const [rowSize, paddedRowSize] = [input, padded].map(({ width, channels }) => width * channels);
  const offset = top * paddedRowSize + left * input.channels;
  const sizes = [input.height, rowSize, padded.height, paddedRowSize, offset] as const;
  return { type: 'pad' as const, size: sizeOf(padded), sizes };
}

function planCells(model: Model, index: number, arena: Arena): Omit<Cells, 'winners'> {
  const layer = model.layers[index];
  const { spec, output } = layer;
  if (spec.type !== 'conv2d') throw new Error(`${layer.name} is no convolution`);
  const { kernelSize, filters, stride = 1 } = spec;
  const input = paddedInput(spec, layer.input).shape;
  const { height, width, channels } = input;
  const poolSize = cellSize(model, index);
  const isWinograd = usesWinograd(model, index);
  const isFirst = layer === shiftedLayer(model);
  const paddedRow = Math.ceil((kernelSize * channels) / 4) * 4;
  const isImage =
    isFirst && channels === 1 && stride === 1 && poolSize === 2 && output.width >= 8 && height <= 64;
  return {
    layer,
    input,
    kernelSize,
    stride,
    filters,
    poolSize,
    rows: arena.take((isWinograd ? 8 : poolSize) * output.width * filters * F32),
    shifts: arena.take(poolSize * poolSize * TERM),
    packedGradient: arena.take(filters * kernelSize * paddedRow * F32),
    splatted: isImage ? arena.take(filters * kernelSize * kernelSize * 16) : 0,
    taps: isImage ? arena.take(kernelSize * kernelSize * F32) : 0,
    winograd: isWinograd ? arena.take(8 * (1 + 5 * channels) * filters * F32) : 0,
    points: isWinograd ? arena.take(8 * Math.ceil((width * channels) / 4) * 16) : 0,
  };
}

type PackedSizes = Pick<Cells, 'input' | 'kernelSize' | 'stride' | 'poolSize'>;

/** Floats of a row of `packConv2d`'s kernels. */
function packedRowSize({ input, kernelSize, stride, poolSize }: PackedSizes): number {
  return Math.ceil(((kernelSize + 2 * (poolSize - 1) * stride) * input.channels) / 4) * 4;
}

function packedKernelBytes(cells: PackedSizes & Pick<Cells, 'filters'>): number {
  const { filters, kernelSize, stride, poolSize } = cells;
  return filters * (kernelSize + 2 * (poolSize - 1) * stride) * packedRowSize(cells) * F32;
}

/** Where a layer's kernel and bias lie in the flat vector at address `base`. */
function parameterAddresses(layer: Layer, base: number): { kernel: number; bias: number } {
  const { kernel, bias } = layer.parameters!;
  return { kernel: base + kernel.offset * F32, bias: base + bias.offset * F32 };
}

/** What the convolution kernels take as the sizes of a layer, in their order. */
function convolution({ input, kernelSize, filters, poolSize, stride }: Cells) {
  const { height, width, channels } = input;
  return [height, width, channels, kernelSize, filters, poolSize, stride] as const;
}

/** Bytes of scratch that one engine needs, to be taken from an arena as one region. */
export function wasmScratchBytes(model: Model, leaf: number): number {
  // No kernels of ours compute it.
  if (layersModelOf(model.spec)) return 0;
  const arena = new Arena(0);
  plan(model, leaf, arena);
  return arena.end;
}

/**
 * An engine on `memory`: the job's images, and all weights and gradients it is given, must be views of it.
 * `scratch` is the address of a region of `wasmScratchBytes`; `onTile` is called after every tile, as a sign of life.
 */
export function createWasmEngine(
  job: EngineJob,
  kernels: Kernels,
  memory: WebAssembly.Memory,
  scratch: number,
  onTile: () => void,
): Engine {
  const { model, normalization, sets } = job;
  const planned = plan(model, job.leaf, new Arena(scratch));
  const { operations, firstTrained, tile, list, pixels, pixelEnds } = planned;
  const positionsView = new Uint32Array(memory.buffer, planned.positions, tile);
  const totals = new DataView(memory.buffer, planned.totals, 16);
  const [k0, k1] = seedKey(job.seed);
  const { scale } = normalization;
  /** 0 where the first layer takes care of it. */
  const shiftOfPixels = shiftedLayer(model) ? 0 : normalization.shift;
  let weightsAt = 0;

  for (const operation of operations) if (operation.type === 'conv2d') prepare(operation);

  /** Writes what stays as it is: offsets, zeros around the kernels, and the only place of a cell of 1. */
  function prepare(operation: Cells & Operation): void {
    const { input, stride, poolSize, shifts, winners, size, packed } = operation;
    const { width, channels } = input;
    if (packed) new Uint8Array(memory.buffer, packed, packedKernelBytes(operation)).fill(0);
    new Uint32Array(memory.buffer, winners, tile * size).fill(0);
    const packedRow = packedRowSize(operation);
    const view = new Uint32Array(memory.buffer, shifts, 2 * poolSize * poolSize);
    for (let place = 0; place < poolSize * poolSize; place++) {
      const py = Math.floor(place / poolSize) * stride;
      const px = (place % poolSize) * stride;
      const margin = (poolSize - 1) * stride;
      view[2 * place] = (py * width + px) * channels * F32;
      view[2 * place + 1] = ((margin - py) * packedRow + (margin - px) * channels) * F32;
    }
  }

  function addressOf(view: Float32Array | Uint8Array): number {
    if (view.buffer !== memory.buffer) throw new Error('a view of another memory');
    return view.byteOffset;
  }

  /** Runs the tile through the layers; `leaf` and the index of its first sample where dropout is active. */
  function forward(samples: number, training?: { leaf: Leaf; firstSample: number }): void {
    for (const operation of operations) {
      const { x, y, size, shifted } = operation;
      switch (operation.type) {
        case 'conv2d': {
          const { layer, input, winners, rows, splatted, taps, winograd, points } = operation;
          const { kernelSize, filters, poolSize } = operation;
          const { kernel, bias } = parameterAddresses(layer, weightsAt);
          const { height, width, channels } = input;
          const from = shifted || bias;
          if (splatted) {
            kernels.imageConv2dForward(
              x,
              splatted,
              from,
              y,
              winners,
              taps,
              samples,
              height,
              width,
              kernelSize,
              filters,
            );
          } else if (winograd) {
            kernels.winogradConv2dForward(
              x,
              winograd,
              y,
              winners,
              points,
              rows,
              samples,
              height,
              width,
              channels,
              filters,
              poolSize,
            );
          } else {
            kernels.conv2dForward(x, kernel, from, y, winners, rows, samples, ...convolution(operation));
          }
          break;
        }
        case 'pad':
          kernels.padImages(x, y, samples, ...operation.sizes, operation.isShifted ? normalization.shift : 0);
          break;
        case 'maxPool2d': {
          const { winners, poolSize, input } = operation;
          const { height, width, channels } = input;
          kernels.maxPool2dForward(x, y, winners, samples, height, width, channels, poolSize);
          break;
        }
        case 'avgPool2d': {
          const { poolSize, input } = operation;
          const { height, width, channels } = input;
          kernels.avgPool2dForward(x, y, samples, height, width, channels, poolSize);
          break;
        }
        case 'dense': {
          const { kernel, bias } = parameterAddresses(operation.layer, weightsAt);
          if (shifted) kernels.sparseDenseForward(pixels, pixelEnds, kernel, shifted, y, samples, size);
          else kernels.denseForward(x, kernel, bias, y, samples, operation.inputs, size, list);
          break;
        }
        case 'relu':
          kernels.reluForward(y, samples * size);
          break;
        case 'dropout':
          if (training) {
            const { multipliers, layerIndex, rate } = operation;
            kernels.dropoutForward(
              y,
              multipliers,
              samples * size,
              training.firstSample * size,
              k0,
              k1,
              ...dropoutCounter(training.leaf, layerIndex, streams.dropout),
              dropoutThreshold(rate),
              1 / (1 - rate),
              planned.words,
            );
          }
          break;
      }
    }
  }

  /** From the gradient of the logits in the first buffer back to the first layer with parameters. */
  function backward(samples: number, gradientAt: number, first: 0 | 1): void {
    let [dy, spare] = planned.gradients;
    for (let index = operations.length - 1; index >= firstTrained; index--) {
      const operation = operations[index];
      const { x, y, size, packed, shifted } = operation;
      const dx = index > firstTrained ? spare : 0;
      switch (operation.type) {
        case 'conv2d': {
          const { layer, winners, shifts, packedGradient } = operation;
          const { bias } = parameterAddresses(layer, gradientAt);
          kernels.conv2dBackward(
            x,
            dy,
            winners,
            shifts,
            packed,
            packedGradient,
            bias,
            dx,
            samples,
            ...convolution(operation),
            list,
            first,
          );
          [dy, spare] = [spare, dy];
          break;
        }
        case 'maxPool2d': {
          const { winners, poolSize, input } = operation;
          const { height, width, channels } = input;
          kernels.maxPool2dBackward(dy, winners, spare, samples, height, width, channels, poolSize);
          [dy, spare] = [spare, dy];
          break;
        }
        case 'avgPool2d': {
          const { poolSize, input } = operation;
          const { height, width, channels } = input;
          kernels.avgPool2dBackward(dy, spare, samples, height, width, channels, poolSize);
          [dy, spare] = [spare, dy];
          break;
        }
        case 'pad':
          kernels.unpadImages(dy, spare, samples, ...operation.sizes);
          [dy, spare] = [spare, dy];
          break;
        case 'dense': {
          const { layer, inputs } = operation;
          const { kernel, bias } = parameterAddresses(layer, gradientAt);
          if (shifted) {
            kernels.sparseDenseBackwardWeights(
              pixels,
              pixelEnds,
              dy,
              kernel,
              bias,
              samples,
              inputs,
              size,
              first,
            );
          } else {
            kernels.denseBackwardWeights(x, dy, kernel, bias, samples, inputs, size, list, first);
          }
          if (dx) {
            kernels.denseBackwardInputs(dy, packed, dx, samples, inputs, size, list);
            [dy, spare] = [spare, dy];
          }
          break;
        }
        case 'relu':
          kernels.reluBackward(y, dy, samples * size);
          break;
        case 'dropout':
          kernels.dropoutBackward(dy, operation.multipliers, samples * size);
          break;
      }
    }
  }

  /** Loads a tile of a set, runs it forward and adds its losses to the totals; false if one is not finite. */
  function tileForward(
    set: SetName,
    positions: Uint32Array,
    dLogits: number,
    training?: { leaf: Leaf; firstSample: number },
  ): boolean {
    const images = addressOf(sets[set].images);
    const labels = addressOf(sets[set].labels);
    const samples = positions.length;
    const size = sizeOf(model.input);
    const { positions: at, input, logits, exps } = planned;
    positionsView.set(positions);
    if (pixels) {
      const rowBytes = operations[firstTrained].size * F32;
      kernels.listPixels(images, at, samples, size, scale, rowBytes, pixels, pixelEnds);
    } else {
      kernels.unpackImages(images, at, samples, size, input, scale, shiftOfPixels);
    }
    forward(samples, training);
    const { classes } = model;
    const isFinite = kernels.softmaxCrossEntropy(
      logits,
      labels,
      at,
      dLogits,
      samples,
      classes,
      planned.totals,
      exps,
      job.lossBound,
    );
    return isFinite === 1;
  }

  /** Runs `oneTile` over all tiles and gives the totals. */
  function overTiles(
    positions: Uint32Array,
    oneTile: (positions: Uint32Array, from: number) => boolean,
  ): LeafResult {
    totals.setFloat64(0, 0, true);
    totals.setInt32(8, 0, true);
    let isLossFinite = true;
    for (let from = 0; from < positions.length; from += tile) {
      isLossFinite = oneTile(positions.subarray(from, from + tile), from) && isLossFinite;
      onTile();
    }
    return { lossSum: totals.getFloat64(0, true), correct: totals.getInt32(8, true), isLossFinite };
  }

  return {
    profile: F32_PROFILE,

    async useWeights(weights) {
      weightsAt = addressOf(weights);
      for (const operation of operations) {
        if (operation.type !== 'conv2d' && operation.type !== 'dense') continue;
        const { layer, packed, shifted } = operation;
        const { kernel, bias } = parameterAddresses(layer, weightsAt);
        const outputs = layer.parameters!.bias.size;
        const inputs = layer.parameters!.kernel.size / outputs;
        if (shifted) kernels.shiftBias(kernel, bias, shifted, normalization.shift, inputs, outputs);
        if (operation.type === 'conv2d') {
          const { input, splatted, taps, winograd, kernelSize, filters, poolSize, stride } = operation;
          const { channels, width } = input;
          if (splatted) kernels.packImageConv2d(kernel, splatted, taps, width, kernelSize, filters);
          if (winograd) kernels.packWinogradConv2d(kernel, bias, winograd, channels, filters);
          if (packed) kernels.packConv2d(kernel, packed, channels, kernelSize, filters, poolSize, stride);
        } else if (packed) {
          kernels.packDense(kernel, packed, inputs, outputs);
        }
      }
    },

    async gradient(leaf, gradient) {
      const gradientAt = addressOf(gradient);
      gradient.fill(0, model.parameterCount);
      const result = overTiles(leaf.positions, (positions, from) => {
        const isFinite = tileForward('train', positions, planned.gradients[0], { leaf, firstSample: from });
        backward(positions.length, gradientAt, from === 0 ? 1 : 0);
        return isFinite;
      });
      for (const operation of operations) {
        if (operation.type !== 'conv2d' && operation.type !== 'dense') continue;
        const { layer, shifted } = operation;
        const { kernel, bias } = parameterAddresses(layer, gradientAt);
        if (operation.type === 'conv2d') {
          const { packedGradient, kernelSize, filters } = operation;
          kernels.unpackConv2dGradient(packedGradient, kernel, layer.input.channels, kernelSize, filters);
        }
        if (shifted) {
          const outputs = layer.parameters!.bias.size;
          const inputs = layer.parameters!.kernel.size / outputs;
          kernels.shiftGradient(kernel, bias, normalization.shift, inputs, outputs);
        }
      }
      return result;
    },

    async evaluate(set, positions, logits) {
      return overTiles(positions, (tilePositions, from) => {
        const isFinite = tileForward(set, tilePositions, 0);
        const { classes } = model;
        const rows = new Float32Array(memory.buffer, planned.logits, tilePositions.length * classes);
        logits?.set(rows, from * classes);
        return isFinite;
      });
    },
  };
}

// The default engine: a list of kernel calls on the shared memory, layer by layer over tiles of up to 32 samples.

import type { SetName } from '../../shared/dataset.js';
import { type Layer, type Model } from '../../shared/model.js';
import { sizeOf, type Shape } from '../../shared/shape.js';
import { seedKey, streams } from '../../shared/philox.js';
import { Arena } from '../arena.js';
import type { Kernels } from '../kernels.js';
import {
  dropoutCounter,
  dropoutThreshold,
  F32_PROFILE,
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

/** A layer with the addresses of what it reads and writes; `x` and `y` are equal where it works in place. */
interface PlannedLayer {
  readonly layer: Layer;
  readonly x: number;
  readonly y: number;
  /** Max-pooling: where the winners lie. Dropout: the multipliers. */
  readonly record: number;
  /** The kernel as the input gradient reads it. */
  readonly packed: number;
  /** Convolution: the kernel's gradient, patch rows padded. */
  readonly packedGradient: number;
}

interface Plan {
  readonly layers: readonly PlannedLayer[];
  /** Index of the first layer with parameters: no gradient is needed below it. */
  readonly firstTrained: number;
  readonly tile: number;
  readonly positions: number;
  readonly input: number;
  readonly totals: number;
  readonly exps: number;
  readonly words: number;
  /** Terms that are not zero. */
  readonly list: number;
  /** Two buffers that the gradients of activations alternate between. */
  readonly gradients: readonly [number, number];
}

function plan(model: Model, leaf: number, arena: Arena): Plan {
  const tile = tileSize(leaf);
  const input = arena.take(tile * sizeOf(model.input) * F32);
  const layers: PlannedLayer[] = [];
  let x = input;
  let widest = sizeOf(model.input);
  let listBytes = tile * TERM;
  for (const layer of model.layers) {
    const inputSize = sizeOf(layer.input);
    const outputSize = sizeOf(layer.output);
    widest = Math.max(widest, outputSize);
    let y = x;
    let record = 0;
    let packed = 0;
    let packedGradient = 0;
    switch (layer.spec.type) {
      case 'conv2d': {
        const { kernelSize, filters } = layer.spec;
        const paddedRow = Math.ceil((kernelSize * layer.input.channels) / 4) * 4;
        y = arena.take(tile * outputSize * F32);
        packed = arena.take(filters * kernelSize * paddedRow * F32);
        packedGradient = arena.take(filters * kernelSize * paddedRow * F32);
        listBytes = Math.max(listBytes, tile * layer.output.height * layer.output.width * TERM);
        break;
      }
      case 'maxPool2d':
        y = arena.take(tile * outputSize * F32);
        record = arena.take(tile * outputSize * F32);
        break;
      case 'dense':
        y = arena.take(tile * outputSize * F32);
        packed = arena.take(inputSize * outputSize * F32);
        listBytes = Math.max(listBytes, Math.max(inputSize, outputSize) * TERM);
        break;
      case 'dropout':
        record = arena.take(tile * outputSize * F32);
        break;
      case 'relu':
      case 'flatten':
        break;
    }
    layers.push({ layer, x, y, record, packed, packedGradient });
    x = y;
  }
  return {
    layers,
    firstTrained: layers.findIndex(({ layer }) => layer.parameters),
    tile,
    positions: arena.take(tile * F32),
    input,
    totals: arena.take(16),
    exps: arena.take(model.classes * 8),
    words: arena.take(16),
    // One entry more: a list writes its next term before it knows whether it is live.
    list: arena.take(listBytes + TERM),
    gradients: [arena.take(tile * widest * F32), arena.take(tile * widest * F32)],
  };
}

/** Where a layer's kernel and bias lie in the flat vector at address `base`. */
function parameterAddresses(layer: Layer, base: number): { kernel: number; bias: number } {
  const { kernel, bias } = layer.parameters!;
  return { kernel: base + kernel.offset * F32, bias: base + bias.offset * F32 };
}

/** What the convolution kernels take as the sizes of a layer, in their order. */
function convolution(
  { height, width, channels }: Shape,
  { kernelSize, filters }: { kernelSize: number; filters: number },
): [number, number, number, number, number] {
  return [height, width, channels, kernelSize, filters];
}

/** Bytes of scratch that one engine needs, to be taken from an arena as one region. */
export function wasmScratchBytes(model: Model, leaf: number): number {
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
  const { layers, firstTrained, tile, list } = planned;
  const positionsView = new Uint32Array(memory.buffer, planned.positions, tile);
  const totals = new DataView(memory.buffer, planned.totals, 16);
  const [k0, k1] = seedKey(job.seed);
  const logits = layers.at(-1)!.y;
  let weightsAt = 0;

  function addressOf(view: Float32Array | Uint8Array): number {
    if (view.buffer !== memory.buffer) throw new Error('a view of another memory');
    return view.byteOffset;
  }

  /** Runs the tile through the layers; `leaf` and the index of its first sample where dropout is active. */
  function forward(samples: number, training?: { leaf: Leaf; firstSample: number }): void {
    for (const [index, { layer, x, y, record }] of layers.entries()) {
      const { spec, input, output } = layer;
      const outputSize = sizeOf(output);
      switch (spec.type) {
        case 'conv2d': {
          const { kernel, bias } = parameterAddresses(layer, weightsAt);
          kernels.conv2dForward(x, kernel, bias, y, samples, ...convolution(input, spec));
          break;
        }
        case 'maxPool2d': {
          const { height, width, channels } = input;
          kernels.maxPool2dForward(x, y, record, samples, height, width, channels, spec.poolSize);
          break;
        }
        case 'dense': {
          const { kernel, bias } = parameterAddresses(layer, weightsAt);
          kernels.denseForward(x, kernel, bias, y, samples, sizeOf(input), outputSize, list);
          break;
        }
        case 'relu':
          kernels.reluForward(y, samples * outputSize);
          break;
        case 'dropout':
          if (training) {
            kernels.dropoutForward(
              y,
              record,
              samples * outputSize,
              training.firstSample * outputSize,
              k0,
              k1,
              ...dropoutCounter(training.leaf, index, streams.dropout),
              dropoutThreshold(spec.rate),
              1 / (1 - spec.rate),
              planned.words,
            );
          }
          break;
        case 'flatten':
          break;
      }
    }
  }

  /** From the gradient of the logits in the first buffer back to the first layer with parameters. */
  function backward(samples: number, gradientAt: number, first: 0 | 1): void {
    let [dy, spare] = planned.gradients;
    for (let index = layers.length - 1; index >= firstTrained; index--) {
      const { layer, x, y, record, packed, packedGradient } = layers[index];
      const { spec, input, output } = layer;
      const outputSize = sizeOf(output);
      const passOn = index > firstTrained;
      switch (spec.type) {
        case 'conv2d': {
          const { bias } = parameterAddresses(layer, gradientAt);
          const sizes = convolution(input, spec);
          const dx = passOn ? spare : 0;
          kernels.conv2dBackward(x, dy, packed, packedGradient, bias, dx, samples, ...sizes, list, first);
          [dy, spare] = [spare, dy];
          break;
        }
        case 'maxPool2d':
          kernels.maxPool2dBackward(dy, record, spare, samples, sizeOf(input), outputSize);
          [dy, spare] = [spare, dy];
          break;
        case 'dense': {
          const inputs = sizeOf(input);
          const { kernel, bias } = parameterAddresses(layer, gradientAt);
          kernels.denseBackwardWeights(x, dy, kernel, bias, samples, inputs, outputSize, list, first);
          if (passOn) {
            kernels.denseBackwardInputs(dy, packed, spare, samples, inputs, outputSize, list);
            [dy, spare] = [spare, dy];
          }
          break;
        }
        case 'relu':
          kernels.reluBackward(y, dy, samples * outputSize);
          break;
        case 'dropout':
          kernels.dropoutBackward(dy, record, samples * outputSize);
          break;
        case 'flatten':
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
    const { images, labels } = sets[set];
    const { scale, shift } = normalization;
    const samples = positions.length;
    positionsView.set(positions);
    kernels.unpackImages(
      addressOf(images),
      planned.positions,
      samples,
      sizeOf(model.input),
      planned.input,
      scale,
      shift,
    );
    forward(samples, training);
    return (
      kernels.softmaxCrossEntropy(
        logits,
        addressOf(labels),
        planned.positions,
        dLogits,
        samples,
        model.classes,
        planned.totals,
        planned.exps,
      ) === 1
    );
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
      for (const { layer, packed } of layers.slice(firstTrained + 1)) {
        const { spec, input } = layer;
        if (spec.type === 'conv2d') {
          const { kernel } = parameterAddresses(layer, weightsAt);
          kernels.packConv2d(kernel, packed, input.channels, spec.kernelSize, spec.filters);
        } else if (spec.type === 'dense') {
          const { kernel } = parameterAddresses(layer, weightsAt);
          kernels.packDense(kernel, packed, sizeOf(input), spec.units);
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
      for (const { layer, packedGradient } of layers) {
        if (layer.spec.type !== 'conv2d') continue;
        const { kernel } = parameterAddresses(layer, gradientAt);
        const { kernelSize, filters } = layer.spec;
        kernels.unpackConv2dGradient(packedGradient, kernel, layer.input.channels, kernelSize, filters);
      }
      return result;
    },

    async evaluate(set, positions) {
      return overTiles(positions, tilePositions => tileForward(set, tilePositions, 0));
    },
  };
}

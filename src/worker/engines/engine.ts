// What computes leaves. Asynchronous, since some engines need the event loop; one thread owns one engine.

import type { LabelledImages, Normalization, SetName } from '../../shared/dataset.js';
import type { Layer, Model } from '../../shared/model.js';
import { WORD_COUNT } from '../../shared/philox.js';
import type { EngineName } from '../../shared/settings.js';

export interface EngineJob {
  readonly model: Model;
  readonly normalization: Normalization;
  /** The training set in the dataset's order, the test set as it is: both are read by position. */
  readonly sets: Record<SetName, LabelledImages>;
  readonly seed: number;
  /** The most samples of a leaf. */
  readonly leaf: number;
  /** What a sample's loss may reach, see `lossBound`. */
  readonly lossBound: number;
}

/** A leaf of kind `gradient`. `step` (counted from 0) and `lane` key what is random inside it. */
export interface Leaf {
  readonly step: number;
  readonly lane: number;
  /** Positions in the training set, at least one. */
  readonly positions: Uint32Array;
}

export interface LeafResult {
  /** Sum of the samples' losses in nats, each on the loss grid. */
  readonly lossSum: number;
  readonly correct: number;
  /** False if a sample's loss is not a number or beyond its bound. */
  readonly isLossFinite: boolean;
}

export interface Engine {
  /** The name of the arithmetic: engines of equal profile give equal bits. */
  readonly profile: string;
  /** Takes the weights for the leaves that follow; `weights` must stay unchanged until the next call. */
  useWeights(weights: Float32Array): Promise<void>;
  /**
   * Writes the sum (not the mean) over the leaf's samples of the loss gradient, in the order of the flat parameter
   * vector, zeros behind it. `gradient` has `model.paddedCount` components. Training mode: dropout is active.
   */
  gradient(leaf: Leaf, gradient: Float32Array): Promise<LeafResult>;
  /**
   * Loss and correct predictions in evaluation mode. `logits`, anywhere in memory, gets what the last layer gives:
   * a row of `model.classes` for each of the positions.
   */
  evaluate(set: SetName, positions: Uint32Array, logits?: Float32Array): Promise<LeafResult>;
}

/** The arithmetic of the `wasm` engine and of its scalar twin, `reference`. */
export const F32_PROFILE = 'lockstep-f32-3';

/** What the graphs of the engine `tensorflow` compute, before it is said by which TensorFlow and where. */
export const TENSORFLOW_PROFILE = 'tensorflow-1';

export function profileOf(engine: EngineName): string {
  return engine === 'tensorflow' ? TENSORFLOW_PROFILE : F32_PROFILE;
}

/**
 * The layer that moves the shift of the normalization x * scale - shift from the pixels into its bias and its kernel's
 * gradient, so that a blank background is exactly zero: the first layer that computes, if it has parameters.
 */
export function shiftedLayer({ layers }: Model): Layer | undefined {
  const first = layers.find(({ spec }) => spec.type !== 'flatten');
  return first?.parameters && first;
}

/**
 * The side of a convolution's cells: the windows of the max-pooling that follows it, at once or behind a ReLU (which
 * changes no maximum), else 1. Its gradients are summed cell by cell.
 */
export function cellSize({ layers }: Model, index: number): number {
  const next = layers[index + 1]?.spec.type === 'relu' ? index + 2 : index + 1;
  const spec = layers[next]?.spec;
  return spec?.type === 'maxPool2d' ? spec.poolSize : 1;
}

/**
 * Whether Winograd's F(4, 5) computes a convolution: 5 x 5, stride 1, outputs in whole tiles of 4 rows and these in whole
 * cells. A layer that takes the shift of the normalization keeps to plain sums.
 */
export function usesWinograd(model: Model, index: number): boolean {
  const layer = model.layers[index];
  const { spec, output } = layer;
  return (
    spec.type === 'conv2d' &&
    spec.kernelSize === 5 &&
    (spec.stride ?? 1) === 1 &&
    output.height % 4 === 0 &&
    4 % cellSize(model, index) === 0 &&
    layer !== shiftedLayer(model)
  );
}

/** The random words of a dropout layer in one leaf: counter words 1 to 3 behind the element's index. */
export function dropoutCounter(leaf: Leaf, layerIndex: number, stream: number): [number, number, number] {
  return [leaf.lane, leaf.step, stream + layerIndex * 256];
}

/** An element is dropped if its random 32-bit word is below this. */
export function dropoutThreshold(rate: number): number {
  return Math.floor(rate * WORD_COUNT);
}

// Engines on a small job: a model, random or given images, and one shared memory that holds all of it.
//
// The memory begins as 0xff throughout, NaN in every float, so an engine that reads what it has not written shows it.

import assert from 'node:assert/strict';
import { normalizationOf, type LabelledImages, type Normalization } from '#dist/shared/dataset.js';
import { lossBound } from '#dist/shared/exact-sum.js';
import { compileModel, type LayerSpec, type Model } from '#dist/shared/model.js';
import { sizeOf, type Shape } from '#dist/shared/shape.js';
import { Arena } from '#dist/worker/arena.js';
import type { Engine, EngineJob, Leaf, LeafResult } from '#dist/worker/engines/engine.js';
import { createTensorflowEngine, type Tfjs } from '#dist/worker/engines/tensorflow/engine.js';
import { createReferenceEngine } from '#dist/worker/engines/reference.js';
import { createWasmEngine, wasmScratchBytes } from '#dist/worker/engines/wasm.js';
import { assertSameBits } from './bits.js';
import { KernelMemory, PAGE_BYTES } from './kernel-memory.js';
import type { Random } from './random.js';

export const engineNames = ['wasm', 'reference'] as const;
export type EngineName = (typeof engineNames)[number] | 'tensorflow';

let tensorflow: Tfjs | undefined;

/** What the engine `tensorflow` computes with: a test that uses it says so first. */
export function useTensorflow(tf: Tfjs): void {
  tensorflow = tf;
}

/** How many wasm engines a fixture has room for. */
const SCRATCH_REGIONS = 2;
/** Two banks of weights, as in a run. */
const BANKS = 2;

export interface FixtureOptions {
  readonly layers: readonly LayerSpec[];
  readonly input: Shape;
  /** By default the units of the last layer. */
  readonly classes?: number;
  /** Images in each of the two sets. */
  readonly samples: number;
  /** The most samples of a leaf that the job promises; by default `samples`. */
  readonly leaf?: number;
  readonly random: Random;
  readonly seed?: number;
  /** By default that of `samples`. */
  readonly lossBound?: number;
  /** By default that of the training images, which makes no pixel exactly zero. */
  readonly normalization?: Normalization;
  /** Real images instead of random ones: `samples` of each set. */
  readonly sets?: { readonly train: LabelledImages; readonly test: LabelledImages };
}

/** Black pixels enter the network as exact zeros, which dense layers skip. */
export const zeroBlack: Normalization = { scale: Math.fround(1 / 255), shift: 0 };

export interface EngineFixture {
  readonly model: Model;
  readonly job: EngineJob;
  readonly memory: WebAssembly.Memory;
  /** In the shared memory; begins as NaN. */
  readonly gradient: Float32Array;
  /** Copies weights (`parameterCount` of them, or padded) into a bank of the shared memory. */
  readonly putWeights: (values: Float32Array, bank?: number) => Float32Array;
  readonly createEngine: (name: EngineName, onTile?: () => void) => Engine;
  /** Address and size of the region of each wasm engine so far. */
  readonly scratches: readonly { readonly at: number; readonly bytes: number }[];
  /** A leaf's result with a copy of its gradient, in a buffer that was NaN before. */
  readonly gradientOf: (engine: Engine, leaf: Leaf) => Promise<GradientResult>;
}

export interface GradientResult extends LeafResult {
  readonly gradient: Float32Array;
}

export function createFixture(options: FixtureOptions): EngineFixture {
  const { layers, input, samples, random, seed = 1 } = options;
  const leaf = options.leaf ?? samples;
  const classes = options.classes ?? lastUnits(layers);
  const model = compileModel({ name: 'test', layers: [...layers] }, input, classes);
  const sets = options.sets ?? {
    train: randomImages(samples, input, classes, random),
    test: randomImages(samples, input, classes, random),
  };

  const imageBytes = samples * sizeOf(input);
  const arena = new Arena(0);
  for (let bank = 0; bank <= BANKS; bank++) arena.take(model.paddedCount * 4);
  for (let set = 0; set < 2; set++) arena.take(imageBytes + samples + 128);
  for (let region = 0; region < SCRATCH_REGIONS; region++) arena.take(wasmScratchBytes(model, leaf));
  const shared = new KernelMemory(arena.end + PAGE_BYTES);

  const job: EngineJob = {
    model,
    normalization: options.normalization ?? normalizationOf(sets.train.images),
    sets: {
      train: { images: shared.u8(sets.train.images), labels: shared.u8(sets.train.labels) },
      test: { images: shared.u8(sets.test.images), labels: shared.u8(sets.test.labels) },
    },
    seed,
    leaf,
    lossBound: options.lossBound ?? lossBound(samples),
  };
  const banks = Array.from({ length: BANKS }, () => shared.f32(model.paddedCount));
  const gradient = shared.f32(model.paddedCount);
  const scratches: { at: number; bytes: number }[] = [];

  return {
    model,
    job,
    memory: shared.memory,
    gradient,
    scratches,
    putWeights(values, bank = 0) {
      banks[bank].fill(0);
      banks[bank].set(values);
      return banks[bank];
    },
    createEngine(name, onTile = () => {}) {
      if (name === 'reference') return createReferenceEngine(job, onTile);
      if (name === 'tensorflow') return createTensorflowEngine(tensorflow!, job, onTile);
      const bytes = wasmScratchBytes(model, leaf);
      const at = shared.take(bytes);
      scratches.push({ at, bytes });
      return createWasmEngine(job, shared.kernels, shared.memory, at, onTile);
    },
    async gradientOf(engine, leafOfWork) {
      gradient.fill(NaN);
      const result = await engine.gradient(leafOfWork, gradient);
      return { ...result, gradient: gradient.slice() };
    },
  };
}

function lastUnits(layers: readonly LayerSpec[]): number {
  const last = layers.at(-1);
  if (last?.type !== 'dense') throw new Error('say how many classes the model has');
  return last.units;
}

/** About two pixels in five are black; the rest are any gray. */
function randomImages(samples: number, input: Shape, classes: number, random: Random): LabelledImages {
  return {
    images: Uint8Array.from({ length: samples * sizeOf(input) }, () =>
      random.chance(0.4) ? 0 : random.integer(256),
    ),
    labels: Uint8Array.from({ length: samples }, () => random.integer(classes)),
  };
}

/** Weights of the size that training leaves, of both signs, some exactly zero; zeros behind the last parameter. */
export function randomWeights(model: Model, random: Random, gain = 2): Float32Array {
  const weights = new Float32Array(model.paddedCount);
  for (const { offset, size, fanIn } of model.tensors) {
    const bound = gain / Math.sqrt(fanIn);
    for (let i = 0; i < size; i++) {
      weights[offset + i] = random.chance(0.02) ? 0 : random.uniform(-bound, bound);
    }
  }
  return weights;
}

/** Names a component of the flat vector by its tensor. */
export function componentName(model: Model): (index: number) => string {
  return index => {
    const tensor = model.tensors.find(({ offset, size }) => index >= offset && index < offset + size);
    return tensor ? `${tensor.name}[${index - tensor.offset}]` : `padding ${index}`;
  };
}

export function largestMagnitude(values: Float32Array | Float64Array): number {
  let most = 0;
  for (const value of values) most = Math.max(most, Math.abs(value));
  return most;
}

/** Gradients, losses and counts of two results, all bit for bit. */
export function assertSameResult(
  model: Model,
  actual: GradientResult,
  expected: GradientResult,
  what: string,
): void {
  assertSameBits(actual.gradient, expected.gradient, `${what}: gradient`, componentName(model));
  assertSameLoss(actual, expected, what);
}

export function assertSameLoss(actual: LeafResult, expected: LeafResult, what: string): void {
  const { lossSum, correct, isLossFinite } = actual;
  assert.deepStrictEqual(
    { lossSum, correct, isLossFinite },
    { lossSum: expected.lossSum, correct: expected.correct, isLossFinite: expected.isLossFinite },
    `${what}: loss, correct count or isLossFinite`,
  );
}

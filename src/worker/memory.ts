// The one shared memory of a node's threads: where everything lies, and typed views of it.
//
// It is created once, initial size = maximum, and never grows. Weights, sums and the dataset live here, so threads
// never copy them. What is written by different threads lies on different cache lines, except `sources`, two words of
// each thread a step, and the ends of slices in `digests`.

import type { SetName } from '../shared/dataset.js';
import { LockstepError, messageOf } from '../shared/errors.js';
import { phases, type Phase } from '../shared/faults.js';
import { mebibytes } from '../shared/format.js';
import { blockCount } from '../shared/hash.js';
import { type Model } from '../shared/model.js';
import { sizeOf } from '../shared/shape.js';
import type { Bank } from '../shared/optimizer.js';
import { Arena } from './arena.js';
import { wasmScratchBytes } from './engines/wasm.js';

const PAGE_BYTES = 65536;
/** Addresses have 32 bits. */
const MOST_PAGES = 65536;
/** Steps in the step table: the longest span. */
export const SPAN_LIMIT = 512;

/** Words of the control block, each alone on its cache line: an index into `Views.control`. */
const LINE_WORDS = 16;
export const control = {
  /** Raised by the main thread for every command; threads wait for it to change. */
  command: 0,
  /** What to do: a `commands` value, and its arguments. */
  kind: 1 * LINE_WORDS,
  firstStep: 1 * LINE_WORDS + 1,
  endStep: 1 * LINE_WORDS + 2,
  set: 1 * LINE_WORDS + 3,
  /** The step that entry 0 of the step table belongs to. */
  tableStep: 1 * LINE_WORDS + 4,
  /** Where a part ends: the lane, or the position of an evaluation, that is not taken from `nextLeaf` any more. */
  end: 1 * LINE_WORDS + 5,
  /** Not 0: everyone parks. Every wait watches it. */
  stop: 2 * LINE_WORDS,
  /** Not 0: training ends with this step, an evaluation at once. */
  cut: 2 * LINE_WORDS + 1,
  /** The barrier: how many have arrived, and a word that changes when all have, or at a stop. */
  arrived: 3 * LINE_WORDS,
  generation: 4 * LINE_WORDS,
  /** The next lane of the step to be taken, or the position at which the evaluation's next leaf begins. */
  nextLeaf: 5 * LINE_WORDS,
  /** Updates done: bank `published mod 2` holds the present weights. One store of it completes a step. */
  published: 6 * LINE_WORDS,
  /** The first failure of the command: a `failures` value, then step, lane, tensor (-1: the loss), thread. */
  failure: 7 * LINE_WORDS,
  failureStep: 7 * LINE_WORDS + 1,
  failureLane: 7 * LINE_WORDS + 2,
  failureTensor: 7 * LINE_WORDS + 3,
  failureThread: 7 * LINE_WORDS + 4,
} as const;
const CONTROL_WORDS = 8 * LINE_WORDS;

export const commands = { train: 1, evaluate: 2, close: 3, race: 4, gradient: 5, update: 6 } as const;
export const failures = { none: 0, badLeaf: 1, badWeights: 2 } as const;
export const setNames: readonly SetName[] = ['train', 'test'];

/** What a thread shows of itself, in words (i32) and numbers (f64) on lines of its own. */
export const threadWord = { phase: 0, progress: 1, waiting: 2, lastLane: 3 } as const;
export const threadNumber = {
  lossSum: 0,
  correct: 1,
  leaves: 2,
  computeMs: 3,
  reduceMs: 4,
  updateMs: 5,
  waitMs: 6,
} as const;
/** Values of `threadWord.phase` beside 1 + index in `phases`. */
export const IDLE_PHASE = 0;

export function phaseCode(phase: Phase): number {
  return phases.indexOf(phase) + 1;
}

/** One entry of the step table, 8 numbers (f64) of 8 bytes; the hash is a u64 at index 0. */
export const stepField = {
  hash: 0,
  lossSum: 1,
  correct: 2,
  samples: 3,
  stepSize: 4,
  secondMomentScale: 5,
  decayFactor: 6,
} as const;
export const STEP_NUMBERS = 8;

/** Sizes that decide the layout. */
export interface MemoryPlan {
  readonly model: Model;
  readonly threads: number;
  readonly leaf: number;
  readonly samples: Record<SetName, number>;
  /** Whether evaluations of the test set leave their logits in the memory. */
  readonly keepsLogits?: boolean;
}

interface BankLayout {
  readonly weights: number;
  readonly first: number;
  readonly second: number;
}

/** Addresses in bytes. */
export interface Layout {
  readonly control: number;
  /** Entry 0 holds the hash before the span; entry i + 1 the i-th step of the span. */
  readonly steps: number;
  /** u32 [threads][2]: addresses of what each thread has for the reduction, see `kernels.reduce`. */
  readonly sources: number;
  readonly digests: number;
  readonly sums: number;
  /** f64 [threads][paddedCount]: each thread's sum of its leaves. */
  readonly parts: number;
  readonly banks: readonly [BankLayout, BankLayout];
  readonly sets: Record<SetName, { readonly images: number; readonly labels: number }>;
  /** f32 [test samples][classes]; nothing where they are not kept. */
  readonly logits: number;
  readonly threads: readonly {
    readonly words: number;
    readonly numbers: number;
    readonly gradient: number;
    readonly scratch: number;
  }[];
  readonly totalBytes: number;
  /** Images and labels, within `totalBytes`. */
  readonly datasetBytes: number;
}

export function planMemory(plan: MemoryPlan): Layout {
  const { model, threads, leaf, samples } = plan;
  const arena = new Arena(0);
  const vector = (componentBytes: number): number => arena.take(model.paddedCount * componentBytes);
  const bank = (): BankLayout => ({ weights: vector(4), first: vector(4), second: vector(4) });
  const set = (count: number) => ({
    images: arena.take(count * sizeOf(model.input)),
    labels: arena.take(count),
  });
  const scratchBytes = wasmScratchBytes(model, leaf);
  const layout = {
    control: arena.take(CONTROL_WORDS * 4),
    steps: arena.take((SPAN_LIMIT + 1) * STEP_NUMBERS * 8),
    sources: arena.take(threads * 8),
    digests: arena.take(blockCount(model.parameterCount) * 8),
    sums: vector(8),
    parts: arena.take(threads * model.paddedCount * 8),
    banks: [bank(), bank()] as const,
    sets: { train: set(samples.train), test: set(samples.test) },
    logits: arena.take(logitCount(plan) * 4),
    threads: Array.from({ length: threads }, () => ({
      words: arena.take(64),
      numbers: arena.take(64),
      gradient: vector(4),
      scratch: arena.take(scratchBytes),
    })),
  };
  const datasetBytes = (samples.train + samples.test) * (sizeOf(model.input) + 1);
  return { ...layout, totalBytes: arena.end, datasetBytes };
}

function logitCount({ model, samples, keepsLogits }: MemoryPlan): number {
  return keepsLogits ? samples.test * model.classes : 0;
}

/** @throws LOCKSTEP_MEMORY */
export function createMemory({ totalBytes, datasetBytes }: Layout): WebAssembly.Memory {
  const pages = Math.ceil(totalBytes / PAGE_BYTES);
  const fail = (why: string, options?: ErrorOptions): never => {
    const needed = `${mebibytes(totalBytes)} of shared memory, ${mebibytes(datasetBytes)} of it for the dataset`;
    throw new LockstepError(
      'LOCKSTEP_MEMORY',
      `This run needs ${needed}: ${why}. Use fewer workers, a smaller batch or model, or fewer or smaller images.`,
      options,
    );
  };
  if (pages > MOST_PAGES) fail(`more than the ${mebibytes(MOST_PAGES * PAGE_BYTES)} that WebAssembly has`);
  try {
    return new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
  } catch (cause) {
    return fail(`it cannot be had (${messageOf(cause)})`, { cause });
  }
}

/** Typed views of the shared memory. */
export interface Views {
  readonly control: Int32Array;
  readonly steps: Float64Array;
  readonly hashes: BigUint64Array;
  readonly sources: Uint32Array;
  readonly sums: Float64Array;
  readonly banks: readonly [Bank, Bank];
  readonly sets: Record<SetName, { readonly images: Uint8Array; readonly labels: Uint8Array }>;
  /** A row for each test sample; empty where they are not kept. */
  readonly logits: Float32Array;
  readonly threads: readonly {
    readonly words: Int32Array;
    readonly numbers: Float64Array;
    readonly gradient: Float32Array;
  }[];
}

export function viewMemory(memory: WebAssembly.Memory, layout: Layout, plan: MemoryPlan): Views {
  const { buffer } = memory;
  const { model, threads, samples } = plan;
  const vector = (at: number): Float32Array => new Float32Array(buffer, at, model.paddedCount);
  const bank = ({ weights, first, second }: BankLayout): Bank => ({
    weights: vector(weights),
    first: vector(first),
    second: vector(second),
  });
  const set = (name: SetName) => ({
    images: new Uint8Array(buffer, layout.sets[name].images, samples[name] * sizeOf(model.input)),
    labels: new Uint8Array(buffer, layout.sets[name].labels, samples[name]),
  });
  const stepNumbers = (SPAN_LIMIT + 1) * STEP_NUMBERS;
  return {
    control: new Int32Array(buffer, layout.control, CONTROL_WORDS),
    steps: new Float64Array(buffer, layout.steps, stepNumbers),
    hashes: new BigUint64Array(buffer, layout.steps, stepNumbers),
    sources: new Uint32Array(buffer, layout.sources, threads * 2),
    sums: new Float64Array(buffer, layout.sums, model.paddedCount),
    banks: [bank(layout.banks[0]), bank(layout.banks[1])],
    sets: { train: set('train'), test: set('test') },
    logits: new Float32Array(buffer, layout.logits, logitCount(plan)),
    threads: layout.threads.map(({ words, numbers, gradient }) => ({
      words: new Int32Array(buffer, words, 16),
      numbers: new Float64Array(buffer, numbers, 8),
      gradient: vector(gradient),
    })),
  };
}

// Which samples, when: a pure function of (dataset digest, sample count, seed, batch, leaf), and of nothing else.
//
// The samples are put once in an order drawn from the dataset's digest. Consecutive slices of the order are the
// shards; the same order is cut into `batch / leaf` lanes. In each epoch a lane's samples are permuted by
// (seed, epoch, lane) and cut into leaves; step k of the epoch takes the k-th leaf of every lane.
// A sample's place in the order is its `position`; everything below speaks of positions.

import { permutation, seedKey, streams, wordsOf } from './philox.js';

export interface ScheduleOptions {
  /** Training samples. */
  readonly samples: number;
  readonly seed: number;
  /** Samples a step; a multiple of `leaf`. */
  readonly batch: number;
  /** Samples of one lane in one step. */
  readonly leaf: number;
}

/** The order: position -> sample index. `digest` is the dataset's, 64 hexadecimal digits. */
export function datasetOrder(digest: string, samples: number): Uint32Array {
  const key = [Number.parseInt(digest.slice(0, 8), 16), Number.parseInt(digest.slice(8, 16), 16)] as const;
  return permutation(samples, wordsOf(key, 0, 0, streams.order));
}

/**
 * The largest divisor of `batch` that gives at least 8 lanes and does not exceed 32, or `batch / 64` for very
 * large batches (many tiny leaves would waste time and tighten the bound of the exact sum). With `tensorflow` 4 lanes
 * and 64 samples: a call of it takes about 5 ms whatever the leaf.
 */
export function defaultLeaf(batch: number, engine: string): number {
  const [lanes, samples] = engine === 'tensorflow' ? [4, 64] : [8, 32];
  const most = Math.max(1, Math.min(Math.floor(batch / lanes), Math.max(samples, Math.floor(batch / 64))));
  for (let leaf = most; leaf > 1; leaf--) if (batch % leaf === 0) return leaf;
  return 1;
}

/** The position at which a lane of a set of `samples` begins; lane `lanes` gives the end of the last. */
export function laneStart(lane: number, lanes: number, samples: number): number {
  return Math.floor((lane * samples) / lanes);
}

export class Schedule {
  readonly samples: number;
  readonly lanes: number;
  readonly leaf: number;
  readonly stepsPerEpoch: number;
  readonly #seed: number;
  /** For each lane the epoch whose permutation is held, and the permutation. Computed when first asked for. */
  readonly #held: { epoch: number; positions: Uint32Array }[] = [];

  constructor({ samples, seed, batch, leaf }: ScheduleOptions) {
    if (batch % leaf !== 0) throw new RangeError(`batch ${batch} is not a multiple of leaf ${leaf}`);
    this.samples = samples;
    this.lanes = batch / leaf;
    this.leaf = leaf;
    this.#seed = seed;
    this.stepsPerEpoch = Math.ceil(Math.ceil(samples / this.lanes) / leaf);
  }

  /** First position of a lane; lane `lanes` gives the end of the last. Lengths differ by at most one. */
  laneStart(lane: number): number {
    return laneStart(lane, this.lanes, this.samples);
  }

  /** Where in its lane the leaf of `step` (counted from 0) begins, and how many samples it has, possibly none. */
  #leafRange(step: number, lane: number): { offset: number; length: number } {
    const offset = (step % this.stepsPerEpoch) * this.leaf;
    const laneLength = this.laneStart(lane + 1) - this.laneStart(lane);
    return { offset, length: Math.max(0, Math.min(this.leaf, laneLength - offset)) };
  }

  /** Samples in the leaves of a step: of all its lanes, what its gradient is divided by, or of from <= lane < to. */
  samplesInStep(step: number, from = 0, to = this.lanes): number {
    let samples = 0;
    for (let lane = from; lane < to; lane++) samples += this.#leafRange(step, lane).length;
    return samples;
  }

  /** The positions of the leaf of `lane` in `step` (counted from 0). The array is a view: read it at once. */
  leafPositions(step: number, lane: number): Uint32Array {
    const epoch = Math.floor(step / this.stepsPerEpoch);
    let held = this.#held[lane];
    if (held?.epoch !== epoch) {
      held = { epoch, positions: this.#permuteLane(epoch, lane) };
      this.#held[lane] = held;
    }
    const { offset, length } = this.#leafRange(step, lane);
    return held.positions.subarray(offset, offset + length);
  }

  #permuteLane(epoch: number, lane: number): Uint32Array {
    const start = this.laneStart(lane);
    const length = this.laneStart(lane + 1) - start;
    const positions = permutation(length, wordsOf(seedKey(this.#seed), lane, epoch, streams.lane));
    for (let i = 0; i < length; i++) positions[i] += start;
    return positions;
  }
}

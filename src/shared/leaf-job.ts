// What a node must know to compute leaves: the part of a job that travels to agents.

import type { Dataset, Normalization, SetName } from './dataset.js';
import type { Model } from './model.js';
import type { EngineName, Job } from './settings.js';

export interface LeafJob {
  readonly model: Model;
  /** Of the training set. */
  readonly normalization: Normalization;
  readonly samples: Record<SetName, number>;
  readonly batch: number;
  readonly leaf: number;
  readonly seed: number;
  readonly engine: EngineName;
  /**
   * The arithmetic that the run's bits are made with; the engine must have it. That of `tensorflow` is not wholly known
   * before a node has named its own, see `Numerics`.
   */
  readonly profile: string;
}

/** What a node shows of its arithmetic before it computes for a run: its name, and the bits of known leaves. */
export interface Numerics {
  readonly profile: string;
  /** Of a full leaf, a short one, and the full one again: 16 hexadecimal digits each. */
  readonly digests: readonly [string, string, string];
  /** What the last of them took, on one thread. */
  readonly leafMs: number;
  /** The same of the short one, which has half the samples. */
  readonly shortMs: number;
}

export function leafJobOf(job: Job, { train, test }: Pick<Dataset, SetName>): LeafJob {
  const { model, normalization, bits, settings } = job;
  const { batch, leaf, seed, profile } = bits;
  const samples = { train: train.labels.length, test: test.labels.length };
  return { model, normalization, samples, batch, leaf, seed, engine: settings.engine, profile };
}

// The run that `doctor` trains, and the hash that it must end with: it exercises the kernels, the threads, the exact sum
// and the files for a few seconds.

import type { TrainSettings } from '../shared/settings.js';

/** Everything that decides bits is named, so that other defaults change nothing. */
export const selfTestSettings = {
  model: 'lenet5-regularized',
  epochs: 2,
  batch: 128,
  leaf: 16,
  optimizer: 'adam',
  lr: 0.008,
  weightDecay: 1e-4,
  lrSchedule: 'one-cycle',
  warmup: 281,
  seed: 1,
} satisfies Partial<TrainSettings>;

/** Of MNIST after the 938 steps, with any number of workers. It changes with `bitsVersion` only. */
export const selfTestHash = 'ca3d7f0329fcb937';

// The learning rate of a step: a pure function of the step and the run's settings.

import { cosPi } from './math.js';
import type { LearningRateConfig } from './settings.js';

/** One-cycle begins at peak / 25 and ends at that / 10,000 (Smith 2018; PyTorch's `OneCycleLR` defaults). */
const ONE_CYCLE_START = 25;
const ONE_CYCLE_END = 10_000;

/** The rate with which `step` (counted from 0) updates the weights. */
export function learningRate(config: LearningRateConfig, step: number): number {
  const { schedule, peak, warmupSteps } = config;
  const last = (config.totalSteps ?? Infinity) - 1;
  switch (schedule) {
    case 'constant':
      return warmUp(peak, step, warmupSteps);
    case 'cosine': {
      if (step < warmupSteps) return warmUp(peak, step, warmupSteps);
      return anneal(peak, 0, (step - warmupSteps) / (last + 1 - warmupSteps));
    }
    case 'one-cycle': {
      const start = peak / ONE_CYCLE_START;
      const top = Math.max(warmupSteps - 1, 0);
      if (step < top) return anneal(start, peak, step / top);
      return anneal(peak, start / ONE_CYCLE_END, last > top ? (step - top) / (last - top) : 0);
    }
  }
}

/** Linear from peak / warmupSteps at step 0 to the peak. */
function warmUp(peak: number, step: number, warmupSteps: number): number {
  return step < warmupSteps ? (peak * (step + 1)) / warmupSteps : peak;
}

/** Half a cosine from `from` at t = 0 to `to` at t = 1. */
function anneal(from: number, to: number, t: number): number {
  return to + ((from - to) / 2) * (1 + cosPi(Math.min(t, 1)));
}

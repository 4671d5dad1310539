// The optimizers: the numbers a step needs, and the scalar reference of the update kernels.
//
// The mathematics is PyTorch's. All arithmetic is f32 in the order written here, one rounding an operation; the
// mean gradient is the exact f64 sum times 1 / samples, rounded once. `kernels/optimizer.ts` gives the same bits.

import { learningRate } from './learning-rate.js';
import type { LearningRateConfig, OptimizerConfig } from './settings.js';

const f = Math.fround;

/** 2^-100. Optimizer state of smaller magnitude becomes +0: denormal numbers would triple the cost of an update. */
export const STATE_FLUSH_BOUND = 7.888609052210118e-31;

/** What one update needs beside weights, state and sums: the same for every parameter. All are f32 values. */
export interface UpdateScalars {
  /** The learning rate; for Adam divided by the first moment's bias correction. */
  readonly stepSize: number;
  /** For Adam, 1 / sqrt of the second moment's bias correction. */
  readonly secondMomentScale: number;
  /** For AdamW, what weights are multiplied by before the update. */
  readonly decayFactor: number;
}

/** beta^t as running products: never a power function, whose bits differ between engines. */
export interface BetaPowers {
  readonly beta1: number;
  readonly beta2: number;
}

export const initialBetaPowers: BetaPowers = { beta1: 1, beta2: 1 };

/** The scalars with which `step` (counted from 0) updates, and the powers to pass on to the next step. */
export function updateScalars(
  optimizer: OptimizerConfig,
  rates: LearningRateConfig,
  step: number,
  powers: BetaPowers,
): { scalars: UpdateScalars; powers: BetaPowers } {
  const rate = learningRate(rates, step);
  if (optimizer.name === 'sgd') {
    return { scalars: { stepSize: f(rate), secondMomentScale: 0, decayFactor: 1 }, powers };
  }
  const next = { beta1: powers.beta1 * optimizer.beta1, beta2: powers.beta2 * optimizer.beta2 };
  return {
    scalars: {
      stepSize: f(rate / (1 - next.beta1)),
      secondMomentScale: f(1 / Math.sqrt(1 - next.beta2)),
      decayFactor: optimizer.name === 'adamw' ? f(1 - rate * optimizer.weightDecay) : 1,
    },
    powers: next,
  };
}

/** Weights with the optimizer's state: momentum for SGD; first and second moments for Adam. Equal lengths. */
export interface Bank {
  readonly weights: Float32Array;
  readonly first: Float32Array;
  readonly second: Float32Array;
}

function flush(state: number): number {
  return Math.abs(state) < STATE_FLUSH_BOUND ? 0 : state;
}

/** Reads bank `from`, writes bank `to`. `sums` are the exact gradient sums over `samples` samples. */
export function update(
  optimizer: OptimizerConfig,
  { stepSize, secondMomentScale, decayFactor }: UpdateScalars,
  from: Bank,
  to: Bank,
  sums: Float64Array,
  samples: number,
): void {
  const inverse = 1 / samples;
  const l2 = optimizer.name === 'adamw' ? 0 : f(optimizer.weightDecay);
  for (let i = 0; i < sums.length; i++) {
    const weight = from.weights[i];
    const gradient = f(f(sums[i] * inverse) + f(l2 * weight));
    if (optimizer.name === 'sgd') {
      const momentum = f(optimizer.momentum);
      const velocity = flush(f(f(momentum * from.first[i]) + gradient));
      const direction = optimizer.nesterov ? f(gradient + f(momentum * velocity)) : velocity;
      to.first[i] = velocity;
      to.weights[i] = f(weight - f(stepSize * direction));
    } else {
      const { beta1, beta2, epsilon } = optimizer;
      const first = flush(f(f(f(beta1) * from.first[i]) + f(f(1 - beta1) * gradient)));
      const square = f(gradient * gradient);
      const second = flush(f(f(f(beta2) * from.second[i]) + f(f(1 - beta2) * square)));
      const denominator = f(f(f(Math.sqrt(second)) * secondMomentScale) + f(epsilon));
      const decayed = f(weight * decayFactor);
      to.first[i] = first;
      to.second[i] = second;
      to.weights[i] = f(decayed - f(stepSize * f(first / denominator)));
    }
  }
}

// The update kernels: f32, one rounding an operation, in the order of the reference in `src/shared/optimizer.ts`.
//
// Both read one bank and write the other, for parameters from <= i < to (multiples of 4), and return 0 if a new weight
// is not a finite number, else 1. The loops test at their end: from a loop that may not run at all, V8 does not move the
// vectors of constants out, and makes them anew in every turn.

import { magnitudeBits } from './vector';

/** 2^-100: smaller optimizer state becomes +0. */
const FLUSH_BOUND: f32 = 7.888609052210118e-31;
const INFINITY_BITS: i32 = 0x7f800000;

/** Four mean gradients: the f64 sums times 1 / samples, rounded to f32. */
// @ts-ignore: decorator
@inline
function meanGradient(sums: usize, inverse: v128): v128 {
  const low = f32x4.demote_f64x2_zero(f64x2.mul(v128.load(sums), inverse));
  const high = f32x4.demote_f64x2_zero(f64x2.mul(v128.load(sums, 16), inverse));
  return v128.shuffle<f64>(low, high, 0, 2);
}

// @ts-ignore: decorator
@inline
function flush(state: v128): v128 {
  return v128.andnot(state, i32x4.lt_s(magnitudeBits(state), f32x4.splat(FLUSH_BOUND)));
}

export function updateSgd(
  weightsFrom: usize,
  velocityFrom: usize,
  weightsTo: usize,
  velocityTo: usize,
  sums: usize,
  from: i32,
  to: i32,
  inverseSamples: f64,
  stepSize: f32,
  momentum: f32,
  nesterov: i32,
  weightDecay: f32,
): i32 {
  const inverse = f64x2.splat(inverseSamples);
  const steps = f32x4.splat(stepSize);
  const momenta = f32x4.splat(momentum);
  const decay = f32x4.splat(weightDecay);
  let largest = i32x4.splat(0);
  const end = usize(to) << 2;
  let at = usize(from) << 2;
  if (at >= end) return 1;
  do {
    const weight = v128.load(weightsFrom + at);
    const gradient = f32x4.add(meanGradient(sums + (at << 1), inverse), f32x4.mul(decay, weight));
    const velocity = flush(f32x4.add(f32x4.mul(momenta, v128.load(velocityFrom + at)), gradient));
    const direction = nesterov ? f32x4.add(gradient, f32x4.mul(momenta, velocity)) : velocity;
    const next = f32x4.sub(weight, f32x4.mul(steps, direction));
    v128.store(velocityTo + at, velocity);
    v128.store(weightsTo + at, next);
    largest = i32x4.max_s(largest, magnitudeBits(next));
    at += 16;
  } while (at < end);
  return i32(!v128.any_true(i32x4.ge_s(largest, i32x4.splat(INFINITY_BITS))));
}

export function updateAdam(
  weightsFrom: usize,
  firstFrom: usize,
  secondFrom: usize,
  weightsTo: usize,
  firstTo: usize,
  secondTo: usize,
  sums: usize,
  from: i32,
  to: i32,
  inverseSamples: f64,
  stepSize: f32,
  beta1: f32,
  oneMinusBeta1: f32,
  beta2: f32,
  oneMinusBeta2: f32,
  epsilon: f32,
  secondMomentScale: f32,
  weightDecay: f32,
  decayFactor: f32,
): i32 {
  const inverse = f64x2.splat(inverseSamples);
  const steps = f32x4.splat(stepSize);
  const b1 = f32x4.splat(beta1);
  const c1 = f32x4.splat(oneMinusBeta1);
  const b2 = f32x4.splat(beta2);
  const c2 = f32x4.splat(oneMinusBeta2);
  const epsilons = f32x4.splat(epsilon);
  const scales = f32x4.splat(secondMomentScale);
  const decay = f32x4.splat(weightDecay);
  const factors = f32x4.splat(decayFactor);
  let largest = i32x4.splat(0);
  const end = usize(to) << 2;
  let at = usize(from) << 2;
  if (at >= end) return 1;
  do {
    const weight = v128.load(weightsFrom + at);
    const gradient = f32x4.add(meanGradient(sums + (at << 1), inverse), f32x4.mul(decay, weight));
    const first = flush(f32x4.add(f32x4.mul(b1, v128.load(firstFrom + at)), f32x4.mul(c1, gradient)));
    const square = f32x4.mul(gradient, gradient);
    const second = flush(f32x4.add(f32x4.mul(b2, v128.load(secondFrom + at)), f32x4.mul(c2, square)));
    const denominator = f32x4.add(f32x4.mul(f32x4.sqrt(second), scales), epsilons);
    const moved = f32x4.mul(steps, f32x4.div(first, denominator));
    const next = f32x4.sub(f32x4.mul(weight, factors), moved);
    v128.store(firstTo + at, first);
    v128.store(secondTo + at, second);
    v128.store(weightsTo + at, next);
    largest = i32x4.max_s(largest, magnitudeBits(next));
    at += 16;
  } while (at < end);
  return i32(!v128.any_true(i32x4.ge_s(largest, i32x4.splat(INFINITY_BITS))));
}

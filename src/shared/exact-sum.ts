// The exact sum: every component of a leaf's gradient is rounded once to a grid on which f64 addition is exact.
//
// Multiples of 2^-36 below 2^17 are integers of at most 53 bits, scaled; so their sums are exact, and any grouping,
// any order and any retry gives the same bits. The kernels in `kernels/exact.ts` follow these scalar forms.

/** 1.5 * 2^16: adding and subtracting it in f64 rounds |g| < 2^15 to the nearest multiple of 2^-36, ties to even. */
export const GRADIENT_ROUNDER = 98304;
/** 1.5 * 2^32, the same for losses, |loss| < 2^31, on multiples of 2^-20. */
export const LOSS_ROUNDER = 6442450944;
/**
 * What a sample's loss may reach, so that every partial sum over `samples` samples is exact: it stays within 2^32, where
 * each multiple of 2^-20 is a double. Up to 2^17 samples it is 2^15; 2^21 samples leave 2^11.
 */
export function lossBound(samples: number): number {
  return Math.min(32768, 4294967296 / samples);
}

/** 2^16, within which every sum of gradients stays: there each multiple of 2^-36 is a double. */
export const LARGEST_SUM = 65536;

/**
 * What a component of one leaf's gradient may reach, so that every partial sum over `lanes` leaves is exact. An f32
 * value, rounded down, for the kernel's comparison.
 */
export function gradientBound(lanes: number): number {
  const bound = Math.min(32768, LARGEST_SUM / lanes);
  const nearest = Math.fround(bound);
  return nearest <= bound ? nearest : Math.fround(bound * (1 - 1.1920928955078125e-7));
}

/** A gradient component on its grid. */
export function roundGradient(component: number): number {
  return component + GRADIENT_ROUNDER - GRADIENT_ROUNDER;
}

/** A sample's loss on its grid. */
export function roundLoss(loss: number): number {
  return loss + LOSS_ROUNDER - LOSS_ROUNDER;
}

/**
 * Adds a leaf's gradient to a sum (`first`: stores it). Returns false, with the sum unusable, if a component is
 * not a number or beyond the bound.
 */
export function addLeaf(gradient: Float32Array, sum: Float64Array, bound: number, first: boolean): boolean {
  let within = true;
  for (let i = 0; i < gradient.length; i++) {
    const component = gradient[i];
    const rounded = roundGradient(component);
    within = Math.abs(component) <= bound && within;
    sum[i] = first ? rounded : sum[i] + rounded;
  }
  return within;
}

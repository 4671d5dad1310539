// Dropout keyed by (seed, step, lane, layer, element): a leaf computed twice, anywhere, drops the same elements.

import { philox } from './philox';

/**
 * Element e (counted through the leaf, from firstElement) is kept, times `scale`, if its random word is at least
 * `threshold`. x is changed in place; multipliers keeps what each element was multiplied by.
 * words: scratch of 16 bytes.
 */
export function dropoutForward(
  x: usize,
  multipliers: usize,
  count: i32,
  firstElement: u32,
  k0: u32,
  k1: u32,
  c1: u32,
  c2: u32,
  c3: u32,
  threshold: u32,
  scale: f32,
  words: usize,
): void {
  let held: u32 = u32.MAX_VALUE;
  for (let i = 0; i < count; i++) {
    const element = firstElement + u32(i);
    if (element >> 2 != held) {
      held = element >> 2;
      philox(k0, k1, held, c1, c2, c3, words);
    }
    const word = load<u32>(words + ((usize(element) & 3) << 2));
    const multiplier: f32 = word >= threshold ? scale : 0;
    store<f32>(multipliers + (usize(i) << 2), multiplier);
    store<f32>(x + (usize(i) << 2), load<f32>(x + (usize(i) << 2)) * multiplier);
  }
}

/** dy[i] *= multipliers[i]. */
export function dropoutBackward(dy: usize, multipliers: usize, count: i32): void {
  for (let i = 0; i < count; i++) {
    const at = usize(i) << 2;
    store<f32>(dy + at, load<f32>(dy + at) * load<f32>(multipliers + at));
  }
}

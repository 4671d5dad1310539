// Softmax and cross-entropy, in f64 for each sample.

import { expOf, logOf } from './math';

const LOSS_ROUNDER: f64 = 1.5 * 4294967296.0;

/**
 * Adds the losses (nats, each rounded to a multiple of 2^-20) of `samples` rows of logits to the f64 at `totals` and
 * the number of rows whose first largest logit is the label's to the i32 behind it. With dLogits (or 0 for none),
 * writes softmax - one-hot there. labels: u8 [all], read at positions. exps: scratch of 8 bytes a class.
 * Returns 0 if a loss is not a number or beyond `bound`, else 1.
 */
export function softmaxCrossEntropy(
  logits: usize,
  labels: usize,
  positions: usize,
  dLogits: usize,
  samples: i32,
  classes: i32,
  totals: usize,
  exps: usize,
  bound: f64,
): i32 {
  let lossSum = load<f64>(totals);
  let correct = load<i32>(totals, 8);
  let within = true;
  for (let s = 0; s < samples; s++) {
    const label = i32(load<u8>(labels + usize(load<u32>(positions + (usize(s) << 2)))));
    let most = load<f32>(logits);
    let mostAt = 0;
    for (let c = 1; c < classes; c++) {
      const logit = load<f32>(logits + (usize(c) << 2));
      if (logit > most) {
        most = logit;
        mostAt = c;
      }
    }
    let sum: f64 = 0;
    for (let c = 0; c < classes; c++) {
      const e = expOf(f64(load<f32>(logits + (usize(c) << 2))) - f64(most));
      store<f64>(exps + (usize(c) << 3), e);
      sum += e;
    }
    const loss = logOf(sum) - (f64(load<f32>(logits + (usize(label) << 2))) - f64(most));
    within = within && loss <= bound;
    lossSum += loss + LOSS_ROUNDER - LOSS_ROUNDER;
    correct += i32(mostAt == label);
    if (dLogits) {
      for (let c = 0; c < classes; c++) {
        const probability = load<f64>(exps + (usize(c) << 3)) / sum;
        store<f32>(dLogits + (usize(c) << 2), f32(probability - f64(c == label)));
      }
      dLogits += usize(classes) << 2;
    }
    logits += usize(classes) << 2;
  }
  store<f64>(totals, lossSum);
  store<i32>(totals, correct, 8);
  return i32(within);
}

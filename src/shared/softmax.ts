// From logits to probabilities, in the engines' own arithmetic.

import { exp } from './math.js';

/** e^logit over the sum of all, in f64 and in the order of the classes, as the loss does it: equal bits everywhere. */
export function softmax(logits: Float32Array): Float64Array {
  const most = logits.reduce((a, b) => Math.max(a, b));
  const exps = Float64Array.from(logits, logit => exp(logit - most));
  const sum = exps.reduce((total, e) => total + e, 0);
  return exps.map(e => e / sum);
}

/** The class of the first largest logit, which counts as the prediction. */
export function predictedClass(logits: Float32Array): number {
  let best = 0;
  for (let c = 1; c < logits.length; c++) if (logits[c] > logits[best]) best = c;
  return best;
}

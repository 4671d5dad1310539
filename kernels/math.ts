// exp and log in f64, as in `src/shared/math.ts`, where the methods are explained.

const TO_INTEGER: f64 = 6755399441055744;
const LOG2_E: f64 = 1.4426950408889634;
const LN2_HIGH: f64 = 0.6931471803691238;
const LN2_LOW: f64 = 1.9082149292705877e-10;

export function expOf(x: f64): f64 {
  if (x < -708) return 0;
  const shifted = x * LOG2_E + TO_INTEGER;
  const n = shifted - TO_INTEGER;
  const r = x - n * LN2_HIGH - n * LN2_LOW;
  let p: f64 = 1.0 / 6227020800.0;
  p = p * r + 1.0 / 479001600.0;
  p = p * r + 1.0 / 39916800.0;
  p = p * r + 1.0 / 3628800.0;
  p = p * r + 1.0 / 362880.0;
  p = p * r + 1.0 / 40320.0;
  p = p * r + 1.0 / 5040.0;
  p = p * r + 1.0 / 720.0;
  p = p * r + 1.0 / 120.0;
  p = p * r + 1.0 / 24.0;
  p = p * r + 1.0 / 6.0;
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  // The low bits of `shifted` are n; 1023 is the exponent's bias.
  return p * reinterpret<f64>((reinterpret<i64>(shifted) + 1023) << 52);
}

export function logOf(x: f64): f64 {
  if (!(x < Infinity)) return x;
  const bits = reinterpret<i64>(x);
  let e = i32(bits >> 52) - 1023;
  let m = reinterpret<f64>((bits & 0xfffffffffffff) | (i64(1023) << 52));
  if (m > 1.4142135623730951) {
    m *= 0.5;
    e += 1;
  }
  const s = (m - 1.0) / (m + 1.0);
  const z = s * s;
  let p: f64 = 1.0 / 21.0;
  p = p * z + 1.0 / 19.0;
  p = p * z + 1.0 / 17.0;
  p = p * z + 1.0 / 15.0;
  p = p * z + 1.0 / 13.0;
  p = p * z + 1.0 / 11.0;
  p = p * z + 1.0 / 9.0;
  p = p * z + 1.0 / 7.0;
  p = p * z + 1.0 / 5.0;
  p = p * z + 1.0 / 3.0;
  p = p * z + 1.0;
  return f64(e) * LN2_HIGH + (2.0 * s * p + f64(e) * LN2_LOW);
}

/** The processor's square root, which IEEE 754 rounds correctly: exported so that a test can compare Math.sqrt. */
export function sqrtOf(x: f64): f64 {
  return sqrt(x);
}

// exp, log and cos from + - * / only: the built-ins differ between engines and processors, these do not.

/** 1.5 * 2^52: adding and subtracting it rounds a double below 2^51 to an integer, ties to even. */
const TO_INTEGER = 6755399441055744;
/** ln 2 in two parts; the first has 33 significant bits, so that its products with small integers are exact. */
const LN2_HIGH = 0.6931471803691238;
const LN2_LOW = 1.9082149292705877e-10;

const bits = new DataView(new ArrayBuffer(8));

/** 2^n for an integer n in [-1022, 1023]; some finite number for NaN. */
function powerOfTwo(n: number): number {
  bits.setUint32(0, (n + 1023) << 20);
  bits.setUint32(4, 0);
  return bits.getFloat64(0);
}

/**
 * e^x for x <= 709, relative error below 1e-15; 0 below -708. NaN stays NaN.
 * x = n ln 2 + r with |r| <= ln 2 / 2, then the Taylor polynomial of degree 13 in r. `kernels/math.ts` is the same.
 */
export function exp(x: number): number {
  if (x < -708) return 0;
  const n = x * Math.LOG2E + TO_INTEGER - TO_INTEGER;
  const r = x - n * LN2_HIGH - n * LN2_LOW;
  let p = 1 / 6227020800;
  p = p * r + 1 / 479001600;
  p = p * r + 1 / 39916800;
  p = p * r + 1 / 3628800;
  p = p * r + 1 / 362880;
  p = p * r + 1 / 40320;
  p = p * r + 1 / 5040;
  p = p * r + 1 / 720;
  p = p * r + 1 / 120;
  p = p * r + 1 / 24;
  p = p * r + 1 / 6;
  p = p * r + 0.5;
  p = p * r + 1;
  p = p * r + 1;
  return p * powerOfTwo(n);
}

/**
 * ln x for a positive normal x; NaN stays NaN.
 * x = 2^e m with m in [0.7, 1.5), then ln m = 2 atanh(s), s = (m - 1) / (m + 1), by its series up to s^21.
 */
export function log(x: number): number {
  if (!(x < Infinity)) return x;
  bits.setFloat64(0, x);
  const head = bits.getUint32(0);
  let e = (head >>> 20) - 1023;
  bits.setUint32(0, (head & 0xfffff) | (1023 << 20));
  let m = bits.getFloat64(0);
  if (m > Math.SQRT2) {
    m *= 0.5;
    e += 1;
  }
  const s = (m - 1) / (m + 1);
  const z = s * s;
  let p = 1 / 21;
  p = p * z + 1 / 19;
  p = p * z + 1 / 17;
  p = p * z + 1 / 15;
  p = p * z + 1 / 13;
  p = p * z + 1 / 11;
  p = p * z + 1 / 9;
  p = p * z + 1 / 7;
  p = p * z + 1 / 5;
  p = p * z + 1 / 3;
  p = p * z + 1;
  return e * LN2_HIGH + (2 * s * p + e * LN2_LOW);
}

/**
 * cos(pi t) for t in [0, 1], absolute error below 1e-15: cos for angles up to pi / 4, sin around pi / 2,
 * -cos near pi, each by its Taylor polynomial.
 */
export function cosPi(t: number): number {
  if (t > 0.75) return -cosTaylor((1 - t) * Math.PI);
  if (t > 0.25) return sinTaylor((0.5 - t) * Math.PI);
  return cosTaylor(t * Math.PI);
}

function cosTaylor(x: number): number {
  const z = x * x;
  let p = 1 / 20922789888000;
  p = p * z - 1 / 87178291200;
  p = p * z + 1 / 479001600;
  p = p * z - 1 / 3628800;
  p = p * z + 1 / 40320;
  p = p * z - 1 / 720;
  p = p * z + 1 / 24;
  p = p * z - 0.5;
  return p * z + 1;
}

function sinTaylor(x: number): number {
  const z = x * x;
  let p = 1 / 355687428096000;
  p = p * z - 1 / 1307674368000;
  p = p * z + 1 / 6227020800;
  p = p * z - 1 / 39916800;
  p = p * z + 1 / 362880;
  p = p * z - 1 / 5040;
  p = p * z + 1 / 120;
  p = p * z - 1 / 6;
  return p * z * x + x;
}

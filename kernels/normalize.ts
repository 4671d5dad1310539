// The shift of the normalization x * scale - shift, moved out of the pixels, so that a blank background is exactly zero.
// sum over i of (x[i] - shift) * kernel[i][j] + bias[j] = sum of x[i] * kernel[i][j] + (bias[j] - shift * column sum).

import { storeLanes } from './vector';

/** shifted[j] = bias[j] - shift * (sum over i ascending of kernel[i][j]) + 0; never -0. */
export function shiftBias(
  kernel: usize,
  bias: usize,
  shifted: usize,
  shift: f32,
  inputs: i32,
  outputs: i32,
): void {
  const rowBytes = usize(outputs) << 2;
  const end = kernel + usize(inputs) * rowBytes;
  let j = 0;
  for (; j + 16 < outputs; j += 20) {
    const at = usize(j) << 2;
    shiftFive(kernel + at, end, rowBytes, bias + at, shifted + at, shift, outputs - j);
  }
  for (; j < outputs; j += 4) {
    const at = usize(j) << 2;
    shiftOne(kernel + at, end, rowBytes, bias + at, shifted + at, shift, outputs - j);
  }
}

function shiftFive(
  from: usize,
  end: usize,
  rowBytes: usize,
  bias: usize,
  shifted: usize,
  shift: f32,
  left: i32,
): void {
  let a0 = f32x4.splat(0);
  let a1 = a0;
  let a2 = a0;
  let a3 = a0;
  let a4 = a0;
  for (; from < end; from += rowBytes) {
    a0 = f32x4.add(a0, v128.load(from));
    a1 = f32x4.add(a1, v128.load(from, 16));
    a2 = f32x4.add(a2, v128.load(from, 32));
    a3 = f32x4.add(a3, v128.load(from, 48));
    a4 = f32x4.add(a4, v128.load(from, 64));
  }
  v128.store(shifted, moved(a0, bias, shift));
  v128.store(shifted, moved(a1, bias + 16, shift), 16);
  v128.store(shifted, moved(a2, bias + 32, shift), 32);
  v128.store(shifted, moved(a3, bias + 48, shift), 48);
  storeLanes(shifted + 64, moved(a4, bias + 64, shift), left - 16);
}

function shiftOne(
  from: usize,
  end: usize,
  rowBytes: usize,
  bias: usize,
  shifted: usize,
  shift: f32,
  left: i32,
): void {
  let a0 = f32x4.splat(0);
  for (; from < end; from += rowBytes) a0 = f32x4.add(a0, v128.load(from));
  storeLanes(shifted, moved(a0, bias, shift), left);
}

// @ts-ignore: decorator
@inline
function moved(columnSum: v128, bias: usize, shift: f32): v128 {
  const less = f32x4.sub(v128.load(bias), f32x4.mul(f32x4.splat(shift), columnSum));
  return f32x4.add(less, f32x4.splat(0));
}

/** dKernel[i][j] -= shift * dBias[j]: from the gradient for unshifted inputs to the kernel's. */
export function shiftGradient(dKernel: usize, dBias: usize, shift: f32, inputs: i32, outputs: i32): void {
  const rowBytes = usize(outputs) << 2;
  const end = dKernel + usize(inputs) * rowBytes;
  let j = 0;
  for (; j + 20 <= outputs; j += 20) {
    const at = usize(j) << 2;
    unshiftFive(dKernel + at, end, rowBytes, dBias + at, shift);
  }
  for (; j < outputs; j += 4) {
    const at = usize(j) << 2;
    const less = f32x4.mul(f32x4.splat(shift), v128.load(dBias + at));
    const lanes = outputs - j;
    for (let to = dKernel + at; to < end; to += rowBytes) storeLanes(to, f32x4.sub(v128.load(to), less), lanes);
  }
}

function unshiftFive(to: usize, end: usize, rowBytes: usize, dBias: usize, shift: f32): void {
  const shifts = f32x4.splat(shift);
  const b0 = f32x4.mul(shifts, v128.load(dBias));
  const b1 = f32x4.mul(shifts, v128.load(dBias, 16));
  const b2 = f32x4.mul(shifts, v128.load(dBias, 32));
  const b3 = f32x4.mul(shifts, v128.load(dBias, 48));
  const b4 = f32x4.mul(shifts, v128.load(dBias, 64));
  for (; to < end; to += rowBytes) {
    v128.store(to, f32x4.sub(v128.load(to), b0));
    v128.store(to, f32x4.sub(v128.load(to, 16), b1), 16);
    v128.store(to, f32x4.sub(v128.load(to, 32), b2), 32);
    v128.store(to, f32x4.sub(v128.load(to, 48), b3), 48);
    v128.store(to, f32x4.sub(v128.load(to, 64), b4), 64);
  }
}

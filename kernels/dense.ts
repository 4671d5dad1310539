// Dense layers. Kernels of shape [inputs, outputs]; vectors run along the side that is written.

import { listTerms, TERM_BYTES, weightedRows } from './vector';

/**
 * y[s][j] = bias[j] + sum over i ascending, x[s][i] != 0, of x[s][i] * kernel[i][j].
 * list: scratch of 8 bytes for each input.
 */
export function denseForward(
  x: usize,
  kernel: usize,
  bias: usize,
  y: usize,
  samples: i32,
  inputs: i32,
  outputs: i32,
  list: usize,
): void {
  for (let s = 0; s < samples; s++) {
    const end = listTerms(x + usize(s * inputs) * 4, 4, inputs, outputs << 2, list);
    weightedRows(y + usize(s * outputs) * 4, bias, kernel, list, end, outputs);
  }
}

/**
 * dKernel[i][j] += sum over s ascending, x[s][i] != 0, of x[s][i] * dy[s][j]; dBias[j] += sum over s of dy[s][j].
 * `first`: from zero instead. list: scratch of 8 bytes for each sample.
 */
export function denseBackwardWeights(
  x: usize,
  dy: usize,
  dKernel: usize,
  dBias: usize,
  samples: i32,
  inputs: i32,
  outputs: i32,
  list: usize,
  first: i32,
): void {
  const rowBytes = outputs << 2;
  for (let i = 0; i < inputs; i++) {
    const end = listTerms(x + (usize(i) << 2), usize(inputs) << 2, samples, rowBytes, list);
    const row = dKernel + usize(i) * usize(rowBytes);
    weightedRows(row, first ? 0 : row, dy, list, end, outputs);
  }
  for (let j = 0; j < outputs; j++) {
    const at = usize(j) << 2;
    let sum: f32 = first ? 0 : load<f32>(dBias + at);
    for (let s = 0; s < samples; s++) sum += load<f32>(dy + usize(s) * usize(rowBytes) + at);
    store<f32>(dBias + at, sum);
  }
}

/**
 * dx[s][i] = sum over j ascending, dy[s][j] != 0, of dy[s][j] * transposed[j][i].
 * list: scratch of 8 bytes for each output.
 */
export function denseBackwardInputs(
  dy: usize,
  transposed: usize,
  dx: usize,
  samples: i32,
  inputs: i32,
  outputs: i32,
  list: usize,
): void {
  denseForward(dy, transposed, 0, dx, samples, outputs, inputs, list);
}

/** `denseForward` on lists of live inputs: `listPixels`' with offsets i * outputs * 4. */
export function sparseDenseForward(
  list: usize,
  ends: usize,
  kernel: usize,
  bias: usize,
  y: usize,
  samples: i32,
  outputs: i32,
): void {
  for (let s = 0; s < samples; s++) {
    const end = usize(load<u32>(ends + (usize(s) << 2)));
    weightedRows(y + usize(s * outputs) * 4, bias, kernel, list, end, outputs);
    list = end;
  }
}

/** `denseBackwardWeights` on the same lists, sample by sample: the gradient of a live input's row is read and written. */
export function sparseDenseBackwardWeights(
  list: usize,
  ends: usize,
  dy: usize,
  dKernel: usize,
  dBias: usize,
  samples: i32,
  inputs: i32,
  outputs: i32,
  first: i32,
): void {
  const rowBytes = usize(outputs) << 2;
  if (first) {
    memory.fill(dKernel, 0, usize(inputs) * rowBytes);
    memory.fill(dBias, 0, rowBytes);
  }
  for (let s = 0; s < samples; s++) {
    const end = usize(load<u32>(ends + (usize(s) << 2)));
    let j = 0;
    for (; j + 20 <= outputs; j += 20) addToFive(dKernel + (usize(j) << 2), list, end, dy + (usize(j) << 2));
    for (; j + 4 <= outputs; j += 4) addToOne(dKernel + (usize(j) << 2), list, end, dy + (usize(j) << 2));
    for (; j < outputs; j++) addToScalar(dKernel + (usize(j) << 2), list, end, load<f32>(dy + (usize(j) << 2)));
    for (j = 0; j < outputs; j++) {
      const at = dBias + (usize(j) << 2);
      store<f32>(at, load<f32>(at) + load<f32>(dy + (usize(j) << 2)));
    }
    list = end;
    dy += rowBytes;
  }
}

/** For each term, five vectors at out + offset += value * dy. */
function addToFive(out: usize, list: usize, end: usize, dy: usize): void {
  const d0 = v128.load(dy);
  const d1 = v128.load(dy, 16);
  const d2 = v128.load(dy, 32);
  const d3 = v128.load(dy, 48);
  const d4 = v128.load(dy, 64);
  for (let term = list; term < end; term += TERM_BYTES) {
    const to = out + load<u32>(term);
    const value = v128.load_splat<f32>(term, 4);
    v128.store(to, f32x4.add(v128.load(to), f32x4.mul(value, d0)));
    v128.store(to, f32x4.add(v128.load(to, 16), f32x4.mul(value, d1)), 16);
    v128.store(to, f32x4.add(v128.load(to, 32), f32x4.mul(value, d2)), 32);
    v128.store(to, f32x4.add(v128.load(to, 48), f32x4.mul(value, d3)), 48);
    v128.store(to, f32x4.add(v128.load(to, 64), f32x4.mul(value, d4)), 64);
  }
}

function addToOne(out: usize, list: usize, end: usize, dy: usize): void {
  const d0 = v128.load(dy);
  for (let term = list; term < end; term += TERM_BYTES) {
    const to = out + load<u32>(term);
    v128.store(to, f32x4.add(v128.load(to), f32x4.mul(v128.load_splat<f32>(term, 4), d0)));
  }
}

function addToScalar(out: usize, list: usize, end: usize, dy: f32): void {
  for (let term = list; term < end; term += TERM_BYTES) {
    const to = out + load<u32>(term);
    store<f32>(to, load<f32>(to) + load<f32>(term, 4) * dy);
  }
}

/**
 * transposed[j][i] = kernel[i][j]: in tiles of 4 x 4, then the edges one by one. Four rows of `transposed` are written
 * from end to end, then the next four: down its columns a stride of a power of two would miss the cache at every store.
 */
export function packDense(kernel: usize, transposed: usize, inputs: i32, outputs: i32): void {
  const rowBytes = usize(outputs) << 2;
  const columnBytes = usize(inputs) << 2;
  let j = 0;
  for (; j + 4 <= outputs; j += 4) {
    let i = 0;
    for (; i + 4 <= inputs; i += 4) {
      const from = kernel + usize(i) * rowBytes + (usize(j) << 2);
      const r0 = v128.load(from);
      const r1 = v128.load(from + rowBytes);
      const r2 = v128.load(from + 2 * rowBytes);
      const r3 = v128.load(from + 3 * rowBytes);
      const low01 = v128.shuffle<f32>(r0, r1, 0, 4, 1, 5);
      const low23 = v128.shuffle<f32>(r2, r3, 0, 4, 1, 5);
      const high01 = v128.shuffle<f32>(r0, r1, 2, 6, 3, 7);
      const high23 = v128.shuffle<f32>(r2, r3, 2, 6, 3, 7);
      const to = transposed + usize(j) * columnBytes + (usize(i) << 2);
      v128.store(to, v128.shuffle<f64>(low01, low23, 0, 2));
      v128.store(to + columnBytes, v128.shuffle<f64>(low01, low23, 1, 3));
      v128.store(to + 2 * columnBytes, v128.shuffle<f64>(high01, high23, 0, 2));
      v128.store(to + 3 * columnBytes, v128.shuffle<f64>(high01, high23, 1, 3));
    }
    for (; i < inputs; i++) {
      for (let k = 0; k < 4; k++) transposeOne(kernel, transposed, i, j + k, rowBytes, columnBytes);
    }
  }
  for (; j < outputs; j++) {
    for (let i = 0; i < inputs; i++) transposeOne(kernel, transposed, i, j, rowBytes, columnBytes);
  }
}

// @ts-ignore: decorator
@inline
function transposeOne(kernel: usize, transposed: usize, i: i32, j: i32, rowBytes: usize, columnBytes: usize): void {
  const value = load<f32>(kernel + usize(i) * rowBytes + (usize(j) << 2));
  store<f32>(transposed + usize(j) * columnBytes + (usize(i) << 2), value);
}

// Loads the compiled kernel module and types its exports. The kernels' own files document the arguments.

import { readFileSync } from 'node:fs';
import { LockstepError } from '../shared/errors.js';

type Pointer = number;

export interface Kernels {
  unpackImages(
    images: Pointer,
    positions: Pointer,
    samples: number,
    size: number,
    x: Pointer,
    scale: number,
    shift: number,
  ): void;
  listPixels(
    images: Pointer,
    positions: Pointer,
    samples: number,
    size: number,
    scale: number,
    offsetStep: number,
    list: Pointer,
    ends: Pointer,
  ): void;
  shiftBias(
    kernel: Pointer,
    bias: Pointer,
    shifted: Pointer,
    shift: number,
    inputs: number,
    outputs: number,
  ): void;
  shiftGradient(dKernel: Pointer, dBias: Pointer, shift: number, inputs: number, outputs: number): void;
  denseForward(
    x: Pointer,
    kernel: Pointer,
    bias: Pointer,
    y: Pointer,
    samples: number,
    inputs: number,
    outputs: number,
    list: Pointer,
  ): void;
  denseBackwardWeights(
    x: Pointer,
    dy: Pointer,
    dKernel: Pointer,
    dBias: Pointer,
    samples: number,
    inputs: number,
    outputs: number,
    list: Pointer,
    first: number,
  ): void;
  denseBackwardInputs(
    dy: Pointer,
    transposed: Pointer,
    dx: Pointer,
    samples: number,
    inputs: number,
    outputs: number,
    list: Pointer,
  ): void;
  packDense(kernel: Pointer, transposed: Pointer, inputs: number, outputs: number): void;
  sparseDenseForward(
    list: Pointer,
    ends: Pointer,
    kernel: Pointer,
    bias: Pointer,
    y: Pointer,
    samples: number,
    outputs: number,
  ): void;
  sparseDenseBackwardWeights(
    list: Pointer,
    ends: Pointer,
    dy: Pointer,
    dKernel: Pointer,
    dBias: Pointer,
    samples: number,
    inputs: number,
    outputs: number,
    first: number,
  ): void;
  conv2dForward(
    x: Pointer,
    kernel: Pointer,
    bias: Pointer,
    y: Pointer,
    winners: Pointer,
    rows: Pointer,
    samples: number,
    height: number,
    width: number,
    channels: number,
    kernelSize: number,
    filters: number,
    poolSize: number,
    stride: number,
  ): void;
  winogradConv2dForward(
    x: Pointer,
    packed: Pointer,
    y: Pointer,
    winners: Pointer,
    points: Pointer,
    products: Pointer,
    samples: number,
    height: number,
    width: number,
    channels: number,
    filters: number,
    poolSize: number,
  ): void;
  imageConv2dForward(
    x: Pointer,
    splatted: Pointer,
    bias: Pointer,
    y: Pointer,
    winners: Pointer,
    taps: Pointer,
    samples: number,
    height: number,
    width: number,
    kernelSize: number,
    filters: number,
  ): void;
  conv2dBackward(
    x: Pointer,
    dy: Pointer,
    winners: Pointer,
    shifts: Pointer,
    packed: Pointer,
    dPacked: Pointer,
    dBias: Pointer,
    dx: Pointer,
    samples: number,
    height: number,
    width: number,
    channels: number,
    kernelSize: number,
    filters: number,
    poolSize: number,
    stride: number,
    list: Pointer,
    first: number,
  ): void;
  packConv2d(
    kernel: Pointer,
    packed: Pointer,
    channels: number,
    kernelSize: number,
    filters: number,
    poolSize: number,
    stride: number,
  ): void;
  packWinogradConv2d(
    kernel: Pointer,
    bias: Pointer,
    packed: Pointer,
    channels: number,
    filters: number,
  ): void;
  packImageConv2d(
    kernel: Pointer,
    splatted: Pointer,
    taps: Pointer,
    width: number,
    kernelSize: number,
    filters: number,
  ): void;
  unpackConv2dGradient(
    dPacked: Pointer,
    dKernel: Pointer,
    channels: number,
    kernelSize: number,
    filters: number,
  ): void;
  reluForward(x: Pointer, count: number): void;
  reluBackward(y: Pointer, dy: Pointer, count: number): void;
  maxPool2dForward(
    x: Pointer,
    y: Pointer,
    winners: Pointer,
    samples: number,
    height: number,
    width: number,
    channels: number,
    poolSize: number,
  ): void;
  maxPool2dBackward(
    dy: Pointer,
    winners: Pointer,
    dx: Pointer,
    samples: number,
    height: number,
    width: number,
    channels: number,
    poolSize: number,
  ): void;
  avgPool2dForward(
    x: Pointer,
    y: Pointer,
    samples: number,
    height: number,
    width: number,
    channels: number,
    poolSize: number,
  ): void;
  avgPool2dBackward(
    dy: Pointer,
    dx: Pointer,
    samples: number,
    height: number,
    width: number,
    channels: number,
    poolSize: number,
  ): void;
  padImages(
    x: Pointer,
    padded: Pointer,
    samples: number,
    rows: number,
    rowSize: number,
    paddedRows: number,
    paddedRowSize: number,
    offset: number,
    value: number,
  ): void;
  unpadImages(
    padded: Pointer,
    x: Pointer,
    samples: number,
    rows: number,
    rowSize: number,
    paddedRows: number,
    paddedRowSize: number,
    offset: number,
  ): void;
  dropoutForward(
    x: Pointer,
    multipliers: Pointer,
    count: number,
    firstElement: number,
    k0: number,
    k1: number,
    c1: number,
    c2: number,
    c3: number,
    threshold: number,
    scale: number,
    words: Pointer,
  ): void;
  dropoutBackward(dy: Pointer, multipliers: Pointer, count: number): void;
  softmaxCrossEntropy(
    logits: Pointer,
    labels: Pointer,
    positions: Pointer,
    dLogits: Pointer,
    samples: number,
    classes: number,
    totals: Pointer,
    exps: Pointer,
    bound: number,
  ): number;
  addLeaf(gradient: Pointer, sum: Pointer, count: number, bound: number, first: number): number;
  reduce(sums: Pointer, sources: Pointer, threads: number, from: number, to: number, bound: number): number;
  updateSgd(
    weightsFrom: Pointer,
    velocityFrom: Pointer,
    weightsTo: Pointer,
    velocityTo: Pointer,
    sums: Pointer,
    from: number,
    to: number,
    inverseSamples: number,
    stepSize: number,
    momentum: number,
    nesterov: number,
    weightDecay: number,
  ): number;
  updateAdam(
    weightsFrom: Pointer,
    firstFrom: Pointer,
    secondFrom: Pointer,
    weightsTo: Pointer,
    firstTo: Pointer,
    secondTo: Pointer,
    sums: Pointer,
    from: number,
    to: number,
    inverseSamples: number,
    stepSize: number,
    beta1: number,
    oneMinusBeta1: number,
    beta2: number,
    oneMinusBeta2: number,
    epsilon: number,
    secondMomentScale: number,
    weightDecay: number,
    decayFactor: number,
  ): number;
  digestBlocks(weights: Pointer, digests: Pointer, fromBlock: number, toBlock: number): void;
  chainHash(previous: Pointer, next: Pointer, step: number, digests: Pointer, blocks: number): void;
  expOf(x: number): number;
  logOf(x: number): number;
  sqrtOf(x: number): number;
  trap(): never;
}

/** Compiles `dist/kernels.wasm`. @throws LOCKSTEP_BUILD */
export function loadKernelModule(): WebAssembly.Module {
  const path = new URL('../kernels.wasm', import.meta.url);
  try {
    return new WebAssembly.Module(readFileSync(path));
  } catch (cause) {
    throw new LockstepError(
      'LOCKSTEP_BUILD',
      `The compiled kernels cannot be loaded from ${path.pathname}: run \`npm run build\`.`,
      { cause },
    );
  }
}

export function instantiateKernels(module: WebAssembly.Module, memory: WebAssembly.Memory): Kernels {
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the module is built from our own sources
  return new WebAssembly.Instance(module, { env: { memory } }).exports as Kernels;
}

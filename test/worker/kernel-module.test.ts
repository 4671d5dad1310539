// The compiled kernel module: what it exports, and that it keeps no state.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { instantiateKernels, type Kernels } from '#dist/worker/kernels.js';
import { kernelModule, KernelMemory, PAGE_BYTES } from '../support/kernel-memory.js';

/** Every kernel with the number of its arguments; the compiler refuses a name or a number that the types do not have. */
const kernelArguments: { readonly [K in keyof Kernels]: Parameters<Kernels[K]>['length'] } = {
  unpackImages: 7,
  listPixels: 8,
  shiftBias: 6,
  shiftGradient: 5,
  denseForward: 8,
  denseBackwardWeights: 9,
  denseBackwardInputs: 7,
  packDense: 4,
  sparseDenseForward: 7,
  sparseDenseBackwardWeights: 9,
  conv2dForward: 14,
  winogradConv2dForward: 12,
  imageConv2dForward: 11,
  conv2dBackward: 18,
  packConv2d: 7,
  packWinogradConv2d: 5,
  packImageConv2d: 6,
  unpackConv2dGradient: 5,
  reluForward: 2,
  reluBackward: 3,
  maxPool2dForward: 8,
  maxPool2dBackward: 8,
  avgPool2dForward: 7,
  avgPool2dBackward: 7,
  padImages: 9,
  unpadImages: 8,
  dropoutForward: 12,
  dropoutBackward: 3,
  softmaxCrossEntropy: 9,
  addLeaf: 5,
  reduce: 6,
  updateSgd: 12,
  updateAdam: 19,
  digestBlocks: 4,
  chainHash: 5,
  expOf: 1,
  logOf: 1,
  sqrtOf: 1,
  trap: 0,
};

test('the module exports exactly the kernels that are typed, each with as many arguments', () => {
  const { memory } = new KernelMemory(PAGE_BYTES);
  // The compiler exports the memory again that the module was given.
  const { memory: exported, ...kernels } = exportsOn(memory);
  assert.ok(exported === undefined || exported === memory);
  const actual = Object.entries(kernels).map(([name, kernel]) => {
    assert.ok(typeof kernel === 'function', `${name} is no function: state or part of a runtime`);
    return [name, kernel.length];
  });
  assert.deepEqual(Object.fromEntries(actual), kernelArguments);
});

function exportsOn(memory: WebAssembly.Memory): Record<string, unknown> {
  return { ...instantiateKernels(kernelModule, memory) };
}

test('an instance writes nothing to a memory that is in use', () => {
  // A data segment would be copied over whatever the other threads have there.
  const { memory } = new KernelMemory(4 * PAGE_BYTES);
  const bytes = new Uint8Array(memory.buffer).fill(0xa5);
  for (let instance = 0; instance < 3; instance++) instantiateKernels(kernelModule, memory);
  assert.ok(
    bytes.every(byte => byte === 0xa5),
    'the module has a data segment',
  );
});

test('the trap that faults are injected with traps', () => {
  const { kernels } = new KernelMemory(PAGE_BYTES);
  assert.throws(() => kernels.trap(), /unreachable/);
});

// A shared memory with regions for single kernels. What no test has written is 0xff, that is NaN in every float: a
// kernel that lets something it should not read into its result gives NaN.

// oxlint-disable-next-line import/no-unassigned-import -- declares the global types of WebAssembly
import '#dist/worker/webassembly.js';
import { Arena } from '#dist/worker/arena.js';
import { instantiateKernels, loadKernelModule, type Kernels } from '#dist/worker/kernels.js';

export const PAGE_BYTES = 65536;
export const kernelModule = loadKernelModule();

export class KernelMemory {
  readonly memory: WebAssembly.Memory;
  readonly kernels: Kernels;
  readonly #arena = new Arena(64);

  constructor(sizeBytes: number) {
    const pages = Math.ceil(sizeBytes / PAGE_BYTES);
    this.memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
    this.bytes().fill(0xff);
    this.kernels = instantiateKernels(kernelModule, this.memory);
  }

  /** The whole memory. */
  bytes(): Uint8Array {
    return new Uint8Array(this.memory.buffer);
  }

  take(sizeBytes: number): number {
    const at = this.#arena.take(sizeBytes);
    if (this.#arena.end > this.memory.buffer.byteLength) throw new Error('the test needs a larger memory');
    return at;
  }

  /** Regions of their own that hold the given values, or stay 0xff if a length is given. */
  f32(values: ArrayLike<number> | number): Float32Array {
    return this.#region(Float32Array, values);
  }

  f64(values: ArrayLike<number> | number): Float64Array {
    return this.#region(Float64Array, values);
  }

  u32(values: ArrayLike<number> | number): Uint32Array {
    return this.#region(Uint32Array, values);
  }

  u8(values: ArrayLike<number> | number): Uint8Array {
    return this.#region(Uint8Array, values);
  }

  u64(length: number): BigUint64Array {
    return new BigUint64Array(this.memory.buffer, this.take(length * 8), length);
  }

  #region<T extends { set(values: ArrayLike<number>): void }>(
    type: { new (buffer: SharedArrayBuffer, at: number, length: number): T; BYTES_PER_ELEMENT: number },
    values: ArrayLike<number> | number,
  ): T {
    const length = typeof values === 'number' ? values : values.length;
    const view = new type(this.memory.buffer, this.take(length * type.BYTES_PER_ELEMENT), length);
    if (typeof values !== 'number') view.set(values);
    return view;
  }
}

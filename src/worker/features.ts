// What the kernels and their threads need of the JavaScript engine.

/** `() => i8x16.popcnt(i8x16.splat(0))`, a function that nothing older than SIMD compiles. */
const simdModule = Buffer.from('0061736d010000000105016000017b030201000a0a0108004100fd0ffd620b', 'hex');

export function hasSimd(): boolean {
  return works(() => new WebAssembly.Module(simdModule));
}

/** A WebAssembly memory that threads share, and atomic operations on it. */
export function hasSharedMemory(): boolean {
  return works(() => {
    const { buffer } = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true });
    const words = new Int32Array(buffer);
    Atomics.store(words, 0, 1);
    Atomics.notify(words, 0);
    // The value differs, so it returns at once.
    Atomics.wait(words, 0, 0, 0);
  });
}

function works(attempt: () => unknown): boolean {
  try {
    attempt();
    return true;
  } catch {
    return false;
  }
}

// The part of the WebAssembly API that is used here; the full types come only with those of a browser's DOM.

declare global {
  namespace WebAssembly {
    class Module {
      constructor(bytes: Uint8Array);
    }
    class Instance {
      constructor(module: Module, imports: { env: { memory: Memory } });
      readonly exports: object;
    }
    class Memory {
      /** Sizes in pages of 64 KiB. */
      constructor(size: { initial: number; maximum: number; shared: true });
      readonly buffer: SharedArrayBuffer;
    }
  }
}

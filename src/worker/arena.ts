// Assigns regions of the shared memory, one after another. Kernels never allocate: the host does, with this.

/** Vector loads may read this far behind a region; see `kernels/index.ts`. */
const SLACK_BYTES = 16;
/** Regions begin on cache lines, so that two threads never write to one line. */
const LINE_BYTES = 64;

export class Arena {
  #end: number;

  constructor(start: number) {
    this.#end = start;
  }

  /** The address of a new region of `bytes` bytes, with slack behind it. */
  take(bytes: number): number {
    const at = Math.ceil(this.#end / LINE_BYTES) * LINE_BYTES;
    this.#end = at + bytes + SLACK_BYTES;
    return at;
  }

  get end(): number {
    return this.#end;
  }
}

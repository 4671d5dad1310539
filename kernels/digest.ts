// Digests of weight blocks and the chain over them, as in `src/shared/hash.ts`.

const FIRST_MULTIPLIER: u64 = 0xbf58476d1ce4e5b9;
const SECOND_MULTIPLIER: u64 = 0x94d049bb133111eb;
/** Bytes of a block: 512 f32 parameters. */
const BLOCK_BYTES: usize = 2048;

// @ts-ignore: decorator
@inline
function mix(h: u64, value: u64): u64 {
  const product = (h ^ value) * FIRST_MULTIPLIER;
  return (product ^ (product >> 32)) * SECOND_MULTIPLIER;
}

/** digests[b] = the digest of weight block b, for fromBlock <= b < toBlock. Four lanes hide the multiplier's latency. */
export function digestBlocks(weights: usize, digests: usize, fromBlock: i32, toBlock: i32): void {
  for (let block = fromBlock; block < toBlock; block++) {
    let h0: u64 = 1;
    let h1: u64 = 2;
    let h2: u64 = 3;
    let h3: u64 = 4;
    let at = weights + usize(block) * BLOCK_BYTES;
    const end = at + BLOCK_BYTES;
    for (; at < end; at += 32) {
      h0 = mix(h0, load<u64>(at));
      h1 = mix(h1, load<u64>(at, 8));
      h2 = mix(h2, load<u64>(at, 16));
      h3 = mix(h3, load<u64>(at, 24));
    }
    store<u64>(digests + (usize(block) << 3), mix(mix(mix(mix(0, h0), h1), h2), h3));
  }
}

/** The chain's next value, from the previous one at `previous`, written to `next`: step number first, then blocks. */
export function chainHash(previous: usize, next: usize, step: u32, digests: usize, blocks: i32): void {
  let h = mix(load<u64>(previous), u64(step));
  for (let block = 0; block < blocks; block++) h = mix(h, load<u64>(digests + (usize(block) << 3)));
  store<u64>(next, h);
}

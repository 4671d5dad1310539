// Philox 4x32-10, as in `src/shared/philox.ts`.

/** Writes the four words of (key, counter) to `out`. */
export function philox(k0: u32, k1: u32, c0: u32, c1: u32, c2: u32, c3: u32, out: usize): void {
  for (let round = 0; round < 10; round++) {
    const product0 = u64(0xd2511f53) * u64(c0);
    const product1 = u64(0xcd9e8d57) * u64(c2);
    c0 = u32(product1 >> 32) ^ c1 ^ k0;
    c1 = u32(product1);
    c2 = u32(product0 >> 32) ^ c3 ^ k1;
    c3 = u32(product0);
    k0 += 0x9e3779b9;
    k1 += 0xbb67ae85;
  }
  store<u32>(out, c0);
  store<u32>(out, c1, 4);
  store<u32>(out, c2, 8);
  store<u32>(out, c3, 12);
}

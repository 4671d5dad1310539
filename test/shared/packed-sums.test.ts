// Packed sums: nothing is lost, whatever their size, and what is no packed sum is refused.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { mostPackedBytes, SumsPacker } from '#dist/shared/packed-sums.js';
import { randomTest } from '../support/random.js';

const GRID = 2 ** 36;

function unpacked(packer: SumsPacker, packed: Uint8Array, count: number): Float64Array {
  const sums = new Float64Array(count);
  packer.read(packed);
  packer.addTo(sums);
  return sums;
}

for (const count of [1, 7, 511, 512, 513, 4096, 4097, 44_426]) {
  randomTest(`${count} sums of every size come back as they were`, random => {
    const packer = new SumsPacker(count);
    const other = new SumsPacker(count);
    for (let round = 0; round < 8; round++) {
      const sums = Float64Array.from({ length: count }, (_, i) => {
        // Blocks of one width, and blocks of all.
        const bits = round < 6 ? [0, 10, 31, 39, 45, 52][round] : (Math.floor(i / 512) * 13) % 53;
        const multiple = Math.floor(random.uniform(-(2 ** bits), 2 ** bits));
        return multiple === 0 ? 0 : multiple / GRID;
      });
      const packed = packer.pack(sums);
      assert.ok(packed.length <= mostPackedBytes(count));
      const moved = new Uint8Array(packed.length + 3).subarray(3);
      moved.set(packed);
      assert.deepEqual(unpacked(other, moved, count), sums);
    }
  });
}

test('a component has as few bytes as the largest of its block allows', () => {
  const packer = new SumsPacker(512);
  const bytesOf = (most: number): number => packer.pack(new Float64Array(512).fill(most)).length - 8;
  const next = 1 / GRID;
  assert.equal(bytesOf(0), 0);
  assert.equal(bytesOf(-next), 4 * 512);
  assert.equal(bytesOf(2 ** -5 - next), 4 * 512);
  assert.equal(bytesOf(2 ** -5), 5 * 512);
  assert.equal(bytesOf(-(2 ** 3) + next), 5 * 512);
  assert.equal(bytesOf(-(2 ** 3)), 8 * 512);
  assert.equal(bytesOf(2 ** 16), 8 * 512);
});

test('the extremes of each width come back', () => {
  const packer = new SumsPacker(2);
  for (const most of [2 ** -5, 2 ** 3, 2 ** 16]) {
    const sums = Float64Array.of(most - 1 / GRID, -(most - 1 / GRID));
    assert.deepEqual(unpacked(packer, packer.pack(sums).slice(), 2), sums);
  }
});

test('what is no packed sum is refused', () => {
  const packer = new SumsPacker(1000);
  const good = packer.pack(new Float64Array(1000).fill(1)).slice();
  const refused = (bytes: Uint8Array): void =>
    assert.throws(() => packer.read(bytes), { code: 'LOCKSTEP_PROTOCOL' });
  packer.read(good);
  refused(new Uint8Array(0));
  refused(good.subarray(0, -1));
  refused(Uint8Array.of(...good, 0));
  refused(new Uint8Array(100_000));
  for (const width of [1, 2, 3, 4, 6, 7, 8, 9, 255]) refused(good.with(0, width));
});

test('only exact sums are taken: multiples of 2^-36 up to 2^16', () => {
  const packer = new SumsPacker(600);
  const sums = new Float64Array(600).fill(8);
  for (const [component, isTaken] of [
    [2 ** 16, true],
    [-(2 ** 16), true],
    [2 ** 16 - 1 / GRID, true],
    [2 ** 16 + 1 / GRID, false],
    [-Infinity, false],
    [NaN, false],
    [10 + 0.5 / GRID, false],
    [-0.1, false],
  ] as const) {
    sums[599] = component;
    const packed = packer.pack(sums).slice();
    if (isTaken) assert.deepEqual(unpacked(packer, packed, 600), sums);
    else assert.throws(() => packer.read(packed), { code: 'LOCKSTEP_PROTOCOL' });
  }
});

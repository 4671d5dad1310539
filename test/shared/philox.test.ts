// The counter-based generator against its published known answers, and permutations drawn from it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { permutation, philox, seedKey, wordsOf } from '#dist/shared/philox.js';

// From the known-answer file of Random123, the authors' library.
const knownAnswers = [
  { key: [0, 0], counter: [0, 0, 0, 0], words: [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8] },
  {
    key: [0xffffffff, 0xffffffff],
    counter: [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff],
    words: [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd],
  },
  {
    key: [0xa4093822, 0x299f31d0],
    counter: [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
    words: [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
  },
] as const;

for (const { key, counter, words } of knownAnswers) {
  test(`philox 4x32-10 of key ${key.join()} and counter ${counter.join()}`, () => {
    const out = new Uint32Array(4);
    const [c0, c1, c2, c3] = counter;
    philox(key, c0, c1, c2, c3, out);
    assert.deepEqual([...out], [...words]);
  });
}

test('seeds above 2^32 have keys of their own', () => {
  assert.notDeepEqual(seedKey(1), seedKey(1 + 2 ** 32));
});

for (const length of [0, 1, 2, 3, 7, 100, 10_007]) {
  test(`a permutation of ${length} holds every index once`, () => {
    const order = permutation(length, wordsOf(seedKey(3), 0, 0, 0));
    assert.deepEqual(
      [...order].toSorted((a, b) => a - b),
      Array.from({ length }, (_, i) => i),
    );
  });
}

test('every order of four is about equally likely', () => {
  const counts = new Map<string, number>();
  const draws = 24_000;
  for (let draw = 0; draw < draws; draw++) {
    const order = permutation(4, wordsOf(seedKey(5), draw, 0, 0)).join();
    counts.set(order, (counts.get(order) ?? 0) + 1);
  }
  assert.equal(counts.size, 24);
  // Chi-squared with 23 degrees of freedom exceeds 56 with probability 1e-4; seed and draws are fixed.
  const expected = draws / 24;
  const chi = [...counts.values()].reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0);
  assert.ok(chi < 56, `chi-squared ${chi}`);
});

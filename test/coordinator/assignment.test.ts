// Who gets how many lanes: against brute force, and what holds for any speeds.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  blend,
  cutLanes,
  leaseMs,
  partCount,
  rangesOf,
  shareLanes,
  taskMs,
  type Speed,
} from '#dist/coordinator/assignment.js';
import type { Lanes } from '#dist/shared/node.js';
import { randomTest, type Random } from '../support/random.js';

const total = (counts: readonly number[]): number => counts.reduce((sum, count) => sum + count, 0);

function randomSpeed(random: Random): Speed {
  const fixedMs = random.pick([0, 1, random.uniform(0, 5), random.uniform(0, 500)]);
  return { fixedMs, laneMs: random.pick([0, 1, random.uniform(0.01, 2), random.uniform(0.01, 50)]) };
}

/** The earliest end that any distribution of the lanes has. */
function bestMs(speeds: readonly Speed[], lanes: number): number {
  const [first, ...others] = speeds;
  if (others.length === 0) return leaseMs(first, lanes);
  let best = Infinity;
  for (let count = 0; count <= lanes; count++) {
    best = Math.min(best, Math.max(leaseMs(first, count), bestMs(others, lanes - count)));
  }
  return best;
}

function assertCovers(ranges: readonly Lanes[], { from, to }: Lanes): void {
  let at = from;
  for (const range of ranges) {
    assert.equal(range.from, at);
    assert.ok(range.to >= range.from);
    at = range.to;
  }
  assert.equal(at, to);
}

randomTest('no distribution of the lanes ends earlier than the one chosen', random => {
  for (let i = 0; i < 2000; i++) {
    const speeds = Array.from({ length: 1 + random.integer(4) }, () => randomSpeed(random));
    const lanes = 1 + random.integer(10);
    const counts = shareLanes(speeds, lanes);
    assert.equal(total(counts), lanes, JSON.stringify({ speeds, lanes, counts }));
    const best = bestMs(speeds, lanes);
    assert.ok(taskMs(speeds, counts) <= best * (1 + 1e-6) + 1e-3, JSON.stringify({ speeds, lanes, counts }));
  }
});

randomTest('every lane is given to somebody, whatever the speeds', random => {
  const extremes = [0, 1e-300, 1e-12, 1e-9, 1e-6, 1, 1e6, 1e12, 1e300];
  for (let i = 0; i < 2000; i++) {
    const speeds = Array.from({ length: 1 + random.integer(12) }, () => ({
      fixedMs: random.pick(extremes),
      laneMs: random.pick(extremes),
    }));
    const lanes = 1 + random.integer(300);
    const counts = shareLanes(speeds, lanes);
    const shown = JSON.stringify({ speeds, lanes, counts });
    assert.equal(total(counts), lanes, shown);
    assert.ok(
      counts.every(count => Number.isInteger(count) && count >= 0),
      shown,
    );
  }
});

randomTest('equal nodes get equal shares, the first ones one more', random => {
  for (let i = 0; i < 500; i++) {
    const speed = randomSpeed(random);
    const nodes = 1 + random.integer(9);
    const lanes = nodes + random.integer(100);
    const counts = shareLanes(
      Array.from({ length: nodes }, () => speed),
      lanes,
    );
    // Where a lane takes no time at all, one node may as well have all of them.
    if (speed.laneMs === 0) continue;
    const least = Math.floor(lanes / nodes);
    const expected = Array.from({ length: nodes }, (_, node) => least + (node < lanes % nodes ? 1 : 0));
    const isWorthSharing = leaseMs(speed, expected[0]) < leaseMs(speed, expected[0] + 1);
    if (isWorthSharing) assert.deepEqual(counts, expected, JSON.stringify({ speed, nodes, lanes }));
  }
});

test('a node whose fixed costs exceed the whole step gets no lanes, one below that gets some', () => {
  const near = { fixedMs: 0, laneMs: 1 };
  assert.deepEqual(shareLanes([near, { fixedMs: 40, laneMs: 0.1 }], 32), [32, 0]);
  assert.deepEqual(shareLanes([{ fixedMs: 40, laneMs: 0.1 }, near, near], 32), [0, 16, 16]);
  const [local, remote] = shareLanes([near, { fixedMs: 10, laneMs: 1 }], 32);
  assert.deepEqual([local, remote], [21, 11]);
});

test('a node that is three times as fast gets three times as many lanes', () => {
  assert.deepEqual(
    shareLanes(
      [
        { fixedMs: 0, laneMs: 3 },
        { fixedMs: 0, laneMs: 1 },
      ],
      32,
    ),
    [8, 24],
  );
});

test('a lease of no lanes takes no time', () => {
  assert.equal(leaseMs({ fixedMs: 7, laneMs: 2 }, 0), 0);
  assert.equal(leaseMs({ fixedMs: 7, laneMs: 2 }, 3), 13);
});

randomTest('ranges follow each other and have the lengths asked for', random => {
  for (let i = 0; i < 200; i++) {
    const counts = Array.from({ length: random.integer(8) }, () => random.integer(20));
    const ranges = rangesOf(counts);
    assertCovers(ranges, { from: 0, to: total(counts) });
    assert.deepEqual(
      ranges.map(({ from, to }) => to - from),
      counts,
    );
  }
});

randomTest('cutting a range gives parts that cover it, none empty, equal within a lane', random => {
  for (let i = 0; i < 1000; i++) {
    const from = random.integer(100);
    const length = random.integer(40);
    const parts = 1 + random.integer(12);
    const cut = cutLanes({ from, to: from + length }, parts);
    assert.equal(cut.length, Math.min(parts, length));
    assertCovers(cut, { from, to: from + length });
    const lengths = cut.map(range => range.to - range.from);
    assert.ok(
      lengths.length === 0 || (Math.min(...lengths) > 0 && Math.max(...lengths) - Math.min(...lengths) <= 1),
    );
  }
});

test('a lease is one part where it is short, and four at the most', () => {
  const speed = { fixedMs: 1000, laneMs: 5 };
  assert.equal(partCount(speed, 0), 1);
  assert.equal(partCount(speed, 1), 1);
  assert.equal(partCount(speed, 7), 1);
  assert.equal(partCount(speed, 8), 2);
  assert.equal(partCount(speed, 12), 3);
  assert.equal(partCount(speed, 10_000), 4);
});

test('a running mean begins with the first measurement and follows the later ones', () => {
  assert.equal(blend(undefined, 8), 8);
  assert.equal(blend(8, 16), 10);
  let mean = 0;
  for (let i = 0; i < 50; i++) mean = blend(mean, 20);
  assert.ok(Math.abs(mean - 20) < 0.01);
});

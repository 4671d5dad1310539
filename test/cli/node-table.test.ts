// The table of remote nodes, as wide as its terminal, and the lines of nodes at the end of a run.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { describeNode, nodeTable } from '#dist/cli/node-table.js';
import { describeDone } from '#dist/cli/display.js';
import type { EventOf, NodeReport } from '#dist/library/index.js';

function report(name: string, rest: Partial<NodeReport> = {}): NodeReport {
  return {
    node: '0123456789abcdef',
    name,
    state: 'active',
    threads: 8,
    lanes: 4,
    why: '',
    imagesPerSecond: 12_345.6,
    lastHeardMs: 240,
    roundTripMs: 1.26,
    sentBytes: 12_345_678,
    receivedBytes: 1_500_000,
    parts: 1200,
    samples: 19_200,
    waitedForMs: 1250,
    shards: 30,
    expired: 0,
    dropped: 0,
    losses: 0,
    ...rest,
  };
}

const why = 'a single lane takes it 54.3 ms (51.0 of them the network), and a step takes 1.9 ms without it';
const idle = report('beta', { state: 'spare', lanes: 0, imagesPerSecond: 0, why });

test('all there is to tell, where there is room', () => {
  assert.deepEqual(nodeTable([idle, report('alpha')], 200, 10), [
    'node   state   threads  lanes  images/s      heard  round trip  MB sent  received',
    'alpha  active        8      4    12,346  0.2 s ago      1.3 ms     12.3       1.5',
    `beta   spare         8      0         0  0.2 s ago      1.3 ms     12.3       1.5  ${why}`,
  ]);
});

test('bytes and threads make room for why a node idles', () => {
  assert.deepEqual(nodeTable([idle], 90, 10)[0], 'node  state  lanes  images/s      heard  round trip');
  assert.match(nodeTable([idle], 90, 10)[1], /1\.3 ms {2}a single lane takes it 54\.3 ms \(51\.0…$/);
  assert.match(nodeTable([report('alpha')], 90, 10)[0], /MB sent {2}received$/);
});

const narrow: [number, string[]][] = [
  [47, ['node   state   lanes  images/s  round trip', 'alpha  active      4    12,346      1.3 ms']],
  [41, ['node   state   lanes  images/s', 'alpha  active      4    12,346']],
  [29, ['node   state   images/s', 'alpha  active    12,346']],
  [15, ['node   state', 'alpha  active']],
  [7, ['node', 'alpha']],
  [3, ['no…', 'al…']],
];

for (const [columns, expected] of narrow) {
  test(`nodes in ${columns} columns`, () =>
    assert.deepEqual(nodeTable([report('alpha')], columns, 10), expected));
}

test('no line is longer than the terminal, whatever its width', () => {
  const reports = [
    idle,
    report('a-node-with-a-name-that-is-longer-than-most'),
    report('gone', { state: 'gone' }),
  ];
  for (let columns = 1; columns <= 200; columns++) {
    for (const line of nodeTable(reports, columns, 2))
      assert.ok(line.length <= columns, `${columns}: ${line}`);
  }
});

test('those at work come first, and the rest is counted', () => {
  const reports = [
    report('gone', { state: 'gone' }),
    idle,
    report('slow', { imagesPerSecond: 10 }),
    report('fast', { imagesPerSecond: 20 }),
    report('late', { state: 'late' }),
  ];
  const names = nodeTable(reports, 200, 4).map(line => line.split(' ')[0]);
  assert.deepEqual(names, ['node', 'fast', 'slow', 'late', 'beta', 'and']);
  assert.equal(nodeTable(reports, 200, 4).at(-1), 'and 1 more');
  assert.equal(nodeTable(reports, 200, 5).length, 6);
  assert.deepEqual(nodeTable([], 80, 10), []);
});

test('nodes of one name are told apart', () => {
  const reports = [report('alpha'), report('alpha', { node: 'fedcba9876543210' }), report('beta')];
  const names = nodeTable(reports, 200, 10).map(line => line.split('  ')[0]);
  assert.deepEqual(names, ['node', '0123 alpha', 'fedc alpha', 'beta']);
});

test('what a node did, and what was lost to it', () => {
  assert.equal(
    describeNode(report('alpha')),
    'node alpha (01234567)  8 threads, 1,200 parts, 19,200 images, 12,346 images/s; sent 12.3 MB, 30 shards among them, ' +
      'received 1.5 MB; 1.3 s lost to waiting for it',
  );
  const troubled = { expired: 2, dropped: 1, losses: 3, state: 'gone', why: 'it is not connected' } as const;
  assert.match(
    describeNode(report('alpha', troubled)),
    /; 2 leases expired; 1 answer dropped; lost 3 times; gone$/,
  );
  assert.ok(describeNode(idle).endsWith(`; idle: ${why}`));
});

test('at the end, a run without threads of its own has no line of their leaves', () => {
  const done: EventOf<'done'> = {
    type: 'done',
    step: 100,
    timeMs: 1000,
    model: 'mlp',
    epochs: 1,
    steps: 100,
    trainLoss: 0.1,
    trainAccuracy: 0.97,
    testLoss: 0.1,
    testAccuracy: 0.97,
    imagesPerSecond: 1000,
    seconds: 1,
    workers: 0,
    threads: [],
    nodes: [report('alpha')],
    hash: '0123456789abcdef',
    weightsSha256: '9f'.repeat(32),
    runDir: '/run',
  };
  assert.doesNotMatch(describeDone(done), /^ *leaves/m);
  assert.match(describeDone(done), /alpha/);
  const threads = [{ thread: 0, leaves: 800, busyMs: 1, computeMs: 1, reduceMs: 0, updateMs: 0, waitMs: 0 }];
  assert.match(describeDone({ ...done, workers: 1, threads }), /^ *leaves +800, by thread 100 %$/m);
});

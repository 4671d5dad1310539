// Shows a run with remote nodes on standard output, as `lockstep train` does, for the terminal's test.

import { chooseDisplay } from '#dist/cli/display.js';
import type { NodeReport, RunEvent } from '#dist/library/index.js';

const common = { step: 0, timeMs: 0 };

const start: RunEvent = {
  ...common,
  type: 'start',
  startedAt: '2026-01-02T03:04:05.678Z',
  model: 'mlp',
  parameters: 15_910,
  dataset: 'mnist',
  trainSamples: 60_000,
  testSamples: 10_000,
  epochs: 1,
  totalSteps: 100,
  stepsPerEpoch: 100,
  batch: 128,
  leaf: 16,
  lanes: 8,
  workers: 2,
  engine: 'wasm',
  profile: 'f32',
  seed: 1,
  runDir: '/run',
  resumedStep: 0,
};

function report(index: number): NodeReport {
  return {
    node: `${index}`.padStart(16, '0'),
    name: `node-${index}`,
    state: 'spare',
    threads: 8,
    lanes: 0,
    why: 'it is to be measured',
    imagesPerSecond: 1000 - index,
    lastHeardMs: 100,
    roundTripMs: 1,
    sentBytes: 1e6,
    receivedBytes: 1e6,
    parts: 1,
    samples: 16,
    waitedForMs: 0,
    shards: 1,
    expired: 0,
    dropped: 0,
    losses: 0,
  };
}

const display = chooseDisplay({});
display.show(start);
display.show({ ...common, type: 'listening', address: '127.0.0.1:7077', join: 'the-join-line' });
for (let index = 1; index <= 13; index++) {
  const { node, name, threads } = report(index);
  display.show({ ...common, type: 'node', ...report(index) });
  display.show({ ...common, type: 'node-joined', node, name, threads, address: `10.0.0.${index}:4711` });
}
const { node, name } = report(3);
display.show({ ...common, type: 'node-lost', node, name, reason: 'it left\u001B[2J' });
display.show({ ...common, type: 'lease-expired', node, name, fromLane: 2, toLane: 4 });
display.end();

// Events of a run, made up.

import type { EventOf, NodeReport } from '#dist/shared/events.js';

export const someStart: EventOf<'start'> = {
  step: 0,
  timeMs: 0,
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

/** Of a node without lanes, but for what is changed. */
export function someReport(changes: Partial<NodeReport>): NodeReport {
  return {
    node: '0000000000000001',
    name: 'node-1',
    state: 'spare',
    threads: 8,
    lanes: 0,
    why: 'it is to be measured',
    imagesPerSecond: 1000,
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
    ...changes,
  };
}

// A run as reports know it, made up: numbers that are easy to find again on a page.

import type {
  Mark,
  NodeWork,
  ReportedRun,
  Session,
  TestResult,
  ThreadWork,
} from '#dist/report/reported-run.js';

export const nodeA = 'a1b2c3d4e5f60718';
export const nodeB = 'b7777777e5f60718';

function thread(index: number): ThreadWork {
  const times = { computeMs: 6000, reduceMs: 500, updateMs: 500, waitMs: 1000 };
  return { thread: index, leaves: 300 - 100 * index, ...times };
}

function node(id: string, name: string): NodeWork {
  return {
    node: id,
    name,
    threads: 4,
    sentBytes: 3e7,
    receivedBytes: 6e7,
    parts: 2000,
    samples: 120_000,
    waitedForMs: 321,
    expired: 1,
    losses: 1,
  };
}

export const marks: readonly Mark[] = [
  { type: 'node-joined', timeMs: 800, step: 100, who: nodeA, name: 'attic', text: '10.0.0.2:5021' },
  { type: 'node-joined', timeMs: 1500, step: 300, who: nodeB, name: 'laptop', text: '10.0.0.9:5021' },
  { type: 'thread-lost', timeMs: 2000, step: 400, who: 'thread 1', name: '', text: 'it was killed' },
  { type: 'node-lost', timeMs: 3000, step: 600, who: nodeA, name: 'attic', text: '<b>closed</b> & gone' },
  { type: 'lease-expired', timeMs: 3300, step: 650, who: nodeB, name: 'laptop', text: 'lanes 3 to 5' },
  { type: 'node-joined', timeMs: 4000, step: 700, who: nodeA, name: 'attic', text: '10.0.0.2:5022' },
];

export function someSession(changes: Partial<Session> = {}): Session {
  return {
    startedAt: '2026-11-27T10:15:00.123Z',
    resumedStep: 0,
    lastStep: 1000,
    workers: 2,
    engine: 'wasm',
    endMs: 10_000,
    end: 'done',
    message: '',
    rates: [
      // An evaluation of 1 s is within it.
      { fromMs: 1000, toMs: 4000, images: 20_000, trainMs: 2000 },
      { fromMs: 4000, toMs: 5000, images: 50_000, trainMs: 1000 },
    ],
    marks,
    nodeStates: [
      { timeMs: 1000, node: nodeA, name: 'attic', state: 'active' },
      { timeMs: 1700, node: nodeB, name: 'laptop', state: 'active' },
      { timeMs: 3300, node: nodeB, name: 'laptop', state: 'late' },
      { timeMs: 3600, node: nodeB, name: 'laptop', state: 'active' },
    ],
    threads: [thread(0), thread(1)],
    nodes: [node(nodeA, 'attic'), node(nodeB, 'laptop')],
    ...changes,
  };
}

/** Three classes of 2 x 2 images; class 2 is taken for 0 in three cases of ten. */
export const someTest: TestResult = {
  samples: 30,
  loss: 0.25,
  accuracy: 0.9,
  step: 1000,
  classes: [
    { class: 0, samples: 10, predicted: 13, correct: 10, recall: 1, precision: 10 / 13 },
    { class: 1, samples: 10, predicted: 10, correct: 10, recall: 1, precision: 1 },
    { class: 2, samples: 10, predicted: 7, correct: 7, recall: 0.7, precision: 1 },
  ],
  confusion: [
    [10, 0, 0],
    [0, 10, 0],
    [3, 0, 7],
  ],
  confusedPairs: [{ label: 2, predicted: 0, samples: 3 }],
  worst: [
    {
      index: 17,
      label: 2,
      predicted: 0,
      ofLabel: 0.001,
      ofPredicted: 0.998,
      loss: 6.9,
      pixels: Uint8Array.of(0, 255, 128, 7),
    },
  ],
};

export function someRun(changes: Partial<ReportedRun> = {}): ReportedRun {
  return {
    name: 'small-1',
    runDir: '/runs/small-1',
    model: 'small',
    parameters: 1234,
    dataset: {
      name: 'dots',
      digest: '44aead6280c46bc8',
      shape: { height: 2, width: 2, channels: 1 },
      classes: 3,
    },
    settings: [
      ['model', 'small'],
      ['batch', '64'],
      ['seed', '1'],
    ],
    profile: 'lockstep-f32-3',
    state: 'finished',
    step: 1000,
    totalSteps: 1000,
    stepsPerEpoch: 500,
    hash: '2827b9806698abe3',
    weightsSha256: 'ab'.repeat(32),
    steps: [
      { step: 500, loss: 0.5, learningRate: 0.01 },
      { step: 1000, loss: 0.25, learningRate: 0.001 },
    ],
    epochs: [1, 2].map(epoch => ({
      epoch,
      step: epoch * 500,
      trainLoss: 0.4 / epoch,
      trainAccuracy: 0.8 + 0.05 * epoch,
      testLoss: 0.5 / epoch,
      testAccuracy: 0.8 + 0.04 * epoch,
    })),
    sessions: [someSession()],
    test: someTest,
    warnings: [],
    ...changes,
  };
}

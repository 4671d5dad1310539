// A message of every type, as large as real ones are or small.

import { PROTOCOL_VERSION, type Message, type MessageOf } from '#dist/shared/messages.js';
import { presets } from '#dist/shared/presets.js';

const run = '0123456789abcdef';
const digest256 = '9f'.repeat(32);
const work = {
  run,
  incarnation: 'fedcba9876543210',
  step: 1234,
  weights: '00ff00ff00ff00ff',
  kind: 'gradient',
  set: 'train',
} as const;

function bytes(length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => (i * 167) & 0xff);
}

/** With `parameters` weights, sums of as many, and shards of as many bytes. */
export function messagesToAgent(
  parameters = 5,
): MessageOf<'job' | 'plan' | 'weights' | 'lease' | 'shard' | 'ping' | 'end'>[] {
  return [
    {
      type: 'job',
      run,
      incarnation: work.incarnation,
      model: {
        name: 'lenet5',
        layers: [
          { type: 'conv2d', filters: 2, kernelSize: 3, stride: 2, padding: 'same' },
          ...presets['lenet5'].layers(10),
          { type: 'dropout', rate: 0.25 },
        ],
      },
      shape: { height: 28, width: 28, channels: 1 },
      classes: 10,
      normalization: { scale: 0.0127, shift: -0.4242 },
      samples: { train: 60_000, test: 10_000 },
      batch: 1024,
      leaf: 32,
      seed: Number.MAX_SAFE_INTEGER,
      engine: 'wasm',
      profile: 'f32-simd128-v1',
      isMixed: false,
      dataset: { name: 'mnist, ünïcode ✓', digest: digest256 },
      shards: [0, 1, 2].map(i => ({ set: 'train', from: i * 1024, samples: 1024, sha256: digest256 })),
    },
    { type: 'plan', plan: 2 ** 40, from: 0, to: 16 },
    { type: 'weights', step: 7, weights: work.weights, data: bytes(4 * parameters) },
    { type: 'lease', ...work, parts: [0, 4, 8].map(from => ({ from, to: from + 4 })) },
    { type: 'shard', index: 3, data: bytes(parameters) },
    { type: 'ping', sentMs: 1234.5 },
    { type: 'end', code: 'LOCKSTEP_PROFILE', message: 'Other bits.' },
  ];
}

export function messagesToCoordinator(
  parameters = 5,
): MessageOf<'hello' | 'checked' | 'prepared' | 'fetch' | 'sum' | 'bad-leaf' | 'leave' | 'pong'>[] {
  return [
    { type: 'hello', protocol: PROTOCOL_VERSION, version: '0.1.0', name: 'host.local-1', threads: 8 },
    {
      type: 'checked',
      profile: 'f32-simd128-v1',
      digests: [run, run, work.weights],
      leafMs: 1.25,
      shortMs: 1,
    },
    { type: 'prepared', plan: 2 ** 40 },
    { type: 'fetch', shards: [0, 5, 8191] },
    {
      type: 'sum',
      ...work,
      part: { from: 4, to: 8 },
      lossSum: 73.25,
      correct: 100,
      samples: 128,
      computeMs: 3.5,
      gradient: bytes(8 * parameters),
    },
    { type: 'bad-leaf', ...work, part: { from: 4, to: 8 }, message: 'NaN in layer fc1' },
    { type: 'leave', reason: 'it was told to' },
    { type: 'pong', sentMs: 1234.5 },
  ];
}

export function allMessages(parameters?: number): Message[] {
  return [...messagesToAgent(parameters), ...messagesToCoordinator(parameters)];
}

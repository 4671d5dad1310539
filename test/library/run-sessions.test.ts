// Sessions, speeds and marks out of the events that a run folder keeps.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { KeptEvent, KeptEventOf } from '#dist/coordinator/event-file.js';
import { MOST_MARKS, MOST_RATES, MOST_STATES, sessionsOf } from '#dist/library/run-sessions.js';

const startedAt = '2026-01-02T03:04:05.678Z';

function start(changed: Partial<KeptEventOf<'start'>> = {}): KeptEvent {
  const common = { startedAt, engine: 'wasm', workers: 2, resumedStep: 0, batch: 100, stepsPerEpoch: 10 };
  return { type: 'start', ...common, step: changed.resumedStep ?? 0, timeMs: 5, ...changed };
}

function stepEvent(step: number, timeMs: number, imagesPerSecond: number): KeptEvent {
  return { type: 'step', step, timeMs, imagesPerSecond };
}

const threads = [{ thread: 0, leaves: 8, computeMs: 3, reduceMs: 2, updateMs: 1, waitMs: 4 }];

function nodeEvent(node: string, state: KeptEventOf<'node'>['state'], timeMs: number): KeptEventOf<'node'> {
  return { type: 'node', node, name: `name of ${node}`, state, step: 1, timeMs };
}

test('a session lasts from its start to its last event, and says how it ended', () => {
  const { sessions, stepsPerEpoch, warnings } = sessionsOf([
    { type: 'warning', step: 0, timeMs: 1 },
    start(),
    { type: 'checkpoint', step: 4, timeMs: 40 },
    start({ resumedStep: 4, workers: 3, startedAt: '2026-01-02T04:00:00.000Z' }),
    { type: 'interrupted', step: 6, timeMs: 60, threads },
    start({ resumedStep: 6 }),
    { type: 'interrupted', step: 7, timeMs: 70, threads },
    { type: 'error', code: 'LOCKSTEP_NO_NODES', message: 'Nobody came.', step: 7, timeMs: 71 },
    start({ resumedStep: 7, engine: 'reference' }),
    { type: 'epoch', step: 10, timeMs: 90 },
    { type: 'done', step: 10, timeMs: 100, threads, nodes: [] },
  ]);
  assert.deepEqual(warnings, []);
  assert.equal(stepsPerEpoch, 10);
  const none = { rates: [], marks: [], nodeStates: [], nodes: [] };
  const common = { ...none, startedAt, engine: 'wasm', workers: 2, message: '', threads };
  assert.deepEqual(sessions, [
    { ...common, resumedStep: 0, lastStep: 4, endMs: 40, end: 'unknown', threads: [] },
    {
      ...common,
      startedAt: '2026-01-02T04:00:00.000Z',
      workers: 3,
      resumedStep: 4,
      lastStep: 6,
      endMs: 60,
      end: 'interrupted',
    },
    {
      ...common,
      resumedStep: 6,
      lastStep: 7,
      endMs: 71,
      end: 'error',
      message: 'LOCKSTEP_NO_NODES: Nobody came.',
    },
    { ...common, engine: 'reference', resumedStep: 7, lastStep: 10, endMs: 100, end: 'done' },
  ]);
  assert.deepEqual(sessionsOf([]), { sessions: [], stepsPerEpoch: null, warnings: [] });
});

test('losses, joins and late leases are marked at the times of their events', () => {
  const [{ marks, nodeStates }] = sessionsOf([
    start(),
    {
      type: 'node-joined',
      node: 'a1',
      name: 'ada',
      threads: 4,
      address: '10.0.0.1:5',
      step: 0,
      timeMs: 10.25,
    },
    nodeEvent('a1', 'active', 11),
    nodeEvent('a1', 'active', 12),
    { type: 'thread-lost', thread: 1, reason: 'it hung', phase: 'update', step: 3, timeMs: 20.5 },
    { type: 'lease-expired', node: 'a1', name: 'ada', fromLane: 2, toLane: 5, step: 4, timeMs: 30 },
    nodeEvent('a1', 'late', 31),
    { type: 'node-lost', node: 'a1', name: 'ada', reason: 'it was silent', step: 5, timeMs: 40.125 },
    nodeEvent('a1', 'active', 50),
  ]).sessions;
  assert.deepEqual(marks, [
    {
      type: 'node-joined',
      timeMs: 10.25,
      step: 0,
      who: 'a1',
      name: 'ada',
      text: 'with 4 threads, from 10.0.0.1:5',
    },
    {
      type: 'thread-lost',
      timeMs: 20.5,
      step: 3,
      who: 'thread 1',
      name: '',
      text: 'in phase update: it hung',
    },
    { type: 'lease-expired', timeMs: 30, step: 4, who: 'a1', name: 'ada', text: 'lanes 2 to 4' },
    { type: 'node-lost', timeMs: 40.125, step: 5, who: 'a1', name: 'ada', text: 'it was silent' },
  ]);
  assert.deepEqual(
    nodeStates.map(({ timeMs, state }) => [timeMs, state]),
    [
      [11, 'active'],
      [31, 'late'],
      [50, 'active'],
    ],
  );
});

test('a rate is that of its step event, over the time in which it trained', () => {
  // Of 200 ms before the second event 100 went by before training.
  const events = [start(), stepEvent(1, 110, 1000), stepEvent(3, 310, 2000), stepEvent(8, 410, 5000)];
  assert.deepEqual(sessionsOf(events).sessions[0].rates, [
    { fromMs: 10, toMs: 110, images: 100, trainMs: 100 },
    { fromMs: 210, toMs: 310, images: 200, trainMs: 100 },
    { fromMs: 310, toMs: 410, images: 500, trainMs: 100 },
  ]);
  // What cannot be is no rate: no time, no steps.
  const odd = [start({ resumedStep: 2 }), stepEvent(2, 10, 5), stepEvent(3, 10, 0), stepEvent(4, 60, 2000)];
  assert.deepEqual(sessionsOf(odd).sessions[0].rates, [{ fromMs: 10, toMs: 60, images: 100, trainMs: 50 }]);
});

test('rates are means over equally many step events, so that there are few, however many events there are', () => {
  for (const [count, length] of [
    [1, 1],
    [299, 1],
    [300, 1],
    [301, 2],
    [600, 2],
    [601, 4],
    [5000, 32],
  ]) {
    // Steps take 1, 2 and 3 s in turns, and an evaluation of 4 s comes before every seventh.
    const seconds = Array.from({ length: count }, (_, i) => 1 + (i % 3));
    let timeMs = 0;
    const events = seconds.map((taken, i) => {
      timeMs += 1000 * (taken + (i % 7 === 0 ? 4 : 0));
      return stepEvent(i + 1, timeMs, 100 / taken);
    });
    const { rates } = sessionsOf([start({ timeMs: 0 }), ...events]).sessions[0];
    assert.equal(rates.length, Math.ceil(count / length));
    assert.ok(rates.length <= MOST_RATES);
    for (const [i, { fromMs, toMs, images, trainMs }] of rates.entries()) {
      const [from, to] = [i * length, Math.min(count, (i + 1) * length)];
      const taken = seconds.slice(from, to).reduce((sum, one) => sum + one, 0);
      assert.equal(images, 100 * (to - from));
      assert.ok(Math.abs(trainMs / (1000 * taken) - 1) < 1e-9);
      assert.equal(fromMs, events[from].timeMs - 1000 * seconds[from]);
      assert.equal(toMs, events[to - 1].timeMs);
    }
  }
});

function lateEvent(timeMs: number): KeptEvent {
  return { type: 'lease-expired', node: 'a', name: 'ada', fromLane: 0, toLane: 1, step: 1, timeMs };
}

test('of what is too much the first are kept, of each type, and the rest is counted', () => {
  const { sessions, warnings } = sessionsOf([
    start(),
    ...Array.from({ length: MOST_MARKS + 5 }, (_, i) => lateEvent(i)),
    { type: 'node-lost', node: 'a', name: 'ada', reason: 'gone', step: 2, timeMs: 5000 },
    ...Array.from({ length: MOST_STATES + 2 }, (_, i) => nodeEvent('a', i % 2 === 0 ? 'late' : 'active', i)),
    start(),
    lateEvent(1),
  ]);
  assert.equal(sessions[0].marks.length, MOST_MARKS + 1);
  assert.equal(sessions[0].marks.at(-1)!.type, 'node-lost');
  assert.equal(sessions[0].nodeStates.length, MOST_STATES);
  assert.equal(sessions[1].marks.length, 1);
  assert.equal(warnings.length, 1);
  assert.match(warnings[0], /^7 events \(.*\) are too many to be shown; the first of each session are\.$/);
});

test('lines that are no events are counted', () => {
  const { warnings } = sessionsOf([start(), undefined, stepEvent(1, 10, 5), undefined]);
  assert.deepEqual(warnings, ['2 lines of events.jsonl are no event that this version knows.']);
  assert.equal(sessionsOf([start(), undefined]).warnings.length, 1);
});

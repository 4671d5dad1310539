// events.jsonl: which events it keeps, half lines, and lines that are none.

import assert from 'node:assert/strict';
import { appendFileSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { EventFile, readEvents } from '#dist/coordinator/event-file.js';
import type { NodeReport, RunEvent } from '#dist/shared/events.js';
import { someReport, someStart } from '../support/events.js';
import { FULL_DEVICE, fullDeviceIsMissing } from '../support/full-device.js';

const start: RunEvent = { ...someStart, timeMs: 1.5 };

const report = someReport({ node: 'a', lanes: 4, state: 'active', why: '' });

function nodeEvent(one: NodeReport, step: number): RunEvent {
  return { type: 'node', ...one, step, timeMs: step };
}

function temporary(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), 'lockstep-events-'));
  t.after(() => rmSync(dir, { recursive: true }));
  return dir;
}

function record(dir: string, events: readonly RunEvent[]): void {
  const file = new EventFile(dir);
  for (const event of events) file.record(event);
  file.close();
}

function textIn(dir: string): string {
  return readFileSync(join(dir, 'events.jsonl'), 'utf8');
}

function typesIn(dir: string): string[] {
  return Array.from(readEvents(dir), event => event?.type ?? 'none');
}

const waiting: RunEvent = { type: 'waiting', message: 'for 1 node', step: 0, timeMs: 2 };

test('events are kept from the event start on, a line each', t => {
  const dir = temporary(t);
  record(dir, [waiting, start, waiting]);
  assert.equal(textIn(dir), `${JSON.stringify(start)}\n${JSON.stringify(waiting)}\n`);
  record(dir, [{ type: 'error', code: 'LOCKSTEP_LISTEN', message: 'taken', step: 0, timeMs: 1 }]);
  assert.deepEqual(typesIn(dir), ['start', 'waiting']);
});

test('the join line is not kept', t => {
  const dir = temporary(t);
  record(dir, [start, { type: 'listening', address: '127.0.0.1:7077', join: 'secret', step: 0, timeMs: 3 }]);
  const [, line] = textIn(dir).split('\n');
  assert.deepEqual(JSON.parse(line), { type: 'listening', address: '127.0.0.1:7077', step: 0, timeMs: 3 });
});

test('of the reports of a node those are kept that have another state or other lanes', t => {
  const dir = temporary(t);
  const told = [
    report,
    { ...report, samples: 32 },
    { ...report, node: 'b', lanes: 0, state: 'spare' },
    { ...report, samples: 48, lanes: 5 },
    { ...report, node: 'b', lanes: 0, state: 'spare' },
    { ...report, samples: 64, lanes: 5, state: 'late' },
    { ...report, samples: 64, lanes: 5, state: 'late' },
  ] as const;
  record(dir, [start, ...told.map(nodeEvent)]);
  assert.deepEqual(Array.from(readEvents(dir), event => event?.step).slice(1), [0, 2, 3, 5]);
  // The next process does not know what this one kept.
  record(dir, [start, nodeEvent(report, 9)]);
  assert.deepEqual(typesIn(dir).slice(5), ['start', 'node']);
});

test('behind half a line the next begins with a line of its own', t => {
  const dir = temporary(t);
  record(dir, [start]);
  appendFileSync(join(dir, 'events.jsonl'), '{"type":"wai');
  // A reader beside a process that writes sees the same.
  assert.deepEqual(typesIn(dir), ['start']);
  record(dir, []);
  record(dir, [start, waiting]);
  assert.deepEqual(typesIn(dir), ['start', 'start', 'waiting']);
  assert.equal(textIn(dir).split('\n').length, 5);
});

test('torn lines are passed over, lines that are no events are told as such, and a folder without the file has none', t => {
  const dir = temporary(t);
  assert.deepEqual(typesIn(dir), []);
  const lines = [
    '',
    '{',
    'null',
    '[]',
    '{"type":"start"}',
    '{"type":"new","step":1,"timeMs":1}',
    JSON.stringify(waiting),
  ];
  writeFileSync(join(dir, 'events.jsonl'), `${lines.join('\n')}\n`);
  assert.deepEqual(typesIn(dir), ['none', 'none', 'none', 'none', 'waiting']);
});

test('a line longer than what is read at once is read whole', t => {
  const dir = temporary(t);
  const message = '\u{e9}'.repeat(1_500_000);
  record(dir, [start, { type: 'error', code: 'LOCKSTEP_INTERNAL', message, step: 0, timeMs: 1 }, waiting]);
  const [, error] = readEvents(dir);
  assert.equal(error?.type === 'error' && error.message === message, true);
  assert.deepEqual(typesIn(dir), ['start', 'error', 'waiting']);
});

test('what comes when the file is closed is lost without an error', t => {
  const dir = temporary(t);
  const file = new EventFile(dir);
  file.record(start);
  file.close();
  file.close();
  const other = new EventFile(temporary(t));
  t.after(() => other.close());
  file.record(waiting);
  assert.deepEqual(typesIn(dir), ['start']);
});

test('what a full disk does not take is lost without an error', { skip: fullDeviceIsMissing() }, t => {
  const full = temporary(t);
  symlinkSync(FULL_DEVICE, join(full, 'events.jsonl'));
  record(full, [start, waiting]);
});

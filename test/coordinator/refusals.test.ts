// Refusals are told once a second for each reason, with how many there were, and none is forgotten.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Refusals } from '#dist/coordinator/refusals.js';
import type { Clock } from '#dist/shared/clock.js';

const notYet = (): void => {};

function startRefusals() {
  let nowMs = 0;
  let tick = notYet;
  let isTicking = true;
  const told: string[] = [];
  const clock: Clock = {
    nowMs: () => nowMs,
    every: (_, action) => {
      tick = action;
      return () => (isTicking = false);
    },
    after: () => assert.fail('no timer is needed'),
  };
  const refusals = new Refusals(clock, event => {
    assert.ok(event.type === 'node-refused');
    told.push(`${nowMs} ${event.address} ${event.reason}`);
  });
  return {
    refusals,
    told,
    isTicking: () => isTicking,
    pass: (ms: number): void => {
      nowMs += ms;
      tick();
    },
  };
}

test('the first is told at once, those of the same second together, and reasons do not wait for each other', () => {
  const { refusals, told, pass } = startRefusals();
  refusals.count('key', 'a:1');
  for (let i = 2; i <= 5000; i++) refusals.count('key', `a:${i}`);
  refusals.count('tls', 'b:1');
  assert.deepEqual(told, [
    '0 a:1 its key id is unknown or its key is wrong',
    '0 b:1 it did not begin with our TLS handshake',
  ]);
  pass(999);
  assert.equal(told.length, 2);
  pass(1);
  assert.deepEqual(told.slice(2), [
    '1000 a:5000 its key id is unknown or its key is wrong (and 4,998 more like it since the last)',
  ]);
  refusals.count('key', 'a:6000');
  pass(999);
  assert.equal(told.length, 3);
  pass(1);
  assert.deepEqual(told.slice(3), ['2000 a:6000 its key id is unknown or its key is wrong']);
  // A quiet second later the next one is told at once again.
  pass(1000);
  refusals.tell('another', 'c:1');
  refusals.count('key', 'a:7000');
  assert.deepEqual(told.slice(4), [
    '3000 c:1 another',
    '3000 a:7000 its key id is unknown or its key is wrong',
  ]);
});

test('what was not told yet is told at the end', () => {
  const { refusals, told, isTicking } = startRefusals();
  refusals.count('left', 'a:1');
  refusals.count('left', 'a:2');
  refusals.count('http', 'b:1');
  refusals.close();
  assert.equal(told.length, 3);
  assert.match(told[2], /^0 a:2 it went before it was let in$/);
  assert.equal(isTicking(), false);
});

// How a coordinator listens: what addresses and durations may look like, and what agents are told to reach.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseDuration } from '#dist/shared/duration.js';
import {
  isLoopback,
  isWildcard,
  listenFlags,
  outsideHost,
  parseListen,
  resolveListening,
  type ListenSettings,
} from '#dist/shared/listen.js';

const addresses: Record<string, [string, number] | undefined> = {
  '7077': ['127.0.0.1', 7077],
  '0': ['127.0.0.1', 0],
  '0.0.0.0:7077': ['0.0.0.0', 7077],
  '[::]:7077': ['::', 7077],
  '[::1]:0': ['::1', 0],
  'trainer.example.org:65535': ['trainer.example.org', 65_535],
  '65536': undefined,
  '::1:7077': undefined,
  '[trainer]:1': undefined,
  ':7077': undefined,
  'http://trainer:1': undefined,
  'a b:1': undefined,
  '7077 ': undefined,
  '-1': undefined,
  trainer: undefined,
  '': undefined,
};

for (const [text, expected] of Object.entries(addresses)) {
  test(`the address '${text}'`, () => {
    assert.deepEqual(parseListen(text), expected && { host: expected[0], port: expected[1] });
  });
}

test('durations have a unit, and fit into a timer', () => {
  const texts = ['90s', '10m', '2h', '576h', '577h', '0s', '10', '1.5h', '10 m', 'm', '99999999999s'];
  assert.deepEqual(texts.map(parseDuration), [
    90_000,
    600_000,
    7_200_000,
    2_073_600_000,
    ...texts.slice(4).map(() => undefined),
  ]);
  assert.ok(parseDuration('576h')! < 2 ** 31);
});

test('loopback and wildcard addresses', () => {
  for (const host of ['localhost', '127.0.0.1', '127.1.2.3', '::1']) assert.ok(isLoopback(host), host);
  for (const host of ['0.0.0.0', '::', '10.0.0.1', 'localhost.example.org'])
    assert.ok(!isLoopback(host), host);
  for (const host of ['0.0.0.0', '::', '0:0:0:0:0:0:0:0']) assert.ok(isWildcard(host), host);
  for (const host of ['::1', '10.0.0.0', 'trainer']) assert.ok(!isWildcard(host), host);
});

test('agents are told the advertised host, the one listened on, or the first outside address', () => {
  const loopback = { address: '127.0.0.1', family: 'IPv4', internal: true };
  const link6 = { address: 'fe80::1', family: 'IPv6', internal: false };
  const outside6 = { address: '2001:db8::1', family: 'IPv6', internal: false };
  const outside4 = { address: '10.1.2.3', family: 'IPv4', internal: false };
  const all = [loopback, link6, outside6, outside4];
  assert.equal(outsideHost({ host: '0.0.0.0', advertise: 'trainer' }, all), 'trainer');
  assert.equal(outsideHost({ host: '192.168.0.7', advertise: undefined }, all), '192.168.0.7');
  assert.equal(outsideHost({ host: '0.0.0.0', advertise: undefined }, all), '10.1.2.3');
  assert.equal(outsideHost({ host: '::', advertise: undefined }, all), '10.1.2.3');
  const without4 = [loopback, link6, outside6];
  assert.equal(outsideHost({ host: '::', advertise: undefined }, without4), '2001:db8::1');
  assert.equal(outsideHost({ host: '0.0.0.0', advertise: undefined }, without4), undefined);
  assert.equal(outsideHost({ host: '::', advertise: undefined }, [loopback, link6]), undefined);
});

test('defaults, and the flags that listen as before', () => {
  assert.equal(resolveListening({}), undefined);
  assert.equal(resolveListening({ minNodes: undefined }), undefined);
  const plain = resolveListening({ listen: '0' });
  assert.deepEqual(plain, {
    host: '127.0.0.1',
    port: 0,
    advertise: undefined,
    minNodes: 0,
    patienceMs: Infinity,
    keyFile: undefined,
    joinFile: undefined,
    isInsecure: false,
    isPrivate: false,
    audit: 0.001,
  });
  assert.deepEqual(listenFlags({ listen: '0' }, plain, 4711), ['--listen', '127.0.0.1:4711']);
  const chosen: ListenSettings = {
    listen: '[::]:0',
    minNodes: 2,
    patience: '10m',
    keyFile: 'a b',
    insecure: true,
  };
  const listening = resolveListening(chosen)!;
  assert.deepEqual([listening.patienceMs, listening.isInsecure], [600_000, true]);
  assert.deepEqual(listenFlags(chosen, listening, 4711), [
    '--listen',
    '[::]:4711',
    '--min-nodes',
    '2',
    '--patience',
    '10m',
    '--key-file',
    'a b',
    '--insecure',
  ]);
  assert.deepEqual(listenFlags({ listen: '0', insecure: false }, plain, 1), ['--listen', '127.0.0.1:1']);
});

const refused: [object, RegExp][] = [
  [{ listen: 'x' }, /^Setting listen is "x", expected a text such as '7077'/],
  [{ listen: 7077 }, /^Setting listen is 7077, expected a text such as '7077'/],
  [
    { listen: '0', advertise: 'http://x' },
    /^Setting advertise is .*, expected the name or the address of a host/,
  ],
  [{ listen: '0', advertise: 'a:b' }, /^Setting advertise is .* without a port/],
  [{ listen: '0', advertise: 'x:7077' }, /^Setting advertise is .* without a port/],
  [{ listen: '0', advertise: 'fe80::1%eth0' }, /^Setting advertise is .* without a port/],
  [{ listen: '0', advertise: '256.0.0.1' }, /^Setting advertise is .* without a port/],
  [{ listen: '0', advertise: 'a..b/c' }, /^Setting advertise is .* without a port/],
  [{ listen: '0', minNodes: -1 }, /^Setting minNodes is -1, expected a whole number from 0 to 1024/],
  [{ listen: '0', patience: '600' }, /^Setting patience is "600", expected a duration such as '90s'/],
  [{ listen: '0', keyFile: '' }, /^Setting keyFile is .*, expected a path/],
  [{ listen: '0', audit: 1.5 }, /^Setting audit is 1\.5, expected a number from 0 to 1/],
  [{ listen: '0', insecure: 'yes' }, /^Setting insecure is "yes", expected true or false/],
  [{ minNodes: 1 }, /^Setting minNodes is of remote nodes, and nobody listens for them/],
  [{ insecure: true }, /^Setting insecure is of remote nodes/],
];

for (const [chosen, message] of refused) {
  test(`refused: ${JSON.stringify(chosen)}`, () => {
    assert.throws(() => resolveListening(chosen), {
      code: 'LOCKSTEP_BAD_SETTING',
      message,
    });
  });
}

test('hosts with names, dots and colons are taken', () => {
  for (const advertise of ['trainer', 'a-b.example.org', '10.0.0.1', 'fe80::1', '::ffff:10.0.0.1']) {
    assert.equal(resolveListening({ listen: '0', advertise })?.advertise, advertise);
  }
});

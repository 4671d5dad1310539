// The wire's frames: what is sent arrives, and what is no message is refused, whatever it is.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { crc32 } from 'node:zlib';
import { pack } from 'msgpackr';
import {
  bytesOf,
  decode,
  copyNumbers,
  encode,
  FrameSpace,
  largestFrames,
  MOST_JOB_FRAME_BYTES,
  scan,
} from '#dist/shared/codec.js';
import { LockstepError } from '#dist/shared/errors.js';
import { allMessages, messagesToAgent, messagesToCoordinator } from '../support/messages.js';
import { randomTest, type Random } from '../support/random.js';

const MOST = 1 << 20;
const sides = ['agent', 'coordinator'] as const;
type Side = (typeof sides)[number];

/** With the right CRC behind it. */
function sealed(body: Uint8Array): Uint8Array {
  const frame = Buffer.alloc(body.length + 4);
  frame.set(body);
  frame.writeUInt32BE(crc32(body), body.length);
  return frame;
}

function bodyOf(frame: Uint8Array): Uint8Array {
  return frame.subarray(0, -4);
}

/** Why a frame is refused. */
function refusal(frame: Uint8Array, side: Side, mostBytes = MOST): string {
  try {
    decode(frame, side, mostBytes);
  } catch (error) {
    assert.ok(error instanceof LockstepError && error.code === 'LOCKSTEP_PROTOCOL', String(error));
    return error.message;
  }
  return assert.fail('the frame was taken');
}

/** Bytes as any Uint8Array, so that messages can be compared. */
function plain(message: object): object {
  return Object.fromEntries(
    Object.entries(message).map(([key, value]) => [
      key,
      value instanceof Uint8Array ? new Uint8Array(value) : value,
    ]),
  );
}

test('a message of every type arrives as it was sent, and is taken by its side alone', () => {
  for (const parameters of [0, 1, 5, 31, 32, 33, 70_000]) {
    for (const message of messagesToAgent(parameters)) {
      const frame = encode(message);
      assert.deepEqual(plain(decode(frame, 'agent', MOST)), plain(message));
      assert.match(refusal(frame, 'coordinator'), /field type/);
    }
    for (const message of messagesToCoordinator(parameters)) {
      const frame = encode(message);
      assert.deepEqual(plain(decode(frame, 'coordinator', MOST)), plain(message));
      assert.match(refusal(frame, 'agent'), /field type/);
    }
  }
});

test('a frame stays what it is when others are made after it', () => {
  const frames = allMessages(100).map(message => encode(message));
  const copies = frames.map(frame => new Uint8Array(frame));
  for (let i = 0; i < 100; i++) allMessages(3000).forEach(message => encode(message));
  assert.deepEqual(
    frames.map(frame => new Uint8Array(frame)),
    copies,
  );
});

test('msgpack of another writer is read too: other widths, other order, plain arrays of bytes views', () => {
  const ping = Buffer.concat([
    Buffer.from([0xdf, 0, 0, 0, 2, 0xd9, 6]),
    Buffer.from('sentMs'),
    Buffer.from([0xcf, 0, 0, 1, 0, 0, 0, 0, 0]),
    Buffer.from([0xda, 0, 4]),
    Buffer.from('type'),
    Buffer.from([0xdb, 0, 0, 0, 4]),
    Buffer.from('ping'),
  ]);
  const view = new Uint8Array(new Uint8Array([1, 2, 3, ...sealed(ping)]).buffer, 3);
  assert.deepEqual(decode(view, 'agent', MOST), { type: 'ping', sentMs: 2 ** 40 });
});

test('texts with control characters are refused, and none of ours has any', () => {
  for (const control of ['\n', '\r', '\t', '\0', '\x1b[2J', '\x7f', '\x9b1m']) {
    for (const message of allMessages()) {
      for (const [key, value] of Object.entries(message)) {
        if (typeof value !== 'string') continue;
        const side = messagesToAgent().some(({ type }) => type === message.type) ? 'agent' : 'coordinator';
        const frame = sealed(pack({ ...message, [key]: `${value}${control}` }));
        assert.match(refusal(frame, side), new RegExp(`field ${key} `), `${message.type} ${key}`);
      }
    }
    for (const message of [...messagesToAgent(), ...messagesToCoordinator()]) {
      if (message.type !== 'end' && message.type !== 'bad-leaf') continue;
      const frame = encode({ ...message, message: `a${control}${'b'.repeat(5000)}` });
      const side = message.type === 'end' ? 'agent' : 'coordinator';
      const told = decode(frame, side, MOST);
      assert.ok('message' in told && /^a [^\p{Cc}]*$/u.test(told.message) && told.message.length === 2000);
    }
  }
});

test('every single flipped bit is caught', () => {
  for (const [side, messages] of [
    ['agent', messagesToAgent()],
    ['coordinator', messagesToCoordinator()],
  ] as const) {
    for (const message of messages) {
      const frame = new Uint8Array(encode(message));
      for (let bit = 0; bit < 8 * frame.length; bit++) {
        frame[bit >> 3] ^= 1 << (bit & 7);
        assert.match(refusal(frame, side), /CRC/);
        frame[bit >> 3] ^= 1 << (bit & 7);
      }
    }
  }
});

test('bytes arrive as a view of the frame, and numbers as they were at any alignment', () => {
  const gradient = Float64Array.from([0, -0, 1.5, -(2 ** -36), 2 ** 17]);
  const sum = messagesToCoordinator().find(message => message.type === 'sum')!;
  const frame = encode({ ...sum, gradient: bytesOf(gradient) });
  for (let offset = 0; offset < 8; offset++) {
    const moved = new Uint8Array(frame.length + offset).subarray(offset);
    moved.set(frame);
    const message = decode(moved, 'coordinator', MOST);
    assert.ok(message.type === 'sum' && message.gradient.buffer === moved.buffer);
    const copied = new Float64Array(gradient.length);
    copyNumbers(message.gradient, copied);
    assert.deepEqual(copied, gradient);
    const floats = Float32Array.from(gradient);
    const placed = new Uint8Array(20 + offset).subarray(offset);
    placed.set(bytesOf(floats));
    const copiedFloats = new Float32Array(floats.length);
    copyNumbers(placed, copiedFloats);
    assert.deepEqual(copiedFloats, floats);
  }
  for (const length of [12, 24]) {
    const copy = (): void => copyNumbers(new Uint8Array(length), new Float64Array(2));
    assert.throws(copy, { code: 'LOCKSTEP_PROTOCOL' });
  }
});

test('frames in one space are as those in memory of their own, and lie in the same place', () => {
  const space = new FrameSpace();
  const [first, second] = [1, 2].map(step => {
    const data = new Uint8Array(1000).fill(step);
    return { type: 'weights', step, weights: '0'.repeat(16), data } as const;
  });
  assert.deepEqual(encode(first, space), encode(first));
  const frame = encode(second, space);
  assert.deepEqual(frame, encode(second));
  assert.equal(frame.buffer, encode(first, space).buffer);
});

test('a frame may be as large as is said, and no byte larger', () => {
  const frame = encode(messagesToAgent()[2]);
  assert.equal(decode(frame, 'agent', frame.length).type, 'weights');
  assert.match(refusal(frame, 'agent', frame.length - 1), /and \d+ may be/);
});

test('the largest frames hold every message of a job, and little more', () => {
  const paddedCount = 2_000_384;
  const largest = largestFrames({ paddedCount }, 803_840);
  const text = '✓'.repeat(2000);
  const parts = Array.from({ length: 64 }, () => ({ from: 1_000_000, to: 1_048_576 }));
  const toAgent = [
    ...messagesToAgent(paddedCount),
    ...messagesToAgent().flatMap(message => (message.type === 'lease' ? [{ ...message, parts }] : [])),
    { type: 'end', code: text.slice(0, 100), message: text } as const,
  ].filter(message => message.type !== 'shard');
  const toCoordinator = [
    ...messagesToCoordinator(paddedCount),
    ...messagesToCoordinator().flatMap(message =>
      message.type === 'bad-leaf' ? [{ ...message, message: text }] : [],
    ),
  ];
  for (const message of toAgent) assert.ok(encode(message).length <= largest.toAgent, message.type);
  for (const message of toCoordinator) {
    assert.ok(encode(message).length <= largest.toCoordinator, message.type);
  }
  assert.ok(largest.toAgent < 4 * paddedCount + 20_000);
  assert.ok(largest.toCoordinator < 8 * paddedCount + paddedCount / 512 + 20_000);
  assert.ok(largestFrames({ paddedCount: 512 }, 50_000_000).toAgent > 50_000_100);
});

test('a job of the most shards and many layers fits what an agent takes', () => {
  const job = messagesToAgent()[0];
  assert.ok(job.type === 'job');
  const shard = { ...job.shards[0], from: 2_097_152, samples: 1024 };
  const model = { name: 'deep', layers: Array.from({ length: 2000 }, () => ({ type: 'relu' }) as const) };
  const large = { ...job, model, shards: Array.from({ length: 8192 }, () => shard) };
  assert.deepEqual(decode(encode(large), 'agent', MOST_JOB_FRAME_BYTES), large);
});

const deep = (levels: number): Uint8Array =>
  Buffer.from([...Array.from({ length: levels }, () => 0x91), 0x01]);
/** `{ type: 'leave', <key>: <value> }` */
const leaveWith = (...bytes: number[]): Uint8Array =>
  Buffer.concat([
    Buffer.from([0x82, 0xa4]),
    Buffer.from('type'),
    Buffer.from([0xa5]),
    Buffer.from('leave'),
    Buffer.from(bytes),
  ]);
const key = (text: string): number[] => [0xa0 | text.length, ...Buffer.from(text)];

const crafted: [what: string, body: Uint8Array, reason: RegExp][] = [
  ['nothing at all', new Uint8Array(0), /empty/],
  ['no map', Buffer.from([0x01]), /no message/],
  ['an array', Buffer.from([0x90]), /./],
  ['an unknown type', pack({ type: 'secret-word' }), /field type/],
  ['an unknown field', pack({ type: 'leave', reason: '', secretWord: 1 }), /unknown field/],
  ['a field of another type', pack({ type: 'pong', sentMs: 'secret-word' }), /field sentMs/],
  ['a missing field', pack({ type: 'pong' }), /field sentMs/],
  ['NaN', pack({ type: 'pong', sentMs: Number.NaN }), /field sentMs/],
  ['deep nesting', leaveWith(...key('a'), ...deep(8)), /nested deeper/],
  ['nesting without end', deep(200_000), /nested deeper/],
  ['__proto__', leaveWith(...key('__proto__'), 0x80), /a key that no message has/],
  ['constructor', leaveWith(...key('constructor'), 0x80), /a key that no message has/],
  ['prototype, written wide', leaveWith(0xd9, 9, ...Buffer.from('prototype'), 0x80), /a key that no message/],
  ['a key that is a number', leaveWith(1, 1), /no string/],
  ['a key that is nil', leaveWith(0xc0, 1), /no string/],
  ['a key that is an array', leaveWith(0x90, 1), /no string/],
  ['an array that claims 4 Gi values', leaveWith(...key('a'), 0xdd, 255, 255, 255, 255), /a length/],
  ['a map that claims 65,535 keys', leaveWith(...key('a'), 0xde, 255, 255), /more than 32 keys/],
  ['a map of fewer bytes than keys', leaveWith(...key('a'), 0x83, ...key('b'), 1, 1), /a length/],
  ['bytes that claim 4 GiB', leaveWith(...key('a'), 0xc6, 255, 255, 255, 255), /a length/],
  ['a string that claims 64 KiB', leaveWith(...key('a'), 0xda, 255, 255), /a length/],
  ['an extension', leaveWith(...key('a'), 0xd4, 0x72, 0x40), /a kind that/],
  ['a date', leaveWith(...key('a'), 0xd6, 0xff, 0, 0, 0, 0), /a kind that/],
  ['a long extension', leaveWith(...key('a'), 0xc9, 0, 0, 0, 1, 0x74, 0), /a kind that/],
  ['c1', leaveWith(...key('a'), 0xc1), /a kind that/],
  ['2^53', leaveWith(...key('a'), 0xcf, 0, 0x20, 0, 0, 0, 0, 0, 0), /53 bits/],
  ['-2^63', leaveWith(...key('a'), 0xd3, 0x80, 0, 0, 0, 0, 0, 0, 0), /53 bits/],
  ['no UTF-8', leaveWith(...key('a'), 0xa2, 0xc3, 0x28), /UTF-8/],
  ['half of a surrogate pair', leaveWith(...key('a'), 0xa3, 0xed, 0xa0, 0x80), /UTF-8/],
  ['two messages', Buffer.concat([pack({ type: 'leave' }), pack({ type: 'leave' })]), /follows its end/],
  ['a header without its value', leaveWith(...key('a'), 0xcb, 0, 0), /too early/],
  ['a map without its value', leaveWith(...key('a')), /too early/],
  ['a list of thousands', leaveWith(...key('a'), 0xdc, 0x10, 0, ...new Uint8Array(4096)), /256 values/],
];

for (const [what, body, reason] of crafted) {
  test(`refused: ${what}`, () => {
    const said = refusal(sealed(body), 'coordinator');
    assert.match(said, reason);
    assert.doesNotMatch(said, /secret/i);
  });
}

test('a value nested as deep as it may be is scanned to its end', () => {
  assert.deepEqual(scan(deep(8), 100), { values: 9 });
  assert.match(scan(deep(9), 100).reason ?? '', /nested/);
});

/** Tokens, lengths and keys that have meant trouble to somebody. */
const nasty: number[][] = [
  [0xc1],
  [0xc0],
  [0xcf, 255, 255, 255, 255, 255, 255, 255, 255],
  [0xd3, 128, 0, 0, 0, 0, 0, 0, 0],
  [0xcb, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0],
  [0xc6, 255, 255, 255, 255],
  [0xdb, 127, 255, 255, 255],
  [0xdd, 255, 255, 255, 255],
  [0xdf, 255, 255, 255, 255],
  [0xdd, 0, 0, 16, 0],
  [0xde, 0, 32],
  [0xd4, 0x72, 0x40],
  [0xd4, 0x00, 0x00],
  [0xd6, 0x69, 0, 0, 0, 1],
  [0xd6, 0x62, 0, 0, 0, 1],
  [0xc7, 5, 0x74, 8, 1, 2, 3, 4],
  [0xd6, 0xff, 0, 0, 0, 1],
  [0x40],
  Array.from({ length: 40 }, () => 0x91),
  Array.from({ length: 40 }, () => 0x80),
  [0x81, ...key('__proto__'), 0x81, ...key('polluted'), 1],
  [0x81, ...key('constructor'), 0x81, ...key('prototype'), 0x80],
  [0xa4, 0xf0, 0x28, 0x8c, 0xbc],
  [0xa9, ...Buffer.from('__proto__')],
  [...key('type'), ...key('sum')],
];

function mutated(random: Random, body: Uint8Array, others: readonly Uint8Array[]): Uint8Array {
  const at = random.integer(body.length + 1);
  const behind = Math.min(body.length, at + random.integer(1 + random.pick([1, 4, 30])));
  const splice = (...bytes: number[]): Uint8Array =>
    Buffer.concat([body.subarray(0, at), Buffer.from(bytes), body.subarray(behind)]);
  switch (random.integer(9)) {
    case 0: // Some bits.
      return body.map(byte => (random.chance(4 / body.length) ? byte ^ (1 << random.integer(8)) : byte));
    case 1: // A byte, more often than not a token with a length.
      return body.map((byte, i) => (i === at ? 0xc0 + random.integer(32) : byte));
    case 2:
      return body.subarray(0, at);
    case 3: // Another message behind it, or a part of one in it.
      return Buffer.concat([body.subarray(0, random.pick([at, body.length])), random.pick(others)]);
    case 4:
      return splice(...random.pick(nasty));
    case 5:
      return splice(...Array.from({ length: random.integer(20) }, () => random.integer(256)));
    case 6: // A piece taken from elsewhere in it.
      return splice(...body.subarray(random.integer(body.length)).subarray(0, 1 + random.integer(40)));
    case 7: // One field more.
      return Buffer.concat([
        Buffer.from([(body[0] + 1) & 0x8f]),
        body.subarray(1),
        Buffer.from([...key(random.pick(['__proto__', 'a', 'type', 'step'])), ...random.pick(nasty)]),
      ]);
    default: // Nothing of a message.
      return Uint8Array.from({ length: random.integer(300) }, () => random.integer(256));
  }
}

// .ci/run asks for 100,000.
const frameCount = Number(process.env['LOCKSTEP_FUZZ_FRAMES'] ?? 20_000);

randomTest(
  `each of ${frameCount} mutated frames is a message or refused, and leaves nothing behind`,
  random => {
    const bodies = allMessages(8).map(message => new Uint8Array(bodyOf(encode(message))));
    const builtin = Object.getOwnPropertyNames(Object.prototype).toSorted();
    let taken = 0;
    let wrongCrc = 0;
    const reasons = new Map<string, number>();
    const heapBefore = process.memoryUsage();
    for (let i = 0; i < frameCount; i++) {
      let body: Uint8Array = random.pick(bodies);
      for (let times = 1 + random.integer(3); times > 0 && body.length > 0; times--) {
        body = mutated(random, body, bodies);
      }
      const frame = sealed(body);
      if (random.chance(0.02)) frame[random.integer(frame.length)] ^= 1 + random.integer(255);
      const { values } = scan(body, 256);
      assert.ok(values <= Math.min(256, body.length + 1), `${values} steps for ${body.length} bytes`);
      for (const side of sides) {
        try {
          const message = decode(frame, side, MOST);
          taken++;
          // What was taken is a message: it survives another trip.
          assert.deepEqual(plain(decode(encode(message), side, MOST)), plain(message));
        } catch (error) {
          assert.ok(error instanceof LockstepError, `frame ${i}: ${String(error)}`);
          assert.equal(error.code, 'LOCKSTEP_PROTOCOL');
          assert.ok(error.message.length < 200, error.message);
          if (error.message.includes('CRC')) wrongCrc++;
          const reason = error.message.replaceAll(/field [\w.]+|in [\w.]+|\d+/g, '');
          reasons.set(reason, (reasons.get(reason) ?? 0) + 1);
        }
      }
    }
    assert.deepEqual(Object.getOwnPropertyNames(Object.prototype).toSorted(), builtin);
    // The door behind the CRC was tried, and every other one.
    assert.ok(wrongCrc > 0 && wrongCrc < 0.1 * frameCount, `${wrongCrc} wrong CRCs`);
    assert.ok(taken > frameCount / 1000, `${taken} taken`);
    assert.ok(reasons.size >= 13, [...reasons].join('\n'));
    assert.ok(
      ![...reasons.keys()].some(reason => reason.includes('msgpackr')),
      'the scanner let something pass',
    );
    const grownBytes = process.memoryUsage().heapTotal - heapBefore.heapTotal;
    assert.ok(grownBytes < 256 * 1_048_576, `${grownBytes} bytes more`);
  },
);

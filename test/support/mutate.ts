// Frames of somebody who holds the key and does not keep to the protocol: messages with wrong fields, damaged bodies with
// a right CRC, damaged frames.

import { crc32 } from 'node:zlib';
import { Packr } from 'msgpackr/pack';
import { encode } from '#dist/shared/codec.js';
import type { Message } from '#dist/shared/messages.js';
import type { Random } from './random.js';

const msgpack = new Packr({ useRecords: false, variableMapSize: true });

const nested = (depth: number): unknown => (depth === 0 ? [] : [nested(depth - 1)]);

/** What no field should be, or only a few. */
const values: readonly unknown[] = [
  null,
  true,
  '',
  'x'.repeat(3000),
  '__proto__',
  -1,
  0.5,
  2 ** 31,
  2 ** 53,
  Number.NaN,
  Infinity,
  [],
  {},
  nested(7),
  nested(60),
  { constructor: { prototype: { polluted: true } } },
  JSON.parse('{"__proto__": {"polluted": true}}'),
  Array.from({ length: 70 }, (_, i) => ({ from: i, to: i + 1 })),
  Array.from({ length: 5000 }, (_, i) => i),
  new Uint8Array(0),
  new Uint8Array(7),
  new Uint8Array(4096).fill(0xff),
  { from: 5, to: 1 },
  { from: 0, to: 1_048_576 },
];

/** One or more things in `message` are not as they should be. */
export function mutatedFrame(random: Random, message: Message): Uint8Array {
  switch (random.integer(4)) {
    case 0:
    case 1:
      return sealed(msgpack.pack(mutatedMessage(random, message)));
    case 2: {
      const frame = Buffer.from(encode(message));
      const body = frame.subarray(0, -4);
      // Tokens and lengths stand in front of the bytes that they are of.
      const reach = random.chance(0.7) ? Math.min(200, body.length) : body.length;
      for (let i = 0; i <= random.integer(3); i++) {
        body[random.integer(reach)] = random.chance(0.5) ? 0xc0 + random.integer(32) : random.integer(256);
      }
      return sealed(random.chance(0.2) ? body.subarray(0, random.integer(body.length) + 1) : body);
    }
    default: {
      const frame = Buffer.from(encode(message));
      if (random.chance(0.3)) return frame.subarray(0, random.integer(frame.length));
      frame[random.integer(frame.length)] ^= 1 << random.integer(8);
      return frame;
    }
  }
}

/** With the CRC that it should have. */
function sealed(body: Uint8Array): Uint8Array {
  const frame = Buffer.concat([body, Buffer.alloc(4)]);
  frame.writeUInt32BE(crc32(body), body.length);
  return frame;
}

function mutatedMessage(random: Random, message: Message): object {
  const fields: [string, unknown][] = Object.entries(message);
  const at = random.integer(fields.length);
  switch (random.integer(4)) {
    case 0:
      fields.splice(at, 1);
      break;
    case 1:
      fields.push([random.pick(['constructor', 'toString', 'extra', 'length']), random.pick(values)]);
      break;
    default:
      fields[at] = [fields[at][0], random.pick(values)];
  }
  return Object.fromEntries(fields);
}

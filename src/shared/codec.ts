// The frames of the wire: a msgpack map, and behind it the CRC-32 of its bytes. `docs/protocol.md` describes both.
//
// Whoever has the key may still send anything, and a link without encryption may flip any bit. So a frame passes three
// doors, one after the other: the CRC; a scanner, which sees to it that the body is plain, small and whole before any
// object is made of it; and the schema of the messages that this side takes.

import { Buffer, isUtf8 } from 'node:buffer';
import { crc32 } from 'node:zlib';
// Not from 'msgpackr' itself, which hands the strings of a frame to a native addon.
import { Packr } from 'msgpackr/pack';
import * as v from 'valibot';
import { LockstepError } from './errors.js';
import {
  plainText,
  toAgentSchema,
  toCoordinatorSchema,
  type Message,
  type ToAgent,
  type ToCoordinator,
} from './messages.js';
import type { Model } from './model.js';
import { mostPackedBytes } from './packed-sums.js';

const CRC_BYTES = 4;
/** Containers in containers: more than the model of a job needs. */
const MOST_DEPTH = 8;
/** More than any message has. */
const MOST_KEYS = 32;
/** Room for all of a message but its bytes: its fields, a text of 2,000 characters, 64 parts, the CRC. */
const ENVELOPE_BYTES = 16_384;
/** The largest frame before an agent has its job, which is the largest that carries one. */
export const MOST_JOB_FRAME_BYTES = 4_194_304;

const msgpack = new Packr({ useRecords: false, variableMapSize: true, int64AsType: 'number' });
const nothing = new Uint8Array(0);

/**
 * The frame of a message, which holds a copy of the message's bytes and may go to any number of connections: weights are
 * encoded once for all nodes. With `space` it lies there, and lasts until the next frame is made in it.
 */
export function encode(message: Message, space?: FrameSpace): Uint8Array {
  if (message.type === 'weights' || message.type === 'shard') {
    const { data, ...fields } = message;
    return seal({ ...fields, data: nothing }, data, space);
  }
  if (message.type === 'sum') {
    const { gradient, ...fields } = message;
    return seal({ ...fields, gradient: nothing }, gradient, space);
  }
  if (message.type === 'bad-leaf' || message.type === 'end') {
    return seal({ ...message, message: plainText(message.message) });
  }
  return seal(message);
}

/** Memory for frames that follow each other: what a step allocates anew, the garbage collector stops a step for. */
export class FrameSpace {
  #bytes = Buffer.alloc(0);

  take(length: number): Buffer {
    if (this.#bytes.length < length) this.#bytes = Buffer.allocUnsafeSlow(length);
    return this.#bytes.subarray(0, length);
  }
}

/**
 * msgpackr would copy large bytes into a buffer of its own that it then keeps. So it is given empty ones, as the last
 * value: what it makes of them, c4 00, is replaced by the real ones.
 */
function seal(fields: object, bytes?: Uint8Array, space?: FrameSpace): Uint8Array {
  const packed = msgpack.pack(fields);
  const head = bytes === undefined ? packed : packed.subarray(0, -2);
  const bodyBytes = head.length + (bytes === undefined ? 0 : 5 + bytes.length);
  const length = bodyBytes + CRC_BYTES;
  const frame = space?.take(length) ?? Buffer.allocUnsafe(length);
  frame.set(head);
  if (bytes !== undefined) {
    frame[head.length] = 0xc6;
    frame.writeUInt32BE(bytes.length, head.length + 1);
    frame.set(bytes, head.length + 5);
  }
  frame.writeUInt32BE(crc32(frame.subarray(0, bodyBytes)), bodyBytes);
  return frame;
}

/** What each side takes. */
interface Sides {
  readonly agent: ToAgent;
  readonly coordinator: ToCoordinator;
}

/** `mostValues`: more than its largest message has, which for an agent is a `job` of 8,192 shards. */
const sides: {
  [Side in keyof Sides]: {
    readonly schema: v.GenericSchema<unknown, Sides[Side]>;
    readonly mostValues: number;
  };
} = {
  agent: { schema: toAgentSchema, mostValues: 131_072 },
  coordinator: { schema: toCoordinatorSchema, mostValues: 256 },
};

/**
 * The message of a frame that `side` received. Its bytes are a view of the frame.
 * @throws LOCKSTEP_PROTOCOL if the frame has more than `mostBytes`, is damaged or is no message for this side; the text
 *   says why and repeats nothing of the frame.
 */
export function decode<Side extends keyof Sides>(
  frame: Uint8Array,
  side: Side,
  mostBytes: number,
): Sides[Side] {
  if (frame.length > mostBytes) throw protocolError(`it has ${frame.length} bytes, and ${mostBytes} may be`);
  if (frame.length <= CRC_BYTES) throw protocolError('it is empty');
  const bodyBytes = frame.length - CRC_BYTES;
  const body = Buffer.from(frame.buffer, frame.byteOffset, bodyBytes);
  const sum = new DataView(frame.buffer, frame.byteOffset + bodyBytes).getUint32(0);
  if (crc32(body) !== sum) throw protocolError('its CRC is wrong');
  const { schema, mostValues } = sides[side];
  const { reason } = scan(body, mostValues);
  if (reason !== undefined) throw protocolError(reason);
  const parsed = v.safeParse(schema, unpack(body), { abortEarly: true });
  if (!parsed.success) throw protocolError(explain(parsed.issues[0]));
  return parsed.output;
}

function unpack(body: Uint8Array): unknown {
  try {
    const value: unknown = msgpack.unpack(body);
    return value;
  } catch {
    // Without its cause: the text of msgpackr's errors may hold values of the frame.
    throw protocolError('msgpackr cannot read it');
  }
}

function protocolError(reason: string): LockstepError {
  return new LockstepError(
    'LOCKSTEP_PROTOCOL',
    `A frame from the other side cannot be taken: ${reason}. The connection ends.`,
  );
}

/** Which field is wrong. The path's last part is the frame's own word only where the field is unknown. */
function explain(issue: v.BaseIssue<unknown>): string {
  const isUnknown = issue.expected === 'never';
  const keys = (issue.path ?? []).map(({ key }) => String(key));
  const place = (isUnknown ? keys.slice(0, -1) : keys).join('.');
  if (isUnknown) return `an unknown field${place === '' ? '' : ` in ${place}`}`;
  return place === '' ? 'it is no message' : `field ${place} is not as it must be`;
}

export interface Scan {
  /** Keys and values looked at: the steps that it took. */
  readonly values: number;
  /** Why it is not to be unpacked. */
  readonly reason?: string;
}

type Kind = 'plain' | 'integer64' | 'bin' | 'str' | 'array' | 'map';

/** What the tokens from 0xc0 on stand for, and the bytes that follow: the value, or the length of the content. */
const forms: Readonly<Record<number, readonly [Kind, number]>> = {
  0xc0: ['plain', 0], // nil
  0xc2: ['plain', 0], // false
  0xc3: ['plain', 0], // true
  0xc4: ['bin', 1],
  0xc5: ['bin', 2],
  0xc6: ['bin', 4],
  0xca: ['plain', 4], // float 32
  0xcb: ['plain', 8], // float 64
  0xcc: ['plain', 1], // uint 8
  0xcd: ['plain', 2],
  0xce: ['plain', 4],
  0xcf: ['integer64', 8],
  0xd0: ['plain', 1], // int 8
  0xd1: ['plain', 2],
  0xd2: ['plain', 4],
  0xd3: ['integer64', 8],
  0xd9: ['str', 1],
  0xda: ['str', 2],
  0xdb: ['str', 4],
  0xdc: ['array', 2],
  0xdd: ['array', 4],
  0xde: ['map', 2],
  0xdf: ['map', 4],
};

/** Every name by which a prototype can be reached. */
const bannedKeys = new Set(['__proto__', 'constructor', 'prototype']);

/**
 * Whether a body is exactly one msgpack value of plain kinds: no extensions, and no lengths, nesting, keys or integers that
 * no message has. Takes at most `mostValues` steps, each over one key or value, and allocates nothing that grows with
 * what the body claims.
 */
export function scan(body: Uint8Array, mostValues: number): Scan {
  const bytes = Buffer.from(body.buffer, body.byteOffset, body.length);
  const end = bytes.length;
  // Of each open container: what is still to come. A map counts twice, and a key is next where the rest is even.
  const rest = [1];
  const isMap = [false];
  let at = 0;
  let values = 0;
  const no = (reason: string): Scan => ({ values, reason });

  while (rest.length > 0) {
    const depth = rest.length - 1;
    if (rest[depth] === 0) {
      rest.pop();
      isMap.pop();
      continue;
    }
    const isKey = isMap[depth] && rest[depth] % 2 === 0;
    rest[depth]--;
    if (values === mostValues) return no(`it has more than ${mostValues} values`);
    values++;
    if (at === end) return no('it ends too early');
    const token = bytes[at++];

    let kind: Kind;
    let length = 0;
    if (token < 0x80 || token >= 0xe0) kind = 'plain';
    else if (token < 0x90) [kind, length] = ['map', token & 15];
    else if (token < 0xa0) [kind, length] = ['array', token & 15];
    else if (token < 0xc0) [kind, length] = ['str', token & 31];
    else {
      const form = forms[token];
      if (form === undefined) return no('it has a value of a kind that no message has');
      const [formKind, width] = form;
      kind = formKind;
      if (width > end - at) return no('it ends too early');
      if (kind === 'integer64') {
        const high = token === 0xcf ? bytes.readUInt32BE(at) : bytes.readInt32BE(at);
        const value = high * 4_294_967_296 + bytes.readUInt32BE(at + 4);
        if (!Number.isSafeInteger(value)) return no('it has an integer beyond 53 bits');
      } else if (kind !== 'plain') length = bytes.readUIntBE(at, width);
      at += width;
    }

    if (isKey && kind !== 'str') return no('it has a key that is no string');
    if (kind === 'str' || kind === 'bin') {
      if (length > end - at) return no('it has a length that is more than there is');
      const content = bytes.subarray(at, at + length);
      if (kind === 'str' && !isUtf8(content)) return no('it has a string that is not UTF-8');
      if (isKey && bannedKeys.has(content.toString('latin1'))) return no('it has a key that no message has');
      at += length;
    } else if (kind === 'array' || kind === 'map') {
      if (kind === 'map' && length > MOST_KEYS) return no(`it has a map of more than ${MOST_KEYS} keys`);
      const count = kind === 'map' ? 2 * length : length;
      // Each value has at least one byte.
      if (count > end - at) return no('it has a length that is more than there is');
      if (depth === MOST_DEPTH) return no(`it is nested deeper than ${MOST_DEPTH}`);
      rest.push(count);
      isMap.push(kind === 'map');
    }
  }
  return at === end ? { values } : no('something follows its end');
}

// Numbers travel as their bytes in little-endian order, and so they must lie in memory here: nothing is swapped. Every
// processor that this project is tested on has them so.

/**
 * Copies a message's bytes into numbers, of which there must be as many. Frames are views of larger buffers, so bytes are
 * rarely aligned; and what is reused makes no garbage.
 * @throws LOCKSTEP_PROTOCOL
 */
export function copyNumbers(bytes: Uint8Array, numbers: Float32Array | Float64Array): void {
  if (bytes.length !== numbers.byteLength) {
    throw protocolError(`it has numbers of ${bytes.length} bytes and should have ${numbers.byteLength}`);
  }
  bytesOf(numbers).set(bytes);
}

/** A view. */
export function bytesOf(numbers: Float32Array | Float64Array): Uint8Array {
  return new Uint8Array(numbers.buffer, numbers.byteOffset, numbers.byteLength);
}

/** Bytes of the largest frame that is possible in each direction of a run, once its job is known. */
export interface LargestFrames {
  readonly toAgent: number;
  readonly toCoordinator: number;
}

/** `shardBytes`: of the largest shard. */
export function largestFrames(
  { paddedCount }: Pick<Model, 'paddedCount'>,
  shardBytes: number,
): LargestFrames {
  return {
    toAgent: Math.max(MOST_JOB_FRAME_BYTES, paddedCount * 4 + ENVELOPE_BYTES, shardBytes + ENVELOPE_BYTES),
    toCoordinator: mostPackedBytes(paddedCount) + ENVELOPE_BYTES,
  };
}

// How messages become frames: msgpack, checked by their schemas at the door.

import { Packr } from 'msgpackr';
import * as v from 'valibot';
import { LockstepError, messageOf } from './errors.js';
import {
  toAgentSchema,
  toCoordinatorSchema,
  type Message,
  type ToAgent,
  type ToCoordinator,
} from './messages.js';
import type { Model } from './model.js';

/** Room for all of a message but its bytes. */
const ENVELOPE_BYTES = 16_384;
/** The largest frame before an agent has its job, which is the largest that carries one. */
export const MOST_JOB_FRAME_BYTES = 4_194_304;

const packr = new Packr({ useRecords: false, variableMapSize: true });

export function encode(message: Message): Uint8Array {
  return packr.pack(message);
}

/** @throws LOCKSTEP_PROTOCOL */
export function decode(frame: Uint8Array, receiver: 'agent', maxBytes: number): ToAgent;
export function decode(frame: Uint8Array, receiver: 'coordinator', maxBytes: number): ToCoordinator;
export function decode(frame: Uint8Array, receiver: 'agent' | 'coordinator', maxBytes: number): Message {
  try {
    if (frame.length > maxBytes)
      throw new Error(`a frame of ${frame.length} bytes, where ${maxBytes} are possible`);
    return v.parse(receiver === 'agent' ? toAgentSchema : toCoordinatorSchema, packr.unpack(frame));
  } catch (error) {
    throw new LockstepError('LOCKSTEP_PROTOCOL', messageOf(error));
  }
}

export function floatsOf(bytes: Uint8Array): Float32Array {
  return new Float32Array(Uint8Array.from(bytes).buffer);
}

export function doublesOf(bytes: Uint8Array): Float64Array {
  return new Float64Array(Uint8Array.from(bytes).buffer);
}

export function bytesOf(values: Float32Array | Float64Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}

/** `shardBytes`: of the largest shard. */
export function largestFrames({ paddedCount }: Pick<Model, 'paddedCount'>, shardBytes: number) {
  return {
    toAgent: Math.max(MOST_JOB_FRAME_BYTES, Math.max(paddedCount * 4, shardBytes) + ENVELOPE_BYTES),
    toCoordinator: paddedCount * 8 + ENVELOPE_BYTES,
  };
}

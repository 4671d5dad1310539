// The safetensors format: a u64 length, a JSON header with names, shapes and offsets, and the tensors' bytes.
//
// Files of this project carry a checksum: the header begins with the SHA-256 of the whole file, computed with zeros in
// its own place. So every bit of the file is covered, and any reader of the format still reads it.

import * as v from 'valibot';
import { LockstepError } from '../shared/errors.js';
import { sha256 } from '../shared/hash.js';

/** A tensor with its values, row-major. */
export interface TensorValues {
  readonly name: string;
  readonly shape: readonly number[];
  readonly values: Float32Array;
}

export interface SafetensorsFile {
  readonly metadata: Readonly<Record<string, string>>;
  readonly tensors: readonly TensorValues[];
}

const CHECKSUM_PREFIX = '{"__metadata__":{"sha256":"';
const CHECKSUM_AT = 8 + CHECKSUM_PREFIX.length;
const NO_CHECKSUM = '0'.repeat(64);

/** The bytes of values, little-endian f32: what is hashed. */
export function tensorBytes(values: Float32Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}

/** A whole file. The header is padded with spaces so that the data begins at a multiple of 8. */
export function encodeSafetensors({ tensors, metadata }: SafetensorsFile): Uint8Array {
  let end = 0;
  const entries = tensors.map(({ name, shape, values }) => {
    const offsets = [end, (end += values.byteLength)];
    return [name, { dtype: 'F32', shape, data_offsets: offsets }];
  });
  const json = JSON.stringify({
    __metadata__: { sha256: NO_CHECKSUM, ...metadata },
    ...Object.fromEntries(entries),
  });
  const header = Buffer.from(json.padEnd(json.length + (-Buffer.byteLength(json) & 7), ' '));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  const file = Buffer.concat([length, header, ...tensors.map(({ values }) => tensorBytes(values))]);
  file.write(sha256(file), CHECKSUM_AT);
  return file;
}

const offset = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const headerSchema = v.objectWithRest(
  { __metadata__: v.record(v.string(), v.string()) },
  v.strictObject({
    dtype: v.literal('F32'),
    shape: v.array(offset),
    data_offsets: v.tuple([offset, offset]),
  }),
);

/**
 * The content of a file of this project.
 * @throws LOCKSTEP_FILE_DAMAGED if a single bit of it is not as it was written
 */
export function decodeSafetensors(file: Uint8Array, path: string): SafetensorsFile {
  const damaged = (what: string): never => {
    throw new LockstepError('LOCKSTEP_FILE_DAMAGED', `${path} is damaged: ${what}.`);
  };
  const bytes = Buffer.from(file);
  const prefix = bytes.toString('latin1', 8, CHECKSUM_AT);
  if (prefix !== CHECKSUM_PREFIX) damaged('it does not begin with a checksum, as files of this program do');
  const stored = bytes.toString('latin1', CHECKSUM_AT, CHECKSUM_AT + NO_CHECKSUM.length);
  bytes.write(NO_CHECKSUM, CHECKSUM_AT);
  const computed = sha256(bytes);
  if (stored !== computed)
    damaged(`its ${bytes.length} bytes have SHA-256 ${computed}, and it says ${stored}`);
  const dataStart = 8 + Number(bytes.readBigUInt64LE());
  const header = v.safeParse(headerSchema, parseJson(bytes.toString('utf8', 8, dataStart)));
  if (!header.success) return damaged('its header is not as the format says');
  const { __metadata__, ...entries } = header.output;
  const { sha256: _, ...metadata } = __metadata__;
  const tensors = Object.entries(entries).map(
    ([
      name,
      {
        shape,
        data_offsets: [from, to],
      },
    ]) => {
      const size = shape.reduce((product, extent) => product * extent, 1);
      if (to - from !== 4 * size || dataStart + to > bytes.length)
        damaged(`tensor ${name} is not where it says`);
      // A copy of its own, at an address that a Float32Array takes.
      return {
        name,
        shape,
        values: new Float32Array(bytes.buffer.slice(...range(bytes, dataStart, from, to))),
      };
    },
  );
  return { metadata, tensors };
}

function range({ byteOffset }: Uint8Array, dataStart: number, from: number, to: number): [number, number] {
  return [byteOffset + dataStart + from, byteOffset + dataStart + to];
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

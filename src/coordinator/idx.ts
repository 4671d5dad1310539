// IDX files: images as unsigned bytes with three dimensions, labels with one; plain or gzipped.

import { readFileSync, statSync } from 'node:fs';
import { constants, gunzipSync, type ZlibOptions } from 'node:zlib';
import type { SetName } from '../shared/dataset.js';
import { LockstepError, messageOf } from '../shared/errors.js';

/** The two kinds of files, each with its magic number: two zero bytes, type 8 (unsigned byte), number of dimensions. */
const kinds = {
  images: { magic: 0x803, dimensions: 3 },
  labels: { magic: 0x801, dimensions: 1 },
} as const;

export type IdxKind = keyof typeof kinds;

/** The four files of a dataset. */
export type IdxPaths = Record<SetName, Record<IdxKind, string>>;

export interface IdxImages {
  readonly count: number;
  readonly height: number;
  readonly width: number;
  readonly bytes: Uint8Array;
}

/** Of a file, packed or not: Node reads no more at once. */
const MOST_FILE_BYTES = 2_147_483_647;
/** Packed bytes that surely hold the header. */
const PACKED_HEAD_BYTES = 4096;

/** @throws LOCKSTEP_DATA_MISSING, LOCKSTEP_MEMORY */
export function readDataFile(path: string): Uint8Array {
  try {
    const { size } = statSync(path);
    if (size > MOST_FILE_BYTES) throw tooLarge(path, size);
    return readFileSync(path);
  } catch (cause) {
    if (cause instanceof LockstepError) throw cause;
    throw new LockstepError('LOCKSTEP_DATA_MISSING', `Cannot read ${path}: ${messageOf(cause)}.`, { cause });
  }
}

/**
 * A file as it is when unpacked; whether it is packed, its first bytes say and not its name. Never unpacks more than the
 * header inside promises, so that a small file cannot fill the memory.
 * @throws LOCKSTEP_DATA_MISSING, LOCKSTEP_DATA_FORMAT, LOCKSTEP_MEMORY
 */
export function readIdxFile(path: string, kind: IdxKind): Uint8Array {
  const file = readDataFile(path);
  if (file[0] !== 0x1f || file[1] !== 0x8b) return file;
  const head = gunzip(file.subarray(0, PACKED_HEAD_BYTES), path, { finishFlush: constants.Z_SYNC_FLUSH });
  const { headerBytes, contentBytes } = readHeader(head, path, kind);
  const promisedBytes = headerBytes + contentBytes;
  if (promisedBytes > MOST_FILE_BYTES) throw tooLarge(path, promisedBytes);
  return gunzip(file, path, { maxOutputLength: promisedBytes });
}

function gunzip(packed: Uint8Array, path: string, options: ZlibOptions): Uint8Array {
  try {
    return gunzipSync(packed, options);
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause ? String(cause.code) : '';
    if (code === 'ERR_BUFFER_TOO_LARGE') {
      fail(path, `${options.maxOutputLength} bytes when unpacked, as its header says`, 'more');
    }
    if (!code.startsWith('Z_')) throw cause;
    throw new LockstepError(
      'LOCKSTEP_DATA_FORMAT',
      `${path}: expected gzip data that can be unpacked, found damage (${messageOf(cause)}): get the file again.`,
      { cause },
    );
  }
}

/** @throws LOCKSTEP_DATA_FORMAT naming the file, what was expected and what was found. */
export function parseIdxImages(file: Uint8Array, path: string): IdxImages {
  const { extents, bytes } = parse(file, path, 'images');
  const [count, height, width] = extents;
  return { count, height, width, bytes };
}

/** @throws LOCKSTEP_DATA_FORMAT naming the file, what was expected and what was found. */
export function parseIdxLabels(file: Uint8Array, path: string): Uint8Array {
  return parse(file, path, 'labels').bytes;
}

function parse(file: Uint8Array, path: string, kind: IdxKind): { extents: number[]; bytes: Uint8Array } {
  const { extents, headerBytes, contentBytes } = readHeader(file, path, kind);
  const found = file.length - headerBytes;
  if (found !== contentBytes) fail(path, `${contentBytes} bytes behind the header`, `${found}`);
  if (contentBytes === 0) fail(path, 'at least one item', 'none');
  return { extents, bytes: file.subarray(headerBytes) };
}

function readHeader(file: Uint8Array, path: string, kind: IdxKind) {
  const { magic, dimensions } = kinds[kind];
  const headerBytes = 4 + 4 * dimensions;
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  // First, so that a short file of the other kind is called what it is.
  const found = file.length >= 4 ? view.getUint32(0) : magic;
  if (found !== magic) fail(path, `magic number ${describe(magic)}`, describe(found));
  if (file.length < headerBytes)
    fail(path, `a header of ${headerBytes} bytes`, `${file.length} bytes in all`);
  const extents = Array.from({ length: dimensions }, (_, index) => view.getUint32(4 + 4 * index));
  return { extents, headerBytes, contentBytes: extents.reduce((product, extent) => product * extent, 1) };
}

function describe(magic: number): string {
  const kind = Object.entries(kinds).find(([, held]) => held.magic === magic)?.[0];
  return `0x${magic.toString(16)}${kind === undefined ? '' : ` (${kind})`}`;
}

/** @throws LOCKSTEP_DATA_FORMAT */
export function fail(path: string, expected: string, found: string): never {
  throw new LockstepError('LOCKSTEP_DATA_FORMAT', `${path}: expected ${expected}, found ${found}.`);
}

function tooLarge(path: string, bytes: number): LockstepError {
  return new LockstepError(
    'LOCKSTEP_MEMORY',
    `${path} holds ${bytes} bytes, and a data file may hold ${MOST_FILE_BYTES}: use fewer or smaller images.`,
  );
}

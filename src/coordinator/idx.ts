// IDX files: images as unsigned bytes with three dimensions, labels with one.

import { readFileSync } from 'node:fs';
import { LockstepError, messageOf } from '../shared/errors.js';

/** Magic numbers: two zero bytes, type 8 (unsigned byte), number of dimensions. */
const IMAGES_MAGIC = 0x803;
const LABELS_MAGIC = 0x801;

export interface IdxImages {
  readonly count: number;
  readonly height: number;
  readonly width: number;
  readonly bytes: Uint8Array;
}

/** @throws LOCKSTEP_DATA_MISSING */
export function readDataFile(path: string): Uint8Array {
  try {
    return readFileSync(path);
  } catch (cause) {
    throw new LockstepError('LOCKSTEP_DATA_MISSING', `Cannot read ${path}: ${messageOf(cause)}.`, { cause });
  }
}

/** @throws LOCKSTEP_DATA_FORMAT naming the file, what was expected and what was found. */
export function parseIdxImages(file: Uint8Array, path: string): IdxImages {
  const [count, height, width] = readHeader(file, path, IMAGES_MAGIC, 3);
  return { count, height, width, bytes: content(file, path, 16, count * height * width) };
}

/** @throws LOCKSTEP_DATA_FORMAT naming the file, what was expected and what was found. */
export function parseIdxLabels(file: Uint8Array, path: string): Uint8Array {
  const [count] = readHeader(file, path, LABELS_MAGIC, 1);
  return content(file, path, 8, count);
}

function readHeader(file: Uint8Array, path: string, magic: number, dimensions: number): number[] {
  const headerBytes = 4 + 4 * dimensions;
  if (file.length < headerBytes)
    fail(path, `a header of ${headerBytes} bytes`, `${file.length} bytes in all`);
  const view = new DataView(file.buffer, file.byteOffset, headerBytes);
  const found = view.getUint32(0);
  if (found !== magic) fail(path, `magic number 0x${magic.toString(16)}`, `0x${found.toString(16)}`);
  return Array.from({ length: dimensions }, (_, index) => view.getUint32(4 + 4 * index));
}

function content(file: Uint8Array, path: string, headerBytes: number, expectedBytes: number): Uint8Array {
  const found = file.length - headerBytes;
  if (found !== expectedBytes) fail(path, `${expectedBytes} bytes behind the header`, `${found}`);
  if (expectedBytes === 0) fail(path, 'at least one item', 'none');
  return file.subarray(headerBytes);
}

function fail(path: string, expected: string, found: string): never {
  throw new LockstepError('LOCKSTEP_DATA_FORMAT', `${path}: expected ${expected}, found ${found}.`);
}

// Files of lines in a run folder.

import { closeSync, openSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { StringDecoder } from 'node:string_decoder';
import { messageOf } from '../shared/errors.js';
import { damaged } from './stored-run.js';

/** @throws LOCKSTEP_FILE_DAMAGED where `read` throws what the file system says */
export function reading<T>(dir: string, name: string, read: (path: string) => T): T {
  try {
    return read(join(dir, name));
  } catch (error) {
    throw damaged(dir, name, messageOf(error));
  }
}

/**
 * The lines of a file that have an end: a process may be killed in the middle of one. Read in pieces, since the file of a
 * long run exceeds what a string can hold.
 * @throws LOCKSTEP_FILE_DAMAGED if it cannot be read
 */
export function* wholeLines(dir: string, name: string): Generator<string, undefined> {
  const piece = Buffer.alloc(1_048_576);
  const decoder = new StringDecoder('utf8');
  let rest = '';
  const descriptor = reading(dir, name, path => openSync(path, 'r'));
  try {
    for (;;) {
      const length = reading(dir, name, () => readSync(descriptor, piece));
      if (length === 0) return undefined;
      const lines = (rest + decoder.write(piece.subarray(0, length))).split('\n');
      rest = lines.pop()!;
      yield* lines;
    }
  } finally {
    closeSync(descriptor);
  }
}

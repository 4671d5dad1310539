// The file that a join line is written to, where nobody is to see it on a terminal.

import { lstatSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { LockstepError, messageOf } from '../shared/errors.js';
import { makeFolder } from './disk.js';
import { requireOutside, writeSecret } from './key-file.js';

/**
 * Under its name it is whole, and only its owner may read it.
 * @throws LOCKSTEP_KEY_FILE
 */
export function writeJoinFile(file: string, runDir: string, line: string): void {
  const path = resolve(file);
  try {
    makeFolder(dirname(path));
    requireOutside(runDir, path, 'join');
    // Renaming over a device or a link would do away with it.
    if (lstatSync(path, { throwIfNoEntry: false })?.isFile() === false)
      throw new Error('it is no regular file');
    writeSecret(path, line, true);
  } catch (cause) {
    if (cause instanceof LockstepError) throw cause;
    const text = `Cannot write the join file ${path}: ${messageOf(cause)}. Name another with --join-file.`;
    throw new LockstepError('LOCKSTEP_KEY_FILE', text, { cause });
  }
}

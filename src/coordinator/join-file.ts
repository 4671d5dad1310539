// The file that a join line is written to, where nobody is to see it on a terminal.

import { closeSync, fsyncSync, openSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { LockstepError, messageOf } from '../shared/errors.js';
import { makeFolder, syncFolder } from './disk.js';
import { requireOutside } from './key-file.js';

/**
 * Under its name it is whole, and only its owner may read it.
 * @throws LOCKSTEP_KEY_FILE
 */
export function writeJoinFile(file: string, runDir: string, line: string): void {
  const path = resolve(file);
  const part = `${path}.${process.pid}.part`;
  try {
    makeFolder(dirname(path));
    requireOutside(runDir, path, 'join');
    rmSync(part, { force: true });
    const descriptor = openSync(part, 'wx', 0o600);
    try {
      writeFileSync(descriptor, `${line}\n`);
      fsyncSync(descriptor);
    } finally {
      closeSync(descriptor);
    }
    renameSync(part, path);
    syncFolder(dirname(path));
  } catch (cause) {
    rmSync(part, { force: true });
    if (cause instanceof LockstepError) throw cause;
    const text = `Cannot write the join file ${path}: ${messageOf(cause)}. Name another with --join-file.`;
    throw new LockstepError('LOCKSTEP_KEY_FILE', text, { cause });
  }
}

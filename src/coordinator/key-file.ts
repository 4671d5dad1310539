// The file of a run's key. It outlives the coordinator, so that agents find it again when the run is resumed, and lies
// outside the run folder, which people copy and share.

import { createHash } from 'node:crypto';
import {
  closeSync,
  constants,
  existsSync,
  fstatSync,
  fsyncSync,
  linkSync,
  openSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { homedir } from 'node:os';
import { basename, dirname, isAbsolute, join, relative, resolve, sep } from 'node:path';
import * as v from 'valibot';
import { LockstepError, messageOf } from '../shared/errors.js';
import { SECRET_BYTES } from '../shared/handshake.js';
import { hex256, hex64 } from '../shared/hash.js';
import type { Key } from '../shared/join.js';
import type { RandomBytes } from '../shared/random.js';
import { userFolder } from '../shared/user-folder.js';
import { existingFolder, makeFolder, syncFolder } from './disk.js';

const keySchema = v.strictObject({
  id: v.pipe(v.string(), v.regex(hex64)),
  secret: v.pipe(v.string(), v.regex(hex256)),
});
/** A key file has about 110. */
const MOST_FILE_BYTES = 4096;

export interface KeyFileOptions {
  /** By default a file in the user's state folder, one for each run folder. */
  readonly keyFile?: string | undefined;
  /** Must be there. */
  readonly runDir: string;
  /** Whether agents may have the key already: the file of a new run is a new one, unless `keyFile` names it. */
  readonly isResumed: boolean;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly random: RandomBytes;
}

export interface RunKey {
  readonly key: Key;
  readonly path: string;
  /** Whether it was made here. */
  readonly isNew: boolean;
  /**
   * Writes a key that is new to its file, whole or not at all.
   * @throws LOCKSTEP_KEY_FILE
   */
  save(): void;
  /** Takes back what `save` has written. */
  remove(): void;
}

/**
 * The run's key; a new one, to be saved once the run listens, where there is none that it should have.
 * @throws LOCKSTEP_KEY_FILE
 */
export function runKey(options: KeyFileOptions): RunKey {
  const { keyFile, runDir, isResumed, random } = options;
  const path = resolve(keyFile ?? defaultPath(options));
  // A run in the same folder before this one may have had a file of the same name.
  const isReplaced = keyFile === undefined && !isResumed;
  const known = guarded(path, () => {
    requireOutside(runDir, path);
    return isReplaced ? undefined : readKey(path);
  });
  const key = known ?? { id: hexOf(random(8)), secret: random(SECRET_BYTES) };
  let isWritten = false;
  return {
    key,
    path,
    isNew: known === undefined,
    save() {
      if (known) return;
      const text = JSON.stringify({ id: key.id, secret: hexOf(key.secret) });
      guarded(path, () => {
        makeFolder(dirname(path), 0o700);
        writeSecret(path, text, isReplaced);
      });
      isWritten = true;
    },
    remove() {
      if (isWritten) rmSync(path, { force: true });
    },
  };
}

function guarded<T>(path: string, work: () => T): T {
  try {
    return work();
  } catch (cause) {
    if (cause instanceof LockstepError) throw cause;
    throw keyFileError(
      `Cannot use the key file ${path}: ${messageOf(cause)}. Name another with --key-file.`,
      cause,
    );
  }
}

/**
 * Writes a line to a file that only its owner may read and that is whole under its name.
 * @throws what the file system says, EEXIST where the file is there and not to be replaced
 */
export function writeSecret(path: string, line: string, isReplaced: boolean): void {
  const part = `${path}.${process.pid}.part`;
  try {
    rmSync(part, { force: true });
    const descriptor = openSync(part, 'wx', 0o600);
    try {
      writeFileSync(descriptor, `${line}\n`);
      fsyncSync(descriptor);
    } finally {
      closeSync(descriptor);
    }
    if (isReplaced) renameSync(part, path);
    else linkSync(part, path);
    syncFolder(dirname(path));
  } finally {
    rmSync(part, { force: true });
  }
}

function defaultPath({ runDir, env }: KeyFileOptions): string {
  const state = userFolder(env, 'XDG_STATE_HOME') ?? join(homedir(), '.local', 'state');
  const name = createHash('sha256').update(realpathSync(runDir)).digest('hex').slice(0, 16);
  return join(state, 'lockstep', 'keys', `${name}.json`);
}

/**
 * Whatever links lead there.
 * @throws LOCKSTEP_KEY_FILE
 */
export function requireOutside(runDir: string, path: string, kind: 'key' | 'join' = 'key'): void {
  const from = relative(realpathSync(runDir), realPath(path));
  const isOutside = from === '..' || from.startsWith(`..${sep}`) || isAbsolute(from);
  if (isOutside) return;
  throw keyFileError(
    `The ${kind} file ${path} lies in the run folder, which people copy and share. Name a file elsewhere with ` +
      `--${kind}-file.`,
  );
}

/** Of a file that may not be there yet, in a folder that may not be there yet. */
function realPath(path: string): string {
  if (existsSync(path)) return realpathSync(path);
  const existing = existingFolder(dirname(path));
  return join(realpathSync(existing), relative(existing, dirname(path)), basename(path));
}

function readKey(path: string): Key | undefined {
  if (!existsSync(path)) return undefined;
  // Without O_NONBLOCK, opening a pipe would wait for ever.
  const descriptor = openSync(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0));
  try {
    const stats = fstatSync(descriptor);
    if (!stats.isFile() || stats.size > MOST_FILE_BYTES) throw damaged(path);
    // Windows has no such mode.
    if (process.platform !== 'win32' && (stats.mode & 0o077) !== 0) {
      throw keyFileError(
        `Other users may read or change the key file ${path}. Remove it to get a new key; if you are sure that nobody ` +
          `has, run chmod 600 ${path}.`,
      );
    }
    return parseKey(readFileSync(descriptor, 'utf8'), path);
  } finally {
    closeSync(descriptor);
  }
}

/** No error tells of the content: it is a secret. */
function parseKey(text: string, path: string): Key {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw damaged(path);
  }
  const parsed = v.safeParse(keySchema, value);
  if (!parsed.success) throw damaged(path);
  const { id, secret } = parsed.output;
  return { id, secret: Buffer.from(secret, 'hex') };
}

function hexOf(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}

function damaged(path: string): LockstepError {
  return keyFileError(
    `${path} is no whole key file. Remove it to get a new key, or name another with --key-file.`,
  );
}

function keyFileError(message: string, cause?: unknown): LockstepError {
  return new LockstepError('LOCKSTEP_KEY_FILE', message, { cause });
}

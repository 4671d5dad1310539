// The shard cache: a folder of files named by their SHA-256, bounded in size, shared by all agents of a machine.
//
// A file is written under another name and renamed, and verified whenever it is read, so nobody has to be locked out:
// what two processes do at once is at worst done twice. Which files were used last, their modification times say. A
// cache is never worth an agent: where the folder cannot be used, shards are fetched, and one warning says so.

import { constants } from 'node:fs';
import { mkdir, open, readdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { messageOf } from '../shared/errors.js';
import { hex256, sha256 as digestOf } from '../shared/hash.js';

/** Where an agent keeps shards. Neither call rejects. */
export interface ShardCache {
  /** The bytes with this SHA-256, verified; undefined where they are not kept. */
  get(sha256: string): Promise<Uint8Array | undefined>;
  put(sha256: string, bytes: Uint8Array): Promise<void>;
}

export const DEFAULT_CACHE_BYTES = 1_073_741_824;

/** More than any shard has; what is larger was put there by somebody else. */
const MOST_SHARD_BYTES = 1_073_741_824;

/** One that is being written, or was when its process was killed. */
const partName = /^[0-9a-f]{64}\.\d+-\d+\.part$/;

export interface ShardCacheOptions {
  /** Of all files together. */
  readonly maxBytes: number;
  /** Called at most once. */
  readonly onWarning: (message: string) => void;
}

/** Of this process: several caches may be open on one folder. */
let partsBegun = 0;

export function openShardCache(folder: string, { maxBytes, onWarning }: ShardCacheOptions): ShardCache {
  let hasWarned = false;

  const warn = (error: unknown): void => {
    if (hasWarned) return;
    hasWarned = true;
    onWarning(
      `The shard cache ${folder} cannot be used (${messageOf(error)}): shards will be fetched again next time.`,
    );
  };

  const write = async (sha256: string, bytes: Uint8Array): Promise<void> => {
    const path = join(folder, sha256);
    const part = `${path}.${process.pid}-${partsBegun++}.part`;
    try {
      await makeFolder(folder);
      await writeFile(part, bytes, { mode: 0o600, flag: 'wx' });
      await rename(part, path).catch((error: unknown) => {
        // Another process has made room with it: times are coarse, so the newest file may look like the oldest.
        if (!isAbsent(error)) throw error;
      });
      await evict(folder, maxBytes);
    } catch (error) {
      await rm(part, { force: true }).catch(() => {});
      warn(error);
    }
  };

  return {
    async get(sha256) {
      const path = join(folder, sha256);
      try {
        const bytes = await readAndTouch(path);
        if (digestOf(bytes) === sha256) return bytes;
        await rm(path, { force: true });
      } catch (error) {
        if (!isAbsent(error)) warn(error);
      }
      return undefined;
    },
    async put(sha256, bytes) {
      if (bytes.length <= maxBytes) await write(sha256, bytes);
    },
  };
}

/** With all above it. `recursive` would do, but on Node 20 it never returns where /proc refuses a folder. */
async function makeFolder(dir: string): Promise<void> {
  try {
    await mkdir(dir, { mode: 0o700 });
  } catch (error) {
    if (hasCode(error, 'EEXIST')) return;
    if (!isAbsent(error) || dirname(dir) === dir || (await isFolder(dirname(dir)))) throw error;
    await makeFolder(dirname(dir));
    await makeFolder(dir);
  }
}

async function isFolder(dir: string): Promise<boolean> {
  return stat(dir).then(
    stats => stats.isDirectory(),
    () => false,
  );
}

/** Marks the file as used now, where it may be written: its last byte is written over itself. */
async function readAndTouch(path: string): Promise<Uint8Array> {
  // Without O_NONBLOCK, opening a pipe would wait for ever.
  const { O_RDWR, O_RDONLY, O_NONBLOCK } = constants;
  const file = await open(path, O_RDWR | O_NONBLOCK).catch(async (error: unknown) => {
    if (isAbsent(error)) throw error;
    return open(path, O_RDONLY | O_NONBLOCK);
  });
  try {
    const stats = await file.stat();
    if (!stats.isFile() || stats.size > MOST_SHARD_BYTES) throw new Error(`${path} is no shard`);
    const bytes = await file.readFile();
    await file.write(bytes, bytes.length - 1, 1, bytes.length - 1).catch(() => {});
    return bytes;
  } finally {
    await file.close();
  }
}

/** Removes those that were used longest ago until the rest fits. Files of others are left alone and not counted. */
async function evict(folder: string, maxBytes: number): Promise<void> {
  const names = (await readdir(folder)).filter(name => hex256.test(name) || partName.test(name));
  const files = (await Promise.all(names.map(name => sizeAndTime(join(folder, name))))).flat();
  let total = files.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  files.sort((a, b) => a.usedMs - b.usedMs || (a.path < b.path ? -1 : 1));
  for (const { path, sizeBytes } of files) {
    if (total <= maxBytes) return;
    await rm(path, { force: true });
    total -= sizeBytes;
  }
}

/** Empty where another process has removed it. */
async function sizeAndTime(path: string) {
  try {
    const { size, mtimeMs } = await stat(path);
    return [{ path, sizeBytes: size, usedMs: mtimeMs }];
  } catch (error) {
    if (isAbsent(error)) return [];
    throw error;
  }
}

function isAbsent(error: unknown): boolean {
  return hasCode(error, 'ENOENT');
}

function hasCode(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code;
}

// The disk under a folder: how much is free, whether it can be written, what a path leads to, and making folders.

import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  rmSync,
  statfsSync,
  statSync,
  writeFileSync,
  type Stats,
} from 'node:fs';
import { dirname, join, resolve } from 'node:path';

export function freeBytesOf(dir: string): number {
  const { bavail, bsize } = statfsSync(dir);
  return bavail * bsize;
}

/** `dir`, or the nearest folder above it that is there: where it would be made. */
export function existingFolder(dir: string): string {
  const path = resolve(dir);
  return existsSync(path) || dirname(path) === path ? path : existingFolder(dirname(path));
}

/** What `path` leads to; undefined where that cannot be told: nothing, a loop of links, a folder that is closed. */
export function statsOf(path: string): Stats | undefined {
  try {
    return statSync(path);
  } catch {
    return undefined;
  }
}

/**
 * Makes a folder with a file, and removes both: permissions alone do not tell whether that works.
 * @throws what the file system says
 */
export function tryToWrite(dir: string): void {
  const made = mkdtempSync(join(dir, '.lockstep-'));
  try {
    writeFileSync(join(made, 'file'), 'x');
  } finally {
    rmSync(made, { recursive: true, force: true });
  }
}

/**
 * With all folders above it; whether it was made here. `recursive` would do, but on Node 20 it never returns where
 * /proc refuses a folder.
 */
export function makeFolder(dir: string, mode = 0o777): boolean {
  if (existsSync(dir)) return false;
  makeFolder(dirname(dir), mode);
  try {
    mkdirSync(dir, { mode });
  } catch (error) {
    // Another process may have made it since.
    if (existsSync(dir)) return false;
    throw error;
  }
  syncFolder(dirname(dir));
  return true;
}

/** So that a rename survives a loss of power. Windows has no such call, and keeps names by itself. */
export function syncFolder(dir: string): void {
  if (process.platform === 'win32') return;
  const descriptor = openSync(dir, 'r');
  try {
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

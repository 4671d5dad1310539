// The disk under a folder: how much is free, whether it can be written, and what a path leads to.

import { existsSync, mkdtempSync, rmSync, statfsSync, statSync, writeFileSync, type Stats } from 'node:fs';
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

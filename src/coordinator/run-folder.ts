// The folder of a run: config.json, metrics.jsonl, hashes.txt and weights.safetensors.

import { closeSync, existsSync, mkdirSync, openSync, readdirSync, renameSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { LockstepError, messageOf } from '../shared/errors.js';

export class RunFolder {
  readonly dir: string;
  readonly #metrics: number;
  readonly #hashes: number;

  private constructor(dir: string, config: unknown) {
    this.dir = dir;
    writeFileSync(join(dir, 'config.json'), `${JSON.stringify(config, null, 2)}\n`, { flag: 'wx' });
    this.#metrics = openSync(join(dir, 'metrics.jsonl'), 'wx');
    this.#hashes = openSync(join(dir, 'hashes.txt'), 'wx');
  }

  /**
   * Makes `dir`, or `runs/<name>-<n>` with the first free n, and writes the config there.
   * @throws LOCKSTEP_RUN_EXISTS if `dir` holds anything, LOCKSTEP_RUN_FOLDER if it cannot be written.
   */
  static create(dir: string | undefined, name: string, config: unknown): RunFolder {
    if (dir !== undefined && existsSync(dir) && explain(dir, () => readdirSync(dir)).length > 0) {
      throw new LockstepError(
        'LOCKSTEP_RUN_EXISTS',
        `${resolve(dir)} already holds files: name another folder with --out, or remove it.`,
      );
    }
    const made = dir ?? nextFolder(name);
    return explain(made, () => {
      makeFolder(resolve(made));
      return new RunFolder(resolve(made), config);
    });
  }

  /** Appends objects to metrics.jsonl, a line each. */
  recordMetrics(lines: readonly object[]): void {
    this.#append(this.#metrics, lines.map(line => `${JSON.stringify(line)}\n`).join(''));
  }

  /** Appends to hashes.txt, whose line k is the hash after step k. */
  recordHashes(hashes: readonly string[]): void {
    this.#append(this.#hashes, hashes.map(hash => `${hash}\n`).join(''));
  }

  /** Under its name the file is whole or absent. */
  saveWeights(file: Uint8Array): void {
    const path = join(this.dir, 'weights.safetensors');
    explain(this.dir, () => {
      writeFileSync(`${path}.part`, file);
      renameSync(`${path}.part`, path);
    });
  }

  close(): void {
    closeSync(this.#metrics);
    closeSync(this.#hashes);
  }

  #append(descriptor: number, text: string): void {
    explain(this.dir, () => writeFileSync(descriptor, text));
  }
}

/** `runs/<name>-<n>`: mkdir without `recursive` fails on a folder that another process has just made. */
function nextFolder(name: string): string {
  for (let n = 1; ; n++) {
    const dir = join('runs', `${name}-${n}`);
    if (existsSync(dir)) continue;
    try {
      makeFolder(resolve('runs'));
      mkdirSync(dir);
      return dir;
    } catch (error) {
      if (existsSync(dir)) continue;
      throw folderError(dir, error);
    }
  }
}

/** With all folders above it. `recursive` would do, but on Node 20 it never returns where /proc refuses a folder. */
function makeFolder(dir: string): void {
  if (existsSync(dir)) return;
  makeFolder(dirname(dir));
  mkdirSync(dir);
}

function explain<T>(dir: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw folderError(dir, error);
  }
}

function folderError(dir: string, cause: unknown): LockstepError {
  return new LockstepError(
    'LOCKSTEP_RUN_FOLDER',
    `Cannot write the run folder ${resolve(dir)}: ${messageOf(cause)}. Name another with --out.`,
    { cause },
  );
}

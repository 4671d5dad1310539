// The folder of a run: config.json, metrics.jsonl, hashes.txt, events.jsonl, checkpoints/ and weights.safetensors; where the
// run began with the weights of a file, initial-weights.safetensors.
//
// A file that must be whole is written under another name, synced and renamed. metrics.jsonl and hashes.txt grow; they
// are synced before every checkpoint, so what a checkpoint follows from is always there, and what lies behind it
// is cut off when the run is resumed.

import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { open, rename, rm } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { LockstepError, messageOf } from '../shared/errors.js';
import { integer } from '../shared/format.js';
import type { RunEvent } from '../shared/events.js';
import { formatHash } from '../shared/hash.js';
import type { MetricLine } from '../shared/metrics.js';
import type { Job } from '../shared/settings.js';
import { beginning, decodeCheckpoint, type TrainingState } from './checkpoint.js';
import { freeBytesOf, makeFolder, syncFolder } from './disk.js';
import { EventFile, EVENTS_FILE } from './event-file.js';
import { lockFolder } from './folder-lock.js';
import { HASH_LINE_BYTES, requireRun } from './stored-run.js';

const CHECKPOINTS_KEPT = 3;
export const CHECKPOINTS_DIR = 'checkpoints';
export const WEIGHTS_FILE = 'weights.safetensors';
/** What resumed runs begin with that have no checkpoint yet, whatever became of the model's file. */
export const INITIAL_WEIGHTS_FILE = 'initial-weights.safetensors';
const checkpointName = /^step-(\d+)\.safetensors$/;

export class RunFolder {
  readonly dir: string;
  readonly #metrics: number;
  readonly #hashes: number;
  readonly #events: EventFile;
  readonly #unlock: () => void;
  #isClosed = false;
  /** It was made for this run. */
  readonly #isMade: boolean;

  /** Takes the lock over, and gives it back if it throws. */
  private constructor(dir: string, unlock: () => void, isMade: boolean) {
    this.dir = dir;
    this.#unlock = unlock;
    this.#isMade = isMade;
    const opened: number[] = [];
    try {
      makeFolder(join(dir, CHECKPOINTS_DIR));
      for (const name of ['metrics.jsonl', 'hashes.txt']) opened.push(openSync(join(dir, name), 'a'));
      this.#events = new EventFile(dir);
    } catch (error) {
      for (const descriptor of opened) closeSync(descriptor);
      unlock();
      throw error;
    }
    [this.#metrics, this.#hashes] = opened;
  }

  /**
   * Makes `dir`, or `runs/<name>-<n>` with the first free n, and writes the config there. Before the config there are only
   * the lock and the initial weights, which a new start replaces, so whatever a process leaves that is killed in here can be
   * begun again, or resumed.
   * @throws LOCKSTEP_RUN_EXISTS if `dir` holds anything, LOCKSTEP_RUN_FOLDER if it cannot be written.
   */
  static create(
    dir: string | undefined,
    name: string,
    config: unknown,
    initialWeights?: Uint8Array,
  ): RunFolder {
    return explain(dir ?? 'runs', () => {
      const path = resolve(dir ?? nextFolder(name));
      const isMade = makeFolder(path) || dir === undefined;
      if (readdirSync(path).some(isForeign)) throw holdsFiles(path);
      const unlock = lockFolder(path);
      try {
        if (readdirSync(path).some(isForeign)) throw holdsFiles(path);
        if (initialWeights) replaceFile(join(path, INITIAL_WEIGHTS_FILE), initialWeights);
        writeConfigFile(path, config);
      } catch (error) {
        rmSync(join(path, INITIAL_WEIGHTS_FILE), { force: true });
        unlock();
        if (isMade) removeEmpty(path);
        throw error;
      }
      return new RunFolder(path, unlock, isMade);
    });
  }

  /**
   * Takes the folder of an earlier run.
   * @throws LOCKSTEP_RUN_MISSING, LOCKSTEP_RUN_LOCKED, LOCKSTEP_RUN_FOLDER
   */
  static reopen(dir: string): RunFolder {
    requireRun(dir);
    return explain(dir, () => {
      const path = resolve(dir);
      const unlock = lockFolder(path);
      for (const name of partsIn(path)) rmSync(join(path, name), { force: true });
      return new RunFolder(path, unlock, false);
    });
  }

  writeConfig(config: unknown): void {
    explain(this.dir, () => writeConfigFile(this.dir, config));
  }

  /** @throws LOCKSTEP_RUN_FOLDER if the disk has no room for the checkpoints to come, and as much again */
  checkSpace(checkpointBytes: number): void {
    const toCome = Math.max(1, CHECKPOINTS_KEPT + 1 - checkpointsIn(this.dir).length);
    const neededBytes = (toCome + 1) * checkpointBytes;
    const freeBytes = explain(this.dir, () => freeBytesOf(this.dir));
    if (freeBytes < neededBytes) {
      throw new LockstepError(
        'LOCKSTEP_RUN_FOLDER',
        `The disk of the run folder ${this.dir} has ${kibibytes(freeBytes)} free, and checkpoints need ` +
          `${kibibytes(neededBytes)}: free some space, or name another folder with --out.`,
      );
    }
  }

  /**
   * The newest checkpoint that is whole and agrees with hashes.txt, or the beginning if there never was one. What was
   * written after it is cut off: its steps will be done again. Newer ones, which cannot be used, get the ending `.unused`.
   * @throws LOCKSTEP_FILE_DAMAGED if there are checkpoints and none can be used
   */
  restore(job: Job, onDamaged: (message: string) => void): TrainingState {
    const dir = join(this.dir, CHECKPOINTS_DIR);
    const problems: string[] = [];
    const candidates = checkpointsIn(this.dir);
    const newestStep = candidates.length > 0 ? stepOf(candidates[0]) : 0;
    if (newestStep > job.totalSteps) {
      throw new LockstepError(
        'LOCKSTEP_RESUME_SETTING',
        `The run has done ${newestStep} steps already, and these settings make ${job.totalSteps}: raise epochs or maxSteps.`,
      );
    }
    for (const name of candidates) {
      const path = join(dir, name);
      try {
        const state = decodeCheckpoint(job, readCheckpoint(path), path);
        this.#cut(state);
        for (const [index, problem] of problems.entries()) {
          const unused = join(dir, candidates[index]);
          explain(this.dir, () => renameSync(unused, `${unused}.unused`));
          onDamaged(`${problem} An older checkpoint is used, and ${candidates[index]} is kept as .unused.`);
        }
        return state;
      } catch (error) {
        if (!(error instanceof LockstepError && error.code === 'LOCKSTEP_FILE_DAMAGED')) throw error;
        problems.push(error.message);
      }
    }
    if (problems.length > 0) {
      throw new LockstepError(
        'LOCKSTEP_FILE_DAMAGED',
        `No checkpoint of ${this.dir} can be used. ${problems.join(' ')} Remove its folder ${CHECKPOINTS_DIR} to begin the run again.`,
      );
    }
    const state = beginning(job);
    this.#cut(state);
    return state;
  }

  /** Appends objects to metrics.jsonl, a line each. */
  recordMetrics(lines: readonly MetricLine[]): void {
    this.#append(this.#metrics, lines.map(line => `${JSON.stringify(line)}\n`).join(''));
  }

  /** Appends to hashes.txt, whose line k is the hash after step k. */
  recordHashes(hashes: readonly string[]): void {
    this.#append(this.#hashes, hashes.map(hash => `${hash}\n`).join(''));
  }

  /** Appends to events.jsonl what is to be kept there. Never throws, and does nothing once the folder is closed. */
  recordEvent(event: RunEvent): void {
    this.#events.record(event);
  }

  /** Keeps a checkpoint, and of the older ones the newest. Gives its name in the folder. */
  async saveCheckpoint(step: number, file: Uint8Array): Promise<string> {
    const name = `step-${String(step).padStart(9, '0')}.safetensors`;
    const dir = join(this.dir, CHECKPOINTS_DIR);
    const path = join(dir, name);
    const part = `${path}.part`;
    try {
      fsyncSync(this.#metrics);
      fsyncSync(this.#hashes);
      const handle = await open(part, 'w');
      try {
        await handle.writeFile(file);
        await handle.sync();
      } finally {
        await handle.close();
      }
      await rename(part, path);
      syncFolder(dir);
      for (const old of checkpointsIn(this.dir).slice(CHECKPOINTS_KEPT)) await rm(join(dir, old));
    } catch (error) {
      await rm(part, { force: true });
      throw folderError(this.dir, error);
    }
    return `${CHECKPOINTS_DIR}/${name}`;
  }

  /** Under its name the file is whole or absent. */
  saveWeights(file: Uint8Array): void {
    explain(this.dir, () => replaceFile(join(this.dir, WEIGHTS_FILE), file));
  }

  /** May be called again, also after `abandon`. */
  close(): void {
    // The second time the lock may be that of somebody else.
    if (this.#isClosed) return;
    this.#isClosed = true;
    try {
      closeSync(this.#metrics);
      closeSync(this.#hashes);
    } finally {
      this.#unlock();
      this.#events.close();
    }
  }

  /** Leaves nothing behind of a new run that could not begin. */
  abandon(): void {
    this.close();
    for (const name of [
      'config.json',
      INITIAL_WEIGHTS_FILE,
      'metrics.jsonl',
      'hashes.txt',
      EVENTS_FILE,
      CHECKPOINTS_DIR,
    ]) {
      rmSync(join(this.dir, name), { recursive: true, force: true });
    }
    if (this.#isMade) removeEmpty(this.dir);
  }

  /**
   * Ends hashes.txt and metrics.jsonl with the last step of `state`; its evaluation is done again.
   * @throws LOCKSTEP_FILE_DAMAGED if they do not reach so far, or have another hash
   */
  #cut({ step, hash }: TrainingState): void {
    const fail = (file: string, what: string): never => {
      throw new LockstepError('LOCKSTEP_FILE_DAMAGED', `${join(this.dir, file)} ${what}.`);
    };
    const hashes = explain(this.dir, () => readFileSync(join(this.dir, 'hashes.txt')));
    const hashesEnd = step * HASH_LINE_BYTES;
    if (step > 0) {
      const line = hashes.toString('latin1', hashesEnd - HASH_LINE_BYTES, hashesEnd);
      if (line !== `${formatHash(hash)}\n`)
        fail('hashes.txt', `has not the hash of step ${step} in its line ${step}`);
    }
    const metrics = explain(this.dir, () => readFileSync(join(this.dir, 'metrics.jsonl')));
    const { end, steps } = metricsUpTo(metrics, step);
    if (steps !== step) fail('metrics.jsonl', `has ${steps} of the first ${step} steps`);
    explain(this.dir, () => {
      truncateSync(join(this.dir, 'hashes.txt'), hashesEnd);
      truncateSync(join(this.dir, 'metrics.jsonl'), end);
    });
  }

  #append(descriptor: number, text: string): void {
    explain(this.dir, () => writeFileSync(descriptor, text));
  }
}

/** Names of the run's checkpoints, newest first. */
export function checkpointsIn(dir: string): string[] {
  const names = readdirSync(join(dir, CHECKPOINTS_DIR)).filter(name => checkpointName.test(name));
  return names.toSorted((a, b) => stepOf(b) - stepOf(a));
}

function readCheckpoint(path: string): Uint8Array {
  try {
    return readFileSync(path);
  } catch (cause) {
    throw new LockstepError('LOCKSTEP_FILE_DAMAGED', `${path} cannot be read: ${messageOf(cause)}.`, {
      cause,
    });
  }
}

/** Where the lines end that lie before the evaluation after `step`, and how many of them are steps. */
function metricsUpTo(file: Buffer, step: number): { end: number; steps: number } {
  let end = 0;
  let steps = 0;
  for (let next = file.indexOf('\n') + 1; next > 0; next = file.indexOf('\n', end) + 1) {
    const line = parseMetric(file.toString('utf8', end, next));
    if (!line) break;
    if (line.type === 'step' ? line.step > step : line.step >= step) break;
    if (line.type === 'step') steps++;
    end = next;
  }
  return { end, steps };
}

function parseMetric(line: string): { type: string; step: number } | null | undefined {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}

function kibibytes(bytes: number): string {
  return `${integer(bytes / 1024)} KiB`;
}

/** Of a checkpoint, by its name. */
export function stepOf(name: string): number {
  return Number(checkpointName.exec(name)![1]);
}

/** Files that were being written when a process was killed. */
function partsIn(dir: string): string[] {
  const own = /^(config\.json|(initial-)?weights\.safetensors|step-\d+\.safetensors)\.part$/;
  return ['.', CHECKPOINTS_DIR]
    .filter(folder => existsSync(join(dir, folder)))
    .flatMap(folder => readdirSync(join(dir, folder)).map(name => join(folder, name)))
    .filter(name => own.test(basename(name)));
}

/** Not what a start that was killed leaves behind: a lock, initial weights, parts of files. */
export function isForeign(name: string): boolean {
  return !/^(lock-\d+|lock\.\d+\.part|config\.json\.part|initial-weights\.safetensors(\.part)?)$/.test(name);
}

function holdsFiles(dir: string): LockstepError {
  return new LockstepError(
    'LOCKSTEP_RUN_EXISTS',
    `${dir} already holds files: name another folder with --out, go on with its run with --resume, or remove it.`,
  );
}

/** `runs/<name>-<n>`: mkdir without `recursive` fails on a folder that another process has just made. */
function nextFolder(name: string): string {
  makeFolder(resolve('runs'));
  for (let n = 1; ; n++) {
    const dir = join('runs', `${name}-${n}`);
    if (existsSync(dir)) continue;
    try {
      mkdirSync(dir);
      syncFolder('runs');
      return dir;
    } catch (error) {
      if (!existsSync(dir)) throw error;
    }
  }
}

function removeEmpty(dir: string): void {
  try {
    rmdirSync(dir);
  } catch {
    // Somebody else has put something there meanwhile.
  }
}

function writeConfigFile(dir: string, config: unknown): void {
  replaceFile(join(dir, 'config.json'), `${JSON.stringify(config, null, 2)}\n`);
}

/** Under its name the file is, at any moment, whole: the old one or the new one. */
export function replaceFile(path: string, content: string | Uint8Array): void {
  const part = `${path}.part`;
  const descriptor = openSync(part, 'w');
  try {
    writeFileSync(descriptor, content);
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
  renameSync(part, path);
  syncFolder(dirname(path));
}

const folders = {
  run: { name: 'the run folder', goOn: 'resume the run' },
  study: { name: "the study's folder", goOn: 'give the same command again' },
};

/** Does what writes a folder that --out names. @throws LOCKSTEP_RUN_FOLDER for what the file system says */
export function explain<T>(dir: string, work: () => T, whose: keyof typeof folders = 'run'): T {
  try {
    return work();
  } catch (error) {
    throw error instanceof LockstepError ? error : folderError(dir, error, whose);
  }
}

function folderError(dir: string, cause: unknown, whose: keyof typeof folders = 'run'): LockstepError {
  const { name, goOn } = folders[whose];
  const isFull = cause instanceof Error && 'code' in cause && cause.code === 'ENOSPC';
  const advice = isFull ? `Free some space, and ${goOn}.` : 'Make it writable, or name another with --out.';
  return new LockstepError(
    'LOCKSTEP_RUN_FOLDER',
    `Cannot write ${name} ${resolve(dir)}: ${messageOf(cause)}. ${advice}`,
    { cause },
  );
}

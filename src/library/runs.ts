// What runs a folder holds, and how far each has come.

import { existsSync, readdirSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { statsOf } from '../coordinator/disk.js';
import { isLocked } from '../coordinator/folder-lock.js';
import { isRun, missing, readProgress, readRunConfig } from '../coordinator/stored-run.js';
import { LockstepError, messageOf } from '../shared/errors.js';

export interface RunSummary {
  readonly dir: string;
  /** `running` while a process has the folder's lock. */
  readonly state: 'finished' | 'running' | 'interrupted';
  readonly model: string;
  readonly dataset: string;
  /** Steps done. */
  readonly step: number;
  readonly totalSteps: number;
  /** Of the last evaluation; null before the first. */
  readonly testAccuracy: number | null;
  /** After `step`; null before the first. */
  readonly hash: string | null;
}

/** A folder that is no run, or none that this version can read. */
export interface DamagedRun {
  readonly dir: string;
  readonly state: 'damaged';
  readonly problem: string;
}

/** Where runs are kept that are told no other place. */
const DEFAULT_DIR = 'runs';

/**
 * The runs in the folder `dir`, or the one that it is, the one that wrote last first. Without `dir` those of the folder
 * `runs`, if there is one.
 * @throws LOCKSTEP_RUN_MISSING if there is no folder `dir`
 */
export function listRuns(dir?: string): (RunSummary | DamagedRun)[] {
  if (dir === undefined && !existsSync(DEFAULT_DIR)) return [];
  return foldersIn(dir ?? DEFAULT_DIR)
    .map(folder => ({ run: describe(folder), changedMs: changedMs(folder) }))
    .toSorted((a, b) => b.changedMs - a.changedMs)
    .map(({ run }) => run);
}

/** What tells a run, a damaged one too, from any other folder. */
const runFiles = new Set(['config.json', 'metrics.jsonl', 'hashes.txt', 'weights.safetensors']);

function foldersIn(dir: string): string[] {
  if (isRun(dir)) return [dir];
  try {
    return readdirSync(dir)
      .map(name => join(dir, name))
      .filter(path => statsOf(path)?.isDirectory() && readdirSync(path).some(name => runFiles.has(name)));
  } catch (error) {
    throw missing(dir, messageOf(error));
  }
}

function describe(dir: string): RunSummary | DamagedRun {
  try {
    const { model, dataset, totalSteps } = readRunConfig(dir);
    const { isFinished, step, testAccuracy, hash } = readProgress(dir);
    return {
      dir: resolve(dir),
      state: stateOf(dir, isFinished),
      model: model.name,
      dataset: dataset.name,
      step,
      totalSteps,
      testAccuracy,
      hash,
    };
  } catch (error) {
    if (!(error instanceof LockstepError)) throw error;
    return { dir: resolve(dir), state: 'damaged', problem: error.message };
  }
}

export function stateOf(dir: string, isFinished: boolean): RunSummary['state'] {
  if (isLocked(dir)) return 'running';
  return isFinished ? 'finished' : 'interrupted';
}

/** When the newest of what a run writes to was written. */
function changedMs(dir: string): number {
  return Math.max(...['config.json', 'metrics.jsonl'].map(name => statsOf(join(dir, name))?.mtimeMs ?? 0));
}

// The trained weights that a run folder holds, for those who only read it, while the run goes on too.

import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { LockstepError, messageOf } from '../shared/errors.js';
import type { Model } from '../shared/model.js';
import { checkpointWeights, finalWeights, readInitialWeights, type TrainedWeights } from './checkpoint.js';
import { CHECKPOINTS_DIR, checkpointsIn, INITIAL_WEIGHTS_FILE } from './run-folder.js';
import { missing, readProgress, type RunConfig } from './stored-run.js';

export interface StoredWeights extends TrainedWeights {
  /** In the run folder. */
  readonly file: string;
  readonly isFinished: boolean;
  /** What was wrong with newer files, a sentence each. */
  readonly problems: readonly string[];
}

/**
 * weights.safetensors of a finished run, else the newest checkpoint that is whole.
 * @throws LOCKSTEP_FILE_DAMAGED if there are files and none can be used, LOCKSTEP_RUN_MISSING if there are none
 */
export function readWeights(dir: string, { bits }: RunConfig, model: Model): StoredWeights {
  const progress = readProgress(dir);
  const candidates: [string, (file: Uint8Array, path: string) => TrainedWeights][] = listCheckpoints(dir).map(
    name => [`${CHECKPOINTS_DIR}/${name}`, (file, path) => checkpointWeights(model, bits, file, path)],
  );
  if (progress.isFinished) {
    candidates.unshift(['weights.safetensors', (file, path) => finalWeights(model, progress, file, path)]);
  }
  const problems: string[] = [];
  for (const [file, decode] of candidates) {
    const path = join(dir, file);
    try {
      return { ...decode(readFileSync(path), path), file, isFinished: progress.isFinished, problems };
    } catch (error) {
      // A run that goes on removes its oldest checkpoint meanwhile.
      problems.push(error instanceof LockstepError ? error.message : `${path}: ${messageOf(error)}.`);
    }
  }
  if (problems.length === 0) throw missing(dir, 'it has no checkpoint yet');
  throw new LockstepError(
    'LOCKSTEP_FILE_DAMAGED',
    `No weights of ${resolve(dir)} can be used. ${problems.join(' ')}`,
  );
}

/**
 * Reads the weights that a run was begun with and its folder keeps, `model.parameterCount` of them; undefined where they
 * follow from the seed. What it gives throws LOCKSTEP_FILE_DAMAGED.
 */
export function initialWeightsIn(dir: string, { bits }: RunConfig): (() => Float32Array) | undefined {
  const digest = bits['initialWeights'];
  if (typeof digest !== 'string') return undefined;
  return () => {
    const path = join(dir, INITIAL_WEIGHTS_FILE);
    let file: Uint8Array;
    try {
      file = readFileSync(path);
    } catch (cause) {
      throw new LockstepError('LOCKSTEP_FILE_DAMAGED', `${path} cannot be read: ${messageOf(cause)}.`, {
        cause,
      });
    }
    return readInitialWeights(file, path, digest);
  };
}

/** Names of the checkpoints, newest first; none where their folder is gone. */
export function listCheckpoints(dir: string): string[] {
  try {
    return checkpointsIn(dir);
  } catch {
    return [];
  }
}

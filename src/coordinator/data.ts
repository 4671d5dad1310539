// The dataset that the settings name: a folder of IDX files, or MNIST.

import type { Dataset } from '../shared/dataset.js';
import { LockstepError } from '../shared/errors.js';
import { findIdxFiles, loadIdxFolder } from './idx-folder.js';
import type { IdxPaths } from './idx.js';
import { loadMnist, mnistPaths } from './mnist.js';

/**
 * The dataset of the folder `data`, or MNIST where there is none.
 * @throws LOCKSTEP_BAD_SETTING for a label offset without a folder; what reading the files throws
 */
export function loadData(data: string | undefined, labelOffset: number): Dataset {
  if (data !== undefined) return loadIdxFolder(data, labelOffset);
  if (labelOffset !== 0) {
    throw new LockstepError(
      'LOCKSTEP_BAD_SETTING',
      `Setting labelOffset is ${labelOffset}, and the labels of MNIST begin at 0: name a folder with --data, or leave it out.`,
    );
  }
  return loadMnist();
}

/** Where the files of `loadData` are. */
export function dataPaths(data: string | undefined): IdxPaths {
  return data === undefined ? mnistPaths() : findIdxFiles(data);
}

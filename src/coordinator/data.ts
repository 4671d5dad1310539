// The dataset of a call: arrays, a folder of IDX files, or MNIST.

import { datasetFromArrays, type Dataset, type DatasetContent } from '../shared/dataset.js';
import { LockstepError } from '../shared/errors.js';
import { findIdxFiles, loadIdxFolder } from './idx-folder.js';
import type { IdxPaths } from './idx.js';
import { loadMnist, mnistPaths } from './mnist.js';

/**
 * The dataset of the arrays, if there are some, or else the one that the settings name.
 * @throws LOCKSTEP_BAD_SETTING if both are there; what `loadData` throws
 */
export function openData(
  { data, labelOffset }: { readonly data?: string | undefined; readonly labelOffset: number },
  content: DatasetContent | undefined,
): Dataset {
  if (content === undefined) return loadData(data, labelOffset);
  if (data === undefined && labelOffset === 0) return datasetFromArrays(content);
  throw new LockstepError(
    'LOCKSTEP_BAD_SETTING',
    data === undefined
      ? `Setting labelOffset is ${labelOffset}, and the labels of arrays begin at 0: leave it out.`
      : 'There is a dataset of arrays, and setting data names another: leave one of them out.',
  );
}

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

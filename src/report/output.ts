// Files that reports are written to: known to be writable before the work that fills them begins.

import { closeSync, existsSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { LockstepError, messageOf } from '../shared/errors.js';

export interface Output {
  readonly path: string;
  /** Replaces whatever the file holds. @throws LOCKSTEP_BAD_SETTING if it cannot be written */
  write(text: string): void;
  /** Where there is nothing to write after all: removes the file if there was none before. */
  discard(): void;
}

/**
 * Opens `path` for writing, which makes it if it is not there and changes nothing else. `setting` is what named it.
 * @throws LOCKSTEP_BAD_SETTING if it cannot be written
 */
export function openOutput(path: string, setting: string): Output {
  const writing = (work: () => void): void => {
    try {
      work();
    } catch (cause) {
      throw new LockstepError(
        'LOCKSTEP_BAD_SETTING',
        `Setting ${setting} is '${path}', which cannot be written: ${messageOf(cause)}. Name another file.`,
        { cause },
      );
    }
  };
  const isNew = !existsSync(path);
  writing(() => closeSync(openSync(path, 'a')));
  return {
    path,
    write: text => writing(() => writeFileSync(path, text)),
    discard() {
      if (isNew) rmSync(path, { force: true });
    },
  };
}

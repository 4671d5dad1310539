// Files that reports are written to: known to be writable before the work that fills them begins.

import { closeSync, existsSync, openSync, rmSync, writeFileSync } from 'node:fs';

export interface Output {
  readonly path: string;
  /** Replaces whatever the file holds. @throws what the file system says */
  write(text: string): void;
  /** Where there is nothing to write after all: removes the file if there was none before. */
  discard(): void;
}

/** Opens `path` for writing, which makes it if it is not there and changes nothing else. @throws what the file system says */
export function openOutput(path: string): Output {
  const isNew = !existsSync(path);
  closeSync(openSync(path, 'a'));
  return {
    path,
    write: text => writeFileSync(path, text),
    discard() {
      if (isNew) rmSync(path, { force: true });
    },
  };
}

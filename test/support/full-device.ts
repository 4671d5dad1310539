// A device on which every write finds a full disk.

import { existsSync } from 'node:fs';

export const FULL_DEVICE = '/dev/full';

/** A reason to skip a test, or false. */
export function fullDeviceIsMissing(): string | false {
  return existsSync(FULL_DEVICE) ? false : `this system has no ${FULL_DEVICE}`;
}

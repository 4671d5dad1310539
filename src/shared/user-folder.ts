// The user's own folders, where the XDG Base Directory Specification has them.

import { isAbsolute } from 'node:path';

/** What a variable such as XDG_CACHE_HOME says; undefined where it says nothing, or a relative path, which counts for nothing. */
export function userFolder(
  env: Readonly<Record<string, string | undefined>>,
  variable: 'XDG_CACHE_HOME' | 'XDG_STATE_HOME',
): string | undefined {
  const folder = env[variable];
  return folder !== undefined && isAbsolute(folder) ? folder : undefined;
}

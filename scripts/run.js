// Runs a command to its end, for the scripts that test.

import { spawnSync } from 'node:child_process';

const { CI: _, FORCE_COLOR: __, ...inherited } = process.env;

/** For commands whose output is compared: plain text, whatever the surroundings want. CI alone turns colours on. */
export const plainEnv = { ...inherited, NO_COLOR: '1' };

/** What the command prints, as plain text. Throws with all its output if it fails. */
export function run(command, args, options = {}) {
  const { status, stdout, stderr, error } = spawnSync(command, args, {
    encoding: 'utf8',
    maxBuffer: 1e9,
    ...options,
    env: { ...plainEnv, ...options.env },
  });
  if (status !== 0)
    throw new Error(`${command} ${args.join(' ')} failed: ${error?.message ?? ''}\n${stdout}${stderr}`);
  return stdout;
}

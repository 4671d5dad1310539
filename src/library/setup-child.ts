// Runs the programs that `setup` needs, and keeps the end of what they said.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { LockstepError, messageOf } from '../shared/errors.js';

export interface ChildOptions {
  readonly cwd?: string;
  readonly env?: NodeJS.ProcessEnv;
  /** The descriptor of a terminal, for what it shows on standard output, which is then not returned. */
  readonly terminal?: number | undefined;
}

/**
 * Runs a program to its end; gives its standard output. `what` says in the message what was going on.
 * @throws LOCKSTEP_SETUP with the last lines of what it said
 */
export type RunChild = (
  what: string,
  command: string,
  args: readonly string[],
  options?: ChildOptions,
) => Promise<string>;

/** Lines of a program that failed. */
const LINES_KEPT = 12;
const CHARACTERS_KEPT = 100_000;

/** @throws LOCKSTEP_INTERRUPTED once `signal` aborts, which ends the program */
export function childRunner(signal: AbortSignal | undefined): RunChild {
  return async (what, command, args, { cwd, env, terminal } = {}) => {
    let output = '';
    let said = '';
    let outcome: string;
    let ended: Promise<unknown> | undefined;
    try {
      const child = spawn(command, args, {
        cwd,
        env,
        signal,
        stdio: ['ignore', terminal ?? 'pipe', 'pipe'],
      });
      child.stdout?.setEncoding('utf8').on('data', (text: string) => {
        output += text;
        said = (said + text).slice(-CHARACTERS_KEPT);
      });
      child.stderr?.setEncoding('utf8').on('data', (text: string) => {
        said = (said + text).slice(-CHARACTERS_KEPT);
      });
      ended = new Promise(resolve => child.once('close', resolve));
      const [code, killedBy] = await once(child, 'close');
      if (code === 0) return output;
      outcome = killedBy === null ? `exit code ${code}` : String(killedBy);
    } catch (error) {
      outcome = messageOf(error);
      // What it was writing must be left alone before another begins.
      await ended;
    }
    if (signal?.aborted) throw interrupted();
    const lines = said.trimEnd().split('\n').slice(-LINES_KEPT).join('\n');
    throw new LockstepError(
      'LOCKSTEP_SETUP',
      `Failed while ${what}: ${command}, ${outcome}.\n${lines}`.trimEnd(),
    );
  };
}

export function interrupted(): LockstepError {
  return new LockstepError('LOCKSTEP_INTERRUPTED', 'The setup was interrupted; what was downloaded is kept.');
}

// Runs the command line as a user does: a process of its own, in a folder of its own.

import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { EventOf, RunEvent } from '#dist/library/index.js';

const main = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));

export interface Outcome {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface CliOptions {
  readonly cwd?: string;
  readonly env?: Record<string, string>;
  /** Stops reading when this text has come. */
  readonly closeOutputAfter?: string;
  /** Gets the process's output as it comes; may kill the process. */
  readonly onOutput?: (text: string, kill: (signal: NodeJS.Signals) => void) => void;
}

export function lockstep(args: readonly string[], options?: CliOptions): Promise<Outcome> {
  return runNode([main, ...args], options);
}

/** A script of `scripts/`, by its name. */
export function runScript(name: string, args: readonly string[], options?: CliOptions): Promise<Outcome> {
  return runNode([fileURLToPath(new URL(`../../scripts/${name}`, import.meta.url)), ...args], options);
}

function runNode(
  args: readonly string[],
  { cwd, env, closeOutputAfter, onOutput }: CliOptions = {},
): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, args, {
      cwd,
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let stdout = '';
    let stderr = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text;
      if (closeOutputAfter !== undefined && stdout.includes(closeOutputAfter)) child.stdout.destroy();
      onOutput?.(text, signal => child.kill(signal));
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr += text;
    });
    child.on('error', reject);
    child.on('close', code => resolve({ code, stdout, stderr }));
  });
}

/** The events of a `--json` run; fails on a line that is no JSON object. */
export function eventsOf(stdout: string): RunEvent[] {
  return stdout
    .trimEnd()
    .split('\n')
    .map((line): RunEvent => JSON.parse(line));
}

export function onlyEvent<Type extends RunEvent['type']>(
  events: readonly RunEvent[],
  type: Type,
): EventOf<Type> {
  const found = events.filter((event): event is EventOf<Type> => event.type === type);
  if (found.length !== 1) throw new Error(`${found.length} events of type ${type}`);
  return found[0];
}

/** Gives `work` an empty folder and removes it afterwards. */
export async function inTemporaryFolder<T>(work: (dir: string) => Promise<T>): Promise<T> {
  const dir = mkdtempSync(join(tmpdir(), 'lockstep-cli-'));
  try {
    return await work(dir);
  } finally {
    rmSync(dir, { recursive: true });
  }
}

// Runs the command line on a real terminal: a pseudo-terminal of util-linux' `script`, of a given width.

import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const main = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));

/** Why there is no terminal to be had, or false if there is. */
export function terminalIsMissing(): string | false {
  const { stdout, error } = spawnSync('script', ['--version'], { encoding: 'utf8' });
  if (error) return `there is no program script here (${error.message})`;
  return stdout.includes('util-linux') ? false : 'the program script here is not that of util-linux';
}

export interface TerminalOptions {
  readonly columns: number;
  readonly cwd: string;
  readonly env?: Record<string, string>;
  /** What runs there, with the arguments: by default the command line. */
  readonly program?: string;
}

/** Everything that reaches the terminal, escape sequences included. */
export function inTerminal(
  args: readonly string[],
  { columns, cwd, env = {}, program = main }: TerminalOptions,
): { code: number | null; output: string } {
  const { NO_COLOR: _, ...inherited } = process.env;
  const words = [process.execPath, program, ...args].map(word => `'${word}'`).join(' ');
  const { status, stdout } = spawnSync(
    'script',
    ['-qec', `stty cols ${columns} rows 24; exec ${words}`, '/dev/null'],
    { cwd, env: { ...inherited, TERM: 'xterm', ...env }, encoding: 'utf8', input: '' },
  );
  return { code: status, output: stdout };
}

/** What was written from the first column on, each time, without escape sequences. */
export function linesOf(output: string): string[] {
  return (
    output
      .replaceAll('\u001b[1G', '\r')
      // oxlint-disable-next-line no-control-regex -- these are the sequences
      .replaceAll(/\u001b\[[?\d;]*[A-Za-z]/g, '')
      .split(/[\r\n]+/)
      .filter(line => line !== '')
  );
}

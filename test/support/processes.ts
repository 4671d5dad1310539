// `lockstep train --listen` and `lockstep worker` as processes that are killed, frozen and watched; none outlives its test.

import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { EventOf, RunEvent } from '#dist/library/index.js';
import { systemClock } from '#dist/shared/clock.js';
import { formatJoin, parseJoin } from '#dist/shared/join.js';
import { eventsOf, lockstep, onlyEvent } from './cli.js';

const main = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));

/** Whether the long tests are to run too: `npm run test:remote`. */
export const isLong = process.env['LOCKSTEP_TEST_REMOTE'] === 'long';

/** A test that takes longer has hung. */
const MOST_MS = isLong ? 900_000 : 120_000;

interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** A child process whose output is read by lines. */
export class Program {
  readonly lines: string[] = [];
  stderr = '';
  readonly ended: Promise<Ended>;
  hasEnded = false;
  readonly #child: ChildProcess;
  readonly #watchers = new Set<() => void>();

  constructor(command: readonly string[], cwd: string, env: Record<string, string>) {
    const { NO_COLOR: _, LOCKSTEP_JOIN: __, ...inherited } = process.env;
    const child = spawn(command[0], command.slice(1), {
      cwd,
      env: { ...inherited, NO_COLOR: '1', ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.#child = child;
    let rest = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      const parts = (rest + text).split('\n');
      rest = parts.pop() ?? '';
      this.lines.push(...parts);
      for (const look of this.#watchers) look();
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => (this.stderr += text));
    this.ended = once(child, 'close').then(([code, signal]) => {
      this.hasEnded = true;
      for (const look of this.#watchers) look();
      return { code, signal };
    });
  }

  get pid(): number {
    return this.#child.pid!;
  }

  /** Of this process alone, by its id. */
  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** What `find` gives of what was said, once it gives something. Fails if the process ends before. */
  until<T>(what: string, find: () => T | undefined): Promise<T> {
    return new Promise((resolve, reject) => {
      const look = (): void => {
        const found = find();
        if (found !== undefined) resolve(found);
        else if (this.hasEnded) reject(new Error(`it ended before ${what}:\n${this.tail()}`));
        else return;
        this.#watchers.delete(look);
      };
      this.#watchers.add(look);
      look();
    });
  }

  said(pattern: RegExp): Promise<string> {
    return this.until(String(pattern), () => this.lines.find(line => pattern.test(line)));
  }

  tail(): string {
    return [...this.lines.slice(-30), this.stderr].join('\n');
  }
}

export class Coordinator extends Program {
  #events: RunEvent[] = [];
  #parsedLines = 0;

  get events(): readonly RunEvent[] {
    this.#events.push(...this.lines.slice(this.#parsedLines).map((line): RunEvent => JSON.parse(line)));
    this.#parsedLines = this.lines.length;
    return this.#events;
  }

  all<Type extends RunEvent['type']>(type: Type): EventOf<Type>[] {
    return this.events.filter((event): event is EventOf<Type> => event.type === type);
  }

  /** The n-th event of a type, counted from 1. */
  event<Type extends RunEvent['type']>(type: Type, n = 1): Promise<EventOf<Type>> {
    return this.until(`${n} events ${type}`, () => this.all(type)[n - 1]);
  }

  /** Once so many updates are known to be done. */
  async step(step: number): Promise<void> {
    await this.until(`step ${step}`, () => this.all('step').find(event => event.step >= step));
  }

  /** A node of this name that has joined after it was lost `before` times. */
  async joined(name: string, times = 1): Promise<void> {
    await this.until(
      `${name} has joined ${times} times`,
      () => this.all('node-joined').filter(event => event.name === name)[times - 1],
    );
  }

  async join(): Promise<string> {
    const { join: line } = await this.event('listening');
    if (line === undefined) throw new Error('it did not tell the join line');
    return line;
  }

  /** What it ended with; fails if it did not end well. */
  async done(): Promise<EventOf<'done'>> {
    const { code } = await this.ended;
    if (code !== 0) throw new Error(`exit code ${code}\n${this.tail()}`);
    return onlyEvent(this.events, 'done');
  }
}

export interface AgentFlags {
  readonly name: string;
  readonly workers?: number;
  /** Arguments more. */
  readonly flags?: readonly string[];
  /** What to run it with: this Node, if nothing is said. */
  readonly node?: string;
}

/** A folder of its own, in which processes work until the test ends. */
export class Field {
  readonly dir = mkdtempSync(join(tmpdir(), 'lockstep-remote-'));
  readonly #programs: Program[] = [];

  constructor(context: TestContext) {
    const killAll = (): void => {
      for (const program of this.#programs) if (!program.hasEnded) program.kill('SIGKILL');
    };
    // Whoever waits for what never comes is then told what had come.
    const cancel = systemClock.after(MOST_MS, killAll);
    context.after(async () => {
      cancel();
      killAll();
      await Promise.all(this.#programs.map(({ ended }) => ended));
      rmSync(this.dir, { recursive: true });
    });
  }

  coordinate(args: readonly string[], listen = '0', node = process.execPath): Coordinator {
    const command = [node, main, 'train', ...args, '--listen', listen, '--json'];
    return this.#keep(new Coordinator(command, this.dir, { XDG_STATE_HOME: join(this.dir, 'state') }));
  }

  work(line: string, { name, workers = 1, flags = [], node = process.execPath }: AgentFlags): Program {
    const args = ['worker', line, '--name', name, '--workers', String(workers)];
    const command = [node, main, ...args, '--cache', join(this.dir, `shards-${name}`), ...flags];
    return this.#keep(new Program(command, this.dir, {}));
  }

  /** Another script of Node's, with arguments. */
  run(script: URL, args: readonly string[], env: Record<string, string>): Program {
    return this.#keep(new Program([process.execPath, fileURLToPath(script), ...args], this.dir, env));
  }

  #keep<P extends Program>(program: P): P {
    this.#programs.push(program);
    return program;
  }
}

/** Processes that a process has started, and that are alive. Linux only. */
export function childrenOf(pid: number): number[] {
  return readdirSync('/proc')
    .filter(name => /^\d+$/.test(name))
    .filter(name => {
      try {
        // The name, in parentheses, may hold anything.
        const [state, parent] = readFileSync(`/proc/${name}/stat`, 'utf8')
          .replace(/^.*\) /, '')
          .split(' ');
        return Number(parent) === pid && state !== 'Z';
      } catch {
        return false;
      }
    })
    .map(Number);
}

/** The same line, by another way. */
export function through(line: string, way: { readonly host: string; readonly port: number }): string {
  return formatJoin({ ...parseJoin(line), host: way.host, port: way.port });
}

/** The one hash: of the same settings trained by one thread of one process, whatever happens elsewhere. */
const hashes = new Map<string, Promise<{ hash: string; weightsSha256: string }>>();

export function trainedAlone(settings: readonly string[]): Promise<{ hash: string; weightsSha256: string }> {
  const key = settings.join(' ');
  let known = hashes.get(key);
  if (!known) {
    const dir = mkdtempSync(join(tmpdir(), 'lockstep-alone-'));
    known = lockstep(['train', ...settings, '--workers', '1', '--json'], { cwd: dir }).then(({ stdout }) => {
      rmSync(dir, { recursive: true });
      const { hash, weightsSha256 } = onlyEvent(eventsOf(stdout), 'done');
      return { hash, weightsSha256 };
    });
    hashes.set(key, known);
  }
  return known;
}

/** Samples of MNIST's training set that so many steps of `batch` see, each once an epoch. */
export function samplesIn(steps: number, batch: number, lanes: number): number {
  const all = 60_000;
  const leaf = batch / lanes;
  const stepsPerEpoch = Math.ceil(all / lanes / leaf);
  const epochs = Math.floor(steps / stepsPerEpoch);
  return epochs * all + (steps % stepsPerEpoch) * batch;
}

/** Waits for the run's end, which must be the one hash. */
export async function assertOneHash(
  coordinator: Coordinator,
  settings: readonly string[],
): Promise<EventOf<'done'>> {
  const [done, expected] = await Promise.all([coordinator.done(), trainedAlone(settings)]);
  const { hash, weightsSha256 } = done;
  assert.deepEqual({ hash, weightsSha256 }, expected, coordinator.tail());
  return done;
}

// `lockstep worker [join]`: computes for a run on another machine, and says in one line what it is doing.

import { join as joinPath } from 'node:path';
import { MultiBar, type GenericFormatter, type SingleBar } from 'cli-progress';
import colors from 'picocolors';
import type { Argv, CommandModule, InferredOptionTypes } from 'yargs';
import { work, workDefaults, type WorkResult, type WorkStatus } from '../library/index.js';
import { systemClock } from '../shared/clock.js';
import { durationForm, parseDuration } from '../shared/duration.js';
import { LockstepError } from '../shared/errors.js';
import { userFolder } from '../shared/user-folder.js';
import { integer, plural, toWorkers, warningLine, withoutUndefined } from './format.js';
import { collectLess } from './garbage.js';
import { joinLineOfEnvironment } from './join-line.js';
import { untilSignal } from './signals.js';

const MEBIBYTE = 1_048_576;
const MOST_EXIT_MS = 2000;

export const workerFlags = {
  workers: {
    type: 'string',
    requiresArg: true,
    describe: "Worker threads, or 'auto': one for each core",
    defaultDescription: 'auto',
  },
  name: {
    type: 'string',
    requiresArg: true,
    describe: "Names this node on the coordinator's side",
    defaultDescription: 'the name of the host',
  },
  engine: {
    choices: ['tensorflow'] as const,
    requiresArg: true,
    describe: 'Compute with TensorFlow, in processes of its own',
    defaultDescription: 'threads, as the run says',
  },
  devices: {
    type: 'string',
    requiresArg: true,
    describe: "With TensorFlow: 'cpu', 'all' GPUs, or numbers such as '0,1'",
    defaultDescription: 'all GPUs, else cpu',
  },
  cache: {
    type: 'string',
    requiresArg: true,
    describe: 'The folder that keeps shards, so that they are fetched once',
    defaultDescription: '~/.cache/lockstep/shards',
  },
  'cache-size': {
    type: 'number',
    requiresArg: true,
    describe: 'The most that is kept there, in MiB',
    defaultDescription: String(workDefaults.cacheBytes / MEBIBYTE),
  },
  retry: {
    type: 'string',
    requiresArg: true,
    describe: "How long to try to join, also again: '30s', '10m', '2h'",
    defaultDescription: '10m',
  },
  json: { type: 'boolean', describe: 'Print one JSON object for everything that changes' },
} as const;

type Arguments = InferredOptionTypes<typeof workerFlags> & { join: string | undefined };

export const workerCommand: CommandModule<object, Arguments> = {
  command: 'worker [join]',
  describe: 'Compute for a run on another machine, and come back after every loss of the network',
  builder: (yargs): Argv<Arguments> =>
    yargs
      .positional('join', {
        type: 'string',
        describe: 'The join line that `lockstep train --listen` prints',
        defaultDescription: '$LOCKSTEP_JOIN',
      })
      .options(workerFlags)
      .example("$0 worker '<join line>'", 'With every core')
      .example("$0 worker '<join line>' --workers 4 --name attic", 'With 4 threads, and a name of its own')
      .example("$0 worker '<join line>' --engine tensorflow --devices all", 'With every GPU')
      .example("$0 worker '<join line>' --cache /data/shards --cache-size 4096", 'Shards kept elsewhere')
      .example(
        'LOCKSTEP_JOIN="$(cat file)" $0 worker --retry 8h',
        'The line from a file, through a long night',
      )
      .epilogue(
        'The join line holds the key of the run: whoever has it can join. Ctrl-C hands the leases back at once; the ' +
          'run goes on without this node, and ends with the same bits.',
      ),
  handler: async argv => {
    collectLess();
    const line = argv.join ?? joinLineOfEnvironment;
    if (line === undefined) {
      throw new LockstepError(
        'LOCKSTEP_USAGE',
        'There is no join line: give the one that `lockstep train --listen` prints, or set LOCKSTEP_JOIN.',
      );
    }
    const { workers, name, engine, devices, cache, cacheSize, retry } = argv;
    const options = withoutUndefined({
      workers: workers === undefined ? undefined : toWorkers(workers),
      name,
      engine,
      devices,
      cacheDir: cache ?? ownCacheFolder(process.env),
      cacheBytes: cacheSize === undefined ? undefined : Math.round(cacheSize * MEBIBYTE),
      retryMs: retry === undefined ? undefined : toMs(retry),
      inject: process.env['LOCKSTEP_INJECT'] || undefined,
    });
    const display = chooseDisplay(argv.json);
    try {
      const result = await untilSignal(
        signal =>
          work(line, {
            ...options,
            mayBlock: true,
            signal,
            onStatus: status => display.show(status),
            onWarning: message => display.warn(message),
          }),
        () => display.end(),
      );
      display.end();
      display.tellResult(result);
      if (result.end === 'left') process.exitCode = 130;
    } finally {
      display.end();
      // A disk that hangs must not keep a process that has said it goes.
      systemClock.every(MOST_EXIT_MS, () => process.exit());
    }
  },
};

/** Where the user's environment puts it; the library's default where it says nothing. */
export function ownCacheFolder(env: Readonly<Record<string, string | undefined>>): string | undefined {
  const folder = userFolder(env, 'XDG_CACHE_HOME');
  return folder && joinPath(folder, 'lockstep', 'shards');
}

function toMs(text: string): number {
  const durationMs = parseDuration(text);
  if (durationMs !== undefined) return durationMs;
  throw new LockstepError('LOCKSTEP_BAD_SETTING', `Setting --retry is '${text}', expected ${durationForm}.`);
}

interface Display {
  show(status: WorkStatus): void;
  warn(message: string): void;
  tellResult(result: WorkResult): void;
  /** Leaves the terminal as it was. */
  end(): void;
}

function chooseDisplay(isJson: boolean | undefined): Display {
  if (isJson) return jsonDisplay;
  return process.stdout.isTTY ? new TerminalDisplay() : new PlainDisplay();
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

const jsonDisplay: Display = {
  show: status => print(JSON.stringify({ type: 'status', ...status })),
  warn: message => print(JSON.stringify({ type: 'warning', message })),
  tellResult: result => print(JSON.stringify({ type: 'end', ...result })),
  end: () => {},
};

/** A line where the node begins to do something else, not for every step of it. */
class PlainDisplay implements Display {
  #state = '';

  show({ state, text }: WorkStatus): void {
    if (state !== this.#state || state === 'reconnecting') print(text);
    this.#state = state;
  }

  warn(message: string): void {
    print(warningLine(message));
  }

  tellResult(result: WorkResult): void {
    print(describe(result));
  }

  end(): void {}
}

/** One line that is written over, warnings above it. */
class TerminalDisplay implements Display {
  readonly #bars = new MultiBar({
    format: formatStatus,
    stream: process.stdout,
    hideCursor: true,
    linewrap: true,
    clearOnComplete: true,
    gracefulExit: false,
  });
  #bar: SingleBar | undefined;

  show({ text }: WorkStatus): void {
    this.#bar ??= this.#bars.create(1, 0, { text });
    this.#bar.update({ text });
    this.#bars.update();
  }

  warn(message: string): void {
    if (this.#bar) this.#bars.log(`${warningLine(message)}\n`);
    else print(warningLine(message));
  }

  tellResult(result: WorkResult): void {
    print(describe(result));
  }

  end(): void {
    this.#bars.stop();
  }
}

const formatStatus: GenericFormatter = (_, { maxWidth }, payload) => {
  const { text }: Record<string, string> = payload;
  // What is cleared behind a full line would be its last letter.
  return text.slice(0, maxWidth - 1);
};

function describe(result: WorkResult): string {
  const { end, parts, samples, computeMs, shardsFetched, shardsFromCache, reconnections } = result;
  const head = end === 'finished' ? colors.green('finished') : 'left the run, which goes on';
  return (
    `${head}: ${plural(parts, 'part')} with ${plural(samples, 'image')} in ${(computeMs / 1000).toFixed(1)} s of ` +
    `computing; ${plural(shardsFetched, 'shard')} fetched, ${integer(shardsFromCache)} from the cache; ` +
    plural(reconnections, 'reconnection')
  );
}

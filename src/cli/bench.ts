// `lockstep bench [model]`: how throughput scales, as a table, as JSON and as a figure.

import { SingleBar } from 'cli-progress';
import colors from 'picocolors';
import type { ArgumentsCamelCase, Argv, CommandModule, InferredOptionTypes } from 'yargs';
import {
  bench,
  benchDefaults,
  type BenchProgress,
  type BenchResult,
  type BenchRow,
  type Spread,
} from '../library/index.js';
import { openOutput, type Output } from '../report/output.js';
import { LockstepError } from '../shared/errors.js';
import { flagOf } from '../shared/format.js';
import { defaults, threadEngineNames } from '../shared/settings.js';
import {
  integer,
  jsonFlag,
  modelHelp,
  newTable,
  percent,
  plural,
  warningLine,
  withoutUndefined,
} from './format.js';

export const benchFlags = {
  workers: {
    type: 'string',
    requiresArg: true,
    describe: 'Numbers of worker threads',
    defaultDescription: '1,2,4,... up to the cores',
  },
  batch: {
    type: 'string',
    requiresArg: true,
    describe: 'Samples a step',
    defaultDescription: String(defaults.batch),
  },
  leaf: {
    type: 'string',
    requiresArg: true,
    describe: 'Samples of a lane in a step, divisors of every batch',
    defaultDescription: 'at least 8 lanes',
  },
  engine: {
    choices: threadEngineNames,
    requiresArg: true,
    describe: 'What computes',
    defaultDescription: benchDefaults.engine,
  },
  repetitions: {
    type: 'number',
    requiresArg: true,
    describe: 'How often everything is measured',
    defaultDescription: String(benchDefaults.repetitions),
  },
  'warm-up-ms': {
    type: 'number',
    requiresArg: true,
    describe: 'Training before each measurement',
    defaultDescription: String(benchDefaults.warmUpMs),
  },
  'measure-ms': {
    type: 'number',
    requiresArg: true,
    describe: 'Training in each measurement; as much again for the ceiling',
    defaultDescription: String(benchDefaults.measureMs),
  },
  figure: { type: 'string', requiresArg: true, describe: 'Write a figure to this SVG file' },
  json: jsonFlag,
} as const;

type Arguments = InferredOptionTypes<typeof benchFlags> & { model: string | undefined };

export const benchCommand: CommandModule<object, Arguments> = {
  command: 'bench [model]',
  describe: 'Measure how throughput scales with workers, batch and leaf',
  builder: (yargs): Argv<Arguments> =>
    yargs
      .positional('model', { type: 'string', describe: modelHelp, defaultDescription: benchDefaults.model })
      .options(benchFlags)
      .example('$0 bench', 'LeNet-5 with 1, 2, 4, ... workers')
      .example('$0 bench mlp --workers 1,2 --batch 64,512', 'Every number of workers with every batch')
      .example('$0 bench lenet5 --batch 512 --leaf 8,32,128 --figure scaling.svg', 'What the leaf changes')
      .epilogue('Docs: docs/bench.md says what is measured and how to read it.'),
  handler: async argv => {
    const { model, engine, repetitions, warmUpMs, measureMs, figure, json } = argv;
    const chosen = withoutUndefined({ model, engine, repetitions, warmUpMs, measureMs, ...listsOf(argv) });
    const output = figure === undefined ? undefined : openOutput(figure, '--figure');
    const progress = showProgress();
    let result: BenchResult;
    try {
      result = await bench({ ...chosen, onProgress: progress.show });
    } catch (error) {
      output?.discard();
      throw withFlagNames(error);
    } finally {
      progress.end();
    }
    process.stdout.write(json ? `${JSON.stringify(result)}\n` : `${describe(result)}\n`);
    if (output) await writeFigure(output, result);
  },
};

function listsOf({ workers, batch, leaf }: ArgumentsCamelCase<Arguments>) {
  return {
    workers: workers?.split(',').map(item => (item === 'auto' ? item : toNumber('workers', item))),
    batch: batch?.split(',').map(item => toNumber('batch', item)),
    leaf: leaf?.split(',').map(item => toNumber('leaf', item)),
  };
}

function toNumber(name: string, item: string): number {
  if (/^\d+$/.test(item)) return Number(item);
  throw new LockstepError(
    'LOCKSTEP_BAD_SETTING',
    `Setting --${name} holds '${item}', expected whole numbers with commas between them.`,
  );
}

/** The error with the library's name of a setting as the command line has it: workers.0, measureMs. */
function withFlagNames(error: unknown): unknown {
  if (!(error instanceof LockstepError) || error.code !== 'LOCKSTEP_BAD_SETTING') return error;
  const { code, message } = error;
  const named = message.replace(
    /^Setting (\w+)(\.\d+)? is/,
    (_, name: string, item?: string) => `Setting --${flagOf(name)} ${item ? 'holds' : 'is'}`,
  );
  return new LockstepError(code, named, { cause: error });
}

/** A bar on standard error, if that is a terminal. */
function showProgress(): { show: (progress: BenchProgress) => void; end: () => void } {
  if (!process.stderr.isTTY) return { show: () => {}, end: () => {} };
  const bar = new SingleBar({
    format: '{bar} {value}/{total}  {next}',
    stream: process.stderr,
    barsize: 20,
    clearOnComplete: true,
    // Nothing of the terminal is changed, so an interrupt leaves nothing to put back.
    linewrap: true,
    gracefulExit: false,
  });
  let isStarted = false;
  return {
    show({ done, total, next }) {
      const told = {
        next: next ? `${plural(next.workers, 'worker')}, batch ${next.batch}, leaf ${next.leaf}` : '',
      };
      if (isStarted) bar.update(done, told);
      else bar.start(total, done, told);
      isStarted = true;
    },
    end: () => bar.stop(),
  };
}

function describe({ model, dataset, engine, cores, processor, ...result }: BenchResult): string {
  const { repetitions, measureMs, rows, advice, warnings } = result;
  const isOneGroup = advice.length === 1;
  return [
    `${colors.bold(model)} on ${dataset}, engine ${engine}; ${processor}, ${plural(cores, 'core')}`,
    `medians of ${plural(repetitions, 'repetition')} of ${measureMs} ms; compute to other: parts of all their time`,
    rowTable(rows),
    ...advice.map(({ batch, leaf, text }) => (isOneGroup ? text : `Batch ${batch}, leaf ${leaf}: ${text}`)),
    'Batch and leaf decide the bits of the result, workers do not.',
    ...warnings.map(warningLine),
  ].join('\n');
}

function rowTable(rows: readonly BenchRow[]): string {
  const head = ['workers', 'batch', 'leaf', 'lanes', 'images/s', 'low - high', 'ms/step', 'efficiency'];
  const times = ['compute', 'wait', 'reduce', 'update', 'other'] as const;
  const table = newTable([...head, ...times, 'of ceiling']);
  for (const row of rows) {
    const { workers, batch, leaf, lanes, imagesPerSecond, stepMs, efficiency, shares, shareOfCeiling } = row;
    table.push([
      workers,
      batch,
      leaf,
      lanes,
      colors.bold(integer(imagesPerSecond.median)),
      `${integer(imagesPerSecond.low)} - ${integer(imagesPerSecond.high)}`,
      stepMs.median.toPrecision(3),
      efficiency ? percent(efficiency.median, 0) : '',
      ...times.map(name => percent(shares[name], 0)),
      percent(shareOfCeiling.median, 0),
    ]);
  }
  return table.toString();
}

/** Images a second over workers: a line for each batch and leaf, with its ceiling dashed. */
async function writeFigure(output: Output, { model, processor, rows, advice }: BenchResult): Promise<void> {
  // Loaded here, since nothing else needs it.
  const { lineChart } = await import('../report/figure.js');
  const series = advice.flatMap(({ batch, leaf }) => {
    const group = rows
      .filter(row => row.batch === batch && row.leaf === leaf)
      .toSorted((a, b) => a.workers - b.workers);
    const line = (pick: (row: BenchRow) => Spread) =>
      group.map(row => ({ x: row.workers, y: pick(row).median, low: pick(row).low, high: pick(row).high }));
    const name = `batch ${batch}, leaf ${leaf}`;
    return [
      { name, points: line(row => row.imagesPerSecond) },
      { name: `${name}, without barriers`, points: line(row => row.ceilingImagesPerSecond), dashed: true },
    ];
  });
  const svg = lineChart({ title: `${model} on ${processor}`, xLabel: 'workers', yLabel: 'images/s', series });
  output.write(svg);
}

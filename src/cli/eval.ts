// `lockstep eval <run>`: how good a run's weights are, in all and for each class.

import colors from 'picocolors';
import type { Argv, CommandModule, InferredOptionTypes } from 'yargs';
import { evaluate, type ClassResult, type ConfusedPair, type Evaluation } from '../library/index.js';
import {
  columnsOr,
  describeWeights,
  integer,
  jsonFlag,
  newTable,
  percent,
  toWorkers,
  warningLine,
  withoutUndefined,
} from './format.js';

export const evalFlags = {
  data: {
    type: 'string',
    requiresArg: true,
    describe: 'A folder of IDX files, gzipped or not, whose test set to use',
    defaultDescription: "the run's data",
  },
  'label-offset': {
    type: 'number',
    requiresArg: true,
    describe: 'The smallest label in those files: class 0',
    defaultDescription: '0',
  },
  workers: {
    type: 'string',
    requiresArg: true,
    describe: "Worker threads, or 'auto': one for each core",
    defaultDescription: 'auto',
  },
  json: jsonFlag,
} as const;

type Arguments = InferredOptionTypes<typeof evalFlags> & { run: string };

export const evalCommand: CommandModule<object, Arguments> = {
  command: 'eval <run>',
  describe: "Evaluate a run's weights on a test set",
  builder: (yargs): Argv<Arguments> =>
    yargs
      .positional('run', { type: 'string', demandOption: true, describe: 'The run folder' })
      .options(evalFlags)
      .example('$0 eval runs/lenet5-1', "On the test set of the run's own data")
      .example('$0 eval runs/lenet5-1 --data ./digits', 'On the test set of a folder of IDX files')
      .example('$0 eval runs/lenet5-1 --json', 'Everything, for a program to read')
      .epilogue(
        'A finished run is evaluated with its weights, another one with its newest checkpoint. On its own data the ' +
          'figures are, bit for bit, those that the run told.',
      ),
  handler: async ({ run, data, labelOffset, workers, json }) => {
    const options = { data, labelOffset, workers: workers === undefined ? undefined : toWorkers(workers) };
    const evaluation = await evaluate(run, withoutUndefined(options));
    const text = json ? JSON.stringify(evaluation) : describe(evaluation, columnsOr(80));
    process.stdout.write(`${text}\n`);
  },
};

function describe(evaluation: Evaluation, columns: number): string {
  const { dataset, isOwnData, samples, loss, accuracy, classes, confusedPairs, warnings } = evaluation;
  const data = `${integer(samples)} test images of ${dataset}${isOwnData ? '' : ', other data than it was trained on'}`;
  const matrix = confusionMatrix(evaluation);
  const isReadable = matrix.every(line => line.length <= columns);
  return [
    ...warnings.map(warningLine),
    describeWeights(evaluation),
    `${data}: loss ${loss.toFixed(4)}, accuracy ${colors.bold(percent(accuracy))}`,
    classTable(classes),
    ...(isReadable ? matrix : pairTable(confusedPairs)),
  ].join('\n');
}

function share(value: number | null): string {
  return value === null ? '' : percent(value);
}

function classTable(classes: readonly ClassResult[]): string {
  const table = newTable(['class', 'samples', 'correct', 'recall', 'predicted', 'precision']);
  for (const { class: label, samples, correct, recall, predicted, precision } of classes) {
    table.push([
      label,
      integer(samples),
      integer(correct),
      share(recall),
      integer(predicted),
      share(precision),
    ]);
  }
  return table.toString();
}

/** Plain columns, since a frame around each would not fit into 80; a dot for none. */
function confusionMatrix({ confusion }: Evaluation): string[] {
  const rows = [confusion.map((_, predicted) => `${predicted}`)].concat(
    confusion.map(row => row.map(count => (count === 0 ? '.' : `${count}`))),
  );
  const width = Math.max(...rows.flat().map(cell => cell.length)) + 2;
  const labels = ['class', ...confusion.map((_, label) => `${label}`)];
  return [
    'How often each class (row) was taken for which (column):',
    ...rows.map((row, i) => labels[i].padStart(5) + row.map(cell => cell.padStart(width)).join('')),
  ];
}

const PAIRS_SHOWN = 10;

function pairTable(pairs: readonly ConfusedPair[]): string[] {
  if (pairs.length === 0) return ['No class was taken for another.'];
  const table = newTable(['class', 'taken for', 'samples']);
  for (const { label, predicted, samples } of pairs.slice(0, PAIRS_SHOWN)) {
    table.push([label, predicted, integer(samples)]);
  }
  const shown = Math.min(PAIRS_SHOWN, pairs.length);
  return [
    pairs.length > shown
      ? `The ${shown} most confused of ${integer(pairs.length)} pairs:`
      : 'All confused pairs:',
    table.toString(),
  ];
}

// `lockstep report <run..>`: what runs did and reached, as one HTML file.

import { relative } from 'node:path';
import colors from 'picocolors';
import type { Argv, CommandModule, InferredOptionTypes } from 'yargs';
import { report, type ReportResult } from '../library/index.js';
import { evalFlags } from './eval.js';
import { integer, jsonFlag, percent, toWorkers, warningLine, withoutUndefined } from './format.js';

export const reportFlags = {
  out: {
    type: 'string',
    requiresArg: true,
    describe: 'The file to write; an earlier report there is replaced',
    defaultDescription: 'report.html in the first run folder',
  },
  data: evalFlags.data,
  'label-offset': evalFlags['label-offset'],
  workers: {
    ...evalFlags.workers,
    describe: "Threads that evaluate the test set, or 'auto': one for each core",
  },
  json: jsonFlag,
} as const;

type Arguments = InferredOptionTypes<typeof reportFlags> & { run: string[] };

export const reportCommand: CommandModule<object, Arguments> = {
  command: 'report <run..>',
  describe: 'Write curves, figures, speed and a timeline of runs as one HTML file',
  builder: (yargs): Argv<Arguments> =>
    yargs
      // Else yargs keeps the last of the folders; flags that are repeated are refused before.
      .parserConfiguration({ 'duplicate-arguments-array': true, 'boolean-negation': false })
      .positional('run', {
        type: 'string',
        array: true,
        demandOption: true,
        describe: 'Run folders, at most 7; several are compared',
      })
      .options(reportFlags)
      .example('$0 report runs/lenet5-1', 'runs/lenet5-1/report.html, to be opened in a browser')
      .example('$0 report runs/lenet5-1 runs/mlp-1 --out both.html', 'Two runs beside each other')
      .example('$0 report runs/lenet5-1 --json', 'Where the report is, for a program to read')
      .epilogue('The file loads nothing and can be sent as it is. Docs: docs/report.md says what is in it.'),
  handler: async ({ run, out, data, labelOffset, workers, json }) => {
    const options = {
      out,
      data,
      labelOffset,
      workers: workers === undefined ? undefined : toWorkers(workers),
    };
    const result = await report(run, withoutUndefined(options));
    process.stdout.write(`${json ? JSON.stringify(result) : describe(result)}\n`);
  },
};

function describe({ path, sizeBytes, runs, warnings }: ReportResult): string {
  return [
    ...warnings.map(warningLine),
    ...runs.map(({ name, state, step, testAccuracy, testStep }) => {
      const where = testStep === null || testStep === step ? '' : ` after step ${integer(testStep)}`;
      const accuracy = testAccuracy === null ? '' : `, test accuracy ${percent(testAccuracy)}${where}`;
      return `${colors.bold(name)}  ${state} after step ${integer(step)}${accuracy}`;
    }),
    `wrote ${relative('.', path)}, ${integer(Math.ceil(sizeBytes / 1024))} KiB`,
  ].join('\n');
}

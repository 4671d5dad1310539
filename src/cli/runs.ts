// `lockstep runs [dir]`: the runs of a folder, newest first.

import { relative } from 'node:path';
import colors from 'picocolors';
import type { Argv, CommandModule, InferredOptionTypes } from 'yargs';
import { listRuns, type DamagedRun, type RunSummary } from '../library/index.js';
import { integer, jsonFlag, newTable, percent } from './format.js';

export const runsFlags = { json: jsonFlag } as const;

type Arguments = InferredOptionTypes<typeof runsFlags> & { dir: string | undefined };

export const runsCommand: CommandModule<object, Arguments> = {
  command: 'runs [dir]',
  describe: 'List the runs of a folder: state, steps, test accuracy, hash',
  builder: (yargs): Argv<Arguments> =>
    yargs
      .positional('dir', {
        type: 'string',
        describe: 'The folder that holds run folders, or one of them',
        defaultDescription: 'runs',
      })
      .options(runsFlags)
      .example('$0 runs', 'Those of the folder runs')
      .example('$0 runs ~/experiments --json', 'Those of another one, for a program to read')
      .epilogue('A run is interrupted if it has not ended and no process is at work in its folder.'),
  handler: ({ dir, json }) => {
    const runs = listRuns(dir);
    process.stdout.write(json ? `${JSON.stringify({ runs })}\n` : `${toText(runs, dir ?? 'runs')}\n`);
  },
};

function toText(runs: readonly (RunSummary | DamagedRun)[], dir: string): string {
  if (runs.length === 0) return `There are no runs in ${dir}. \`lockstep train\` begins one.`;
  const table = newTable(
    ['run', 'state', 'model', 'dataset', 'steps', 'test accuracy', 'hash'],
    ['left', 'left', 'left', 'left', 'right', 'right', 'left'],
  );
  const notes: string[] = [];
  for (const run of runs) {
    const name = relative('.', run.dir) || '.';
    if (run.state === 'damaged') {
      table.push([name, colors.red(run.state), '', '', '', '', '']);
      notes.push(`${colors.red('damaged')}  ${run.problem}`);
      continue;
    }
    const { state, model, dataset, step, totalSteps, testAccuracy, hash } = run;
    table.push([
      name,
      state,
      model,
      dataset,
      `${integer(step)} / ${integer(totalSteps)}`,
      testAccuracy === null ? '' : percent(testAccuracy),
      hash ?? '',
    ]);
  }
  return [table.toString(), ...notes].join('\n');
}

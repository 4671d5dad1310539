// `lockstep doctor`: what this machine has and lacks, a line each.

import colors from 'picocolors';
import type { Argv, CommandModule, InferredOptionTypes } from 'yargs';
import { doctor, type Check, type DoctorReport } from '../library/index.js';
import { jsonFlag } from './format.js';
import { untilSignal } from './signals.js';

export const doctorFlags = { json: jsonFlag } as const;

type Arguments = InferredOptionTypes<typeof doctorFlags>;

export const doctorCommand: CommandModule<object, Arguments> = {
  command: 'doctor',
  describe: 'Check this machine and train for a few seconds to see that its bits are right',
  builder: (yargs): Argv<Arguments> =>
    yargs
      .options(doctorFlags)
      .example('$0 doctor', 'What is here, what is missing, and what to do')
      .example('$0 doctor --json', 'The same for a program to read, or for a report')
      .epilogue(
        'The self-test trains on MNIST with every core, for up to ten seconds on most machines, in a temporary folder.\n' +
          'Exit code 1 if something is missing that training needs.',
      ),
  handler: async ({ json }) => {
    if (process.stderr.isTTY) process.stderr.write('Training for a few seconds ...\n');
    const report = await untilSignal(signal => doctor({ signal }));
    process.stdout.write(json ? `${JSON.stringify(report)}\n` : `${describe(report)}\n`);
    if (!report.isHealthy) process.exitCode = 1;
  },
};

const statusColors = { ok: colors.green, warning: colors.yellow, failed: colors.red } as const;

function describe({ checks, isHealthy, version, platform, architecture }: DoctorReport): string {
  const columns = Math.max(...checks.map(({ name }) => name.length));
  const line = ({ name, status, found, advice }: Check): string =>
    `${statusColors[status](status.padEnd(8))} ${name.padEnd(columns)}  ${found}` +
    (advice === undefined ? '' : `\n${' '.repeat(8)} ${' '.repeat(columns)}  ${advice}`);
  return [
    `lockstep ${version} on ${platform} ${architecture}`,
    ...checks.map(line),
    isHealthy ? 'Everything is here that training needs.' : 'Something is missing that training needs.',
  ].join('\n');
}

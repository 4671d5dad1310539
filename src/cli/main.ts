#!/usr/bin/env node
// The command line: one file a command, usage errors in one place.

import { closest } from 'fastest-levenshtein';
import { hideBin } from 'yargs/helpers';
import yargs from 'yargs';
import { LockstepError, messageOf, type ErrorCode } from '../shared/errors.js';
import { benchCommand, benchFlags } from './bench.js';
import { dataCommand, dataFlags } from './data.js';
import { evalCommand, evalFlags } from './eval.js';
import { modelCommand, modelFlags } from './model.js';
import { predictCommand, predictFlags } from './predict.js';
import { runsCommand, runsFlags } from './runs.js';
import { toldErrors, trainCommand, trainFlags } from './train.js';

const exitCodes = { failed: 1, usage: 2, interrupted: 130, closedPipe: 141 } as const;
/** What the command line itself got wrong. */
const usageCodes = new Set<ErrorCode>(['LOCKSTEP_USAGE', 'LOCKSTEP_BAD_SETTING', 'LOCKSTEP_BAD_INJECT']);

const flagsOf: Record<string, string[] | undefined> = {
  train: trainFlags,
  model: modelFlags,
  bench: benchFlags,
  data: dataFlags,
  eval: evalFlags,
  predict: predictFlags,
  runs: runsFlags,
};

const argv = hideBin(process.argv);
const isJson = argv.some(argument => /^--json(=true)?$/.test(argument));

// Whoever reads our output may close it early (`| head -n 1`): that is no error.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') process.stderr.write(`Cannot write the output: ${error.message}\n`);
  process.exit(error.code === 'EPIPE' ? exitCodes.closedPipe : exitCodes.failed);
});

try {
  await yargs(argv)
    .scriptName('lockstep')
    .usage('$0 <command>\n\nExact data-parallel training: the same bits for any number of workers.')
    .command(trainCommand)
    .command(modelCommand)
    .command(benchCommand)
    .command(dataCommand)
    .command(evalCommand)
    .command(predictCommand)
    .command(runsCommand)
    .demandCommand(1, 'Name a command.')
    .recommendCommands()
    .strict()
    .parserConfiguration({ 'duplicate-arguments-array': false, 'boolean-negation': false })
    .wrap(Math.min(110, process.stdout.columns ?? 110))
    .fail((message: string | null, error: Error | undefined) => {
      // yargs passes on what a command threw, and its own YError, which is bad usage too.
      if (error && error.name !== 'YError') throw error;
      throw new LockstepError('LOCKSTEP_USAGE', explainUsage(message ?? error?.message ?? 'Bad usage.'));
    })
    .parseAsync();
} catch (error) {
  process.exitCode = report(error);
}

/** Tells the error, once, where it belongs; gives the exit code. */
function report(error: unknown): number {
  if (!(error instanceof LockstepError)) {
    process.stderr.write(`${error instanceof Error ? (error.stack ?? error.message) : messageOf(error)}\n`);
    return exitCodes.failed;
  }
  const { code, message } = error;
  if (isJson && !toldErrors.has(error)) {
    process.stdout.write(`${JSON.stringify({ type: 'error', code, message, step: 0, timeMs: 0 })}\n`);
  }
  if (!isJson) process.stderr.write(`${code}: ${message}\n`);
  if (code === 'LOCKSTEP_INTERRUPTED') return exitCodes.interrupted;
  return usageCodes.has(code) ? exitCodes.usage : exitCodes.failed;
}

/** Adds the nearest flag to yargs' message about an unknown one. */
function explainUsage(message: string): string {
  const unknown = argv
    .filter(argument => argument.startsWith('-'))
    .map(argument => argument.replace(/^-+/, '').replace(/=.*/, ''))
    .find(name => message.startsWith('Unknown argument') && message.includes(name));
  const [command] = argv;
  const flags = flagsOf[command];
  const help = `\`lockstep ${flags ? `${command} ` : ''}--help\` lists what there is.`;
  if (unknown === undefined) return `${message} ${help}`;
  const nearest = flags ? ` The nearest is --${closest(unknown, flags)}.` : '';
  return `Unknown flag --${unknown}.${nearest} ${help}`;
}

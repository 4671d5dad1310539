#!/usr/bin/env node
// The command line: one file a command, usage errors in one place.

// oxlint-disable-next-line import/no-unassigned-import -- it hides a key, before everything else is loaded
import './join-line.js';
import { closest } from 'fastest-levenshtein';
import { hideBin } from 'yargs/helpers';
import yargs from 'yargs';
import { VerifyError } from '../library/index.js';
import { LockstepError, messageOf, type ErrorCode } from '../shared/errors.js';
import { benchCommand, benchFlags } from './bench.js';
import { COMPLETE, complete, completionCommand, completionFlags, type CommandFlags } from './completion.js';
import { dataCommand, dataFlags } from './data.js';
import { doctorCommand, doctorFlags } from './doctor.js';
import { evalCommand, evalFlags } from './eval.js';
import { exportCommand, exportFlags } from './export.js';
import { columnsOr } from './format.js';
import { modelCommand, modelFlags } from './model.js';
import { predictCommand, predictFlags } from './predict.js';
import { reportCommand, reportFlags } from './report.js';
import { runsCommand, runsFlags } from './runs.js';
import { setupCommand, setupFlags } from './setup.js';
import { studyCommand, studyFlags } from './study.js';
import { toldErrors, trainCommand, trainFlags } from './train.js';
import { verifyCommand, verifyFlags } from './verify.js';
import { workerCommand, workerFlags } from './worker.js';

const exitCodes = { failed: 1, usage: 2, interrupted: 130, closedPipe: 141 } as const;
/** What the command line itself got wrong. */
const usageCodes = new Set<ErrorCode>([
  'LOCKSTEP_USAGE',
  'LOCKSTEP_BAD_SETTING',
  'LOCKSTEP_BAD_INJECT',
  'LOCKSTEP_CONFIG_FILE',
  'LOCKSTEP_JOIN_LINE',
]);

const flagsOf: CommandFlags = {
  train: trainFlags,
  worker: workerFlags,
  model: modelFlags,
  bench: benchFlags,
  data: dataFlags,
  eval: evalFlags,
  predict: predictFlags,
  export: exportFlags,
  report: reportFlags,
  runs: runsFlags,
  verify: verifyFlags,
  study: studyFlags,
  doctor: doctorFlags,
  setup: setupFlags,
  completion: completionFlags,
};

const argv = hideBin(process.argv);
const isJson = argv.some(argument => /^--json(=true)?$/.test(argument));

// Whoever reads our output may close it early (`| head -n 1`): that is no error.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') process.stderr.write(`Cannot write the output: ${error.message}\n`);
  process.exit(error.code === 'EPIPE' ? exitCodes.closedPipe : exitCodes.failed);
});

try {
  if (argv[0] === COMPLETE) {
    process.stdout.write(
      complete(argv.slice(1), flagsOf)
        .map(line => `${line}\n`)
        .join(''),
    );
  } else {
    await obey();
  }
} catch (error) {
  process.exitCode = report(error);
}

async function obey(): Promise<void> {
  refuseRepeatedFlags();
  // Without a word, all commands are shown.
  await yargs(argv.length > 0 ? argv : ['--help'])
    .scriptName('lockstep')
    .usage('$0 <command>\n\nExact data-parallel training: the same bits for any number of workers.')
    .command(trainCommand)
    .command(workerCommand)
    .command(modelCommand)
    .command(benchCommand)
    .command(dataCommand)
    .command(evalCommand)
    .command(predictCommand)
    .command(exportCommand)
    .command(reportCommand)
    .command(runsCommand)
    .command(verifyCommand)
    .command(studyCommand)
    .command(doctorCommand)
    .command(setupCommand)
    .command(completionCommand)
    .demandCommand(1, 'Name a command.')
    .recommendCommands()
    .strict()
    .parserConfiguration({ 'duplicate-arguments-array': false, 'boolean-negation': false })
    .wrap(Math.min(110, columnsOr(110)))
    .fail((message: string | null, error: Error | undefined) => {
      // yargs passes on what a command threw, and its own YError, which is bad usage too.
      if (error && error.name !== 'YError') throw error;
      throw new LockstepError('LOCKSTEP_USAGE', explainUsage(message ?? error?.message ?? 'Bad usage.'));
    })
    .parseAsync();
}

/** Tells the error, once, where it belongs; gives the exit code. */
function report(error: unknown): number {
  const isCoded = error instanceof LockstepError;
  const code = isCoded ? error.code : 'LOCKSTEP_INTERNAL';
  const message = messageOf(error);
  if (isJson && !(error instanceof Error && toldErrors.has(error))) {
    const step = error instanceof VerifyError ? error.step : 0;
    process.stdout.write(`${JSON.stringify({ type: 'error', code, message, step, timeMs: 0 })}\n`);
  }
  if (!isCoded) {
    process.stderr.write(`${error instanceof Error ? (error.stack ?? message) : message}\n`);
    return exitCodes.failed;
  }
  if (!isJson) process.stderr.write(`${code}: ${message}\n`);
  if (code === 'LOCKSTEP_INTERRUPTED') return exitCodes.interrupted;
  return usageCodes.has(error.code) ? exitCodes.usage : exitCodes.failed;
}

/** `bench` and `report` take lists: of a flag given twice, yargs would silently keep the second, or both. */
function refuseRepeatedFlags(): void {
  if (argv[0] !== 'bench' && argv[0] !== 'report') return;
  const given = argv.map(argument => /^--([a-z-]+)/.exec(argument)?.[1]).filter(name => name !== undefined);
  const twice = given.find((name, index) => given.indexOf(name) < index);
  if (twice === undefined) return;
  const isList = argv[0] === 'bench' && ['workers', 'batch', 'leaf'].includes(twice);
  const advice = isList ? `write --${twice} 1,2` : 'give it once';
  throw new LockstepError('LOCKSTEP_USAGE', `Flag --${twice} is given twice: ${advice}.`);
}

/** Adds the nearest command or flag to yargs' message about an unknown one. */
function explainUsage(message: string): string {
  const [command] = argv;
  const flags = Object.hasOwn(flagsOf, command) ? Object.keys(flagsOf[command]) : undefined;
  const help = `\`lockstep ${flags ? `${command} ` : ''}--help\` lists what there is.`;
  if (!flags && !command.startsWith('-')) {
    // A join line that stands alone is not repeated: it holds a key.
    const named = command.length < 40 ? ` ${command}` : '';
    return `Unknown command${named}. The nearest is ${closest(command, Object.keys(flagsOf))}. ${help}`;
  }
  const unknown = argv
    .filter(argument => argument.startsWith('-'))
    .map(argument => argument.replace(/^-+/, '').replace(/=.*/, ''))
    .find(name => message.startsWith('Unknown argument') && message.includes(name));
  if (unknown === undefined && command === 'worker' && message.startsWith('Unknown argument')) {
    return `Give one join line, in single quotes, and flags. ${help}`;
  }
  if (unknown === undefined) return `${message}${/[.?!]$/.test(message) ? '' : '.'} ${help}`;
  const nearest = flags ? ` The nearest is --${closest(unknown, flags)}.` : '';
  return `Unknown flag --${unknown}.${nearest} ${help}`;
}

// What benchmark scripts share: their flags, their ends, and how figures are shown and kept.

import { parseArgs } from 'node:util';
import Table from 'cli-table3';
import { spreadOf } from '../dist/library/scaling.js';
import { openOutput } from '../dist/report/output.js';
import { LockstepError } from '../dist/shared/errors.js';

/** An end that the user can do something about: told in one line, without a stack, with exit code 1. */
export class Stop extends Error {}

/** What the user asked for cannot be: exit code 2, as the command line has it, before anything is done. */
export class BadUsage extends Stop {}

/** Calls `body` with the flags; any `Stop`, and any setting that Lockstep refuses, becomes a line and an exit code. */
export async function runBenchmark({ command, usage, options, body }) {
  try {
    const values = parseFlags(command, options);
    if (values.help) console.log(usage);
    else await body(values);
  } catch (error) {
    if (!(error instanceof Stop || error instanceof LockstepError)) throw error;
    console.error(`error: ${error.message}`);
    process.exitCode = error instanceof BadUsage || error.code === 'LOCKSTEP_BAD_SETTING' ? 2 : 1;
  }
}

function parseFlags(command, options) {
  try {
    return parseArgs({ options: { ...options, help: { type: 'boolean', short: 'h' } } }).values;
  } catch (error) {
    const [reason] = error.message.split(/\. |\n/);
    throw new BadUsage(`${reason.replace(/\.$/, '')}. See npm run ${command} -- --help.`, { cause: error });
  }
}

/** '1,2' -> [1, 2]: whole numbers from 1, none twice. */
export function numberList(flag, text) {
  const parts = text.split(',').map(part => part.trim());
  if (!parts.every(part => /^[1-9]\d{0,5}$/.test(part))) {
    throw new BadUsage(`--${flag} is '${text}', expected whole numbers from 1 with commas between them.`);
  }
  return [...new Set(parts.map(Number))];
}

export function wholeNumber(flag, text, least) {
  if (!/^\d{1,9}$/.test(text) || Number(text) < least) {
    throw new BadUsage(`--${flag} is '${text}', expected a whole number from ${least}.`);
  }
  return Number(text);
}

export function nameList(flag, text, names) {
  const parts = text.split(',').map(part => part.trim());
  const unknown = parts.find(part => !names.includes(part));
  if (unknown !== undefined)
    throw new BadUsage(`--${flag} names '${unknown}', expected some of ${names.join(', ')}.`);
  return [...new Set(parts)];
}

/** A file for what will be measured, open before that; undefined where none is wanted. */
export function outputFor(flag, path) {
  if (path === undefined) return undefined;
  try {
    return openOutput(path);
  } catch (cause) {
    throw new BadUsage(`--${flag} is '${path}', which cannot be written: ${cause.message}.`, { cause });
  }
}

/** Writes what was measured; by now the table has been printed. */
export function writeOutput(output, text) {
  try {
    output.write(text);
  } catch (cause) {
    throw new Stop(`${output.path} cannot be written: ${cause.message}.`, { cause });
  }
  note(`written: ${output.path}`);
}

/** Does `work`, which fills `outputs`; if it fails, those that it would have made are removed. */
export async function withOutputs(outputs, work) {
  try {
    await work();
  } catch (error) {
    for (const output of outputs) output?.discard();
    throw error;
  }
}

/** Progress and remarks, apart from results. */
export function note(text) {
  process.stderr.write(`${text}\n`);
}

export function lastLine(text) {
  return (text ?? '').trimEnd().split('\n').at(-1);
}

export function median(values) {
  return spreadOf(values).median;
}

/** `rightFrom`: the first column of numbers. */
export function table(head, rows, rightFrom) {
  const colAligns = head.map((_, column) => (column < rightFrom ? 'left' : 'right'));
  const result = new Table({ head, colAligns, style: { head: [], border: [] } });
  result.push(...rows);
  return result.toString();
}

// What commands have in common: flags, tables, and how numbers and chosen values are put into words and options.

import { join, relative } from 'node:path';
import Table from 'cli-table3';
import colors from 'picocolors';
import type { WeightsSource } from '../library/index.js';
import { LockstepError } from '../shared/errors.js';
import { integer } from '../shared/format.js';
import { presetNames } from '../shared/presets.js';

export { integer, percent, plural, withoutUndefined } from '../shared/format.js';

export const jsonFlag = { type: 'boolean', describe: 'Print one JSON object' } as const;

export const modelHelp = `The model: ${presetNames.join(', ')}, or a file that ends with .json`;

/** Of the terminal on standard output, which may not know (0) or not be there: then `otherwise`. */
export function columnsOr(otherwise: number): number {
  return process.stdout.columns || otherwise;
}

/** The value of --workers. @throws LOCKSTEP_BAD_SETTING */
export function toWorkers(text: string): number | 'auto' {
  if (text === 'auto') return text;
  if (/^\d+$/.test(text)) return Number(text);
  throw new LockstepError(
    'LOCKSTEP_BAD_SETTING',
    `Setting workers is '${text}', expected a number or 'auto'.`,
  );
}

/** Which weights a command used. */
export function describeWeights({
  model,
  runDir,
  file,
  step,
  totalSteps,
  isFinished,
}: WeightsSource): string {
  const steps = isFinished
    ? `all ${integer(totalSteps)} steps`
    : `${integer(step)} of ${integer(totalSteps)} steps`;
  return `${colors.bold(model)} after ${steps}: ${join(relative('.', runDir) || '.', file)}`;
}

export function warningLine(message: string): string {
  return `${colors.yellow('warning')}  ${message}`;
}

/** A table with lines around its columns and none between its rows. */
export function newTable(head: string[], colAligns: ('left' | 'right')[] = head.map(() => 'right')) {
  return new Table({ head, colAligns, style: { head: [], border: [], compact: true } });
}

// How numbers and chosen values are put into words and options, for every command.

import { join, relative } from 'node:path';
import colors from 'picocolors';
import type { WeightsSource } from '../library/index.js';
import { LockstepError } from '../shared/errors.js';
import { presetNames } from '../shared/presets.js';

export const modelHelp = `The model: ${presetNames.join(', ')}, or a file that ends with .json`;

export function integer(value: number): string {
  return Math.round(value).toLocaleString('en-US');
}

export function percent(fraction: number, digits = 2): string {
  return `${(fraction * 100).toFixed(digits)} %`;
}

export function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`;
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

type Defined<T> = { [Key in keyof T]?: Exclude<T[Key], undefined> };

export function withoutUndefined<T extends object>(values: T): Defined<T> {
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- fromEntries loses the key types
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as Defined<T>;
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

export function warningLines(warnings: readonly string[]): string[] {
  return warnings.map(message => `${colors.yellow('warning')}  ${message}`);
}

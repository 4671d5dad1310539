// How numbers and chosen values are put into words and options, for every command.

import { presetNames } from '../shared/presets.js';

export const modelHelp = `The model: ${presetNames.join(', ')}, or a file that ends with .json`;

/** Of a terminal, which may not know (0); elsewhere what a wide one has. */
export function columnsOf(stream: { readonly columns?: number }): number {
  return stream.columns || 110;
}

export function integer(value: number): string {
  return Math.round(value).toLocaleString('en-US');
}

export function percent(fraction: number, digits = 2): string {
  return `${(fraction * 100).toFixed(digits)} %`;
}

export function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`;
}

type Defined<T> = { [Key in keyof T]?: Exclude<T[Key], undefined> };

export function withoutUndefined<T extends object>(values: T): Defined<T> {
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- fromEntries loses the key types
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as Defined<T>;
}

// What the parts of a report have in common: the document they are for, and how much of everything it has room for.

import { integer } from '../shared/format.js';
import type { Block, Figure } from './document.js';
import type { ReportedRun } from './reported-run.js';

export interface Page {
  /** Puts figures, whose names the document must tell apart, into a block. */
  readonly figures: (figures: readonly Figure[]) => Block;
  /** Of what may come in any number, so many are shown, in a page that has room for `count` of them. */
  readonly most: (count: number) => number;
}

/** Of more epochs the points are not marked. */
export const MOST_MARKED = 40;

/** `detail`: 1, or the share of what is shown that is left where that was too much. */
export function pageOf(prefix: string, detail: number): Page {
  return {
    figures: figures => ({
      type: 'figures',
      figures: figures.map(({ name, ...rest }) => ({ name: `${prefix}${name}`, ...rest })),
    }),
    most: count => Math.max(2, Math.round(count * detail)),
  };
}

/** At most so many of them, at equal distances, the first and the last among them. */
export function evenly<T>(items: readonly T[], most: number): readonly T[] {
  if (items.length <= most) return items;
  return Array.from(
    { length: most },
    (_, index) => items[Math.round((index * (items.length - 1)) / (most - 1))],
  );
}

/** At most so many groups of neighbours, of equal length but for the last. */
export function groups<T>(items: readonly T[], most: number): T[][] {
  const length = Math.max(1, Math.ceil(items.length / most));
  return Array.from({ length: Math.ceil(items.length / length) }, (_, index) =>
    items.slice(index * length, (index + 1) * length),
  );
}

/** What to add where not all are shown. */
export function shownOf(shown: number, all: number, which: string): string {
  return shown < all ? `; ${which}${integer(shown)} of ${integer(all)}` : '';
}

/** Of the weights with which the test set was evaluated, where they are not the newest. */
export function testedAt({ test, step }: Pick<ReportedRun, 'test' | 'step'>): string {
  return typeof test === 'string' || test.step === step ? '' : ` (after step ${integer(test.step)})`;
}

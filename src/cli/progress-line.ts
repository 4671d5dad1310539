// A line of progress that fits into its terminal, so that it never wraps.

export interface Part {
  readonly text: string;
  /** Where there is no room for all, those of the highest rank are left out. */
  readonly rank: number;
}

const GAP = '  ';
const LONGEST_BAR = 20;
const SHORTEST_BAR = 5;

/**
 * A bar, as long as there is room for it, and the parts in their order. A part is left out with all of higher rank; the
 * one of the lowest rank is always there.
 */
export function progressLine(
  parts: readonly Part[],
  drawBar: (length: number) => string,
  columns: number,
): string {
  let shown = parts;
  const lineOf = (): string => shown.map(({ text }) => text).join(GAP);
  while (shown.length > 1 && lineOf().length > columns) {
    const highest = Math.max(...shown.map(({ rank }) => rank));
    shown = shown.filter(({ rank }) => rank < highest);
  }
  const line = lineOf();
  const barLength = Math.min(LONGEST_BAR, columns - line.length - 1);
  return barLength < SHORTEST_BAR ? line : `${drawBar(barLength)} ${line}`;
}

// How numbers and chosen values are put into words and options, for every command.

import { presetNames } from '../shared/presets.js';

export { integer, percent, plural, withoutUndefined } from '../shared/format.js';

export const modelHelp = `The model: ${presetNames.join(', ')}, or a file that ends with .json`;

/** Of a terminal, which may not know (0); elsewhere what a wide one has. */
export function columnsOf(stream: { readonly columns?: number }): number {
  return stream.columns || 110;
}

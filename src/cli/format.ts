// How numbers and chosen values are put into words and options, for every command.

export { integer, percent, plural, withoutUndefined } from '../shared/format.js';

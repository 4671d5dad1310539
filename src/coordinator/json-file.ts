// JSON files that people write: read once, with the place of what is wrong in them.

import { readFileSync } from 'node:fs';
import { closest } from 'fastest-levenshtein';
import { LockstepError, messageOf, type ErrorCode } from '../shared/errors.js';

export interface JsonFileKind {
  /** Of every error. */
  readonly code: ErrorCode;
  readonly noun: string;
  /** What the object in it has. */
  readonly content: string;
}

/**
 * The object in a file. A byte-order mark and Windows line ends are fine, and the key `$schema`, which editors read, is
 * dropped.
 * @throws the kind's code, naming the file
 */
export function readJsonObject(path: string, { code, noun, content }: JsonFileKind): object {
  const fail = (message: string, cause?: unknown): never => {
    throw new LockstepError(code, message, { cause });
  };
  const text = attempt(
    // The decoder drops a byte-order mark.
    () => new TextDecoder().decode(readFileSync(path)),
    cause => fail(`Cannot read the ${noun} ${path}: ${messageOf(cause)}.`, cause),
  );
  const value = attempt(
    (): unknown => JSON.parse(text),
    cause => {
      const message = messageOf(cause).replaceAll(/\s+/g, ' ');
      return fail(`${path}${placeIn(text, message)}: this is no JSON: ${message}.`, cause);
    },
  );
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    return fail(`${path} is ${describeJson(value)}, expected an object with ${content}.`);
  }
  const { $schema: _, ...given }: { $schema?: unknown } = value;
  return given;
}

/** A value that was found, in a few words. */
export function describeJson(value: unknown): string {
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'object' && value !== null) return 'an object';
  return typeof value === 'string' ? JSON.stringify(value) : String(value);
}

/** Case does not count: `Conv2D` is nearest to conv2d. */
export function nearest(name: string, names: readonly string[]): string {
  const lower = closest(
    name.toLowerCase(),
    names.map(other => other.toLowerCase()),
  );
  return names.find(other => other.toLowerCase() === lower)!;
}

function attempt<T>(work: () => T, otherwise: (cause: unknown) => T): T {
  try {
    return work();
  } catch (cause) {
    return otherwise(cause);
  }
}

/** `, line 3, column 7`, where the parser tells a position. */
function placeIn(text: string, message: string): string {
  const position = /at position (\d+)/.exec(message)?.[1];
  if (position === undefined) return '';
  const before = text.slice(0, Number(position)).split('\n');
  return `, line ${before.length}, column ${before.at(-1)!.length + 1}`;
}

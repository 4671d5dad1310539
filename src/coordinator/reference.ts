// What a node's arithmetic must be to join: its name, and the bits of known leaves.

import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as v from 'valibot';
import { LockstepError, messageOf } from '../shared/errors.js';
import { hex64 } from '../shared/hash.js';

const checkSchema = v.strictObject({
  profile: v.string(),
  digests: v.pipe(v.array(v.pipe(v.string(), v.regex(hex64))), v.length(3)),
});

/** What a node says of its arithmetic. */
export interface Check {
  readonly profile: string;
  readonly digests: readonly string[];
}

/** In words behind the node's name; undefined where both are the same arithmetic. */
export function differenceOf(check: Check, wanted: Check): string | undefined {
  if (check.profile !== wanted.profile) {
    return `computes with ${check.profile}, and this run with ${wanted.profile}`;
  }
  if (check.digests.every((digest, i) => digest === wanted.digests[i])) return undefined;
  return 'has other bits of the known leaves than this run: its engine, processor or version of lockstep computes otherwise';
}

/**
 * Of this machine's own engine, computed when the first node asks. Where it has none, the check of the first node that
 * joins is the run's: it is kept in its folder.
 * @throws LOCKSTEP_FILE_DAMAGED; what `compute` throws
 */
export function referenceOf(
  runDir: string,
  compute: (() => Promise<Check>) | undefined,
): (ofNode: Check) => Promise<Check> {
  let known: Promise<Check> | undefined;
  return ofNode => (known ??= compute ? compute() : keptOf(runDir, ofNode));
}

async function keptOf(runDir: string, ofFirst: Check): Promise<Check> {
  const path = join(runDir, 'reference.json');
  if (!existsSync(path)) writeFileSync(path, `${JSON.stringify(ofFirst)}\n`);
  return readReference(runDir)!;
}

/** Undefined where the run has none of its own. @throws LOCKSTEP_FILE_DAMAGED */
export function readReference(runDir: string): Check | undefined {
  const path = join(runDir, 'reference.json');
  if (!existsSync(path)) return undefined;
  try {
    return v.parse(checkSchema, JSON.parse(readFileSync(path, 'utf8')));
  } catch (cause) {
    const text = `${path} cannot be used (${messageOf(cause)}). Remove it, and the next node that joins sets the reference.`;
    throw new LockstepError('LOCKSTEP_FILE_DAMAGED', text, { cause });
  }
}

// The digests of the known leaves that a node must give to join.

import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as v from 'valibot';
import { LockstepError, messageOf } from '../shared/errors.js';

export type Digests = readonly string[];

const FILE = 'reference.json';
const fileSchema = v.strictObject({
  digests: v.pipe(v.array(v.pipe(v.string(), v.regex(/^[0-9a-f]{16}$/))), v.length(3)),
});

/**
 * Of this machine's own engine, computed when the first node asks. Where it has none, those of the first node that
 * joins are the run's: they are kept in its folder.
 * @throws LOCKSTEP_FILE_DAMAGED, LOCKSTEP_RUN_FOLDER; what `compute` throws
 */
export function referenceOf(
  runDir: string,
  compute: (() => Promise<Digests>) | undefined,
): (ofNode: Digests) => Promise<Digests> {
  let known: Promise<Digests> | undefined;
  return ofNode => (known ??= compute ? compute() : kept(join(runDir, FILE), ofNode));
}

async function kept(path: string, ofFirst: Digests): Promise<Digests> {
  if (!existsSync(path)) {
    try {
      writeFileSync(path, `${JSON.stringify({ digests: ofFirst })}\n`);
    } catch (cause) {
      throw new LockstepError('LOCKSTEP_RUN_FOLDER', `Cannot write ${path}: ${messageOf(cause)}.`, { cause });
    }
    return ofFirst;
  }
  try {
    return v.parse(fileSchema, JSON.parse(readFileSync(path, 'utf8'))).digests;
  } catch (cause) {
    const text = `${path} is not as it was written. Remove it, and the next node that joins sets the reference.`;
    throw new LockstepError('LOCKSTEP_FILE_DAMAGED', text, { cause });
  }
}

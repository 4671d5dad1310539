// The digests of the known leaves that a node must give to join.

import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as v from 'valibot';
import { LockstepError, messageOf } from '../shared/errors.js';
import { hex64 } from '../shared/hash.js';

export type Digests = readonly string[];

const digestsSchema = v.pipe(v.array(v.pipe(v.string(), v.regex(hex64))), v.length(3));

/**
 * Of this machine's own engine, computed when the first node asks. Where it has none, those of the first node that
 * joins are the run's: they are kept in its folder.
 * @throws LOCKSTEP_FILE_DAMAGED; what `compute` throws
 */
export function referenceOf(
  runDir: string,
  compute: (() => Promise<Digests>) | undefined,
): (ofNode: Digests) => Promise<Digests> {
  let known: Promise<Digests> | undefined;
  return ofNode => (known ??= compute ? compute() : keptOf(join(runDir, 'reference.json'), ofNode));
}

async function keptOf(path: string, ofFirst: Digests): Promise<Digests> {
  try {
    if (!existsSync(path)) writeFileSync(path, `${JSON.stringify(ofFirst)}\n`);
    return v.parse(digestsSchema, JSON.parse(readFileSync(path, 'utf8')));
  } catch (cause) {
    const text = `${path} cannot be used (${messageOf(cause)}). Remove it, and the next node that joins sets the reference.`;
    throw new LockstepError('LOCKSTEP_FILE_DAMAGED', text, { cause });
  }
}

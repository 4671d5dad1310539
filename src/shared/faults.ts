// Injected faults: one named place where a thread is made to fail, for tests and for the curious.

import { LockstepError } from './errors.js';

export const faultKinds = ['exit', 'throw', 'trap', 'hang'] as const;
export const phases = ['leaf', 'reduce', 'update', 'hash', 'evaluate'] as const;

export type FaultKind = (typeof faultKinds)[number];
export type Phase = (typeof phases)[number];

/** Thread `thread`, or any that comes by, fails in the first phase `phase` at or after step `step` (counted from 1). */
export interface Fault {
  readonly kind: FaultKind;
  readonly thread: number | 'any';
  readonly step: number;
  readonly phase: Phase;
  /** So many threads fail, one after another or at once. */
  readonly times: number;
}

const pattern = /^(?<kind>\w+):(?<places>\w+=\w+(?:,\w+=\w+)*)$/;

/**
 * Reads `KIND:thread=1,step=300,phase=PHASE[,times=1]`, as LOCKSTEP_INJECT gives it.
 * @throws LOCKSTEP_BAD_INJECT
 */
export function parseFault(text: string): Fault {
  const fail = (what: string): never => {
    throw new LockstepError(
      'LOCKSTEP_BAD_INJECT',
      `LOCKSTEP_INJECT='${text}': ${what}. Write KIND:thread=N,step=N,phase=PHASE[,times=N] ` +
        `with KIND ${faultKinds.join(', ')} and PHASE ${phases.join(', ')}.`,
    );
  };
  const match = pattern.exec(text)?.groups ?? fail('not of that form');
  const places = new Map<string, string>();
  for (const [, name, value] of match['places'].matchAll(/(\w+)=(\w+)/g)) {
    if (places.has(name)) fail(`${name} stands twice`);
    places.set(name, value);
  }
  const unknown = [...places.keys()].find(name => !['thread', 'step', 'phase', 'times'].includes(name));
  if (unknown !== undefined) fail(`${unknown} is no place`);
  const integer = (name: string, least: number, otherwise?: number): number => {
    const held = places.get(name);
    if (held === undefined) return otherwise ?? fail(`${name} is missing`);
    return /^\d{1,9}$/.test(held) && Number(held) >= least
      ? Number(held)
      : fail(`${name} must be a whole number from ${least}`);
  };
  const kind = faultKinds.find(known => known === match['kind']) ?? fail('unknown KIND');
  const phase = phases.find(known => known === places.get('phase')) ?? fail('unknown or missing phase');
  return {
    kind,
    phase,
    thread: places.get('thread') === 'any' ? 'any' : integer('thread', 0),
    step: integer('step', 1),
    times: integer('times', 1, 1),
  };
}

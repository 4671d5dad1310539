// Properties on random inputs. A failure prints its seed; LOCKSTEP_TEST_SEED, when set, is the seed of every property.

import fc from 'fast-check';

export interface PropertyOptions {
  /** How many random inputs. */
  readonly runs?: number;
  /** Draws the same inputs again; by default LOCKSTEP_TEST_SEED, else another one every time. */
  readonly seed?: number;
}

/** Throws, with the smallest input that breaks the property, its seed and how to replay it. */
export function checkProperty<Inputs>(property: fc.IProperty<Inputs>, options: PropertyOptions = {}): void {
  const { runs = 100, seed = seedOfEnvironment() } = options;
  const details = fc.check(property, { numRuns: runs, ...(seed !== undefined && { seed }) });
  if (!details.failed) return;
  throw new Error(
    `${fc.defaultReportMessage(details)}\n` +
      `To replay: LOCKSTEP_TEST_SEED=${details.seed} npm test -- <part of the test file's name>`,
    { cause: details.errorInstance },
  );
}

function seedOfEnvironment(): number | undefined {
  const text = process.env['LOCKSTEP_TEST_SEED'];
  if (text === undefined || text === '') return undefined;
  if (!/^-?\d+$/.test(text)) throw new Error(`LOCKSTEP_TEST_SEED is '${text}', expected an integer`);
  return Number(text);
}

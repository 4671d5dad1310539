// Seeded random data for tests. Every random test has a seed, says it when it fails, and replays from it.

import { createHash } from 'node:crypto';
import { basename } from 'node:path';
import { test, type TestContext } from 'node:test';
import * as fc from 'fast-check';
import { seedKey, wordsOf } from '#dist/shared/philox.js';

const chosenSeed = process.env.LOCKSTEP_TEST_SEED;
/** The seed of `randomTest`: always the same unless one asks for another. */
export const testSeed = Number(chosenSeed ?? 1);
if (!Number.isSafeInteger(testSeed))
  throw new Error(`LOCKSTEP_TEST_SEED is ${chosenSeed}, expected an integer`);

/** How to run this file's random tests again with the same data. */
function replayHint(seed: number): string {
  const file = basename(process.argv[1], '.test.js');
  return `seed ${seed}; replay with LOCKSTEP_TEST_SEED=${seed} npm test -- ${file}`;
}

/** A stream of random numbers that depends on the seed and on its name, so that tests do not disturb each other. */
export class Random {
  readonly #name: string;
  readonly #word: (index: number) => number;
  #drawn = 0;

  constructor(name: string, seed = testSeed) {
    this.#name = name;
    const digest = createHash('sha256').update(name).digest();
    this.#word = wordsOf(seedKey(seed), digest.readUInt32LE(0), digest.readUInt32LE(4), 0xffffffff);
  }

  /** A stream of its own: the same for the same name, however much was drawn before. */
  fork(name: string): Random {
    return new Random(`${this.#name} / ${name}`);
  }

  /** An unsigned 32-bit word. */
  word(): number {
    return this.#word(this.#drawn++);
  }

  /** An integer in [0, below). */
  integer(below: number): number {
    return Math.floor((this.word() * below) / 2 ** 32);
  }

  /** In (low, high). */
  uniform(low: number, high: number): number {
    return low + ((this.word() + 0.5) / 2 ** 32) * (high - low);
  }

  chance(probability: number): boolean {
    return this.word() < probability * 2 ** 32;
  }

  pick<T>(values: readonly T[]): T {
    return values[this.integer(values.length)];
  }

  floats(length: number, low: number, high: number): Float32Array {
    return Float32Array.from({ length }, () => this.uniform(low, high));
  }

  /** `length` distinct integers below `below`, in random order. */
  distinct(length: number, below: number): Uint32Array {
    const all = Uint32Array.from({ length: below }, (_, i) => i);
    for (let i = 0; i < length; i++) {
      const j = i + this.integer(below - i);
      [all[i], all[j]] = [all[j], all[i]];
    }
    return all.slice(0, length);
  }
}

/** A test on random data that is drawn from the seed and the promise's words. */
export function randomTest(
  promise: string,
  body: (random: Random, context: TestContext) => void | Promise<void>,
): void {
  test(promise, async context => {
    try {
      await body(new Random(promise), context);
    } catch (cause) {
      context.diagnostic(replayHint(testSeed));
      throw cause;
    }
  });
}

/** Throws with the smallest input that breaks the property. Other inputs every time, unless a seed is asked for. */
export async function checkAsyncProperty<T>(property: fc.IAsyncProperty<T>, runs: number): Promise<void> {
  const seed = chosenSeed === undefined ? {} : { seed: testSeed };
  const details = await fc.check(property, { numRuns: runs, ...seed });
  if (!details.failed) return;
  throw new Error(`${fc.defaultReportMessage(details)}\n${replayHint(details.seed)}`, {
    cause: details.errorInstance,
  });
}

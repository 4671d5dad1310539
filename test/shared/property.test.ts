// The support for properties on random inputs: a failure can be replayed.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import fc from 'fast-check';
import { messageOf } from '#dist/shared/errors.js';
import { checkProperty, type PropertyOptions } from '../support/property.js';

/** What a property says that fails for about every second input. */
function failure(options: PropertyOptions): string {
  const property = fc.property(fc.array(fc.integer(), { minLength: 4, maxLength: 9 }), numbers => {
    assert.ok(numbers.at(-1)! % 2 === 0);
  });
  try {
    checkProperty(property, options);
  } catch (error) {
    return messageOf(error);
  }
  return '';
}

test('a property that fails says its seed, and the seed gives the same failure again', () => {
  const first = failure({});
  const seed = /LOCKSTEP_TEST_SEED=(-?\d+) npm test/.exec(first)?.[1];
  assert.ok(seed !== undefined, first);
  assert.equal(failure({ seed: Number(seed) }), first);
});

test('LOCKSTEP_TEST_SEED decides the inputs of a property', () => {
  const code =
    "import fc from 'fast-check';" +
    `import { checkProperty } from '${new URL('../support/property.js', import.meta.url).href}';` +
    'checkProperty(fc.property(fc.integer(), n => { console.log(n); }), { runs: 5 });';
  const drawn = (seed: string) =>
    spawnSync(process.execPath, ['--input-type=module', '--eval', code], {
      encoding: 'utf8',
      env: { ...process.env, LOCKSTEP_TEST_SEED: seed },
    });
  const one = drawn('1').stdout;
  assert.match(one, /^(-?\d+\n){5}$/);
  assert.equal(drawn('1').stdout, one);
  assert.notEqual(drawn('2').stdout, one);
  assert.match(drawn('one').stderr, /LOCKSTEP_TEST_SEED is 'one', expected an integer/);
});

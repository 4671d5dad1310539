// Which bits a node must give to join: the coordinator's own, or those of the first node.

import assert from 'node:assert/strict';
import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { differenceOf, referenceOf } from '#dist/coordinator/reference.js';
import { inTemporaryFolder } from '../support/cli.js';

const checkOf = (profile: string, ...digits: string[]) => ({
  profile,
  digests: digits.map(digit => digit.repeat(16)),
});
const own = checkOf('own', '1', '2', '1');
const ofNode = checkOf('a node', 'a', 'b', 'a');
const ofOther = checkOf('another', 'c', 'd', 'c');

test('where the coordinator has the engine, its bits are computed once, when they are asked for', async () => {
  await inTemporaryFolder(async dir => {
    let computed = 0;
    const reference = referenceOf(dir, async () => {
      computed++;
      return own;
    });
    assert.equal(computed, 0);
    assert.deepEqual(await Promise.all([reference(ofNode), reference(ofOther)]), [own, own]);
    assert.equal(computed, 1);
    assert.deepEqual(readdirSync(dir), []);
  });
});

test("where it has none, the first node's bits are the run's, also after a restart", async () => {
  await inTemporaryFolder(async dir => {
    const reference = referenceOf(dir, undefined);
    assert.deepEqual(await reference(ofNode), ofNode);
    assert.deepEqual(await reference(ofOther), ofNode);
    assert.deepEqual(await referenceOf(dir, undefined)(ofOther), ofNode);
  });
});

test('nodes differ by the name of their arithmetic, or by its bits', () => {
  assert.equal(differenceOf(own, structuredClone(own)), undefined);
  assert.match(
    differenceOf({ ...own, profile: 'other' }, own)!,
    /^computes with other, and this run with own$/,
  );
  assert.match(differenceOf({ ...ofNode, profile: 'own' }, own)!, /other bits/);
});

test('a damaged file of them is told', async () => {
  await inTemporaryFolder(async dir => {
    for (const text of [
      '',
      '{}',
      '{"profile":"x","digests":["x","x","x"]}',
      JSON.stringify({ ...own, digests: own.digests.slice(1) }),
    ]) {
      writeFileSync(join(dir, 'reference.json'), text);
      const { message } = await referenceOf(
        dir,
        undefined,
      )(ofNode).then(
        () => assert.fail(),
        (error: Error & { code?: string }) => {
          assert.equal(error.code, 'LOCKSTEP_FILE_DAMAGED');
          return error;
        },
      );
      assert.match(message, /reference\.json cannot be used/);
    }
  });
});

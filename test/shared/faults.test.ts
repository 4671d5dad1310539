// What LOCKSTEP_INJECT may say.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { faultKinds, parseFault, phases } from '#dist/shared/faults.js';

test('a fault is read with all its places, in any order, once by default', () => {
  assert.deepEqual(parseFault('exit:thread=1,step=300,phase=leaf'), {
    kind: 'exit',
    thread: 1,
    step: 300,
    phase: 'leaf',
    times: 1,
  });
  assert.deepEqual(parseFault('hang:times=12,phase=evaluate,thread=0,step=1'), {
    kind: 'hang',
    thread: 0,
    step: 1,
    phase: 'evaluate',
    times: 12,
  });
});

test('every kind and phase can be injected', () => {
  for (const kind of faultKinds) {
    for (const phase of phases) {
      const fault = parseFault(`${kind}:thread=2,step=7,phase=${phase}`);
      assert.deepEqual([fault.kind, fault.phase], [kind, phase]);
    }
  }
});

const bad: [string, RegExp][] = [
  ['', /not of that form/],
  ['exit', /not of that form/],
  ['exit:', /not of that form/],
  ['exit:thread', /not of that form/],
  ['thread=1,step=3,phase=leaf', /not of that form/],
  [':thread=1,step=3,phase=leaf', /not of that form/],
  ['exit:thread=1,step=3,phase=leaf,', /not of that form/],
  ['exit:thread=1, step=3,phase=leaf', /not of that form/],
  ['exit:thread=1,step=3,phase=leaf\n', /not of that form/],
  ['exit:thread=-1,step=3,phase=leaf', /not of that form/],
  ['boom:thread=1,step=3,phase=leaf', /unknown KIND/],
  ['constructor:thread=1,step=3,phase=leaf', /unknown KIND/],
  ['exit:thread=1,step=3', /missing phase/],
  ['exit:thread=1,step=3,phase=lunch', /unknown or missing phase/],
  ['exit:step=3,phase=leaf', /thread is missing/],
  ['exit:thread=1,phase=leaf', /step is missing/],
  ['exit:thread=one,step=3,phase=leaf', /thread must be a whole number from 0/],
  ['exit:thread=1e1,step=3,phase=leaf', /thread must be a whole number from 0/],
  ['exit:thread=1,step=0,phase=leaf', /step must be a whole number from 1/],
  ['exit:thread=1,step=3,phase=leaf,times=0', /times must be a whole number from 1/],
  ['exit:thread=1,step=3,phase=leaf,color=red', /color is no place/],
];

for (const [text, why] of bad) {
  test(`${JSON.stringify(text)} is refused with a reason and the form to write`, () => {
    assert.throws(
      () => parseFault(text),
      (error: Error & { code?: string }) => {
        assert.equal(error.code, 'LOCKSTEP_BAD_INJECT');
        assert.match(error.message, why);
        assert.ok(error.message.includes(`'${text}'`));
        assert.match(error.message, /Write KIND:thread=N,step=N,phase=PHASE\[,times=N\]/);
        for (const word of [...faultKinds, ...phases]) assert.ok(error.message.includes(word), word);
        return true;
      },
    );
  });
}

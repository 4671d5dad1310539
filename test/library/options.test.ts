// What is handed to a call of the library is checked at the door: names of options, their types, the run folder.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { describeData, describeModel, doctor, evaluate, predict, work } from '#dist/library/index.js';

/** Calls as JavaScript makes them, whom no type stops. */
function call(of: (...args: never[]) => unknown, ...args: unknown[]): () => Promise<unknown> {
  return async () => Reflect.apply(of, undefined, args);
}

const cases: [string, () => Promise<unknown>, RegExp][] = [
  ['evaluate, misspelt', call(evaluate, 'run', { wrokers: 1 }), /^There is no setting wrokers\.$/],
  ['evaluate, workers', call(evaluate, 'run', { workers: 0 }), /^Setting workers is 0, expected a whole/],
  ['evaluate, no folder', call(evaluate), /^Setting runDir is undefined, expected a path\.$/],
  ['evaluate, offset', call(evaluate, 'run', { labelOffset: -1 }), /^Setting labelOffset is -1, expected/],
  ['predict, misspelt', call(predict, 'run', 0, { asis: true }), /^There is no setting asis\.$/],
  ['predict, workers', call(predict, 'run', 0, { workers: 2 }), /^There is no setting workers\.$/],
  ['predict, as is', call(predict, 'run', 0, { asIs: 1 }), /^Setting asIs is 1, expected true or false\.$/],
  ['predict, no folder', call(predict, undefined, 0), /^Setting runDir is undefined, expected a path\.$/],
  ['doctor, misspelt', call(doctor, { runDir: 'x' }), /^There is no setting runDir\.$/],
  ['doctor, folder', call(doctor, { runsDir: 5 }), /^Setting runsDir is 5, expected a path\.$/],
  ['doctor, signal', call(doctor, { signal: {} }), /^Setting signal is Object, expected an AbortSignal\.$/],
  ['work, misspelt', call(work, 'line', { worker: 1 }), /^There is no setting worker\.$/],
  ['work, workers', call(work, 'line', { workers: 0 }), /^Setting workers is 0, expected a whole/],
  ['work, name', call(work, 'line', { name: 'a b' }), /^Setting name is "a b", expected up to 100 letters/],
  ['work, callback', call(work, 'line', { onStatus: 1 }), /^Setting onStatus is 1, expected a function\.$/],
  ['data, folder', call(describeData, 5), /^Setting data is 5, expected a path\.$/],
  ['data, offset', call(describeData, 'folder', Number.NaN), /^Setting labelOffset is NaN, expected a whole/],
  ['model, folder', call(describeModel, 'mlp', 5), /^Setting data is 5, expected a path\.$/],
  ['model, offset', call(describeModel, 'mlp', 'folder', 0.5), /^Setting labelOffset is 0\.5, expected/],
];

for (const [name, attempt, message] of cases) {
  test(`refused by name: ${name}`, async () => {
    await assert.rejects(attempt, { code: 'LOCKSTEP_BAD_SETTING', message });
  });
}

// Confusion matrices and what follows from them, on counts whose answer is known.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { classResults, confusedPairs, confusionOf } from '#dist/shared/confusion.js';

const labels = Uint8Array.of(0, 0, 0, 1, 1, 2);
const predicted = Uint8Array.of(0, 1, 1, 1, 0, 0);
const confusion = confusionOf(labels, predicted, 4);

test('rows are labels, columns are predictions', () => {
  assert.deepEqual(confusion, [
    [1, 2, 0, 0],
    [1, 1, 0, 0],
    [1, 0, 0, 0],
    [0, 0, 0, 0],
  ]);
});

test('recall is a share of the row, precision of the column, null where there is none', () => {
  assert.deepEqual(classResults(confusion), [
    { class: 0, samples: 3, predicted: 3, correct: 1, recall: 1 / 3, precision: 1 / 3 },
    { class: 1, samples: 2, predicted: 3, correct: 1, recall: 1 / 2, precision: 1 / 3 },
    { class: 2, samples: 1, predicted: 0, correct: 0, recall: 0, precision: null },
    { class: 3, samples: 0, predicted: 0, correct: 0, recall: null, precision: null },
  ]);
});

test('the most frequent confusion comes first, and the diagonal is none', () => {
  assert.deepEqual(confusedPairs(confusion), [
    { label: 0, predicted: 1, samples: 2 },
    { label: 1, predicted: 0, samples: 1 },
    { label: 2, predicted: 0, samples: 1 },
  ]);
});

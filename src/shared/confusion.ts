// How well each class is told from the others, out of labels and predictions.

import { sum } from './sum.js';

export interface ClassResult {
  readonly class: number;
  /** Samples whose label is this class. */
  readonly samples: number;
  /** Samples for which this class was predicted. */
  readonly predicted: number;
  readonly correct: number;
  /** The share of the class's samples that is predicted right; null where it has none. */
  readonly recall: number | null;
  /** The share of the predictions of this class that is right; null where there are none. */
  readonly precision: number | null;
}

/** Counts of samples: a row for each label, in it a column for each predicted class. */
export type Confusion = readonly (readonly number[])[];

export function confusionOf(labels: Uint8Array, predicted: Uint8Array, classes: number): Confusion {
  const matrix = Array.from({ length: classes }, () => Array.from({ length: classes }, () => 0));
  for (const [sample, label] of labels.entries()) matrix[label][predicted[sample]]++;
  return matrix;
}

export function classResults(confusion: Confusion): ClassResult[] {
  return confusion.map((row, label) => {
    const samples = sum(row);
    const predicted = sum(confusion.map(other => other[label]));
    const correct = row[label];
    return {
      class: label,
      samples,
      predicted,
      correct,
      recall: samples > 0 ? correct / samples : null,
      precision: predicted > 0 ? correct / predicted : null,
    };
  });
}

export interface ConfusedPair {
  readonly label: number;
  readonly predicted: number;
  readonly samples: number;
}

/** Labels and what was wrongly predicted for them, the most frequent first. */
export function confusedPairs(confusion: Confusion): ConfusedPair[] {
  return confusion
    .flatMap((row, label) => row.map((samples, predicted) => ({ label, predicted, samples })))
    .filter(({ label, predicted, samples }) => label !== predicted && samples > 0)
    .toSorted((a, b) => b.samples - a.samples);
}

// `evaluate`: how good a run's weights are, in all and for each class.

import * as v from 'valibot';
import { means } from '../coordinator/run.js';
import {
  classResults,
  confusedPairs,
  confusionOf,
  type ClassResult,
  type ConfusedPair,
  type Confusion,
} from '../shared/confusion.js';
import type { Dataset } from '../shared/dataset.js';
import { workersSchema, type TrainSettings } from '../shared/settings.js';
import { predictedClass } from '../shared/softmax.js';
import {
  checkCall,
  evaluateWith,
  openRun,
  openRunData,
  type DataOptions,
  type TrainedRun,
  type WeightsSource,
} from './trained.js';

export interface EvaluateOptions extends DataOptions {
  readonly workers?: TrainSettings['workers'];
}

export interface Evaluation extends WeightsSource {
  readonly dataset: string;
  /** Whether it is, byte for byte, what the run was trained on. */
  readonly isOwnData: boolean;
  /** In the test set. */
  readonly samples: number;
  /** Mean over the test set, in nats. */
  readonly loss: number;
  readonly accuracy: number;
  readonly classes: readonly ClassResult[];
  readonly confusion: Confusion;
  readonly confusedPairs: readonly ConfusedPair[];
  readonly warnings: readonly string[];
}

/**
 * Evaluates the weights of a finished run, or of its newest checkpoint, on a test set. On the run's own, loss and
 * accuracy are bit for bit those that the run told.
 * @throws LockstepError with a code of `docs/errors.md`
 */
export async function evaluate(runDir: string, options: EvaluateOptions = {}): Promise<Evaluation> {
  checkCall({ workers: v.optional(workersSchema) }, runDir, options);
  const { workers, ...dataOptions } = options;
  const run = openRun(runDir);
  const dataset = openRunData(run, dataOptions);
  const { figures } = await testFigures(run, dataset, workers);
  return {
    ...run.source,
    dataset: dataset.name,
    isOwnData: dataset.digest === run.config.dataset.digest,
    ...figures,
    warnings: run.warnings,
  };
}

/** Of a test set. */
type TestFigures = Pick<
  Evaluation,
  'samples' | 'loss' | 'accuracy' | 'classes' | 'confusion' | 'confusedPairs'
>;

/** The figures, and what they follow from: `classes` logits of each sample, and its predicted class. */
export async function testFigures(
  run: TrainedRun,
  { classes, test }: Dataset,
  workers: TrainSettings['workers'] | undefined,
): Promise<{ figures: TestFigures; logits: Float32Array; predicted: Uint8Array }> {
  const { logits, ...sums } = await evaluateWith(run, test, workers);
  const predicted = Uint8Array.from(test.labels, (_, sample) =>
    predictedClass(logits.subarray(sample * classes, (sample + 1) * classes)),
  );
  const confusion = confusionOf(test.labels, predicted, classes);
  const figures = {
    samples: sums.samples,
    ...means(sums),
    classes: classResults(confusion),
    confusion,
    confusedPairs: confusedPairs(confusion),
  };
  return { figures, logits, predicted };
}

// `predict`: what a run's weights see in one image.

import * as v from 'valibot';
import { fitImage } from '../coordinator/fit-image.js';
import { readImage } from '../coordinator/image-file.js';
import type { LabelledImages } from '../shared/dataset.js';
import { LockstepError } from '../shared/errors.js';
import { sizeOf, type Shape } from '../shared/shape.js';
import { predictedClass, softmax } from '../shared/softmax.js';
import {
  checkCall,
  evaluateWith,
  openRun,
  openRunData,
  type DataOptions,
  type TrainedRun,
  type WeightsSource,
} from './trained.js';

export interface PredictOptions extends DataOptions {
  /** Leaves a file's image as it is, but for its size: nothing is inverted, stretched or cropped. */
  readonly asIs?: boolean;
}

/** What was done to a file's image before the model saw it. */
export interface Preparation {
  readonly width: number;
  readonly height: number;
  /** Turned, or mirrored, as its EXIF data say. */
  readonly isTurned: boolean;
  /** It was dark on light. */
  readonly isInverted: boolean;
  /** Its contrast was raised. */
  readonly isStretched: boolean;
  /** Cut to its ink, whose center of mass was put into the center. */
  readonly isCropped: boolean;
  readonly isScaled: boolean;
}

export interface Prediction extends WeightsSource {
  /** The file's path, or the index in the test set. */
  readonly image: string | number;
  /** The most probable one, the first of equals. */
  readonly class: number;
  /** Of each class. */
  readonly probabilities: readonly number[];
  /** The label of a test image; null for a file. */
  readonly label: number | null;
  /** Null for a test image, which is taken as it is. */
  readonly preparation: Preparation | null;
  /** What the model saw: rows of bytes. */
  readonly pixels: Uint8Array;
  readonly shape: Shape;
  readonly warnings: readonly string[];
}

const optionEntries = { asIs: v.optional(v.boolean('true or false')) };

type Seen = Pick<Prediction, 'label' | 'preparation' | 'pixels'>;

/**
 * Predicts the class of `image`: the path of a PNG or JPEG, or an index in the test set.
 * @throws LockstepError with a code of `docs/errors.md`
 */
export async function predict(
  runDir: string,
  image: string | number,
  options: PredictOptions = {},
): Promise<Prediction> {
  checkCall(optionEntries, runDir, options);
  const { asIs = false, ...dataOptions } = options;
  const run = openRun(runDir);
  const seen =
    typeof image === 'number' ? testImage(run, image, dataOptions) : await fileImage(run, image, asIs);
  const { label, pixels } = seen;
  const sample: LabelledImages = { images: pixels, labels: Uint8Array.of(label ?? 0) };
  const { logits } = await evaluateWith(run, sample, 1);
  const { shape } = run.config.dataset;
  const probabilities = [...softmax(logits)];
  return {
    ...run.source,
    image,
    class: predictedClass(logits),
    probabilities,
    ...seen,
    shape,
    warnings: run.warnings,
  };
}

function testImage(run: TrainedRun, index: number, options: DataOptions): Seen {
  const { name, shape, test } = openRunData(run, options);
  const samples = test.labels.length;
  if (!Number.isSafeInteger(index) || index < 0 || index >= samples) {
    throw new LockstepError(
      'LOCKSTEP_BAD_SETTING',
      `There is no test image ${index}: ${name} has ${samples}, counted from 0.`,
    );
  }
  const size = sizeOf(shape);
  const pixels = test.images.slice(index * size, (index + 1) * size);
  return { label: test.labels[index], preparation: null, pixels };
}

async function fileImage({ config, source }: TrainedRun, path: string, asIs: boolean): Promise<Seen> {
  const { shape } = config.dataset;
  if (shape.channels !== 1) {
    throw new LockstepError(
      'LOCKSTEP_DATA_SHAPE',
      `The model of ${source.runDir} takes images of ${shape.channels} channels, and files are read as gray ones.`,
    );
  }
  const { width, height, isTurned, ...image } = await readImage(path);
  const { pixels, ...done } = fitImage({ width, height, ...image }, shape, asIs);
  return { label: null, preparation: { width, height, isTurned, ...done }, pixels };
}

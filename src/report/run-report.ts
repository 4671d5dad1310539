// The report of one run or several: what it shows, as a document.

import type { ClassResult, ConfusedPair } from '../shared/confusion.js';
import { integer, percent, plural } from '../shared/format.js';
import type { EpochFigures } from '../shared/metrics.js';
import { formatShape, type Shape } from '../shared/shape.js';
import { comparison } from './compared-runs.js';
import {
  details,
  heading,
  lineFigure,
  text,
  type Block,
  type Document,
  type Figure,
  type Named,
} from './document.js';
import { dotChart, matrixChart, type Series } from './figure.js';
import { pictureAddress } from './picture.js';
import type { ReportedRun, WorstDigit } from './reported-run.js';
import { imagesPerSecond, seconds, stepTime, sum, throughput } from './run-time.js';
import { work } from './run-timeline.js';

/** One run in full, or several: first beside each other, then each in full. */
export function reportDocument(runs: readonly ReportedRun[]): Document {
  if (runs.length === 1) {
    const [run] = runs;
    return { title: titleOf(run), subtitle: describeState(run), blocks: sections(run, '', 2) };
  }
  return {
    title: `${runs.length} runs`,
    subtitle: runs.map(({ name }) => name).join(', '),
    blocks: [
      ...comparison(runs),
      ...runs.flatMap((run, index) => [
        heading(`${run.name}: ${titleOf(run)}`),
        text(describeState(run)),
        ...sections(run, `run-${index + 1}-`, 3),
      ]),
    ],
  };
}

function titleOf({ model, dataset }: ReportedRun): string {
  return `${model} on ${dataset.name}`;
}

function describeState({ state, step, totalSteps, hash }: ReportedRun): string {
  const extent =
    step === totalSteps
      ? `all ${plural(totalSteps, 'step')}`
      : `${integer(step)} of ${plural(totalSteps, 'step')}`;
  return `${state}, ${extent}${hash === null ? '' : `, hash ${hash}`}`;
}

/** `prefix` makes the names of figures unique in the document. */
function sections(run: ReportedRun, prefix: string, level: 2 | 3): Block[] {
  const named = (figures: readonly Figure[]): Block => ({
    type: 'figures',
    figures: figures.map(({ name, ...rest }) => ({ name: `${prefix}${name}`, ...rest })),
  });
  const part = (title: string, blocks: readonly Block[]): Block[] =>
    blocks.length > 0 ? [heading(title, level), ...blocks] : [];
  return [
    ...run.warnings.map((warning): Block => ({ type: 'warning', text: warning })),
    { type: 'facts', facts: summary(run) },
    ...part('Curves', curves(run, named)),
    ...part('The test set', testSet(run, named)),
    ...part('Throughput', throughput(run, named)),
    ...part('Where step time went', stepTime(run, named)),
    ...part('Who did the work', work(run, named)),
    ...part('Settings', [
      { type: 'facts', facts: run.settings },
      text(
        `The dataset's digest is ${run.dataset.digest}, its images are ${formatShape(run.dataset.shape)} in ` +
          `${plural(run.dataset.classes, 'class', 'classes')}. The arithmetic is ${run.profile}. ` +
          'Settings, data and arithmetic decide the hash; workers and machines do not.',
      ),
    ]),
  ];
}

function summary(run: ReportedRun): (readonly [string, string])[] {
  const { epochs, sessions, test, hash, weightsSha256 } = run;
  const last = epochs.at(-1);
  const rate = imagesPerSecond(sessions);
  const workedMs = sum(sessions.map(({ endMs }) => endMs));
  return [
    ['state', run.state],
    [
      'steps',
      `${integer(run.step)} of ${integer(run.totalSteps)}` +
        (run.stepsPerEpoch === null ? '' : `, ${integer(run.stepsPerEpoch)} an epoch`),
    ],
    ['parameters', integer(run.parameters)],
    ...(typeof test === 'string'
      ? []
      : ([
          ['test accuracy', percent(test.accuracy)],
          ['test loss', test.loss.toFixed(4)],
        ] as const)),
    ...(last
      ? ([
          ['training accuracy', percent(last.trainAccuracy)],
          ['training loss', `${last.trainLoss.toFixed(4)}, after epoch ${last.epoch}`],
        ] as const)
      : []),
    ...(rate === undefined ? [] : ([['images/s', integer(rate)]] as const)),
    ...(sessions.length > 0
      ? ([
          ['time', `${seconds(workedMs)}${sessions.length > 1 ? ` in ${sessions.length} sessions` : ''}`],
        ] as const)
      : []),
    ['hash', hash ?? 'none yet'],
    ...(weightsSha256 === null ? [] : ([['weights SHA-256', weightsSha256]] as const)),
    ['kept in', run.runDir],
  ];
}

function curves({ epochs, steps }: ReportedRun, named: Named): Block[] {
  const figures: Figure[] = [];
  if (epochs.length > 0) {
    figures.push(
      lineFigure('loss', 'Mean loss over the whole of each set, with the weights at the end of the epoch.', {
        title: 'Loss',
        xLabel: 'epoch',
        yLabel: 'cross-entropy, nats',
        series: byEpoch(epochs, { training: 'trainLoss', test: 'testLoss' }),
      }),
      lineFigure('accuracy', 'Share of each set that is recognized, with the same weights.', {
        title: 'Accuracy',
        xLabel: 'epoch',
        yLabel: 'recognized',
        unit: 'percent',
        isFromZero: false,
        series: byEpoch(epochs, { training: 'trainAccuracy', test: 'testAccuracy' }),
      }),
    );
  }
  if (steps.length > 0) {
    const xs = (y: 'loss' | 'learningRate', name: string): Series => ({
      name,
      points: steps.map(means => ({ x: means.step, y: means[y] })),
    });
    const [first, second] = steps;
    const together = (second?.step ?? first.step + 1) - first.step;
    figures.push(
      lineFigure(
        'step-loss',
        `Loss of the steps' own samples before the update${together > 1 ? `, means over ${integer(together)} steps` : ''}.`,
        {
          title: 'Loss of the steps',
          xLabel: 'step',
          yLabel: 'cross-entropy, nats',
          isPlain: true,
          series: [xs('loss', 'training')],
        },
      ),
      lineFigure('learning-rate', 'The learning rate of the updates.', {
        title: 'Learning rate',
        xLabel: 'step',
        yLabel: 'learning rate',
        isPlain: true,
        series: [xs('learningRate', 'learning rate')],
      }),
    );
  }
  if (figures.length === 0) return [];
  return [
    named(figures),
    ...(epochs.length > 0 ? [details('The epochs in numbers', [epochTable(epochs)])] : []),
  ];
}

function byEpoch(
  epochs: readonly EpochFigures[],
  names: Readonly<Record<string, Exclude<keyof EpochFigures, 'epoch' | 'step'>>>,
): Series[] {
  return Object.entries(names).map(([name, key]) => ({
    name,
    points: epochs.map(figures => ({ x: figures.epoch, y: figures[key] })),
  }));
}

function epochTable(epochs: readonly EpochFigures[]): Block {
  return {
    type: 'table',
    caption: 'Means over the training and the test set at the end of each epoch',
    head: ['epoch', 'training loss', 'training accuracy', 'test loss', 'test accuracy'],
    rows: epochs.map(({ epoch, trainLoss, trainAccuracy, testLoss, testAccuracy }) => [
      String(epoch),
      trainLoss.toFixed(4),
      percent(trainAccuracy),
      testLoss.toFixed(4),
      percent(testAccuracy),
    ]),
  };
}

/** Of confused pairs, as many are named. */
const PAIRS_NAMED = 5;

function testSet({ test, dataset }: ReportedRun, named: Named): Block[] {
  if (typeof test === 'string') return [text(`There are no figures of the test set: ${test}`)];
  const { samples, accuracy, loss, step, classes, confusion, confusedPairs, worst } = test;
  const wrong = sum(confusedPairs.map(pair => pair.samples));
  const pairs = confusedPairs
    .slice(0, PAIRS_NAMED)
    .map(pair => `${pair.label} for ${pair.predicted} (${integer(pair.samples)})`);
  return [
    text(
      `With the weights after step ${integer(step)}: ${percent(accuracy)} of ${plural(samples, 'image')} are recognized ` +
        `and ${integer(wrong)} are not; the loss is ${loss.toFixed(4)}.` +
        (pairs.length > 0 ? ` Most often taken were ${pairs.join(', ')}.` : ''),
    ),
    named([
      {
        name: 'classes',
        caption: "Share of each class's test images that is recognized.",
        draw: look =>
          dotChart(
            {
              title: 'Accuracy of each class',
              xLabel: 'recognized',
              names: classes.map(result => String(result.class)),
              series: [{ name: 'test', values: classes.map(({ recall }) => recall) }],
              unit: 'percent',
            },
            look,
          ),
      },
      {
        name: 'confusion',
        caption: 'How often each class was taken for which: those recognized on the diagonal.',
        draw: look =>
          matrixChart({ title: 'Confusion', xLabel: 'taken for', yLabel: 'class', counts: confusion }, look),
      },
    ]),
    details('The classes in numbers', [classTable(classes), pairTable(confusedPairs)]),
    ...(worst.length > 0
      ? [
          text(`The ${plural(worst.length, 'test image')} with the largest loss, the largest first:`),
          pictures(worst, dataset.shape),
        ]
      : []),
  ];
}

function classTable(classes: readonly ClassResult[]): Block {
  return {
    type: 'table',
    caption: 'Recall: recognized of the class. Precision: right of those taken for it.',
    head: ['class', 'images', 'recognized', 'recall', 'taken for it', 'precision'],
    rows: classes.map(result => [
      String(result.class),
      integer(result.samples),
      integer(result.correct),
      share(result.recall),
      integer(result.predicted),
      share(result.precision),
    ]),
  };
}

const PAIRS_LISTED = 20;

function pairTable(pairs: readonly ConfusedPair[]): Block {
  const more =
    pairs.length > PAIRS_LISTED ? `, the first ${PAIRS_LISTED} of ${integer(pairs.length)} pairs` : '';
  return {
    type: 'table',
    caption: `What was taken for what${more}`,
    head: ['class', 'taken for', 'images'],
    rows: pairs
      .slice(0, PAIRS_LISTED)
      .map(({ label, predicted, samples }) => [String(label), String(predicted), integer(samples)]),
  };
}

function pictures(worst: readonly WorstDigit[], shape: Shape): Block {
  return {
    type: 'pictures',
    pictures: worst.map(({ index, label, predicted, ofLabel, ofPredicted, loss, pixels }) => ({
      source: pictureAddress(shape, pixels),
      description: `Test image ${index}, a ${label}, taken for a ${predicted}`,
      lines: [
        `${label}: ${percent(ofLabel, 1)}`,
        ...(predicted === label ? [] : [`taken for ${predicted}: ${percent(ofPredicted, 1)}`]),
        `loss ${loss.toFixed(2)}, image ${index}`,
      ],
    })),
  };
}

function share(value: number | null): string {
  return value === null ? '' : percent(value);
}

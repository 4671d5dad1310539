// The report of one run or several: what it shows, as a document.

import type { ClassResult, ConfusedPair, Confusion } from '../shared/confusion.js';
import { integer, percent, plural } from '../shared/format.js';
import { sum } from '../shared/sum.js';
import type { EpochFigures, StepMeans } from '../shared/metrics.js';
import { formatShape, type Shape } from '../shared/shape.js';
import { classesFigure, comparison } from './compared-runs.js';
import {
  accuracyLabel,
  details,
  heading,
  lineFigure,
  lossLabel,
  text,
  type Block,
  type Document,
  type Figure,
  type Picture,
} from './document.js';
import { matrixChart, type Series } from './figure.js';
import { htmlPage } from './html.js';
import { evenly, groups, MOST_MARKED, pageOf, shownOf, testedAt, type Page } from './part.js';
import { pictureAddress } from './picture.js';
import type { ReportedRun, WorstImage } from './reported-run.js';
import { imagesPerSecond, seconds, stepTime, throughput } from './run-time.js';
import { work } from './run-timeline.js';

/** Pages stay below 3 MB. */
const MOST_BYTES = 2_900_000;

/**
 * One run in full, or several: first beside each other, then each in full. Runs may have any number of nodes, losses,
 * epochs and classes; where a page would be too large, it is made again with half of all that.
 */
export function reportPage(runs: readonly ReportedRun[]): string {
  let detail = 1;
  let page = htmlPage(reportDocument(runs, detail));
  while (Buffer.byteLength(page) > MOST_BYTES && detail > 0.001) {
    detail /= 2;
    page = htmlPage(reportDocument(runs, detail));
  }
  return page;
}

function reportDocument(runs: readonly ReportedRun[], detail: number): Document {
  if (runs.length === 1) {
    const [run] = runs;
    return {
      title: titleOf(run),
      subtitle: describeState(run),
      blocks: sections(run, pageOf('', detail), 2),
    };
  }
  return {
    title: `${runs.length} runs`,
    subtitle: runs.map(({ name }) => name).join(', '),
    blocks: [
      ...comparison(runs, pageOf('compared-', detail)),
      ...runs.flatMap((run, index) => [
        heading(`${run.name}: ${titleOf(run)}`),
        text(describeState(run)),
        ...sections(run, pageOf(`run-${index + 1}-`, detail / runs.length), 3),
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

function sections(run: ReportedRun, page: Page, level: 2 | 3): Block[] {
  const part = (title: string, blocks: readonly Block[]): Block[] =>
    blocks.length > 0 ? [heading(title, level), ...blocks] : [];
  return [
    ...run.warnings.slice(0, page.most(20)).map((warning): Block => ({ type: 'warning', text: warning })),
    { type: 'facts', facts: summary(run) },
    ...part('Curves', curves(run, page)),
    ...part('The test set', testSet(run, page)),
    ...part('Throughput', throughput(run, page)),
    ...part('Where step time went', stepTime(run, page)),
    ...part('Who did the work', work(run, page)),
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
          ['test accuracy', `${percent(test.accuracy)}${testedAt(run)}`],
          ['test loss', `${test.loss.toFixed(4)}${testedAt(run)}`],
        ] as const)),
    ...(last
      ? ([
          ['training accuracy', `${percent(last.trainAccuracy)}, after epoch ${last.epoch}`],
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

function curves(run: ReportedRun, page: Page): Block[] {
  const epochs = evenly(run.epochs, page.most(400));
  const steps = groups(run.steps, page.most(400)).map(meansOf);
  const isPlain = epochs.length > MOST_MARKED;
  const figures: Figure[] = [];
  if (epochs.length > 0) {
    figures.push(
      lineFigure('loss', 'Mean loss over the whole of each set, with the weights at the end of the epoch.', {
        title: 'Loss',
        xLabel: 'epoch',
        yLabel: lossLabel,
        isPlain,
        series: byEpoch(epochs, { training: 'trainLoss', test: 'testLoss' }),
      }),
      lineFigure('accuracy', 'Share of each set that is recognized, with the same weights.', {
        title: 'Accuracy',
        xLabel: 'epoch',
        yLabel: accuracyLabel,
        unit: 'percent',
        isFromZero: false,
        isPlain,
        series: byEpoch(epochs, { training: 'trainAccuracy', test: 'testAccuracy' }),
      }),
    );
  }
  if (steps.length > 0) {
    const xs = (y: 'loss' | 'learningRate', name: string): Series => ({
      name,
      points: steps.map(means => ({ x: means.step, y: means[y] })),
    });
    const together = steps[0].step;
    figures.push(
      lineFigure(
        'step-loss',
        `Loss of the steps' own samples before the update${together > 1 ? `, means over ${integer(together)} steps` : ''}.`,
        {
          title: 'Loss of the steps',
          xLabel: 'step',
          yLabel: lossLabel,
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
    page.figures(figures),
    ...(epochs.length > 0 ? [details('The epochs in numbers', [epochTable(run.epochs, page)])] : []),
    ...(steps.length > 0 ? [details('The steps in numbers', [stepTable(run.steps)])] : []),
  ];
}

const STEPS_LISTED = 20;

/** For those who do not see the figures. */
function stepTable(steps: readonly StepMeans[]): Block {
  return {
    type: 'table',
    caption: 'Mean loss of the steps up to each, and its learning rate',
    head: ['step', 'loss', 'learning rate'],
    textColumns: [],
    rows: groups(steps, STEPS_LISTED)
      .map(meansOf)
      .map(({ step, loss, learningRate }) => [integer(step), loss.toFixed(4), learningRate.toPrecision(3)]),
  };
}

/** Means of means over as many steps each, as the last group may not be. */
function meansOf(group: readonly StepMeans[]): StepMeans {
  const { step, learningRate } = group.at(-1)!;
  return { step, learningRate, loss: sum(group.map(({ loss }) => loss)) / group.length };
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

function epochTable(all: readonly EpochFigures[], { most }: Page): Block {
  const epochs = evenly(all, most(100));
  return {
    type: 'table',
    caption: `Means over the training and the test set at the end of each epoch${shownOf(epochs.length, all.length, '')}`,
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

function testSet({ test, dataset }: ReportedRun, page: Page): Block[] {
  if (typeof test === 'string') return [text(`There are no figures of the test set: ${test}`)];
  const { samples, accuracy, loss, step, classes, confusion, confusedPairs, worst } = test;
  const mostPairs = page.most(2000);
  const shown = pictures(worst, dataset.shape, page.most(PICTURE_BYTES));
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
    page.figures([
      classesFigure([{ name: 'test', test }]),
      {
        name: 'confusion',
        caption: `How often each class was taken for which: those recognized on the diagonal${shownOf(mostPairs, confusedPairs.length, 'beside it the most frequent, ')}.`,
        draw: look =>
          matrixChart(
            {
              title: 'Confusion',
              xLabel: 'taken for',
              yLabel: 'class',
              counts: withMost(confusion, confusedPairs, mostPairs),
            },
            look,
          ),
      },
    ]),
    details('The classes in numbers', [
      classTable(classes),
      ...(confusedPairs.length > 0 ? [pairTable(confusedPairs)] : []),
    ]),
    ...(shown.length > 0
      ? [
          text(`The ${plural(shown.length, 'test image')} with the largest loss, the largest first:`),
          { type: 'pictures' as const, pictures: shown },
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

/** The matrix without what was confused least. */
function withMost(confusion: Confusion, pairs: readonly ConfusedPair[], most: number): Confusion {
  if (pairs.length <= most) return confusion;
  const kept = confusion.map((row, label) =>
    row.map((count, predicted) => (label === predicted ? count : 0)),
  );
  for (const { label, predicted, samples } of pairs.slice(0, most)) kept[label][predicted] = samples;
  return kept;
}

/** Of all pictures together; MNIST's take far less. */
const PICTURE_BYTES = 600_000;

function pictures(worst: readonly WorstImage[], shape: Shape, mostBytes: number): Picture[] {
  const shown: Picture[] = [];
  let sizeBytes = 0;
  for (const { index, label, predicted, ofLabel, ofPredicted, loss, pixels } of worst) {
    const source = pictureAddress(shape, pixels);
    sizeBytes += source.length;
    if (sizeBytes > mostBytes) break;
    shown.push({
      source,
      description:
        `Test image ${index} of class ${label}, ` +
        (predicted === label ? 'recognized' : `taken for class ${predicted}`),
      lines: [
        `${label}: ${percent(ofLabel, 1)}`,
        ...(predicted === label ? [] : [`taken for ${predicted}: ${percent(ofPredicted, 1)}`]),
        `loss ${loss.toFixed(2)}, image ${index}`,
      ],
    });
  }
  return shown;
}

function share(value: number | null): string {
  return value === null ? '' : percent(value);
}

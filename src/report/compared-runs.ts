// The part of a report that compares runs.

import { integer, percent } from '../shared/format.js';
import { accuracyLabel, heading, lineFigure, lossLabel, text, type Block, type Figure } from './document.js';
import { dotChart, type Series } from './figure.js';
import { evenly, MOST_MARKED, testedAt, type Page } from './part.js';
import type { ReportedRun, TestResult } from './reported-run.js';
import { imagesPerSecond, rateSeries } from './run-time.js';

export function comparison(runs: readonly ReportedRun[], page: Page): Block[] {
  return [heading('Beside each other'), figuresTable(runs), ...differences(runs), ...curves(runs, page)];
}

function figuresTable(runs: readonly ReportedRun[]): Block {
  return {
    type: 'table',
    caption: 'Figures of the test set are of the newest weights that are kept',
    head: ['run', 'model', 'steps', 'test accuracy', 'test loss', 'images/s', 'hash'],
    textColumns: [0, 1, 6],
    rows: runs.map(run => {
      const { name, model, step, test, sessions, hash } = run;
      const [accuracy, loss] =
        typeof test === 'string'
          ? ['', '']
          : [`${percent(test.accuracy)}${testedAt(run)}`, test.loss.toFixed(4)];
      const rate = imagesPerSecond(sessions);
      return [
        name,
        model,
        integer(step),
        accuracy,
        loss,
        rate === undefined ? '' : integer(rate),
        hash ?? '',
      ];
    }),
  };
}

/** In their settings, and whether there is any in their bits. */
function differences(runs: readonly ReportedRun[]): Block[] {
  const [{ hash, step }] = runs;
  const isSame = hash !== null && runs.every(run => run.hash === hash && run.step === step);
  const names = [...new Set(runs.flatMap(({ settings }) => settings.map(([name]) => name)))];
  const different = names.filter(name => new Set(runs.map(run => valueOf(run, name))).size > 1);
  return [
    ...(isSame
      ? [text('All have the same hash after as many steps: their weights are the same, bit for bit.')]
      : []),
    different.length === 0
      ? text('All settings are the same.')
      : {
          type: 'table',
          caption: 'Settings that differ',
          head: ['setting', ...runs.map(({ name }) => name)],
          textColumns: [0, ...runs.map((_, index) => index + 1)],
          rows: different.map(name => [name].concat(runs.map(run => valueOf(run, name)))),
        },
  ];
}

const comparedMeasures = [
  { key: 'testAccuracy', title: 'Test accuracy', caption: 'Share of the test set that is recognized.' },
  { key: 'testLoss', title: 'Test loss', caption: 'Mean loss over the test set.' },
  {
    key: 'trainAccuracy',
    title: 'Training accuracy',
    caption: 'Share of the training set that is recognized.',
  },
  { key: 'trainLoss', title: 'Training loss', caption: 'Mean loss over the training set.' },
] as const;

function curves(runs: readonly ReportedRun[], page: Page): Block[] {
  const isPlain = runs.some(({ epochs }) => epochs.length > MOST_MARKED);
  const perEpoch = comparedMeasures.map(({ key, title, caption }): Figure => {
    const axis = key.endsWith('Loss')
      ? { yLabel: lossLabel }
      : ({ yLabel: accuracyLabel, unit: 'percent', isFromZero: false } as const);
    const series = runs.map(({ name, epochs }): Series => {
      const shown = evenly(epochs, page.most(400));
      return { name, points: shown.map(figures => ({ x: figures.epoch, y: figures[key] })) };
    });
    return lineFigure(key, caption, { title, xLabel: 'epoch', ...axis, isPlain, series });
  });
  const rates = runs.map(({ name, sessions }) => rateSeries(name, sessions, page));
  const throughput = lineFigure(
    'throughput',
    'Training images a second, over the time at work of each run.',
    {
      title: 'Throughput',
      xLabel: 'seconds at work',
      yLabel: 'images/s',
      isPlain: true,
      series: rates,
    },
  );
  const tested = runs.flatMap(({ name, test }) => (typeof test === 'string' ? [] : [{ name, test }]));
  return [
    page.figures(runs.some(({ epochs }) => epochs.length > 0) ? perEpoch : []),
    page.figures([
      ...(runs.some(({ sessions }) => imagesPerSecond(sessions) !== undefined) ? [throughput] : []),
      ...(tested.length > 0 ? [classesFigure(tested)] : []),
    ]),
  ];
}

/** Of one run or several. */
export function classesFigure(
  tested: readonly { readonly name: string; readonly test: TestResult }[],
): Figure {
  const names = Array.from(
    { length: Math.max(...tested.map(({ test }) => test.classes.length)) },
    (_, index) => String(index),
  );
  return {
    name: 'classes',
    caption: "Share of each class's test images that is recognized.",
    draw: look =>
      dotChart(
        {
          title: 'Accuracy of each class',
          xLabel: accuracyLabel,
          names,
          series: tested.map(({ name, test: { classes } }) => ({
            name,
            values: names.map((_, index) => classes[index]?.recall ?? null),
          })),
          unit: 'percent',
        },
        look,
      ),
  };
}

function valueOf({ settings }: ReportedRun, name: string): string {
  return settings.find(([other]) => other === name)?.[1] ?? '';
}

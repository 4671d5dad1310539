// The part of a report that compares runs.

import { integer, percent } from '../shared/format.js';
import { accuracyLabel, heading, lineFigure, lossLabel, text, type Block, type Figure } from './document.js';
import { dotChart, type Series } from './figure.js';
import { evenly, MOST_MARKED, type Page } from './part.js';
import type { ReportedRun } from './reported-run.js';
import { imagesPerSecond, rateSeries } from './run-time.js';

export function comparison(runs: readonly ReportedRun[], page: Page): Block[] {
  const [first] = runs;
  const isSame =
    first.hash !== null && runs.every(({ hash, step }) => hash === first.hash && step === first.step);
  const names = [...new Set(runs.flatMap(({ settings }) => settings.map(([name]) => name)))];
  const different = names.filter(name => new Set(runs.map(run => valueOf(run, name))).size > 1);
  const tested = runs.flatMap(({ name, test }) => (typeof test === 'string' ? [] : [{ name, test }]));
  const classes = Math.max(0, ...tested.map(({ test }) => test.classes.length));
  const most = page.most(400);
  const isPlain = runs.some(({ epochs }) => epochs.length > MOST_MARKED);
  const perEpoch = (key: 'testLoss' | 'testAccuracy' | 'trainLoss' | 'trainAccuracy'): Series[] =>
    runs.map(({ name, epochs }) => ({
      name,
      points: evenly(epochs, most).map(figures => ({ x: figures.epoch, y: figures[key] })),
    }));
  const accuracies = {
    isPlain,
    xLabel: 'epoch',
    yLabel: accuracyLabel,
    unit: 'percent',
    isFromZero: false,
  } as const;
  const losses = { isPlain, xLabel: 'epoch', yLabel: lossLabel };
  const rates = runs.map(({ name, sessions }) => rateSeries(name, sessions, page));
  return [
    heading('Beside each other'),
    {
      type: 'table',
      caption: 'Figures of the test set are of the newest weights',
      head: ['run', 'model', 'steps', 'test accuracy', 'test loss', 'images/s', 'hash'],
      textColumns: [0, 1, 6],
      rows: runs.map(({ name, model, step, test, sessions, hash }) => {
        const rate = imagesPerSecond(sessions);
        return [
          name,
          model,
          integer(step),
          typeof test === 'string' ? '' : percent(test.accuracy),
          typeof test === 'string' ? '' : test.loss.toFixed(4),
          rate === undefined ? '' : integer(rate),
          hash ?? '',
        ];
      }),
    },
    ...(isSame
      ? [text('All have the same hash after as many steps: their weights are the same, bit for bit.')]
      : []),
    ...(different.length > 0
      ? [
          {
            type: 'table' as const,
            caption: 'Settings that differ',
            head: ['setting', ...runs.map(({ name }) => name)],
            textColumns: [0, ...runs.map((_, index) => index + 1)],
            rows: different.map(name => [name].concat(runs.map(run => valueOf(run, name)))),
          },
        ]
      : [text('All settings are the same.')]),
    page.figures(
      [
        lineFigure('test-accuracy', 'Share of the test set that is recognized.', {
          title: 'Test accuracy',
          ...accuracies,
          series: perEpoch('testAccuracy'),
        }),
        lineFigure('test-loss', 'Mean loss over the test set.', {
          title: 'Test loss',
          ...losses,
          series: perEpoch('testLoss'),
        }),
        lineFigure('train-accuracy', 'Share of the training set that is recognized.', {
          title: 'Training accuracy',
          ...accuracies,
          series: perEpoch('trainAccuracy'),
        }),
        lineFigure('train-loss', 'Mean loss over the training set.', {
          title: 'Training loss',
          ...losses,
          series: perEpoch('trainLoss'),
        }),
      ].filter(() => runs.some(({ epochs }) => epochs.length > 0)),
    ),
    page.figures([
      ...(rates.some(({ points }) => points.length > 0)
        ? [
            lineFigure('throughput', 'Training images a second, over the time at work of each run.', {
              title: 'Throughput',
              xLabel: 'seconds at work',
              yLabel: 'images/s',
              isPlain: true,
              series: rates,
            }),
          ]
        : []),
      ...(tested.length > 0
        ? [
            {
              name: 'classes',
              caption: "Share of each class's test images that is recognized.",
              draw: (look: Parameters<Figure['draw']>[0]) =>
                dotChart(
                  {
                    title: 'Accuracy of each class',
                    xLabel: accuracyLabel,
                    names: Array.from({ length: classes }, (_, index) => String(index)),
                    series: tested.map(({ name, test }) => ({
                      name,
                      values: Array.from(
                        { length: classes },
                        (_, index) => test.classes[index]?.recall ?? null,
                      ),
                    })),
                    unit: 'percent',
                  },
                  look,
                ),
            },
          ]
        : []),
    ]),
  ];
}

function valueOf({ settings }: ReportedRun, name: string): string {
  return settings.find(([other]) => other === name)?.[1] ?? '';
}

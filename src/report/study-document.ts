// A study as a document: tables beside the published figures, curves, parameters, and what follows from the numbers.

import { integer, plural } from '../shared/format.js';
import {
  accuracyLabel,
  heading,
  lineFigure,
  lossLabel,
  text,
  type Block,
  type Document,
  type Figure,
  type Table,
} from './document.js';
import type { Series } from './figure.js';
import {
  finalOf,
  isLoss,
  labels,
  published,
  type Measure,
  type StudyLayer,
  type StudyModel,
  type StudyModelName,
  type StudyResult,
} from './study-figures.js';
import {
  discussion,
  measureWords,
  publishedTotals,
  seedsText,
  show,
  showSummary,
  standing,
} from './study-text.js';

export function studyDocument(result: StudyResult): Document {
  const { dataset, epochs, models } = result;
  return {
    title: `${models.length} models on ${dataset.name}`,
    subtitle: `${plural(epochs, 'epoch')} each, with ${seedsText(result)}, beside published figures`,
    blocks: [
      text(whatWasDone(result)),
      heading('Results'),
      text(`${standing(result, 'test')} ${howCompared(result)}`),
      comparisonTable(result, 'On the test set', ['testLoss', 'testAccuracy']),
      text(standing(result, 'training')),
      comparisonTable(result, 'On the training set', ['trainLoss', 'trainAccuracy']),
      heading('Curves'),
      text(howDrawn(result)),
      heading('The models together', 3),
      {
        type: 'figures',
        figures: [
          together(result, 'test-accuracy', 'testAccuracy'),
          together(result, 'test-loss', 'testLoss'),
          together(result, 'training-accuracy', 'trainAccuracy'),
          together(result, 'training-loss', 'trainLoss'),
        ],
      },
      heading('Each model by itself', 3),
      { type: 'figures', figures: models.flatMap(each => apart(each)) },
      heading('Parameters'),
      ...parameterTables(models),
      ...[publishedTotals(result)].filter(words => words !== '').map(text),
      heading('What the figures say'),
      ...discussion(result).map(text),
      heading('Settings'),
      { type: 'facts', facts: facts(result) },
      heading('Do it again'),
      text(howToRepeat(result)),
      runTable(models),
    ],
  };
}

function whatWasDone(result: StudyResult): string {
  const { trainSamples, testSamples, name } = result.dataset;
  const names = result.models.map(({ model }) => labels[model]).join(', ');
  const times = result.seeds.length === 1 ? 'once' : `${result.seeds.length} times`;
  return (
    `${names}: each was trained on the ${integer(trainSamples)} training images of ${name} for ` +
    `${plural(result.epochs, 'epoch')}, ${times} (${seedsText(result)}), and evaluated on them and on the ` +
    `${integer(testSamples)} test images at the end of every epoch.`
  );
}

function howCompared({ seeds }: StudyResult): string {
  return seeds.length === 1
    ? 'Figures are compared before they are rounded.'
    : `Here: means over ${seeds.length} seeds ± the sample standard deviation, compared before they are rounded.`;
}

const rowNames: Readonly<Record<StudyModelName, string>> = {
  ...labels,
  'lenet5-regularized': 'LeNet-5 reg.',
};

/** Two rows a model, and nothing longer than it must be: all columns are to be seen on a phone. */
function comparisonTable({ models }: StudyResult, caption: string, columns: readonly Measure[]): Table {
  return {
    type: 'table',
    caption: `${caption}, at the end`,
    head: ['model', ...columns.map(measure => `${measureWords[measure]}${isLoss(measure) ? '' : ' in %'}`)],
    rows: models.flatMap(each => {
      const { model } = each;
      const here = columns.map(measure => showSummary(measure, finalOf(each)[measure]));
      const there = columns.map(measure => show(measure, published[model][measure]));
      return [
        [rowNames[model], ...here],
        ['published', ...there],
      ].map(row => row.map(cell => cell.replace(/ %$/, '')));
    }),
  };
}

function howDrawn({ seeds }: StudyResult): string {
  return seeds.length === 1
    ? 'Each point is the figure at the end of an epoch.'
    : `Each point is the mean over ${seeds.length} seeds at the end of an epoch; bars reach from the lowest to the highest seed.`;
}

function together({ models }: StudyResult, name: string, measure: Measure): Figure {
  const word = measureWords[measure];
  const series = models.map(each => seriesOf(each, measure, labels[each.model]));
  return figure(name, measure, capitalized(word), series);
}

function apart(each: StudyModel): Figure[] {
  const pairOf = (train: Measure, test: Measure, word: string): Figure =>
    figure(`${each.model}-${word}`, test, `${labels[each.model]}: ${word}`, [
      seriesOf(each, train, 'training set'),
      seriesOf(each, test, 'test set'),
    ]);
  return [pairOf('trainLoss', 'testLoss', 'loss'), pairOf('trainAccuracy', 'testAccuracy', 'accuracy')];
}

function figure(name: string, measure: Measure, title: string, series: readonly Series[]): Figure {
  const names = series.map(each => each.name);
  return lineFigure(name, `${title} over the epochs: ${names.slice(0, -1).join(', ')} and ${names.at(-1)}`, {
    title,
    xLabel: 'epoch',
    yLabel: isLoss(measure) ? lossLabel : accuracyLabel,
    series,
    ...(!isLoss(measure) && { unit: 'percent', isFromZero: false }),
  });
}

function seriesOf({ epochs, runs }: StudyModel, measure: Measure, name: string): Series {
  return {
    name,
    points: epochs.map(({ epoch, [measure]: { mean, low, high } }) => ({
      x: epoch,
      y: mean,
      ...(runs.length > 1 && { low, high }),
    })),
  };
}

/** One for each architecture: models whose layers have the same parameters share it. */
function parameterTables(models: readonly StudyModel[]): Block[] {
  const groups = new Map<string, { readonly names: string[]; readonly layers: readonly StudyLayer[] }>();
  for (const { model, layers } of models) {
    const counted = layers.filter(({ parameters }) => parameters > 0);
    const key = counted.map(({ name, arithmetic }) => `${name} ${arithmetic}`).join('\n');
    const group = groups.get(key) ?? { names: [], layers: counted };
    group.names.push(labels[model]);
    groups.set(key, group);
  }
  const tables = Array.from(groups.values(), ({ names, layers }): Block[] => {
    const who = names.join(' and ');
    const counts = layers.map(({ parameters }) => parameters);
    const total = counts.reduce((sum, count) => sum + count, 0);
    return [
      // Markdown has no captions.
      heading(who, 3),
      {
        type: 'table',
        caption: `Parameters of ${who}`,
        head: ['layer', 'kernel + bias', 'parameters'],
        textColumns: [0, 1],
        rows: [
          ...layers.map(({ name, arithmetic, parameters }) => [name, arithmetic, integer(parameters)]),
          ['total', counts.map(integer).join(' + '), integer(total)],
        ],
      },
    ];
  });
  const note =
    'Kernels of convolutions are height x width x input x output, those of dense layers input x output.';
  return [text(`${note} Layers without parameters are left out.`), ...tables.flat()];
}

function facts(result: StudyResult): [string, string][] {
  const { dataset, epochs, version, profile, models } = result;
  return [
    ...models.map(({ model, settings, layers }): [string, string] => {
      const { batch, leaf, optimizer, lr, lrSchedule, weightDecay } = settings;
      const extra = layers.filter(({ type }) => type.startsWith('dropout')).map(({ type }) => type);
      const words = [
        optimizer,
        `learning rate ${lrSchedule}${lrSchedule === 'constant' ? ',' : ' up to'} ${lr}`,
        `${batch} images a step, ${leaf} a leaf`,
        ...(weightDecay > 0 ? [`weight decay ${weightDecay}`] : []),
        ...extra,
      ];
      return [labels[model], words.join(', ')];
    }),
    ['epochs', integer(epochs)],
    ['seeds', seedsText(result).replace(/^seeds? /, '')],
    ['data', `${dataset.name}, digest ${dataset.digest}`],
    ['arithmetic', profile],
    ['written by', `Lockstep ${version}`],
  ];
}

function howToRepeat({ seeds }: StudyResult): string {
  return (
    `The command lockstep study --seeds ${seeds.length} makes this study. Each of its runs is that of lockstep train with the ` +
    'words of its line: the hash is the same with any number of workers, on any machine that computes in this arithmetic.'
  );
}

function runTable(models: readonly StudyModel[]): Table {
  return {
    type: 'table',
    caption: 'Every run, at the end',
    head: ['lockstep train', 'hash', 'test loss', 'test accuracy'],
    rows: models.flatMap(({ runs }) =>
      runs.map(({ model, seed, epochs, hash }) => {
        const { testLoss, testAccuracy } = epochs.at(-1)!;
        const figures = [show('testLoss', testLoss), show('testAccuracy', testAccuracy)];
        return [`${model} --seed ${seed}`, hash, ...figures];
      }),
    ),
  };
}

function capitalized(words: string): string {
  return words[0].toUpperCase() + words.slice(1);
}

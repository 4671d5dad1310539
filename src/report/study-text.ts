// What the figures of a study say, in sentences: each follows from the numbers, and says the opposite where they do.

import { integer, percent } from '../shared/format.js';
import {
  compare,
  difference,
  finalOf,
  isLoss,
  labels,
  measures,
  modelOf,
  published,
  publishedCount,
  type Measure,
  type StudyModel,
  type StudyModelName,
  type StudyResult,
  type Summary,
} from './study-figures.js';

export const measureWords: Readonly<Record<Measure, string>> = {
  trainLoss: 'training loss',
  trainAccuracy: 'training accuracy',
  testLoss: 'test loss',
  testAccuracy: 'test accuracy',
};

const testMeasures = ['testLoss', 'testAccuracy'] as const;

export function show(measure: Measure, value: number): string {
  return isLoss(measure) ? value.toFixed(4) : percent(value);
}

/** The mean, and where there are several seeds the standard deviation. */
export function showSummary(measure: Measure, { mean, deviation }: Summary): string {
  if (deviation === null) return show(measure, mean);
  if (isLoss(measure)) return `${mean.toFixed(4)} ± ${deviation.toFixed(4)}`;
  return `${(mean * 100).toFixed(2)} ± ${percent(deviation)}`;
}

export function seedsText({ seeds }: StudyResult): string {
  return seeds.length === 1 ? `seed ${seeds[0]}` : `seeds ${seeds[0]} to ${seeds.at(-1)}`;
}

/** How the figures of one set stand to the published ones. */
export function standing(result: StudyResult, set: 'test' | 'training'): string {
  const own = measures.filter(measure => measureWords[measure].startsWith(set));
  const figures = result.models.flatMap(each =>
    own.map(measure => ({ each, measure, value: finalOf(each)[measure].mean })),
  );
  const worse = figures.filter(
    ({ each, measure, value }) => compare(measure, value, published[each.model][measure]) < 0,
  );
  const what = `${figures.length} ${hasSpread(result) ? 'mean ' : ''}${set} figures`;
  if (worse.length === 0) return `All ${what} are at least as good as the published ones.`;
  const exceptions = worse.map(
    ({ each: { model }, measure, value }) =>
      `the ${measureWords[measure]} of ${labels[model]} (${show(measure, value)}, published ` +
      `${show(measure, published[model][measure])})`,
  );
  const good = figures.length - worse.length;
  const are = good === 0 ? 'none is' : good === 1 ? '1 is' : `${good} are`;
  return `Of the ${what} ${are} at least as good as the published ones. Worse: ${listOf(exceptions)}.`;
}

/** The discussion, in paragraphs. */
export function discussion(result: StudyResult): string[] {
  const paragraphs = [
    [best(result), ...(hasSpread(result) ? [] : [spreadUnknown])],
    testMeasures.map(measure => pair(result, 'lenet5', 'lenet5-regularized', measure)),
    [regularization(result)],
    [gaps(result), gapOfRegularization(result)],
    testMeasures.map(measure => pair(result, 'lenet5', 'mlp', measure)),
    [errors(result), sizes(result)],
    lastEpoch(result),
  ];
  return paragraphs.filter(sentences => sentences.length > 0).map(sentences => sentences.join(' '));
}

const spreadUnknown = 'One seed says nothing about the spread: another may order the models in another way.';

function hasSpread({ seeds }: StudyResult): boolean {
  return seeds.length > 1;
}

function meanOf(each: StudyModel, measure: Measure): number {
  return finalOf(each)[measure].mean;
}

/** Which models lead on the test set. */
function best(result: StudyResult): string {
  const [loss, accuracy] = testMeasures.map(measure => {
    const values = result.models.map(each => meanOf(each, measure));
    const top = values.reduce((a, b) => (compare(measure, b, a) > 0 ? b : a));
    const names = result.models
      .filter((_, index) => compare(measure, values[index], top) === 0)
      .map(({ model }) => labels[model]);
    return { who: listOf(names), value: show(measure, top), has: names.length === 1 ? 'has' : 'have' };
  });
  const mean = hasSpread(result) ? 'mean ' : '';
  if (loss.who === accuracy.who) {
    return `${loss.who} ${loss.has} both the lowest ${mean}test loss (${loss.value}) and the highest ${mean}test accuracy (${accuracy.value}).`;
  }
  return (
    `${loss.who} ${loss.has} the lowest ${mean}test loss (${loss.value}), ` +
    `and ${accuracy.who} ${accuracy.has} the highest ${mean}test accuracy (${accuracy.value}).`
  );
}

/** Two models in one measure: by how much, in how many seeds, and whether that is more than the spread. */
function pair(result: StudyResult, first: StudyModelName, second: StudyModelName, measure: Measure): string {
  const two = [modelOf(result, first), modelOf(result, second)];
  const order = compare(measure, meanOf(two[0], measure), meanOf(two[1], measure));
  const word = measureWords[measure];
  if (order === 0) {
    const same = show(measure, meanOf(two[0], measure));
    return `In ${word} ${labels[first]} and ${labels[second]} are equal${hasSpread(result) ? ' on average' : ''} (${same}).`;
  }
  const [ahead, behind] = order > 0 ? two : two.toReversed();
  const [high, low] = [ahead, behind].map(each => show(measure, meanOf(each, measure)));
  const lead = `In ${word} ${labels[ahead.model]} is ahead of ${labels[behind.model]} by ${distance(measure, order)}`;
  if (!hasSpread(result)) return `${lead} (${high} against ${low}).`;
  const wins = ahead.runs.filter(
    ({ epochs }, index) =>
      compare(measure, epochs.at(-1)![measure], behind.runs[index].epochs.at(-1)![measure]) > 0,
  ).length;
  const [a, b] = [finalOf(ahead)[measure], finalOf(behind)[measure]];
  const overlap = a.low <= b.high && b.low <= a.high;
  const range = (summary: Summary): string =>
    `${show(measure, summary.low)} to ${show(measure, summary.high)}`;
  const verdict = !overlap
    ? 'exceeds the spread'
    : wins === result.seeds.length
      ? 'shows in each of them, but does not exceed the spread'
      : 'does not exceed the spread';
  return (
    `${lead} on average (${high} against ${low}), and in ${wins} of ${result.seeds.length} seeds; the ranges over seeds ` +
    `${overlap ? 'overlap' : 'do not overlap'} (${range(a)}, and ${range(b)}), so the difference ${verdict}.`
  );
}

/** What it does to the test figures, here and there. */
function regularization(result: StudyResult): string {
  const there = effects((model, measure) => published[model][measure]);
  const here = effects((model, measure) => meanOf(modelOf(result, model), measure));
  return `In the published study regularization ${there}; here it ${here}.`;
}

function effects(valueOf: (model: StudyModelName, measure: Measure) => number): string {
  const items = testMeasures.map(measure => {
    const [from, to] = [valueOf('lenet5', measure), valueOf('lenet5-regularized', measure)];
    const order = difference(to, from);
    const word = measureWords[measure];
    if (order === 0) return `leaves the ${word} at ${show(measure, from)}`;
    return `${order > 0 ? 'raises' : 'lowers'} the ${word} (${show(measure, from)} to ${show(measure, to)})`;
  });
  return listOf(items);
}

/** From the training to the test accuracy; above 0 where the latter is lower. */
function gapOf(each: StudyModel): number {
  return difference(meanOf(each, 'trainAccuracy'), meanOf(each, 'testAccuracy'));
}

function gaps({ models }: StudyResult): string {
  const items = models.map(each => {
    const gap = gapOf(each);
    const side = gap === 0 ? 'the same' : `${distance('testAccuracy', gap)} ${gap > 0 ? 'lower' : 'higher'}`;
    return `${side} with ${labels[each.model]}`;
  });
  return `Set against the training accuracy, the test accuracy is ${listOf(items)}.`;
}

function gapOfRegularization(result: StudyResult): string {
  const [from, to] = (['lenet5', 'lenet5-regularized'] as const).map(name =>
    Math.abs(gapOf(modelOf(result, name))),
  );
  const order = difference(to, from);
  if (order === 0) return 'Regularization does not change the gap of LeNet-5.';
  const [before, after] = [from, to].map(gap => (gap * 100).toFixed(2));
  return `Regularization ${order < 0 ? 'narrows' : 'widens'} the gap of LeNet-5, from ${before} to ${after} percentage points.`;
}

function errors(result: StudyResult): string {
  const [few, many] = (['lenet5', 'mlp'] as const)
    .map(name => ({ name: labels[name], rate: 1 - meanOf(modelOf(result, name), 'testAccuracy') }))
    .toSorted((a, b) => a.rate - b.rate);
  if (difference(few.rate, many.rate) === 0) {
    return `${labels.lenet5} and ${labels.mlp} get the same share of the test images wrong, ${percent(few.rate)}.`;
  }
  if (difference(few.rate, 0) === 0) {
    return `${few.name} gets no test image wrong, ${many.name} ${percent(many.rate)} of them.`;
  }
  return (
    `${hasSpread(result) ? 'On average ' : ''}${few.name} gets ${percent(few.rate)} of the test images wrong, ` +
    `${many.name} ${percent(many.rate)}: ${(many.rate / few.rate).toFixed(1)} times as many.`
  );
}

function sizes(result: StudyResult): string {
  const [small, large] = (['lenet5', 'mlp'] as const)
    .map(name => modelOf(result, name))
    .toSorted((a, b) => a.parameters - b.parameters);
  return (
    `${labels[large.model]} has ${integer(large.parameters)} parameters, ` +
    `${(large.parameters / small.parameters).toFixed(1)} times the ${integer(small.parameters)} of ${labels[small.model]}.`
  );
}

/** Whether the test loss was still moving at the end; no sentence where there is one epoch. */
function lastEpoch(result: StudyResult): string[] {
  if (result.epochs < 2) return [];
  const moves = result.models.map(({ model, epochs }) => {
    const [before, last] = epochs.slice(-2).map(({ testLoss }) => testLoss.mean);
    const order = difference(last, before);
    const values = [...(order === 0 ? [] : [before]), last].map(value => show('testLoss', value));
    return {
      verb: order === 0 ? 'stays the same' : order < 0 ? 'falls' : 'rises',
      item: `${labels[model]} (${values.join(' to ')})`,
    };
  });
  const verbs = [...new Set(moves.map(({ verb }) => verb))];
  const groups = verbs.map(verb => {
    return `${verb} with ${listOf(moves.filter(move => move.verb === verb).map(({ item }) => item))}`;
  });
  return [`In the last epoch the ${hasSpread(result) ? 'mean ' : ''}test loss ${groups.join('; it ')}.`];
}

/** What the published study counts, and what the layers have. */
export function publishedTotals(result: StudyResult): string {
  const { model, layer: name, parameters: claimed } = publishedCount;
  const { layers, parameters } = modelOf(result, model);
  const layer = layers.find(each => each.name === name);
  if (!layer) return '';
  const claim = `The published study takes ${name} of ${labels[model]} for ${integer(claimed)} parameters`;
  if (layer.parameters === claimed) return `${claim}, and so does this table.`;
  return (
    `${claim}. It has ${layer.arithmetic} = ${integer(layer.parameters)}; with ${integer(claimed)} the layers of the table ` +
    `would sum up to ${integer(parameters - layer.parameters + claimed)} and not to ${integer(parameters)}.`
  );
}

/** A difference of two figures, whose sign is told otherwise. */
function distance(measure: Measure, signed: number): string {
  const size = Math.abs(signed);
  if (isLoss(measure)) return size < 0.00005 ? 'less than 0.0001' : size.toFixed(4);
  return `${size < 0.00005 ? 'less than 0.01' : (size * 100).toFixed(2)} percentage points`;
}

function listOf(items: readonly string[]): string {
  return items.length < 2 ? items.join('') : `${items.slice(0, -1).join(', ')} and ${items.at(-1)}`;
}

// What a study says: every sentence follows from the numbers, and turns where they do.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { Block, Document } from '#dist/report/document.js';
import { htmlPage } from '#dist/report/html.js';
import { figuresOf, markdown } from '#dist/report/markdown.js';
import { studyDocument } from '#dist/report/study-document.js';
import {
  published,
  summarize,
  summarizeEpochs,
  type Figures,
  type StudyModelName,
  type StudyResult,
} from '#dist/report/study-figures.js';
import { discussion, publishedTotals, showSummary, standing } from '#dist/report/study-text.js';
import { goodFigures, studyWith } from '../support/study.js';

type Change = Partial<Figures>;

const base: Readonly<Record<StudyModelName, Figures>> = {
  lenet5: { trainLoss: 0.01, trainAccuracy: 0.995, testLoss: 0.03, testAccuracy: 0.99 },
  mlp: { trainLoss: 0.1, trainAccuracy: 0.97, testLoss: 0.15, testAccuracy: 0.96 },
  'lenet5-regularized': { trainLoss: 0.02, trainAccuracy: 0.99, testLoss: 0.025, testAccuracy: 0.9875 },
};

/** A study with one seed for each of `changes`: what differs from `base` there. */
function studyOf(...changes: Partial<Record<StudyModelName, Change>>[]): StudyResult {
  return studyWith(
    (model, seed) => ({ ...base[model], ...changes[seed - 1][model] }),
    changes.map((_, index) => index + 1),
  );
}

/** All of the discussion, a sentence a line. */
function told(result: StudyResult): string {
  return discussion(result).join(' ').replaceAll('. ', '.\n');
}

test('means and sample standard deviations', () => {
  assert.deepEqual(summarize([1, 2, 3, 6]), { mean: 3, deviation: Math.sqrt(14 / 3), low: 1, high: 6 });
  assert.deepEqual(summarize([7]), { mean: 7, deviation: null, low: 7, high: 7 });
  const [loss, accuracy] = [summarize([0.02, 0.03]), summarize([0.98, 0.99])];
  assert.equal(showSummary('testLoss', loss), '0.0250 ± 0.0071');
  assert.equal(showSummary('testAccuracy', accuracy), '98.50 ± 0.71 %');
  assert.equal(showSummary('testAccuracy', summarize([0.98])), '98.00 %');
});

test('figures that equal the published ones are as good, whatever a mean is rounded to', () => {
  const equal = studyWith(model => published[model], [1, 2, 3, 4, 5, 6, 7]);
  for (const set of ['test', 'training'] as const) {
    assert.equal(
      standing(equal, set),
      `All 6 mean ${set} figures are at least as good as the published ones.`,
    );
  }
  const one = studyWith(model => published[model], [1]);
  assert.equal(standing(one, 'test'), 'All 6 test figures are at least as good as the published ones.');
});

/** As published, but for some models that are worse on the test set. */
function worse(names: readonly StudyModelName[]): StudyResult {
  return studyWith(model =>
    names.includes(model) ? { ...published[model], testLoss: 0.2, testAccuracy: 0.9 } : published[model],
  );
}

test('figures that are worse than the published ones are named', () => {
  assert.equal(
    standing(worse(['mlp']), 'test'),
    'Of the 6 mean test figures 4 are at least as good as the published ones. Worse: the test loss of MLP ' +
      '(0.2000, published 0.1575) and the test accuracy of MLP (90.00 %, published 95.27 %).',
  );
  assert.match(standing(worse(['mlp']), 'training'), /^All 6 /);
  const none = standing(worse(['lenet5', 'mlp', 'lenet5-regularized']), 'test');
  assert.match(none, /^Of the 6 mean test figures none is at least as good as the published ones\. Worse: /);
  const single = studyWith((model, _, epoch) => ({
    ...published[model],
    ...(model === 'mlp' && epoch === 2 ? { trainLoss: 0.1363 } : { trainAccuracy: 0.5 }),
    ...(model !== 'mlp' && { trainLoss: 1 }),
  }));
  assert.match(standing(single, 'training'), /^Of the 6 mean training figures 1 is at least as good/);
});

const sentences: [string, StudyResult, RegExp[]][] = [
  [
    'one model leads in loss, another in accuracy',
    studyOf({}, {}),
    [
      /^LeNet-5 regularized has the lowest mean test loss \(0\.0250\), and LeNet-5 has the highest mean test accuracy \(99\.00 %\)\.$/m,
    ],
  ],
  [
    'one model leads in both, with one seed',
    studyOf({ lenet5: { testLoss: 0.02 } }),
    [
      /^LeNet-5 has both the lowest test loss \(0\.0200\) and the highest test accuracy \(99\.00 %\)\.$/m,
      /^One seed says nothing about the spread: another may order the models in another way\.$/m,
      /^In test loss LeNet-5 is ahead of LeNet-5 regularized by 0\.0050 \(0\.0200 against 0\.0250\)\.$/m,
    ],
  ],
  [
    'two models lead',
    studyOf(
      { lenet5: { testLoss: 0.025, testAccuracy: 0.9875 } },
      { lenet5: { testLoss: 0.025, testAccuracy: 0.9875 } },
    ),
    [
      /^LeNet-5 and LeNet-5 regularized have both the lowest mean test loss \(0\.0250\) and the highest mean /m,
      /^In test loss LeNet-5 and LeNet-5 regularized are equal on average \(0\.0250\)\.$/m,
      /; here it leaves the test loss at 0\.0250 and leaves the test accuracy at 98\.75 %\.$/m,
    ],
  ],
  [
    'ranges do not overlap',
    studyOf({ lenet5: { testLoss: 0.031 } }, { lenet5: { testLoss: 0.033 } }),
    [
      /^In test loss LeNet-5 regularized is ahead of LeNet-5 by 0\.0070 on average \(0\.0250 against 0\.0320\), and in 2 of 2 seeds; the ranges over seeds do not overlap \(0\.0250 to 0\.0250, and 0\.0310 to 0\.0330\), so the difference exceeds the spread\.$/m,
    ],
  ],
  [
    'ranges overlap, and a seed has another order',
    studyOf({ lenet5: { testLoss: 0.031 } }, { lenet5: { testLoss: 0.024 } }),
    [
      /^In test loss LeNet-5 regularized is ahead of LeNet-5 by 0\.0025 on average \(0\.0250 against 0\.0275\), and in 1 of 2 seeds; the ranges over seeds overlap \(.*\), so the difference does not exceed the spread\.$/m,
    ],
  ],
  [
    'ranges overlap, and every seed has the same order',
    studyOf(
      { lenet5: { testLoss: 0.031 }, 'lenet5-regularized': { testLoss: 0.03 } },
      { lenet5: { testLoss: 0.029 }, 'lenet5-regularized': { testLoss: 0.028 } },
    ),
    [
      /^In test loss .* and in 2 of 2 seeds; the ranges over seeds overlap \(0\.0280 to 0\.0300, and 0\.0290 to 0\.0310\), so the difference shows in each of them, but does not exceed the spread\.$/m,
    ],
  ],
  [
    'regularization does here what it did there',
    studyOf({ 'lenet5-regularized': { testAccuracy: 0.995 } }),
    [
      /^In the published study regularization lowers the test loss \(0\.0363 to 0\.0309\) and raises the test accuracy \(98\.78 % to 99\.01 %\); here it lowers the test loss \(0\.0300 to 0\.0250\) and raises the test accuracy \(99\.00 % to 99\.50 %\)\.$/m,
    ],
  ],
  [
    'regularization does the opposite',
    studyOf({ lenet5: { testLoss: 0.02 } }),
    [
      /; here it raises the test loss \(0\.0200 to 0\.0250\) and lowers the test accuracy \(99\.00 % to 98\.75 %\)\.$/m,
    ],
  ],
  [
    'the gap is narrowed',
    studyOf({}),
    [
      /^Set against the training accuracy, the test accuracy is 0\.50 percentage points lower with LeNet-5, 1\.00 percentage points lower with MLP and 0\.25 percentage points lower with LeNet-5 regularized\.$/m,
      /^Regularization narrows the gap of LeNet-5, from 0\.50 to 0\.25 percentage points\.$/m,
    ],
  ],
  [
    'the gap is widened, to the other side',
    studyOf({ 'lenet5-regularized': { trainAccuracy: 0.98 }, mlp: { trainAccuracy: 0.96 } }),
    [
      /is 0\.50 percentage points lower with LeNet-5, the same with MLP and 0\.75 percentage points higher with LeNet-5 regularized\.$/m,
      /^Regularization widens the gap of LeNet-5, from 0\.50 to 0\.75 percentage points\.$/m,
    ],
  ],
  [
    'the gap stays',
    studyOf({ 'lenet5-regularized': { trainAccuracy: 0.9925 } }),
    [/^Regularization does not change the gap of LeNet-5\.$/m],
  ],
  [
    'differences that round to nothing',
    studyOf({
      lenet5: { testLoss: 0.02501, testAccuracy: 0.98751, trainAccuracy: 0.98752 },
      mlp: { testLoss: 0.02501 },
    }),
    [
      /^In test loss LeNet-5 regularized is ahead of LeNet-5 by less than 0\.0001 \(/m,
      /^In test accuracy LeNet-5 is ahead of LeNet-5 regularized by less than 0\.01 percentage points \(/m,
      /^In test loss LeNet-5 and MLP are equal \(0\.0250\)\.$/m,
      /, the test accuracy is less than 0\.01 percentage points lower with LeNet-5, /,
    ],
  ],
  [
    'errors and sizes',
    studyOf({}, {}),
    [
      /^On average LeNet-5 gets 1\.00 % of the test images wrong, MLP 4\.00 %: 4\.0 times as many\.$/m,
      /^LeNet-5 has 44,426 parameters, 2\.8 times the 15,910 of MLP\.$/m,
    ],
  ],
  [
    'the MLP has fewer errors',
    studyOf({ mlp: { testAccuracy: 0.995 } }),
    [
      /^MLP gets 0\.50 % of the test images wrong, LeNet-5 1\.00 %: 2\.0 times as many\.$/m,
      /^In test accuracy MLP is ahead of LeNet-5 by 0\.50 percentage points \(99\.50 % against 99\.00 %\)\.$/m,
    ],
  ],
  [
    'no errors at all',
    studyOf({ lenet5: { testAccuracy: 1 } }),
    [/^LeNet-5 gets no test image wrong, MLP 4\.00 % of them\.$/m],
  ],
  [
    'as many errors',
    studyOf({ mlp: { testAccuracy: 0.99 } }),
    [/^LeNet-5 and MLP get the same share of the test images wrong, 1\.00 %\.$/m],
  ],
  [
    'the last epoch: falling, rising and neither',
    studyWith((model, _, epoch) => {
      const move = { lenet5: -0.01, mlp: 0.01, 'lenet5-regularized': 0 }[model];
      return { ...base[model], testLoss: base[model].testLoss + epoch * move };
    }),
    [
      /^In the last epoch the mean test loss falls with LeNet-5 \(0\.0200 to 0\.0100\); it rises with MLP \(0\.1600 to 0\.1700\); it stays the same with LeNet-5 regularized \(0\.0250\)\.$/m,
    ],
  ],
  [
    'the last epoch: all falling',
    studyWith((model, _, epoch) => ({ ...base[model], testLoss: base[model].testLoss / epoch }), [1]),
    [
      /^In the last epoch the test loss falls with LeNet-5 \(0\.0300 to 0\.0150\), MLP \(.*\) and LeNet-5 regularized \(0\.0250 to 0\.0125\)\.$/m,
    ],
  ],
];

for (const [what, result, patterns] of sentences) {
  test(`discussion: ${what}`, () => {
    for (const pattern of patterns) assert.match(told(result), pattern);
  });
}

test('one epoch tells nothing of a last one, several seeds nothing of one', () => {
  assert.doesNotMatch(told(studyWith(goodFigures, [1, 2], 1)), /last epoch|One seed/);
  assert.doesNotMatch(told(studyWith(goodFigures, [1])), /mean|average|ranges|spread(?!:)/);
});

test("the published count of LeNet-5's parameters is put right, from the layers", () => {
  const result = studyOf({});
  assert.equal(
    publishedTotals(result),
    'The published study takes fc1 of LeNet-5 for 3,080 parameters. It has 256 x 120 + 120 = 30,840; with 3,080 the ' +
      'layers of the table would sum up to 16,666 and not to 44,426.',
  );
  const [lenet5, ...others] = result.models;
  const withFc1 = (layers: typeof lenet5.layers) => ({
    ...result,
    models: [{ ...lenet5, layers }, ...others],
  });
  const fc1 = lenet5.layers.find(({ name }) => name === 'fc1')!;
  assert.match(publishedTotals(withFc1([{ ...fc1, parameters: 3080 }])), /, and so does this table\.$/);
  assert.equal(publishedTotals(withFc1([])), '');
});

/** The blocks of a kind. */
function all<Type extends Block['type']>({ blocks }: Document, type: Type): Extract<Block, { type: Type }>[] {
  return blocks.filter((block): block is Extract<Block, { type: Type }> => block.type === type);
}

test('tables have both studies, the arithmetic of the parameters, and every run with its hash', () => {
  const document = studyDocument(studyOf({}, { lenet5: { testLoss: 0.032 } }));
  const [onTest, onTraining, lenet5, mlp, runs] = all(document, 'table');
  assert.deepEqual(onTest.head, ['model', 'test loss', 'test accuracy in %']);
  assert.deepEqual(onTest.rows.slice(0, 2), [
    ['LeNet-5', '0.0310 ± 0.0014', '99.00 ± 0.00'],
    ['published', '0.0363', '98.78'],
  ]);
  assert.deepEqual(onTraining.rows.at(-1), ['published', '0.0358', '99.08']);
  assert.equal(lenet5.caption, 'Parameters of LeNet-5 and LeNet-5 regularized');
  assert.deepEqual(lenet5.rows, [
    ['conv1', '5 x 5 x 1 x 6 + 6', '156'],
    ['conv2', '5 x 5 x 6 x 16 + 16', '2,416'],
    ['fc1', '256 x 120 + 120', '30,840'],
    ['fc2', '120 x 84 + 84', '10,164'],
    ['fc3', '84 x 10 + 10', '850'],
    ['total', '156 + 2,416 + 30,840 + 10,164 + 850', '44,426'],
  ]);
  assert.deepEqual(mlp.rows.at(-1), ['total', '15,700 + 210', '15,910']);
  assert.equal(runs.rows.length, 6);
  assert.deepEqual(runs.rows[1], ['lenet5 --seed 2', '0000000000000002', '0.0320', '99.00 %']);
});

/** Of the first figure. */
function barsIn(document: Document): number {
  const [{ svg }] = figuresOf(document);
  return svg.match(/stroke-opacity="0\.5"/g)?.length ?? 0;
}

test('there is a figure for each measure of all models, and for loss and accuracy of each', () => {
  const several = studyDocument(studyWith(goodFigures));
  const names = all(several, 'figures').map(({ figures }) => figures.map(({ name }) => name));
  assert.deepEqual(names, [
    ['test-accuracy', 'test-loss', 'training-accuracy', 'training-loss'],
    ['lenet5', 'mlp', 'lenet5-regularized'].flatMap(name => [`${name}-loss`, `${name}-accuracy`]),
  ]);
  const one = studyDocument(studyWith(goodFigures, [1]));
  assert.ok(barsIn(several) > barsIn(one));
  for (const { path, svg } of figuresOf(several)) {
    assert.ok(svg.includes(path.includes('loss') ? '>cross-entropy, nats<' : '>recognized<'), path);
  }
  const text = (document: Document): string => JSON.stringify(all(document, 'text'));
  assert.match(text(several), /mean over 3 seeds at the end of an epoch; bars reach/);
  assert.doesNotMatch(text(one), /mean|bars|±/);
});

test('page and Markdown have the same content and follow from the result alone', () => {
  const result = studyWith(goodFigures);
  const [page, text] = [htmlPage, markdown].map(write => write(studyDocument(result)));
  for (const written of [page, text]) {
    for (const expected of [
      '16,666',
      'lenet5 --seed 3',
      'dropout 0.5',
      'weight decay 0.0001',
      'seeds 1 to 3',
    ]) {
      assert.ok(written.includes(expected), expected);
    }
  }
  assert.equal(htmlPage(studyDocument(studyWith(goodFigures))), page);
  for (const { path } of figuresOf(studyDocument(result))) assert.ok(text.includes(`](${path})`));
});

const root = fileURLToPath(new URL('../..', import.meta.url));

test('docs/study is what its numbers give, and the README has its figures', () => {
  const file = (name: string): string => readFileSync(join(root, 'docs', 'study', name), 'utf8');
  const kept: StudyResult & { readonly published: typeof published } = JSON.parse(file('study.json'));
  assert.deepEqual(kept.published, published);
  assert.equal(kept.seeds.length, 5);
  for (const { runs, epochs } of kept.models) assert.deepEqual(summarizeEpochs(runs), epochs);
  const document = studyDocument(kept);
  assert.equal(file('README.md'), markdown(document));
  assert.equal(file('study.html'), htmlPage(document));
  const figures = figuresOf(document);
  for (const { path, svg } of figures) assert.equal(file(path), svg);
  assert.equal(readdirSync(join(root, 'docs', 'study', 'figures')).length, figures.length);

  const readme = readFileSync(join(root, 'README.md'), 'utf8').replaceAll(/ +/g, ' ');
  for (const { model, parameters, epochs } of kept.models) {
    const { testAccuracy, testLoss } = epochs.at(-1)!;
    const { testAccuracy: theirAccuracy, testLoss: theirLoss } = published[model];
    const accuracies = [testAccuracy.mean, theirAccuracy].map(share => `${(100 * share).toFixed(2)} %`);
    const losses = [testLoss.mean, theirLoss].map(value => value.toFixed(4));
    const name = model === 'mlp' ? 'mlp (784-20-10)' : model;
    const cells = [name, parameters.toLocaleString('en-US'), ...accuracies, ...losses];
    assert.ok(readme.includes(`| ${cells.join(' | ')} |`), cells.join(', '));
  }
});

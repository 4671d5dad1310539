// Figures: what a reader, a browser and a screen reader need is in the text.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DOMParser } from 'linkedom';
import {
  dotChart,
  lineChart,
  matrixChart,
  stackedBars,
  standalone,
  timeline,
  type LineChart,
  type Look,
} from '#dist/report/figure.js';

const chart: LineChart = {
  title: 'lenet5 & <friends>',
  xLabel: 'workers',
  yLabel: 'images/s',
  series: [
    {
      name: 'batch 64',
      points: [
        { x: 1, y: 1000, low: 900, high: 1100 },
        { x: 2, y: 1900, low: 1800, high: 2000 },
        { x: 8, y: 6000 },
      ],
    },
    { name: 'batch 64, without barriers', points: [{ x: 1, y: 1050 }], dashed: true },
    { name: 'batch <512>', points: [{ x: 4, y: 1e6, low: 1e5, high: 2e6 }] },
  ],
};

/** Fails on a tag that is not closed, or an `&` or `<` that is not escaped. */
function assertWellFormed(text: string): void {
  const open: string[] = [];
  const markup = /<(\/?)([\w:]+)((?:\s+[\w:-]+="[^"<]*")*)\s*(\/?)>|([^<]+)/gy;
  let end = 0;
  for (const [all, closing, name, , selfClosing, plain] of text.matchAll(markup)) {
    end += all.length;
    assert.doesNotMatch(all, /&(?!(amp|lt|gt|quot|apos|#\d+);)/);
    if (plain !== undefined || selfClosing) continue;
    if (closing) assert.equal(open.pop(), name);
    else open.push(name);
  }
  assert.equal(end, text.length, `no markup: ${text.slice(end, end + 80)}`);
  assert.deepEqual(open, []);
}

function parse(text: string) {
  return new DOMParser().parseFromString(text, 'image/svg+xml');
}

test('a figure is well-formed SVG with a title, a role and its own background', () => {
  const text = lineChart(chart);
  assertWellFormed(text);
  const svg = parse(text).documentElement;
  assert.equal(svg.tagName, 'svg');
  assert.equal(svg.getAttribute('xmlns'), 'http://www.w3.org/2000/svg');
  assert.equal(svg.getAttribute('role'), 'img');
  assert.equal(svg.firstElementChild?.tagName, 'title');
  assert.equal(svg.firstElementChild?.textContent, chart.title);
  assert.equal(svg.querySelector('rect')?.getAttribute('fill'), '#ffffff');
  assert.doesNotMatch(text, /https?:\/\/(?!www\.w3\.org\/)|NaN|undefined/);
});

test('every series has its line, its points and its row in the legend', () => {
  const svg = parse(lineChart(chart)).documentElement;
  const legend = [...svg.querySelectorAll('.legend')];
  assert.deepEqual(
    legend.map(row => row.textContent),
    chart.series.map(({ name }) => name),
  );
  assert.equal(svg.querySelectorAll('[aria-label=line]').length, 3);
  assert.equal(svg.querySelectorAll('[aria-label=dot] circle').length, 5);
  assert.equal(svg.querySelectorAll('[aria-label=rule] line').length, 1 + 3);
  const strokes = legend.map(row => row.querySelector('line')?.getAttribute('stroke'));
  assert.equal(strokes[0], strokes[1], 'a dashed series has the colour of the one before it');
  assert.notEqual(strokes[0], strokes[2]);
  assert.equal(svg.querySelectorAll('.legend [stroke-dasharray]').length, 1);
});

test('the axes have their labels, and a tick for every x', () => {
  const svg = parse(lineChart(chart)).documentElement;
  assert.equal(svg.querySelector('[aria-label="x-axis label"]')?.textContent, 'workers');
  assert.equal(svg.querySelector('[aria-label="y-axis label"]')?.textContent, 'images/s');
  const ticks = [...svg.querySelectorAll('[aria-label="x-axis tick label"] text')];
  assert.deepEqual(
    ticks.map(tick => tick.textContent),
    ['1', '2', '4', '8'],
  );
});

test('the same input gives the same text', () => {
  assert.equal(lineChart(chart), lineChart(chart));
});

const evil = 'a & <b> "c"';
const names = ['first', 'a name that is far too long for the place beside its row'];
const others: Record<string, (look?: Look) => string> = {
  dotChart: look =>
    dotChart(
      { title: evil, xLabel: evil, names, series: [{ name: evil, values: [0.5, null] }], unit: 'percent' },
      look,
    ),
  stackedBars: look =>
    stackedBars({ title: evil, xLabel: evil, names, parts: [{ name: evil, values: [1, 2] }] }, look),
  matrixChart: look =>
    matrixChart(
      {
        title: evil,
        xLabel: evil,
        yLabel: evil,
        counts: [
          [5, 0],
          [1, 3],
        ],
      },
      look,
    ),
  timeline: look =>
    timeline(
      {
        title: evil,
        xLabel: evil,
        rows: [{ name: names[1], spans: [{ from: 0, to: 2 }], marks: [{ kind: 'lost', x: 1, text: evil }] }],
        breaks: [1],
        end: 2,
      },
      look,
    ),
};

for (const [name, draw] of Object.entries(others)) {
  test(`${name} is well-formed, alone and on a page, and has its title`, () => {
    for (const look of [undefined, { ...standalone, foreground: 'var(--ink)', width: 420 }]) {
      const text = draw(look);
      assertWellFormed(text);
      assert.equal(parse(text).documentElement.firstElementChild?.textContent, evil);
      assert.doesNotMatch(text, /NaN|undefined|Infinity/);
    }
  });
}

test('there is room for wide letters too', () => {
  for (const name of ['WIN-RMWM4QOWG2M', 'DESKTOP-8KQ3H2L', 'M'.repeat(64), 'iiii']) {
    const svg = parse(stackedBars({ title: 't', xLabel: 'x', names: [name], parts: [] })).documentElement;
    const label = svg.querySelector('[aria-label="y-axis tick label"] text')!;
    // It ends at its x, and a letter of 13 px takes up to 12.8 px in the fonts of usual systems.
    const end = Number(/translate\(([\d.]+)/.exec(label.getAttribute('transform'))![1]);
    const wide = label.textContent.replaceAll(/[^MW]/g, '').length;
    assert.ok(
      end >= 12.8 * wide + 6 * (label.textContent.length - wide),
      `${label.textContent} ends at ${end}`,
    );
  }
});

test('names that do not fit are cut, others are not', () => {
  const labels = [
    ...parse(others['stackedBars']()).querySelectorAll('[aria-label="y-axis tick label"] text'),
  ].map(({ textContent }) => textContent);
  assert.equal(labels[0], 'first');
  assert.match(labels[1], /^a name .*….* its row$/);
});

test('a matrix without mistakes can be drawn, and a large one without numbers', () => {
  const right = matrixChart({
    title: 't',
    xLabel: 'x',
    yLabel: 'y',
    counts: [
      [5, 0],
      [0, 3],
    ],
  });
  assert.doesNotMatch(right, /NaN|Infinity/);
  const counts = Array.from({ length: 47 }, (_, row) =>
    Array.from({ length: 47 }, (__, column) => row * column),
  );
  const large = parse(matrixChart({ title: 't', xLabel: 'x', yLabel: 'y', counts })).documentElement;
  assert.equal(large.querySelectorAll('[aria-label=cell] rect').length, 46 * 46);
  assert.equal(large.querySelectorAll('[aria-label=text]').length, 0);
});

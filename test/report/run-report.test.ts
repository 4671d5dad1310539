// Reports: what a page says of a run follows from its numbers, and it stands alone.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseHTML } from 'linkedom';
import { PNG } from 'pngjs';
import type { ReportedRun } from '#dist/report/reported-run.js';
import { evenly, groups } from '#dist/report/part.js';
import { reportPage } from '#dist/report/run-report.js';
import { marks, nodeA, someRun, someSession, someTest } from '../support/reported-run.js';

function pageOf(...runs: ReportedRun[]) {
  const text = reportPage(runs);
  const { document } = parseHTML(text);
  return { text, document, words: document.querySelector('main')!.textContent.replaceAll('\u00a0', ' ') };
}

interface Element {
  getAttribute(name: string): string | null;
  querySelectorAll(selector: string): Iterable<Element & { readonly textContent: string }>;
}

/** The place of a shape: of a path or group that is moved, or of a rectangle. */
function xOf(element: Element): number {
  const moved = /^translate\(([-\d.]+)/.exec(element.getAttribute('transform') ?? '')?.[1];
  return Number(moved ?? element.getAttribute('x'));
}

/** From pixels to seconds, by the ticks of the axis. */
function secondsOf(svg: Element): (x: number) => number {
  const ticks = [...svg.querySelectorAll('[aria-label="x-axis tick label"] text')];
  const [first, last] = [ticks[0], ticks.at(-1)!].map(tick => ({
    x: xOf(tick),
    value: Number(tick.textContent.replaceAll(',', '')),
  }));
  const scale = (last.value - first.value) / (last.x - first.x);
  return x => first.value + (x - first.x) * scale;
}

test('a page stands alone: nothing is loaded, nothing runs', () => {
  const { text, document } = pageOf(someRun());
  assert.doesNotMatch(text, /<script|<iframe|@import|url\(|\son\w+=/i);
  const addresses = Array.from(text.matchAll(/(?:href|src)="([^"]*)"/g), ([, address]) => address);
  assert.ok(addresses.length >= 2);
  for (const address of addresses) assert.match(address, /^data:/);
  assert.match(document.querySelector('meta[http-equiv]')!.getAttribute('content'), /^default-src 'none'; /);
  assert.equal(pageOf(someRun()).text, text);
});

test('what others have written is text and no markup', () => {
  const evil = '<img src=x onerror=alert(1)>';
  const { text } = pageOf(
    someRun({
      name: evil,
      model: evil,
      runDir: evil,
      warnings: [evil],
      settings: [['model', evil]],
      test: evil,
      sessions: [
        someSession({
          message: evil,
          end: 'error',
          marks: marks.map(mark => ({ ...mark, name: evil, text: evil })),
        }),
      ],
    }),
    someRun(),
  );
  assert.doesNotMatch(text, /<img src=x/);
  assert.match(text, /&lt;img|&#60;img/);
});

test('every figure has a name of its own and words, every picture says what it shows', () => {
  const { document } = pageOf(someRun(), someRun({ name: 'small-2' }));
  const ids = [...document.querySelectorAll('figure')].map(({ id }) => id);
  assert.equal(new Set(ids).size, ids.length);
  for (const svg of document.querySelectorAll('svg')) {
    assert.equal(svg.getAttribute('role'), 'img');
    assert.ok(svg.getAttribute('aria-label'));
  }
  for (const figure of document.querySelectorAll('figcaption')) assert.ok(figure.textContent);
  const [picture] = document.querySelectorAll('img');
  assert.equal(picture.getAttribute('alt'), 'Test image 17 of class 2, taken for class 0');
  const png = PNG.sync.read(Buffer.from(picture.getAttribute('src')!.split(',')[1], 'base64'));
  const grays = [0, 255, 128, 7];
  assert.deepEqual(
    [...png.data],
    grays.flatMap(gray => [gray, gray, gray, 255]),
  );
});

for (const drawn of ['drawn-narrow', 'drawn-wide']) {
  test(`the timeline has every mark at the time of its event, ${drawn}`, () => {
    const { document } = pageOf(someRun());
    const svg = document.querySelector(`#timeline .${drawn} svg`)!;
    const toSeconds = secondsOf(svg);
    const shown = [...svg.querySelectorAll('[aria-label=dot] > *')].map(shape => ({
      seconds: toSeconds(xOf(shape)),
      text: shape.querySelector('title')!.textContent,
    }));
    assert.equal(shown.length, marks.length);
    for (const { timeMs, text } of marks) {
      const mark = shown.find(other => other.text.endsWith(text))!;
      assert.ok(Math.abs(mark.seconds * 1000 - timeMs) <= 0.01 * timeMs, `${text}: ${mark.seconds} s`);
      assert.match(mark.text, new RegExp(`at ${(timeMs / 1000).toFixed(3)} s, after step`));
    }
  });
}

test('the timeline has a bar for each thread, and for a node while it was there', () => {
  const { document } = pageOf(someRun());
  const svg = document.querySelector('#timeline .drawn-wide svg')!;
  const toSeconds = secondsOf(svg);
  // The first group is of those who compute, the second of those who only are there.
  const [solid, faint] = Array.from(svg.querySelectorAll('[aria-label=bar]'), (group: Element) =>
    Array.from(group.querySelectorAll('rect'), bar => {
      const from = xOf(bar);
      const ends = [from, from + Number(bar.getAttribute('width'))];
      return ends.map(x => Number(toSeconds(x).toFixed(1))).join('-');
    }),
  );
  // Two threads; a node that joins, is active, gone, and back, where nothing more is told of it; one that is late for a while.
  assert.deepEqual(solid, ['0-10', '0-10', '1-3', '1.7-3.3', '3.6-10']);
  assert.deepEqual(faint, ['0.8-1', '4-10', '1.5-1.7', '3.3-3.6']);
});

test('a resumed run has its sessions one after another', () => {
  const killed = someSession({ end: 'unknown', endMs: 5000, threads: [], nodes: [], lastStep: 700 });
  const { document, words } = pageOf(someRun({ sessions: [killed, someSession({ resumedStep: 600 })] }));
  const svg = document.querySelector('#timeline .drawn-wide svg')!;
  const toSeconds = secondsOf(svg);
  const lost = [...svg.querySelectorAll('[aria-label=dot] > *')]
    .filter(shape => /it was killed/.test(shape.querySelector('title')!.textContent))
    .map(shape => Number(toSeconds(xOf(shape)).toFixed(2)));
  assert.deepEqual(lost, [2, 7]);
  assert.match(words, /Session 1 began .* did steps 1 to 700 in 5\.0 s; it was killed\./);
  assert.match(words, /Session 2 began .* did steps 601 to 1,000 in 10\.0 s; it ended with the run\./);
  assert.match(words, /Of 1 session it is not known: threads tell it when a run ends or is interrupted\./);
  assert.match(words, /15\.0 s in 2 sessions/);
});

test('the time of threads is told in shares that add up', () => {
  const { words } = pageOf(someRun());
  assert.match(
    words,
    /spent 60\.0 % computing, 10\.0 % waiting, 5\.0 % reducing, 5\.0 % updating, 20\.0 % other\./,
  );
});

test('images/s are all images over the time of training', () => {
  assert.match(pageOf(someRun()).words, /images\/s\s*23,333/);
});

test('what was computed is told of each thread and node', () => {
  const { document } = pageOf(someRun());
  const cells = [...document.querySelectorAll('table')].map(table =>
    [...table.querySelectorAll('tbody tr')].map(row =>
      [...row.children].map(({ textContent }) => textContent.replaceAll('\u00a0', ' ')),
    ),
  );
  const has = (row: string[]): boolean => cells.some(rows => rows.some(other => other.join() === row.join()));
  assert.ok(has(['0', '300', '60.0 %']));
  assert.ok(has(['1', '200', '40.0 %']));
  assert.ok(has(['attic (a1b2c3d4)', '4', '120,000', '2,000', '0.3 s', '1', '1', '30.0 MB', '60.0 MB']));
  assert.ok(has(['node-lost', '1', '3.000 s', '600', 'attic (a1b2c3d4)', '<b>closed</b> & gone']));
  assert.ok(has(['2', '10', '7', '70.00 %', '7', '100.00 %']));
});

test('where the weights that were evaluated are not the newest, their step is told', () => {
  const old = { ...someTest, step: 400 };
  const one = pageOf(someRun({ test: old })).words;
  assert.match(one, /test accuracy\s*90\.00 % \(after step 400\)/);
  assert.match(one, /test loss\s*0\.2500 \(after step 400\)/);
  assert.match(pageOf(someRun({ test: old }), someRun({ name: 'b' })).words, /90\.00 % \(after step 400\)/);
  assert.doesNotMatch(pageOf(someRun()).words, /\(after step/);
});

test('a session says how it ended, or that it has not', () => {
  const killed = someSession({ end: 'unknown', threads: [], nodes: [] });
  const failed = someSession({ end: 'error', message: 'LOCKSTEP_NAN: no number.', threads: [], nodes: [] });
  const { words } = pageOf(someRun({ state: 'running', sessions: [killed, failed, killed] }));
  const ends = Array.from(words.matchAll(/in 10\.0 s; (.*?)\. (?=Session|\n|Timeline)/g), ([, end]) => end);
  assert.deepEqual(ends.slice(0, 2), ['it was killed', 'it ended with LOCKSTEP_NAN: no number.']);
  assert.match(words, /Session 3 [^;]*; it is still at work\./);
  assert.match(words, /Of 3 sessions it is not known/);
});

test('the time of all threads together is weighted by how long they were there', () => {
  const [one] = someSession().threads;
  const short = someSession({
    endMs: 1000,
    threads: [{ ...one, computeMs: 0, waitMs: 0, reduceMs: 0, updateMs: 0 }],
  });
  const { words } = pageOf(someRun({ sessions: [short, someSession({ threads: [one] })] }));
  // 6 of 11 s, and 3 of them in nothing that is named.
  assert.match(
    words,
    /spent 54\.5 % computing, 9\.1 % waiting, 4\.5 % reducing, 4\.5 % updating, 27\.3 % other\./,
  );
});

test('the loss of the steps is told as means over as many steps as they are', () => {
  const steps = Array.from({ length: 300 }, (_, index) => ({
    step: 4 * (index + 1),
    loss: index % 2,
    learningRate: 1,
  }));
  const run = someRun({ steps });
  assert.match(pageOf(run).words, /before the update, means over 4 steps\./);
  // Two runs have room for 200 points each, so pairs are joined: of 0 and 1 in turns there is 0.5 everywhere.
  const { document, words } = pageOf(run, someRun({ name: 'small-2' }));
  assert.match(words, /before the update, means over 8 steps\./);
  const line = document.querySelector('#run-1-step-loss [aria-label=line] path')!.getAttribute('d')!;
  const heights = new Set(Array.from(line.matchAll(/,([\d.]+)/g), ([, y]) => y));
  assert.equal(heights.size, 1);
});

test('short pieces of the timeline are joined, long ones are not', () => {
  const states = ['late', 'active', 'late', 'active'] as const;
  const flapping = someSession({
    marks: marks.slice(0, 1),
    nodeStates: states.map((state, index) => ({ timeMs: 900 + index, node: nodeA, name: '', state })),
  });
  const { document } = pageOf(someRun({ sessions: [flapping] }));
  const svg = document.querySelector('#timeline .drawn-wide svg')!;
  const bars = svg.querySelectorAll('[aria-label=bar] rect').length;
  // Two threads; the node joining, what it did within 3 ms as one, and the long rest.
  assert.equal(bars, 5);
});

test('without events, epochs or an evaluation the rest is shown, and what is missing is said', () => {
  const { words, document } = pageOf(
    someRun({
      sessions: [],
      epochs: [],
      test: 'The data are gone.',
      hash: null,
      weightsSha256: null,
      step: 0,
      steps: [],
    }),
  );
  assert.match(words, /There are no figures of the test set: The data are gone\./);
  assert.match(words, /The folder keeps no events/);
  assert.match(words, /0 of 1,000 steps/);
  assert.equal(document.querySelectorAll('figure').length, 0);
});

test('several runs are compared: what differs, and whether their bits are the same', () => {
  const other = someRun({
    name: 'small-2',
    settings: [
      ['model', 'small'],
      ['batch', '64'],
      ['seed', '2'],
    ],
  });
  const same = pageOf(someRun(), other);
  assert.match(same.words, /All have the same hash/);
  assert.match(same.words, /Settings that differ/);
  const legends = [...same.document.querySelectorAll('#compared-testLoss .legend')];
  assert.deepEqual(
    legends.map(({ textContent }) => textContent),
    ['small-1', 'small-2'],
  );
  const different = pageOf(someRun(), someRun({ name: 'small-2', hash: '0000000000000000' }));
  assert.doesNotMatch(different.words, /All have the same hash/);
  assert.match(different.words, /All settings are the same/);
  // Equal hashes of other steps say nothing.
  assert.doesNotMatch(pageOf(someRun(), someRun({ name: 'b', step: 999 })).words, /All have the same hash/);
});

test('nodes of one name are told apart', () => {
  const twins = marks.map(mark => ({ ...mark, name: mark.name && 'twin' }));
  const { document } = pageOf(someRun({ sessions: [someSession({ marks: twins })] }));
  const labels = [
    ...document.querySelectorAll('#timeline .drawn-wide [aria-label="y-axis tick label"] text'),
  ].map(({ textContent }) => textContent);
  assert.deepEqual(labels, ['thread 0', 'thread 1', `twin ${nodeA.slice(0, 8)}`, 'twin b7777777']);
});

/** Of everything as much as a report is ever given, or more. */
function fullRun(name: string): ReportedRun {
  const pixels = Uint8Array.from({ length: 64 * 64 * 3 }, (_, index) => (index * 7919) % 251);
  const classes = 100;
  const confusion = Array.from({ length: classes }, (_, row) =>
    Array.from({ length: classes }, (__, column) => ((row * 31 + column * 17) % 50) + 1),
  );
  const ids = Array.from({ length: 200 }, (_, index) => `${index}`.padStart(16, '0'));
  const node = someSession().nodes[0];
  const session = someSession({
    workers: 256,
    marks: Array.from({ length: 4000 }, (_, index) => {
      const who = ids[index % 200];
      return { ...marks[index % 2 === 0 ? 0 : 3], timeMs: index * 2, who, name: `node ${who}` };
    }),
    nodeStates: Array.from({ length: 2000 }, (_, index) => ({
      timeMs: index * 4,
      node: ids[index % 200],
      name: '',
      state: index % 2 === 0 ? 'active' : 'late',
    })),
    rates: Array.from({ length: 300 }, (_, index) => ({
      fromMs: index * 30,
      toMs: index * 30 + 30,
      images: Math.round(1500 * Math.abs(Math.cos(index))),
      trainMs: 30,
    })),
    threads: Array.from({ length: 256 }, (_, thread) => ({ ...someSession().threads[0], thread })),
    nodes: Array.from(ids, id => ({ ...node, node: id })),
  });
  return someRun({
    name,
    dataset: { ...someRun().dataset, shape: { height: 64, width: 64, channels: 3 }, classes },
    steps: Array.from({ length: 400 }, (_, index) => ({
      step: index + 1,
      loss: Math.abs(Math.sin(index)),
      learningRate: 0.001 * index,
    })),
    epochs: Array.from({ length: 5000 }, (_, index) => ({ ...someRun().epochs[0], epoch: index + 1 })),
    sessions: Array.from({ length: 12 }, () => session),
    test: {
      ...someTest,
      confusion,
      classes: confusion.map((_, index) => ({ ...someTest.classes[0], class: index })),
      confusedPairs: confusion.flatMap((row, label) =>
        row
          .map((samples, predicted) => ({ label, predicted, samples }))
          .filter(({ predicted }) => predicted !== label),
      ),
      worst: Array.from({ length: 24 }, (_, index) => ({ ...someTest.worst[0], index, pixels })),
    },
    warnings: Array.from({ length: 100 }, (_, index) => `warning ${index}`),
  });
}

for (const count of [1, 7]) {
  test(`${count} of the fullest runs stay below 3 MB, and what is left out is said`, () => {
    const { text, words } = pageOf(...Array.from({ length: count }, (_, index) => fullRun(`run ${index}`)));
    assert.ok(Buffer.byteLength(text) < 3e6, `${Buffer.byteLength(text)} bytes`);
    assert.match(words, /rows: \d+ of 356; marks: \d+ of [\d,]+\./);
    assert.match(words, /the first \d+ of 48,000/);
    assert.match(words, /threads: \d+ of 256/);
    assert.match(words, /beside it the most frequent, [\d,]+ of 9,900/);
    assert.match(words, /at the end of each epoch; \d+ of 5,000/);
    assert.match(words, /those with the most images, \d+ of 200/);
    assert.match(words, /\d+ more sessions followed\./);
  });
}

test('at equal distances the first and the last are chosen, and groups are of neighbours', () => {
  const items = Array.from({ length: 10 }, (_, index) => index);
  assert.deepEqual(evenly(items, 4), [0, 3, 6, 9]);
  assert.deepEqual(evenly(items, 10), items);
  assert.deepEqual(groups(items, 4), [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]);
  assert.deepEqual(
    groups(items, 20),
    items.map(item => [item]),
  );
  assert.deepEqual(groups([], 5), []);
});

// The part of a report on speed: images a second over time, and where the time of the threads went.

import { percent, plural } from '../shared/format.js';
import { details, lineFigure, text, type Block } from './document.js';
import { stackedBars, type Series } from './figure.js';
import { evenly, shownOf, type Page } from './part.js';
import type { ReportedRun, Session } from './reported-run.js';

export const noEvents = 'The folder keeps no events (events.jsonl), so it is not known what happened when.';

export function throughput({ sessions }: ReportedRun, page: Page): Block[] {
  if (sessions.length === 0) return [text(noEvents)];
  const series = [rateSeries('images/s', sessions, page)];
  if (series[0].points.length === 0) return [];
  const figure = lineFigure(
    'throughput',
    'Training images a second, evaluation and saving left out of the time.',
    { title: 'Throughput', xLabel: timeLabel(sessions), yLabel: 'images/s', isPlain: true, series },
    true,
  );
  return [page.figures([figure])];
}

export function rateSeries(name: string, sessions: readonly Session[], { most }: Page): Series {
  const offsets = offsetsMs(sessions);
  return {
    name,
    points: evenly(
      sessions.flatMap(({ rates }, index) =>
        rates.map(({ fromMs, toMs, imagesPerSecond: y }) => ({
          x: (offsets[index] + (fromMs + toMs) / 2) / 1000,
          y,
        })),
      ),
      most(600),
    ),
  };
}

/** Of the coordinator's process; those of TensorFlow's processes are nodes, which join. */
export function threadsOf({ engine, workers }: Session): number {
  return engine === 'tensorflow' ? 0 : workers;
}

export function timeLabel({ length }: readonly Session[]): string {
  return length > 1 ? 'seconds at work, pauses left out' : 'seconds since the start';
}

/** When each session began, as if it had begun when the one before it ended. */
export function offsetsMs(sessions: readonly Session[]): number[] {
  let endMs = 0;
  return sessions.map(session => {
    const startMs = endMs;
    endMs += session.endMs;
    return startMs;
  });
}

export function imagesPerSecond(sessions: readonly Session[]): number | undefined {
  const rates = sessions.flatMap(session => session.rates);
  const totalMs = sum(rates.map(({ fromMs, toMs }) => toMs - fromMs));
  if (totalMs === 0) return undefined;
  return sum(rates.map(rate => rate.imagesPerSecond * (rate.toMs - rate.fromMs))) / totalMs;
}

const timeParts = {
  computing: 'computeMs',
  waiting: 'waitMs',
  reducing: 'reduceMs',
  updating: 'updateMs',
} as const;

export function stepTime({ sessions }: ReportedRun, page: Page): Block[] {
  const told = sessions.filter(({ threads }) => threads.length > 0);
  const untold = sessions.filter(session => threadsOf(session) > 0 && session.threads.length === 0).length;
  const notTold =
    untold === 0
      ? ''
      : ` Of ${plural(untold, 'session')} it is not known: ${untold === 1 ? 'it was killed, or is' : 'they were killed, or are'} still at work.`;
  if (told.length === 0) return notTold === '' ? [] : [text(notTold.trimStart())];
  const indices = [...new Set(told.flatMap(({ threads }) => threads.map(({ thread }) => thread)))].toSorted(
    (a, b) => a - b,
  );
  const rows = indices.map(index => {
    const reports = told.flatMap(({ threads, endMs }) =>
      threads.filter(({ thread }) => thread === index).map(report => ({ report, endMs })),
    );
    const totalMs = sum(reports.map(({ endMs }) => endMs));
    const parts = Object.values(timeParts).map(
      key => sum(reports.map(({ report }) => report[key])) / Math.max(1, totalMs),
    );
    return { totalMs, shares: [...parts, Math.max(0, 1 - sum(parts))] };
  });
  const shown = rows.slice(0, page.most(64));
  const names = [...Object.keys(timeParts), 'other'];
  const means = names.map((_, part) => sum(rows.map(({ shares }) => shares[part])) / rows.length);
  const labels = indices.slice(0, shown.length).map(index => `thread ${index}`);
  return [
    text(
      `The threads spent ${names.map((name, part) => `${percent(means[part], 1)} ${name}`).join(', ')}.${notTold} ` +
        'Computing is leaves, of training and evaluation; waiting is at the barriers of a step; reducing adds the sums of ' +
        'all threads, and updating changes the weights, each thread its slice. Other is starting, reading data, saving, ' +
        'the time between spans of steps, when the main thread looks up, and where there are nodes waiting for them.',
    ),
    page.figures([
      {
        name: 'step-time',
        caption: `Shares of the time that each thread was there${shownOf(shown.length, rows.length, 'threads: ')}.`,
        isWide: true,
        draw: look =>
          stackedBars(
            {
              title: 'Where the time went',
              xLabel: 'of the time',
              names: labels,
              parts: names.map((name, part) => ({ name, values: shown.map(({ shares }) => shares[part]) })),
              unit: 'percent',
            },
            look,
          ),
      },
    ]),
    details('The threads in numbers', [
      {
        type: 'table',
        caption: `Shares of the time that each thread was there${shownOf(shown.length, rows.length, 'threads: ')}`,
        head: ['thread', 'time', ...names],
        rows: shown.map(({ totalMs, shares }, row) =>
          [String(indices[row]), seconds(totalMs)].concat(shares.map(value => percent(value, 1))),
        ),
      },
    ]),
  ];
}

export function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(ms < 100_000 ? 1 : 0)} s`;
}

export function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

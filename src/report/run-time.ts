// The part of a report on speed: images a second over time, and where the time of the threads went.

import { integer, percent, plural } from '../shared/format.js';
import { sum } from '../shared/sum.js';
import { details, lineFigure, text, type Block } from './document.js';
import { stackedBars, type Series } from './figure.js';
import { groups, shownOf, type Page } from './part.js';
import type { ReportedRun, Session, ThreadWork } from './reported-run.js';

export const noEvents = 'The folder keeps no events (events.jsonl), so it is not known what happened when.';

export function throughput({ sessions }: ReportedRun, page: Page): Block[] {
  if (sessions.length === 0) return [text(noEvents)];
  const series = [rateSeries('images/s', sessions, page)];
  if (imagesPerSecond(sessions) === undefined) return [];
  const figure = lineFigure(
    'throughput',
    'Training images a second; evaluation and saving are left out of the time.',
    { title: 'Throughput', xLabel: timeLabel(sessions), yLabel: 'images/s', isPlain: true, series },
    true,
  );
  return [page.figures([figure]), details('The speed in numbers', [rateTable(sessions)])];
}

const RATES_LISTED = 20;

/** For those who do not see the figure. */
function rateTable(sessions: readonly Session[]): Block {
  const offsets = offsetsMs(sessions);
  const rates = sessions.flatMap((session, index) =>
    session.rates.map(rate => ({
      rate,
      fromMs: offsets[index] + rate.fromMs,
      toMs: offsets[index] + rate.toMs,
    })),
  );
  return {
    type: 'table',
    caption: 'Training images a second, from time to time',
    head: ['from', 'to', 'images/s'],
    textColumns: [],
    rows: groups(rates, RATES_LISTED).map(group => [
      seconds(group[0].fromMs),
      seconds(group.at(-1)!.toMs),
      integer(rateOf(group.map(({ rate }) => rate))),
    ]),
  };
}

/** Its line is broken where a session ends. */
export function rateSeries(name: string, sessions: readonly Session[], { most }: Page): Series {
  const offsets = offsetsMs(sessions);
  const rated = sessions.filter(({ rates }) => rates.length > 0).length;
  const points = sessions.flatMap(({ rates, endMs }, index) => {
    const placed = groups(rates, Math.max(1, Math.floor(most(600) / rated))).map(group => {
      const middleMs = (group[0].fromMs + group.at(-1)!.toMs) / 2;
      return { x: (offsets[index] + middleMs) / 1000, y: rateOf(group) };
    });
    return [...placed, { x: (offsets[index] + endMs) / 1000, y: NaN }];
  });
  return { name, points: points.slice(0, -1) };
}

/** Images a second of training. */
function rateOf(rates: Session['rates']): number {
  return (1000 * sum(rates.map(({ images }) => images))) / sum(rates.map(({ trainMs }) => trainMs));
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
  return rates.length > 0 ? rateOf(rates) : undefined;
}

/** How the process ended, where it did: the last one of a run that is at work has not. */
export function endOf({ sessions, state }: Pick<ReportedRun, 'sessions' | 'state'>, index: number): string {
  const { end, message } = sessions[index];
  const isLast = index === sessions.length - 1;
  const unknown = isLast && state === 'running' ? 'it is still at work' : 'it was killed';
  return {
    done: 'it ended with the run',
    interrupted: 'it was interrupted',
    error: `it ended with ${message}`,
    unknown,
  }[end];
}

const timeParts = {
  computing: 'computeMs',
  waiting: 'waitMs',
  reducing: 'reduceMs',
  updating: 'updateMs',
} as const;

/** Of threads that worked in sessions of so many milliseconds: the share of each part of it, and of the rest. */
function sharesOf(works: readonly { readonly work: ThreadWork; readonly endMs: number }[]): number[] {
  const totalMs = Math.max(1, sum(works.map(({ endMs }) => endMs)));
  const parts = Object.values(timeParts).map(key => sum(works.map(({ work }) => work[key])) / totalMs);
  return [...parts, Math.max(0, 1 - sum(parts))];
}

export function stepTime({ sessions }: ReportedRun, page: Page): Block[] {
  const works = sessions.flatMap(({ threads, endMs }) => threads.map(work => ({ work, endMs })));
  const untold = sessions.filter(session => threadsOf(session) > 0 && session.threads.length === 0).length;
  const notTold =
    untold === 0
      ? ''
      : `Of ${plural(untold, 'session')} it is not known: threads tell it when a run ends or is interrupted.`;
  if (works.length === 0) return notTold === '' ? [] : [text(notTold)];
  const threads = [...new Set(works.map(({ work }) => work.thread))].toSorted((a, b) => a - b);
  const rows = threads.slice(0, page.most(64)).map(thread => {
    const own = works.filter(({ work }) => work.thread === thread);
    return { name: `thread ${thread}`, totalMs: sum(own.map(({ endMs }) => endMs)), shares: sharesOf(own) };
  });
  const names = [...Object.keys(timeParts), 'other'];
  const all = sharesOf(works).map((part, index) => `${percent(part, 1)} ${names[index]}`);
  const what = `Shares of the time of the sessions, from start to end${shownOf(rows.length, threads.length, 'threads: ')}`;
  return [
    text(
      `The threads spent ${all.join(', ')}. ${notTold} ` +
        'Computing is leaves, of training and evaluation; waiting is at the barriers of a step; reducing adds the sums of ' +
        'all threads, and updating changes the weights, each thread its slice. Other is the rest: starting and reading data, ' +
        'saving, the time between spans of steps, when the main thread looks up, waiting for the last thread of an ' +
        'evaluation and for nodes, and steps that were broken off.',
    ),
    page.figures([
      {
        name: 'step-time',
        caption: `${what}.`,
        isWide: true,
        draw: look =>
          stackedBars(
            {
              title: 'Where the time went',
              xLabel: 'of the time',
              names: rows.map(({ name }) => name),
              parts: names.map((name, part) => ({ name, values: rows.map(({ shares }) => shares[part]) })),
              unit: 'percent',
            },
            look,
          ),
      },
    ]),
    details('The threads in numbers', [
      {
        type: 'table',
        caption: what,
        head: ['thread', 'time', ...names],
        rows: rows.map(({ name, totalMs, shares }) =>
          [name, seconds(totalMs)].concat(shares.map(part => percent(part, 1))),
        ),
      },
    ]),
  ];
}

export function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(ms < 100_000 ? 1 : 0)} s`;
}

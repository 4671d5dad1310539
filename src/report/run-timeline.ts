// The part of a report on who did the work: a timeline of threads and nodes, and what each has computed.

import type { NodeReport } from '../shared/events.js';
import { integer, percent, plural } from '../shared/format.js';
import { details, text, type Block, type Named } from './document.js';
import { timeline, type TimelineRow } from './figure.js';
import type { Mark, ReportedRun, Session } from './reported-run.js';
import { noEvents, offsetsMs, seconds, sum, timeLabel } from './run-time.js';

/** Rows of a timeline, and marks on it; more could not be told apart. */
const ROWS_DRAWN = 40;
const MARKS_DRAWN = 500;
const EVENTS_LISTED = 200;

const markKindOf = {
  'thread-lost': 'lost',
  'node-joined': 'joined',
  'node-lost': 'lost',
  'lease-expired': 'late',
} as const;

interface PlacedMark extends Mark {
  /** From 1. */
  readonly session: number;
  /** In seconds on the axis of the timeline. */
  readonly x: number;
}

export function work(run: ReportedRun, named: Named): Block[] {
  const { sessions } = run;
  if (sessions.length === 0) return [text(noEvents)];
  const offsets = offsetsMs(sessions);
  const marks = sessions.flatMap((session, index) =>
    session.marks.map(mark => placed(mark, index, offsets[index])),
  );
  const rows = [...threadRows(sessions, offsets), ...nodeRows(sessions, offsets)];
  const drawn = rows.slice(0, ROWS_DRAWN);
  const marksDrawn = marks.filter(({ who }) => drawn.some(row => row.who === who)).length;
  const every = Math.ceil(marksDrawn / MARKS_DRAWN);
  const left = [
    ...(rows.length > ROWS_DRAWN
      ? [` Of ${integer(rows.length)} rows the first ${ROWS_DRAWN} are drawn.`]
      : []),
    ...(marksDrawn > MARKS_DRAWN ? [` Of ${integer(marksDrawn)} marks about ${MARKS_DRAWN} are drawn.`] : []),
  ].join('');
  return [
    text(describeSessions(sessions)),
    named([
      {
        name: 'timeline',
        caption:
          `Who was there when: solid while computing, faint while joining, fetching, spare or late.` +
          `${sessions.length > 1 ? ' Dashed lines: the run was resumed.' : ''}${left}`,
        isWide: true,
        draw: look =>
          timeline(
            {
              title: 'Timeline',
              xLabel: timeLabel(sessions),
              rows: drawn.map(({ who, name, spans }) => ({
                name,
                spans,
                marks: marks
                  .filter(mark => mark.who === who)
                  .filter((_, index) => index % every === 0)
                  .map(mark => ({
                    kind: markKindOf[mark.type],
                    x: mark.x,
                    text: describeMark(mark, sessions.length > 1),
                  })),
              })),
              breaks: offsets.slice(1).map(ms => ms / 1000),
              end: sum(sessions.map(({ endMs }) => endMs)) / 1000,
            },
            look,
          ),
      },
    ]),
    ...workTables(sessions),
    ...(marks.length > 0
      ? [details(`The ${plural(marks.length, 'event')} in numbers`, [eventTable(marks)])]
      : []),
  ];
}

function placed(mark: Mark, index: number, offsetMs: number): PlacedMark {
  return { ...mark, session: index + 1, x: (offsetMs + mark.timeMs) / 1000 };
}

function describeSessions(sessions: readonly Session[]): string {
  return sessions
    .map(({ startedAt, resumedStep, lastStep, workers, engine, endMs, end, message }, index) => {
      const begin = sessions.length > 1 ? `Session ${index + 1}` : 'The run';
      const ending = {
        done: 'it ended with the run',
        interrupted: 'it was interrupted',
        error: `it ended with ${message}`,
      };
      const how = end === 'unknown' ? 'it was killed, or is still at work' : ending[end];
      return (
        `${begin} began at ${startedAt} with ${plural(workers, 'worker')} (engine ${engine}), did steps ` +
        `${integer(resumedStep + 1)} to ${integer(Math.max(resumedStep + 1, lastStep))} in ${seconds(endMs)}; ${how}.`
      );
    })
    .join(' ');
}

type Row = Omit<TimelineRow, 'marks'> & { readonly who: string };

function threadRows(sessions: readonly Session[], offsets: readonly number[]): Row[] {
  // Processes of TensorFlow are nodes, which join.
  const threads = sessions.map(({ engine, workers }) => (engine === 'tensorflow' ? 0 : workers));
  return Array.from({ length: Math.max(0, ...threads) }, (_, thread) => ({
    who: `thread ${thread}`,
    name: `thread ${thread}`,
    spans: sessions.flatMap(({ endMs }, index) =>
      thread < threads[index] ? [{ from: offsets[index] / 1000, to: (offsets[index] + endMs) / 1000 }] : [],
    ),
  }));
}

/** A node is there from when it joined until it was lost, or the session ended. */
function nodeRows(sessions: readonly Session[], offsets: readonly number[]): Row[] {
  const rows = new Map<string, { name: string; spans: { from: number; to: number; isFaint: boolean }[] }>();
  for (const [index, { marks, nodeStates, endMs }] of sessions.entries()) {
    const joined = marks.filter(({ type }) => type === 'node-joined');
    for (const { who, name } of joined) if (!rows.has(who)) rows.set(who, { name, spans: [] });
    const toSeconds = (ms: number): number => (offsets[index] + ms) / 1000;
    for (const id of new Set(joined.map(({ who }) => who))) {
      const changes = [
        ...marks.flatMap(({ type, who, timeMs }) =>
          who === id && type !== 'lease-expired'
            ? [{ timeMs, state: type === 'node-joined' ? ('joining' as const) : ('gone' as const) }]
            : [],
        ),
        ...nodeStates.filter(({ node }) => node === id),
      ].toSorted((a, b) => a.timeMs - b.timeMs);
      const { spans } = rows.get(id)!;
      for (const [at, { timeMs, state }] of changes.entries()) {
        const to = changes[at + 1]?.timeMs ?? endMs;
        if (state === 'gone' || to <= timeMs) continue;
        spans.push({ from: toSeconds(timeMs), to: toSeconds(to), isFaint: state !== 'active' });
      }
    }
  }
  const names = Array.from(rows.values(), ({ name }) => name);
  return Array.from(rows, ([who, { name, spans }]) => ({
    who,
    // Rows are told apart by their names.
    name: names.filter(other => other === name).length > 1 ? `${name} ${who.slice(0, 4)}` : name,
    spans,
  }));
}

function describeMark(mark: PlacedMark, isTold: boolean): string {
  return `${markKindOf[mark.type]} at ${(mark.timeMs / 1000).toFixed(3)} s${isTold ? ` of session ${mark.session}` : ''}, after step ${integer(mark.step)}: ${mark.text}`;
}

function workTables(sessions: readonly Session[]): Block[] {
  const threads = new Map<number, number>();
  const nodes = new Map<string, NodeReport[]>();
  for (const session of sessions) {
    for (const { thread, leaves } of session.threads)
      threads.set(thread, (threads.get(thread) ?? 0) + leaves);
    for (const report of session.nodes) nodes.set(report.node, [...(nodes.get(report.node) ?? []), report]);
  }
  const leaves = sum([...threads.values()]);
  return [
    ...(threads.size > 0
      ? [
          {
            type: 'table' as const,
            caption: 'What the threads of the coordinator computed, evaluation and redone steps included',
            head: ['thread', 'leaves', 'share of them'],
            rows: Array.from(threads, ([thread, own]) => [
              String(thread),
              integer(own),
              leaves > 0 ? percent(own / leaves, 1) : '',
            ]),
          },
        ]
      : []),
    ...(nodes.size > 0
      ? [
          {
            type: 'table' as const,
            caption: 'What the nodes computed whose sums counted; the time that others waited for them',
            head: [
              'node',
              'threads',
              'training images',
              'parts',
              'waited for',
              'expired',
              'lost',
              'sent',
              'received',
            ],
            rows: Array.from(nodes.values(), nodeRow),
          },
        ]
      : []),
  ];
}

/** Of one node, over all sessions. */
function nodeRow(reports: readonly NodeReport[]): string[] {
  const [{ name, node, threads }] = reports;
  const total = (
    key: 'samples' | 'parts' | 'waitedForMs' | 'expired' | 'losses' | 'sentBytes' | 'receivedBytes',
  ) => sum(reports.map(report => report[key]));
  return [
    `${name} (${node.slice(0, 8)})`,
    String(threads),
    integer(total('samples')),
    integer(total('parts')),
    seconds(total('waitedForMs')),
    integer(total('expired')),
    integer(total('losses')),
    `${(total('sentBytes') / 1e6).toFixed(1)} MB`,
    `${(total('receivedBytes') / 1e6).toFixed(1)} MB`,
  ];
}

function eventTable(marks: readonly PlacedMark[]): Block {
  const more = marks.length > EVENTS_LISTED ? `, the first ${EVENTS_LISTED} of ${integer(marks.length)}` : '';
  return {
    type: 'table',
    caption: `Losses, joins and leases that expired, by the time since their session began${more}`,
    head: ['event', 'session', 'time', 'step', 'who', 'why, or from where'],
    textColumns: [0, 4, 5],
    rows: marks
      .slice(0, EVENTS_LISTED)
      .map(({ type, session, timeMs, step, who, name, text: why }) => [
        type,
        String(session),
        `${(timeMs / 1000).toFixed(3)} s`,
        integer(step),
        name === '' ? who : `${name} (${who.slice(0, 8)})`,
        why,
      ]),
  };
}

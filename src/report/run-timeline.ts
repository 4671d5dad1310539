// The part of a report on who did the work: a timeline of threads and nodes, and what each has computed.

import { integer, percent, plural } from '../shared/format.js';
import { sum } from '../shared/sum.js';
import { details, text, type Block } from './document.js';
import { timeline, type TimelineRow } from './figure.js';
import { evenly, shownOf, type Page } from './part.js';
import type { Mark, NodeWork, ReportedRun, Session } from './reported-run.js';
import { endOf, noEvents, offsetsMs, seconds, threadsOf, timeLabel } from './run-time.js';

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

export function work(run: ReportedRun, page: Page): Block[] {
  const { sessions } = run;
  if (sessions.length === 0) return [text(noEvents)];
  const offsets = offsetsMs(sessions);
  const marks = sessions.flatMap((session, index) =>
    session.marks.map(mark => placed(mark, index, offsets[index])),
  );
  const threads = threadRows(sessions, offsets);
  const nodes = nodeRows(sessions, offsets);
  const most = page.most(40);
  // Half of the rows is for nodes, if there are so many.
  const threadsDrawn = threads.slice(0, Math.max(most / 2, most - nodes.length));
  const drawn = [...threadsDrawn, ...nodes].slice(0, most);
  const allRows = threads.length + nodes.length;
  const marksOfRows = marks.filter(({ who }) => drawn.some(row => row.who === who));
  const marksDrawn = evenly(marksOfRows, page.most(500));
  const end = sum(sessions.map(({ endMs }) => endMs)) / 1000;
  const shortest = end / page.most(1000);
  return [
    text(describeSessions(run, page)),
    page.figures([
      {
        name: 'timeline',
        caption:
          'Who was there when: solid while computing, faint while joining, fetching, spare or late, as nodes report it once a second' +
          (sessions.length > 1 ? '; dashed lines: the run was resumed' : '') +
          `${shownOf(drawn.length, allRows, 'rows: ')}${shownOf(marksDrawn.length, marksOfRows.length, 'marks: ')}.`,
        isWide: true,
        draw: look =>
          timeline(
            {
              title: 'Timeline',
              xLabel: timeLabel(sessions),
              rows: drawn.map(({ who, name, spans }) => ({
                name,
                spans: merged(spans, shortest),
                marks: marksDrawn
                  .filter(mark => mark.who === who)
                  .map(mark => ({
                    kind: markKindOf[mark.type],
                    x: mark.x,
                    text: describeMark(mark, sessions.length > 1),
                  })),
              })),
              breaks: evenly(offsets.slice(1), page.most(200)).map(ms => ms / 1000),
              end,
            },
            look,
          ),
      },
    ]),
    ...workTables(sessions, page),
    ...(marks.length > 0
      ? [details(`The ${plural(marks.length, 'event')} in numbers`, [eventTable(marks, page)])]
      : []),
  ];
}

function placed(mark: Mark, index: number, offsetMs: number): PlacedMark {
  return { ...mark, session: index + 1, x: (offsetMs + mark.timeMs) / 1000 };
}

/** Of more sessions the first ones are told of. */
function describeSessions(run: ReportedRun, { most }: Page): string {
  const { sessions } = run;
  const told = sessions.slice(0, most(10));
  const sentences = told.map(({ startedAt, resumedStep, lastStep, workers, engine, endMs }, index) => {
    const begin = sessions.length > 1 ? `Session ${index + 1}` : 'The run';
    const done =
      lastStep > resumedStep
        ? `did steps ${integer(resumedStep + 1)} to ${integer(lastStep)}`
        : 'did no step';
    return (
      `${begin} began at ${startedAt} with ${plural(workers, 'worker')} (engine ${engine}), ${done} in ` +
      `${seconds(endMs)}; ${endOf(run, index)}.`
    );
  });
  const rest = sessions.length - told.length;
  return [...sentences, ...(rest > 0 ? [`${plural(rest, 'more session')} followed.`] : [])].join(' ');
}

type Row = Omit<TimelineRow, 'marks'> & { readonly who: string };

function threadRows(sessions: readonly Session[], offsets: readonly number[]): Row[] {
  const threads = sessions.map(threadsOf);
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
    name: names.filter(other => other === name).length > 1 ? `${name} ${who.slice(0, 8)}` : name,
    spans,
  }));
}

/** Pieces too short to be seen are drawn as one with the piece before, solid if one of them is. */
function merged(spans: Row['spans'], shortest: number): Row['spans'] {
  const pieces: { from: number; to: number; isFaint: boolean }[] = [];
  for (const { from, to, isFaint = false } of spans) {
    const last = pieces.at(-1);
    if (last && to - last.from < shortest) {
      last.to = to;
      last.isFaint &&= isFaint;
    } else {
      pieces.push({ from, to, isFaint });
    }
  }
  return pieces;
}

function describeMark(mark: PlacedMark, isTold: boolean): string {
  return `${markKindOf[mark.type]} at ${(mark.timeMs / 1000).toFixed(3)} s${isTold ? ` of session ${mark.session}` : ''}, after step ${integer(mark.step)}: ${mark.text}`;
}

function workTables(sessions: readonly Session[], { most }: Page): Block[] {
  const threads = new Map<number, number>();
  const nodes = new Map<string, NodeWork[]>();
  for (const session of sessions) {
    for (const { thread, leaves } of session.threads)
      threads.set(thread, (threads.get(thread) ?? 0) + leaves);
    for (const report of session.nodes) nodes.set(report.node, [...(nodes.get(report.node) ?? []), report]);
  }
  const leaves = sum([...threads.values()]);
  const tellers = sessions.filter(session => session.threads.length + session.nodes.length > 0).length;
  const told = shownOf(tellers, sessions.length, 'of the sessions that told it, ');
  const threadsShown = [...threads].slice(0, most(64));
  const nodesShown = [...nodes.values()].toSorted((a, b) => samplesOf(b) - samplesOf(a)).slice(0, most(100));
  return [
    ...(threads.size > 0
      ? [
          {
            type: 'table' as const,
            caption: `What the threads of the coordinator computed in training, redone steps included${told}${shownOf(threadsShown.length, threads.size, 'threads: ')}`,
            head: ['thread', 'leaves', 'share of them'],
            rows: threadsShown.map(([thread, own]) => [
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
            caption: `What the nodes computed whose sums counted; the time that others waited for them${told}${shownOf(nodesShown.length, nodes.size, 'those with the most images, ')}`,
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
            rows: nodesShown.map(nodeRow),
          },
        ]
      : []),
  ];
}

function samplesOf(reports: readonly NodeWork[]): number {
  return sum(reports.map(({ samples }) => samples));
}

/** Of one node, over all sessions. */
function nodeRow(reports: readonly NodeWork[]): string[] {
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

function eventTable(marks: readonly PlacedMark[], { most }: Page): Block {
  const listed = marks.slice(0, most(200));
  return {
    type: 'table',
    caption: `Losses, joins and leases that expired, by the time since their session began${shownOf(listed.length, marks.length, 'the first ')}`,
    head: ['event', 'session', 'time', 'step', 'who', 'why, or from where'],
    textColumns: [0, 4, 5],
    rows: listed.map(({ type, session, timeMs, step, who, name, text: why }) => [
      type,
      String(session),
      `${(timeMs / 1000).toFixed(3)} s`,
      integer(step),
      name === '' ? who : `${name} (${who.slice(0, 8)})`,
      why,
    ]),
  };
}

// Remote nodes as a table that fits into its terminal, and as lines at the end of a run.

import Table from 'cli-table3';
import type { NodeReport } from '../library/index.js';
import { integer, plural } from './format.js';

interface Column {
  readonly head: string;
  /** Where there is no room for all, those of the highest rank are left out. */
  readonly rank: number;
  cell(report: NodeReport): string;
}

const LONGEST_NAME = 24;
/** Why a node idles tells nothing in less than this, and is worth these ranks in so much. */
const SHORTEST_WHY = 12;
const USUAL_WHY = 32;
const LEAST_RANKS = 6;
const GAP = '  ';

const states: readonly NodeReport['state'][] = ['active', 'late', 'fetching', 'spare', 'joining', 'gone'];

/** At most `mostNodes` nodes, those at work first, and how many more there are. No line is longer than `columns`. */
export function nodeTable(reports: readonly NodeReport[], columns: number, mostNodes: number): string[] {
  if (reports.length === 0) return [];
  const sorted = reports.toSorted(
    (a, b) => states.indexOf(a.state) - states.indexOf(b.state) || b.imagesPerSecond - a.imagesPerSecond,
  );
  const shown = sorted.slice(0, mostNodes);
  let fields: readonly Column[] = columnsFor(reports);
  let lines = linesOf(fields, shown);
  for (;;) {
    const highest = Math.max(...fields.map(({ rank }) => rank));
    const isWhyWorthIt = highest >= LEAST_RANKS && shown.some(({ why }) => why !== '');
    const room = columns - (isWhyWorthIt ? USUAL_WHY : 0);
    if (fields.length === 1 || lines[0].length <= room) break;
    fields = fields.filter(({ rank }) => rank < highest);
    lines = linesOf(fields, shown);
  }
  const whyLength = columns - lines[0].length - GAP.length;
  if (whyLength >= SHORTEST_WHY) {
    lines = lines.map((line, i) => (i === 0 ? line : `${line}${GAP}${cut(shown[i - 1].why, whyLength)}`));
  }
  if (sorted.length > shown.length) lines.push(`and ${sorted.length - shown.length} more`);
  return lines.map(line => cut(line.trimEnd(), columns));
}

function columnsFor(reports: readonly NodeReport[]): Column[] {
  const names = new Set<string>();
  const twice = new Set(reports.map(({ name }) => name).filter(name => names.size === names.add(name).size));
  const nameOf = ({ node, name }: NodeReport): string =>
    cut(twice.has(name) ? `${node.slice(0, 4)} ${name}` : name, LONGEST_NAME);
  return [
    { head: 'node', rank: 0, cell: nameOf },
    { head: 'state', rank: 1, cell: ({ state }) => state },
    { head: 'threads', rank: 6, cell: ({ threads }) => integer(threads) },
    { head: 'lanes', rank: 3, cell: ({ lanes }) => integer(lanes) },
    { head: 'images/s', rank: 2, cell: ({ imagesPerSecond }) => integer(imagesPerSecond) },
    {
      head: 'heard',
      rank: 5,
      cell: ({ state, lastHeardMs }) => (state === 'gone' ? '-' : `${(lastHeardMs / 1000).toFixed(1)} s ago`),
    },
    { head: 'round trip', rank: 4, cell: ({ roundTripMs }) => `${roundTripMs.toFixed(1)} ms` },
    { head: 'MB sent', rank: 8, cell: ({ sentBytes }) => megabytes(sentBytes) },
    { head: 'received', rank: 7, cell: ({ receivedBytes }) => megabytes(receivedBytes) },
  ];
}

function linesOf(fields: readonly Column[], reports: readonly NodeReport[]): string[] {
  const none = ['top', 'bottom', 'mid', 'left', 'right'].flatMap(edge =>
    ['', '-mid', '-left', '-right'].map(place => [`${edge}${place}`, '']),
  );
  const table = new Table({
    head: fields.map(({ head }) => head),
    colAligns: fields.map((_, i) => (i < 2 ? 'left' : 'right')),
    chars: { ...Object.fromEntries(none), middle: GAP },
    style: { head: [], border: [], 'padding-left': 0, 'padding-right': 0 },
  });
  table.push(...reports.map(report => fields.map(field => field.cell(report))));
  return table.toString().split('\n');
}

/** What a node did, and what was lost to it. */
export function describeNode(report: NodeReport): string {
  const { node, name, threads, parts, samples, imagesPerSecond, shards, receivedBytes, sentBytes } = report;
  const { waitedForMs, expired, dropped, losses, why, state } = report;
  const told = [
    `${plural(threads, 'thread')}, ${plural(parts, 'part')}, ${plural(samples, 'image')}, ` +
      `${integer(imagesPerSecond)} images/s`,
    `sent ${megabytes(sentBytes)} MB, ${plural(shards, 'shard')} among them, received ${megabytes(receivedBytes)} MB`,
    `${(waitedForMs / 1000).toFixed(1)} s lost to waiting for it`,
    ...(expired > 0 ? [`${plural(expired, 'lease')} expired`] : []),
    ...(dropped > 0 ? [`${plural(dropped, 'answer')} dropped`] : []),
    ...(losses > 0 ? [`lost ${losses === 1 ? 'once' : `${integer(losses)} times`}`] : []),
    ...(state === 'gone' ? ['gone'] : why === '' ? [] : [`idle: ${why}`]),
  ];
  return `node ${name} (${node.slice(0, 8)})  ${told.join('; ')}`;
}

function megabytes(bytes: number): string {
  return (bytes / 1e6).toFixed(1);
}

function cut(text: string, length: number): string {
  return text.length <= length ? text : `${text.slice(0, Math.max(0, length - 1))}…`;
}

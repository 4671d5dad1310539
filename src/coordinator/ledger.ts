// The ledger: which node owes which part of the task, until when, and which sums count. A pure function of
// (ledger, event, now) that gives the next ledger and what is to be done.
//
// A task's lanes are cut into parts once, when it begins. A part is owed by one node, or, if that one is late or gone,
// by others too; the first sum counts, every later one is compared with it and dropped. So each lane is counted exactly
// once, whoever dies, answers late or answers twice.

import { MOST_PARTS } from '../shared/messages.js';
import type { Lanes, Task } from '../shared/node.js';
import { isWithin, leaseMs, type Speed } from './assignment.js';

/** A task with what its answers must say: the weights that it is computed with. */
export interface LedgerTask extends Task {
  /** The chain's hash, which names the weights. */
  readonly weights: string;
}

/** A node as the ledger needs to know it. */
export interface NodeView {
  readonly node: string;
  /** For tasks of the kind and set at hand. */
  readonly speed: Speed;
  /** The lanes whose samples it holds; others it has to fetch first. */
  readonly holds: Lanes;
  /** The coordinator's own node is never late: it watches its threads itself. */
  readonly isOwn: boolean;
}

/**
 * lease: somebody's turn; twin: a second one, as the first is late; audit: of two that are compared before the task is
 * done, whichever answers first; probe: measured.
 */
export type Role = 'lease' | 'twin' | 'audit' | 'probe';

interface Holding {
  readonly node: string;
  readonly role: Role;
  readonly deadlineMs: number;
  readonly hasExpired: boolean;
}

interface Answer {
  readonly node: string;
  /** Of the sums' bits; present where they may have to be compared. */
  readonly digest: string | undefined;
}

interface Part {
  readonly lanes: Lanes;
  /** Who owes it now. */
  readonly holdings: readonly Holding[];
  /** The sum that counts. */
  readonly sum: Answer | undefined;
  /** The sum of a probe that came before: it does not count, and the one that does is compared with it. */
  readonly probed: Answer | undefined;
  /** A node that found a bad leaf in it, and what it said. */
  readonly bad: { readonly node: string; readonly message: string } | undefined;
}

/** A lease of a task that is over: its answer is compared if it comes, and until then its node gets no other. */
interface Overdue {
  readonly node: string;
  readonly task: LedgerTask;
  readonly lanes: Lanes;
  readonly deadlineMs: number;
  readonly hasExpired: boolean;
  /** Undefined where the task was given up: then there is nothing to compare with. */
  readonly sum: Answer | undefined;
}

export interface Ledger {
  readonly nodes: readonly NodeView[];
  readonly task: LedgerTask | undefined;
  readonly parts: readonly Part[];
  readonly overdue: readonly Overdue[];
  /** Whether the present task has been found to have no node left, so that it is said once. */
  readonly isWaiting: boolean;
}

export interface PlannedPart {
  readonly lanes: Lanes;
  /** Undefined: whoever is free first. */
  readonly node: string | undefined;
  /** A second node that computes it too. */
  readonly second?: { readonly node: string; readonly role: 'audit' | 'probe' } | undefined;
}

/** An answer names what it belongs to. */
export interface Named {
  readonly node: string;
  readonly task: LedgerTask;
  readonly lanes: Lanes;
}

export type LedgerEvent =
  | {
      readonly type: 'begin';
      readonly task: LedgerTask;
      /** Disjoint; together all lanes. */
      readonly parts: readonly PlannedPart[];
      /** All nodes that can compute. */
      readonly nodes: readonly NodeView[];
    }
  /** Without another: nothing is at work. */
  | { readonly type: 'end' }
  /** It has joined, or something of it has changed. */
  | { readonly type: 'node'; readonly view: NodeView }
  /** A lease comes back without an answer. */
  | ({ readonly type: 'returned' } & Named)
  | { readonly type: 'lost'; readonly node: string }
  | ({ readonly type: 'sum'; readonly digest: string | undefined } & Named)
  | ({ readonly type: 'bad'; readonly message: string } & Named)
  /**
   * `latenessMs`: by how much the tick itself came too late; deadlines are shifted by as much. `silent`: nodes that give no
   * sign of life, for which no deadline is waited for.
   */
  | { readonly type: 'tick'; readonly latenessMs: number; readonly silent?: readonly string[] };

export type DropReason = 'probe' | 'no such lease' | 'late twin' | 'task given up';

export type Effect =
  | { readonly type: 'grant'; readonly node: string; readonly lanes: Lanes; readonly role: Role }
  /** The sum that was just told counts. */
  | { readonly type: 'add' }
  | { readonly type: 'drop'; readonly node: string; readonly reason: DropReason }
  | { readonly type: 'expired'; readonly node: string; readonly lanes: Lanes }
  /** Two nodes gave other bits for the same lanes. */
  | { readonly type: 'differ'; readonly nodes: readonly [string, string]; readonly named: Named }
  /** A leaf is bad: a second node says so too, or there is no second. The task is over. */
  | {
      readonly type: 'bad';
      readonly nodes: readonly string[];
      readonly lanes: Lanes;
      readonly message: string;
    }
  /** It found a bad leaf where another node found none. */
  | { readonly type: 'acquitted'; readonly node: string; readonly lanes: Lanes }
  /** Nobody is left to compute what is open. */
  | { readonly type: 'waiting' }
  | { readonly type: 'complete' };

export interface Advance {
  readonly ledger: Ledger;
  readonly effects: readonly Effect[];
}

export const emptyLedger: Ledger = {
  nodes: [],
  task: undefined,
  parts: [],
  overdue: [],
  isWaiting: false,
};

/** A lease is late when it takes this many times what was predicted, and this much longer. */
const LATE_FACTOR = 3;
const LATE_MS = 750;
/** Time for fetching shards that are not held. */
const FETCH_MS = 30_000;

export function advance(ledger: Ledger, event: LedgerEvent, nowMs: number): Advance {
  switch (event.type) {
    case 'begin':
      return begin({ ...giveUp(ledger), nodes: event.nodes }, event.task, event.parts, nowMs);
    case 'end':
      return { ledger: giveUp(ledger), effects: [] };
    case 'node': {
      const others = ledger.nodes.filter(({ node }) => node !== event.view.node);
      return grantOpen({ ...ledger, nodes: [...others, event.view] }, nowMs, []);
    }
    case 'lost':
      return lose(ledger, event.node, nowMs);
    case 'returned':
      return giveBack(ledger, event, nowMs);
    case 'sum':
      return answer(ledger, event, nowMs);
    case 'bad':
      return answerBad(ledger, event, nowMs);
    case 'tick':
      return tick(ledger, event, nowMs);
  }
}

/** Whether a sum of these lanes may have to be compared with another, so that its digest is needed. */
export function isContested(ledger: Ledger, named: Named): boolean {
  // What is not owed now may be owed of a task before, the same one even, if it was given up and begun again.
  const part = findOwed(ledger, named)?.part;
  return (
    part === undefined ||
    part.holdings.length > 1 ||
    part.sum !== undefined ||
    part.probed !== undefined ||
    part.bad !== undefined
  );
}

/** Whether a node owes an answer to a task that is over: it is given nothing else meanwhile. */
export function isBehind(ledger: Ledger, node: string): boolean {
  return ledger.overdue.some(lease => lease.node === node);
}

/** Whether a node has let a deadline pass and not answered since. */
export function isLate(ledger: Ledger, node: string): boolean {
  const isExpired = (lease: { readonly node: string; readonly hasExpired: boolean }): boolean =>
    lease.hasExpired && lease.node === node;
  return ledger.overdue.some(isExpired) || ledger.parts.some(({ holdings }) => holdings.some(isExpired));
}

/** Whether a node owes what an answer names, of the present task or of one that is over. */
export function isOwed(ledger: Ledger, named: Named): boolean {
  return findOwed(ledger, named) !== undefined || findOverdue(ledger, named) !== undefined;
}

/** The lanes that a node owes of the present task. */
export function lanesOwed({ parts }: Ledger, node: string): number {
  return parts.reduce((sum, { holdings, lanes }) => {
    return holdings.some(held => held.node === node) ? sum + (lanes.to - lanes.from) : sum;
  }, 0);
}

/** Leases that are not answered, of the present task and of those before. */
export function openLeases({ parts, overdue }: Ledger): number {
  return parts.reduce((sum, { holdings }) => sum + holdings.length, overdue.length);
}

function begin(before: Ledger, task: LedgerTask, planned: readonly PlannedPart[], nowMs: number): Advance {
  // It would be complete at once, with sums of nothing.
  if (planned.length === 0) throw new Error('a task has no parts');
  const effects: Effect[] = [];
  let ledger: Ledger = {
    ...before,
    task,
    parts: planned.map(({ lanes }) => ({
      lanes,
      holdings: [],
      sum: undefined,
      probed: undefined,
      bad: undefined,
    })),
    isWaiting: false,
  };
  for (const { lanes, node, second } of planned) {
    if (node === undefined || !hasRoom(ledger, node)) continue;
    const other = second && hasRoom(ledger, second.node) ? second : undefined;
    ledger = grant(ledger, node, lanes, other?.role === 'audit' ? 'audit' : 'lease', nowMs, effects);
    if (other) ledger = grant(ledger, other.node, lanes, other.role, nowMs, effects);
  }
  return grantOpen(ledger, nowMs, effects);
}

/** The present task ends, done or not; what is still owed of it becomes overdue. */
function giveUp(ledger: Ledger): Ledger {
  const { task, parts, overdue } = ledger;
  if (!task) return ledger;
  const owed = parts.flatMap(({ lanes, holdings, sum }) =>
    holdings.map(({ node, deadlineMs, hasExpired }) => ({ node, task, lanes, deadlineMs, hasExpired, sum })),
  );
  return { ...ledger, task: undefined, parts: [], overdue: [...overdue, ...owed], isWaiting: false };
}

function lose(before: Ledger, node: string, nowMs: number): Advance {
  const others = <T extends { readonly node: string }>(list: readonly T[]): T[] =>
    list.filter(entry => entry.node !== node);
  const ledger: Ledger = {
    ...before,
    nodes: others(before.nodes),
    overdue: others(before.overdue),
    parts: before.parts.map(part => ({ ...part, holdings: others(part.holdings) })),
  };
  return finish(ledger, nowMs, []);
}

function giveBack(ledger: Ledger, named: Named, nowMs: number): Advance {
  const owed = findOwed(ledger, named);
  if (owed) {
    const holdings = owed.part.holdings.filter(holding => holding !== owed.held);
    return finish(withPart(ledger, named.lanes, { ...owed.part, holdings }), nowMs, []);
  }
  const lease = findOverdue(ledger, named);
  return lease ? grantOpen(withoutOverdue(ledger, lease), nowMs, []) : { ledger, effects: [] };
}

function answer(ledger: Ledger, event: Extract<LedgerEvent, { type: 'sum' }>, nowMs: number): Advance {
  const { node, lanes, digest } = event;
  const owed = findOwed(ledger, event);
  if (!owed) return answerOverdue(ledger, event, nowMs);
  const { part, held } = owed;
  const effects: Effect[] = [];
  const holdings = part.holdings.filter(holding => holding !== held);
  const earlier = part.sum ?? part.probed;
  if (earlier !== undefined && earlier.digest !== digest) {
    effects.push({ type: 'differ', nodes: [earlier.node, node], named: event });
  }
  // A probe that is first must not take the part from its owner, who would then owe it and be left out of the next step.
  if (part.sum === undefined && held.role === 'probe' && !isOpen({ ...part, holdings })) {
    effects.push({ type: 'drop', node, reason: 'probe' });
    return finish(withPart(ledger, lanes, { ...part, holdings, probed: { node, digest } }), nowMs, effects);
  }
  if (part.sum === undefined) {
    effects.push({ type: 'add' });
    if (part.bad) effects.push({ type: 'acquitted', node: part.bad.node, lanes });
  } else effects.push({ type: 'drop', node, reason: 'late twin' });
  return finish(
    withPart(ledger, lanes, { ...part, holdings, sum: part.sum ?? { node, digest } }),
    nowMs,
    effects,
  );
}

function answerOverdue(ledger: Ledger, event: Extract<LedgerEvent, { type: 'sum' }>, nowMs: number): Advance {
  const { node, digest } = event;
  const lease = findOverdue(ledger, event);
  if (!lease) return { ledger, effects: [{ type: 'drop', node, reason: 'no such lease' }] };
  const effects: Effect[] = [];
  const { sum } = lease;
  if (sum !== undefined && sum.digest !== digest) {
    effects.push({ type: 'differ', nodes: [sum.node, node], named: event });
  }
  effects.push({ type: 'drop', node, reason: sum ? 'late twin' : 'task given up' });
  return grantOpen(withoutOverdue(ledger, lease), nowMs, effects);
}

function answerBad(ledger: Ledger, event: Extract<LedgerEvent, { type: 'bad' }>, nowMs: number): Advance {
  const { node, lanes, message } = event;
  const owed = findOwed(ledger, event);
  if (!owed) {
    const lease = findOverdue(ledger, event);
    if (!lease) return { ledger, effects: [{ type: 'drop', node, reason: 'no such lease' }] };
    const effects: Effect[] = lease.sum
      ? [{ type: 'acquitted', node, lanes }]
      : [{ type: 'drop', node, reason: 'task given up' }];
    return grantOpen(withoutOverdue(ledger, lease), nowMs, effects);
  }
  const { part, held } = owed;
  const next = withPart(ledger, lanes, {
    ...part,
    holdings: part.holdings.filter(holding => holding !== held),
    bad: part.bad ?? { node, message },
  });
  if (part.sum !== undefined) return finish(next, nowMs, [{ type: 'acquitted', node, lanes }]);
  if (!part.bad) return finish(next, nowMs, []);
  const nodes = [part.bad.node, node];
  return { ledger: giveUp(next), effects: [{ type: 'bad', nodes, lanes, message }] };
}

function tick(
  before: Ledger,
  { latenessMs, silent = [] }: Extract<LedgerEvent, { type: 'tick' }>,
  nowMs: number,
): Advance {
  const effects: Effect[] = [];
  const parts = before.parts.map(part => {
    const holdings = part.holdings.map(held => {
      const deadlineMs = held.deadlineMs + latenessMs;
      const hasExpired = held.hasExpired || nowMs > deadlineMs || silent.includes(held.node);
      if (hasExpired && !held.hasExpired)
        effects.push({ type: 'expired', node: held.node, lanes: part.lanes });
      return { ...held, deadlineMs, hasExpired };
    });
    return { ...part, holdings };
  });
  const overdue = before.overdue.map(lease => {
    const deadlineMs = lease.deadlineMs + latenessMs;
    return { ...lease, deadlineMs, hasExpired: lease.hasExpired || nowMs > deadlineMs };
  });
  return finish({ ...before, parts, overdue }, nowMs, effects);
}

/** Ends the task if all its parts have their sums, else sees that every part is owed by somebody. */
function finish(ledger: Ledger, nowMs: number, effects: Effect[]): Advance {
  if (ledger.task && ledger.parts.every(isDone)) {
    return { ledger: giveUp(ledger), effects: [...effects, { type: 'complete' }] };
  }
  return grantOpen(ledger, nowMs, effects);
}

/** A part with a sum is done, unless its audit is still waited for. */
function isDone({ sum, holdings }: Part): boolean {
  return sum !== undefined && !holdings.some(({ role, hasExpired }) => role === 'audit' && !hasExpired);
}

/** Gives every part that nobody owes in time to whoever would be done with it first. */
function grantOpen(before: Ledger, nowMs: number, effects: Effect[]): Advance {
  const open = before.parts.filter(isOpen);
  // Nearly always: this is asked at every sum.
  if (open.length === 0) {
    return { ledger: before.isWaiting ? { ...before, isWaiting: false } : before, effects };
  }
  let ledger = before;
  let isWaiting = false;
  for (const part of open) {
    const { lanes, holdings, bad } = part;
    const hasHolder = holdings.length > 0;
    if (bad && !hasHolder && ledger.nodes.length === 1 && ledger.nodes[0].node === bad.node) {
      effects.push({ type: 'bad', nodes: [bad.node], lanes, message: bad.message });
      return { ledger: giveUp(ledger), effects };
    }
    const node = firstToBeDone(ledger, part);
    if (node !== undefined) ledger = grant(ledger, node, lanes, hasHolder ? 'twin' : 'lease', nowMs, effects);
    else
      isWaiting ||=
        !hasHolder && !ledger.nodes.some(view => view.node !== bad?.node && isFree(ledger, view.node));
  }
  if (isWaiting && !before.isWaiting) effects.push({ type: 'waiting' });
  return { ledger: { ...ledger, isWaiting }, effects };
}

/** Whether nobody owes a part in time; a probe is nobody's turn. */
function isOpen({ sum, holdings }: Part): boolean {
  return sum === undefined && !holdings.some(({ role, hasExpired }) => role !== 'probe' && !hasExpired);
}

function firstToBeDone(ledger: Ledger, { lanes, holdings, bad }: Part): string | undefined {
  const count = lanes.to - lanes.from;
  let best: { readonly node: string; readonly ms: number } | undefined;
  for (const { node, speed, holds } of ledger.nodes) {
    if (bad?.node === node || holdings.some(held => held.node === node) || !hasRoom(ledger, node)) continue;
    const fetchMs = isWithin(lanes, holds) ? 0 : FETCH_MS;
    const ms = leaseMs(speed, lanesOwed(ledger, node) + count) + fetchMs;
    if (!best || ms < best.ms) best = { node, ms };
  }
  return best?.node;
}

/** Whoever has as many parts as it may gets the next when it has answered one. */
function hasRoom(ledger: Ledger, node: string): boolean {
  return isFree(ledger, node) && partsOwed(ledger, node) < MOST_PARTS;
}

function partsOwed({ parts }: Ledger, node: string): number {
  return parts.filter(({ holdings }) => holdings.some(held => held.node === node)).length;
}

/** A node that is late or behind gets nothing before it has answered. */
function isFree(ledger: Ledger, node: string): boolean {
  return ledger.nodes.some(view => view.node === node) && !isBehind(ledger, node) && !isLate(ledger, node);
}

function grant(
  ledger: Ledger,
  node: string,
  lanes: Lanes,
  role: Role,
  nowMs: number,
  effects: Effect[],
): Ledger {
  const { speed, holds, isOwn } = ledger.nodes.find(view => view.node === node)!;
  const expectedMs = leaseMs(speed, lanesOwed(ledger, node) + lanes.to - lanes.from);
  const fetchMs = isWithin(lanes, holds) ? 0 : FETCH_MS;
  const deadlineMs = isOwn ? Infinity : nowMs + LATE_FACTOR * expectedMs + LATE_MS + fetchMs;
  effects.push({ type: 'grant', node, lanes, role });
  const part = ledger.parts.find(isOf(lanes))!;
  const holding: Holding = { node, role, deadlineMs, hasExpired: false };
  return withPart(ledger, lanes, { ...part, holdings: [...part.holdings, holding] });
}

function withPart(ledger: Ledger, lanes: Lanes, part: Part): Ledger {
  const isThis = isOf(lanes);
  return { ...ledger, parts: ledger.parts.map(other => (isThis(other) ? part : other)) };
}

function findOwed({ task, parts }: Ledger, named: Named): { part: Part; held: Holding } | undefined {
  if (!isSameTask(task, named.task)) return undefined;
  const part = parts.find(isOf(named.lanes));
  const held = part?.holdings.find(holding => holding.node === named.node);
  return part && held && { part, held };
}

function findOverdue({ overdue }: Ledger, { node, task, lanes }: Named): Overdue | undefined {
  return overdue.find(
    lease => lease.node === node && isSameTask(lease.task, task) && isSame(lease.lanes, lanes),
  );
}

function withoutOverdue(ledger: Ledger, lease: Overdue): Ledger {
  return { ...ledger, overdue: ledger.overdue.filter(other => other !== lease) };
}

function isSameTask(a: LedgerTask | undefined, b: LedgerTask): boolean {
  return a?.kind === b.kind && a.set === b.set && a.step === b.step && a.weights === b.weights;
}

function isSame(a: Lanes, b: Lanes): boolean {
  return a.from === b.from && a.to === b.to;
}

function isOf(lanes: Lanes): (part: Part) => boolean {
  return part => isSame(part.lanes, lanes);
}

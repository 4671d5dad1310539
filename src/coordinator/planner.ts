// The plan: which lanes each node has of every step, and when that changes.
//
// Lanes are shared by measured speeds, so that steps are as short as they can be; a node that would make them longer has
// none and is measured again from time to time. Plans are changed rarely, since every change moves samples: only if it
// is worth it, by measurements of all nodes concerned, and only when these hold what they will need.

import type { SetName } from '../shared/dataset.js';
import { MOST_PARTS } from '../shared/messages.js';
import type { Lanes, Task } from '../shared/node.js';
import {
  blend,
  cutLanes,
  isWithin,
  partCount,
  rangesOf,
  shareLanes,
  SpeedMeter,
  taskMs,
  type Speed,
} from './assignment.js';
import type { PlannedPart } from './ledger.js';

/** The own node's name. */
export const OWN = 'coordinator';

/** A remote node, as far as plans are concerned. */
export interface Member {
  readonly id: string;
  readonly name: string;
  readonly threads: number;
  /** What a leaf took in its check, on one thread. */
  readonly leafMs: number;
  readonly roundTripMs: number;
  readonly leastRoundTripMs: number;
  /** The lanes that it was told last to hold the samples of, and those of which it has said so. */
  readonly planned: Lanes | undefined;
  readonly holds: Lanes;
  /** By kind and set of the task. */
  readonly meters: ReadonlyMap<string, SpeedMeter>;
}

export interface Share {
  readonly node: string;
  readonly lanes: Lanes;
}

export interface PlannerOptions {
  readonly lanes: number;
  readonly leaf: number;
  readonly samples: Record<SetName, number>;
  /** With 0 the own node computes nothing. */
  readonly ownThreads: number;
  readonly audit: number;
  /** From 0 to below 1. */
  readonly random: () => number;
}

/** Shares are changed when steps would be so much shorter; another node is taken for less. */
const WORTH_CHANGING = 0.8;
const WORTH_JOINING = 0.95;
/** Shared steps that turn out slower than the own threads alone by this are given up for a while. */
const TOO_SLOW = 1.05;
/** So many leases of each node are measured before a plan is judged by them. */
const SETTLED_LEASES = 32;
/** A node without lanes is measured so often at once, and after that ever more rarely. */
const FIRST_PROBES = 3;
/** So many measurements of it are kept: it may recover, and is seldom asked. */
const PROBES_KEPT = 3;
const LEAST_BACKOFF_MS = 1000;
const MOST_BACKOFF_MS = 60_000;
/** Lanes that nobody owns are cut into so many parts at least, for those who come. */
const UNOWNED_PARTS = 4;

const gradient = { kind: 'gradient', set: 'train' } as const;

/** How much and how often a node without lanes was measured. */
interface Probing {
  count: number;
  nextMs: number;
  backoffMs: number;
}

export class Planner {
  readonly #options: PlannerOptions & { readonly hasOwn: boolean };
  readonly #everything: Lanes;
  readonly #own = new Map<string, SpeedMeter>();
  readonly #probings = new Map<string, Probing>();
  #shares: readonly Share[] = [];
  #nextShares: readonly Share[] | undefined;
  /** Leases of each node that were measured under the present plan. */
  #settling = new Map<string, number>();
  /** What a step takes by the own threads alone, what it takes shared, and of that beyond the longest lease. */
  #soloMs: number | undefined;
  #sharedMs: number | undefined;
  #overheadMs: number | undefined;
  #sharedSteps = 0;
  #soloUntilMs = 0;
  #soloBackoffMs = LEAST_BACKOFF_MS;
  /** Shares of the same nodes are changed ever more rarely: each change moves samples. */
  #nextChangeMs = 0;
  #changeBackoffMs = LEAST_BACKOFF_MS;

  constructor(options: PlannerOptions) {
    this.#options = { ...options, hasOwn: options.ownThreads > 0 };
    this.#everything = { from: 0, to: options.lanes };
  }

  get shares(): readonly Share[] {
    return this.#shares;
  }

  /** All lanes are the own node's: it can do whole spans of steps. */
  get isSolo(): boolean {
    return this.#shares.length === 1 && this.#shares[0].node === OWN;
  }

  isPlanned(id: string): boolean {
    return [...this.#shares, ...(this.#nextShares ?? [])].some(({ node }) => node === id);
  }

  addSolo(stepMs: number): void {
    this.#soloMs = blend(this.#soloMs, stepMs);
  }

  /** `overheadMs`: from the last sum to the end of the step. */
  addShared(stepMs: number, overheadMs: number): void {
    this.#overheadMs = blend(this.#overheadMs, overheadMs);
    if (this.isSolo) return;
    this.#sharedMs = blend(this.#sharedMs, stepMs);
    this.#sharedSteps++;
  }

  addOwn(task: Task, ms: number, lanes: number): void {
    meterOf(this.#own, task).add({ fixedMs: 0, laneMs: ms / lanes });
    this.#settle(OWN);
  }

  /** A lease of a remote node was measured. */
  addRemote({ id, meters }: Member): void {
    this.#settle(id);
    if (!this.isPlanned(id)) for (const meter of meters.values()) meter.forgetAllBut(PROBES_KEPT);
  }

  forget(id: string): void {
    this.#probings.delete(id);
  }

  /** As measured for this kind of task, or as it follows from others. */
  speedOf(member: Member | undefined, task: Pick<Task, 'kind' | 'set'>): Speed {
    const { lanes, leaf, samples } = this.#options;
    const measured = (member ? member.meters : this.#own).get(taskKey(task))?.speed;
    if (measured) return measured;
    if (task.kind === 'evaluate') {
      // A forward pass takes about a third of a training one.
      const { fixedMs, laneMs } = this.speedOf(member, gradient);
      return { fixedMs, laneMs: (laneMs * samples[task.set]) / lanes / leaf / 3 };
    }
    if (member) return { fixedMs: member.roundTripMs, laneMs: member.leafMs / Math.max(1, member.threads) };
    return { fixedMs: 0, laneMs: (this.#soloMs ?? 1) / lanes };
  }

  /**
   * Looks whether the plan is still right. `free` are the nodes that can compute now; gives those that are to be told
   * what to hold.
   */
  look(free: readonly Member[], nowMs: number): Share[] {
    const members = new Map(free.map(member => [member.id, member]));
    const isHere = ({ node }: Share): boolean => (node === OWN ? this.#options.hasOwn : members.has(node));
    if (!this.#shares.some(isHere)) this.#shares = [];
    const told = this.#choose(members, isHere, nowMs);
    this.#adopt(members);
    return told;
  }

  /** Chooses the shares to come: the best there are, unless the present ones are about as good. */
  #choose(members: ReadonlyMap<string, Member>, isHere: (share: Share) => boolean, nowMs: number): Share[] {
    const { hasOwn } = this.#options;
    const solo = [{ node: OWN, lanes: this.#everything }];
    if (hasOwn && this.#mustBeSolo(nowMs)) {
      this.#nextShares = undefined;
      this.#enter(solo);
      return [];
    }
    const present = this.#nextShares ?? this.#shares;
    const isWhole = present.length > 0 && present.every(isHere);
    if (isWhole && !this.#isSettled()) return [];
    // Whoever has no lanes is measured before it gets any; names keep each at its place, and its samples with it.
    const isMeasured = ({ id, meters }: Member): boolean => meters.has('gradient') || this.isPlanned(id);
    const measured = [...members.values()].filter(isMeasured);
    const chosen = hasOwn || measured.length > 0 ? measured : [...members.values()];
    const remote = chosen.toSorted((a, b) => order(a.name, b.name) || order(a.id, b.id));
    const nodes = [...(hasOwn ? [OWN] : []), ...remote.map(({ id }) => id)];
    if (nodes.length === 0) return [];
    const speeds = this.#speeds(nodes, members);
    const counts = shareLanes(speeds, this.#everything.to);
    const ranges = rangesOf(counts);
    const shared = nodes.flatMap((node, i) => (counts[i] > 0 ? [{ node, lanes: ranges[i] }] : []));
    const wanted =
      hasOwn && this.#predictedMs(shared, members) > this.#predictedMs(solo, members) ? solo : shared;
    const wantedMs = this.#predictedMs(wanted, members);
    const isSame = sameNodes(wanted, present);
    if (isWhole && isSame && nowMs < this.#nextChangeMs) return [];
    const worth = wanted.length > present.length ? WORTH_JOINING : WORTH_CHANGING;
    if (isWhole && wantedMs > worth * this.#predictedMs(present, members)) return [];
    this.#changeBackoffMs = isSame ? Math.min(2 * this.#changeBackoffMs, MOST_BACKOFF_MS) : LEAST_BACKOFF_MS;
    this.#nextChangeMs = nowMs + this.#changeBackoffMs;
    this.#nextShares = wanted;
    return wanted.filter(({ node, lanes }) => node !== OWN && !isWithin(lanes, members.get(node)!.holds));
  }

  /**
   * What the own threads take alone is measured first: by it everything else is judged. And shared steps that turn out
   * slower, whatever was predicted, are given up for a while.
   */
  #mustBeSolo(nowMs: number): boolean {
    if (this.#soloMs === undefined) return true;
    const isJudged = !this.isSolo && this.#sharedMs !== undefined && this.#sharedSteps >= SETTLED_LEASES;
    if (isJudged && this.#sharedMs! > this.#soloMs * TOO_SLOW) {
      this.#soloUntilMs = nowMs + this.#soloBackoffMs;
      this.#soloBackoffMs = Math.min(2 * this.#soloBackoffMs, MOST_BACKOFF_MS);
    }
    return nowMs < this.#soloUntilMs;
  }

  #isSettled(): boolean {
    if (this.isSolo || this.#nextShares) return true;
    return this.#shares.every(({ node }) => (this.#settling.get(node) ?? 0) >= SETTLED_LEASES);
  }

  #settle(node: string): void {
    this.#settling.set(node, (this.#settling.get(node) ?? 0) + 1);
  }

  /**
   * Speeds to share by. Where none of them is measured, all threads count as equally fast: what checks took, on machines
   * that were starting, says little.
   */
  #speeds(nodes: readonly string[], members: ReadonlyMap<string, Member>): Speed[] {
    const isKnown = (node: string): boolean => node === OWN || members.get(node)!.meters.has('gradient');
    return nodes.map(node => {
      const member = members.get(node);
      if (member && !nodes.some(isKnown)) return { fixedMs: 0, laneMs: 1 / Math.max(1, member.threads) };
      return this.speedOf(member, gradient);
    });
  }

  #predictedMs(shares: readonly Share[], members: ReadonlyMap<string, Member>): number {
    if (shares.length === 1 && shares[0].node === OWN) return this.#soloMs ?? 0;
    const nodes = shares.map(({ node }) => node);
    const counts = shares.map(({ lanes: { from, to } }) => to - from);
    return taskMs(this.#speeds(nodes, members), counts) + (this.#overheadMs ?? 0);
  }

  /** The next plan becomes the present one once its nodes hold their shards, or at once if there is none. */
  #adopt(members: ReadonlyMap<string, Member>): void {
    if (!this.#nextShares) return;
    const isPrepared = this.#nextShares.every(
      ({ node, lanes }) => node === OWN || isWithin(lanes, members.get(node)?.holds),
    );
    if (!isPrepared && this.#shares.length > 0) return;
    this.#enter(this.#nextShares);
    this.#nextShares = undefined;
  }

  #enter(shares: readonly Share[]): void {
    if (this.isSolo && shares.length === 1 && shares[0].node === OWN) return;
    this.#shares = shares;
    this.#settling = new Map();
    this.#sharedMs = undefined;
    this.#sharedSteps = 0;
    for (const { node } of shares) this.#probings.delete(node);
  }

  /** The shares, cut into parts. What its owner cannot take now is left to whoever is free. */
  partsOf(task: Task, free: readonly Member[], probed?: string): PlannedPart[] {
    const { hasOwn } = this.#options;
    const members = new Map(free.map(member => [member.id, member]));
    const isFree = ({ node }: Share): boolean => (node === OWN ? hasOwn : members.has(node));
    const unowned = (lanes: Lanes): PlannedPart[] =>
      cutLanes(lanes, Math.max(UNOWNED_PARTS, Math.min(free.length, MOST_PARTS))).map(part => ({
        lanes: part,
        node: undefined,
      }));
    if (!this.#shares.some(isFree)) return unowned(this.#everything);
    const parts: PlannedPart[] = this.#shares.flatMap(share => {
      const { node, lanes } = share;
      if (!isFree(share)) return unowned(lanes);
      const count = partCount(this.speedOf(members.get(node), task), lanes.to - lanes.from);
      return cutLanes(lanes, count).map(part => ({ lanes: part, node }));
    });
    const last = parts.at(-1)!;
    if (probed !== undefined) parts.splice(-1, 1, ...withProbe(last, probed));
    /** Lanes that each has to audit. */
    const audited = new Map<string, number>();
    return parts.map(part => {
      const auditor = part.second ? undefined : this.#auditorOf(part, members, audited);
      if (auditor === undefined) return part;
      audited.set(auditor, (audited.get(auditor) ?? 0) + part.lanes.to - part.lanes.from);
      return Object.assign(part, { second: { node: auditor, role: 'audit' } });
    });
  }

  /** Whether a step is to be audited that the own threads would do alone. */
  mayAudit(free: readonly Member[]): boolean {
    const { audit, random } = this.#options;
    return free.length > 0 && audit > 0 && random() < audit;
  }

  /**
   * Who computes a part too, to compare: a node of the plan that holds its samples. Where there is none, samples are
   * fetched for it, but only as rarely again: at the default share next to never, with 1 always. Of those that could,
   * whoever has fewest lanes to audit.
   */
  #auditorOf(
    { node, lanes }: PlannedPart,
    members: ReadonlyMap<string, Member>,
    audited: ReadonlyMap<string, number>,
  ): string | undefined {
    const { audit, random, hasOwn } = this.#options;
    if (audit === 0 || (!this.isSolo && random() >= audit)) return undefined;
    const all = [...(hasOwn ? [OWN] : []), ...members.keys()];
    const planned = all.filter(other => other !== node && (other === OWN || this.isPlanned(other)));
    // Where one node has all lanes, somebody without any.
    const others = planned.length > 0 ? planned : all.filter(other => other !== node);
    const holders = others.filter(other => other === OWN || isWithin(lanes, members.get(other)!.holds));
    const mayFetch = random() < audit;
    const candidates = mayFetch ? others : holders;
    const least = Math.min(...candidates.map(other => audited.get(other) ?? 0));
    return candidates.find(other => (audited.get(other) ?? 0) === least);
  }

  /** A node without lanes whose speed is to be measured in this step, or what it is to hold for that. */
  probe(
    free: readonly Member[],
    nowMs: number,
  ): { readonly probed: string | undefined; readonly told: Share[] } {
    const told: Share[] = [];
    if (this.#shares.length === 0 || (this.#options.hasOwn && this.#soloMs === undefined)) {
      return { probed: undefined, told };
    }
    const last = { from: this.#everything.to - 1, to: this.#everything.to };
    for (const member of free) {
      const { id, holds, planned } = member;
      const probing = this.#probings.get(id) ?? { count: 0, nextMs: nowMs, backoffMs: LEAST_BACKOFF_MS };
      if (this.isPlanned(id) || nowMs < probing.nextMs) continue;
      if (!this.#mayHelp(member, free)) {
        // In a crowd this is asked of hundreds.
        this.#probings.set(id, { ...probing, nextMs: nowMs + LEAST_BACKOFF_MS });
        continue;
      }
      if (isWithin(last, holds)) {
        probing.count++;
        if (probing.count >= FIRST_PROBES) {
          probing.nextMs = nowMs + probing.backoffMs;
          probing.backoffMs = Math.min(2 * probing.backoffMs, MOST_BACKOFF_MS);
        }
        this.#probings.set(id, probing);
        return { probed: id, told };
      }
      if (!planned || !isWithin(last, planned)) told.push({ node: id, lanes: last });
    }
    return { probed: undefined, told };
  }

  /** Whether steps would be shorter with it, as far as can be hoped while it is not measured. */
  #mayHelp(member: Member, free: readonly Member[]): boolean {
    if (member.meters.has('gradient')) return true;
    // Without a round trip everybody would seem to be near.
    if (member.leastRoundTripMs === 0) return false;
    const members = new Map(free.map(other => [other.id, other]));
    const present = this.#shares.filter(({ node }) => node === OWN || members.has(node));
    if (present.length < this.#shares.length) return true;
    const speeds = [
      ...present.map(({ node }) => this.speedOf(members.get(node), gradient)),
      this.#hopeOf(member, free),
    ];
    const withItMs = taskMs(speeds, shareLanes(speeds, this.#everything.to)) + (this.#overheadMs ?? 0);
    const worth = present.length < this.#everything.to ? WORTH_JOINING : WORTH_CHANGING;
    return withItMs < worth * this.#predictedMs(this.#shares, members);
  }

  /**
   * What a node that is not measured may be at best: its threads as fast as the fastest that is measured, else as its
   * check showed, and the network as fast as any, or as its shortest round trip. A check is a single leaf of a cold process.
   */
  #hopeOf({ leafMs, threads, leastRoundTripMs }: Member, free: readonly Member[]): Speed {
    const { hasOwn, ownThreads } = this.#options;
    const known = free.flatMap(({ meters, threads: count }) => {
      const speed = meters.get('gradient')?.speed;
      return speed ? [{ fixedMs: speed.fixedMs, threadMs: speed.laneMs * Math.max(1, count) }] : [];
    });
    const threadMs = known.map(speed => speed.threadMs);
    if (hasOwn) threadMs.push(this.speedOf(undefined, gradient).laneMs * ownThreads);
    const leastFixedMs = known.length > 0 ? Math.min(...known.map(({ fixedMs }) => fixedMs)) : 0;
    return {
      fixedMs: Math.max(leastRoundTripMs, leastFixedMs),
      laneMs: (threadMs.length > 0 ? Math.min(...threadMs) : leafMs) / Math.max(1, threads),
    };
  }

  /** Why a node has no lanes. */
  whySpare(member: Member, free: readonly Member[]): string {
    const presentMs = this.isSolo ? this.#soloMs : this.#sharedMs;
    if (presentMs === undefined) return 'the others are being measured';
    const measured = member.meters.get('gradient')?.speed;
    const { fixedMs, laneMs } = measured ?? this.#hopeOf(member, free);
    const oneMs = fixedMs + laneMs;
    return (
      `a step takes ${presentMs.toFixed(1)} ms without it; one lane ${measured ? 'takes' : 'would take'} it ` +
      `${oneMs.toFixed(1)} ms, ${fixedMs.toFixed(1)} of them network` +
      (oneMs >= presentMs
        ? ''
        : measured
          ? '; with it steps would hardly be shorter'
          : '; it is yet to be measured')
    );
  }
}

/** The last lane of the last part apart, computed by the probed node too. */
function withProbe({ node, lanes: { from, to } }: PlannedPart, probed: string): PlannedPart[] {
  const rest = from < to - 1 ? [{ node, lanes: { from, to: to - 1 } }] : [];
  return [...rest, { node, lanes: { from: to - 1, to }, second: { node: probed, role: 'probe' } }];
}

/** What tasks are measured under. */
function taskKey({ kind, set }: Pick<Task, 'kind' | 'set'>): string {
  return kind === 'gradient' ? kind : set;
}

export function meterOf(meters: Map<string, SpeedMeter>, task: Pick<Task, 'kind' | 'set'>): SpeedMeter {
  const key = taskKey(task);
  let meter = meters.get(key);
  if (!meter) meters.set(key, (meter = new SpeedMeter()));
  return meter;
}

function sameNodes(a: readonly Share[], b: readonly Share[]): boolean {
  return a.length === b.length && a.every(({ node }) => b.some(other => other.node === node));
}

function order(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

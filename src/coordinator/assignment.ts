// Who gets how many lanes: pure functions of measured speeds.

import { medianOf } from '../shared/median.js';
import type { Lanes } from '../shared/node.js';

/** What a lease of n lanes takes: fixedMs + n * laneMs, the network included. */
export interface Speed {
  readonly fixedMs: number;
  readonly laneMs: number;
}

/** Milliseconds that a lease of `lanes` lanes takes; none takes none. */
export function leaseMs({ fixedMs, laneMs }: Speed, lanes: number): number {
  return lanes === 0 ? 0 : fixedMs + lanes * laneMs;
}

/** When a task ends that is shared so: the end of the last lease. */
export function taskMs(speeds: readonly Speed[], counts: readonly number[]): number {
  return speeds.reduce((endMs, speed, i) => Math.max(endMs, leaseMs(speed, counts[i])), 0);
}

const LEAST_LANE_MS = 1e-6;

const total = (counts: readonly number[]): number => counts.reduce((sum, count) => sum + count, 0);

/**
 * The lanes of each node that make the end of the task as early as it can be: as many as each gets done by a time T,
 * for the smallest T by which all lanes are done. A node whose fixed costs alone exceed T gets none. What remains of
 * rounding is taken from whoever would end last, so equal nodes get equal shares, the first ones one more.
 */
export function shareLanes(measured: readonly Speed[], lanes: number): number[] {
  // A lane that takes no time at all, by a coarse clock or by what an agent claims, would leave lanes to nobody below.
  const speeds = measured.map(({ fixedMs, laneMs }) => ({
    fixedMs,
    laneMs: Math.max(laneMs, LEAST_LANE_MS),
  }));
  const within = (ms: number): number[] =>
    speeds.map(({ fixedMs, laneMs }) =>
      ms < fixedMs ? 0 : Math.min(lanes, Math.floor((ms - fixedMs) / laneMs)),
    );
  let least = 0;
  let most = Math.min(...speeds.map(speed => leaseMs(speed, lanes))) * (1 + 1e-9);
  for (let i = 0; i < 60; i++) {
    const middle = (least + most) / 2;
    if (total(within(middle)) >= lanes) most = middle;
    else least = middle;
  }
  const counts = within(most);
  for (let surplus = total(counts) - lanes; surplus > 0; surplus--) {
    let last = 0;
    for (const [i, speed] of speeds.entries()) {
      if (counts[i] > 0 && leaseMs(speed, counts[i]) >= leaseMs(speeds[last], counts[last])) last = i;
    }
    counts[last]--;
  }
  return counts;
}

/** Consecutive ranges of so many lanes, in the order of the nodes. */
export function rangesOf(counts: readonly number[]): Lanes[] {
  let from = 0;
  return counts.map(count => ({ from, to: (from += count) }));
}

/** Cuts a range into `parts` ranges of equal length, within one lane; into fewer where there are fewer lanes. */
export function cutLanes({ from, to }: Lanes, parts: number): Lanes[] {
  const length = to - from;
  const count = Math.min(parts, length);
  return Array.from({ length: count }, (_, i) => ({
    from: from + Math.floor((i * length) / count),
    to: from + Math.floor(((i + 1) * length) / count),
  }));
}

export function isWithin(inner: Lanes, outer: Lanes | undefined): boolean {
  return outer !== undefined && outer.from <= inner.from && inner.to <= outer.to;
}

/** A part is meant to take at least this long: each costs a sum on the wire. */
const PART_MS = 20;
const PARTS_OF_A_LEASE = 4;

/** How many parts a lease is cut into: more where a part that is lost would cost much. */
export function partCount({ laneMs }: Speed, lanes: number): number {
  return Math.max(1, Math.min(PARTS_OF_A_LEASE, Math.floor((lanes * laneMs) / PART_MS)));
}

/** So many measurements are kept of a node. */
const KEPT = 63;

/** The speed of a node by the medians of its newest leases: single ones are off by a start, a stall, a collection. */
export class SpeedMeter {
  readonly #kept: Speed[] = [];
  /** Asked for several times a step. */
  #speed: Speed | undefined;

  add(speed: Speed): void {
    this.#speed = undefined;
    this.#kept.push(speed);
    if (this.#kept.length > KEPT) this.#kept.shift();
  }

  /** Older ones say little of a node that is measured rarely. */
  forgetAllBut(count: number): void {
    this.#speed = undefined;
    this.#kept.splice(0, this.#kept.length - count);
  }

  get speed(): Speed | undefined {
    if (this.#kept.length === 0) return undefined;
    return (this.#speed ??= {
      fixedMs: medianOf(this.#kept.map(({ fixedMs }) => fixedMs)),
      laneMs: medianOf(this.#kept.map(({ laneMs }) => laneMs)),
    });
  }
}

/** Weight of the newest measurement in a running mean. */
const NEWEST = 0.25;

/** A running mean of measurements; `before` is undefined for the first. */
export function blend(before: number | undefined, newest: number): number {
  return before === undefined ? newest : before + NEWEST * (newest - before);
}

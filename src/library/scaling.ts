// What a sweep over workers, batch and leaf measured, and what follows from it. Nothing here measures.

import { medianOf } from '../shared/median.js';
import { integer, percent, plural } from '../shared/format.js';
import { sum } from '../shared/sum.js';

/** Median, smallest and largest of the repetitions. */
export interface Spread {
  readonly median: number;
  readonly low: number;
  readonly high: number;
}

/** @throws RangeError if there are no values */
export function spreadOf(values: readonly number[]): Spread {
  return { median: medianOf(values), low: Math.min(...values), high: Math.max(...values) };
}

/** 1, 2, 4, ... below the cores, and the cores. */
export function defaultWorkers(cores: number): number[] {
  const workers: number[] = [];
  for (let count = 1; count < cores; count *= 2) workers.push(count);
  return [...workers, cores];
}

export interface Configuration {
  readonly workers: number;
  readonly batch: number;
  readonly leaf: number;
  readonly lanes: number;
}

/** The parts of all threads' time in training steps. */
export const timeNames = ['compute', 'wait', 'reduce', 'update'] as const;
export type TimeName = (typeof timeNames)[number];

/** One repetition of one configuration: spans of training in turns with spans without barriers. */
export interface Measurement {
  readonly samples: number;
  readonly steps: number;
  readonly trainMs: number;
  /** Summed over the threads. */
  readonly timesMs: Readonly<Record<TimeName, number>>;
  /** What the same threads reached in between when nobody waited for anybody. */
  readonly ceilingImagesPerSecond: number;
  /** Processor time they got then, over what as many threads can use on the cores. */
  readonly cpuShare: number;
}

export interface BenchRow extends Configuration {
  readonly imagesPerSecond: Spread;
  readonly stepMs: Spread;
  /** Images a second of a worker, over those of one worker alone with the same batch and leaf. */
  readonly efficiency: Spread | null;
  /** Parts of the threads' time; what is missing to 1, `other`, passes between spans of steps. */
  readonly shares: Readonly<Record<TimeName | 'other', number>>;
  /** The same work without barriers. */
  readonly ceilingImagesPerSecond: Spread;
  readonly shareOfCeiling: Spread;
  /** Processor time that the threads got when none of them waited, over what they could use; the rest others had. */
  readonly cpuShare: Spread;
}

/** `alone`: what was measured with one worker and the same batch and leaf, in the same repetitions. */
export function rowOf(
  configuration: Configuration,
  measured: readonly Measurement[],
  alone: readonly Measurement[] | undefined,
): BenchRow {
  const { workers } = configuration;
  const efficiencies = measured.flatMap((one, repetition) =>
    alone ? [rateOf(one) / (workers * rateOf(alone[repetition]))] : [],
  );
  const threadMs = workers * sum(measured.map(({ trainMs }) => trainMs));
  const share = (name: TimeName): number => sum(measured.map(({ timesMs }) => timesMs[name])) / threadMs;
  const shares = {
    compute: share('compute'),
    wait: share('wait'),
    reduce: share('reduce'),
    update: share('update'),
  };
  return {
    ...configuration,
    imagesPerSecond: spreadOf(measured.map(rateOf)),
    stepMs: spreadOf(measured.map(({ trainMs, steps }) => trainMs / steps)),
    efficiency: efficiencies.length > 0 ? spreadOf(efficiencies) : null,
    shares: { ...shares, other: Math.max(0, 1 - sum(Object.values(shares))) },
    ceilingImagesPerSecond: spreadOf(measured.map(one => one.ceilingImagesPerSecond)),
    shareOfCeiling: spreadOf(measured.map(one => rateOf(one) / one.ceilingImagesPerSecond)),
    cpuShare: spreadOf(measured.map(({ cpuShare }) => cpuShare)),
  };
}

function rateOf({ samples, trainMs }: Measurement): number {
  return (samples / trainMs) * 1000;
}

/** What keeps workers from helping. */
export type Limit =
  'cores' | 'busy' | 'lanes' | 'uneven' | 'updates' | 'waiting' | 'machine' | 'spans' | 'noise';

export interface Advice {
  readonly batch: number;
  readonly leaf: number;
  /** The most workers that helped. */
  readonly workers: number;
  /** Why more do not, or why these help little; null if there is nothing to change. */
  readonly limit: Limit | null;
  readonly text: string;
}

/** More workers help if they gain at least this. */
const LEAST_GAIN = 0.05;
/** Below these nothing is said. */
const GOOD_EFFICIENCY = 0.8;
const GOOD_SHARE_OF_CEILING = 0.85;
const LEAST_CPU_SHARE = 0.85;
const MOST_WAITING = 0.15;
const MOST_UPDATING = 0.25;
const MOST_IDLE_BY_LANES = 0.1;
/** Time outside of work that is worth naming where nothing else explains a row. */
const MUCH_LOST = 0.05;

/** For every batch and leaf: where more workers stop helping, why, and what to change. */
export function advise(rows: readonly BenchRow[], cores: number): Advice[] {
  const groups = new Map<string, BenchRow[]>();
  for (const row of rows) {
    const key = `${row.batch} ${row.leaf}`;
    groups.set(key, [...(groups.get(key) ?? []), row]);
  }
  return Array.from(groups.values(), group =>
    adviseGroup(
      group.toSorted((a, b) => a.workers - b.workers),
      cores,
    ),
  );
}

/**
 * Rows of one batch and leaf, by workers. Workers help up to the last row that gains `LEAST_GAIN` over the best before
 * it, whatever lies between; the row behind it tells why more do not.
 */
function adviseGroup(rows: readonly BenchRow[], cores: number): Advice {
  const [first] = rows;
  const { batch, leaf } = first;
  let best = first;
  for (const row of rows) if (gainOf(row, best) >= LEAST_GAIN) best = row;
  const next = rows.find(({ workers }) => workers > best.workers);
  if (next) {
    const gain = gainOf(next, best);
    const { limit, text } = limitOf(next, best, cores);
    return {
      batch,
      leaf,
      workers: best.workers,
      limit,
      text:
        `Workers beyond ${best.workers} do not help: images/s change by ` +
        `${gain < 0 ? '-' : '+'}${percent(Math.abs(gain), 0)} from ${best.workers} to ${next.workers}. ${text}`,
    };
  }
  const isGood =
    (best.efficiency?.median ?? 1) >= GOOD_EFFICIENCY &&
    best.shareOfCeiling.median >= GOOD_SHARE_OF_CEILING &&
    best.cpuShare.median >= LEAST_CPU_SHARE;
  const { limit, text } = isGood ? { limit: null, text: '' } : limitOf(best, first, cores);
  const times = (best.imagesPerSecond.median / first.imagesPerSecond.median).toFixed(2);
  const told =
    rows.length === 1
      ? `Only ${plural(best.workers, 'worker')} ${best.workers === 1 ? 'was' : 'were'} measured, ` +
        `at ${percent(best.shareOfCeiling.median, 0)} of the ceiling.`
      : `More workers help up to ${best.workers}, the most measured: ${times} times the images/s of ${first.workers}.`;
  return { batch, leaf, workers: best.workers, limit, text: `${told} ${text}`.trimEnd() };
}

function gainOf(row: BenchRow, before: BenchRow): number {
  return row.imagesPerSecond.median / before.imagesPerSecond.median - 1;
}

/** The first cause that fits, from what no setting can mend to what a setting can. `from`: a row with fewer workers. */
function limitOf(row: BenchRow, from: BenchRow, cores: number): { limit: Limit; text: string } {
  const { workers, lanes, shares, ceilingImagesPerSecond: ceiling, shareOfCeiling, imagesPerSecond } = row;
  const leavesOfOne = Math.ceil(lanes / workers);
  if (workers > cores) {
    return {
      limit: 'cores',
      text: `There ${cores === 1 ? 'is 1 core' : `are ${cores} cores`} for ${workers} workers: use at most ${cores}.`,
    };
  }
  if (row.cpuShare.median < LEAST_CPU_SHARE) {
    return {
      limit: 'busy',
      text:
        `Other programs ran beside: the workers got ${percent(row.cpuShare.median, 0)} of the processor time they ` +
        'asked for. Measure again on a quiet machine.',
    };
  }
  if (lanes < workers) {
    return {
      limit: 'lanes',
      text:
        `There are leaves for ${lanes} of ${workers} workers, since a step has as many lanes: ` +
        'use a larger --batch or a smaller --leaf.',
    };
  }
  if (1 - lanes / (leavesOfOne * workers) >= MOST_IDLE_BY_LANES) {
    return {
      limit: 'uneven',
      text:
        `${lanes} lanes do not divide evenly among ${workers} workers: some compute ${leavesOfOne} leaves of a step, ` +
        `others ${Math.floor(lanes / workers)}. Use a --batch and --leaf that give ${leavesOfOne * workers} lanes, ` +
        'or many more.',
    };
  }
  const updating = shares.reduce + shares.update;
  if (updating >= MOST_UPDATING) {
    return {
      limit: 'updates',
      text: `Reducing and updating take ${percent(updating, 0)} of the time: a larger --batch has fewer updates an image.`,
    };
  }
  if (workers > 1 && shares.wait >= MOST_WAITING && shareOfCeiling.median < GOOD_SHARE_OF_CEILING) {
    return {
      limit: 'waiting',
      text: `Workers wait ${percent(shares.wait, 0)} of the time: a larger --batch has fewer barriers an image.`,
    };
  }
  const ceilingGain = ceiling.median / from.ceilingImagesPerSecond.median - 1;
  if (ceilingGain < GOOD_EFFICIENCY * (workers / from.workers - 1)) {
    return {
      limit: 'machine',
      text:
        `Without barriers ${workers} workers reach ${integer(ceiling.median)} images/s and ${from.workers} reach ` +
        `${integer(from.ceilingImagesPerSecond.median)}, so processor or memory is the limit.`,
    };
  }
  const lost = workers > 1 ? shares.wait : 0;
  if (Math.max(lost, shares.other) >= MUCH_LOST) {
    const waiting = lost > 0 ? `workers wait ${percent(lost, 0)} of the time, and ` : '';
    const limit = lost >= shares.other ? 'waiting' : 'spans';
    const text =
      `${waiting}${percent(shares.other, 0)} of it passes between spans of steps, when the main thread looks up: ` +
      `${limit === 'waiting' ? 'a larger --batch has fewer barriers an image' : 'leave a core to it, or measure longer (--measure-ms)'}.`;
    return { limit, text: text[0].toUpperCase() + text.slice(1) };
  }
  return {
    limit: 'noise',
    text:
      `No part of the time explains it; images/s went from ${integer(imagesPerSecond.low)} to ` +
      `${integer(imagesPerSecond.high)}: measure longer (--measure-ms) or more often (--repetitions).`,
  };
}

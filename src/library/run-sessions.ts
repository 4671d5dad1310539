// What happened while a run was computed, process by process, out of the events that its folder keeps. They are taken as
// they come, and no more is kept than can be shown, so there may be any number of them.

import type { KeptEvent, KeptEventOf } from '../coordinator/event-file.js';
import type { Mark, Session } from '../report/reported-run.js';
import { plural } from '../shared/format.js';

/** Kept of a session: means of the speed, marks of each type, changes of what nodes do. */
export const MOST_RATES = 300;
export const MOST_MARKS = 1000;
export const MOST_STATES = 2000;

export interface RunSessions {
  readonly sessions: readonly Session[];
  /** Null where there are none. */
  readonly stepsPerEpoch: number | null;
  /** Of what was too much to be kept. */
  readonly warnings: readonly string[];
}

/** A session begins with each event `start`; what comes before the first belongs to none. */
export function sessionsOf(events: Iterable<KeptEvent | undefined>): RunSessions {
  const found: SessionBuilder[] = [];
  let stepsPerEpoch: number | null = null;
  let unknown = 0;
  for (const event of events) {
    if (!event) {
      unknown++;
    } else if (event.type === 'start') {
      found.push(new SessionBuilder(event));
      ({ stepsPerEpoch } = event);
    } else {
      found.at(-1)?.add(event);
    }
  }
  const leftOut = found.reduce((sum, builder) => sum + builder.leftOut, 0);
  const tooMany =
    `${plural(leftOut, 'event')} (joins, losses, late leases, changes of what nodes do) are too many to be shown; ` +
    'the first of each session are.';
  return {
    sessions: found.map(builder => builder.session),
    stepsPerEpoch,
    warnings: [
      ...(leftOut > 0 ? [tooMany] : []),
      ...(unknown > 0
        ? [
            `${plural(unknown, 'line')} of events.jsonl ${unknown === 1 ? 'is' : 'are'} no event that this version knows.`,
          ]
        : []),
    ],
  };
}

class SessionBuilder {
  readonly #start: KeptEventOf<'start'>;
  #last: KeptEvent;
  #ending: Pick<Session, 'end' | 'message'> = { end: 'unknown', message: '' };
  #reports: Pick<Session, 'threads' | 'nodes'> = { threads: [], nodes: [] };
  readonly #rates = new Rates();
  /** Up to here steps and time are in `#rates`. */
  #rated: { readonly step: number; readonly timeMs: number };
  readonly #marks: Mark[] = [];
  readonly #marksOf: Record<Mark['type'], number> = {
    'thread-lost': 0,
    'node-joined': 0,
    'node-lost': 0,
    'lease-expired': 0,
  };
  readonly #nodeStates: Session['nodeStates'][number][] = [];
  readonly #stateOf = new Map<string, string>();
  leftOut = 0;

  constructor(start: KeptEventOf<'start'>) {
    this.#start = this.#last = start;
    this.#rated = { step: start.resumedStep, timeMs: start.timeMs };
  }

  add(event: Exclude<KeptEvent, { type: 'start' }>): void {
    this.#last = event;
    switch (event.type) {
      case 'step':
        return this.#addRate(event);
      case 'thread-lost': {
        const { thread, phase, reason } = event;
        return this.#mark(event, { who: `thread ${thread}`, name: '', text: `in phase ${phase}: ${reason}` });
      }
      case 'node-joined': {
        const { node: who, name, threads, address } = event;
        return this.#mark(event, { who, name, text: `with ${plural(threads, 'thread')}, from ${address}` });
      }
      case 'node-lost': {
        const { node: who, name, reason } = event;
        return this.#mark(event, { who, name, text: reason });
      }
      case 'lease-expired': {
        const { node: who, name, fromLane, toLane } = event;
        return this.#mark(event, { who, name, text: `lanes ${fromLane} to ${toLane - 1}` });
      }
      case 'node':
        return this.#addState(event);
      case 'interrupted':
      case 'done': {
        const { type: end, threads, nodes = [] } = event;
        this.#ending = { end, message: '' };
        this.#reports = { threads, nodes };
        return;
      }
      case 'error':
        // Where patience ends a run, behind `interrupted`.
        this.#ending = { end: 'error', message: `${event.code}: ${event.message}` };
        return;
      case 'epoch':
      case 'checkpoint':
      case 'warning':
      case 'listening':
      case 'node-refused':
      case 'waiting':
        return;
    }
  }

  get session(): Session {
    const { startedAt, resumedStep, workers, engine } = this.#start;
    return {
      startedAt,
      resumedStep,
      lastStep: this.#last.step,
      workers,
      engine,
      endMs: this.#last.timeMs,
      ...this.#ending,
      rates: this.#rates.cells,
      marks: this.#marks,
      nodeStates: this.#nodeStates,
      ...this.#reports,
    };
  }

  #addRate({ step, timeMs, imagesPerSecond }: KeptEventOf<'step'>): void {
    const steps = step - this.#rated.step;
    // The rate is that of training alone: evaluations and saving came before it.
    const trainMs = (1000 * steps * this.#start.batch) / imagesPerSecond;
    const fromMs = Math.max(this.#rated.timeMs, timeMs - trainMs);
    if (steps > 0 && imagesPerSecond > 0) {
      // The last step of an epoch has fewer than a batch, which is not seen here.
      this.#rates.add({ fromMs, toMs: timeMs, images: steps * this.#start.batch, trainMs });
    }
    this.#rated = { step, timeMs };
  }

  #mark(
    { type, timeMs, step }: { readonly type: Mark['type']; readonly timeMs: number; readonly step: number },
    rest: Pick<Mark, 'who' | 'name' | 'text'>,
  ): void {
    if (this.#marksOf[type]++ < MOST_MARKS) this.#marks.push({ type, timeMs, step, ...rest });
    else this.leftOut++;
  }

  #addState({ timeMs, node, name, state }: KeptEventOf<'node'>): void {
    if (this.#stateOf.get(node) === state) return;
    this.#stateOf.set(node, state);
    if (this.#nodeStates.length < MOST_STATES) this.#nodeStates.push({ timeMs, node, name, state });
    else this.leftOut++;
  }
}

type Rated = Session['rates'][number];

/** At most `MOST_RATES` means over equally many `step` events each: where there are more, two become one. */
class Rates {
  #cells: Rated[] = [];
  #inLast = 0;
  #perCell = 1;

  add(next: Rated): void {
    if (this.#cells.length > 0 && this.#inLast < this.#perCell) {
      this.#cells.push(joined(this.#cells.pop()!, next));
      this.#inLast++;
      return;
    }
    if (this.#cells.length === MOST_RATES) {
      this.#cells = Array.from({ length: MOST_RATES / 2 }, (_, i) =>
        joined(this.#cells[2 * i], this.#cells[2 * i + 1]),
      );
      this.#perCell *= 2;
    }
    this.#cells.push(next);
    this.#inLast = 1;
  }

  get cells(): Session['rates'] {
    return this.#cells;
  }
}

function joined(a: Rated, b: Rated): Rated {
  return { fromMs: a.fromMs, toMs: b.toMs, images: a.images + b.images, trainMs: a.trainMs + b.trainMs };
}

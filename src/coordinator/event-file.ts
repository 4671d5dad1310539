// events.jsonl in a run folder: what the run told, from its event `start` on, through all its resumes. Nothing is computed
// from it and nothing is ever cut off, since it is history.

import { closeSync, existsSync, fstatSync, openSync, readSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as v from 'valibot';
import type { RunEvent } from '../shared/events.js';
import { wholeLines } from './lines.js';

export const EVENTS_FILE = 'events.jsonl';

const { number, string } = v;
const common = { step: number(), timeMs: number() };

const nodeEntries = { node: string(), name: string() };

/** How the process ended: what its threads and nodes have done. */
const reports = {
  threads: v.array(
    v.object({
      thread: number(),
      leaves: number(),
      computeMs: number(),
      reduceMs: number(),
      updateMs: number(),
      waitMs: number(),
    }),
  ),
  nodes: v.optional(
    v.array(
      v.object({
        ...nodeEntries,
        threads: number(),
        samples: number(),
        parts: number(),
        waitedForMs: number(),
        expired: number(),
        losses: number(),
        sentBytes: number(),
        receivedBytes: number(),
      }),
    ),
  ),
};

/** What a line must have to be read; it holds the rest of its event too. */
const keptEventSchema = v.variant('type', [
  v.object({
    type: v.literal('start'),
    ...common,
    startedAt: string(),
    resumedStep: number(),
    workers: number(),
    engine: string(),
    batch: number(),
    stepsPerEpoch: number(),
  }),
  v.object({ type: v.literal('step'), ...common, imagesPerSecond: number() }),
  v.object({
    type: v.literal('thread-lost'),
    ...common,
    thread: number(),
    reason: string(),
    phase: string(),
  }),
  v.object({
    type: v.literal('node-joined'),
    ...common,
    ...nodeEntries,
    threads: number(),
    address: string(),
  }),
  v.object({ type: v.literal('node-lost'), ...common, ...nodeEntries, reason: string() }),
  v.object({
    type: v.literal('lease-expired'),
    ...common,
    ...nodeEntries,
    fromLane: number(),
    toLane: number(),
  }),
  v.object({
    type: v.literal('node'),
    ...common,
    ...nodeEntries,
    state: v.picklist(['joining', 'fetching', 'active', 'spare', 'late', 'gone']),
  }),
  v.object({ type: v.literal('interrupted'), ...common, ...reports }),
  v.object({ type: v.literal('error'), ...common, code: string(), message: string() }),
  v.object({ type: v.literal('done'), ...common, ...reports }),
  v.object({
    type: v.picklist(['epoch', 'warning', 'checkpoint', 'listening', 'node-refused', 'waiting']),
    ...common,
  }),
]);

export type KeptEvent = v.InferOutput<typeof keptEventSchema>;
export type KeptEventOf<Type extends KeptEvent['type']> = Extract<KeptEvent, { type: Type }>;

/** Open for one process at work in the run. */
export class EventFile {
  /** Undefined once it is closed: timers may tell something later, and the number may be that of another file then. */
  #descriptor: number | undefined;
  /** What is in the file may end within a line. */
  #isTorn: boolean;
  #isBegun = false;
  /** State and lanes of each node, as the file has them. */
  readonly #nodes = new Map<string, string>();

  /** @throws what the file system says */
  constructor(dir: string) {
    const descriptor = openSync(join(dir, EVENTS_FILE), 'a+');
    try {
      this.#isTorn = !endsWithLine(descriptor);
    } catch (error) {
      closeSync(descriptor);
      throw error;
    }
    this.#descriptor = descriptor;
  }

  /**
   * Appends a line. Never throws: timers and sockets tell events too, where nobody could catch it, and no result needs the
   * line. Of a disk that is full the run learns from metrics.jsonl, at the end of the span.
   */
  record(event: RunEvent): void {
    // What a resume that cannot begin tells would look like the end of the process before it.
    if (event.type === 'start') this.#isBegun = true;
    if (this.#descriptor === undefined || !this.#isBegun || !this.#isNews(event)) return;
    const line = JSON.stringify(withoutKey(event));
    try {
      writeFileSync(this.#descriptor, `${this.#isTorn ? '\n' : ''}${line}\n`);
      this.#isTorn = false;
    } catch {
      this.#isTorn = true;
    }
  }

  /** May be called again. */
  close(): void {
    const descriptor = this.#descriptor;
    this.#descriptor = undefined;
    if (descriptor !== undefined) closeSync(descriptor);
  }

  /** Reports come every second from every node: of hundreds of them the file would grow by hundreds of MB an hour. */
  #isNews(event: RunEvent): boolean {
    if (event.type !== 'node') return true;
    const now = `${event.state} ${event.lanes}`;
    if (this.#nodes.get(event.node) === now) return false;
    this.#nodes.set(event.node, now);
    return true;
  }
}

/** The join line holds the key, which is never written into the run folder. */
function withoutKey(event: RunEvent): object {
  if (event.type !== 'listening') return event;
  const { join: _, ...rest } = event;
  return rest;
}

function endsWithLine(descriptor: number): boolean {
  const { size } = fstatSync(descriptor);
  const last = Buffer.alloc(1);
  return size === 0 || (readSync(descriptor, last, 0, 1, size - 1) === 1 && last.toString('latin1') === '\n');
}

/**
 * The events of a run folder, in their order; none where it has no such file. A line that was torn, where a process was
 * killed or a disk was full, is passed over; for one that is whole and no event there is `undefined`.
 * @throws LOCKSTEP_FILE_DAMAGED if the file cannot be read
 */
export function* readEvents(dir: string): Generator<KeptEvent | undefined, undefined> {
  if (!existsSync(join(dir, EVENTS_FILE))) return undefined;
  for (const line of wholeLines(dir, EVENTS_FILE)) {
    const parsed = parseJson(line);
    if (parsed === undefined) continue;
    const event = v.safeParse(keptEventSchema, parsed);
    yield event.success ? event.output : undefined;
  }
  return undefined;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

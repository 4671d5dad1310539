// A simulated world: processes with clocks of their own, links between them, and what goes wrong with both. Nothing in
// it depends on real time; what happens follows from the order in which events are scheduled, and so from the seed.

import type { Clock } from '#dist/shared/clock.js';
import type { Connection } from '#dist/shared/connection.js';

/** At one moment timers run before sockets are read, as in Node, and what waits for input after both. */
const priorities = { timer: 0, frame: 1, afterInput: 2 } as const;

interface Event {
  timeMs: number;
  readonly priority: number;
  readonly order: number;
  readonly process: Process | undefined;
  readonly action: () => void;
}

export class World {
  nowMs = 0;
  /** Events carried out. */
  events = 0;
  readonly #heap: Event[] = [];
  #order = 0;

  /** Calls `action` then, unless its process is dead by that time; a frozen process gets to it when it thaws. */
  at(
    timeMs: number,
    process: Process | undefined,
    action: () => void,
    kind: keyof typeof priorities = 'timer',
  ): void {
    this.#push({ timeMs, priority: priorities[kind], order: this.#order++, process, action });
  }

  /** Until `isOver` or nothing is left to happen. Promises settle between any two events. */
  async run(isOver: () => boolean, limitMs: number): Promise<void> {
    await settle();
    while (!isOver()) {
      const event = this.#pop();
      if (!event) throw new Error(`nothing is left to happen at ${this.nowMs.toFixed(1)} ms`);
      const { process, timeMs, action } = event;
      if (process && !process.isAlive) continue;
      if (process && process.frozenUntilMs > timeMs) {
        event.timeMs = process.frozenUntilMs;
        this.#push(event);
        continue;
      }
      if (timeMs > limitMs) throw new Error(`not over after ${limitMs} simulated ms`);
      this.nowMs = timeMs;
      this.events++;
      action();
      await settle();
    }
  }

  #push(event: Event): void {
    const heap = this.#heap;
    let at = heap.push(event) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!isBefore(event, heap[parent])) break;
      heap[at] = heap[parent];
      at = parent;
    }
    heap[at] = event;
  }

  #pop(): Event | undefined {
    const heap = this.#heap;
    const [first] = heap;
    const last = heap.pop();
    if (heap.length === 0 || !last) return first;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child + 1 < heap.length && isBefore(heap[child + 1], heap[child])) child++;
      if (child >= heap.length || !isBefore(heap[child], last)) break;
      heap[at] = heap[child];
      at = child;
    }
    heap[at] = last;
    return first;
  }
}

function isBefore(a: Event, b: Event): boolean {
  return (
    a.timeMs - b.timeMs < 0 || (a.timeMs === b.timeMs && (a.priority - b.priority || a.order - b.order) < 0)
  );
}

function settle(): Promise<void> {
  return new Promise(resolve => setImmediate(resolve));
}

/** Something that lives, hangs and dies. Its clock starts anywhere. */
export class Process {
  readonly world: World;
  readonly clock: Clock;
  isAlive = true;
  frozenUntilMs = 0;
  readonly ends = new Set<End>();

  constructor(world: World, clockStartMs: number) {
    this.world = world;
    const after = (delayMs: number, action: () => void): (() => void) => {
      let isCancelled = false;
      world.at(world.nowMs + Math.max(delayMs, 0.001), this, () => {
        if (!isCancelled) action();
      });
      return () => (isCancelled = true);
    };
    this.clock = {
      nowMs: () => world.nowMs + clockStartMs,
      after,
      every: (periodMs, tick) => {
        let cancel: () => void;
        const again = (): void => {
          cancel = after(periodMs, () => {
            again();
            tick();
          });
        };
        again();
        return () => cancel();
      },
    };
  }

  freeze(durationMs: number): void {
    this.frozenUntilMs = this.world.nowMs + durationMs;
  }

  kill(): void {
    this.isAlive = false;
    for (const end of this.ends) end.link.cut('the other side is gone');
  }

  afterInput(action: () => void): void {
    this.world.at(this.world.nowMs, this, action, 'afterInput');
  }
}

/** How a link treats frames in one direction. */
export interface Path {
  delayMs: number;
  bytesPerMs: number;
  /** Nothing arrives before. */
  stalledUntilMs: number;
  /** Changes what is sent: gives the frames to be delivered instead, each with an extra delay. */
  readonly tampering: ((frame: Uint8Array) => { frame: Uint8Array; extraMs: number }[])[];
}

/** So much is taken by the network before a sender sees it as buffered. */
const WINDOW_BYTES = 65_536;

export class Link {
  readonly a: End;
  readonly b: End;
  isOpen = true;
  readonly #world: World;

  constructor(world: World, a: Process, b: Process, conditions: { delayMs: number; bytesPerMs: number }) {
    this.#world = world;
    this.a = new End(this, a, conditions);
    this.b = new End(this, b, conditions);
    this.a.peerEnd = this.b;
    this.b.peerEnd = this.a;
  }

  /** Both sides learn of it, a little later. */
  cut(reason: string): void {
    if (!this.isOpen) return;
    this.isOpen = false;
    for (const end of [this.a, this.b]) {
      const { delayMs } = end.path;
      this.#world.at(this.#world.nowMs + delayMs, end.process, () => end.ended(reason), 'frame');
    }
  }
}

export class End implements Connection {
  readonly peer = 'simulated';
  readonly link: Link;
  readonly process: Process;
  /** What is sent from here. */
  readonly path: Path;
  peerEnd!: End;
  bufferedBytes = 0;
  mostBufferedBytes = 0;
  receivedBytes = 0;
  sentBytes = 0;
  onFrame: (frame: Uint8Array) => void = () => {};
  onClose: (reason: string) => void = () => {};
  #inFlightBytes = 0;
  #lastArrivalMs = 0;
  #isEnded = false;

  constructor(link: Link, process: Process, conditions: { delayMs: number; bytesPerMs: number }) {
    this.link = link;
    this.process = process;
    this.path = { ...conditions, stalledUntilMs: 0, tampering: [] };
    process.ends.add(this);
  }

  send(...frames: readonly Uint8Array[]): void {
    for (const frame of frames) this.#send(frame);
  }

  #send(frame: Uint8Array): void {
    if (!this.link.isOpen) return;
    this.sentBytes += frame.length;
    const tamper = this.path.tampering.shift();
    // A network takes a copy: the sender may use the memory again.
    const copy = Uint8Array.from(frame);
    for (const { frame: changed, extraMs } of tamper?.(copy) ?? [{ frame: copy, extraMs: 0 }]) {
      this.#deliver(changed, extraMs);
    }
  }

  /** Nothing arrives for a while; a stall never ends before one that began earlier, or frames would overtake others. */
  stall(durationMs: number): void {
    this.path.stalledUntilMs = Math.max(this.path.stalledUntilMs, this.process.world.nowMs + durationMs);
  }

  /** In order, except what is delayed on purpose. */
  #deliver(frame: Uint8Array, extraMs: number): void {
    const { world } = this.process;
    const { delayMs, bytesPerMs, stalledUntilMs } = this.path;
    const sendMs =
      Math.max(world.nowMs, this.#lastArrivalMs - delayMs, stalledUntilMs) + frame.length / bytesPerMs;
    if (extraMs === 0) this.#lastArrivalMs = sendMs + delayMs;
    this.#inFlightBytes += frame.length;
    this.#measure();
    const arrive = (): void => {
      // A stall that began while it was on its way holds it too.
      if (this.path.stalledUntilMs > world.nowMs) {
        world.at(this.path.stalledUntilMs, this.peerEnd.process, arrive, 'frame');
        return;
      }
      this.#inFlightBytes -= frame.length;
      this.#measure();
      if (!this.link.isOpen || this.peerEnd.#isEnded) return;
      this.peerEnd.receivedBytes += frame.length;
      this.peerEnd.onFrame(frame);
    };
    world.at(sendMs + delayMs + extraMs, this.peerEnd.process, arrive, 'frame');
  }

  #measure(): void {
    this.bufferedBytes = Math.max(0, this.#inFlightBytes - WINDOW_BYTES);
    this.mostBufferedBytes = Math.max(this.mostBufferedBytes, this.bufferedBytes);
  }

  /** What was sent before arrives; then the other side learns of the end. */
  close(reason: string): void {
    if (!this.link.isOpen || this.#isEnded) return;
    const { world } = this.process;
    const lastMs = Math.max(world.nowMs, this.#lastArrivalMs);
    this.ended(reason);
    world.at(lastMs, this.peerEnd.process, () => this.link.cut(reason), 'frame');
  }

  destroy(reason: string): void {
    this.link.cut(reason);
    this.ended(reason);
  }

  /** Once. */
  ended(reason: string): void {
    if (this.#isEnded) return;
    this.#isEnded = true;
    this.process.ends.delete(this);
    this.onClose(reason);
  }
}

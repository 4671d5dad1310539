// Time comes in by the door: this module alone reads the clock and sets timers.

export interface Clock {
  /** Monotonic milliseconds from an arbitrary start. */
  nowMs(): number;
  /** Calls `tick` about every `periodMs`; returns a function that ends it. Does not keep the process alive. */
  every(periodMs: number, tick: () => void): () => void;
  /** Calls `action` once, after `delayMs`; returns a function that cancels it. Keeps the process alive until then. */
  after(delayMs: number, action: () => void): () => void;
}

export const systemClock: Clock = {
  nowMs: () => performance.now(),
  every(periodMs, tick) {
    const timer = setInterval(tick, periodMs);
    timer.unref();
    return () => clearInterval(timer);
  },
  after(delayMs, action) {
    const timer = setTimeout(action, delayMs);
    return () => clearTimeout(timer);
  },
};

/** What the clock on the wall shows: ISO 8601, UTC. It may be set back and forth, so nothing is computed from it. */
export function wallClockTime(): string {
  return new Date().toISOString();
}

/** Calls `action` once input that has arrived is read: timers that are late are called before it. */
export function afterInput(action: () => void): void {
  setImmediate(action);
}

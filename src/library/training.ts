// A running training: a promise of its result, and an async iterable of what happens.

import type { RunEvent, RunResult } from '../shared/events.js';

/** Trained parameters by name, each with its shape and its values row-major. */
export type Weights = Readonly<
  Record<string, { readonly shape: readonly number[]; readonly values: Float32Array }>
>;

export interface TrainResult extends RunResult {
  readonly weights: Weights;
}

/**
 * `await` gives the result. `for await` gives every event, if it begins in the same tick as the call, and throws what
 * the training ends with; leaving the loop early ends the training at the next step boundary, saved.
 */
export interface Training extends Promise<TrainResult>, AsyncIterable<RunEvent> {}

/** Events on their way to one `for await`: kept until they are asked for. */
class EventQueue implements AsyncIterator<RunEvent> {
  readonly #events: RunEvent[] = [];
  readonly #leave: () => void;
  #end: Promise<IteratorResult<RunEvent>> | undefined;
  #wakers: (() => void)[] = [];

  constructor(leave: () => void) {
    this.#leave = leave;
  }

  push(event: RunEvent): void {
    this.#events.push(event);
    this.#wake();
  }

  /** Nothing follows; `training` says how it ended. */
  end(training: Promise<unknown>): void {
    this.#end = training.then(() => ({ done: true, value: undefined }));
    // It is looked at only if the loop comes so far.
    this.#end.catch(() => {});
    this.#wake();
  }

  async next(): Promise<IteratorResult<RunEvent>> {
    for (;;) {
      const value = this.#events.shift();
      if (value) return { done: false, value };
      if (this.#end) return this.#end;
      await new Promise<void>(resolve => this.#wakers.push(resolve));
    }
  }

  #wake(): void {
    for (const wake of this.#wakers.splice(0)) wake();
  }

  async return(): Promise<IteratorResult<RunEvent>> {
    this.#leave();
    return { done: true, value: undefined };
  }
}

/**
 * Starts `work` in the next microtask. `signal` aborts with the caller's, or when a loop over the events is left.
 */
export function startTraining(
  work: (emit: (event: RunEvent) => void, signal: AbortSignal) => Promise<TrainResult>,
  callerSignal: AbortSignal | undefined,
): Training {
  const stop = new AbortController();
  const abort = (): void => stop.abort();
  if (callerSignal?.aborted) abort();
  callerSignal?.addEventListener('abort', abort);
  const queues = new Set<EventQueue>();
  const emit = (event: RunEvent): void => {
    for (const queue of queues) queue.push(event);
  };
  const promise = Promise.resolve().then(() => work(emit, stop.signal));
  let isEnded = false;
  const end = (): void => {
    isEnded = true;
    callerSignal?.removeEventListener('abort', abort);
    for (const queue of queues) queue.end(promise);
  };
  promise.then(end, end);
  return Object.assign(promise, {
    [Symbol.asyncIterator](): AsyncIterator<RunEvent> {
      // Whoever reads the events learns of a failure there; the promise need not be awaited too.
      promise.catch(() => {});
      const queue = new EventQueue(() => {
        queues.delete(queue);
        abort();
      });
      queues.add(queue);
      if (isEnded) queue.end(promise);
      return queue;
    },
  });
}

// The agent: joins a run, computes for it, and joins it again whenever the connection is lost.
//
// It holds nothing that matters. What a lost connection leaves is kept for the next one: the node with its threads, and
// the shards in it. Weights and leases are of one connection; the coordinator sends them again.

import type { Clock } from '../shared/clock.js';
import type { Connection } from '../shared/connection.js';
import { LockstepError, messageOf } from '../shared/errors.js';
import type { AgentJob } from './agent-job.js';
import { HeldJob, type NodeMaker } from './held-job.js';
import {
  noStatistics,
  Session,
  type AgentStatistics,
  type SessionEnd,
  type SessionOptions,
} from './session.js';

export const agentStates = [
  'connecting',
  'checking',
  'fetching',
  'computing',
  'waiting',
  'reconnecting',
] as const;

/** What an agent is doing. */
export interface AgentStatus {
  readonly state: (typeof agentStates)[number];
  /** The same in a line for people. */
  readonly text: string;
  /** Answered so far. */
  readonly parts: number;
}

export interface AgentOptions extends NodeMaker, Omit<SessionOptions, 'hold' | 'statistics' | 'onStatus'> {
  /** One attempt; it ends with `signal`. A LockstepError is a refusal, anything else trouble with the network. */
  readonly connect: (signal: AbortSignal) => Promise<Connection>;
  readonly clock: Clock;
  /** In [0, 1); spreads the attempts of many agents. */
  readonly random: () => number;
  /** How long it tries to join, from the start or from when it was last joined. */
  readonly retryMs: number;
  /** Called when it has changed. */
  readonly onStatus: (status: AgentStatus) => void;
  /** Hands the leases back and ends. */
  readonly signal?: AbortSignal | undefined;
}

export interface AgentResult extends Readonly<AgentStatistics> {
  /** Whether the run is finished, or the node left it because of `signal`. */
  readonly end: 'finished' | 'left';
}

const LEAST_BACKOFF_MS = 50;
const FIRST_BACKOFF_MS = 200;
const MOST_BACKOFF_MS = 10_000;
/** A connection that served so long was a good one: the next attempts begin with short waits. */
const STABLE_MS = MOST_BACKOFF_MS;
/** A network that damages bytes looks like a wrong key: so many refusals in a row are believed. */
const KEY_REFUSALS = 3;
/** How long the last message may take to leave. */
const LEAVE_MS = 2000;

/**
 * The wait before attempt `attempt` (0 is the first after a loss): exponential with full jitter, from 50 ms to 10 s.
 * Exponential Backoff And Jitter, M. Brooker, 2015.
 */
export function backoffMs(attempt: number, random: number): number {
  const most = Math.min(MOST_BACKOFF_MS, FIRST_BACKOFF_MS * (1 << Math.min(attempt, 16)));
  return Math.max(LEAST_BACKOFF_MS, random * most);
}

/**
 * Computes for a run until it is finished or `signal` aborts.
 * @throws LOCKSTEP_UNREACHABLE, LOCKSTEP_PROFILE, any refusal of the coordinator, and what keeps the node from computing:
 * LOCKSTEP_THREAD_DIES, LOCKSTEP_MEMORY, LOCKSTEP_BUILD
 */
export async function runAgent(options: AgentOptions): Promise<AgentResult> {
  const agent = new Agent(options);
  try {
    const end = await agent.serve();
    return { end, ...agent.statistics };
  } finally {
    await agent.close();
  }
}

class Agent {
  readonly statistics = noStatistics();
  readonly #options: AgentOptions;
  #held: HeldJob | undefined;
  /** The end of the one before. */
  #closing: Promise<void> | undefined;
  #session: Session | undefined;
  #shown = '';

  constructor(options: AgentOptions) {
    this.#options = options;
  }

  async serve(): Promise<AgentResult['end']> {
    const { clock, random, retryMs, signal } = this.#options;
    let attempt = 0;
    let keyRefusals = 0;
    /** When it was joined last, or began to try. */
    let sinceMs = clock.nowMs();
    for (;;) {
      if (signal?.aborted) return 'left';
      this.#show('connecting', 'connecting to the coordinator');
      const reached = await this.#connect();
      if (reached === 'left') return reached;
      let trouble: string;
      if ('connection' in reached) {
        keyRefusals = 0;
        const end = await this.#useConnection(reached.connection);
        if (end.how === 'failed') throw end.error;
        if (end.how !== 'lost') return end.how;
        trouble = end.reason;
        if (end.joinedMs !== undefined) {
          sinceMs = clock.nowMs();
          if (sinceMs - end.joinedMs >= STABLE_MS) attempt = 0;
          this.statistics.reconnections++;
        }
      } else {
        keyRefusals = isKeyRefusal(reached.error) ? keyRefusals + 1 : 0;
        if (isFinal(reached.error, keyRefusals)) throw reached.error;
        trouble = messageOf(reached.error);
      }
      const leftMs = sinceMs + retryMs - clock.nowMs();
      if (leftMs <= 0) throw unreachable(retryMs, trouble);
      const delayMs = Math.min(leftMs, backoffMs(attempt++, random()));
      this.#show('reconnecting', `no connection (${trouble}): trying again in ${formatSeconds(delayMs)}`);
      await this.#sleep(delayMs);
    }
  }

  /** Waits until nothing of it is at work any more. */
  async close(): Promise<void> {
    const closing = Promise.all([this.#closing, this.#held?.close()]);
    if (this.#session) await this.#atMost(LEAVE_MS, this.#session.closed);
    await closing;
  }

  #atMost(durationMs: number, work: Promise<void>): Promise<void> {
    return new Promise(resolve => {
      const cancel = this.#options.clock.after(durationMs, resolve);
      void work.then(() => {
        cancel();
        resolve();
      });
    });
  }

  #show(state: AgentStatus['state'], text: string): void {
    const shown = `${state} ${text}`;
    if (shown === this.#shown) return;
    this.#shown = shown;
    this.#options.onStatus({ state, text, parts: this.statistics.parts });
  }

  #connect(): Promise<{ readonly connection: Connection } | { readonly error: unknown } | 'left'> {
    const { connect } = this.#options;
    return new Promise(resolve => {
      const abort = new AbortController();
      const forget = this.#onAbort(() => {
        abort.abort();
        resolve('left');
      });
      connect(abort.signal).then(
        connection => {
          forget();
          if (abort.signal.aborted) connection.destroy('the node leaves');
          resolve({ connection });
        },
        (error: unknown) => {
          forget();
          resolve({ error });
        },
      );
    });
  }

  async #useConnection(connection: Connection): Promise<SessionEnd> {
    const session = new Session(connection, {
      ...this.#options,
      statistics: this.statistics,
      hold: job => this.#hold(job),
      onStatus: (state, text) => this.#show(state, text),
    });
    this.#session = session;
    const forget = this.#onAbort(() => session.leave());
    const end = await session.ended;
    forget();
    // Only the last words of a node that ends are waited for.
    if (end.how === 'lost') this.#session = undefined;
    return end;
  }

  /** What is kept of this job, if it is the same in every word. */
  async #hold(job: AgentJob): Promise<HeldJob> {
    while (this.#held?.job.identity !== job.identity) {
      const before = this.#held;
      this.#held = undefined;
      if (before) this.#closing = before.close();
      // One node at a time: both would not fit into the memory. Another connection may come meanwhile, and be first.
      await this.#closing;
      this.#held ??= new HeldJob(job, this.#options);
    }
    return this.#held;
  }

  #sleep(delayMs: number): Promise<void> {
    return new Promise(resolve => {
      const cancel = this.#options.clock.after(delayMs, () => {
        forget();
        resolve();
      });
      const forget = this.#onAbort(() => {
        cancel();
        resolve();
      });
    });
  }

  /** Returns what takes the listener away again. Calls it at once where the signal has aborted before. */
  #onAbort(action: () => void): () => void {
    const { signal } = this.#options;
    if (signal?.aborted) action();
    signal?.addEventListener('abort', action);
    return () => signal?.removeEventListener('abort', action);
  }
}

function isKeyRefusal(error: unknown): boolean {
  return error instanceof LockstepError && error.code === 'LOCKSTEP_KEY';
}

function isFinal(error: unknown, keyRefusals: number): boolean {
  return isKeyRefusal(error) ? keyRefusals >= KEY_REFUSALS : error instanceof LockstepError;
}

function unreachable(retryMs: number, trouble: string): LockstepError {
  return new LockstepError(
    'LOCKSTEP_UNREACHABLE',
    `No run could be joined for ${formatSeconds(retryMs)}; the last trouble was: ${trouble}. Look whether the ` +
      'coordinator runs and whether its address can be reached from here; --retry says how long to try.',
  );
}

function formatSeconds(durationMs: number): string {
  return `${(durationMs / 1000).toFixed(1)} s`;
}

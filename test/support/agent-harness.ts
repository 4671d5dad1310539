// An agent between stand-ins: a clock that a test moves, connections whose other end it is, a node that it answers for.

import type { Clock } from '#dist/shared/clock.js';
import { decode, encode } from '#dist/shared/codec.js';
import type { Connection } from '#dist/shared/connection.js';
import { sha256 } from '#dist/shared/hash.js';
import type { LeafJob } from '#dist/shared/leaf-job.js';
import type { Message, MessageOf, ToCoordinator } from '#dist/shared/messages.js';
import type { AgentNode, Lanes, PartSums, Task } from '#dist/shared/node.js';
import { runAgent, type AgentOptions, type AgentResult, type AgentStatus } from '#dist/worker/agent.js';
import type { ShardCache } from '#dist/worker/shard-cache.js';

/** Time passes when a test says so. */
export class ManualClock implements Clock {
  #nowMs = 1000;
  readonly #timers = new Set<{ atMs: number; readonly periodMs: number; readonly action: () => void }>();

  nowMs(): number {
    return this.#nowMs;
  }

  every(periodMs: number, tick: () => void): () => void {
    return this.#add(periodMs, periodMs, tick);
  }

  after(delayMs: number, action: () => void): () => void {
    return this.#add(delayMs, 0, action);
  }

  #add(delayMs: number, periodMs: number, action: () => void): () => void {
    const timer = { atMs: this.#nowMs + delayMs, periodMs, action };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  }

  /** What is still to come. */
  get timers(): number {
    return this.#timers.size;
  }

  /** When the next timer is due, from now. */
  nextMs(): number {
    return Math.min(...Array.from(this.#timers, ({ atMs }) => atMs)) - this.#nowMs;
  }

  /** Everything that is due happens in its order, and what follows from it before the next. */
  async advance(durationMs: number): Promise<void> {
    const endMs = this.#nowMs + durationMs;
    for (;;) {
      const [next] = [...this.#timers].toSorted((a, b) => a.atMs - b.atMs);
      if (!next || next.atMs > endMs) break;
      this.#nowMs = next.atMs;
      if (next.periodMs > 0) next.atMs += next.periodMs;
      else this.#timers.delete(next);
      next.action();
      await settle();
    }
    this.#nowMs = endMs;
  }

  /** The process was stopped: all that was due meanwhile happens once, late. */
  async jump(durationMs: number): Promise<void> {
    this.#nowMs += durationMs;
    for (const timer of [...this.#timers].filter(({ atMs }) => atMs <= this.#nowMs)) {
      if (timer.periodMs > 0) timer.atMs = this.#nowMs + timer.periodMs;
      else this.#timers.delete(timer);
      timer.action();
    }
    await settle();
  }
}

/** Until nothing goes on by itself. */
export function settle(): Promise<void> {
  return new Promise(resolve => {
    setImmediate(resolve);
  });
}

/** Taken for a message, whatever else is in it. */
function isTyped(value: object): value is Message {
  return 'type' in value;
}

export class FakeConnection implements Connection {
  readonly peer = 'coordinator:7077';
  bufferedBytes = 0;
  receivedBytes = 0;
  sentBytes = 0;
  onFrame: (frame: Uint8Array) => void = () => {};
  onClose: (reason: string) => void = () => {};
  /** What the agent sent and a test has not taken. */
  readonly sent: ToCoordinator[] = [];
  /** Why it has ended, and how. */
  ended: string | undefined;
  /** Whether an end takes effect only when a test says so. */
  isSlowToClose = false;

  send(...frames: readonly Uint8Array[]): void {
    if (this.ended !== undefined) return;
    for (const frame of frames) {
      this.sentBytes += frame.length;
      this.sent.push(decode(frame, 'coordinator', 1_000_000));
    }
  }

  close(reason: string): void {
    this.#end(`closed: ${reason}`, reason);
  }

  destroy(reason: string): void {
    this.#end(`destroyed: ${reason}`, reason);
  }

  #end(how: string, reason: string): void {
    if (this.ended !== undefined) return;
    this.ended = how;
    if (!this.isSlowToClose) this.onClose(reason);
  }

  /** From the coordinator. */
  async say(message: Message): Promise<void> {
    await this.sayFrame(encode(message));
  }

  /** What no coordinator of ours says. */
  async sayAnything(message: object): Promise<void> {
    if (!isTyped(message)) throw new Error('not even a type');
    await this.say(message);
  }

  async sayFrame(frame: Uint8Array): Promise<void> {
    this.receivedBytes += frame.length;
    this.onFrame(frame);
    await settle();
  }

  async cut(reason: string): Promise<void> {
    this.#end('cut', reason);
    await settle();
  }

  /** Takes everything that was sent. */
  take(): ToCoordinator[] {
    return this.sent.splice(0);
  }

  /** Takes what was sent, which must be one message of this type. */
  takeOne<Type extends ToCoordinator['type']>(type: Type): Extract<ToCoordinator, { type: Type }> {
    const all = this.take();
    const [message] = all;
    const isIt = (held: ToCoordinator): held is Extract<ToCoordinator, { type: Type }> => held.type === type;
    if (all.length !== 1 || !isIt(message)) {
      throw new Error(`sent ${all.map(held => held.type).join(', ') || 'nothing'}, expected ${type}`);
    }
    return message;
  }
}

const PARAMETERS = 10;
const SHARD_SAMPLES = 10;
const shape = { height: 2, width: 2, channels: 1 };

/** Bytes of every shard: 10 of the training set, 3 of the test set. */
export const shardBytes = Array.from({ length: 13 }, (_, index) =>
  Uint8Array.from({ length: SHARD_SAMPLES * 5 }, (__, i) => (index * 31 + i) & 255),
);

/** 4 lanes over 100 training and 30 test samples: lane l has 25 and 7 or 8 of them. */
export const job: MessageOf<'job'> = {
  type: 'job',
  run: '00000000000000aa',
  incarnation: '0000000000000001',
  model: { name: 'small', layers: [{ type: 'flatten' }, { type: 'dense', units: 2 }] },
  shape,
  classes: 2,
  normalization: { scale: 1, shift: 0 },
  samples: { train: 100, test: 30 },
  batch: 8,
  leaf: 2,
  seed: 1,
  engine: 'wasm',
  profile: 'stand-in',
  isMixed: false,
  dataset: { name: 'small', digest: 'd'.repeat(64) },
  shards: shardBytes.map((bytes, index) => ({
    set: index < 10 ? 'train' : 'test',
    from: (index % 10) * SHARD_SAMPLES,
    samples: SHARD_SAMPLES,
    sha256: sha256(bytes),
  })),
};

export const digests: [string, string, string] = ['1'.repeat(16), '2'.repeat(16), '3'.repeat(16)];

export function weightsOf(step: number): MessageOf<'weights'> {
  const values = Float32Array.from({ length: PARAMETERS }, (_, i) => step + i);
  return { type: 'weights', step, weights: digestOf(step), data: new Uint8Array(values.buffer) };
}

function digestOf(step: number): string {
  return step.toString(16).padStart(16, '0');
}

export function leaseOf(
  step: number,
  parts: readonly [number, number][],
  change: Partial<MessageOf<'lease'>> = {},
): MessageOf<'lease'> {
  return {
    type: 'lease',
    run: job.run,
    incarnation: job.incarnation,
    step,
    weights: digestOf(step),
    kind: 'gradient',
    set: 'train',
    parts: parts.map(([from, to]) => ({ from, to })),
    ...change,
  };
}

export function shardOf(index: number, data = shardBytes[index]): MessageOf<'shard'> {
  return { type: 'shard', index, data: data.slice() };
}

/** Answers with what it was asked, unless a test holds it up. */
export class FakeNode implements AgentNode {
  readonly threads = 2;
  readonly loaded: [string, number, number][] = [];
  readonly computed: { task: Task; lanes: Lanes; weights: number[] }[] = [];
  weights: number[] = [];
  isClosed = false;
  /** Thrown by the next call of `compute`. */
  nextError: unknown;
  isHeldUp = false;
  /** Settles when a test lets it. */
  closing: Promise<void> | undefined;
  #release: (() => void) | undefined;
  #isAtWork = false;

  loadShard(set: string, fromPosition: number, samples: number): void {
    this.loaded.push([set, fromPosition, samples]);
  }

  setWeights(_step: number, weights: Float32Array): void {
    if (this.#isAtWork) throw new Error('weights while it computes');
    this.weights = [...weights];
  }

  async compute(task: Task, lanes: Lanes): Promise<PartSums> {
    if (this.#isAtWork) throw new Error('two calls at once');
    this.#isAtWork = true;
    this.computed.push({ task, lanes, weights: this.weights });
    const error = this.nextError;
    this.nextError = undefined;
    if (this.isHeldUp)
      await new Promise<void>(resolve => {
        this.#release = resolve;
      });
    this.#isAtWork = false;
    if (error !== undefined) throw error;
    if (this.isClosed) throw new Error('closed while at work');
    const samples = (lanes.to - lanes.from) * 2;
    // 512: padded to whole blocks.
    const gradient = new Float64Array(task.kind === 'gradient' ? 512 : 0).fill(lanes.from + task.step);
    return { lossSum: 0.5, correct: 1, samples, gradient };
  }

  async release(): Promise<void> {
    this.#release?.();
    await settle();
  }

  async close(): Promise<void> {
    this.isClosed = true;
    this.#release?.();
    await this.closing;
  }
}

export class FakeCache implements ShardCache {
  readonly kept = new Map<string, Uint8Array>();
  gets = 0;

  async get(digest: string): Promise<Uint8Array | undefined> {
    this.gets++;
    return this.kept.get(digest);
  }

  async put(digest: string, bytes: Uint8Array): Promise<void> {
    this.kept.set(digest, Uint8Array.from(bytes));
  }
}

export type Ended = { readonly result: AgentResult } | { readonly error: unknown };

export class Harness {
  readonly clock = new ManualClock();
  readonly cache = new FakeCache();
  readonly nodes: FakeNode[] = [];
  readonly jobs: LeafJob[] = [];
  readonly connections: FakeConnection[] = [];
  readonly statuses: AgentStatus[] = [];
  readonly abort = new AbortController();
  checks = 0;
  attempts = 0;
  /** What the next attempts to connect end with; a connection where there is none. */
  readonly troubles: unknown[] = [];
  ended: Ended | undefined;

  static async start(change: Partial<AgentOptions> = {}): Promise<Harness> {
    const harness = new Harness();
    const options: AgentOptions = {
      connect: () => harness.#connect(),
      clock: harness.clock,
      random: () => 0.5,
      name: 'here',
      threads: 2,
      version: '0.1.0',
      engines: [{ engine: 'wasm', profile: 'stand-in' }],
      retryMs: 600_000,
      createNode: async leafJob => {
        harness.jobs.push(leafJob);
        harness.nodes.push(new FakeNode());
        return harness.node;
      },
      check: async () => {
        harness.checks++;
        return { profile: 'stand-in', digests, leafMs: 1.5, shortMs: 1 };
      },
      cache: harness.cache,
      onStatus: status => harness.statuses.push(status),
      signal: harness.abort.signal,
      ...change,
    };
    runAgent(options).then(
      result => (harness.ended = { result }),
      (error: unknown) => (harness.ended = { error }),
    );
    await settle();
    return harness;
  }

  async #connect(): Promise<FakeConnection> {
    this.attempts++;
    const trouble = this.troubles.shift();
    if (trouble !== undefined) throw trouble;
    const connection = new FakeConnection();
    this.connections.push(connection);
    return connection;
  }

  /** The newest of them. */
  get connection(): FakeConnection {
    return this.connections.at(-1)!;
  }

  get node(): FakeNode {
    return this.nodes.at(-1)!;
  }

  /** From `hello` to `checked`. */
  async join(change: Partial<MessageOf<'job'>> = {}): Promise<void> {
    this.connection.takeOne('hello');
    await this.connection.say({ ...job, ...change });
    this.connection.takeOne('checked');
  }

  /** Joins and holds the shards of all lanes, out of the cache. */
  async prepare(): Promise<void> {
    for (const bytes of shardBytes) this.cache.kept.set(sha256(bytes), bytes);
    await this.join();
    await this.connection.say({ type: 'plan', plan: 1, from: 0, to: 4 });
    this.connection.takeOne('prepared');
  }

  /** What the agent ended with. */
  get error(): unknown {
    if (!this.ended || !('error' in this.ended)) throw new Error('it has not failed');
    return this.ended.error;
  }

  get result(): AgentResult {
    if (!this.ended || !('result' in this.ended)) throw new Error('it has not ended well');
    return this.ended.result;
  }
}

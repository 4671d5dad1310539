// One connection of an agent, from `hello` to its end: checks, fetches shards, computes parts, in the order it is asked.
//
// Everything here begins with a frame, a tick of the clock, or the end of something that was waited for (a shard of the
// cache, the node, a part). Whichever it is, the same two questions follow: can more shards be asked for, and can the
// first part of the queue be computed. Queues are bounded: parts by the protocol, shards by MOST_FETCHES.

import type { Clock } from '../shared/clock.js';
import { decode, encode, FrameSpace, MOST_JOB_FRAME_BYTES } from '../shared/codec.js';
import type { Connection } from '../shared/connection.js';
import { isErrorCode, LockstepError, messageOf } from '../shared/errors.js';
import { integer } from '../shared/format.js';
import { sha256 } from '../shared/hash.js';
import {
  MOST_FETCHES,
  MOST_PARTS,
  plainText,
  PROTOCOL_VERSION,
  type MessageOf,
  type ToAgent,
  type ToCoordinator,
} from '../shared/messages.js';
import type { Lanes } from '../shared/node.js';
import { readJob, shardsUnder, type AgentJob, type NodeEngine } from './agent-job.js';
import type { HeldJob } from './held-job.js';
import type { ShardCache } from './shard-cache.js';

/** Pings come every second. A coordinator that was not heard for so long is taken to be gone. */
export const SILENCE_MS = 30_000;
const TICK_MS = 1000;
/** How soon a congested connection is looked at again. */
const DRAIN_MS = 10;
/** Sums wait for the network up to their own size, and at least so much. */
const LEAST_BUFFERED_BYTES = 65_536;

/** What an agent has done. */
export interface AgentStatistics {
  parts: number;
  /** Leaves of gradients. */
  leaves: number;
  /** In gradients and evaluations. */
  samples: number;
  computeMs: number;
  /** Parts that were taken back or belonged to other weights, and were not computed or not answered. */
  droppedParts: number;
  shardsFetched: number;
  shardsFromCache: number;
  /** Shards that were not what their SHA-256 says. */
  badShards: number;
  receivedBytes: number;
  sentBytes: number;
  reconnections: number;
  /** Connections that were ended because the coordinator did not keep to the protocol. */
  protocolErrors: number;
}

export function noStatistics(): AgentStatistics {
  return {
    parts: 0,
    leaves: 0,
    samples: 0,
    computeMs: 0,
    droppedParts: 0,
    shardsFetched: 0,
    shardsFromCache: 0,
    badShards: 0,
    receivedBytes: 0,
    sentBytes: 0,
    reconnections: 0,
    protocolErrors: 0,
  };
}

export interface SessionOptions {
  readonly clock: Clock;
  readonly name: string;
  readonly threads: number;
  readonly version: string;
  /** What this node can compute with. */
  readonly engines: readonly NodeEngine[];
  readonly cache: ShardCache;
  /** What is kept for this job, or is from now on. */
  readonly hold: (job: AgentJob) => Promise<HeldJob>;
  readonly statistics: AgentStatistics;
  readonly onStatus: (state: 'checking' | 'fetching' | 'computing' | 'waiting', text: string) => void;
}

export type SessionEnd =
  | { readonly how: 'finished' | 'left' }
  /** Worth another attempt. `joinedMs` is when it had been checked, if it came so far. */
  | { readonly how: 'lost'; readonly reason: string; readonly joinedMs?: number | undefined }
  | { readonly how: 'failed'; readonly error: unknown };

type Lease = MessageOf<'lease'>;
interface Part {
  readonly lease: Lease;
  readonly lanes: Lanes;
}

interface Plan {
  readonly number: number;
  /** Shards under its lanes. */
  readonly total: number;
  readonly missing: Set<number>;
  isPrepared: boolean;
}

export class Session {
  /** Settles when nothing more is done for this connection. */
  readonly ended: Promise<SessionEnd>;
  /** Settles when the network has ended it too. */
  readonly closed: Promise<void>;
  readonly #connection: Connection;
  readonly #options: SessionOptions;
  readonly #stopTicks: () => void;
  /** Of sums. */
  readonly #space = new FrameSpace();
  #settle!: (end: SessionEnd) => void;
  #isOver = false;
  #lastTickMs: number;
  #quietMs = 0;
  /** At the last tick. */
  #receivedBytes = 0;
  #joinedMs: number | undefined;

  #message: MessageOf<'job'> | undefined;
  #held: HeldJob | undefined;
  #weights: MessageOf<'weights'> | undefined;

  #plan: Plan | undefined;
  /** Shards that parts wait for: before those of the plan. */
  readonly #urgent = new Set<number>();
  /** Shards on their way from the cache or the coordinator, or into the cache. */
  readonly #inFlight = new Set<number>();
  /** Of these, those that the coordinator owes, and how often they were asked for. */
  readonly #asked = new Map<number, number>();

  /** Of one task. */
  #queue: Part[] = [];
  #atWork: Part | undefined;
  #cancelDrain: (() => void) | undefined;
  /** Since the last tick. */
  #tickParts = 0;
  #tickSamples = 0;
  #isShownComputing = false;

  constructor(connection: Connection, options: SessionOptions) {
    const { clock, name, threads, version } = options;
    this.#connection = connection;
    this.#options = options;
    this.ended = new Promise(resolve => (this.#settle = resolve));
    this.closed = new Promise(resolve => {
      connection.onClose = reason => {
        this.#lose(reason);
        resolve();
      };
    });
    connection.onFrame = frame => this.#onFrame(frame);
    this.#lastTickMs = clock.nowMs();
    this.#stopTicks = clock.every(TICK_MS, () => this.#tick());
    this.#send({ type: 'hello', protocol: PROTOCOL_VERSION, version, name, threads });
  }

  /** Gives the leases back and ends. */
  leave(): void {
    this.#send({ type: 'leave', reason: 'it was told to' });
    this.#end({ how: 'left' }, 'the node leaves');
  }

  #send(message: ToCoordinator, space?: FrameSpace): void {
    if (!this.#isOver) this.#connection.send(encode(message, space));
  }

  #end(end: SessionEnd, reason: string, isAtOnce = false): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#stopTicks();
    this.#cancelDrain?.();
    this.#queue = [];
    if (isAtOnce) this.#connection.destroy(reason);
    else this.#connection.close(reason);
    const { statistics } = this.#options;
    statistics.receivedBytes += this.#connection.receivedBytes;
    statistics.sentBytes += this.#connection.sentBytes;
    this.#settle(end);
  }

  #lose(reason: string, isAtOnce = false): void {
    this.#end({ how: 'lost', reason, joinedMs: this.#joinedMs }, reason, isAtOnce);
  }

  /** This node cannot go on. */
  #fail(error: unknown): void {
    this.#send({ type: 'leave', reason: plainText(messageOf(error)) });
    this.#end({ how: 'failed', error }, messageOf(error));
  }

  /** Waits for what a frame has begun. */
  #await(work: Promise<void>): void {
    work.catch((error: unknown) => {
      if (isProtocolError(error)) this.#refuse(error);
      else this.#fail(error);
    });
  }

  #refuse(error: LockstepError): void {
    if (this.#isOver) return;
    this.#options.statistics.protocolErrors++;
    this.#lose(error.message);
  }

  #onFrame(frame: Uint8Array): void {
    if (this.#isOver) return;
    try {
      this.#obey(decode(frame, 'agent', this.#held?.job.maxFrameBytes ?? MOST_JOB_FRAME_BYTES));
    } catch (error) {
      if (isProtocolError(error)) this.#refuse(error);
      else this.#fail(error);
    }
  }

  #obey(message: ToAgent): void {
    if (message.type === 'ping') this.#send({ type: 'pong', sentMs: message.sentMs });
    else if (message.type === 'end') this.#onEnd(message);
    else if (message.type === 'job') this.#await(this.#onJob(message));
    else if (this.#joinedMs === undefined) throw unexpected(`${message.type} before the node was checked`);
    else this.#serve(message);
  }

  #serve(message: Exclude<ToAgent, { type: 'ping' | 'end' | 'job' }>): void {
    switch (message.type) {
      case 'plan':
        return this.#onPlan(message);
      case 'weights':
        return this.#onWeights(message);
      case 'lease':
        return this.#onLease(message);
      case 'shard':
        return this.#onShard(message);
    }
  }

  #onEnd({ code, message }: MessageOf<'end'>): void {
    if (code === '') return this.#end({ how: 'finished' }, 'the run is finished');
    const known = isErrorCode(code) ? code : 'LOCKSTEP_PROTOCOL';
    this.#end({ how: 'failed', error: new LockstepError(known, message) }, code);
  }

  async #onJob(message: MessageOf<'job'>): Promise<void> {
    if (this.#message) throw unexpected('a second job');
    this.#message = message;
    const { engines, onStatus, hold, clock } = this.#options;
    const job = readJob(message, engines);
    onStatus('checking', `checking that this node computes the bits of ${message.model.name}`);
    const held = await hold(job);
    if (this.#isOver) return;
    this.#held = held;
    const { profile, digests, leafMs, shortMs } = await held.check();
    if (this.#isOver) return;
    this.#joinedMs = clock.nowMs();
    this.#send({ type: 'checked', profile, digests: [...digests], leafMs, shortMs });
    this.#showState();
  }

  // Shards.

  #onPlan({ plan, from, to }: MessageOf<'plan'>): void {
    this.#checkLanes({ from, to });
    const under = (['train', 'test'] as const).flatMap(set =>
      shardsUnder(this.#held!.job, set, { from, to }),
    );
    const missing = new Set(under.filter(index => !this.#held!.holds(index)));
    this.#plan = { number: plan, total: under.length, missing, isPrepared: false };
    this.#await(this.#advance());
  }

  #checkLanes({ from, to }: Lanes): void {
    const { lanes } = this.#held!.job;
    if (from > to || to > lanes) throw unexpected(`lanes ${from} to ${to} of ${lanes}`);
  }

  /** The two questions. The node is started before the first shard is asked for. */
  async #advance(): Promise<void> {
    if (this.#plan?.missing.size || this.#queue.length > 0) await this.#held!.open();
    if (this.#isOver) return;
    this.#askForMore();
    this.#tellPrepared();
    this.#showState();
    await this.#computeNext();
  }

  #askForMore(): void {
    for (const wanted of [this.#urgent, this.#plan?.missing ?? []]) {
      for (const index of wanted) {
        if (this.#inFlight.size >= MOST_FETCHES) return;
        if (this.#inFlight.has(index)) continue;
        this.#inFlight.add(index);
        this.#await(this.#obtain(index));
      }
    }
  }

  async #obtain(index: number): Promise<void> {
    const { cache, statistics } = this.#options;
    const shard = this.#held!.job.shards[index];
    const kept = await cache.get(shard.sha256);
    if (this.#isOver) return;
    if (kept?.length === shard.sizeBytes) {
      statistics.shardsFromCache++;
      this.#load(index, kept);
      this.#inFlight.delete(index);
      await this.#advance();
    } else {
      this.#asked.set(index, 1);
      this.#send({ type: 'fetch', shards: [index] });
    }
  }

  #onShard({ index, data }: MessageOf<'shard'>): void {
    const times = this.#asked.get(index);
    if (times === undefined) throw unexpected(`shard ${index}, which was not asked for`);
    const { statistics } = this.#options;
    const { sizeBytes, sha256: digest } = this.#held!.job.shards[index];
    if (data.length !== sizeBytes || sha256(data) !== digest) {
      statistics.badShards++;
      // Networks have no part in this, their damage shows in the CRC: the coordinator's dataset is not what it says.
      if (times > 1) {
        throw new LockstepError(
          'LOCKSTEP_DATA_DIGEST',
          `Shard ${index} of the coordinator's dataset is not what its SHA-256 says, twice: its files or its memory ` +
            'are damaged (lockstep data and lockstep doctor there say more).',
        );
      }
      this.#asked.set(index, times + 1);
      this.#send({ type: 'fetch', shards: [index] });
      return;
    }
    this.#asked.delete(index);
    statistics.shardsFetched++;
    this.#load(index, data);
    this.#await(this.#keep(index, digest, data));
    this.#await(this.#advance());
  }

  /** Shards that a slow disk has not taken yet count as in flight, so they are few. */
  async #keep(index: number, digest: string, data: Uint8Array): Promise<void> {
    await this.#options.cache.put(digest, data);
    this.#inFlight.delete(index);
    if (!this.#isOver) await this.#advance();
  }

  #load(index: number, bytes: Uint8Array): void {
    if (!this.#held!.holds(index)) this.#held!.load(index, bytes);
    this.#urgent.delete(index);
    this.#plan?.missing.delete(index);
  }

  #tellPrepared(): void {
    const plan = this.#plan;
    if (!plan || plan.isPrepared || plan.missing.size > 0) return;
    plan.isPrepared = true;
    this.#send({ type: 'prepared', plan: plan.number });
  }

  // Parts.

  #onWeights(weights: MessageOf<'weights'>): void {
    const { parameterCount } = this.#held!.job.leafJob.model;
    if (weights.data.length !== parameterCount * 4) {
      throw unexpected(`weights of ${weights.data.length} bytes for ${parameterCount} parameters`);
    }
    this.#weights = weights;
  }

  #isOfRun({ run, incarnation }: Lease): boolean {
    return run === this.#message?.run && incarnation === this.#message.incarnation;
  }

  #isOfWeights({ step, weights }: Lease): boolean {
    return step === this.#weights?.step && weights === this.#weights.weights;
  }

  #onLease(lease: Lease): void {
    if (lease.kind === 'gradient' && lease.set !== 'train') throw unexpected('a gradient of the test set');
    for (const lanes of lease.parts) {
      if (lanes.from === lanes.to) throw unexpected('a part without lanes');
      this.#checkLanes(lanes);
    }
    if (!this.#isOfRun(lease)) {
      this.#options.statistics.droppedParts += lease.parts.length;
      return;
    }
    // Weights go right before their lease. Were it dropped, the coordinator would wait for this node in vain.
    if (!this.#isOfWeights(lease)) throw unexpected('a lease of weights that it has not sent');
    // The coordinator does one task after another: what is left of an older one is not wanted any more.
    if (this.#queue.length > 0 && !isSameTask(this.#queue[0].lease, lease)) {
      this.#options.statistics.droppedParts += this.#queue.length;
      this.#queue = [];
      this.#urgent.clear();
    }
    const isAtSame = this.#atWork !== undefined && isSameTask(this.#atWork.lease, lease);
    if (this.#queue.length + lease.parts.length + Number(isAtSame) > MOST_PARTS) {
      throw unexpected(`a lease beyond the ${MOST_PARTS} parts that one node may have`);
    }
    for (const lanes of lease.parts) {
      this.#queue.push({ lease, lanes });
      for (const index of this.#missingUnder(lease, lanes)) this.#urgent.add(index);
    }
    this.#await(this.#advance());
  }

  #missingUnder({ set }: Lease, lanes: Lanes): number[] {
    return shardsUnder(this.#held!.job, set, lanes).filter(index => !this.#held!.holds(index));
  }

  async #computeNext(): Promise<void> {
    const held = this.#held!;
    while (!this.#isOver && this.#atWork === undefined && this.#queue.length > 0 && !this.#isCongested()) {
      const part = this.#queue[0];
      if (this.#missingUnder(part.lease, part.lanes).length > 0) return;
      this.#atWork = part;
      this.#queue.shift();
      await held.idle();
      if (this.#isOver) return;
      // Newer weights or another task may have come meanwhile.
      if (this.#isOfWeights(part.lease)) await this.#compute(held, part);
      else this.#options.statistics.droppedParts++;
      this.#atWork = undefined;
    }
  }

  /** Sums that the network does not take are not piled up; what has become stale when it does is not computed at all. */
  #isCongested(): boolean {
    if (this.#cancelDrain) return true;
    const sumBytes = this.#held!.job.leafJob.model.parameterCount * 8;
    if (this.#connection.bufferedBytes <= Math.max(sumBytes, LEAST_BUFFERED_BYTES)) return false;
    this.#cancelDrain = this.#options.clock.after(DRAIN_MS, () => {
      this.#cancelDrain = undefined;
      this.#await(this.#computeNext());
    });
    return true;
  }

  async #compute(held: HeldJob, { lease, lanes }: Part): Promise<void> {
    const { clock, statistics } = this.#options;
    const { run, incarnation, step, weights, kind, set } = lease;
    const work = { run, incarnation, step, weights, kind, set, part: lanes };
    const startMs = clock.nowMs();
    try {
      const sums = await held.compute(this.#weights!, { kind, set, step }, lanes);
      if (this.#isOver) return;
      const computeMs = clock.nowMs() - startMs;
      const { lossSum, correct, samples, gradient } = sums;
      const bytes = kind === 'gradient' ? held.packer.pack(gradient) : new Uint8Array(0);
      // The sum before has left, or this one would not have been computed, unless little of it waits.
      const space = this.#connection.bufferedBytes === 0 ? this.#space : undefined;
      this.#send({ type: 'sum', ...work, lossSum, correct, samples, computeMs, gradient: bytes }, space);
      statistics.parts++;
      if (kind === 'gradient') statistics.leaves += lanes.to - lanes.from;
      statistics.samples += samples;
      statistics.computeMs += computeMs;
      this.#tickParts++;
      this.#tickSamples += samples;
    } catch (error) {
      if (!(error instanceof LockstepError) || error.code !== 'LOCKSTEP_BAD_LEAF') throw error;
      this.#send({ type: 'bad-leaf', ...work, message: error.message });
    }
    if (!this.#isShownComputing) this.#showState();
  }

  // Time.

  /** A tick that comes late, because this process was stopped, says nothing about the coordinator. */
  #tick(): void {
    const nowMs = this.#options.clock.nowMs();
    const passedMs = nowMs - this.#lastTickMs;
    const { receivedBytes } = this.#connection;
    // A large frame on a slow network takes its time.
    this.#quietMs =
      receivedBytes === this.#receivedBytes ? this.#quietMs + Math.min(passedMs, 2 * TICK_MS) : 0;
    this.#receivedBytes = receivedBytes;
    this.#lastTickMs = nowMs;
    if (this.#quietMs > SILENCE_MS) {
      this.#lose(`no sign of the coordinator for ${SILENCE_MS / 1000} s`, true);
      return;
    }
    this.#showState(passedMs / 1000);
    this.#tickParts = 0;
    this.#tickSamples = 0;
  }

  /** A node is computing until a tick finds that it has not since the one before: parts come and go too fast to tell. */
  #showState(seconds?: number): void {
    if (this.#isOver || this.#joinedMs === undefined) return;
    const { onStatus } = this.#options;
    const { name } = this.#message!.model;
    if (this.#tickParts > 0 || this.#atWork !== undefined) {
      if (seconds !== undefined && this.#tickParts > 0) {
        const rate = integer(this.#tickSamples / seconds);
        onStatus('computing', `computing for ${name}: step ${integer(this.#step)}, ${rate} images/s`);
      } else if (!this.#isShownComputing) {
        onStatus('computing', `computing for ${name}`);
      }
      this.#isShownComputing = true;
      return;
    }
    if (this.#isShownComputing && seconds === undefined) return;
    this.#isShownComputing = false;
    const { total, missing } = this.#plan ?? { total: 0, missing: { size: 0 } };
    if (missing.size > 0) {
      onStatus(
        'fetching',
        `fetching shards for ${name}: ${integer(total - missing.size)} of ${integer(total)}`,
      );
    } else {
      onStatus('waiting', `waiting for work on ${name}`);
    }
  }

  /** Updates done, as far as this node knows. */
  get #step(): number {
    return this.#weights?.step ?? 0;
  }
}

function isSameTask(a: Lease, b: Lease): boolean {
  return a.kind === b.kind && a.set === b.set && a.step === b.step && a.weights === b.weights;
}

function isProtocolError(error: unknown): error is LockstepError {
  return error instanceof LockstepError && error.code === 'LOCKSTEP_PROTOCOL';
}

function unexpected(what: string): LockstepError {
  return new LockstepError(
    'LOCKSTEP_PROTOCOL',
    `The coordinator does not keep to the protocol: it sent ${what}.`,
  );
}

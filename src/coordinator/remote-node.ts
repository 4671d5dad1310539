// A remote node as the coordinator sees it: one connection's side of the protocol, and what was measured of the node.
//
// hello -> job -> checked -> ready. Whatever comes out of this order, or is not what the schema says, ends the
// connection with a reason; its leases are then free, and a node that is well comes back by itself.

import { decode, encode } from '../shared/codec.js';
import type { Connection } from '../shared/connection.js';
import { LockstepError, messageOf, type ErrorCode } from '../shared/errors.js';
import { MOST_FETCHES, PROTOCOL_VERSION, type MessageOf, type ToCoordinator } from '../shared/messages.js';
import type { Lanes, Task } from '../shared/node.js';
import { blend, isWithin, type SpeedMeter } from './assignment.js';
import { meterOf, type Member } from './planner.js';
import type { Check } from './reference.js';

/** What the protocol of a connection needs of its surroundings. */
export interface RemoteNodeHost {
  /** The largest legal frame from an agent of this job. */
  readonly maxFrameBytes: number;
  /** The encoded `job` message. */
  readonly jobFrame: Uint8Array;
  readonly shardCount: number;
  readonly shardFrame: (index: number) => Uint8Array;
  readonly nowMs: () => number;
  /** Its known leaves are to be compared; `admit` or `end` follows. */
  readonly onChecked: (node: RemoteNode, check: Check) => void;
  readonly onPrepared: (node: RemoteNode) => void;
  readonly onSum: (node: RemoteNode, message: MessageOf<'sum'>) => void;
  readonly onBadLeaf: (node: RemoteNode, message: MessageOf<'bad-leaf'>) => void;
  readonly onGone: (node: RemoteNode, reason: string) => void;
}

/** So much may wait in a connection before another shard is sent into it. */
const SHARD_BUFFER_BYTES = 4_000_000;
/** A connection that has not drained for so long is ended. */
const DRAIN_MS = 30_000;
const HELLO_MS = 10_000;
/** The check starts a thread, on a machine that may be slow. */
const CHECK_MS = 120_000;
/** Pings are answered at once: without an answer for so many beats a node is not waited for, and later taken to be gone. */
const QUIET_BEATS = 4;
const SILENT_MS = 60_000;
/** A lease that takes longer than this is not worth waiting for. */
const ANSWER_MS = 600_000;

type Phase = 'hello' | 'checking' | 'ready' | 'gone';

interface OpenLease {
  readonly kind: Task['kind'];
  readonly set: Task['set'];
  readonly grantedMs: number;
  /** When the last part of it was answered. */
  answeredMs: number;
  /** Whether its shards were held when it was granted, so that its time can be believed. */
  isTimed: boolean;
  lanes: number;
  open: number;
  computeMs: number;
}

export class RemoteNode implements Member {
  readonly id: string;
  readonly connection: Connection;
  readonly #host: RemoteNodeHost;
  name = '?';
  threads = 0;
  phase: Phase = 'hello';
  /** Whether it had joined when it was lost. */
  wasReady = false;
  /** What a leaf took in its check, and one of half as many samples. */
  leafMs = 0;
  shortMs = 0;
  roundTripMs = 0;
  leastRoundTripMs = 0;
  heardAtMs: number;
  planned: Lanes | undefined;
  #planNumber = 0;
  holds: Lanes = { from: 0, to: 0 };
  readonly meters = new Map<string, SpeedMeter>();
  #phaseSinceMs: number;
  #weights = '';
  #lease: OpenLease | undefined;
  #wantedShards: number[] = [];
  /** When the network last took something of what was sent, and what it had taken and brought at the last beat. */
  #drainedMs: number;
  #sentBytes = 0;
  #receivedBytes = 0;
  /** Beats in a row in which nothing was heard of it. A coordinator that stalls has few. */
  #quietBeats = 0;
  #beatMs = 0;

  constructor(id: string, connection: Connection, host: RemoteNodeHost) {
    this.id = id;
    this.connection = connection;
    this.#host = host;
    this.heardAtMs = this.#phaseSinceMs = this.#drainedMs = host.nowMs();
    connection.onFrame = frame => this.#onFrame(frame);
    connection.onClose = reason => this.#onClose(reason);
  }

  get isReady(): boolean {
    return this.phase === 'ready';
  }

  /** Whether it has not answered pings for a while, which lie behind nothing that is on its way. */
  get isSilent(): boolean {
    return this.#quietBeats >= QUIET_BEATS;
  }

  admit(): void {
    this.wasReady = true;
    this.#enter('ready');
  }

  /** Tells it the lanes whose shards it is to hold. */
  sendPlan(number: number, lanes: Lanes): void {
    this.planned = lanes;
    this.#planNumber = number;
    this.connection.send(encode({ type: 'plan', plan: number, ...lanes }));
  }

  /** Gives it parts of a task, and before them the weights, if it has not got these. */
  lease(
    task: Task & { readonly weights: string },
    parts: readonly Lanes[],
    run: { readonly run: string; readonly incarnation: string },
    weightsFrame: () => Uint8Array,
  ): void {
    const { kind, set, step, weights } = task;
    const leaseFrame = encode({ type: 'lease', ...run, step, weights, kind, set, parts: [...parts] });
    const hasWeights = this.#weights === weights;
    this.#weights = weights;
    this.connection.send(...(hasWeights ? [] : [weightsFrame()]), leaseFrame);
    const isTimed = parts.every(part => isWithin(part, this.holds));
    const lanes = parts.reduce((sum, { from, to }) => sum + to - from, 0);
    if (this.#lease) {
      // It has not answered the one before: what it does now cannot be timed.
      this.#lease.isTimed = false;
      this.#lease.lanes += lanes;
      this.#lease.open += parts.length;
    } else {
      const grantedMs = this.#host.nowMs();
      this.#lease = {
        kind,
        set,
        grantedMs,
        answeredMs: grantedMs,
        isTimed,
        lanes,
        open: parts.length,
        computeMs: 0,
      };
    }
  }

  /** The deadline of a lease has passed: its time says nothing of the node's usual speed. */
  distrustLease(): void {
    if (this.#lease) this.#lease.isTimed = false;
  }

  /** Called about once a second. */
  beat(): void {
    const nowMs = this.#host.nowMs();
    const { connection } = this;
    this.pump();
    const { sentBytes, receivedBytes } = connection;
    if (connection.bufferedBytes === 0 || sentBytes > this.#sentBytes) this.#drainedMs = nowMs;
    // A large frame on a slow network is long on its way.
    if (receivedBytes > this.#receivedBytes) this.heardAtMs = nowMs;
    const isTaking = connection.bufferedBytes > 0 && sentBytes > this.#sentBytes;
    const isHeard = this.heardAtMs > this.#beatMs;
    this.#quietBeats = isHeard || isTaking ? 0 : this.#quietBeats + 1;
    this.#beatMs = nowMs;
    this.#sentBytes = sentBytes;
    this.#receivedBytes = receivedBytes;
    const inPhaseMs = nowMs - this.#phaseSinceMs;
    if (nowMs - this.#drainedMs > DRAIN_MS) connection.destroy('it does not read what is sent to it');
    else if (nowMs - this.heardAtMs > SILENT_MS) connection.destroy('nothing was heard of it for 60 s');
    else if (this.phase === 'hello' && inPhaseMs > HELLO_MS) connection.destroy('it said no hello');
    else if (this.phase === 'checking' && inPhaseMs > CHECK_MS) connection.destroy('its check took too long');
    else if (this.#lease && nowMs - this.#lease.answeredMs > ANSWER_MS) {
      connection.destroy('it did not answer a lease for 600 s');
    } else this.#ping();
  }

  #ping(): void {
    this.connection.send(encode({ type: 'ping', sentMs: this.#host.nowMs() }));
  }

  /** Counts as gone at once, whenever its connection's end is told. */
  drop(reason: string): void {
    this.#onClose(reason);
    this.connection.destroy(reason);
  }

  /** Ends it for good. */
  end(code: ErrorCode | '', message: string): void {
    this.connection.send(encode({ type: 'end', code, message }));
    this.#onClose(message);
    this.connection.close(message);
  }

  /** Sends shards that were asked for, as fast as they are taken. */
  pump(): void {
    while (this.#wantedShards.length > 0 && this.connection.bufferedBytes < SHARD_BUFFER_BYTES) {
      this.connection.send(this.#host.shardFrame(this.#wantedShards.shift()!));
    }
  }

  #onFrame(frame: Uint8Array): void {
    if (this.phase === 'gone') return;
    this.heardAtMs = this.#host.nowMs();
    try {
      this.#onMessage(decode(frame, 'coordinator', this.#host.maxFrameBytes));
    } catch (error) {
      if (!(error instanceof LockstepError && error.code === 'LOCKSTEP_PROTOCOL')) throw error;
      this.connection.destroy(messageOf(error));
    }
  }

  #onMessage(message: ToCoordinator): void {
    const { phase } = this;
    const isExpected =
      message.type === 'leave' ||
      message.type === 'pong' ||
      (message.type === 'hello' && phase === 'hello') ||
      (message.type === 'checked' && phase === 'checking') ||
      (message.type !== 'hello' && message.type !== 'checked' && phase === 'ready');
    if (!isExpected) throw protocolError(`the message ${message.type} came out of order`);
    switch (message.type) {
      case 'hello':
        return this.#onHello(message);
      case 'checked':
        this.leafMs = message.leafMs;
        this.shortMs = message.shortMs;
        return this.#host.onChecked(this, { profile: message.profile, digests: message.digests });
      case 'prepared':
        if (message.plan !== this.#planNumber || !this.planned) return;
        this.holds = this.planned;
        return this.#host.onPrepared(this);
      case 'fetch':
        return this.#onFetch(message);
      case 'sum':
        return this.#host.onSum(this, message);
      case 'bad-leaf':
        return this.#host.onBadLeaf(this, message);
      case 'leave': {
        const reason = `it left: ${message.reason}`;
        this.#onClose(reason);
        return this.connection.close(reason);
      }
      case 'pong':
        this.#onRoundTrip(Math.max(0, this.#host.nowMs() - message.sentMs));
    }
  }

  #onHello({ protocol, version, name, threads }: MessageOf<'hello'>): void {
    if (protocol !== PROTOCOL_VERSION) {
      const text = `The coordinator speaks protocol ${PROTOCOL_VERSION}, and this agent (lockstep ${version}) ${protocol}: use the same version of lockstep on both machines.`;
      return this.end('LOCKSTEP_PROTOCOL_VERSION', text);
    }
    this.name = name;
    this.threads = threads;
    this.#enter('checking');
    this.connection.send(this.#host.jobFrame);
    this.#ping();
  }

  #onRoundTrip(ms: number): void {
    this.roundTripMs = blend(this.roundTripMs || undefined, ms);
    this.leastRoundTripMs = Math.min(this.leastRoundTripMs || Infinity, ms);
  }

  #onFetch({ shards }: MessageOf<'fetch'>): void {
    if (this.#wantedShards.length + shards.length > MOST_FETCHES) {
      throw protocolError(`more than ${MOST_FETCHES} shards were asked for at once`);
    }
    const wrong = shards.find(index => index >= this.#host.shardCount);
    if (wrong !== undefined) throw protocolError(`there is no shard ${wrong}`);
    this.#wantedShards.push(...shards);
    this.pump();
  }

  /** Books the time of an answer. True if the lease is answered by it and could be measured. */
  book(computeMs: number): boolean {
    const lease = this.#lease;
    if (!lease) return false;
    lease.computeMs += computeMs;
    lease.answeredMs = this.#host.nowMs();
    if (--lease.open > 0) return false;
    this.#lease = undefined;
    if (!lease.isTimed) return false;
    const elapsedMs = this.#host.nowMs() - lease.grantedMs;
    meterOf(this.meters, lease).add({
      fixedMs: Math.max(0, elapsedMs - lease.computeMs),
      laneMs: lease.computeMs / lease.lanes,
    });
    return true;
  }

  #enter(phase: Phase): void {
    this.phase = phase;
    this.#phaseSinceMs = this.#host.nowMs();
  }

  #onClose(reason: string): void {
    if (this.phase === 'gone') return;
    this.phase = 'gone';
    this.#wantedShards = [];
    this.#host.onGone(this, reason);
  }
}

export function protocolError(what: string): LockstepError {
  return new LockstepError('LOCKSTEP_PROTOCOL', `It broke the protocol: ${what}.`);
}

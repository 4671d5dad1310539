// The coordinator's own node together with remote ones: what the run loop trains with when it listens for agents.
//
// A step is leased to the nodes of the present plan, their sums are added as they come, and the own node does the
// update. Where the plan leaves all lanes to the own node, it does whole spans of steps as if nobody else were there.
// Who gets what is decided by `assignment` and `ledger`; this module measures, asks them, and carries out their answers.

import { bytesOf, encode, FrameSpace } from '../shared/codec.js';
import type { Clock } from '../shared/clock.js';
import type { Connection } from '../shared/connection.js';
import type { SetName } from '../shared/dataset.js';
import { LockstepError } from '../shared/errors.js';
import type { NodeReport, RunEventBody, ThreadReport } from '../shared/events.js';
import { lossBound } from '../shared/exact-sum.js';
import { plural } from '../shared/format.js';
import { formatHash, sha256 } from '../shared/hash.js';
import type { MessageOf } from '../shared/messages.js';
import type {
  Evaluated,
  Lanes,
  LocalNode,
  NodeState,
  StepResult,
  Sums,
  TrainingNode,
} from '../shared/node.js';
import type { UpdateScalars } from '../shared/optimizer.js';
import { SumsPacker } from '../shared/packed-sums.js';
import { laneStart, Schedule } from '../shared/schedule.js';
import { jobHash, type Job } from '../shared/settings.js';
import { isWithin } from './assignment.js';
import {
  advance,
  emptyLedger,
  isBehind,
  isContested,
  isLate,
  isOwed,
  lanesOwed,
  openLeases,
  type Effect,
  type LedgerEvent,
  type LedgerTask,
  type Named,
  type NodeView,
} from './ledger.js';
import { OWN, Planner, type Share } from './planner.js';
import { differenceOf, type Check } from './reference.js';
import { protocolError, RemoteNode, type RemoteNodeHost } from './remote-node.js';

export interface ClusterOptions {
  readonly job: Job;
  readonly samples: Record<SetName, number>;
  /** Holds the weights and does the updates; where it has no threads it computes no leaves. */
  readonly own: LocalNode;
  /** Of the weights that `own` holds: updates done, and the chain's hash. */
  readonly from: Pick<NodeState, 'step' | 'hash'>;
  /** 16 hexadecimal digits, drawn by this process. */
  readonly incarnation: string;
  /** The encoded `job` message. */
  readonly jobFrame: Uint8Array;
  readonly shardCount: number;
  readonly shardFrame: (index: number) => Uint8Array;
  readonly maxFrameBytes: number;
  /** The share of leases that are computed twice, where there are two nodes. */
  readonly audit: number;
  /** How long to wait while nobody computes. */
  readonly patienceMs: number;
  /** What a node's check must give; its own is kept where there is none. Undefined where arithmetics may be mixed. */
  readonly reference: ((ofNode: Check) => Promise<Check>) | undefined;
  readonly clock: Clock;
  /** From 0 to below 1. */
  readonly random: () => number;
  /** Calls `action` once input that is waiting has been read. */
  readonly afterInput: (action: () => void) => void;
  readonly emit: (event: RunEventBody) => void;
  /** The run is to end, saved, for this reason. */
  readonly onGiveUp: (error: LockstepError) => void;
  readonly signal?: AbortSignal | undefined;
}

const TICK_MS = 50;
const TICKS_PER_BEAT = 20;
/** Between two looks at the plan, so many shared steps. */
const STEPS_PER_LOOK = 8;
/** Bad leaves that others computed well, after which a node is not trusted any more. */
const MOST_WRONG_FINDS = 3;
/** A leaf is too small where half of it takes so much of its time. */
const MUCH_FOR_HALF = 0.75;
/** Reports of nodes that are gone are kept of so many. */
const MOST_GONE = 1000;

/** The task at work, and the sums of the parts that have come. */
interface Work {
  readonly task: LedgerTask;
  readonly sums: { lossSum: number; correct: number; samples: number; readonly gradient: Float64Array };
  /** When the last sum of each node came. */
  readonly lastSums: Map<string, number>;
  readonly settle: (isDone: boolean) => void;
}

/** Sums that a node tells. */
interface Told extends Sums {
  readonly node: string;
  /** Adds those of the gradient, of which an evaluation has none. */
  readonly addTo: (total: Float64Array) => void;
}

/** What is kept of a node beyond its connections. */
interface Tally {
  name: string;
  threads: number;
  parts: number;
  samples: number;
  waitedForMs: number;
  shards: number;
  expired: number;
  dropped: number;
  losses: number;
  /** Bad leaves that others computed well. */
  wrongFinds: number;
  sentBytes: number;
  receivedBytes: number;
  /** At the last report. */
  reportedSamples: number;
  reportedMs: number;
  joinedMs: number;
}

export class Cluster implements TrainingNode {
  readonly threads: number;
  readonly spanLimit: number;
  readonly #options: ClusterOptions;
  readonly #schedule: Schedule;
  readonly #run: { readonly run: string; readonly incarnation: string };
  readonly #total: Float64Array;
  /** For sums that are compared. */
  readonly #compared: Float64Array;
  readonly #packer: SumsPacker;
  readonly #remote = new Map<string, RemoteNode>();
  readonly #tallies = new Map<string, Tally>();
  readonly #stopTicking: () => void;
  #ledger = emptyLedger;
  #work: Work | undefined;
  /** Updates done, and the hash after them. */
  #step: number;
  #hash: string;
  readonly #planner: Planner;
  #planNumber = 0;
  #isPlanDue = true;
  #stepsSinceLook = 0;
  readonly #ownQueue: { readonly task: LedgerTask; readonly lanes: Lanes }[] = [];
  #ownWork: Promise<void> | undefined;
  readonly #weightsSpace = new FrameSpace();
  #weightsFrame: { readonly weights: string; readonly frame: Uint8Array } | undefined;
  #fatal: unknown;
  #isCut = false;
  #isLeafAdvised = false;
  /** The own node trains or evaluates by itself. */
  #isAlone = false;
  #isClosed = false;
  #isFinished = false;
  #stopPatience: (() => void) | undefined;
  #onChange: () => void = () => {};

  constructor(options: ClusterOptions) {
    const { job, own, from, samples, incarnation, clock, signal } = options;
    const { batch, leaf, seed } = job.bits;
    this.#options = options;
    this.threads = own.threads;
    this.spanLimit = own.spanLimit;
    this.#schedule = new Schedule({ samples: samples.train, seed, batch, leaf });
    this.#run = { run: formatHash(jobHash(job)), incarnation };
    this.#total = new Float64Array(job.model.paddedCount);
    this.#compared = new Float64Array(job.model.parameterCount);
    this.#packer = new SumsPacker(job.model.parameterCount);
    const { audit, random } = options;
    this.#planner = new Planner({ lanes: job.lanes, leaf, samples, ownThreads: own.threads, audit, random });
    this.#step = from.step;
    this.#hash = formatHash(from.hash);
    let dueMs = clock.nowMs() + TICK_MS;
    let ticks = 0;
    this.#stopTicking = clock.every(TICK_MS, () => {
      const latenessMs = Math.max(0, clock.nowMs() - dueMs);
      dueMs = clock.nowMs() + TICK_MS;
      // A stalled process finds its timers due before it has read what came meanwhile.
      options.afterInput(() => {
        if (this.#isClosed) return;
        const silent = [...this.#remote.values()].filter(node => node.isSilent).map(({ id }) => id);
        this.#advance({ type: 'tick', latenessMs, silent });
        for (const node of this.#remote.values()) node.pump();
        if (++ticks % TICKS_PER_BEAT === 0) this.#beat();
      });
    });
    signal?.addEventListener('abort', () => this.#giveUpTask());
  }

  /** Takes a connection that has proved to hold the key. */
  accept(connection: Connection, id: string): void {
    if (this.#isFinished) return refuseFinished(connection);
    if (this.#isClosed) return connection.destroy('the coordinator has stopped');
    this.#remote.get(id)?.drop('it has connected again');
    const { maxFrameBytes, jobFrame, shardCount, shardFrame, clock } = this.#options;
    const host: RemoteNodeHost = {
      maxFrameBytes,
      jobFrame,
      shardCount,
      shardFrame: index => {
        this.#tallyOf(id).shards++;
        return shardFrame(index);
      },
      nowMs: () => clock.nowMs(),
      onChecked: (node, check) => {
        this.#admit(node, check).catch((error: unknown) => this.#fail(error));
      },
      onPrepared: node => this.#onPrepared(node),
      onSum: (node, message) => this.#onRemoteSum(node, message),
      onBadLeaf: (node, message) => {
        if (!this.#isOurs(message)) return this.#drop(node.id);
        const named = { node: node.id, task: taskOf(message), lanes: message.part };
        if (isOwed(this.#ledger, named)) node.book(0);
        this.#advance({ type: 'bad', ...named, message: message.message });
      },
      onGone: (node, reason) => this.#onGone(node, reason),
    };
    this.#remote.set(id, new RemoteNode(id, connection, host));
  }

  /** Waits until so many nodes can compute. False if the signal aborts before. */
  async gather(count: number): Promise<boolean> {
    const { signal, emit } = this.#options;
    const isThere = (): boolean => [...this.#remote.values()].filter(node => node.isReady).length >= count;
    if (!isThere()) {
      emit({ type: 'waiting', message: `waiting for ${plural(count, 'node')} before the start` });
    }
    await new Promise<void>(resolve => {
      const look = (): void => {
        if (isThere() || signal?.aborted || this.#fatal !== undefined) resolve();
      };
      this.#onChange = look;
      signal?.addEventListener('abort', look);
      look();
    });
    if (this.#fatal !== undefined) throw this.#fatal;
    return signal?.aborted !== true;
  }

  async train(firstStep: number, scalars: readonly UpdateScalars[]): Promise<StepResult[]> {
    const { own, clock } = this.#options;
    const results: StepResult[] = [];
    this.#isCut = false;
    while (results.length < scalars.length && !(this.#isCut && results.length > 0)) {
      if (this.#fatal !== undefined) throw this.#fatal;
      const step = firstStep + results.length;
      this.#look();
      const free = this.#freeMembers();
      const probed = this.#probe(free);
      const startMs = clock.nowMs();
      const isAudited = this.#planner.isSolo && this.#planner.mayAudit(free);
      if (this.#planner.isSolo && probed === undefined && !isAudited) {
        const alone = await this.#alone(() => own.train(step, scalars.slice(results.length)));
        results.push(...alone);
        this.#planner.addSolo((clock.nowMs() - startMs) / alone.length);
        this.#enter(results.at(-1)!, firstStep + results.length);
        break;
      }
      const work = await this.#compute({ kind: 'gradient', set: 'train', step }, free, probed);
      if (!work) break;
      const result = await own.update(step, scalars[results.length], work.sums);
      results.push(result);
      this.#enter(result, step + 1);
      this.#measureStep(work, startMs);
    }
    return results;
  }

  async evaluate(set: SetName): Promise<Evaluated | undefined> {
    this.#isCut = false;
    this.#look();
    if (this.#fatal !== undefined) throw this.#fatal;
    if (this.#planner.isSolo) return this.#alone(() => this.#options.own.evaluate(set));
    const work = await this.#compute({ kind: 'evaluate', set, step: this.#step }, this.#freeMembers());
    return work?.sums;
  }

  cut(): void {
    this.#isCut = true;
    if (this.#isAlone) this.#options.own.cut();
    if (this.#work?.task.kind === 'evaluate') this.#giveUpTask();
  }

  state(): NodeState {
    return this.#options.own.state();
  }

  reports(): ThreadReport[] {
    return this.#options.own.reports();
  }

  /** What each remote node has done, with rates over the whole run. */
  nodeReports(): NodeReport[] {
    return [...this.#tallies].map(([id, tally]) => this.#report(id, tally, true));
  }

  /** Leases that are not answered. */
  get openLeases(): number {
    return openLeases(this.#ledger);
  }

  /** Lanes of the task at work that a node has not answered. */
  lanesOwed(node: string): number {
    return lanesOwed(this.#ledger, node);
  }

  /** Tells all nodes that the run is done, or else leaves them to come back to whoever resumes it. */
  async close(isFinished = false): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#isFinished = isFinished;
    this.#stopTicking();
    this.#stopPatience?.();
    for (const node of this.#remote.values()) {
      if (isFinished) node.end('', 'the run is finished');
      else node.connection.close('the coordinator has stopped');
    }
    await this.#ownWork;
    await this.#options.own.close();
  }

  /** Has the own node do something that concerns no other. */
  async #alone<T>(work: () => Promise<T>): Promise<T> {
    this.#isAlone = true;
    try {
      return await work();
    } finally {
      this.#isAlone = false;
    }
  }

  #enter({ hash }: StepResult, step: number): void {
    this.#step = step;
    this.#hash = formatHash(hash);
  }

  /** Has a task computed by all nodes of the plan. Undefined if it was given up. */
  async #compute(
    named: Omit<LedgerTask, 'weights'>,
    free: readonly RemoteNode[],
    probed?: string,
  ): Promise<Work | undefined> {
    if (this.#options.signal?.aborted) return undefined;
    const task = { ...named, weights: this.#hash };
    const gradient = task.kind === 'gradient' ? this.#total : new Float64Array(0);
    gradient.fill(0);
    const isDone = new Promise<boolean>((resolve, reject) => {
      this.#work = {
        task,
        sums: { lossSum: 0, correct: 0, samples: 0, gradient },
        lastSums: new Map(),
        settle: done => (this.#fatal === undefined ? resolve(done) : reject(this.#fatal)),
      };
    });
    const work = this.#work!;
    try {
      this.#advance({
        type: 'begin',
        task,
        parts: this.#planner.partsOf(task, free, probed),
        nodes: this.#views(task),
      });
      return (await isDone) ? work : undefined;
    } finally {
      this.#work = undefined;
      // The own node does one thing at a time, and may still be at a part that another has answered meanwhile.
      await this.#ownWork;
    }
  }

  #views(task: LedgerTask): NodeView[] {
    const remote = [...this.#remote.values()].filter(node => node.isReady);
    return [
      ...(this.threads > 0 ? [this.#ownView(task)] : []),
      ...remote.map(node => this.#viewOf(node, task)),
    ];
  }

  #ownView(task: LedgerTask): NodeView {
    const holds = { from: 0, to: this.#schedule.lanes };
    return { node: OWN, speed: this.#planner.speedOf(undefined, task), holds, isOwn: true };
  }

  #viewOf(node: RemoteNode, task: LedgerTask): NodeView {
    const { id, holds } = node;
    return { node: id, speed: this.#planner.speedOf(node, task), holds, isOwn: false };
  }

  /** Remote nodes that can be given something now. */
  #freeMembers(): RemoteNode[] {
    return [...this.#remote.values()].filter(({ isReady, id }) => isReady && this.#isFree(id));
  }

  #isFree(id: string): boolean {
    return !isBehind(this.#ledger, id) && !isLate(this.#ledger, id);
  }

  /** Looks at the plan, where something has changed or enough steps were done since. */
  #look(): void {
    if (++this.#stepsSinceLook < STEPS_PER_LOOK && !this.#isPlanDue) return;
    this.#stepsSinceLook = 0;
    this.#isPlanDue = false;
    // Whoever has been overtaken at a part is free again in a moment: it keeps its place.
    const here = [...this.#remote.values()].filter(({ isReady, id }) => isReady && !isLate(this.#ledger, id));
    this.#tellPlans(this.#planner.look(here, this.#options.clock.nowMs()));
  }

  #probe(free: readonly RemoteNode[]): string | undefined {
    const { probed, told } = this.#planner.probe(free, this.#options.clock.nowMs());
    this.#tellPlans(told);
    return probed;
  }

  #tellPlans(shares: readonly Share[]): void {
    for (const { node, lanes } of shares) this.#remote.get(node)?.sendPlan(++this.#planNumber, lanes);
  }

  #advance(event: LedgerEvent, told?: Told): void {
    const { clock } = this.#options;
    const { ledger, effects } = advance(this.#ledger, event, clock.nowMs());
    this.#ledger = ledger;
    const grants = new Map<string, Lanes[]>();
    for (const effect of effects) {
      if (effect.type === 'grant') {
        grants.set(effect.node, [...(grants.get(effect.node) ?? []), effect.lanes]);
      } else this.#carryOut(effect, told);
    }
    const task = this.#work?.task;
    if (task) for (const [node, parts] of grants) this.#grant(node, task, parts);
    if (!this.#ledger.isWaiting) {
      this.#stopPatience?.();
      this.#stopPatience = undefined;
    }
  }

  #carryOut(effect: Exclude<Effect, { type: 'grant' }>, told?: Told): void {
    const { emit } = this.#options;
    switch (effect.type) {
      case 'add':
        return this.#add(told!);
      case 'drop':
        return this.#drop(effect.node);
      case 'expired': {
        this.#tallyOf(effect.node).expired++;
        const remote = this.#remote.get(effect.node);
        // What was measured before holds no more; where nothing was, the late answer says more than nothing.
        if (remote?.meters.has('gradient')) {
          remote.distrustLease();
          remote.meters.clear();
          this.#planner.forget(remote.id);
        }
        this.#isPlanDue = true;
        const { from: fromLane, to: toLane } = effect.lanes;
        const { name } = this.#tallyOf(effect.node);
        return emit({ type: 'lease-expired', node: effect.node, name, fromLane, toLane });
      }
      case 'differ': {
        const { task, lanes } = effect.named;
        const [a, b] = effect.nodes.map(node => this.#labelOf(node));
        return this.#fail(
          new LockstepError(
            'LOCKSTEP_SUMS_DIFFER',
            `${a} and ${b} gave different sums for lanes ${lanes.from} to ${lanes.to - 1} of ` +
              `${task.kind === 'gradient' ? `step ${task.step + 1}` : `the evaluation after step ${task.step}`}: ` +
              `one of the two computes wrongly. Checkpoints up to step ${task.step} are good; find the machine ` +
              'at fault (lockstep doctor on each) and go on with the run without it.',
          ),
        );
      }
      case 'bad': {
        const nodes = effect.nodes.map(node => this.#labelOf(node)).join(' and ');
        return this.#fail(new LockstepError('LOCKSTEP_BAD_LEAF', `${effect.message} (Found by ${nodes}.)`));
      }
      case 'acquitted':
        return this.#onAcquitted(effect.node, effect.lanes);
      case 'waiting':
        return this.#wait();
      case 'complete':
        return this.#complete();
    }
  }

  /** A node that finds what nobody else finds is told of, and sent away for good where it goes on. */
  #onAcquitted(node: string, { from, to }: Lanes): void {
    const found =
      `${this.#labelOf(node)} found a bad leaf in lanes ${from} to ${to - 1}, and another node computed them well: ` +
      'its memory or processor may be failing.';
    this.#options.emit({ type: 'warning', message: found });
    if (node === OWN || ++this.#tallyOf(node).wrongFinds < MOST_WRONG_FINDS) return;
    this.#remote.get(node)?.end('LOCKSTEP_BAD_LEAF', `${found} It was so ${MOST_WRONG_FINDS} times.`);
  }

  #grant(node: string, task: LedgerTask, parts: readonly Lanes[]): void {
    if (node === OWN) {
      this.#ownQueue.push(...parts.map(lanes => ({ task, lanes })));
      this.#ownWork ??= this.#computeOwn();
      return;
    }
    this.#remote.get(node)?.lease(task, parts, this.#run, () => this.#frameOfWeights(task));
  }

  /** The same bytes for every node: encoded once, into the same memory if the frame before has left everywhere. */
  #frameOfWeights({ step, weights }: LedgerTask): Uint8Array {
    if (this.#weightsFrame?.weights !== weights) {
      const data = bytesOf(this.#options.own.weights());
      const hasLeft = [...this.#remote.values()].every(({ connection }) => connection.bufferedBytes === 0);
      const message = { type: 'weights', step, weights, data } as const;
      this.#weightsFrame = { weights, frame: encode(message, hasLeft ? this.#weightsSpace : undefined) };
    }
    return this.#weightsFrame.frame;
  }

  /** Works off what the own node was granted, one part after the other. */
  async #computeOwn(): Promise<void> {
    const { own, clock } = this.#options;
    // Whoever grants finishes first what it is at.
    await Promise.resolve();
    for (let next = this.#ownQueue.shift(); next; next = this.#ownQueue.shift()) {
      const { task, lanes } = next;
      const named = { node: OWN, task, lanes };
      if (this.#work?.task !== task) {
        this.#advance({ type: 'returned', ...named });
        continue;
      }
      const startMs = clock.nowMs();
      try {
        const { gradient, ...sums } = await own.compute(task, lanes);
        this.#planner.addOwn(task, clock.nowMs() - startMs, lanes.to - lanes.from);
        this.#tell(named, sums, total => addAll(total, gradient));
      } catch (error) {
        if (error instanceof LockstepError && error.code === 'LOCKSTEP_BAD_LEAF') {
          this.#advance({ type: 'bad', ...named, message: error.message });
        } else this.#fail(error);
      }
    }
    this.#ownWork = undefined;
  }

  #onRemoteSum(node: RemoteNode, message: MessageOf<'sum'>): void {
    const { job, samples } = this.#options;
    if (!this.#isOurs(message)) return this.#drop(node.id);
    const { part: lanes, kind, set, step, lossSum, correct, computeMs } = message;
    if (!(lanes.from < lanes.to && lanes.to <= job.lanes)) throw protocolError('a sum is of no lanes');
    const [from, to] = [lanes.from, lanes.to];
    const expected =
      kind === 'gradient'
        ? this.#schedule.samplesInStep(step, from, to)
        : laneStart(to, job.lanes, samples[set]) - laneStart(from, job.lanes, samples[set]);
    if (message.samples !== expected) {
      throw protocolError(`a sum is of ${message.samples} samples and should be of ${expected}`);
    }
    const mostLoss = lossBound(Math.max(samples.train, samples.test)) * expected;
    if (!(Math.abs(lossSum) <= mostLoss) || correct > expected)
      throw protocolError('a sum is beyond its bound');
    if (kind === 'gradient') this.#packer.read(message.gradient);
    else if (message.gradient.length > 0) throw protocolError('an evaluation has a gradient');
    const named = { node: node.id, task: taskOf(message), lanes };
    if (isOwed(this.#ledger, named) && node.book(computeMs)) this.#planner.addRemote(node);
    this.#tell(named, { lossSum, correct, samples: expected }, total => {
      if (kind === 'gradient') this.#packer.addTo(total);
    });
    if (!this.#planner.isPlanned(node.id)) this.#isPlanDue = true;
  }

  #tell(named: Named, sums: Sums, addTo: Told['addTo']): void {
    const told = { ...sums, node: named.node, addTo };
    const isCompared = isContested(this.#ledger, named) && this.#options.reference !== undefined;
    const digest = isCompared ? this.#digestOf(told) : undefined;
    this.#advance({ type: 'sum', ...named, digest }, told);
  }

  #digestOf({ lossSum, correct, samples, addTo }: Told): string {
    addTo(this.#compared.fill(0));
    return sha256(`${lossSum} ${correct} ${samples} ${sha256(bytesOf(this.#compared))}`);
  }

  #add({ node, lossSum, correct, samples, addTo }: Told): void {
    const { task, sums, lastSums } = this.#work!;
    sums.lossSum += lossSum;
    sums.correct += correct;
    sums.samples += samples;
    addTo(sums.gradient);
    lastSums.set(node, this.#options.clock.nowMs());
    if (node === OWN) return;
    const tally = this.#tallyOf(node);
    tally.parts++;
    if (task.kind === 'gradient') tally.samples += samples;
  }

  #complete(): void {
    const work = this.#work!;
    const ends = [...work.lastSums].toSorted((a, b) => b[1] - a[1]);
    if (ends.length > 1 && ends[0][0] !== OWN)
      this.#tallyOf(ends[0][0]).waitedForMs += ends[0][1] - ends[1][1];
    work.settle(true);
  }

  #measureStep({ lastSums }: Work, startMs: number): void {
    const nowMs = this.#options.clock.nowMs();
    const lastMs = Math.max(...lastSums.values());
    this.#planner.addShared(nowMs - startMs, nowMs - lastMs);
  }

  #giveUpTask(): void {
    const work = this.#work;
    if (!work) return;
    this.#advance({ type: 'end' });
    work.settle(false);
  }

  #fail(error: unknown): void {
    this.#fatal ??= error;
    this.#onChange();
    this.#giveUpTask();
    this.cut();
  }

  #wait(): void {
    const { emit, clock, patienceMs, onGiveUp } = this.#options;
    const message = 'no node is there to compute: waiting for one to join';
    emit({ type: 'waiting', message });
    if (patienceMs === Infinity || this.#stopPatience) return;
    this.#stopPatience = clock.after(patienceMs, () => {
      const seconds = Math.round(patienceMs / 1000);
      onGiveUp(
        new LockstepError('LOCKSTEP_NO_NODES', `No node was there to compute for ${seconds} s (--patience).`),
      );
    });
  }

  async #admit(node: RemoteNode, check: Check): Promise<void> {
    const wanted = await this.#options.reference?.(check);
    if (node.phase !== 'checking') return;
    if (wanted) {
      const difference = differenceOf(check, wanted);
      if (difference !== undefined) {
        const text = `${labelOf(node.name, node.id)} ${difference}: the run would not be reproducible (--mixed allows that).`;
        return node.end('LOCKSTEP_PROFILE', text);
      }
    }
    node.admit();
    this.#adviseLeaf(node);
    const { id, name, threads, connection } = node;
    const tally = this.#tallyOf(id);
    tally.name = name;
    tally.threads = threads;
    this.#options.emit({ type: 'node-joined', node: id, name, threads, address: connection.peer });
    this.#isPlanDue = true;
    this.#refresh(node);
    this.#onChange();
  }

  /** Says once where calls of TensorFlow cost more than what is in them. */
  #adviseLeaf({ leafMs, shortMs }: RemoteNode): void {
    const { job, emit } = this.#options;
    const { engine } = job.settings;
    if (
      engine !== 'tensorflow' ||
      this.#isLeafAdvised ||
      !(shortMs > MUCH_FOR_HALF * leafMs && shortMs < leafMs)
    )
      return;
    this.#isLeafAdvised = true;
    const { leaf } = job.bits;
    emit({
      type: 'warning',
      message:
        `A leaf of ${leaf} samples takes ${leafMs.toFixed(1)} ms, and half of it ${shortMs.toFixed(1)} ms: most of that is ` +
        `the cost of a call. A larger leaf (--leaf ${2 * leaf}, with --batch ${2 * job.bits.batch} for as many lanes) is ` +
        'faster, and gives other bits.',
    });
  }

  #onPrepared(node: RemoteNode): void {
    this.#isPlanDue = true;
    this.#refresh(node);
  }

  /** Tells the ledger of a node that may compute. */
  #refresh(node: RemoteNode): void {
    const task = this.#work?.task;
    if (task) this.#advance({ type: 'node', view: this.#viewOf(node, task) });
  }

  #onGone(node: RemoteNode, reason: string): void {
    if (this.#remote.get(node.id) === node) {
      this.#remote.delete(node.id);
      this.#planner.forget(node.id);
    }
    const { id, name, connection } = node;
    this.#isPlanDue = true;
    if (!node.wasReady) {
      if (!this.#isClosed) this.#options.emit({ type: 'node-refused', address: connection.peer, reason });
      return;
    }
    const tally = this.#tallyOf(id);
    tally.sentBytes += connection.sentBytes;
    tally.receivedBytes += connection.receivedBytes;
    if (this.#isClosed) return;
    tally.losses++;
    this.#options.emit({ type: 'node-lost', node: id, name, reason });
    this.#options.emit({ type: 'node', ...this.#report(id, tally, false) });
    this.#advance({ type: 'lost', node: id });
  }

  #isOurs({ run, incarnation }: { readonly run: string; readonly incarnation: string }): boolean {
    return run === this.#run.run && incarnation === this.#run.incarnation;
  }

  #drop(node: string): void {
    if (node !== OWN) this.#tallyOf(node).dropped++;
  }

  #beat(): void {
    for (const [id, node] of this.#remote) {
      node.beat();
      const tally = this.#tallies.get(id);
      if (!tally) continue;
      this.#options.emit({ type: 'node', ...this.#report(id, tally, false) });
      tally.reportedSamples = tally.samples;
      tally.reportedMs = this.#options.clock.nowMs();
    }
  }

  #labelOf(node: string): string {
    if (node === OWN) return "The coordinator's node";
    return labelOf(this.#tallyOf(node).name, node);
  }

  #tallyOf(id: string): Tally {
    let tally = this.#tallies.get(id);
    if (!tally) {
      const nowMs = this.#options.clock.nowMs();
      tally = {
        name: '?',
        threads: 0,
        parts: 0,
        samples: 0,
        waitedForMs: 0,
        shards: 0,
        expired: 0,
        dropped: 0,
        losses: 0,
        wrongFinds: 0,
        sentBytes: 0,
        receivedBytes: 0,
        reportedSamples: 0,
        reportedMs: nowMs,
        joinedMs: nowMs,
      };
      this.#tallies.set(id, tally);
      if (this.#tallies.size > MOST_GONE) {
        const gone = [...this.#tallies.keys()].find(other => other !== id && !this.#remote.has(other));
        if (gone !== undefined) this.#tallies.delete(gone);
      }
    }
    return tally;
  }

  #report(id: string, tally: Tally, isFinal: boolean): NodeReport {
    const nowMs = this.#options.clock.nowMs();
    const node = this.#remote.get(id);
    const share = this.#planner.shares.find(other => other.node === id);
    const [samples, ms] = isFinal
      ? [tally.samples, nowMs - tally.joinedMs]
      : [tally.samples - tally.reportedSamples, nowMs - tally.reportedMs];
    const { state, why } = this.#stateOf(node, share);
    return {
      node: id,
      name: tally.name,
      state,
      threads: tally.threads,
      lanes: share && node ? share.lanes.to - share.lanes.from : 0,
      why,
      imagesPerSecond: ms > 0 && (node || isFinal) ? (samples * 1000) / ms : 0,
      lastHeardMs: node ? nowMs - node.heardAtMs : 0,
      roundTripMs: node?.roundTripMs ?? 0,
      sentBytes: tally.sentBytes + (node?.connection.sentBytes ?? 0),
      receivedBytes: tally.receivedBytes + (node?.connection.receivedBytes ?? 0),
      parts: tally.parts,
      samples: tally.samples,
      waitedForMs: tally.waitedForMs,
      shards: tally.shards,
      expired: tally.expired,
      dropped: tally.dropped,
      losses: tally.losses,
    };
  }

  #stateOf(
    node: RemoteNode | undefined,
    share: Share | undefined,
  ): { readonly state: NodeReport['state']; readonly why: string } {
    if (!node) return { state: 'gone', why: 'it is not connected' };
    if (!node.isReady) return { state: 'joining', why: 'its arithmetic is being checked' };
    if (!this.#isFree(node.id) && !this.#options.signal?.aborted)
      return { state: 'late', why: 'it has not answered a lease in time' };
    if (share) return { state: 'active', why: '' };
    if (node.planned && !isWithin(node.planned, node.holds)) {
      return { state: 'fetching', why: 'it is fetching its shards' };
    }
    return { state: 'spare', why: this.#planner.whySpare(node, this.#freeMembers()) };
  }
}

/** As much of the sums as there is. A loop of its own, over local variables only: it runs at every step. */
function addAll(total: Float64Array, sums: Float64Array): void {
  const count = Math.min(total.length, sums.length);
  for (let i = 0; i < count; i++) total[i] += sums[i];
}

function labelOf(name: string, id: string): string {
  return `node ${name} (${id.slice(0, 8)})`;
}

/** Whoever comes while the door is being closed. */
function refuseFinished(connection: Connection): void {
  const code = 'LOCKSTEP_RUN_FINISHED';
  connection.onFrame = () => {};
  connection.send(
    encode({ type: 'end', code, message: 'The run is finished: there is nothing left to compute.' }),
  );
  connection.close('the run is finished');
}

function taskOf({ kind, set, step, weights }: MessageOf<'sum'> | MessageOf<'bad-leaf'>): LedgerTask {
  return { kind, set, step, weights };
}

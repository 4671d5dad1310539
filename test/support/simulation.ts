// One simulated run: the shipped coordinator and agents on simulated links, clocks and engines, with faults drawn from
// a seed. It ends with the bits of a plain loop, or with a refusal that has a name.

import { sha256 } from '#dist/shared/hash.js';
import { decode, encode } from '#dist/shared/codec.js';
import { Cluster } from '#dist/coordinator/cluster.js';
import { offerOf } from '#dist/coordinator/offer.js';
import type { RunEventBody } from '#dist/shared/events.js';
import { LockstepError } from '#dist/shared/errors.js';
import { leafJobOf } from '#dist/shared/leaf-job.js';
import { initialState, type AgentNode, type NodeState } from '#dist/shared/node.js';
import { jobHash } from '#dist/shared/settings.js';
import { runAgent } from '#dist/worker/agent.js';
import { Random } from './random.js';
import {
  expectedEvaluation,
  expectedRun,
  smallShards,
  standInDataset,
  standInJob,
  StandInAgentNode,
  StandInLocalNode,
} from './stand-in.js';
import { Link, Process, World, type End } from './world.js';

/** What can go wrong, and is counted when it does. */
export const faultNames = [
  'agent killed',
  'agent frozen',
  'agent left',
  'link cut',
  'link stalled',
  'link stalled one way',
  'link slowed',
  'frame corrupted',
  'answer late',
  'answer twice',
  'answers out of order',
  'answer from stale weights',
  'coordinator stalled',
  'coordinator killed',
] as const;
export type FaultName = (typeof faultNames)[number];

/** A count for each fault. */
export function noFaults(): Record<FaultName, number> {
  return Object.fromEntries(faultNames.map(name => [name, 0])) as Record<FaultName, number>; // oxlint-disable-line typescript/no-unsafe-type-assertion -- every name is there
}

export interface SimulatedRun {
  readonly seed: number;
  readonly faults: Record<FaultName, number>;
  /** Nodes that were lost while they owed a part of the step at work. */
  readonly lostInStep: number;
  readonly simulatedMs: number;
  readonly events: number;
  readonly parts: number;
  /** What the coordinator told, without the reports of nodes. */
  readonly told: readonly RunEventBody[];
}

const isTraced = process.env.LOCKSTEP_SIMULATION_TRACE !== undefined;
const HANDSHAKE_MS = 3;
const LIMIT_MS = 600_000;
/** After so many faults the run is left alone, so that it comes to its end. */
const MOST_FAULTS = 60;
const MAX_FRAME_BYTES = 1_000_000;

/** What a node does wrong that is not the network's doing. */
export type Wrong =
  /** One bit of one component of one sum. */
  | 'sum'
  /** The bits of the known leaves. */
  | 'digests'
  /** A leaf that is bad for this node alone, once. */
  | 'bad leaf'
  /** A leaf that is bad for everybody. */
  | 'bad leaf everywhere';

export interface SimulationOptions {
  /** What may go wrong; everything by default. */
  readonly faults?: readonly FaultName[];
  /** A run of so many agents, which begins when all are there; drawn from the seed by default. */
  readonly agents?: number;
  readonly ownThreads?: number;
  readonly audit?: number;
  /** What the first agent does wrong. */
  readonly wrong?: Wrong;
}

/** @throws whatever is not as it should be, with the seed in the message; a refusal with a name is its `cause`. */
export async function simulate(seed: number, options: SimulationOptions = {}): Promise<SimulatedRun> {
  try {
    return await new Simulation(seed, options).run();
  } catch (error) {
    const text = error instanceof Error ? error.stack : String(error);
    const replay = `npm run test:simulation -- ${seed}`;
    throw new Error(`seed ${seed}: ${text}\nreplay: ${replay}`, { cause: error });
  }
}

interface SimulatedAgent {
  readonly name: string;
  readonly threads: number;
  readonly laneMs: number;
  readonly delayMs: number;
  readonly bytesPerMs: number;
  readonly cached: Map<string, Uint8Array<ArrayBuffer>>;
  id: string;
  process: Process;
  stop: AbortController;
  end: End | undefined;
  /** Sums that it has sent, for answers from stale weights. */
  readonly sums: Uint8Array[];
}

class Simulation {
  readonly #world = new World();
  readonly #random: Random;
  readonly #seed: number;
  readonly #faults = noFaults();
  readonly #dataset;
  readonly #job;
  readonly #expected;
  readonly #agents: SimulatedAgent[] = [];
  readonly #ownThreads: number;
  readonly #ownLaneMs: number;
  readonly #audit: number;
  #coordinator: Process;
  #cluster!: Cluster;
  #clusters = 0;
  /** As on a disk: what a coordinator that was killed goes on from. */
  #checkpoint: NodeState;
  #lostInStep = 0;
  #parts = 0;
  #isDone = false;
  #failure: unknown;
  readonly #told: RunEventBody[] = [];
  readonly #options: SimulationOptions;
  readonly #allowed: readonly FaultName[];
  #isWrongDone = false;

  constructor(seed: number, options: SimulationOptions) {
    this.#options = options;
    this.#allowed = options.faults ?? faultNames;
    const random = new Random('simulation', seed);
    this.#seed = seed;
    this.#random = random;
    const leaf = 1 + random.integer(3);
    const lanes = 3 + random.integer(8);
    const samples = lanes * leaf * (4 + random.integer(8)) + random.integer(5);
    this.#dataset = standInDataset(samples, 10 + random.integer(60), seed);
    this.#job = standInJob(this.#dataset, lanes * leaf, leaf, 5);
    this.#expected = expectedRun(this.#job, this.#dataset);
    this.#checkpoint = { ...initialState(this.#job), hash: jobHash(this.#job) };
    this.#checkpoint.bank.weights.fill(0);
    const drawnThreads = random.pick([0, 0, 1, 2]);
    this.#ownThreads = options.ownThreads ?? drawnThreads;
    this.#ownLaneMs = random.uniform(1, 6);
    const drawnAudit = random.pick([0, 0, 0.2, 1]);
    this.#audit = options.audit ?? drawnAudit;
    this.#coordinator = new Process(this.#world, random.uniform(0, 1e6));
    const drawnCount = 1 + random.integer(5);
    const count = options.agents ?? drawnCount;
    for (let i = 0; i < count; i++) {
      this.#agents.push({
        name: `agent-${i}`,
        threads: 1 + random.integer(3),
        laneMs: random.uniform(0.5, 8),
        delayMs: random.uniform(0.1, 5),
        bytesPerMs: random.uniform(500, 100_000),
        cached: new Map(),
        id: this.#drawId(),
        process: new Process(this.#world, random.uniform(0, 1e6)),
        stop: new AbortController(),
        end: undefined,
        sums: [],
      });
    }
  }

  async run(): Promise<SimulatedRun> {
    this.#startCoordinator();
    for (const agent of this.#agents) {
      this.#world.at(this.#random.uniform(0, 60), undefined, () => this.#startAgent(agent));
    }
    this.#planFault();
    await this.#world.run(() => this.#isDone || this.#failure !== undefined, LIMIT_MS);
    if (this.#failure !== undefined) throw this.#failure;
    const { nowMs, events } = this.#world;
    await this.#checkEnd();
    return {
      seed: this.#seed,
      faults: this.#faults,
      lostInStep: this.#lostInStep,
      simulatedMs: nowMs,
      events,
      parts: this.#parts,
      told: this.#told,
    };
  }

  #drawId(): string {
    return Array.from({ length: 2 }, () => this.#random.word().toString(16).padStart(8, '0')).join('');
  }

  // --- the coordinator

  #startCoordinator(): void {
    const process = this.#coordinator;
    const { clock } = process;
    const job = this.#job;
    const { samples } = leafJobOf(job, this.#dataset);
    const incarnation = this.#drawId();
    const state = this.#checkpoint;
    const own = new StandInLocalNode(process, this.#ownThreads, this.#ownLaneMs, job, this.#dataset, state);
    const random = this.#random.fork(`coordinator ${this.#clusters++}`);
    const offer = offerOf(job, this.#dataset, incarnation, { shards: smallShards(this.#dataset) });
    this.#cluster = new Cluster({
      ...offer,
      job,
      samples,
      own,
      from: state,
      incarnation,
      maxFrameBytes: MAX_FRAME_BYTES,
      audit: this.#audit,
      patienceMs: Infinity,
      reference: async () => ({ profile: 'stand-in-1', digests: checkDigests }),
      clock,
      random: () => random.uniform(0, 1),
      afterInput: action => process.afterInput(action),
      emit: event => this.#onEvent(event),
      onGiveUp: error => this.#fail(error),
    });
    void this.#train(this.#cluster, process, state).catch((error: unknown) => {
      if (process.isAlive) this.#fail(error);
    });
  }

  /** What the run loop does, without its folder. */
  async #train(cluster: Cluster, process: Process, from: NodeState): Promise<void> {
    const { stepsPerEpoch, totalSteps } = this.#job;
    const scalars = { stepSize: 1, secondMomentScale: 1, decayFactor: 1 };
    if (this.#options.agents !== undefined)
      await cluster.gather(this.#agents.length - Number(this.#options.wrong === 'digests'));
    for (let { step } = from; ;) {
      if (step > 0 && step % stepsPerEpoch === 0) await this.#evaluate(cluster);
      if (step === totalSteps) break;
      const limit = Math.min(4, stepsPerEpoch - (step % stepsPerEpoch));
      const results = await cluster.train(
        step,
        Array.from({ length: limit }, () => scalars),
      );
      if (!process.isAlive) return;
      this.#trace(`steps ${step + 1} to ${step + results.length} done`);
      for (const result of results) {
        const { hash, lossSum, correct, samples } = result;
        const expected = this.#expected.sums[step];
        if (samples !== expected.samples || lossSum !== expected.lossSum || correct !== expected.correct) {
          throw new Error(`step ${step + 1} counted ${samples} samples of ${expected.samples}`);
        }
        if (hash !== this.#expected.hashes[step]) throw new Error(`step ${step + 1} has another hash`);
        step++;
      }
      if (this.#random.chance(0.5)) this.#checkpoint = cluster.state();
    }
    if (!process.isAlive) return;
    this.#isDone = true;
  }

  async #evaluate(cluster: Cluster): Promise<void> {
    for (const set of ['train', 'test'] as const) {
      const sums = await cluster.evaluate(set);
      const expected = expectedEvaluation(this.#job, this.#dataset, cluster.state(), set);
      for (const key of ['samples', 'lossSum', 'correct'] as const) {
        if (sums?.[key] !== expected[key]) throw new Error(`the evaluation (${set}) has another ${key}`);
      }
    }
  }

  /** With LOCKSTEP_SIMULATION_TRACE, what happens, on the error output. */
  #trace(text: string): void {
    if (isTraced) console.error(`${this.#world.nowMs.toFixed(2).padStart(10)} ${text}`);
  }

  #onEvent(event: RunEventBody): void {
    if (event.type !== 'node') this.#trace(JSON.stringify(event));
    if (event.type !== 'node') this.#told.push(event);
    const isExpected = this.#options.wrong !== undefined;
    if (event.type === 'warning' && !isExpected) this.#fail(new Error(`a warning: ${event.message}`));
    if (!isExpected && 'reason' in event && complaints.test(event.reason)) {
      this.#fail(new Error(`${event.type}: ${event.reason}`));
    }
  }

  #fail(error: unknown): void {
    this.#failure ??= error;
  }

  // --- agents

  #startAgent(agent: SimulatedAgent): void {
    const { name, threads, laneMs, cached, process } = agent;
    const random = this.#random.fork(`${name} ${agent.id} ${this.#world.nowMs}`);
    const stop = new AbortController();
    agent.stop = stop;
    void runAgent({
      connect: () => this.#connect(agent, process),
      clock: process.clock,
      random: () => random.uniform(0, 1),
      name,
      threads,
      version: 'simulated',
      retryMs: Infinity,
      engines: [{ engine: 'wasm', profile: 'stand-in-1' }],
      createNode: async job => this.#spoiled(agent, new StandInAgentNode(process, threads, laneMs, job)),
      check: async () => {
        await new Promise<void>(resolve => process.clock.after(5, resolve));
        const isWrong = this.#options.wrong === 'digests' && agent === this.#agents[0];
        const digests: [string, string, string] = isWrong ? ['f'.repeat(16), ...rest] : checkDigests;
        return { profile: 'stand-in-1', digests, leafMs: laneMs, shortMs: laneMs };
      },
      cache: {
        get: async (digest): Promise<Uint8Array<ArrayBuffer> | undefined> => cached.get(digest),
        put: async (digest, bytes) => void cached.set(digest, new Uint8Array(bytes)),
      },
      onStatus: ({ text }) => this.#trace(`${name} ${agent.id.slice(0, 4)}: ${text}`),
      signal: stop.signal,
    }).catch((error: unknown) => {
      const isRefused = error instanceof LockstepError && error.code === 'LOCKSTEP_PROFILE';
      if (process.isAlive && !this.#isDone && !(isRefused && this.#options.wrong === 'digests'))
        this.#fail(error);
    });
  }

  /** The node of an agent that does something wrong, if it is meant to. */
  #spoiled(agent: SimulatedAgent, node: AgentNode): AgentNode {
    const { wrong } = this.#options;
    if (wrong === undefined || (agent !== this.#agents[0] && wrong !== 'bad leaf everywhere')) return node;
    const compute = node.compute.bind(node);
    node.compute = async (task, lanes) => {
      const sums = await compute(task, lanes);
      if (task.kind !== 'gradient' || task.step < 3 || (this.#isWrongDone && wrong !== 'bad leaf everywhere'))
        return sums;
      this.#isWrongDone = true;
      if (wrong === 'sum') {
        sums.gradient[1] += 2 ** -36;
        return sums;
      }
      throw new LockstepError('LOCKSTEP_BAD_LEAF', `lane ${lanes.from} is bad`);
    };
    return node;
  }

  #connect(agent: SimulatedAgent, process: Process): Promise<End> {
    return new Promise((resolve, reject) => {
      process.clock.after(HANDSHAKE_MS, () => {
        const coordinator = this.#coordinator;
        if (!coordinator.isAlive) return reject(new Error('connection refused'));
        const { delayMs, bytesPerMs } = agent;
        const link = new Link(this.#world, process, coordinator, { delayMs, bytesPerMs });
        agent.end = link.a;
        this.#watch(agent, link);
        const cluster = this.#cluster;
        this.#world.at(this.#world.nowMs, coordinator, () => cluster.accept(link.b, agent.id), 'frame');
        resolve(link.a);
      });
    });
  }

  /** Counts the lanes that the agent owes: never more than a step has, or leases pile up. */
  #watch(agent: SimulatedAgent, { a, b }: Link): void {
    let lanesOwed = 0;
    spyOn(a, frame => {
      const message = decode(frame, 'coordinator', MAX_FRAME_BYTES);
      if (message.type === 'sum') agent.sums.push(Uint8Array.from(frame));
      if (message.type === 'sum' || message.type === 'bad-leaf') {
        lanesOwed -= message.part.to - message.part.from;
      }
    });
    spyOn(b, frame => {
      const message = decode(frame, 'agent', MAX_FRAME_BYTES);
      if (message.type !== 'lease') return;
      for (const { from, to } of message.parts) lanesOwed += to - from;
      if (lanesOwed > this.#job.lanes) {
        this.#fail(new Error(`${agent.name} owes ${lanesOwed} lanes of ${this.#job.lanes}`));
      }
    });
  }

  // --- faults

  #planFault(): void {
    const total = Object.values(this.#faults).reduce((sum, count) => sum + count, 0);
    if (total >= MOST_FAULTS || this.#isDone || this.#allowed.length === 0) return;
    // A coordinator that hangs is left to come back: what goes wrong meanwhile goes wrong with nothing at work.
    const fromMs = Math.max(this.#world.nowMs, this.#coordinator.frozenUntilMs);
    this.#world.at(fromMs + this.#random.uniform(1, 25), undefined, () => {
      if (!this.#isDone) this.#strike();
      this.#planFault();
    });
  }

  #strike(): void {
    const random = this.#random;
    // Half of the faults look for somebody who owes a part of the step.
    const owing = this.#agents.filter(({ id }) => this.#cluster.lanesOwed(id) > 0);
    const agent = random.pick(owing.length > 0 && random.chance(0.5) ? owing : this.#agents);
    const { end } = agent;
    const isConnected = end !== undefined && end.link.isOpen && agent.process.isAlive;
    const fault = random.pick(this.#allowed);
    const count = (): void => {
      this.#faults[fault]++;
      this.#trace(`fault: ${fault} ${agent.name}`);
    };
    const nowMs = this.#world.nowMs;
    const owes = (): boolean => this.#cluster.lanesOwed(agent.id) > 0;
    const path = (): End => (random.chance(0.5) ? end! : end!.peerEnd);
    if (fault === 'coordinator stalled') {
      if (this.#faults[fault] >= 2 && this.#allowed.length > 1) return;
      count();
      return this.#coordinator.freeze(random.uniform(20, 2000));
    }
    if (fault === 'coordinator killed') {
      if (this.#faults[fault] >= 2 || !this.#coordinator.isAlive) return;
      count();
      return this.#restartCoordinator();
    }
    if (!isConnected) return;
    switch (fault) {
      case 'agent killed':
        count();
        if (owes()) this.#lostInStep++;
        return this.#restartAgent(agent, random.uniform(5, 200));
      case 'agent frozen':
        count();
        return agent.process.freeze(random.uniform(20, 3000));
      case 'agent left':
        count();
        if (owes()) this.#lostInStep++;
        agent.stop.abort();
        this.#world.at(nowMs + random.uniform(20, 200), undefined, () => this.#restartAgent(agent, 1));
        return;
      case 'link cut':
        count();
        if (owes()) this.#lostInStep++;
        return end.link.cut('the link was cut');
      case 'link stalled':
        count();
        end.stall(random.uniform(20, 3000));
        end.peerEnd.stall(random.uniform(20, 3000));
        return;
      case 'link stalled one way':
        count();
        path().stall(random.uniform(20, 3000));
        return;
      case 'link slowed': {
        count();
        const slowed = path().path;
        slowed.bytesPerMs = agent.bytesPerMs / 100;
        this.#world.at(nowMs + random.uniform(50, 500), undefined, () => {
          slowed.bytesPerMs = agent.bytesPerMs;
        });
        return;
      }
      case 'frame corrupted':
        path().path.tampering.push(frame => {
          count();
          const damaged = Uint8Array.from(frame);
          damaged[random.integer(damaged.length)] ^= 1 << random.integer(8);
          return [{ frame: damaged, extraMs: 0 }];
        });
        return;
      case 'answer late':
        return this.#tamper(end, frame => {
          count();
          return [{ frame, extraMs: random.uniform(50, 2500) }];
        });
      case 'answer twice':
        return this.#tamper(end, frame => {
          count();
          return [
            { frame, extraMs: 0 },
            { frame, extraMs: random.chance(0.5) ? 0 : random.uniform(1, 300) },
          ];
        });
      case 'answers out of order':
        return this.#tamper(end, frame => {
          count();
          return [{ frame, extraMs: random.uniform(1, 40) }];
        });
      case 'answer from stale weights':
        return this.#tamper(end, frame => {
          count();
          return [
            { frame: stale(frame, agent.sums, random), extraMs: 0 },
            { frame, extraMs: 0 },
          ];
        });
    }
  }

  /** Does it to the next sum, whatever else is sent before. */
  #tamper(end: End, change: (frame: Uint8Array) => { frame: Uint8Array; extraMs: number }[]): void {
    const wait = (frame: Uint8Array) => {
      if (isSum(frame)) return change(frame);
      end.path.tampering.unshift(wait);
      return [{ frame, extraMs: 0 }];
    };
    end.path.tampering.push(wait);
  }

  #restartAgent(agent: SimulatedAgent, afterMs: number): void {
    agent.process.kill();
    agent.end = undefined;
    this.#world.at(this.#world.nowMs + afterMs, undefined, () => {
      agent.process = new Process(this.#world, this.#random.uniform(0, 1e6));
      if (this.#random.chance(0.5)) agent.id = this.#drawId();
      if (this.#random.chance(0.3)) agent.cached.clear();
      agent.sums.length = 0;
      this.#startAgent(agent);
    });
  }

  #restartCoordinator(): void {
    this.#coordinator.kill();
    this.#world.at(this.#world.nowMs + this.#random.uniform(10, 500), undefined, () => {
      this.#coordinator = new Process(this.#world, this.#random.uniform(0, 1e6));
      this.#startCoordinator();
    });
  }

  // --- the end

  async #checkEnd(): Promise<void> {
    const cluster = this.#cluster;
    this.#parts = cluster.nodeReports().reduce((sum, { parts }) => sum + parts, 0);
    const hash = cluster.state().hash;
    if (hash !== this.#expected.hashes.at(-1)) throw new Error('another hash at the end');
    // Whoever hangs comes back and answers; then nothing is owed.
    const deadlineMs = this.#world.nowMs + 120_000;
    await this.#world.run(() => cluster.openLeases === 0 || this.#world.nowMs > deadlineMs, LIMIT_MS);
    if (cluster.openLeases > 0) {
      throw new Error(`${cluster.openLeases} leases are left: ${JSON.stringify(cluster.nodeReports())}`);
    }
    for (const agent of this.#agents) {
      const most = agent.end?.peerEnd.mostBufferedBytes ?? 0;
      if (most > 1_000_000) throw new Error(`${most} bytes were buffered for ${agent.name}`);
    }
    await this.#isClosed(cluster);
  }

  async #isClosed(cluster: Cluster): Promise<void> {
    let isClosed = false;
    void cluster.close(true).then(() => (isClosed = true));
    await this.#world.run(() => isClosed, LIMIT_MS);
  }
}

/** What nobody says of anybody here, whatever the network does. */
const complaints = /broke the protocol|known leaves|keep to the protocol|makes no sense/;

const rest: [string, string] = ['1'.repeat(16), '2'.repeat(16)];
const checkDigests: [string, string, string] = ['0'.repeat(16), ...rest];

/** Shows whatever is sent from this end. */
function spyOn(end: End, look: (frame: Uint8Array) => void): void {
  const send = end.send.bind(end);
  end.send = (...frames) => {
    frames.forEach(look);
    send(...frames);
  };
}

function isSum(frame: Uint8Array): boolean {
  return decode(frame, 'coordinator', MAX_FRAME_BYTES).type === 'sum';
}

/** A sum as a node gives it that missed an update, or that took another's: one of before, or with other weights. */
function stale(frame: Uint8Array, earlier: readonly Uint8Array[], random: Random): Uint8Array {
  if (earlier.length > 1 && random.chance(0.5)) return earlier[random.integer(earlier.length - 1)];
  const message = decode(frame, 'coordinator', MAX_FRAME_BYTES);
  if (message.type !== 'sum') throw new Error('no sum');
  return encode({ ...message, weights: sha256(String(random.word())).slice(0, 16), lossSum: 0 });
}

// What an agent keeps while connections come and go: its job, the node that computes it, and the shards in the node.

import { copyNumbers } from '../shared/codec.js';
import { SumsPacker } from '../shared/packed-sums.js';
import type { LeafJob, Numerics } from '../shared/leaf-job.js';
import type { MessageOf } from '../shared/messages.js';
import type { AgentNode, Lanes, PartSums, Task } from '../shared/node.js';
import type { AgentJob } from './agent-job.js';

export interface NodeMaker {
  /** Starts the pool. @throws LOCKSTEP_MEMORY, LOCKSTEP_BUILD, LOCKSTEP_THREAD_DIES */
  readonly createNode: (job: LeafJob) => Promise<AgentNode>;
  /** Computes the known leaves. @throws as `createNode` */
  readonly check: (job: LeafJob) => Promise<Numerics>;
}

export class HeldJob {
  readonly job: AgentJob;
  readonly #maker: NodeMaker;
  /** Indexes of the shards that the node holds. */
  readonly #held = new Set<number>();
  #checking: Promise<Numerics> | undefined;
  #opening: Promise<AgentNode> | undefined;
  #node: AgentNode | undefined;
  readonly packer: SumsPacker;
  /** Weights on their way into the node. */
  readonly #numbers: Float32Array;
  /** Those in the node. */
  #weights: MessageOf<'weights'> | undefined;
  /** What is being computed, perhaps for a connection that is gone: it cannot be ended, and a node does one at a time. */
  #atWork: Promise<unknown> | undefined;
  #closing: Promise<void> | undefined;

  constructor(job: AgentJob, maker: NodeMaker) {
    this.job = job;
    const { parameterCount } = job.leafJob.model;
    this.packer = new SumsPacker(parameterCount);
    this.#numbers = new Float32Array(parameterCount);
    this.#maker = maker;
  }

  check(): Promise<Numerics> {
    return (this.#checking ??= this.#maker.check(this.job.leafJob));
  }

  /** Starts the node when first called. */
  async open(): Promise<void> {
    this.#opening ??= this.#maker.createNode(this.job.leafJob);
    this.#node = await this.#opening;
  }

  holds(index: number): boolean {
    return this.#held.has(index);
  }

  /** Puts a shard into the open node. */
  load(index: number, bytes: Uint8Array): void {
    const { set, from, samples } = this.job.shards[index];
    this.#node!.loadShard(set, from, samples, bytes);
    this.#held.add(index);
  }

  /** Settles, and never rejects, when the node has nothing to compute. */
  async idle(): Promise<void> {
    await this.#atWork;
  }

  /** Computes with the open and idle node. What it gives is valid until the next call. */
  compute(weights: MessageOf<'weights'>, task: Task, lanes: Lanes): Promise<PartSums> {
    const node = this.#node!;
    if (this.#weights !== weights) {
      copyNumbers(weights.data, this.#numbers);
      node.setWeights(weights.step, this.#numbers);
    }
    this.#weights = weights;
    const computing = node.compute(task, lanes);
    this.#atWork = computing.catch(() => {});
    return computing;
  }

  /** Ends the node, whatever it is doing, and waits for that. */
  close(): Promise<void> {
    return (this.#closing ??= this.#close());
  }

  async #close(): Promise<void> {
    // What fails here has been told to the session that asked for it, or was asked for by none that is left.
    await this.#checking?.catch(() => {});
    const node = await this.#opening?.catch(() => undefined);
    await node?.close();
  }
}

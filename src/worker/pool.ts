// The pool: what computes on a node, the coordinator's own or an agent's. Holds the memory and has its crew execute
// commands on it. One that was stopped, since a thread was lost, is given again: a span goes on from the last published
// step, anything else begins anew.

import type { Dataset, SetName } from '../shared/dataset.js';
import { LockstepError } from '../shared/errors.js';
import { gradientBound } from '../shared/exact-sum.js';
import type { ThreadReport } from '../shared/events.js';
import { leafJobOf, type LeafJob } from '../shared/leaf-job.js';
import {
  initialState,
  type AgentNode,
  type Evaluated,
  type Lanes,
  type LocalNode,
  type NodeState,
  type PartSums,
  type StepResult,
  type Sums,
  type Task,
} from '../shared/node.js';
import type { UpdateScalars } from '../shared/optimizer.js';
import { datasetOrder, laneStart, Schedule } from '../shared/schedule.js';
import type { Job, OptimizerConfig } from '../shared/settings.js';
import { sizeOf } from '../shared/shape.js';
import { OwnThread, ThreadCrew, type Crew, type CrewOptions } from './crew.js';
import type { TensorflowPlace } from './engines/tensorflow/runtime.js';
import { loadKernelModule } from './kernels.js';
import {
  commands,
  control,
  createMemory,
  failures,
  planMemory,
  setNames,
  SPAN_LIMIT,
  STEP_NUMBERS,
  stepField,
  threadNumber,
  viewMemory,
  type MemoryPlan,
  type Views,
} from './memory.js';
import { stopAll } from './thread.js';

/** How long a thread spins at a barrier: leaves end within some tens of microseconds of each other. */
const SPIN_MS = 0.035;

const bankVectors = ['weights', 'first', 'second'] as const;

interface ThreadOptions extends CrewOptions {
  readonly threads: number;
  /** Cores of the machine: threads spin at barriers only if each has one. */
  readonly cores: number;
  readonly onWarning: (message: string) => void;
  /** Where the job's engine is `tensorflow`. */
  readonly tensorflow?: TensorflowPlace | undefined;
}

export interface PoolOptions extends ThreadOptions {
  readonly job: Job;
  readonly dataset: Dataset;
  /** Of 0, the thread that asks does the updates: then `train`, `evaluate`, `compute` and `race` throw. */
  readonly threads: number;
  /** What training begins from; by default the job's initial weights. */
  readonly state?: NodeState | undefined;
  /** Whether evaluations of the test set give the logits of every sample too. */
  readonly keepsLogits?: boolean;
}

export interface AgentNodeOptions extends ThreadOptions {
  readonly job: LeafJob;
  /** What messages call this node, such as `node alpha`. */
  readonly name: string;
  /** Where there is one thread: it is the one that asks, which is then kept from all else for a leaf at a time. */
  readonly inThisThread?: boolean;
}

/**
 * The coordinator's own node.
 * @throws LOCKSTEP_MEMORY, LOCKSTEP_BUILD, LOCKSTEP_THREAD_DIES
 */
export async function createPool(options: PoolOptions): Promise<LocalNode> {
  const { job, dataset, threads, state = initialState(job), keepsLogits = false } = options;
  const leafJob = leafJobOf(job, dataset);
  const { model, leaf } = leafJob;
  const plan =
    threads === 0
      ? { model, threads: 1, leaf, samples: { train: 0, test: 0 } }
      : { model, threads, leaf, samples: leafJob.samples, keepsLogits };
  const name = "the coordinator's node";
  const { optimizer } = job.bits;
  const pool = new Pool({ ...options, job: leafJob, name }, plan, { inThisThread: threads === 0, optimizer });
  if (threads > 0) pool.loadDataset(dataset);
  pool.setState(state);
  await pool.open();
  return pool;
}

/**
 * An agent's node. Before its first part it needs weights, and the samples under the part's lanes.
 * @throws LOCKSTEP_MEMORY, LOCKSTEP_BUILD, LOCKSTEP_THREAD_DIES
 */
export async function createAgentNode(options: AgentNodeOptions): Promise<AgentNode> {
  const { threads, job, inThisThread = false } = options;
  const { model, leaf, samples } = job;
  if (inThisThread && threads !== 1) throw new Error(`one thread cannot be ${threads}`);
  const pool = new Pool(options, { model, threads, leaf, samples }, { inThisThread });
  await pool.open();
  return pool;
}

/** Copies the training set in the dataset's order, the test set as it is. */
export function loadDataset({ digest, shape, train, test }: Dataset, sets: Views['sets']): void {
  const size = sizeOf(shape);
  for (const [position, sample] of datasetOrder(digest, train.labels.length).entries()) {
    sets.train.images.set(train.images.subarray(sample * size, (sample + 1) * size), position * size);
    sets.train.labels[position] = train.labels[sample];
  }
  sets.test.images.set(test.images);
  sets.test.labels.set(test.labels);
}

class Pool implements LocalNode, AgentNode {
  readonly threads: number;
  readonly spanLimit = SPAN_LIMIT;
  readonly #options: AgentNodeOptions;
  readonly #views: Views;
  readonly #plan: MemoryPlan;
  readonly #schedule: Schedule;
  readonly #crew: Crew;
  /** The hash after the last step that `train` or `update` returned. */
  #hash = 0n;
  /** Whether what is at work ends with `cut`. */
  #isCuttable = false;

  /** `inThisThread`: whoever asks computes, as the plan's only thread. */
  constructor(
    options: AgentNodeOptions,
    plan: MemoryPlan,
    { inThisThread = false, optimizer }: { inThisThread?: boolean; optimizer?: OptimizerConfig },
  ) {
    const { job, threads, cores } = options;
    const { samples, seed, batch, leaf } = job;
    const layout = planMemory(plan);
    const memory = createMemory(layout);
    this.threads = threads;
    this.#options = options;
    this.#plan = plan;
    this.#views = viewMemory(memory, layout, plan);
    this.#schedule = new Schedule({ samples: samples.train, seed, batch, leaf });
    const spinMs = threads <= cores ? SPIN_MS : 0;
    const { tensorflow } = options;
    const task = {
      memory,
      kernelModule: loadKernelModule(),
      layout,
      plan,
      job,
      optimizer,
      spinMs,
      tensorflow,
      onlyUpdates: threads === 0,
    };
    this.#crew = inThisThread ? new OwnThread(task, options) : new ThreadCrew(task, options);
  }

  open(): Promise<void> {
    return this.#crew.open();
  }

  loadDataset(dataset: Dataset): void {
    loadDataset(dataset, this.#views.sets);
  }

  loadShard(set: SetName, fromPosition: number, samples: number, bytes: Uint8Array): void {
    const { images, labels } = this.#views.sets[set];
    const size = sizeOf(this.#plan.model.input);
    if (bytes.length !== samples * (size + 1)) {
      throw new Error(`${samples} samples of ${size} bytes and a label are not ${bytes.length} bytes`);
    }
    images.set(bytes.subarray(0, samples * size), fromPosition * size);
    labels.set(bytes.subarray(samples * size), fromPosition);
  }

  setState({ step, hash, bank }: NodeState): void {
    const { control: words, banks } = this.#views;
    for (const name of bankVectors) banks[step & 1][name].set(bank[name]);
    words[control.published] = step;
    this.#hash = hash;
  }

  setWeights(step: number, weights: Float32Array): void {
    const { control: words, banks } = this.#views;
    banks[step & 1].weights.set(weights);
    words[control.published] = step;
  }

  weights(): Float32Array {
    const { control: words, banks } = this.#views;
    const { weights } = banks[words[control.published] & 1];
    return weights.subarray(0, this.#plan.model.parameterCount);
  }

  async compute({ kind, set, step }: Task, lanes: Lanes): Promise<PartSums> {
    this.#expectStep(step);
    this.#mayBeCut(false);
    if (kind === 'evaluate') return { ...(await this.#evaluate(set, lanes)), gradient: new Float64Array() };
    const { control: words, sums } = this.#views;
    await this.#finish(commands.gradient, () => {
      words[control.firstStep] = step;
      words[control.nextLeaf] = lanes.from;
      words[control.end] = lanes.to;
    });
    const samples = this.#schedule.samplesInStep(step, lanes.from, lanes.to);
    return { ...this.#sumsOverThreads(), samples, gradient: sums };
  }

  async train(firstStep: number, scalars: readonly UpdateScalars[]): Promise<StepResult[]> {
    this.#mayBeCut(true);
    await this.#advance(commands.train, firstStep, scalars);
    const { control: words, steps } = this.#views;
    return Array.from({ length: words[control.published] - firstStep }, (_, index) => {
      const at = (index + 1) * STEP_NUMBERS;
      return {
        lossSum: steps[at + stepField.lossSum],
        correct: steps[at + stepField.correct],
        samples: steps[at + stepField.samples],
        hash: this.#hashAfter(index + 1),
      };
    });
  }

  async update(step: number, scalars: UpdateScalars, sums: PartSums): Promise<StepResult> {
    const { lossSum, correct, samples, gradient } = sums;
    const expected = this.#schedule.samplesInStep(step);
    if (samples !== expected)
      throw new Error(`step ${step} has ${expected} samples, its sums are of ${samples}`);
    this.#mayBeCut(false);
    if (gradient !== this.#views.sums) this.#views.sums.set(gradient);
    await this.#advance(commands.update, step, [scalars]);
    return { lossSum, correct, samples, hash: this.#hash };
  }

  /** Does steps, as many as there are scalars, from wherever the last published one leaves them. */
  async #advance(kind: number, firstStep: number, scalars: readonly UpdateScalars[]): Promise<void> {
    const { control: words } = this.#views;
    this.#expectStep(firstStep);
    this.#setSteps(firstStep, scalars);
    await this.#finish(kind, () => {
      words[control.firstStep] = Atomics.load(words, control.published);
      words[control.endStep] = firstStep + scalars.length;
    });
    this.#hash = this.#hashAfter(words[control.published] - firstStep);
  }

  #expectStep(step: number): void {
    const present = this.#views.control[control.published];
    if (step !== present) throw new Error(`the weights are those of step ${present}, not of step ${step}`);
  }

  #hashAfter(stepsOfSpan: number): bigint {
    return this.#views.hashes[stepsOfSpan * STEP_NUMBERS + stepField.hash];
  }

  #mayBeCut(isCuttable: boolean): void {
    this.#views.control[control.cut] = 0;
    this.#isCuttable = isCuttable;
  }

  /** Gives a command until it is done with all threads alive and nothing bad, or was cut. */
  async #finish(kind: number, setArguments: () => void): Promise<void> {
    const { control: words } = this.#views;
    let failedBefore = '';
    for (let isOver = false; !isOver;) {
      const publishedBefore = Atomics.load(words, control.published);
      await this.#perform(kind, setArguments);
      isOver = words[control.stop] === 0;
      if (isOver || Atomics.load(words, control.published) > publishedBefore) this.#crew.noteProgress();
      // A cut leaves the rest of an evaluation uncomputed, and says nothing of what was bad before.
      const isWhole = isOver && (kind !== commands.evaluate || words[control.cut] === 0);
      failedBefore = this.#checkFailure(failedBefore, isWhole);
    }
  }

  #perform(kind: number, setArguments: () => void): Promise<void> {
    if (this.threads === 0 && kind !== commands.update)
      throw new Error('a node without threads only updates');
    return this.#crew.perform(kind, setArguments);
  }

  /** Fills the step table for a span. */
  #setSteps(firstStep: number, scalars: readonly UpdateScalars[]): void {
    const { control: words, steps, hashes } = this.#views;
    words[control.tableStep] = firstStep;
    hashes[stepField.hash] = this.#hash;
    for (const [index, { stepSize, secondMomentScale, decayFactor }] of scalars.entries()) {
      const at = (index + 1) * STEP_NUMBERS;
      steps[at + stepField.samples] = this.#schedule.samplesInStep(firstStep + index);
      steps[at + stepField.stepSize] = stepSize;
      steps[at + stepField.secondMomentScale] = secondMomentScale;
      steps[at + stepField.decayFactor] = decayFactor;
    }
  }

  async race(firstStep: number, scalars: readonly UpdateScalars[], durationMs: number): Promise<number> {
    const { control: words, banks } = this.#views;
    const held = this.state().bank;
    const before = this.reports();
    let stopTimer: (() => void) | undefined;
    this.#setSteps(firstStep, scalars);
    try {
      await this.#perform(commands.race, () => {
        words[control.firstStep] = firstStep;
        words[control.endStep] = firstStep + scalars.length;
        stopTimer = this.#options.clock.every(durationMs, () => stopAll(words));
      });
    } finally {
      stopTimer?.();
    }
    for (const name of bankVectors) banks[words[control.published] & 1][name].set(held[name]);
    const samplesInSpan = scalars.reduce((sum, _, i) => sum + this.#schedule.samplesInStep(firstStep + i), 0);
    const samplesInLeaf = samplesInSpan / (scalars.length * this.#schedule.lanes);
    return this.reports().reduce((rate, { leaves, busyMs }, thread) => {
      const doneLeaves = leaves - before[thread].leaves;
      return doneLeaves === 0
        ? rate
        : rate + (doneLeaves * samplesInLeaf * 1000) / (busyMs - before[thread].busyMs);
    }, 0);
  }

  async evaluate(set: SetName): Promise<Evaluated | undefined> {
    this.#mayBeCut(true);
    const sums = await this.#evaluate(set, { from: 0, to: this.#schedule.lanes });
    const { control: words, logits } = this.#views;
    if (words[control.cut] !== 0) return undefined;
    return { ...sums, ...(set === 'test' && this.#plan.keepsLogits && { logits: logits.slice() }) };
  }

  async #evaluate(set: SetName, { from, to }: Lanes): Promise<Sums> {
    const { control: words } = this.#views;
    const [first, end] = [from, to].map(lane =>
      laneStart(lane, this.#schedule.lanes, this.#plan.samples[set]),
    );
    await this.#finish(commands.evaluate, () => {
      words[control.set] = setNames.indexOf(set);
      words[control.nextLeaf] = first;
      words[control.end] = end;
    });
    return { ...this.#sumsOverThreads(), samples: end - first };
  }

  #sumsOverThreads(): Pick<Sums, 'lossSum' | 'correct'> {
    const total = (number: number): number =>
      this.#views.threads.reduce((sum, { numbers }) => sum + numbers[number], 0);
    return { lossSum: total(threadNumber.lossSum), correct: total(threadNumber.correct) };
  }

  cut(): void {
    if (this.#isCuttable) Atomics.store(this.#views.control, control.cut, 1);
  }

  state(): NodeState {
    const { control: words, banks } = this.#views;
    const step = words[control.published];
    const { weights, first, second } = banks[step & 1];
    return {
      step,
      hash: this.#hash,
      bank: { weights: weights.slice(), first: first.slice(), second: second.slice() },
    };
  }

  reports(): ThreadReport[] {
    return this.#views.threads.slice(0, this.threads).map(({ numbers }, thread) => {
      const computeMs = numbers[threadNumber.computeMs];
      const reduceMs = numbers[threadNumber.reduceMs];
      const updateMs = numbers[threadNumber.updateMs];
      return {
        thread,
        leaves: numbers[threadNumber.leaves],
        busyMs: computeMs + reduceMs + updateMs,
        computeMs,
        reduceMs,
        updateMs,
        waitMs: numbers[threadNumber.waitMs],
      };
    });
  }

  close(): Promise<void> {
    return this.#crew.close();
  }

  /** A step that fails is tried again once; if it fails again, it is true. Gives what to compare the next with. */
  #checkFailure(failedBefore: string, isOver: boolean): string {
    const { control: words } = this.#views;
    const kind = words[control.failure];
    if (kind === failures.none) {
      if (failedBefore === '' || !isOver) return failedBefore;
      this.#options.onWarning(
        'A result was bad once and good when computed again. The run goes on with the good one, ' +
          'but its memory or processor may be failing.',
      );
      return '';
    }
    const step = words[control.failureStep];
    const lane = words[control.failureLane];
    const failed = `${kind} ${step}`;
    if (failed !== failedBefore) return failed;
    const advice = 'Lower the learning rate (--lr)';
    if (kind === failures.badWeights) {
      throw new LockstepError(
        'LOCKSTEP_BAD_WEIGHTS',
        `The update of step ${step + 1} gives weights that are not finite numbers. ${advice}.`,
      );
    }
    const tensor = this.#plan.model.tensors[words[control.failureTensor]];
    const { lanes } = this.#schedule;
    const where = lane < 0 ? `Evaluation after step ${step}` : `Step ${step + 1}, lane ${lane}`;
    throw new LockstepError(
      'LOCKSTEP_BAD_LEAF',
      `${where}, computed twice on ${this.#options.name} (thread ${words[control.failureThread]}): ` +
        `${tensor ? `layer ${tensor.name.split('.')[0]} (${tensor.name})` : 'the loss'} is not a finite number ` +
        `or too large to be summed exactly (a gradient may reach ${gradientBound(lanes)} with ${lanes} lanes). ` +
        `${advice}, or use fewer lanes (a larger --leaf).`,
    );
  }
}

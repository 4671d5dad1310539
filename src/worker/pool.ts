// The pool: the coordinator's own node. Starts the threads, gives them spans of steps, replaces those that are lost.
//
// The main thread never blocks: it writes a command into the shared memory, and threads tell it by a message when they
// have parked. If one dies or hangs, all others are made to park, its end is awaited, a replacement is started, and
// the span goes on from the last published step.

import { once } from 'node:events';
import { MessageChannel, type MessagePort, type Worker } from 'node:worker_threads';
import { Piscina } from 'piscina';
import type { Clock } from '../shared/clock.js';
import type { Dataset, SetName } from '../shared/dataset.js';
import { LockstepError, messageOf } from '../shared/errors.js';
import { gradientBound } from '../shared/exact-sum.js';
import type { ThreadReport } from '../shared/events.js';
import { phases, type Fault } from '../shared/faults.js';
import { sizeOf } from '../shared/shape.js';
import {
  initialState,
  type Evaluated,
  type LocalNode,
  type LostThread,
  type NodeState,
  type StepResult,
} from '../shared/node.js';
import type { UpdateScalars } from '../shared/optimizer.js';
import { datasetOrder, Schedule } from '../shared/schedule.js';
import type { Job } from '../shared/settings.js';
import { loadKernelModule } from './kernels.js';
import {
  commands,
  control,
  createMemory,
  failures,
  IDLE_PHASE,
  planMemory,
  setNames,
  SPAN_LIMIT,
  STEP_NUMBERS,
  stepField,
  threadNumber,
  threadWord,
  viewMemory,
  type Views,
} from './memory.js';
import { stopAll, type ThreadMessage, type ThreadTask } from './thread.js';

/** A thread that computes without a sign of life for this many ticks of the watchdog has hung. */
const WATCHDOG_PERIOD_MS = 250;
const HUNG_TICKS = 20;
/** A thread may take so many ticks to start. */
const START_TICKS = 240;
/** Losses in a row, with no step or evaluation finished in between, that end the run. */
const LOSS_LIMIT = 5;
/** How long a thread spins at a barrier: leaves end within some tens of microseconds of each other. */
const SPIN_MS = 0.035;

const bankVectors = ['weights', 'first', 'second'] as const;

export interface PoolOptions {
  readonly job: Job;
  readonly dataset: Dataset;
  readonly threads: number;
  /** What training begins from; by default the job's initial weights. */
  readonly state?: NodeState | undefined;
  /** Cores of the machine: threads spin at barriers only if each has one. */
  readonly cores: number;
  readonly clock: Clock;
  /** Whether evaluations of the test set give the logits of every sample too. */
  readonly keepsLogits?: boolean;
  readonly fault?: Fault | undefined;
  readonly onThreadLost: (lost: LostThread) => void;
  readonly onWarning: (message: string) => void;
}

/** The thread that runs in a slot now. */
interface Incarnation {
  readonly thread: number;
  readonly port: MessagePort;
  readonly controller: AbortController;
  /** Set when it is ready. */
  worker?: Worker;
  /** The last command after which it parked. */
  parkedAfter: number;
  /** It is known to have failed; its end may still be awaited. */
  isLost: boolean;
  /** It is lost, and nothing of it writes to the memory any more. */
  isGone: boolean;
  /** Watchdog: the progress seen last, and ticks since it changed. */
  progress: number;
  quietTicks: number;
}

type ThreadTaskCommon = Omit<ThreadTask, 'thread' | 'port' | 'fault'>;

/** @throws LOCKSTEP_MEMORY, LOCKSTEP_BUILD, LOCKSTEP_THREAD_DIES */
export async function createPool(options: PoolOptions): Promise<LocalNode> {
  const { job, dataset, threads, keepsLogits = false } = options;
  const { model, normalization, bits } = job;
  const samples = { train: dataset.train.labels.length, test: dataset.test.labels.length };
  const plan = { model, threads, leaf: bits.leaf, samples, keepsLogits };
  const layout = planMemory(plan);
  const memory = createMemory(layout);
  const views = viewMemory(memory, layout, plan);
  loadDataset(dataset, views.sets);
  const { step, hash, bank } = options.state ?? initialState(job);
  for (const name of bankVectors) views.banks[step & 1][name].set(bank[name]);
  views.control[control.published] = step;
  const pool = new Pool(options, views, hash, {
    memory,
    kernelModule: loadKernelModule(),
    layout,
    plan,
    engine: job.settings.engine,
    profile: bits.profile,
    schedule: { samples: samples.train, seed: bits.seed, batch: bits.batch, leaf: bits.leaf },
    normalization,
    optimizer: bits.optimizer,
    spinMs: threads <= options.cores ? SPIN_MS : 0,
  });
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

class Pool implements LocalNode {
  readonly threads: number;
  readonly spanLimit = SPAN_LIMIT;
  readonly #options: PoolOptions;
  readonly #views: Views;
  readonly #task: ThreadTaskCommon;
  readonly #schedule: Schedule;
  readonly #piscina: Piscina;
  readonly #slots: Incarnation[] = [];
  readonly #stopWatching: () => void;
  /** The hash after the last step that `train` returned. */
  #hash: bigint;
  #isClosed = false;
  #lossesInARow = 0;
  #faultsLeft: number;
  /** Ends whatever is waited for. */
  #fatal: unknown;
  /** Looks again whether what is waited for has come true. */
  #look: () => void = () => {};

  constructor(options: PoolOptions, views: Views, hash: bigint, task: ThreadTaskCommon) {
    this.threads = options.threads;
    this.#options = options;
    this.#views = views;
    this.#task = task;
    this.#schedule = new Schedule(task.schedule);
    this.#hash = hash;
    this.#faultsLeft = options.fault?.times ?? 0;
    this.#piscina = new Piscina({
      filename: new URL('thread.js', import.meta.url).href,
      minThreads: this.threads,
      maxThreads: this.threads,
      idleTimeout: Infinity,
    });
    // What fails in a thread also rejects its task, and is handled there.
    this.#piscina.on('error', () => {});
    this.#stopWatching = options.clock.every(WATCHDOG_PERIOD_MS, () => this.#watch());
  }

  async open(): Promise<void> {
    for (let thread = 0; thread < this.threads; thread++) this.#start(thread);
    try {
      await this.#replaceLost();
    } catch (error) {
      await this.close();
      throw error;
    }
  }

  async train(firstStep: number, scalars: readonly UpdateScalars[]): Promise<StepResult[]> {
    const { control: words, steps, hashes } = this.#views;
    const endStep = firstStep + scalars.length;
    this.#setSteps(firstStep, scalars);
    let failedBefore = '';
    let step = firstStep;
    words[control.cut] = 0;
    for (let isOver = false; !isOver;) {
      await this.#command(commands.train, () => {
        words[control.firstStep] = step;
        words[control.endStep] = endStep;
      });
      isOver = words[control.stop] === 0;
      if (Atomics.load(words, control.published) > step) this.#lossesInARow = 0;
      step = Atomics.load(words, control.published);
      failedBefore = this.#checkFailure(failedBefore, isOver);
    }
    const results = Array.from({ length: step - firstStep }, (_, index) => {
      const at = (index + 1) * STEP_NUMBERS;
      return {
        lossSum: steps[at + stepField.lossSum],
        correct: steps[at + stepField.correct],
        samples: steps[at + stepField.samples],
        hash: hashes[at + stepField.hash],
      };
    });
    this.#hash = results.at(-1)?.hash ?? this.#hash;
    return results;
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
      await this.#command(commands.race, () => {
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
    const { control: words, threads, logits } = this.#views;
    let failedBefore = '';
    words[control.cut] = 0;
    for (let isDone = false; !isDone;) {
      await this.#command(commands.evaluate, () => {
        words[control.set] = setNames.indexOf(set);
      });
      isDone = words[control.stop] === 0;
      // A cut leaves the rest uncomputed, and says nothing of what was bad before.
      failedBefore = this.#checkFailure(failedBefore, isDone && words[control.cut] === 0);
    }
    this.#lossesInARow = 0;
    if (words[control.cut] !== 0) return undefined;
    const total = (number: number): number => threads.reduce((sum, { numbers }) => sum + numbers[number], 0);
    return {
      lossSum: total(threadNumber.lossSum),
      correct: total(threadNumber.correct),
      samples: this.#task.plan.samples[set],
      ...(set === 'test' && this.#task.plan.keepsLogits && { logits: logits.slice() }),
    };
  }

  cut(): void {
    Atomics.store(this.#views.control, control.cut, 1);
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
    return this.#views.threads.map(({ numbers }, thread) => {
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

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#stopWatching();
    const { control: words } = this.#views;
    words[control.kind] = commands.close;
    stopAll(words);
    this.#wakeThreads();
    await this.#piscina.destroy();
    for (const { port } of this.#slots) port.close();
    this.#fatal ??= new Error('The pool was closed while it was at work.');
    this.#look();
  }

  /** Gives all threads one command and waits until everyone has parked, or is gone. */
  async #command(kind: number, setArguments: () => void): Promise<void> {
    await this.#replaceLost();
    const { control: words } = this.#views;
    words[control.kind] = kind;
    words[control.stop] = 0;
    words[control.arrived] = 0;
    words[control.nextLeaf] = 0;
    words[control.failure] = failures.none;
    setArguments();
    this.#wakeThreads();
    const command = words[control.command];
    for (const slot of this.#slots) slot.quietTicks = 0;
    await this.#until(() =>
      this.#slots.every(slot => slot.isGone || (!slot.isLost && slot.parkedAfter === command)),
    );
  }

  #wakeThreads(): void {
    const { control: words } = this.#views;
    Atomics.add(words, control.command, 1);
    Atomics.notify(words, control.command);
  }

  /** Waits until every slot holds a thread that is ready, starting new ones for those that are gone. */
  async #replaceLost(): Promise<void> {
    await this.#until(() => {
      for (const { thread, isGone } of this.#slots) if (isGone) this.#start(thread);
      return this.#slots.every(slot => slot.worker !== undefined && !slot.isLost);
    });
  }

  /** Settles when `isDone` is true, which is looked at whenever something happens to a thread. */
  #until(isDone: () => boolean): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#look = () => {
        if (this.#fatal !== undefined) reject(this.#fatal);
        else if (isDone()) resolve();
      };
      this.#look();
    });
  }

  #start(thread: number): void {
    const { port1, port2 } = new MessageChannel();
    const controller = new AbortController();
    const { words, numbers } = this.#views.threads[thread];
    words.fill(0);
    numbers[threadNumber.lossSum] = 0;
    numbers[threadNumber.correct] = 0;
    const slot: Incarnation = {
      thread,
      port: port1,
      controller,
      parkedAfter: this.#views.control[control.command],
      isLost: false,
      isGone: false,
      progress: 0,
      quietTicks: 0,
    };
    this.#slots[thread] = slot;
    port1.on('message', (message: ThreadMessage) => {
      if (message.type === 'parked') slot.parkedAfter = message.command;
      else slot.worker = this.#piscina.threads.find(({ threadId }) => threadId === message.threadId)!;
      this.#look();
    });
    const { fault } = this.#options;
    const isFaulty = fault && this.#isMeant(thread) && this.#faultsLeft > 0;
    const task: ThreadTask = { ...this.#task, thread, port: port2, ...(isFaulty && { fault }) };
    this.#piscina
      .run(task, { transferList: [port2], signal: controller.signal })
      .catch((reason: unknown) => this.#onLost(slot, reason))
      .catch((error: unknown) => {
        this.#fatal = error;
        this.#look();
      });
  }

  #isMeant(thread: number): boolean {
    const { fault } = this.#options;
    return fault?.thread === 'any' || fault?.thread === thread;
  }

  async #onLost(slot: Incarnation, reason: unknown): Promise<void> {
    const { thread, worker, controller, port } = slot;
    if (this.#isClosed) return;
    slot.isLost = true;
    const { words } = this.#views.threads[thread];
    const phase = words[threadWord.phase];
    stopAll(this.#views.control);
    // A thread that piscina has dropped is ending; one that it kept has left our function and writes nothing more.
    if (worker && worker.threadId !== -1 && !this.#piscina.threads.includes(worker))
      await once(worker, 'exit');
    if (this.#isClosed) return;
    port.close();
    if (this.#isMeant(thread)) this.#faultsLeft--;
    this.#lossesInARow++;
    const text = controller.signal.aborted ? String(controller.signal.reason) : messageOf(reason);
    this.#options.onThreadLost({
      step: this.#views.control[control.published],
      thread,
      reason: text,
      phase: worker === undefined ? 'start' : phase === IDLE_PHASE ? 'idle' : phases[phase - 1],
    });
    if (this.#lossesInARow >= LOSS_LIMIT) {
      this.#fatal = new LockstepError(
        'LOCKSTEP_THREAD_DIES',
        `${LOSS_LIMIT} worker threads were lost in a row without a step being finished; ` +
          `the last was thread ${thread}: ${text}. If memory is short, use fewer workers.`,
        { cause: reason },
      );
    }
    slot.isGone = true;
    this.#look();
  }

  #watch(): void {
    const command = this.#views.control[control.command];
    for (const slot of this.#slots) {
      const { words } = this.#views.threads[slot.thread];
      const progress = Atomics.load(words, threadWord.progress);
      const isReady = slot.worker !== undefined;
      const isWaiting =
        Atomics.load(words, threadWord.waiting) === 1 || (isReady && slot.parkedAfter === command);
      const isAlive = isWaiting || slot.isLost || progress !== slot.progress;
      const limit = isReady ? HUNG_TICKS : START_TICKS;
      slot.quietTicks = isAlive ? 0 : slot.quietTicks + 1;
      slot.progress = progress;
      if (slot.quietTicks === limit) {
        const seconds = (limit * WATCHDOG_PERIOD_MS) / 1000;
        slot.controller.abort(`hung: no sign of life for ${seconds} s`);
      }
    }
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
    const tensor = this.#task.plan.model.tensors[words[control.failureTensor]];
    const { lanes } = this.#schedule;
    const where = lane < 0 ? `Evaluation after step ${step}` : `Step ${step + 1}, lane ${lane}`;
    throw new LockstepError(
      'LOCKSTEP_BAD_LEAF',
      `${where}, computed twice on the coordinator's node (thread ${words[control.failureThread]}): ` +
        `${tensor ? `layer ${tensor.name.split('.')[0]} (${tensor.name})` : 'the loss'} is not a finite number ` +
        `or too large to be summed exactly (a gradient may reach ${gradientBound(lanes)} with ${lanes} lanes). ` +
        `${advice}, or use fewer lanes (a larger --leaf).`,
    );
  }
}

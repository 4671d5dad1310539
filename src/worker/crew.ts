// Who executes the commands of a pool: threads, of which some may be lost, or the thread that asks.
//
// The main thread never blocks for threads: it writes a command into the shared memory, and they tell it by a message
// when they have parked. If one dies or hangs, all others are made to park, its end is awaited, and a replacement is
// started; what they were at is then given anew.

import { once } from 'node:events';
import { MessageChannel, type MessagePort, type Worker } from 'node:worker_threads';
import { Piscina } from 'piscina';
import { afterInput, type Clock } from '../shared/clock.js';
import { LockstepError, messageOf } from '../shared/errors.js';
import { phases, type Fault } from '../shared/faults.js';
import type { LostThread } from '../shared/node.js';
import {
  commands,
  control,
  failures,
  IDLE_PHASE,
  threadNumber,
  threadWord,
  viewMemory,
  type Views,
} from './memory.js';
import {
  createExecutor,
  stopAll,
  type Executor,
  type ExecutorTask,
  type ThreadMessage,
  type ThreadTask,
} from './thread.js';

/** A thread that computes without a sign of life for this many ticks of the watchdog has hung. */
const WATCHDOG_PERIOD_MS = 250;
const HUNG_TICKS = 20;
/** With TensorFlow, whose first leaf may compile for a minute, and which gives no sign within a leaf. */
const HUNG_NATIVE_TICKS = 480;
/** A thread may take so many ticks to start. */
const START_TICKS = 240;
/** Losses in a row, with no step or evaluation finished in between, that end the run. */
const LOSS_LIMIT = 5;
/** Who asks is kept from everything else for so long, and to the end of the leaf that is then at work. */
const BREATH_MS = 5;
/** A leaf that takes longer is not computed by the thread that speaks with others. */
const MOST_BLOCKED_MS = 50;

export interface Crew {
  open(): Promise<void>;
  /**
   * Has a command executed. The memory then says how far it came: it may have been stopped, and is then to be given
   * again. `setArguments` writes its arguments.
   * @throws LOCKSTEP_THREAD_DIES
   */
  perform(kind: number, setArguments: () => void): Promise<void>;
  /** A step or an evaluation was finished. */
  noteProgress(): void;
  /** Ends whatever is at work: it is rejected. */
  close(): Promise<void>;
}

export type CrewTask = Omit<ExecutorTask, 'thread' | 'fault'>;

export interface CrewOptions {
  readonly clock: Clock;
  readonly fault?: Fault | undefined;
  readonly onThreadLost: (lost: LostThread) => void;
}

function writeCommand(words: Int32Array, kind: number, setArguments: () => void): void {
  words[control.kind] = kind;
  words[control.stop] = 0;
  words[control.arrived] = 0;
  words[control.nextLeaf] = 0;
  words[control.failure] = failures.none;
  setArguments();
}

const closedError = (): Error => new Error('The pool was closed while it was at work.');

function diesError(text: string, cause: unknown): LockstepError {
  return new LockstepError(
    'LOCKSTEP_THREAD_DIES',
    `${LOSS_LIMIT} worker threads were lost in a row without a step being finished; the last was ${text}. ` +
      'If memory is short, use fewer workers.',
    { cause },
  );
}

function phaseName(phase: number): LostThread['phase'] {
  return phase === IDLE_PHASE ? 'idle' : phases[phase - 1];
}

/** Whether an agent's node is an `OwnThread`. */
export function computesInOwnThread(node: {
  readonly mayBlock: boolean;
  readonly threads: number;
  readonly fault: Fault | undefined;
  /** What a leaf took. */
  readonly leafMs: number;
}): boolean {
  const { mayBlock, threads, fault, leafMs } = node;
  return mayBlock && threads === 1 && fault === undefined && leafMs <= MOST_BLOCKED_MS;
}

/**
 * The thread that asks does all itself. That saves handing over, and blocks it for a leaf at a time. An exception counts
 * as the loss of a thread; one that hangs is not found here.
 */
export class OwnThread implements Crew {
  readonly #task: CrewTask;
  readonly #options: CrewOptions;
  readonly #views: Views;
  #execute: Executor | undefined;
  #atWork: Promise<void> | undefined;
  /** When everything else had its turn. */
  #breathedMs = -Infinity;
  #isTurnAwaited = false;
  #lossesInARow = 0;
  #isClosed = false;

  constructor(task: CrewTask, options: CrewOptions) {
    this.#task = task;
    this.#options = options;
    this.#views = viewMemory(task.memory, task.layout, task.plan);
  }

  async open(): Promise<void> {
    this.#execute = await createExecutor({ ...this.#task, thread: 0 }, () => this.#breathe());
  }

  async perform(kind: number, setArguments: () => void): Promise<void> {
    if (this.#isClosed) throw closedError();
    writeCommand(this.#views.control, kind, setArguments);
    this.#awaitTurn();
    this.#atWork = this.#execute!(kind);
    try {
      await this.#atWork;
    } catch (error) {
      await this.#onLost(error);
    }
    if (this.#isClosed) throw closedError();
  }

  /** Notes when everything else has its turn. Several commands may follow one another before. */
  #awaitTurn(): void {
    if (this.#isTurnAwaited) return;
    this.#isTurnAwaited = true;
    // Whatever ran before this command had its turn in the one that ends here.
    this.#breathedMs = this.#options.clock.nowMs();
    afterInput(() => {
      this.#isTurnAwaited = false;
    });
  }

  async #breathe(): Promise<void> {
    if (this.#options.clock.nowMs() - this.#breathedMs < BREATH_MS) return;
    await new Promise<void>(resolve => afterInput(resolve));
    this.#breathedMs = this.#options.clock.nowMs();
  }

  async #onLost(error: unknown): Promise<void> {
    const { control: words, threads } = this.#views;
    const text = messageOf(error);
    // Its command is to be given again.
    stopAll(words);
    if (this.#isClosed) return;
    this.#options.onThreadLost({
      step: words[control.published],
      thread: 0,
      reason: text,
      phase: phaseName(threads[0].words[threadWord.phase]),
    });
    if (++this.#lossesInARow >= LOSS_LIMIT) throw diesError(`the main thread's own work: ${text}`, error);
    await this.open();
  }

  noteProgress(): void {
    this.#lossesInARow = 0;
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    stopAll(this.#views.control);
    await this.#atWork?.catch(() => {});
  }
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

/** Threads of their own, as many as the plan has. */
export class ThreadCrew implements Crew {
  readonly #task: CrewTask;
  readonly #options: CrewOptions;
  readonly #views: Views;
  readonly #piscina: Piscina;
  readonly #slots: Incarnation[] = [];
  readonly #stopWatching: () => void;
  #isClosed = false;
  #lossesInARow = 0;
  #faultsLeft: number;
  /** Ends whatever is waited for. */
  #fatal: unknown;
  /** Looks again whether what is waited for has come true. */
  #look: () => void = () => {};

  constructor(task: CrewTask, options: CrewOptions) {
    const { memory, layout, plan } = task;
    this.#task = task;
    this.#options = options;
    this.#views = viewMemory(memory, layout, plan);
    this.#faultsLeft = options.fault?.times ?? 0;
    this.#piscina = new Piscina({
      filename: new URL('thread.js', import.meta.url).href,
      minThreads: plan.threads,
      maxThreads: plan.threads,
      idleTimeout: Infinity,
    });
    // What fails in a thread also rejects its task, and is handled there.
    this.#piscina.on('error', () => {});
    this.#stopWatching = options.clock.every(WATCHDOG_PERIOD_MS, () => this.#watch());
  }

  async open(): Promise<void> {
    for (let thread = 0; thread < this.#task.plan.threads; thread++) this.#start(thread);
    try {
      await this.#replaceLost();
    } catch (error) {
      await this.close();
      throw error;
    }
  }

  noteProgress(): void {
    this.#lossesInARow = 0;
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
    this.#fatal ??= closedError();
    this.#look();
  }

  /** Waits until everyone has parked, or is gone. */
  async perform(kind: number, setArguments: () => void): Promise<void> {
    await this.#replaceLost();
    const { control: words } = this.#views;
    writeCommand(words, kind, setArguments);
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
      else if (message.type === 'failed') this.#fatal = new LockstepError(message.code, message.message);
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
    // One that hangs in native code never ends: its process does, see `onThreadLost` there.
    const isEnding = worker && worker.threadId !== -1 && !this.#piscina.threads.includes(worker);
    if (isEnding && !this.#task.tensorflow) await once(worker, 'exit');
    if (this.#isClosed) return;
    port.close();
    if (this.#isMeant(thread)) this.#faultsLeft--;
    this.#lossesInARow++;
    const text = controller.signal.aborted ? String(controller.signal.reason) : messageOf(reason);
    this.#options.onThreadLost({
      step: this.#views.control[control.published],
      thread,
      reason: text,
      phase: worker === undefined ? 'start' : phaseName(phase),
    });
    if (this.#lossesInARow >= LOSS_LIMIT) this.#fatal = diesError(`thread ${thread}: ${text}`, reason);
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
      const limit = !isReady ? START_TICKS : this.#task.tensorflow ? HUNG_NATIVE_TICKS : HUNG_TICKS;
      slot.quietTicks = isAlive ? 0 : slot.quietTicks + 1;
      slot.progress = progress;
      if (slot.quietTicks === limit) {
        const seconds = (limit * WATCHDOG_PERIOD_MS) / 1000;
        slot.controller.abort(`hung: no sign of life for ${seconds} s`);
      }
    }
  }
}

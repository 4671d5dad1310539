// A thread of the pool: a long-lived piscina task that waits for commands in the shared memory and executes them. What
// it does with a command can also be had without a thread.
//
// A step has two halves. First the threads take lanes from a counter, compute their leaves and add each gradient but
// the last, rounded to the grid, to a sum of their own. After a barrier each thread reduces its slice of the parameters
// over all these sums and last gradients, updates it into the other bank and digests its blocks. The last to arrive at
// the second barrier extends the hash and publishes the step with one store. Until then nothing that the step reads has
// changed, so a step in which a thread dies is simply done again.
//
// Where other nodes compute too, the halves are commands of their own: the first ends with the reduction, which leaves
// the sums of some lanes; the second begins with those of all lanes, wherever they were computed.

import { threadId, type MessagePort } from 'node:worker_threads';
import { systemClock } from '../shared/clock.js';
import { LockstepError, type ErrorCode } from '../shared/errors.js';
import { gradientBound, lossBound } from '../shared/exact-sum.js';
import type { Fault, Phase } from '../shared/faults.js';
import { BLOCK_PARAMETERS, blockCount } from '../shared/hash.js';
import type { LeafJob } from '../shared/leaf-job.js';
import { Schedule } from '../shared/schedule.js';
import type { EngineName, OptimizerConfig } from '../shared/settings.js';
import type { Engine } from './engines/engine.js';
import type { TensorflowPlace } from './engines/tensorflow/runtime.js';
import { createWasmEngine } from './engines/wasm.js';
import { instantiateKernels } from './kernels.js';
import {
  commands,
  control,
  failures,
  IDLE_PHASE,
  phaseCode,
  setNames,
  STEP_NUMBERS,
  stepField,
  threadNumber,
  threadWord,
  viewMemory,
  type Layout,
  type MemoryPlan,
} from './memory.js';

/** Everything that executes commands needs to begin; it shares the memory and owns nothing that would be missed. */
export interface ExecutorTask {
  readonly thread: number;
  readonly memory: WebAssembly.Memory;
  readonly kernelModule: WebAssembly.Module;
  readonly layout: Layout;
  readonly plan: MemoryPlan;
  readonly job: LeafJob;
  /** Where updates are done. */
  readonly optimizer?: OptimizerConfig | undefined;
  /** Whether others compute: then no engine is needed. */
  readonly onlyUpdates?: boolean;
  /** How long to spin at a barrier before sleeping: 0 when threads exceed cores. */
  readonly spinMs: number;
  readonly fault?: Fault;
  /** Where the job's engine is `tensorflow`. */
  readonly tensorflow?: TensorflowPlace | undefined;
}

export interface ThreadTask extends ExecutorTask {
  /** Gets `ready` once, then `parked` after every command. */
  readonly port: MessagePort;
}

export type ThreadMessage =
  | { readonly type: 'ready'; readonly threadId: number }
  | { readonly type: 'parked'; readonly command: number }
  /** It cannot compute, nor could another in its place. */
  | { readonly type: 'failed'; readonly code: ErrorCode; readonly message: string };

/** The most samples in a leaf of kind `evaluate`: its result does not depend on this. */
const EVALUATION_LEAF = 256;

const refuse = async (): Promise<never> => {
  throw new Error('this node only updates');
};
const noEngine: Engine = { profile: 'none', useWeights: refuse, gradient: refuse, evaluate: refuse };

/** Executes the command that lies in the memory, together with the other threads. */
export type Executor = (kind: number) => Promise<void>;

/** `breathe` is waited for between leaves. */
export async function createExecutor(task: ExecutorTask, breathe?: () => Promise<void>): Promise<Executor> {
  const { thread, memory, layout, plan, job, optimizer } = task;
  const { model, threads } = plan;
  const views = viewMemory(memory, layout, plan);
  const words = views.control;
  const own = views.threads[thread];
  const kernels = instantiateKernels(task.kernelModule, memory);
  const { batch, leaf, seed, samples } = job;
  const schedule = new Schedule({ samples: samples.train, seed, batch, leaf });
  const bound = gradientBound(schedule.lanes);
  const blocks = blockCount(model.parameterCount);
  const fromBlock = Math.floor((thread * blocks) / threads);
  const toBlock = Math.floor(((thread + 1) * blocks) / threads);
  // Where others wait between leaves, none takes longer than one of training.
  const evaluationLeaf = breathe ? Math.min(EVALUATION_LEAF, leaf) : EVALUATION_LEAF;
  const engine = task.onlyUpdates ? noEngine : await createEngine();
  let fault = task.fault;
  /** Up to here this thread's time is charged. */
  let chargedMs = 0;

  /** Engines other than the default are loaded only where they are used. */
  async function createEngine(): Promise<Engine> {
    const engineJob = {
      model,
      normalization: job.normalization,
      sets: views.sets,
      seed: job.seed,
      leaf,
      lossBound: lossBound(Math.max(samples.train, samples.test)),
    };
    const { scratch } = layout.threads[thread];
    const make: Record<EngineName, () => Engine | Promise<Engine>> = {
      wasm: () => createWasmEngine(engineJob, kernels, memory, scratch, showProgress),
      reference: async () =>
        (await import('./engines/reference.js')).createReferenceEngine(engineJob, showProgress),
      tensorflow: async () =>
        (await import('./engines/tensorflow/native.js')).createNativeEngine(
          engineJob,
          task.tensorflow!,
          showProgress,
        ),
    };
    const made = await make[job.engine]();
    if (made.profile !== job.profile) throw new Error(`engine ${job.engine} has profile ${made.profile}`);
    return made;
  }

  function showProgress(): void {
    Atomics.add(own.words, threadWord.progress, 1);
  }

  function enter(phase: Phase): void {
    Atomics.store(own.words, threadWord.phase, phaseCode(phase));
    showProgress();
  }

  /** Adds the time since the last charge to one of this thread's times. */
  function charge(number: number): void {
    const nowMs = systemClock.nowMs();
    own.numbers[number] += nowMs - chargedMs;
    chargedMs = nowMs;
  }

  function isFaultDue(phase: Phase, step: number): boolean {
    return fault?.phase === phase && step + 1 >= fault.step;
  }

  function fail(): void {
    const { kind } = fault!;
    fault = undefined;
    if (kind === 'exit') process.exit(13);
    if (kind === 'throw') throw new Error('injected fault');
    if (kind === 'trap') kernels.trap();
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
  }

  /** Does `work` on this thread's slice of blocks; a fault that is due strikes in its middle. */
  function onSlice(phase: Phase, step: number, work: (from: number, to: number) => void): void {
    enter(phase);
    if (isFaultDue(phase, step)) {
      work(fromBlock, Math.floor((fromBlock + toBlock) / 2));
      fail();
    }
    work(fromBlock, toBlock);
  }

  function isStopped(): boolean {
    return Atomics.load(words, control.stop) !== 0;
  }

  /** Then results are garbage, and no failure counts. */
  function isRacing(): boolean {
    return words[control.kind] === commands.race;
  }

  /** Makes everyone park, with the reason if it is the first; in a race, nobody. */
  function stopFor(failure: number, step: number, lane: number, tensor: number, of = thread): void {
    if (isRacing()) return;
    if (Atomics.compareExchange(words, control.failure, failures.none, failure) === failures.none) {
      words[control.failureStep] = step;
      words[control.failureLane] = lane;
      words[control.failureTensor] = tensor;
      words[control.failureThread] = of;
    }
    stopAll(words);
  }

  /**
   * Waits until all threads have arrived; the last one does `lastAction` first. Returns false at a stop.
   * Spins for a while, since leaves end within some tens of microseconds of each other, then sleeps.
   */
  function barrier(lastAction: () => void): boolean {
    const generation = Atomics.load(words, control.generation);
    if (isStopped()) return false;
    if (Atomics.add(words, control.arrived, 1) === threads - 1) {
      lastAction();
      Atomics.store(words, control.arrived, 0);
      Atomics.add(words, control.generation, 1);
      Atomics.notify(words, control.generation);
      return true;
    }
    Atomics.store(own.words, threadWord.waiting, 1);
    waitForChange(words, control.generation, generation, task.spinMs);
    Atomics.store(own.words, threadWord.waiting, 0);
    return !isStopped();
  }

  function tableEntry(step: number): number {
    return (step - words[control.tableStep] + 1) * STEP_NUMBERS;
  }

  async function trainSpan(): Promise<void> {
    chargedMs = systemClock.nowMs();
    for (let step = words[control.firstStep]; step < words[control.endStep]; step++) {
      await computeLeaves(step, takeNextLane, schedule.lanes);
      charge(threadNumber.computeMs);
      if (!barrier(() => Atomics.store(words, control.nextLeaf, 0))) return;
      charge(threadNumber.waitMs);
      reduceSlice(step);
      updateSlice(step);
      if (!barrier(() => publishWithSums(step))) return;
      charge(threadNumber.waitMs);
    }
  }

  function takeNextLane(): number {
    return Atomics.add(words, control.nextLeaf, 1);
  }

  /** The first half of a step, for some of its lanes: leaves their sums. */
  async function sumGradients(): Promise<void> {
    chargedMs = systemClock.nowMs();
    const step = words[control.firstStep];
    await computeLeaves(step, takeNextLane, words[control.end]);
    charge(threadNumber.computeMs);
    if (!barrier(() => {})) return;
    charge(threadNumber.waitMs);
    reduceSlice(step);
  }

  /** The second half of a step, with the sums as they lie there. */
  function update(): void {
    chargedMs = systemClock.nowMs();
    const step = words[control.firstStep];
    // It may have been published just before a thread was lost.
    if (step === words[control.endStep]) return;
    updateSlice(step);
    if (barrier(() => publish(step))) charge(threadNumber.waitMs);
  }

  /**
   * The work of training steps, of the same ones over and over until the stop, by threads that never meet: each takes
   * lanes thread, thread + threads, ... and its slice, and publishes nothing. A thread without a lane has no work.
   */
  async function race(): Promise<void> {
    if (thread >= schedule.lanes) return;
    const [first, end] = [words[control.firstStep], words[control.endStep]];
    chargedMs = systemClock.nowMs();
    for (let step = first; !isStopped(); step = step + 1 < end ? step + 1 : first) {
      let lane = thread - threads;
      await computeLeaves(step, () => (lane += threads), schedule.lanes);
      charge(threadNumber.computeMs);
      reduceSlice(step);
      updateSlice(step);
    }
  }

  /** The last leaf's gradient stays as it is: the reduction rounds it, which saves a pass over the sum. */
  async function computeLeaves(step: number, takeLane: () => number, endLane: number): Promise<void> {
    enter('leaf');
    const part = layout.parts + thread * model.paddedCount * 8;
    const gradientAt = own.gradient.byteOffset;
    own.numbers[threadNumber.lossSum] = 0;
    own.numbers[threadNumber.correct] = 0;
    let computed = 0;
    while (!isStopped()) {
      const lane = takeLane();
      if (lane >= endLane) break;
      const positions = schedule.leafPositions(step, lane);
      if (positions.length === 0) continue;
      if (computed === 0) {
        await engine.useWeights(views.banks[step & 1].weights);
      } else if (kernels.addLeaf(gradientAt, part, model.paddedCount, bound, computed === 1 ? 1 : 0) !== 1) {
        stopForLeaf(step, thread);
        if (isStopped()) break;
      }
      own.words[threadWord.lastLane] = lane;
      const result = await engine.gradient({ step, lane, positions }, own.gradient);
      computed++;
      if (!result.isLossFinite) {
        stopForLeaf(step, thread);
        if (isStopped()) break;
      }
      own.numbers[threadNumber.lossSum] += result.lossSum;
      own.numbers[threadNumber.correct] += result.correct;
      own.numbers[threadNumber.leaves] += 1;
      if (isFaultDue('leaf', step)) fail();
      if (breathe) await breathe();
    }
    views.sources[2 * thread] = computed > 1 ? part : 0;
    views.sources[2 * thread + 1] = computed > 0 ? gradientAt : 0;
    if (isFaultDue('leaf', step)) fail();
  }

  function stopForLeaf(step: number, of: number): void {
    if (isRacing()) return;
    const lane = views.threads[of].words[threadWord.lastLane];
    stopFor(failures.badLeaf, step, lane, badTensor(step, of) ?? -1, of);
  }

  /** After a reduction that found a bad gradient: whose it is. */
  function stopForGradients(step: number): void {
    if (isRacing()) return;
    const has = (of: number): boolean => views.sources[2 * of + 1] !== 0;
    const indexes = views.threads.map((_, of) => of).filter(has);
    stopForLeaf(step, indexes.find(of => badTensor(step, of) !== undefined) ?? thread);
  }

  /** Where a bad leaf comes from: a tensor with bad weights, else the last layer whose gradient is bad. */
  function badTensor(step: number, of: number): number | undefined {
    const { weights } = views.banks[step & 1];
    const isBad = (values: Float32Array, most: number): ((index: number) => boolean) => {
      return index => {
        const { offset, size } = model.tensors[index];
        return values.subarray(offset, offset + size).some(value => !(Math.abs(value) <= most));
      };
    };
    const indexes = model.tensors.map((_, index) => index);
    const { gradient } = views.threads[of];
    return indexes.find(isBad(weights, Number.MAX_VALUE)) ?? indexes.findLast(isBad(gradient, bound));
  }

  function reduceSlice(step: number): void {
    const { sums, sources } = layout;
    onSlice('reduce', step, (first, end) => {
      const [a, b] = [first * BLOCK_PARAMETERS, end * BLOCK_PARAMETERS];
      if (kernels.reduce(sums, sources, threads, a, b, bound) !== 1) stopForGradients(step);
    });
    charge(threadNumber.reduceMs);
  }

  function updateSlice(step: number): void {
    const { digests, banks } = layout;
    const from = banks[step & 1];
    const to = banks[(step + 1) & 1];
    onSlice('update', step, (first, end) => {
      const [a, b] = [first * BLOCK_PARAMETERS, end * BLOCK_PARAMETERS];
      if (!updateBlocks(step, from, to, a, b)) stopFor(failures.badWeights, step, 0, -1);
    });
    onSlice('hash', step, (first, end) => kernels.digestBlocks(to.weights, digests, first, end));
    charge(threadNumber.updateMs);
  }

  function updateBlocks(
    step: number,
    from: Layout['banks'][0],
    to: Layout['banks'][0],
    a: number,
    b: number,
  ): boolean {
    const entry = views.steps.subarray(tableEntry(step), tableEntry(step) + STEP_NUMBERS);
    const inverseSamples = 1 / entry[stepField.samples];
    const stepSize = entry[stepField.stepSize];
    if (!optimizer) throw new Error('this node updates no weights');
    if (optimizer.name === 'sgd') {
      const { momentum, nesterov, weightDecay } = optimizer;
      const flag = nesterov ? 1 : 0;
      return (
        kernels.updateSgd(
          from.weights,
          from.first,
          to.weights,
          to.first,
          layout.sums,
          a,
          b,
          inverseSamples,
          stepSize,
          momentum,
          flag,
          weightDecay,
        ) === 1
      );
    }
    const { beta1, beta2, epsilon, weightDecay } = optimizer;
    return (
      kernels.updateAdam(
        from.weights,
        from.first,
        from.second,
        to.weights,
        to.first,
        to.second,
        layout.sums,
        a,
        b,
        inverseSamples,
        stepSize,
        beta1,
        1 - beta1,
        beta2,
        1 - beta2,
        epsilon,
        entry[stepField.secondMomentScale],
        optimizer.name === 'adamw' ? 0 : weightDecay,
        entry[stepField.decayFactor],
      ) === 1
    );
  }

  function publishWithSums(step: number): void {
    const at = tableEntry(step);
    views.steps[at + stepField.lossSum] = sumOverThreads(threadNumber.lossSum);
    views.steps[at + stepField.correct] = sumOverThreads(threadNumber.correct);
    publish(step);
  }

  /** By the last thread at the end of a step, while all others wait. */
  function publish(step: number): void {
    const at = tableEntry(step);
    const previous = layout.steps + (at - STEP_NUMBERS) * 8;
    kernels.chainHash(previous, layout.steps + at * 8, step + 1, layout.digests, blocks);
    if (Atomics.load(words, control.cut) !== 0) words[control.endStep] = step + 1;
    Atomics.store(words, control.published, step + 1);
  }

  function sumOverThreads(number: number): number {
    return views.threads.reduce((sum, { numbers }) => sum + numbers[number], 0);
  }

  async function evaluate(): Promise<void> {
    const set = setNames[words[control.set]];
    const step = Atomics.load(words, control.published);
    const end = words[control.end];
    const keepsLogits = set === 'test' && plan.keepsLogits === true;
    chargedMs = systemClock.nowMs();
    enter('evaluate');
    await engine.useWeights(views.banks[step & 1].weights);
    own.numbers[threadNumber.lossSum] = 0;
    own.numbers[threadNumber.correct] = 0;
    while (!isStopped() && Atomics.load(words, control.cut) === 0) {
      const from = Atomics.add(words, control.nextLeaf, evaluationLeaf);
      if (from >= end) break;
      const length = Math.min(evaluationLeaf, end - from);
      const positions = Uint32Array.from({ length }, (_, i) => from + i);
      const { classes } = model;
      const logits = keepsLogits
        ? views.logits.subarray(from * classes, (from + length) * classes)
        : undefined;
      const result = await engine.evaluate(set, positions, logits);
      if (!result.isLossFinite) stopFor(failures.badLeaf, step, -1, badTensor(step, thread) ?? -1);
      own.numbers[threadNumber.lossSum] += result.lossSum;
      own.numbers[threadNumber.correct] += result.correct;
      // `step` counts updates done here, one more than the step that a fault in training would name.
      if (isFaultDue('evaluate', step - 1)) fail();
      if (breathe) await breathe();
    }
    if (isFaultDue('evaluate', step - 1)) fail();
    charge(threadNumber.computeMs);
  }

  return async kind => {
    if (kind === commands.train) await trainSpan();
    else if (kind === commands.gradient) await sumGradients();
    else if (kind === commands.update) update();
    else if (kind === commands.race) await race();
    else await evaluate();
    Atomics.store(own.words, threadWord.phase, IDLE_PHASE);
  };
}

export async function runThread(task: ThreadTask): Promise<void> {
  const say = (message: ThreadMessage): void => task.port.postMessage(message);
  try {
    await obeyCommands(task, say);
  } catch (error) {
    // Of an error that crosses threads nothing is left but its text.
    if (error instanceof LockstepError) say({ type: 'failed', code: error.code, message: error.message });
    throw error;
  }
  task.port.close();
}

async function obeyCommands(task: ThreadTask, say: (message: ThreadMessage) => void): Promise<void> {
  const { memory, layout, plan, spinMs } = task;
  const words = viewMemory(memory, layout, plan).control;
  const execute = await createExecutor(task);
  let seen = Atomics.load(words, control.command);
  say({ type: 'ready', threadId });
  for (;;) {
    waitForChange(words, control.command, seen, spinMs);
    seen = Atomics.load(words, control.command);
    const kind = words[control.kind];
    if (kind === commands.close) break;
    await execute(kind);
    say({ type: 'parked', command: seen });
  }
}

export default runThread;

function waitForChange(words: Int32Array, word: number, from: number, spinMs: number): void {
  if (spinMs > 0) {
    const endMs = systemClock.nowMs() + spinMs;
    do {
      for (let i = 0; i < 200; i++) if (Atomics.load(words, word) !== from) return;
    } while (systemClock.nowMs() < endMs);
  }
  while (Atomics.load(words, word) === from) Atomics.wait(words, word, from);
}

/** Sets the stop word and wakes everyone who waits at the barrier. */
export function stopAll(words: Int32Array): void {
  Atomics.store(words, control.stop, 1);
  Atomics.add(words, control.generation, 1);
  Atomics.notify(words, control.generation);
}

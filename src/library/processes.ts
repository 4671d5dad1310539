// Processes that compute with TensorFlow: each is a node of its own, started, watched, and started again when it is lost.
//
// One process has one device and one thread that computes, since a TensorFlow process takes all the GPUs that it sees and
// a crash in its native code ends it. What it was at is leased to others meanwhile, by the coordinator, as for any node.

import { fork, type ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { AgentResult, AgentStatus } from '../worker/agent.js';
import { noStatistics } from '../worker/session.js';
import type { Clock } from '../shared/clock.js';
import { isErrorCode, LockstepError } from '../shared/errors.js';
import type { TensorflowPlace } from '../worker/engines/tensorflow/runtime.js';
import type { ProcessPlan } from './tensorflow.js';
import type { EvaluationTask, LoggedSums } from './trained.js';

/** What a process is told first: it travels over the channel, since everybody sees arguments. */
export interface ProcessTask {
  readonly joinLine: string;
  readonly name: string;
  readonly place: TensorflowPlace;
  readonly cacheDir: string | undefined;
  readonly cacheBytes: number | undefined;
  readonly retryMs: number | undefined;
}

export type ToProcess =
  | { readonly type: 'begin'; readonly task: ProcessTask }
  | { readonly type: 'evaluate'; readonly place: TensorflowPlace; readonly task: EvaluationTask }
  | { readonly type: 'probe'; readonly place: TensorflowPlace }
  | { readonly type: 'leave' };

export interface ProbeResult {
  /** Milliseconds of a leaf of the default size. */
  readonly leafMs: number;
  /** Resident memory of the process. */
  readonly memoryBytes: number;
}

export type FromProcess =
  /** A sign of life, every `BEAT_MS`. */
  | { readonly type: 'beat' }
  | { readonly type: 'status'; readonly status: AgentStatus }
  | { readonly type: 'warning'; readonly message: string }
  | { readonly type: 'end'; readonly result: AgentResult }
  | { readonly type: 'evaluated'; readonly sums: LoggedSums }
  | { readonly type: 'probed'; readonly result: ProbeResult }
  | { readonly type: 'error'; readonly code: string; readonly message: string };

export interface ProcessesOptions extends Omit<ProcessTask, 'name' | 'place'> {
  readonly plans: readonly ProcessPlan[];
  /** What stands before the names of the plans on the coordinator's side; nothing for its own. */
  readonly prefix: string;
  readonly clock: Clock;
  readonly onStatus?: ((status: AgentStatus) => void) | undefined;
  readonly onWarning: (message: string) => void;
  /** Has the processes hand their leases back and end. */
  readonly signal: AbortSignal;
}

export const BEAT_MS = 2000;
/** A process that is silent for longer, frozen or thrashing, is ended and started again. */
const QUIET_BEATS = 10;
/** Losses of one process in a row, with nothing computed in between, that end all. */
const LOSS_LIMIT = 5;
const FIRST_WAIT_MS = 100;
/** A process that is to leave and does not is ended. */
const LEAVE_MS = 5000;
/** Of the end of what a process has said. */
const MOST_SAID = 2000;

/**
 * Runs the processes until the run is finished with all of them, or `signal` aborts.
 * @throws what ends one of them for good: refusals, LOCKSTEP_NO_TENSORFLOW, LOCKSTEP_NO_GPU, LOCKSTEP_PROCESS_DIES. The
 * others are ended then.
 */
export async function runProcesses(options: ProcessesOptions): Promise<AgentResult> {
  const stop = new AbortController();
  const signal = AbortSignal.any([options.signal, stop.signal]);
  const statuses = new Map<string, AgentStatus>();
  let shown = '';
  const show = (name: string, status: AgentStatus): void => {
    statuses.set(name, status);
    const state = options.plans.length === 1 ? status : summary(statuses);
    if (state.text === shown) return;
    shown = state.text;
    options.onStatus?.(state);
  };
  const settled = await Promise.allSettled(
    options.plans.map(async plan => {
      try {
        return await runProcess(plan, { ...options, signal }, status => show(plan.name, status));
      } catch (error) {
        stop.abort();
        throw error;
      }
    }),
  );
  for (const one of settled) if (one.status === 'rejected') throw one.reason;
  const results = settled.flatMap(one => (one.status === 'fulfilled' ? [one.value] : []));
  return results.reduce(addResults);
}

/** What several are doing, in one line. */
function summary(statuses: ReadonlyMap<string, AgentStatus>): AgentStatus {
  const all = [...statuses];
  const [, { state }] = all.find(([, status]) => status.state === 'computing') ?? all[0];
  return {
    state,
    text: all.map(([name, { text }]) => `${name}: ${text}`).join('; '),
    parts: all.reduce((sum, [, { parts }]) => sum + parts, 0),
  };
}

const counts = [
  'parts',
  'leaves',
  'samples',
  'computeMs',
  'droppedParts',
  'shardsFetched',
  'shardsFromCache',
  'badShards',
  'receivedBytes',
  'sentBytes',
  'reconnections',
  'protocolErrors',
] as const;

const nothingDone: AgentResult = { end: 'left', ...noStatistics() };

function addResults(a: AgentResult, b: AgentResult): AgentResult {
  const sum: { -readonly [Key in keyof AgentResult]: AgentResult[Key] } = { ...a };
  for (const name of counts) sum[name] += b[name];
  if (b.end === 'left') sum.end = 'left';
  return sum;
}

/** One process after another, until one comes to an end. */
async function runProcess(
  plan: ProcessPlan,
  options: ProcessesOptions,
  onStatus: (status: AgentStatus) => void,
): Promise<AgentResult> {
  const { signal, clock, onWarning, joinLine, prefix, cacheDir, cacheBytes, retryMs } = options;
  const { name, place } = plan;
  const task = { joinLine, name: prefix + name, place, cacheDir, cacheBytes, retryMs };
  for (let losses = 0; ;) {
    const outcome = await runOnce(
      plan,
      { type: 'begin', task },
      {
        clock,
        onWarning,
        signal,
        onStatus: status => {
          if (status.parts > 0) losses = 0;
          onStatus(status);
        },
      },
    );
    // Somebody else may have told it to leave.
    const hasLeft = outcome.type === 'end' && outcome.result.end === 'left' && !signal.aborted;
    if (outcome.type === 'end' && !hasLeft) return outcome.result;
    if (outcome.type !== 'lost' && !hasLeft) throw failureOf(plan, outcome);
    if (signal.aborted) return nothingDone;
    if (++losses >= LOSS_LIMIT) {
      throw new LockstepError(
        'LOCKSTEP_PROCESS_DIES',
        `The TensorFlow process ${name} was lost ${LOSS_LIMIT} times in a row without having computed anything; ` +
          `the last time ${howItEnded(outcome)}`,
      );
    }
    onWarning(
      `The TensorFlow process ${name} was lost (${outcome.type === 'lost' ? outcome.how : howItEnded(outcome)}). It is started again; nothing else changes.`,
    );
    await wait(clock, FIRST_WAIT_MS * 2 ** (losses - 1), signal);
    if (signal.aborted) return nothingDone;
  }
}

type Outcome =
  | Exclude<FromProcess, { type: 'beat' | 'status' | 'warning' }>
  | { readonly type: 'lost'; readonly how: string; readonly said: string };

/** Starts a process, tells it what to do, and waits for its end. `signal` has it leave. */
function runOnce(
  { name, env }: ProcessPlan,
  first: ToProcess,
  { clock, onWarning, signal, onStatus = () => {} }: WatchOptions,
): Promise<Outcome> {
  return new Promise(resolve => {
    const child = fork(fileURLToPath(new URL('tensorflow-process.js', import.meta.url)), [], {
      env: { ...env },
      execArgv: [],
      serialization: 'advanced',
      // What TensorFlow says is kept for the case that the process is lost.
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    });
    let said = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding('utf8').on('data', (text: string) => (said = (said + text).slice(-MOST_SAID)));
    }
    let outcome: Outcome | undefined;
    let cancelKill: (() => void) | undefined;
    const leave = (): void => {
      send(child, { type: 'leave' });
      cancelKill ??= clock.after(LEAVE_MS, () => child.kill('SIGKILL'));
    };
    let quietBeats = 0;
    const stopWatching = clock.every(BEAT_MS, () => {
      if (++quietBeats > QUIET_BEATS) child.kill('SIGKILL');
    });
    child.on('message', (message: FromProcess) => {
      quietBeats = 0;
      if (message.type === 'beat') return;
      if (message.type === 'status') onStatus(message.status);
      else if (message.type === 'warning') onWarning(`${name}: ${message.message}`);
      else {
        outcome = message;
        cancelKill ??= clock.after(LEAVE_MS, () => child.kill('SIGKILL'));
      }
    });
    child.on('error', error => (said += error.message));
    child.on('close', (code, killedBy) => {
      signal?.removeEventListener('abort', leave);
      cancelKill?.();
      stopWatching();
      const how = killedBy === null ? `exit code ${code}` : killedBy;
      resolve(outcome ?? { type: 'lost', how, said: said.trim() });
    });
    send(child, first);
    if (signal?.aborted) leave();
    else signal?.addEventListener('abort', leave);
  });
}

interface WatchOptions {
  readonly clock: Clock;
  readonly onWarning: (message: string) => void;
  readonly onStatus?: (status: AgentStatus) => void;
  readonly signal?: AbortSignal;
}

/** @throws LOCKSTEP_NO_TENSORFLOW, LOCKSTEP_NO_GPU, LOCKSTEP_MODEL_LAYER, LOCKSTEP_PROCESS_DIES */
export async function evaluateInProcess(
  plan: ProcessPlan,
  task: EvaluationTask,
  options: WatchOptions,
): Promise<LoggedSums> {
  const { place } = plan;
  const outcome = await runOnce(plan, { type: 'evaluate', place, task: { ...task, workers: 1 } }, options);
  if (outcome.type === 'evaluated') return outcome.sums;
  throw failureOf(plan, outcome);
}

/** What a process takes that has computed leaves of LeNet-5. @throws as `evaluateInProcess` */
export async function probeProcess(plan: ProcessPlan, options: WatchOptions): Promise<ProbeResult> {
  const outcome = await runOnce(plan, { type: 'probe', place: plan.place }, options);
  if (outcome.type === 'probed') return outcome.result;
  throw failureOf(plan, outcome);
}

function failureOf({ name }: ProcessPlan, outcome: Outcome): LockstepError {
  if (outcome.type === 'error')
    return new LockstepError(
      isErrorCode(outcome.code) ? outcome.code : 'LOCKSTEP_PROCESS_DIES',
      outcome.message,
    );
  return new LockstepError(
    'LOCKSTEP_PROCESS_DIES',
    `The TensorFlow process ${name} was lost (${howItEnded(outcome)}).`,
  );
}

function howItEnded(outcome: Outcome): string {
  if (outcome.type !== 'lost') return 'it was told to leave';
  return outcome.said === '' ? outcome.how : `${outcome.how}, having said: ${outcome.said}`;
}

/** A process that is gone hears nothing, and its end is told elsewhere. */
function send(child: ChildProcess, message: ToProcess): void {
  try {
    child.send(message, () => {});
  } catch {
    child.kill('SIGKILL');
  }
}

function wait(clock: Clock, durationMs: number, signal: AbortSignal): Promise<void> {
  return new Promise(resolve => {
    const done = (): void => {
      cancel();
      signal.removeEventListener('abort', done);
      resolve();
    };
    const cancel = clock.after(durationMs, done);
    signal.addEventListener('abort', done);
  });
}

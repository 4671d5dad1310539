// `work`: computes for a run that another process coordinates. Everything `lockstep worker` does is this call.

import { availableParallelism, homedir, hostname } from 'node:os';
import { join as joinPath } from 'node:path';
import * as v from 'valibot';
import { systemClock } from '../shared/clock.js';
import { LockstepError } from '../shared/errors.js';
import { parseFault } from '../shared/faults.js';
import { withoutUndefined } from '../shared/format.js';
import { parseJoin } from '../shared/join.js';
import type { LeafJob, Numerics } from '../shared/leaf-job.js';
import type { LostThread } from '../shared/node.js';
import { systemFraction, systemRandom } from '../shared/random.js';
import {
  devicesSchema,
  parseSettings,
  path,
  threadEngineNames,
  wholeNumber,
  workersSchema,
} from '../shared/settings.js';
import { runAgent, type AgentResult, type AgentStatus } from '../worker/agent.js';
import { MOST_FRAME_BYTES } from '../worker/agent-job.js';
import { connect } from '../worker/connect.js';
import { computesInOwnThread } from '../worker/crew.js';
import { profileOf } from '../worker/engines/engine.js';
import type { TensorflowPlace } from '../worker/engines/tensorflow/runtime.js';
import { checkNumerics } from '../worker/numerics-check.js';
import { createAgentNode } from '../worker/pool.js';
import { DEFAULT_CACHE_BYTES, openShardCache } from '../worker/shard-cache.js';
import { readPackage } from './package.js';
import { runProcesses } from './processes.js';
import { planProcesses } from './tensorflow.js';

export interface WorkOptions {
  /** Threads; 'auto', the default, is one for each core. */
  readonly workers?: number | 'auto' | undefined;
  /**
   * Whether the calling thread may compute where `workers` is 1: a step is then shorter by what handing over takes, and
   * the caller's event loop blocked for some milliseconds, or a leaf, at a time. Not where a leaf takes more than 50 ms,
   * nor with a fault to inject.
   */
  readonly mayBlock?: boolean | undefined;
  /** `tensorflow`: computes with it, in processes of its own, each a node. By default with threads, as the run says. */
  readonly engine?: 'tensorflow' | undefined;
  /** Of the engine `tensorflow`: `cpu`, with as many processes as `workers`, `all` GPUs, or numbers such as `0,1`. */
  readonly devices?: string | undefined;
  /** Names the node on the coordinator's side: letters, digits, dots, dashes and underscores. By default the host's. */
  readonly name?: string | undefined;
  /** The folder that keeps shards; by default `.cache/lockstep/shards` in the user's home. */
  readonly cacheDir?: string | undefined;
  /** The most that is kept there; 1 GiB by default. */
  readonly cacheBytes?: number | undefined;
  /** How long it tries to join, from the start or from when it was joined last; 10 minutes by default. */
  readonly retryMs?: number | undefined;
  /** Hands the leases back and ends; the promise then resolves with `end: 'left'`. */
  readonly signal?: AbortSignal | undefined;
  /** A fault to inject, in the form of `docs/faults.md`. */
  readonly inject?: string | undefined;
  /** Called whenever what the node is doing has changed. */
  readonly onStatus?: ((status: AgentStatus) => void) | undefined;
  readonly onWarning?: ((message: string) => void) | undefined;
}

export type WorkResult = AgentResult;

export const workDefaults = { cacheBytes: DEFAULT_CACHE_BYTES, retryMs: 600_000 } as const;

/** An attempt to connect that takes longer has failed. */
const CONNECT_TIMEOUT_MS = 10_000;
/** On the CPU, where nobody says how many: each takes half a gigabyte, and a run has 4 lanes by default. */
const MOST_AUTO_PROCESSES = 4;
const nameExpected = 'up to 100 letters, digits, dots, dashes and underscores';

const optionsSchema = v.strictObject({
  workers: v.optional(workersSchema),
  mayBlock: v.optional(v.boolean('true or false')),
  engine: v.optional(v.literal('tensorflow', "'tensorflow'")),
  devices: v.optional(devicesSchema),
  name: v.optional(
    v.pipe(v.string(nameExpected), v.regex(/^[\w.-]+$/, nameExpected), v.maxLength(100, nameExpected)),
  ),
  cacheDir: v.optional(path),
  cacheBytes: v.optional(wholeNumber(0)),
  retryMs: v.optional(wholeNumber(0)),
  signal: v.optional(v.instance(AbortSignal, 'an AbortSignal')),
  inject: v.optional(v.string('a fault')),
  onStatus: v.optional(v.function('a function')),
  onWarning: v.optional(v.function('a function')),
});

/**
 * Joins the run of a join line and computes leaves for it until it is finished; joins again after every loss of the
 * connection. Prints nothing.
 * @throws LOCKSTEP_BAD_SETTING, LOCKSTEP_JOIN_LINE, LOCKSTEP_KEY, LOCKSTEP_PROTOCOL_VERSION, LOCKSTEP_UNREACHABLE,
 * LOCKSTEP_PROFILE, any other refusal of the coordinator, LOCKSTEP_THREAD_DIES, LOCKSTEP_MEMORY, LOCKSTEP_BUILD; with
 * TensorFlow LOCKSTEP_NO_TENSORFLOW, LOCKSTEP_NO_GPU, LOCKSTEP_PROCESS_DIES
 */
export async function work(joinLine: string, options: WorkOptions = {}): Promise<WorkResult> {
  parseSettings(optionsSchema, withoutUndefined(options));
  const { engine, devices, ...rest } = options;
  if (engine === undefined) {
    if (devices === undefined) return workHere(joinLine, rest);
    throw new LockstepError(
      'LOCKSTEP_BAD_SETTING',
      'Setting devices is of the engine tensorflow: set engine as well.',
    );
  }
  if (rest.inject !== undefined) {
    throw new LockstepError(
      'LOCKSTEP_BAD_SETTING',
      'Setting inject is of threads, and the engine tensorflow has none here.',
    );
  }
  const { workers = 'auto', name = hostName(), cacheDir, cacheBytes, retryMs, onStatus } = rest;
  const { signal = new AbortController().signal, onWarning = () => {} } = rest;
  parseJoin(joinLine);
  return runProcesses({
    plans: await planProcesses({ devices, workers, most: MOST_AUTO_PROCESSES }),
    joinLine,
    // Together with the name of a process within what the protocol takes.
    prefix: `${name.slice(0, 90)}-`,
    cacheDir,
    cacheBytes,
    retryMs,
    clock: systemClock,
    signal,
    onStatus,
    onWarning,
  });
}

/** How a process computes with TensorFlow. */
export interface TensorflowWork {
  readonly place: TensorflowPlace;
  /** The native library is loaded once in a process: its thread is not replaced. */
  readonly onThreadLost: (lost: LostThread) => void;
}

/** As `work`, in this very process. */
export async function workHere(
  joinLine: string,
  options: Omit<WorkOptions, 'engine' | 'devices'>,
  tensorflow?: TensorflowWork,
): Promise<WorkResult> {
  const { workers = 'auto', mayBlock = false, name = hostName(), signal, inject } = options;
  const { cacheDir = joinPath(homedir(), '.cache', 'lockstep', 'shards') } = options;
  const { cacheBytes = workDefaults.cacheBytes, retryMs = workDefaults.retryMs } = options;
  const { onStatus = () => {}, onWarning = () => {} } = options;
  const join = parseJoin(joinLine);
  const fault = inject === undefined ? undefined : parseFault(inject);
  const clock = systemClock;
  const cores = availableParallelism();
  const threads = workers === 'auto' ? cores : workers;
  /** Computed once for each job. */
  const check = (job: LeafJob): Promise<Numerics> =>
    checkNumerics(job, { clock, tensorflow: tensorflow?.place, onThreadLost: tensorflow?.onThreadLost });
  const nodeId = Buffer.from(systemRandom(8)).toString('hex');
  return runAgent({
    connect: aborted =>
      connect(join, {
        nodeId,
        maxFrameBytes: MOST_FRAME_BYTES,
        timeoutMs: CONNECT_TIMEOUT_MS,
        signal: aborted,
        clock,
        random: systemRandom,
      }),
    clock,
    random: systemFraction,
    name,
    threads,
    version: readPackage().version,
    engines: (tensorflow ? (['tensorflow'] as const) : threadEngineNames).map(engine => ({
      engine,
      profile: profileOf(engine),
    })),
    retryMs,
    createNode: async job => {
      const { leafMs } = await check(job);
      return createAgentNode({
        job,
        threads,
        inThisThread: computesInOwnThread({ mayBlock, threads, fault, leafMs }),
        cores,
        clock,
        name: `node ${name}`,
        fault,
        tensorflow: tensorflow?.place,
        onWarning,
        onThreadLost: lost => {
          if (tensorflow) return tensorflow.onThreadLost(lost);
          const { thread, phase, reason } = lost;
          onWarning(
            `Thread ${thread} was lost in phase ${phase}: ${reason}. It is replaced; nothing else changes.`,
          );
        },
      });
    },
    check,
    cache: openShardCache(cacheDir, { maxBytes: cacheBytes, onWarning }),
    onStatus,
    signal,
  });
}

/** Of the characters that a name may have. */
function hostName(): string {
  return (
    hostname()
      .replaceAll(/[^\w.-]+/g, '-')
      .slice(0, 100) || 'node'
  );
}

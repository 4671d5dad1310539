// `doctor`: what this machine has and lacks, and whether it computes the bits that it should.

import { mkdtempSync, rmSync } from 'node:fs';
import { availableParallelism, cpus, freemem, tmpdir, totalmem } from 'node:os';
import { join } from 'node:path';
import * as v from 'valibot';
import { existingFolder, freeBytesOf, tryToWrite } from '../coordinator/disk.js';
import { loadMnist, mnistClasses, mnistShape } from '../coordinator/mnist.js';
import { systemClock } from '../shared/clock.js';
import { LockstepError, messageOf } from '../shared/errors.js';
import { compileModel } from '../shared/model.js';
import { presetSpec } from '../shared/presets.js';
import { threadEngineNames, parseSettings, path, type ThreadEngineName } from '../shared/settings.js';
import { engineProblem } from '../worker/engines/availability.js';
import { hasSharedMemory, hasSimd } from '../worker/features.js';
import { planMemory } from '../worker/memory.js';
import { diagnose, judgeSelfTest, type Check, type Facts, type SelfTest } from './diagnosis.js';
import { readPackage } from './package.js';
import { selfTestHash, selfTestSettings } from './self-test.js';
import { probeProcess } from './processes.js';
import { planProcesses, tensorflowRuntimes } from './tensorflow.js';
import { train } from './train.js';

export interface DoctorOptions {
  /** The folder that runs go to; `runs` by default. */
  readonly runsDir?: string;
  /** Ends the self-test early. */
  readonly signal?: AbortSignal;
}

const optionsSchema = v.strictObject({
  runsDir: v.optional(path),
  signal: v.optional(v.instance(AbortSignal, 'an AbortSignal')),
});

export interface DoctorReport {
  /** Whether training with the defaults works: no check has failed. */
  readonly isHealthy: boolean;
  readonly version: string;
  readonly nodeVersion: string;
  readonly platform: string;
  readonly architecture: string;
  readonly processor: string;
  readonly cores: number;
  readonly totalMemoryBytes: number;
  readonly freeMemoryBytes: number;
  readonly freeDiskBytes: number;
  readonly checks: readonly Check[];
  /** Absent if it could not be done. */
  readonly selfTest?: SelfTest;
}

/**
 * Looks at the machine and trains for a few seconds, in a temporary folder that is removed. Prints nothing.
 * @throws LOCKSTEP_BAD_SETTING, LOCKSTEP_INTERRUPTED
 */
export async function doctor(options: DoctorOptions = {}): Promise<DoctorReport> {
  parseSettings(optionsSchema, options);
  const { runsDir = 'runs', signal } = options;
  const { version, engines } = readPackage();
  const facts = await gather(runsDir, engines.node);
  const checks = diagnose(facts);
  const isReady = checks.every(({ status }) => status !== 'failed');
  const selfTest = isReady ? await trySelfTest(signal) : { problem: 'not done, since something is missing' };
  checks.push(judgeSelfTest(selfTest));
  return {
    isHealthy: checks.every(({ status }) => status !== 'failed'),
    version,
    nodeVersion: facts.nodeVersion,
    platform: process.platform,
    architecture: process.arch,
    processor: facts.processor,
    cores: facts.cores,
    totalMemoryBytes: facts.totalMemoryBytes,
    freeMemoryBytes: facts.freeMemoryBytes,
    freeDiskBytes: facts.disk.freeBytes,
    checks,
    ...('hash' in selfTest && { selfTest }),
  };
}

async function gather(runsDir: string, supportedNode: string): Promise<Facts> {
  const cores = availableParallelism();
  const problems = await Promise.all(
    threadEngineNames.map(async name => [name, await engineProblem(name)] as const),
  );
  return {
    nodeVersion: process.version,
    supportedNode,
    cores,
    processor: cpus()[0]?.model.trim() ?? 'unknown processor',
    hasSimd: hasSimd(),
    hasSharedMemory: hasSharedMemory(),
    // Newer Nodes know the limits of a container.
    freeMemoryBytes: 'availableMemory' in process ? process.availableMemory() : freemem(),
    totalMemoryBytes: Math.min(totalmem(), process.constrainedMemory() || Infinity),
    neededMemoryBytes: neededMemoryBytes(cores),
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- fromEntries loses the key types
    engineProblems: Object.fromEntries(problems) as Record<ThreadEngineName, string | undefined>,
    tensorflow: await lookForTensorflow(),
    disk: lookAtDisk(existingFolder(runsDir)),
    mnist: lookAtMnist(),
  };
}

/** Beside what threads share, each has a JavaScript engine of its own, and the main thread the dataset once more. */
function neededMemoryBytes(threads: number): number {
  const model = compileModel(presetSpec('lenet5', mnistClasses), mnistShape, mnistClasses);
  const samples = { train: 60_000, test: 10_000 };
  const { totalBytes, datasetBytes } = planMemory({ model, threads, leaf: 16, samples });
  return totalBytes + datasetBytes + (96 + 16 * threads) * 1_048_576;
}

/** What is installed, and what a process of it takes that has computed. */
async function lookForTensorflow(): Promise<Facts['tensorflow']> {
  const [best] = tensorflowRuntimes();
  if (!best) return undefined;
  const source = best.source === 'setup' ? 'set up' : 'as installed';
  try {
    const [plan] = await planProcesses({ devices: undefined, workers: 1 });
    const options = { clock: systemClock, onWarning: () => {} };
    const { leafMs, memoryBytes } = await probeProcess(plan, options);
    const { profile } = plan.place;
    const found =
      `${profile}; ${source}; a process takes ${Math.round(memoryBytes / 1e6)} MB, a leaf of 64 samples of LeNet-5 ` +
      `${leafMs.toFixed(1)} ms`;
    return { found, isBroken: false };
  } catch (error) {
    return { found: `${best.name}; ${source}; it does not compute: ${messageOf(error)}`, isBroken: true };
  }
}

function lookAtDisk(dir: string): Facts['disk'] {
  let freeBytes = 0;
  try {
    freeBytes = freeBytesOf(dir);
    tryToWrite(dir);
    return { dir, freeBytes };
  } catch (error) {
    return { dir, freeBytes, problem: messageOf(error) };
  }
}

function lookAtMnist(): Facts['mnist'] {
  try {
    return { digest: loadMnist().digest };
  } catch (error) {
    return { problem: messageOf(error) };
  }
}

async function trySelfTest(
  signal: AbortSignal | undefined,
): Promise<SelfTest | { readonly problem: string }> {
  let dir: string | undefined;
  try {
    dir = mkdtempSync(join(tmpdir(), 'lockstep-doctor-'));
    const out = join(dir, 'run');
    const training = train({ ...selfTestSettings, out, ...(signal && { signal }) });
    let threadsLost = 0;
    for await (const { type } of training) if (type === 'thread-lost') threadsLost++;
    const { hash, steps, workers, seconds, imagesPerSecond } = await training;
    return { hash, expectedHash: selfTestHash, steps, workers, seconds, imagesPerSecond, threadsLost };
  } catch (error) {
    if (error instanceof LockstepError && error.code === 'LOCKSTEP_INTERRUPTED') {
      throw new LockstepError('LOCKSTEP_INTERRUPTED', 'The self-test was interrupted.', { cause: error });
    }
    return { problem: messageOf(error) };
  } finally {
    if (dir !== undefined) rmSync(dir, { recursive: true, force: true });
  }
}

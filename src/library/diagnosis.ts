// What is good and what is missing on a machine: judged from facts alone.

import { threadEngineNames, type ThreadEngineName } from '../shared/settings.js';

export interface Check {
  readonly name: string;
  /** `failed`: training with the defaults cannot work. `warning`: something else may not. */
  readonly status: 'ok' | 'warning' | 'failed';
  readonly found: string;
  /** What to do; there wherever the status is not `ok`. */
  readonly advice?: string;
}

export interface Facts {
  readonly nodeVersion: string;
  /** As in package.json: `>=20`. */
  readonly supportedNode: string;
  readonly cores: number;
  readonly processor: string;
  readonly hasSimd: boolean;
  readonly hasSharedMemory: boolean;
  readonly freeMemoryBytes: number;
  readonly totalMemoryBytes: number;
  /** About what a training with the defaults takes. */
  readonly neededMemoryBytes: number;
  /** Why an engine is missing. */
  readonly engineProblems: Readonly<Record<ThreadEngineName, string | undefined>>;
  /** Where the engine `tensorflow` would come from, and what a process of it takes; undefined if it is not installed. */
  readonly tensorflow: { readonly found: string; readonly isBroken: boolean } | undefined;
  /** The folder under which runs are made, or the nearest above it that is there. */
  readonly disk: { readonly dir: string; readonly freeBytes: number; readonly problem?: string };
  readonly mnist: { readonly digest: string } | { readonly problem: string };
}

/** Checkpoints, metrics and hashes of a run with the defaults take a few MiB. */
const LEAST_DISK_BYTES = 32 * 1_048_576;

export function diagnose(facts: Facts): Check[] {
  const { nodeVersion, supportedNode, cores, processor, hasSimd, hasSharedMemory, mnist } = facts;
  return [
    { name: 'cores', status: 'ok', found: `${cores} (${processor})` },
    verdict(
      'node',
      `${nodeVersion}, supported is ${supportedNode}`,
      !isSupported(nodeVersion, supportedNode),
      {
        advice: `Install Node ${supportedNode}: https://nodejs.org.`,
      },
    ),
    verdict('SIMD', hasSimd ? 'WebAssembly SIMD' : 'no WebAssembly SIMD', !hasSimd, {
      advice:
        'Start Node without flags that turn WebAssembly off; on x64 the processor needs SSE4.1, which all have since 2008.',
    }),
    verdict(
      'shared memory',
      `${hasSharedMemory ? '' : 'no '}shared WebAssembly memory and Atomics`,
      !hasSharedMemory,
      {
        advice:
          'Start Node without flags that turn SharedArrayBuffer off, and without a limit of address space.',
      },
    ),
    memoryCheck(facts),
    ...threadEngineNames.map(name => engineCheck(name, facts.engineProblems[name])),
    // Nobody lacks it who has not asked for it.
    verdict(
      'engine tensorflow',
      facts.tensorflow?.found ?? 'not installed; lockstep setup tensorflow gets it',
      facts.tensorflow?.isBroken === true,
      { badStatus: 'warning', advice: 'Build it anew: lockstep setup tensorflow.' },
    ),
    diskCheck(facts.disk),
    verdict(
      'MNIST',
      'digest' in mnist ? `the four published files, dataset digest ${mnist.digest}` : mnist.problem,
      'problem' in mnist,
      { advice: 'Install the packages again: npm ci. Your own images, with --data, do without it.' },
    ),
  ];
}

function verdict(
  name: string,
  found: string,
  isBad: boolean,
  { advice, badStatus = 'failed' }: { advice: string; badStatus?: 'failed' | 'warning' },
): Check {
  return isBad ? { name, status: badStatus, found, advice } : { name, status: 'ok', found };
}

/** The range has the form `>=20`. */
function isSupported(version: string, range: string): boolean {
  return firstNumber(version) >= firstNumber(range);
}

function firstNumber(text: string): number {
  return Number(/\d+/.exec(text)?.[0]);
}

function memoryCheck({ freeMemoryBytes, totalMemoryBytes, neededMemoryBytes }: Facts): Check {
  const found =
    `${gibibytes(freeMemoryBytes)} of ${gibibytes(totalMemoryBytes)} free; ` +
    `the defaults take about ${gibibytes(neededMemoryBytes)}`;
  return verdict('memory', found, freeMemoryBytes < neededMemoryBytes, {
    badStatus: 'warning',
    advice: 'End other programs, or use fewer workers.',
  });
}

/** The defaults need one engine only. */
function engineCheck(name: ThreadEngineName, problem: string | undefined): Check {
  return verdict(`engine ${name}`, problem ?? 'available', problem !== undefined, {
    badStatus: name === 'wasm' ? 'failed' : 'warning',
    advice:
      name === 'wasm' ? 'Put right what is said here and above.' : `It is needed for --engine ${name} only.`,
  });
}

function diskCheck({ dir, freeBytes, problem }: Facts['disk']): Check {
  if (problem !== undefined) {
    return {
      name: 'disk',
      status: 'failed',
      found: `${dir} cannot be written: ${problem}`,
      advice: 'Train in another folder, or name one with --out.',
    };
  }
  return verdict('disk', `${gibibytes(freeBytes)} free in ${dir}, writable`, freeBytes < LEAST_DISK_BYTES, {
    advice: 'Free some space, or name a folder on another disk with --out.',
  });
}

function gibibytes(bytes: number): string {
  const mebibytes = bytes / 1_048_576;
  return mebibytes < 1024 ? `${Math.floor(mebibytes)} MiB` : `${(mebibytes / 1024).toFixed(1)} GiB`;
}

/** How the self-test went. */
export interface SelfTest {
  readonly hash: string;
  readonly expectedHash: string;
  readonly steps: number;
  readonly workers: number;
  readonly seconds: number;
  readonly imagesPerSecond: number;
  /** Threads that died and were replaced. */
  readonly threadsLost: number;
}

export function judgeSelfTest(test: SelfTest | { readonly problem: string }): Check {
  const name = 'self-test';
  if ('problem' in test) {
    return {
      name,
      status: 'failed',
      found: test.problem,
      advice: 'Put right what is said here and above, and ask the doctor again.',
    };
  }
  const { hash, expectedHash, steps, workers, seconds, threadsLost } = test;
  const trained = `${steps} steps with ${workers} ${workers === 1 ? 'worker' : 'workers'} in ${seconds.toFixed(1)} s`;
  if (hash !== expectedHash) {
    return {
      name,
      status: 'failed',
      found: `hash ${hash}, expected ${expectedHash}: this machine or this installation computes other bits (${trained})`,
      advice:
        'Install the package again and repeat. If the hash stays, report it with the output of --json; if it varies, test the memory of the machine.',
    };
  }
  return verdict(
    name,
    `hash ${hash}, as expected: ${trained}${threadsLost > 0 ? `; threads lost and replaced: ${threadsLost}` : ''}`,
    threadsLost > 0,
    { badStatus: 'warning', advice: 'Threads should not die. If memory is short, use fewer workers.' },
  );
}

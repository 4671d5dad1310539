// Why TensorFlow uses no GPU: what this machine says of its driver, of CUDA's libraries and of its devices, and what
// follows from it.

import { existsSync } from 'node:fs';
import * as v from 'valibot';
import { plural } from '../shared/format.js';
import type { RunChild } from './setup-child.js';
import { listGpus } from './tensorflow.js';

export interface GpuFacts {
  /** Whether the kernel has the driver, or WSL's stand-in for it. */
  readonly isInKernel: boolean;
  /** The GPUs that nvidia-smi lists; undefined if it is not there or fails. */
  readonly listed: readonly string[] | undefined;
  /** What the loader says of libcuda.so.1; null if it loads. */
  readonly driverProblem: string | null;
  /** The newest CUDA that the driver knows, 12040 for 12.4; 0 if it does not say. */
  readonly driverCuda: number;
  /** What cuInit returns, 0 for success, and how many devices there are then. */
  readonly initCode: number;
  readonly devices: number;
  /** What the loader says of those of CUDA's libraries that do not load. */
  readonly libraryProblems: readonly string[];
}

export interface GpuVerdict {
  readonly missing: 'driver' | 'device' | 'library' | 'nothing';
  /** What was found and what to do, as sentences. */
  readonly message: string;
}

/** The oldest driver that runs programs of any CUDA 12, with the CUDA that it knows itself. */
const OLDEST_DRIVER = { version: '525', cuda: 12_000 };

function driverIsMissing(message: string): GpuVerdict {
  return { missing: 'driver', message: `The driver is missing: ${message}` };
}

/** What is missing for TensorFlow to use a GPU: the first of driver, device and library that is. */
export function judgeGpu(facts: GpuFacts): GpuVerdict {
  const { isInKernel, listed, driverProblem, driverCuda, initCode, devices, libraryProblems } = facts;
  if (driverProblem !== null && !isInKernel) {
    return driverIsMissing(
      `there is no /proc/driver/nvidia${listed ? '' : ', no nvidia-smi that answers'}, and the loader says: ` +
        `${driverProblem}. Install NVIDIA's driver, ${OLDEST_DRIVER.version} or newer; a container gets that of its ` +
        'host (docker run --gpus all).',
    );
  }
  if (driverProblem !== null) {
    return driverIsMissing(
      `the kernel has it, and the loader says: ${driverProblem}. In a container start it with its GPUs ` +
        '(docker run --gpus all); else install the libraries that belong to the driver.',
    );
  }
  if (!isInKernel) {
    return driverIsMissing(
      'libcuda.so.1 is there, and no /proc/driver/nvidia: the kernel has not loaded it. After an update of driver or ' +
        'kernel restart the machine; start a container with its GPUs (docker run --gpus all).',
    );
  }
  if (driverCuda > 0 && driverCuda < OLDEST_DRIVER.cuda) {
    const has = `${Math.floor(driverCuda / 1000)}.${(driverCuda % 1000) / 10}`;
    return driverIsMissing(
      `the one here knows CUDA up to ${has}. Install ${OLDEST_DRIVER.version} or newer.`,
    );
  }
  if (listed === undefined) {
    return driverIsMissing(
      'nvidia-smi, which belongs to it and lists the GPUs, is not there or fails: see what it says.',
    );
  }
  if (devices === 0 || listed.length === 0) {
    return {
      missing: 'device',
      message:
        `The device is missing: the driver is there, nvidia-smi lists ${plural(listed.length, 'GPU')}, and CUDA ` +
        `${initCode === 0 ? `finds ${devices}` : `does not start (cuInit returns ${initCode})`}. Unset CUDA_VISIBLE_DEVICES if it is ` +
        'set; a container or a virtual machine has to be given its GPUs.',
    };
  }
  if (libraryProblems.length > 0) {
    return {
      missing: 'library',
      message: `A library is missing; the loader says: ${libraryProblems.join('; ')}.`,
    };
  }
  return {
    missing: 'nothing',
    message: `Driver, libraries and ${plural(devices, 'device')} (${listed.join(', ')}) are there, and TensorFlow uses none all the same.`,
  };
}

/** Loads the driver's library as a program would, and whatever its arguments name: libraries, or patterns of paths. */
const ASK = `
import ctypes, glob, json, sys
def load(name):
    try:
        return ctypes.CDLL(name), None
    except OSError as error:
        return None, str(error)
cuda, problem = load('libcuda.so.1')
facts = {'driverProblem': problem, 'driverCuda': 0, 'initCode': 0, 'devices': 0}
if cuda:
    number = ctypes.c_int(0)
    if cuda.cuDriverGetVersion(ctypes.byref(number)) == 0:
        facts['driverCuda'] = number.value
    facts['initCode'] = cuda.cuInit(0)
    if facts['initCode'] == 0 and cuda.cuDeviceGetCount(ctypes.byref(number)) == 0:
        facts['devices'] = number.value
paths = [path for name in sys.argv[1:] for path in (sorted(glob.glob(name)) if '*' in name else [name])]
facts['libraryProblems'] = [problem for path in paths for problem in [load(path)[1]] if problem]
print(json.dumps(facts))
`;

const answerSchema = v.object({
  driverProblem: v.nullable(v.string()),
  driverCuda: v.number(),
  initCode: v.number(),
  devices: v.number(),
  libraryProblems: v.array(v.string()),
});

/** `libraries` are names, or patterns of paths. Needs Python. @throws LOCKSTEP_SETUP */
export async function askGpu(run: RunChild, libraries: readonly string[]): Promise<GpuFacts> {
  const answer = await run('looking for a GPU', 'python3', ['-c', ASK, ...libraries]);
  return {
    isInKernel: existsSync('/proc/driver/nvidia') || existsSync('/dev/dxg'),
    listed: (await listGpus())?.map(({ name }) => name),
    ...v.parse(answerSchema, JSON.parse(answer)),
  };
}

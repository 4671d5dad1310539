// TensorFlow on this machine: what is installed, and where it can compute.

import { execFile } from 'node:child_process';
import { availableParallelism } from 'node:os';
import { promisify } from 'node:util';
import { LockstepError } from '../shared/errors.js';
import type { TrainSettings } from '../shared/settings.js';
import {
  chooseRuntime,
  findRuntimes,
  profileName,
  setupFolder,
  tensorflowEnvironment,
  type TensorflowPlace,
  type TensorflowRuntime,
} from '../worker/engines/tensorflow/runtime.js';

/** The best first. */
export function tensorflowRuntimes(): TensorflowRuntime[] {
  return findRuntimes(setupFolder(process.env), process.cwd());
}

/** A process to be: what it is called on this machine, and where it computes. */
export interface ProcessPlan {
  readonly name: string;
  readonly place: TensorflowPlace;
  /** Its environment, without what is a secret of this process. */
  readonly env: Readonly<Record<string, string | undefined>>;
}

export interface Gpu {
  readonly index: number;
  readonly name: string;
}

/**
 * One process for each device that is chosen, on the CPU one for each worker, at most `most` where these are `auto`. By default all GPUs, where there are any
 * and TensorFlow can use them, else the CPU.
 * @throws LOCKSTEP_NO_TENSORFLOW, LOCKSTEP_NO_GPU
 */
export async function planProcesses({
  devices,
  workers,
  most = Infinity,
}: Pick<TrainSettings, 'devices' | 'workers'> & { readonly most?: number }): Promise<ProcessPlan[]> {
  const runtimes = tensorflowRuntimes();
  const mayUseGpus = devices !== 'cpu' && (devices !== undefined || runtimes.some(({ isGpu }) => isGpu));
  const gpus = mayUseGpus ? allotted((await listGpus()) ?? [], process.env['CUDA_VISIBLE_DEVICES']) : [];
  const chosen = chooseGpus(devices, gpus);
  if (chosen.length === 0) {
    const count = workers === 'auto' ? Math.min(availableParallelism(), most) : workers;
    return Array.from({ length: count }, (_, i) => placeOn(`cpu${i}`, 'cpu', undefined, runtimes));
  }
  return chosen.map(({ index, name }) => placeOn(`gpu${index}`, index, name, runtimes));
}

/** @throws LOCKSTEP_NO_GPU where one is named that there is not */
export function chooseGpus(devices: TrainSettings['devices'], gpus: readonly Gpu[]): readonly Gpu[] {
  if (devices === undefined || devices === 'cpu') return devices === 'cpu' ? [] : gpus;
  const missing = (what: string): LockstepError =>
    new LockstepError(
      'LOCKSTEP_NO_GPU',
      `${what}; nvidia-smi lists ${gpus.length === 0 ? 'none' : gpus.map(({ index }) => index).join(', ')}.`,
    );
  if (devices === 'all') {
    if (gpus.length === 0) throw missing('There is no GPU');
    return gpus;
  }
  const texts = devices.split(',');
  const twice = texts.find((text, i) => texts.findIndex(other => Number(other) === Number(text)) < i);
  if (twice !== undefined) {
    throw new LockstepError('LOCKSTEP_BAD_SETTING', `Setting devices names GPU ${twice} twice.`);
  }
  return texts.map(text => {
    const gpu = gpus.find(({ index }) => index === Number(text));
    if (!gpu) throw missing(`There is no GPU ${text}`);
    return gpu;
  });
}

/** Of a machine that is shared: those that this process may see, by their numbers. */
export function allotted(gpus: readonly Gpu[], visible: string | undefined): readonly Gpu[] {
  if (visible === undefined || !/^(-1|\d+(,\d+)*)?$/.test(visible)) return gpus;
  const numbers = new Set(visible.split(',').map(text => (text === '' ? -1 : Number(text))));
  return gpus.filter(({ index }) => numbers.has(index));
}

/** In the order of nvidia-smi; undefined if that is not there or fails. */
export async function listGpus(): Promise<Gpu[] | undefined> {
  try {
    const query = ['--query-gpu=index,name', '--format=csv,noheader'];
    return parseGpus((await promisify(execFile)('nvidia-smi', query)).stdout);
  } catch {
    return undefined;
  }
}

/** Of lines such as `0, NVIDIA H100 80GB HBM3`. */
export function parseGpus(text: string): Gpu[] {
  return text.split('\n').flatMap(line => {
    const [, index, name] = /^(\d+), *(.*\S)\s*$/.exec(line) ?? [];
    return index === undefined ? [] : [{ index: Number(index), name }];
  });
}

function placeOn(
  name: string,
  device: TensorflowPlace['device'],
  deviceName: string | undefined,
  runtimes: readonly TensorflowRuntime[],
): ProcessPlan {
  const runtime = chooseRuntime(runtimes, device);
  const settings = tensorflowEnvironment(device, process.env);
  // The last two have oneDNN compute otherwise, unnamed.
  const { LOCKSTEP_JOIN: _, ONEDNN_MAX_CPU_ISA: __, DNNL_MAX_CPU_ISA: ___, ...inherited } = process.env;
  const profile = profileName(runtime, deviceName, settings);
  return { name, place: { runtime, device, profile }, env: { ...inherited, ...settings } };
}

/** Where `setup` builds. */
export function tensorflowFolder(): string {
  return setupFolder(process.env);
}

/** For a program that is run here, with what is set for it. */
export function inheritedEnvironment(settings: Readonly<Record<string, string>>): NodeJS.ProcessEnv {
  return { ...process.env, ...settings };
}

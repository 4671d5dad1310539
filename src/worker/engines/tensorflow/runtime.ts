// Where TensorFlow comes from on this machine, and the name of its arithmetic.
//
// A package that the user has installed, with its native binding, is taken as it is; else what `lockstep setup tensorflow`
// has built in the user's cache folder.

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { cpus, homedir } from 'node:os';
import { dirname, join } from 'node:path';
import * as v from 'valibot';
import { LockstepError } from '../../../shared/errors.js';
import { userFolder } from '../../../shared/user-folder.js';

/** Everything that a thread needs to compute with TensorFlow. */
export interface TensorflowPlace {
  readonly runtime: TensorflowRuntime;
  readonly device: Device;
  /** The name of the arithmetic there, see `profileName`. */
  readonly profile: string;
}

export interface TensorflowRuntime {
  /** What it is, for people and for the profile. */
  readonly name: string;
  /** The module to load. */
  readonly entry: string;
  /** Whether it can use a GPU, where there is one. */
  readonly isGpu: boolean;
  readonly source: 'package' | 'setup';
}

/** What a finished setup leaves in its folder. */
export const READY_FILE = 'ready.json';
export const readySchema = v.strictObject({ tensorflow: v.string(), tfjs: v.string(), isGpu: v.boolean() });
const PACKAGES = [
  { name: '@tensorflow/tfjs-node-gpu', isGpu: true },
  { name: '@tensorflow/tfjs-node', isGpu: false },
] as const;

/** In the user's cache folder. */
export function setupFolder(env: Readonly<Record<string, string | undefined>>): string {
  return join(userFolder(env, 'XDG_CACHE_HOME') ?? join(homedir(), '.cache'), 'lockstep', 'tensorflow');
}

/** Those that are there, the best first: what was built and proved before packages, with a GPU before without. */
export function findRuntimes(folder: string, workingFolder: string): TensorflowRuntime[] {
  const byGpu = (a: TensorflowRuntime, b: TensorflowRuntime): number => Number(b.isGpu) - Number(a.isGpu);
  return [...builtRuntimes(folder).toSorted(byGpu), ...installedPackages(workingFolder).toSorted(byGpu)];
}

/** Beside this package, or in the project of whoever calls it. */
function installedPackages(workingFolder: string): TensorflowRuntime[] {
  const requires = [createRequire(import.meta.url), createRequire(join(workingFolder, 'package.json'))];
  return PACKAGES.flatMap(({ name, isGpu }) => {
    for (const require of requires) {
      let entry: string;
      try {
        entry = require.resolve(name);
      } catch {
        continue;
      }
      const folder = dirname(dirname(entry));
      // Where installation scripts do not run, the package lies there without its binding.
      if (!hasBinding(folder)) continue;
      const { version } = v.parse(
        v.object({ version: v.string() }),
        JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')),
      );
      return [{ name: `${name} ${version}`, entry, isGpu, source: 'package' as const }];
    }
    return [];
  });
}

function hasBinding(folder: string): boolean {
  const lib = join(folder, 'lib');
  return existsSync(lib) && readdirSync(lib).some(dir => existsSync(join(lib, dir, 'tfjs_binding.node')));
}

function builtRuntimes(all: string): TensorflowRuntime[] {
  if (!existsSync(all)) return [];
  return readdirSync(all).flatMap(name => {
    // What is still being built.
    if (name.startsWith('.')) return [];
    const folder = join(all, name);
    const path = join(folder, READY_FILE);
    if (!existsSync(path)) return [];
    const parsed = v.safeParse(v.pipe(v.string(), v.parseJson(), readySchema), readFileSync(path, 'utf8'));
    if (!parsed.success) return [];
    const { tensorflow, tfjs, isGpu } = parsed.output;
    const entry = join(folder, 'node_modules', '@tensorflow', 'tfjs-node', 'dist', 'index.js');
    return [{ name: `TensorFlow ${tensorflow}, tfjs-node ${tfjs}`, entry, isGpu, source: 'setup' as const }];
  });
}

/** The best runtime that may be used. @throws LOCKSTEP_NO_TENSORFLOW, with the command that mends it */
export function chooseRuntime(runtimes: readonly TensorflowRuntime[], device: Device): TensorflowRuntime {
  const fit = runtimes.find(({ isGpu }) => isGpu || device === 'cpu');
  if (fit) return fit;
  const what = device === 'cpu' ? 'TensorFlow is' : 'TensorFlow for GPUs is';
  throw new LockstepError(
    'LOCKSTEP_NO_TENSORFLOW',
    `${what} not installed on this machine. Get it with: lockstep setup tensorflow${device === 'cpu' ? '' : ' --gpu'}`,
  );
}

/** `cpu`, or the number of a GPU. */
export type Device = 'cpu' | number;

/**
 * What decides the bits of TensorFlow beside its version and device: threads within an operation, oneDNN, and whether
 * its kernels may vary. Each process has one thread for operations, so that its results do not depend on the machine's
 * cores, and processes do not take them from one another. Flags for XLA count for nothing.
 * @throws LOCKSTEP_BAD_SETTING
 */
export function tensorflowEnvironment(
  device: Device,
  env: Readonly<Record<string, string | undefined>>,
): Record<string, string> {
  // TensorFlow takes more notations, and for some of them its default, which would be a name for other bits.
  const allowed = (name: string, form: RegExp, expected: string): string | undefined => {
    const value = env[name];
    if (value === undefined || form.test(value)) return value;
    throw new LockstepError(
      'LOCKSTEP_BAD_SETTING',
      `The environment has ${name}=${value}, expected ${expected}, or nothing.`,
    );
  };
  return {
    TF_NUM_INTRAOP_THREADS: allowed('TF_NUM_INTRAOP_THREADS', /^[1-9]\d{0,3}$/, 'a count from 1') ?? '1',
    TF_NUM_INTEROP_THREADS: '1',
    TF_ENABLE_ONEDNN_OPTS: allowed('TF_ENABLE_ONEDNN_OPTS', /^[01]$/, '0 or 1') ?? '1',
    TF_DETERMINISTIC_OPS: allowed('TF_DETERMINISTIC_OPS', /^[01]$/, '0 or 1') ?? '1',
    // Sums in f32, not in the 10 bits of TensorFloat-32.
    NVIDIA_TF32_OVERRIDE: allowed('NVIDIA_TF32_OVERRIDE', /^[01]$/, '0 or 1') ?? '0',
    XLA_FLAGS: '',
    TF_XLA_FLAGS: '',
    TF_FORCE_GPU_ALLOW_GROWTH: 'true',
    TF_CPP_MIN_LOG_LEVEL: env['TF_CPP_MIN_LOG_LEVEL'] ?? '2',
    // As nvidia-smi numbers them; CUDA itself begins with the fastest.
    CUDA_DEVICE_ORDER: 'PCI_BUS_ID',
    CUDA_VISIBLE_DEVICES: device === 'cpu' ? '-1' : String(device),
  };
}

/** The name of the arithmetic: processes of equal names give equal bits. `deviceName` is that of a GPU. */
export function profileName(
  { name }: TensorflowRuntime,
  deviceName: string | undefined,
  env: Readonly<Record<string, string | undefined>>,
): string {
  const onOff = (variable: string): string => (env[variable] === '0' ? 'off' : 'on');
  return [
    name,
    deviceName ?? cpus()[0]?.model.trim() ?? 'unknown processor',
    `${env['TF_NUM_INTRAOP_THREADS'] ?? '?'} intra-op thread(s)`,
    `oneDNN ${onOff('TF_ENABLE_ONEDNN_OPTS')}`,
    `deterministic ops ${onOff('TF_DETERMINISTIC_OPS')}`,
    ...(deviceName === undefined ? [] : [`TF32 ${onOff('NVIDIA_TF32_OVERRIDE')}`]),
  ].join('; ');
}

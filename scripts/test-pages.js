// Opens reports and the study in a headless Chromium, as a phone and as a wide screen, light and dark: nothing may be
// complained of, loaded or cut off, and the timeline must have losses and joins where the events of the run have them.
// A folder as argument keeps the pages and pictures of them.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { findChromium, withChromium } from './chromium.js';
import { plainEnv, run } from './run.js';

const main = join(dirname(fileURLToPath(import.meta.url)), '..', 'dist', 'cli', 'main.js');
const MOST_BYTES = 3e6;
/** Of the time of an event. */
const TOLERANCE = 0.01;
/** The kinds of marks whose place is compared. */
const kinds = { 'thread-lost': 'lost', 'node-lost': 'lost', 'node-joined': 'joined' };
const looks = [400, 1400].flatMap(width => ['light', 'dark'].map(scheme => ({ width, scheme })));

const [kept] = process.argv.slice(2);
const command = findChromium();
if (!command) {
  console.log('SKIPPED: there is no Chromium here, so no page was opened.');
} else {
  const dir = kept === undefined ? mkdtempSync(join(tmpdir(), 'lockstep-pages-')) : resolve(kept);
  mkdirSync(dir, { recursive: true });
  try {
    const pages = await makePages(dir);
    await withChromium(command, async open => {
      for (const page of pages) await check(open, page, dir);
    });
  } finally {
    if (kept === undefined) rmSync(dir, { recursive: true });
  }
}

async function makePages(dir) {
  const eventful = join(dir, 'eventful');
  const plain = join(dir, 'plain');
  await trainWithLosses(eventful, dir);
  lockstep('train', 'mlp', '--epochs', '2', '--quiet', '--out', plain);
  const both = join(dir, 'both.html');
  lockstep('report', eventful);
  lockstep('report', eventful, plain, '--out', both);
  lockstep('study', '--seeds', '1', '--out', join(dir, 'study'));
  return [
    { file: join(eventful, 'report.html'), runs: [eventful] },
    { file: both, runs: [eventful, plain] },
    { file: join(dir, 'study', 'study.html'), runs: [] },
  ];
}

/** A run that loses threads and agents, is interrupted, and goes on. */
async function trainWithLosses(out, dir) {
  const joinFile = join(dir, 'join');
  const listen = ['--listen', '127.0.0.1:0', '--join-file', joinFile];
  const faults = { LOCKSTEP_INJECT: 'exit:thread=0,step=40,phase=update' };
  const agents = [];
  const startAgent = name => {
    const agent = spawn(process.execPath, [main, 'worker', '--workers', '1', '--name', name], {
      stdio: 'ignore',
      env: { ...plainEnv, LOCKSTEP_JOIN: readFileSync(joinFile, 'utf8').trim() },
    });
    agents.push(agent);
  };
  try {
    const first = startRun(
      ['lenet5', '--epochs', '6', '--batch', '1024', '--workers', '1', ...listen, '--out', out],
      faults,
    );
    let isAgentKilled = false;
    for await (const event of first.events) {
      if (event.type === 'listening') for (const name of ['attic', 'cellar']) startAgent(name);
      if (event.type === 'step' && event.step > 120 && !isAgentKilled) {
        isAgentKilled = true;
        agents[0].kill('SIGKILL');
        startAgent('attic again');
      }
      if (event.type === 'epoch' && event.epoch === 4) first.child.kill('SIGINT');
    }
    const second = startRun(['--resume', out, ...listen], {});
    for await (const event of second.events) if (event.type === 'listening') startAgent('late');
    if ((await second.ended) !== 0) throw new Error('The run that was resumed has failed.');
  } finally {
    for (const agent of agents) {
      if (agent.exitCode !== null || agent.signalCode !== null) continue;
      agent.kill('SIGKILL');
      await once(agent, 'exit');
    }
  }
}

function startRun(args, env) {
  const child = spawn(process.execPath, [main, 'train', ...args, '--json'], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...plainEnv, ...env },
  });
  const ended = once(child, 'close').then(([code]) => code);
  async function* read() {
    for await (const line of createInterface({ input: child.stdout })) yield JSON.parse(line);
  }
  return { child, ended, events: read() };
}

function lockstep(...args) {
  return run(process.execPath, [main, ...args]);
}

async function check(open, { file, runs }, dir) {
  const { size } = statSync(file);
  const name = basename(file);
  const fail = (what, { width, scheme }) => {
    throw new Error(`${name}, ${width} px, ${scheme}: ${what}`);
  };
  if (size >= MOST_BYTES) throw new Error(`${name} has ${size} bytes`);
  for (const look of looks) {
    const page = await open(pathToFileURL(file).href, look);
    const { pageWidth, background, cut } = await page.evaluate(measure);
    if (page.complaints.length > 0) fail(`complains: ${page.complaints.join('; ')}`, look);
    if (page.requests.length > 0) fail(`loads ${page.requests.join(', ')}`, look);
    if (pageWidth > look.width) fail(`is ${pageWidth} px wide`, look);
    const isDark = background
      .match(/\d+/g)
      .slice(0, 3)
      .every(level => Number(level) < 64);
    if (isDark !== (look.scheme === 'dark')) fail(`has the background ${background}`, look);
    if (cut.length > 0) fail(`cuts off ${cut.join(', ')}`, look);
    if (runs.length > 0) compareTimes(await page.evaluate(readTimelines), runs, what => fail(what, look));
    if (kept !== undefined) {
      const picture = join(dir, `${basename(file, '.html')}-${look.width}-${look.scheme}.png`);
      writeFileSync(picture, await page.picture());
    }
    await page.close();
  }
  console.log(`ok  ${name}: ${Math.ceil(size / 1000)} kB`);
}

/** Runs in the page. */
function measure() {
  const cut = [];
  for (const svg of document.querySelectorAll('svg')) {
    const box = svg.getBoundingClientRect();
    if (box.width === 0) continue;
    for (const axis of svg.querySelectorAll('[aria-label$="axis tick label"]')) {
      const labels = [...axis.querySelectorAll('text')].map(label => label.getBoundingClientRect());
      const isTouched = labels.some((label, index) => {
        const next = labels[index + 1];
        return next && next.left < label.right && next.top < label.bottom && label.top < next.bottom;
      });
      if (isTouched) cut.push(`labels of "${svg.getAttribute('aria-label')}", one by the next`);
    }
    for (const text of svg.querySelectorAll('text')) {
      const { left, right, top, bottom } = text.getBoundingClientRect();
      if (left < box.left - 1 || right > box.right + 1 || top < box.top - 1 || bottom > box.bottom + 1)
        cut.push(`"${text.textContent}" of "${svg.getAttribute('aria-label')}"`);
    }
  }
  return {
    pageWidth: document.documentElement.scrollWidth,
    background: getComputedStyle(document.body).backgroundColor,
    cut,
  };
}

/** Runs in the page: of each timeline that is seen, the marks with their places in seconds on its axis. */
function readTimelines() {
  return [...document.querySelectorAll('figure[id$=timeline]')].map(figure => {
    const svg = [...figure.querySelectorAll('svg')].find(drawn => drawn.getBoundingClientRect().width > 0);
    const placed = selector =>
      [...svg.querySelectorAll(selector)].map(element => {
        const { left, right } = element.getBoundingClientRect();
        return { x: (left + right) / 2, text: element.textContent };
      });
    const ticks = placed('[aria-label="x-axis tick"] > *');
    const values = placed('[aria-label="x-axis tick label"] text').map(({ text }) =>
      Number(text.replaceAll(',', '')),
    );
    const scale = (values.at(-1) - values[0]) / (ticks.at(-1).x - ticks[0].x);
    return placed('[aria-label=dot] > *').map(({ x, text }) => ({
      seconds: values[0] + (x - ticks[0].x) * scale,
      text,
    }));
  });
}

function compareTimes(timelines, runs, fail) {
  if (timelines.length !== runs.length) fail(`has ${timelines.length} timelines`);
  for (const [index, dir] of runs.entries()) {
    const expected = eventsOf(dir);
    if (index === 0 && Object.keys(kinds).some(type => expected.every(event => event.type !== type))) {
      fail(`${dir} has too few kinds of events to compare`);
    }
    const shown = timelines[index].filter(({ text }) => /^(lost|joined)/.test(text));
    if (shown.length !== expected.length)
      fail(`shows ${shown.length} of ${expected.length} losses and joins`);
    for (const { type, seconds } of expected) {
      const isNear = shown.some(
        mark => mark.text.startsWith(kinds[type]) && Math.abs(mark.seconds - seconds) <= TOLERANCE * seconds,
      );
      if (!isNear) fail(`has no ${type} at ${seconds} s, but ${JSON.stringify(shown)}`);
    }
  }
}

/** Losses and joins with the seconds that processes had been at work on the run. */
function eventsOf(dir) {
  const found = [];
  let beforeMs = 0;
  let lastMs = 0;
  for (const line of readFileSync(join(dir, 'events.jsonl'), 'utf8').trimEnd().split('\n')) {
    const { type, timeMs } = JSON.parse(line);
    if (type === 'start') {
      beforeMs += lastMs;
      lastMs = 0;
    }
    lastMs = Math.max(lastMs, timeMs);
    if (type in kinds) found.push({ type, seconds: (beforeMs + timeMs) / 1000 });
  }
  return found;
}

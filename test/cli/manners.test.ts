// What holds for every command: help with examples, JSON alone with --json, and a reader that leaves early.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { formatJoin } from '#dist/shared/join.js';
import { inTemporaryFolder, lockstep } from '../support/cli.js';
import { goodFigures, writeRuns } from '../support/study.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const main = join(root, 'dist', 'cli', 'main.js');

/** Of a port that is reserved, and where nobody listens. */
const nobody = formatJoin({
  host: '127.0.0.1',
  port: 1,
  key: { id: '0123456789abcdef', secret: new Uint8Array(32) },
  isEncrypted: true,
});

/** A short call of each command. Where runs cannot be made, the doctor finishes without a self-test. */
const calls: Record<string, string[]> = {
  train: ['train', 'mlp', '--max-steps', '2', '--out', 'kept'],
  worker: ['worker', nobody, '--retry', '1s'],
  model: ['model', 'mlp'],
  bench: ['bench', 'mlp', '--workers', '1', '--repetitions', '1', '--warm-up-ms', '0', '--measure-ms', '50'],
  data: ['data'],
  doctor: ['doctor'],
  setup: ['setup', 'tensorflow'],
  completion: ['completion', 'bash'],
  eval: ['eval', 'kept'],
  export: ['export', 'kept', '--to', 'onnx'],
  predict: ['predict', 'kept', '0'],
  report: ['report', 'kept'],
  runs: ['runs', '.'],
  verify: ['verify', 'kept'],
  study: ['study', '--seeds', '1'],
};

/** A folder where the command finds the run that it asks for. */
async function inFolderFor(name: string, work: (cwd: string) => Promise<void>): Promise<void> {
  await inTemporaryFolder(async cwd => {
    writeFileSync(join(cwd, 'runs'), 'a file');
    if (['eval', 'export', 'predict', 'report', 'runs', 'verify'].includes(name))
      await lockstep(calls.train, { cwd });
    // Its runs are finished: nothing is trained.
    if (name === 'study') writeRuns(join(cwd, 'study'), [1], goodFigures);
    await work(cwd);
  });
}

test('alone, with --help and with help every command has one line', async () => {
  const { code, stdout, stderr } = await lockstep([]);
  assert.deepEqual([code, stderr], [0, '']);
  const named = Array.from(stdout.matchAll(/^ {2}lockstep (\w+).* {2}[A-Z]/gm), match => match[1]);
  assert.deepEqual(named.toSorted(), Object.keys(calls).toSorted());
  for (const word of ['--help', 'help']) assert.equal((await lockstep([word])).stdout, stdout);
});

test('--version is that of the package', async () => {
  const { version }: { version: string } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  assert.deepEqual(await lockstep(['--version'], { cwd: '/' }), {
    code: 0,
    stdout: `${version}\n`,
    stderr: '',
  });
});

for (const [name, call] of Object.entries(calls)) {
  test(`${name} --help has examples, and --json among the flags`, async () => {
    const { code, stdout, stderr } = await lockstep([name, '--help']);
    assert.deepEqual([code, stderr], [0, '']);
    assert.match(stdout, new RegExp(`\nExamples:\n[^]*lockstep ${name}`));
    assert.match(stdout, /\n {2}--json /);
  });

  test(`${name} --json prints objects and nothing else`, async () => {
    await inFolderFor(name, async cwd => {
      const { stdout, stderr } = await lockstep([...call, '--json'], { cwd });
      assert.equal(stderr, '');
      const lines = stdout.trimEnd().split('\n');
      for (const line of lines) assert.equal(typeof JSON.parse(line), 'object');
      if (name !== 'train' && name !== 'worker') assert.equal(lines.length, 1);
    });
  });

  test(`${name} with a bad flag and --json prints an error with its numbers`, async () => {
    const { code, stdout, stderr } = await lockstep([...call, '--jsno', '--json']);
    assert.deepEqual([code, stderr], [2, '']);
    const { message, ...rest }: { message: string } = JSON.parse(stdout);
    assert.deepEqual(rest, { type: 'error', code: 'LOCKSTEP_USAGE', step: 0, timeMs: 0 });
    assert.match(message, /^Unknown flag --jsno\. The nearest is --json\./);
  });

  test(`${name} ends quietly where nobody reads`, async () => {
    await inFolderFor(name, async cwd => {
      const child = spawn(process.execPath, [main, ...call], { cwd, stdio: ['ignore', 'pipe', 'pipe'] });
      child.stdout.destroy();
      let stderr = '';
      child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
      const [code] = await once(child, 'close');
      assert.deepEqual([code, stderr], [141, '']);
    });
  });
}

const unknown: [string, string][] = [
  ['trian', 'train'],
  ['docter', 'doctor'],
  ['complete', 'completion'],
  ['modle', 'model'],
];

for (const [word, nearest] of unknown) {
  test(`the unknown command ${word} is answered with ${nearest}`, async () => {
    const { code, stdout, stderr } = await lockstep([word, '--seed', '3']);
    assert.deepEqual([code, stdout], [2, '']);
    assert.equal(
      stderr,
      `LOCKSTEP_USAGE: Unknown command ${word}. The nearest is ${nearest}. \`lockstep --help\` lists what there is.\n`,
    );
  });
}

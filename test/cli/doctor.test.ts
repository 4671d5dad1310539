// `lockstep doctor`: its lines, its JSON, and its exit code where something is missing.

import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdirSync, readdirSync, rmSync, symlinkSync, watch } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { DoctorReport } from '#dist/library/index.js';
import { selfTestHash } from '#dist/library/self-test.js';
import { engineNames } from '#dist/shared/settings.js';
import { inTemporaryFolder, lockstep } from '../support/cli.js';

const root = fileURLToPath(new URL('../..', import.meta.url));

test('a line for everything, the hash of the self-test, and nothing left behind', async () => {
  await inTemporaryFolder(async cwd => {
    const { code, stdout, stderr } = await lockstep(['doctor'], { cwd, env: { TMPDIR: cwd } });
    assert.equal(code, 0, stdout);
    assert.equal(stderr, '');
    assert.match(stdout, /^lockstep \d+\.\d+\.\d+ on \w+ \w+\nok +cores +\d+ \(/);
    for (const name of [
      'node',
      'SIMD',
      'shared memory',
      'disk',
      'MNIST',
      ...engineNames.map(engine => `engine ${engine}`),
    ]) {
      assert.match(stdout, new RegExp(`\nok +${name} +\\S`));
    }
    assert.match(stdout, new RegExp(`\nok +self-test +hash ${selfTestHash}, as expected`));
    assert.match(stdout, /\nEverything is here that training needs\.\n$/);
    assert.deepEqual(readdirSync(cwd), []);
  });
});

test('a built package without its kernels fails with advice and without a self-test, as JSON too', async () => {
  await inTemporaryFolder(async cwd => {
    cpSync(join(root, 'dist'), join(cwd, 'dist'), { recursive: true });
    cpSync(join(root, 'package.json'), join(cwd, 'package.json'));
    symlinkSync(join(root, 'node_modules'), join(cwd, 'node_modules'), 'junction');
    rmSync(join(cwd, 'dist', 'kernels.wasm'));
    mkdirSync(join(cwd, 'empty'));
    const ask = (...args: string[]) =>
      spawnSync(process.execPath, [join(cwd, 'dist', 'cli', 'main.js'), 'doctor', ...args], {
        cwd: join(cwd, 'empty'),
        encoding: 'utf8',
      });
    const plain = ask();
    assert.equal(plain.status, 1);
    assert.match(
      plain.stdout,
      /\nfailed +engine wasm +The compiled kernels cannot be loaded .*npm run build/,
    );
    assert.match(plain.stdout, /\nfailed +self-test +not done/);
    const { status, stdout, stderr } = ask('--json');
    assert.equal(status, 1);
    assert.equal(stderr, '');
    const report: DoctorReport = JSON.parse(stdout);
    assert.equal(report.isHealthy, false);
    assert.equal(report.selfTest, undefined);
    for (const { status: verdict, advice } of report.checks) {
      assert.equal(verdict === 'ok', advice === undefined);
    }
  });
});

test('Ctrl-C in the self-test ends it with 130 and leaves nothing behind', async () => {
  await inTemporaryFolder(async cwd => {
    const main = join(root, 'dist', 'cli', 'main.js');
    const child = spawn(process.execPath, [main, 'doctor'], {
      cwd,
      env: { ...process.env, TMPDIR: cwd },
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let stderr = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
    const watcher = watch(cwd, (_, name) => {
      if (!name?.startsWith('lockstep-doctor-')) return;
      watcher.close();
      child.kill('SIGINT');
    });
    const [code] = await once(child, 'close');
    watcher.close();
    assert.equal(code, 130);
    assert.equal(stderr, 'LOCKSTEP_INTERRUPTED: The self-test was interrupted.\n');
    assert.deepEqual(readdirSync(cwd), []);
  });
});

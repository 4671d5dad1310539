// The lock of a run folder: one holder that lives, whoever was killed before.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { isLocked, lockFolder } from '#dist/coordinator/folder-lock.js';

function temporary(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), 'lockstep-lock-'));
  t.after(() => rmSync(dir, { recursive: true }));
  return dir;
}

/** A process that tries for the lock, says what came of it, and lives until its input ends or it is killed. */
function contender(dir: string) {
  const code = `
    import { lockFolder } from '${import.meta.resolve('#dist/coordinator/folder-lock.js')}';
    try {
      lockFolder(${JSON.stringify(dir)});
      console.log('mine');
    } catch (error) {
      console.log(error.code);
    }
    process.stdin.resume();`;
  return spawn(process.execPath, ['--input-type=module', '--eval', code], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
}

async function answerOf(child: ReturnType<typeof contender>): Promise<string> {
  const [data]: Buffer[] = await once(child.stdout, 'data');
  return data.toString().trim();
}

test('a folder is locked until it is given back, and again after that', t => {
  const dir = temporary(t);
  assert.equal(isLocked(dir), false);
  for (let round = 0; round < 3; round++) {
    const unlock = lockFolder(dir);
    assert.equal(isLocked(dir), true);
    assert.throws(() => lockFolder(dir), {
      code: 'LOCKSTEP_RUN_LOCKED',
      message: `Process ${process.pid} is at work in ${dir}. Wait for its end, or end it.`,
    });
    unlock();
    assert.deepEqual(readdirSync(dir), []);
  }
});

test('the lock of a process that was killed counts for nothing', async t => {
  const dir = temporary(t);
  const child = contender(dir);
  assert.equal(await answerOf(child), 'mine');
  assert.throws(() => lockFolder(dir), { code: 'LOCKSTEP_RUN_LOCKED' });
  child.kill('SIGKILL');
  await once(child, 'exit');
  assert.deepEqual(readdirSync(dir), ['lock-1']);
  assert.equal(isLocked(dir), false);
  const unlock = lockFolder(dir);
  assert.deepEqual(readdirSync(dir), ['lock-2']);
  unlock();
});

test('a process that has the number of a dead one is not taken for it', { skip: skipWithoutProc() }, t => {
  const dir = temporary(t);
  const impostor = { host: hostname(), pid: process.pid, startTicks: 1 };
  writeFileSync(join(dir, 'lock-7'), JSON.stringify(impostor));
  lockFolder(dir)();
});

test(
  'a process that was killed and that nobody waits for holds nothing',
  { skip: skipWithoutProc() },
  async t => {
    const dir = temporary(t);
    // The shell's child takes the lock; the shell becomes a program that never waits for it.
    const code = `import { lockFolder } from '${import.meta.resolve('#dist/coordinator/folder-lock.js')}'; lockFolder(${JSON.stringify(dir)}); console.log(process.pid); process.stdin.resume();`;
    const shell = spawn(
      'sh',
      ['-c', '"$0" --input-type=module --eval "$1" <&3 & exec sleep 1000', process.execPath, code],
      {
        stdio: ['ignore', 'pipe', 'inherit', 'pipe'],
      },
    );
    const [line]: Buffer[] = await once(shell.stdout!, 'data');
    assert.equal(isLocked(dir), true);
    process.kill(Number(line.toString()), 'SIGKILL');
    while (readFileSync(`/proc/${Number(line.toString())}/stat`, 'latin1').split(') ')[1]?.[0] !== 'Z');
    assert.equal(isLocked(dir), false);
    lockFolder(dir)();
    shell.kill('SIGKILL');
    await once(shell, 'close');
  },
);

test('a lock from another host is believed, and an unreadable one is not', t => {
  const dir = temporary(t);
  writeFileSync(join(dir, 'lock-1'), JSON.stringify({ host: 'elsewhere', pid: 1, startTicks: null }));
  assert.throws(() => lockFolder(dir), { message: /Process 1 on elsewhere .* remove the files lock-\*/ });
  rmSync(join(dir, 'lock-1'));
  writeFileSync(join(dir, 'lock-2'), 'no JSON');
  lockFolder(dir)();
});

test('a lower number counts as well, while its process lives', t => {
  const dir = temporary(t);
  const unlock = lockFolder(dir);
  writeFileSync(join(dir, 'lock-9'), JSON.stringify({ host: hostname(), pid: 2 ** 22 + 1, startTicks: 5 }));
  assert.equal(isLocked(dir), true);
  assert.throws(() => lockFolder(dir), { code: 'LOCKSTEP_RUN_LOCKED' });
  unlock();
  assert.equal(isLocked(dir), false);
});

test('of many that come at once after a kill, one gets the folder', async t => {
  const dir = temporary(t);
  writeFileSync(join(dir, 'lock-3'), JSON.stringify({ host: hostname(), pid: 2 ** 22 + 1, startTicks: 5 }));
  const children = Array.from({ length: 6 }, () => contender(dir));
  const answers = await Promise.all(children.map(answerOf));
  for (const child of children) child.kill('SIGKILL');
  await Promise.all(children.map(child => once(child, 'exit')));
  assert.deepEqual(answers.toSorted(), [...Array(5).fill('LOCKSTEP_RUN_LOCKED'), 'mine']);
});

function skipWithoutProc(): string | false {
  return process.platform === 'linux' ? false : 'only Linux tells when a process began';
}

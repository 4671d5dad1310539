// The file of a run's key: made once, found again, for nobody else to read, and never in the run folder.

import assert from 'node:assert/strict';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { test } from 'node:test';
import { runKey, type KeyFileOptions } from '#dist/coordinator/key-file.js';
import { seededBytes } from '../support/door.js';

function inFolder(work: (folder: string) => void): void {
  const folder = realpathSync(mkdtempSync(join(tmpdir(), 'lockstep-key-')));
  try {
    work(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function setting(folder: string) {
  const runDir = join(folder, 'runs', 'one');
  mkdirSync(runDir, { recursive: true });
  return { runDir, isResumed: true, env: { XDG_STATE_HOME: join(folder, 'state') }, random: seededBytes };
}

/** As a run that then listens. */
function loadOrCreateKey(options: KeyFileOptions) {
  const made = runKey(options);
  made.save();
  return made;
}

const posix = { skip: process.platform === 'win32' && 'Windows has no such modes' };

test('a key is made once for each run folder and found again', () => {
  inFolder(folder => {
    const options = setting(folder);
    const { key, path } = loadOrCreateKey(options);
    assert.match(key.id, /^[0-9a-f]{16}$/);
    assert.equal(key.secret.length, 32);
    assert.equal(dirname(path), join(folder, 'state', 'lockstep', 'keys'));
    assert.match(basename(path), /^[0-9a-f]{16}\.json$/);
    const link = join(folder, 'link');
    symlinkSync(options.runDir, link);
    for (const runDir of [options.runDir, link]) {
      const again = loadOrCreateKey({ ...options, runDir });
      assert.equal(again.path, path);
      assert.equal(again.key.id, key.id);
      assert.deepEqual(Buffer.from(again.key.secret), Buffer.from(key.secret));
    }
    const other = join(folder, 'runs', 'two');
    mkdirSync(other);
    assert.notEqual(loadOrCreateKey({ ...options, runDir: other }).key.id, key.id);
  });
});

test('a new run gets a new key, unless it names the file', () => {
  inFolder(folder => {
    const options = setting(folder);
    const old = loadOrCreateKey(options);
    // Whatever is there in its place, and whoever reads it meanwhile.
    chmodSync(old.path, 0o644);
    const fresh = loadOrCreateKey({ ...options, isResumed: false });
    assert.equal(fresh.path, old.path);
    assert.notEqual(fresh.key.id, old.key.id);
    assert.equal(loadOrCreateKey(options).key.id, fresh.key.id);
    const named = { ...options, isResumed: false, keyFile: join(folder, 'key.json') };
    assert.equal(loadOrCreateKey(named).key.id, loadOrCreateKey(named).key.id);
  });
});

test('nothing is written before it is saved, and what was saved can be taken back', () => {
  inFolder(folder => {
    const options = setting(folder);
    for (const isResumed of [true, false]) {
      const made = runKey({ ...options, isResumed });
      assert.ok(!existsSync(dirname(made.path)) || readdirSync(dirname(made.path)).length === 0);
      made.save();
      assert.deepEqual(readdirSync(dirname(made.path)), [basename(made.path)]);
      made.remove();
      assert.deepEqual(readdirSync(dirname(made.path)), []);
    }
    const { path } = loadOrCreateKey(options);
    const read = runKey(options);
    read.save();
    read.remove();
    assert.ok(existsSync(path), 'a key that was read is not for this run to remove');
  });
});

test('of two that make the same file only one has it, and a write that fails leaves nothing', () => {
  inFolder(folder => {
    const options = { ...setting(folder), keyFile: join(folder, 'key.json') };
    const [one, other] = [runKey(options), runKey(options)];
    one.save();
    assert.throws(() => other.save(), { code: 'LOCKSTEP_KEY_FILE' });
    other.remove();
    assert.equal(runKey(options).key.id, one.key.id);
    assert.ok(!readdirSync(folder).some(name => name.endsWith('.part')));
  });
});

test('nobody else can read the file or its folder', posix, () => {
  inFolder(folder => {
    const options = setting(folder);
    for (const { path } of [
      loadOrCreateKey(options),
      loadOrCreateKey({ ...options, keyFile: join(folder, 'keys', 'mine.json') }),
    ]) {
      assert.equal(statSync(path).mode & 0o777, 0o600);
      assert.equal(statSync(dirname(path)).mode & 0o777, 0o700);
    }
  });
});

test('a file that others can read is refused, and left as it is', posix, () => {
  inFolder(folder => {
    const options = setting(folder);
    const { path } = loadOrCreateKey(options);
    const content = readFileSync(path, 'utf8');
    for (const mode of [0o640, 0o604, 0o660, 0o610]) {
      chmodSync(path, mode);
      assert.throws(() => loadOrCreateKey(options), { code: 'LOCKSTEP_KEY_FILE', message: /chmod 600/ });
    }
    assert.equal(readFileSync(path, 'utf8'), content);
    chmodSync(path, 0o400);
    loadOrCreateKey(options);
  });
});

test('a damaged file is refused, and the error tells nothing of it', () => {
  inFolder(folder => {
    const options = { ...setting(folder), keyFile: join(folder, 'key.json') };
    const { path } = loadOrCreateKey(options);
    const whole = readFileSync(path, 'utf8');
    const { secret } = JSON.parse(whole);
    for (const content of [
      '',
      whole.slice(0, -3),
      whole.replace(secret, secret.slice(1)),
      whole.replace('"id"', '"name"'),
      whole.replace('}', ',"more":1}'),
      whole + ' '.repeat(5000),
      `[${whole}]`,
    ]) {
      writeFileSync(path, content);
      assert.throws(
        () => loadOrCreateKey(options),
        (error: Error & { code?: string }) => {
          assert.equal(error.code, 'LOCKSTEP_KEY_FILE');
          assert.match(error.message, /no whole key file/);
          assert.ok(!error.message.includes(secret.slice(2, 10)));
          assert.equal(error.cause, undefined);
          return true;
        },
      );
      assert.equal(readFileSync(path, 'utf8'), content);
    }
  });
});

test('a file in the run folder is refused, whatever links lead there', () => {
  inFolder(folder => {
    const options = setting(folder);
    const link = join(folder, 'link');
    symlinkSync(options.runDir, link);
    for (const keyFile of [
      join(options.runDir, 'key.json'),
      join(options.runDir, 'deep', 'key.json'),
      join(options.runDir, '..', 'one', 'key.json'),
      join(link, 'key.json'),
      options.runDir,
    ]) {
      assert.throws(() => loadOrCreateKey({ ...options, keyFile }), {
        code: 'LOCKSTEP_KEY_FILE',
        message: /in the run folder/,
      });
      assert.ok(keyFile === options.runDir || !existsSync(keyFile));
    }
    loadOrCreateKey({ ...options, keyFile: `${options.runDir}.key` });
  });
});

test('what is no file, or no place for one, is a coded error', () => {
  inFolder(folder => {
    const options = setting(folder);
    writeFileSync(join(folder, 'file'), '');
    for (const keyFile of [folder, join(folder, 'file', 'key.json')])
      assert.throws(() => loadOrCreateKey({ ...options, keyFile }), { code: 'LOCKSTEP_KEY_FILE' });
  });
});

test(
  'without a state folder of its own, and with one that is no absolute path, it is under ~/.local/state',
  posix,
  () => {
    inFolder(folder => {
      const home = process.env['HOME'];
      process.env['HOME'] = folder;
      try {
        for (const env of [{}, { XDG_STATE_HOME: '' }, { XDG_STATE_HOME: 'state' }]) {
          const { path } = loadOrCreateKey({ ...setting(folder), env });
          assert.equal(dirname(path), join(folder, '.local', 'state', 'lockstep', 'keys'));
        }
      } finally {
        process.env['HOME'] = home;
      }
    });
  },
);

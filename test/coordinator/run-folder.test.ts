// The run folder: what it holds, which folders it takes, and coded errors where there is none to be had.

import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { isAbsolute, join, relative } from 'node:path';
import { test, type TestContext } from 'node:test';
import { RunFolder } from '#dist/coordinator/run-folder.js';
import { FULL_DEVICE, fullDeviceIsMissing } from '../support/full-device.js';

function temporary(t: TestContext): string {
  const dir = realpathSync(mkdtempSync(join(tmpdir(), 'lockstep-folder-')));
  t.after(() => rmSync(dir, { recursive: true }));
  return dir;
}

/** Makes a folder that is closed when the test ends. */
function create(t: TestContext, dir: string, config: unknown = {}): RunFolder {
  const folder = RunFolder.create(dir, 'mlp', config);
  t.after(() => folder.close());
  return folder;
}

const open = ['checkpoints', 'config.json', 'events.jsonl', 'hashes.txt'];

test('a folder is made with all its parents, for any that does not exist or is empty', t => {
  const dir = temporary(t);
  for (const made of [join(dir, 'a', 'b', 'c'), join(dir, 'empty')]) {
    if (made.endsWith('empty')) mkdirSync(made);
    assert.equal(create(t, made).dir, made);
    assert.deepEqual(readdirSync(made).toSorted(), [...open, 'lock-1', 'metrics.jsonl']);
  }
});

test('a relative folder is known by its absolute path', t => {
  const dir = join(temporary(t), 'run');
  const folder = create(t, relative(process.cwd(), dir));
  assert.ok(isAbsolute(folder.dir));
  assert.equal(folder.dir, dir);
});

test('config, metrics, hashes and weights are in the folder as they were given', t => {
  const folder = create(t, join(temporary(t), 'run'), { seed: 3, layers: [{ type: 'relu' }] });
  const type = 'step';
  folder.recordMetrics([
    { type, step: 1, loss: 2.5 },
    { type, step: 2 },
  ]);
  folder.recordHashes(['00000000000000aa', '00000000000000bb']);
  folder.recordHashes([]);
  folder.recordMetrics([]);
  folder.recordMetrics([{ type, step: 3 }]);
  folder.recordHashes(['00000000000000cc']);
  folder.saveWeights(Uint8Array.of(1, 2, 3));
  const read = (name: string) => readFileSync(join(folder.dir, name), 'utf8');
  assert.deepEqual(JSON.parse(read('config.json')), { seed: 3, layers: [{ type: 'relu' }] });
  assert.equal(
    read('metrics.jsonl'),
    '{"type":"step","step":1,"loss":2.5}\n{"type":"step","step":2}\n{"type":"step","step":3}\n',
  );
  assert.equal(read('hashes.txt'), '00000000000000aa\n00000000000000bb\n00000000000000cc\n');
  assert.deepEqual([...readFileSync(join(folder.dir, 'weights.safetensors'))], [1, 2, 3]);
});

test('a folder that holds anything is refused with LOCKSTEP_RUN_EXISTS and left as it is', t => {
  for (const name of [
    'config.json',
    '.hidden',
    'notes.txt',
    'movie.part',
    'checkpoints',
    'metrics.jsonl',
    'lock',
  ]) {
    const dir = temporary(t);
    writeFileSync(join(dir, name), 'mine');
    assert.throws(() => create(t, dir), {
      name: 'LockstepError',
      code: 'LOCKSTEP_RUN_EXISTS',
      message: `${dir} already holds files: name another folder with --out, go on with its run with --resume, or remove it.`,
    });
    assert.deepEqual(readdirSync(dir), [name]);
    assert.equal(readFileSync(join(dir, name), 'utf8'), 'mine');
  }
});

test('a run is not written over an earlier one', t => {
  const dir = join(temporary(t), 'run');
  create(t, dir);
  assert.throws(() => create(t, dir), { code: 'LOCKSTEP_RUN_EXISTS' });
});

test('a file in the place of the folder or of a parent is LOCKSTEP_RUN_FOLDER, and is left as it is', t => {
  const file = join(temporary(t), 'file');
  writeFileSync(file, 'mine');
  for (const dir of [file, join(file, 'run')]) {
    assert.throws(() => create(t, dir), {
      name: 'LockstepError',
      code: 'LOCKSTEP_RUN_FOLDER',
      message:
        /^Cannot write the run folder .*file.*: E\w+.* Make it writable, or name another with --out\.$/,
    });
  }
  assert.equal(readFileSync(file, 'utf8'), 'mine');
});

test('a name too long for a folder is LOCKSTEP_RUN_FOLDER', t => {
  assert.throws(() => create(t, join(temporary(t), 'x'.repeat(5000))), { code: 'LOCKSTEP_RUN_FOLDER' });
});

test('weights that cannot be written are LOCKSTEP_RUN_FOLDER with the folder', t => {
  const folder = create(t, join(temporary(t), 'run'));
  rmSync(folder.dir, { recursive: true });
  assert.throws(() => folder.saveWeights(Uint8Array.of(1)), {
    code: 'LOCKSTEP_RUN_FOLDER',
    message: new RegExp(`${folder.dir}.*ENOENT`),
  });
});

test(
  'a disk that fills up while a checkpoint is written costs no earlier one',
  { skip: fullDeviceIsMissing() },
  async t => {
    const folder = create(t, join(temporary(t), 'run'));
    const dir = join(folder.dir, 'checkpoints');
    await folder.saveCheckpoint(4, Uint8Array.of(4));
    symlinkSync(FULL_DEVICE, join(dir, 'step-000000005.safetensors.part'));
    await assert.rejects(folder.saveCheckpoint(5, Uint8Array.of(5)), {
      code: 'LOCKSTEP_RUN_FOLDER',
      message: /ENOSPC.*Free some space, and resume the run\.$/,
    });
    assert.deepEqual(readdirSync(dir), ['step-000000004.safetensors']);
    await folder.saveCheckpoint(5, Uint8Array.of(5));
    assert.deepEqual(readdirSync(dir), ['step-000000004.safetensors', 'step-000000005.safetensors']);
  },
);

test('too little space for checkpoints is found before anything is written, and a new run leaves nothing behind', t => {
  const dir = join(temporary(t), 'run');
  const folder = RunFolder.create(dir, 'mlp', {});
  assert.throws(() => folder.checkSpace(2 ** 60), {
    code: 'LOCKSTEP_RUN_FOLDER',
    message: /has [\d,]+ KiB free, and checkpoints need [\d,]+ KiB: free some space/,
  });
  folder.checkSpace(1);
  folder.abandon();
  assert.equal(existsSync(dir), false);
});

test('what a start leaves that is killed before its config is written can be begun again', t => {
  const dir = join(temporary(t), 'run');
  mkdirSync(dir);
  for (const name of ['lock-3', 'lock.77.part', 'config.json.part']) writeFileSync(join(dir, name), '{}');
  assert.equal(create(t, dir).dir, dir);
});

test('a start that fails leaves the folder as it was, and no lock of a living process', t => {
  const dir = join(temporary(t), 'run');
  mkdirSync(dir);
  mkdirSync(join(dir, 'config.json.part'));
  assert.throws(() => create(t, dir), { code: 'LOCKSTEP_RUN_FOLDER' });
  assert.deepEqual(readdirSync(dir), ['config.json.part']);
  rmSync(join(dir, 'config.json.part'), { recursive: true });
  const folder = RunFolder.create(dir, 'mlp', {});
  writeFileSync(join(dir, 'mine.txt'), 'mine');
  folder.abandon();
  assert.deepEqual(readdirSync(dir), ['mine.txt']);
});

test('processes that make folders in one new folder at the same moment all get theirs', async t => {
  const dir = temporary(t);
  const code = `
    import { RunFolder } from '${import.meta.resolve('#dist/coordinator/run-folder.js')}';
    for (let i = 0; i < 40; i++) {
      const out = ${JSON.stringify(dir)} + '/sweep-' + i + '/' + process.pid;
      RunFolder.create(out, 'mlp', {}).close();
    }`;
  const ends = Array.from({ length: 3 }, () =>
    once(spawn(process.execPath, ['--input-type=module', '--eval', code], { stdio: 'inherit' }), 'exit'),
  );
  for (const end of await Promise.all(ends)) assert.deepEqual(end, [0, null]);
});

/** The folders, relative to `dir`, that a process working in `dir` makes for runs of these names; or the error's code. */
function defaultFolders(dir: string, names: readonly string[]): unknown {
  const code = `
    import { relative } from 'node:path';
    import { RunFolder } from '${import.meta.resolve('#dist/coordinator/run-folder.js')}';
    const made = [];
    try {
      for (const name of ${JSON.stringify(names)}) {
        const folder = RunFolder.create(undefined, name, {});
        made.push(relative(process.cwd(), folder.dir));
        folder.close();
      }
    } catch (error) {
      made.push(error.code);
    }
    console.log(JSON.stringify(made));`;
  const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '--eval', code], {
    cwd: dir,
    encoding: 'utf8',
  });
  assert.equal(stderr, '');
  return JSON.parse(stdout);
}

test('without a folder, runs go to runs/<name>-<n> with the first free n', t => {
  const dir = temporary(t);
  assert.deepEqual(defaultFolders(dir, ['mlp', 'mlp', 'lenet5', 'mlp']), [
    'runs/mlp-1',
    'runs/mlp-2',
    'runs/lenet5-1',
    'runs/mlp-3',
  ]);
  assert.deepEqual(readdirSync(join(dir, 'runs', 'mlp-2')).toSorted(), [...open, 'metrics.jsonl']);
  rmSync(join(dir, 'runs', 'mlp-2'), { recursive: true });
  writeFileSync(join(dir, 'runs', 'mlp-4'), 'a file');
  assert.deepEqual(defaultFolders(dir, ['mlp', 'mlp']), ['runs/mlp-2', 'runs/mlp-5']);
});

test('an empty default folder of somebody else is not taken', t => {
  const dir = temporary(t);
  mkdirSync(join(dir, 'runs', 'mlp-1'), { recursive: true });
  assert.deepEqual(defaultFolders(dir, ['mlp']), ['runs/mlp-2']);
});

test('a file named runs is LOCKSTEP_RUN_FOLDER', t => {
  const dir = temporary(t);
  writeFileSync(join(dir, 'runs'), '');
  assert.deepEqual(defaultFolders(dir, ['mlp']), ['LOCKSTEP_RUN_FOLDER']);
});

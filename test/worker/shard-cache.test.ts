// The shard cache on a real disk: bounded, verified, shared, and never in the way.

import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { sha256 } from '#dist/shared/hash.js';
import { openShardCache, type ShardCache } from '#dist/worker/shard-cache.js';

function temporary(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), 'lockstep-cache-'));
  t.after(() => rmSync(dir, { recursive: true }));
  return dir;
}

/** A cache that must not warn. */
function open(folder: string, maxBytes = 1_000_000): ShardCache {
  return openShardCache(folder, { maxBytes, onWarning: message => assert.fail(message) });
}

const shards = Array.from({ length: 6 }, (_, i) => new Uint8Array(1000).fill(i + 1));
const names = shards.map(bytes => sha256(bytes));

function age(folder: string, index: number, seconds: number): void {
  utimesSync(join(folder, names[index]), seconds, seconds);
}

/** Which of the shards are there. */
function keptIn(folder: string): number[] {
  return names.flatMap((name, index) => (existsSync(join(folder, name)) ? [index] : []));
}

test('what was put is there for the next process, under its digest and without leftovers', async t => {
  const folder = join(temporary(t), 'deep', 'shards');
  assert.equal(await open(folder).get(names[0]), undefined);
  await open(folder).put(names[0], shards[0]);
  assert.deepEqual(readdirSync(folder), [names[0]]);
  const bytes = await open(folder).get(names[0]);
  assert.deepEqual(new Uint8Array(bytes!), shards[0]);
  if (process.platform !== 'win32') {
    assert.deepEqual(
      [statSync(folder).mode & 0o777, statSync(join(folder, names[0])).mode & 0o777],
      [0o700, 0o600],
    );
  }
});

test('those that were used longest ago go first, and reading is using', async t => {
  const folder = temporary(t);
  const cache = open(folder, 3500);
  for (const index of [0, 1, 2]) await cache.put(names[index], shards[index]);
  for (const index of [0, 1, 2]) age(folder, index, 1000 + index);
  await cache.get(names[0]);
  assert.deepEqual(readFileSync(join(folder, names[0])), Buffer.from(shards[0]));
  await cache.put(names[3], shards[3]);
  assert.deepEqual(keptIn(folder), [0, 2, 3]);
  await cache.put(names[4], shards[4]);
  assert.deepEqual(keptIn(folder), [0, 3, 4]);
});

test('a shard larger than the whole cache is not kept, and costs nobody his place', async t => {
  const folder = temporary(t);
  await open(folder).put(names[0], shards[0]);
  await open(folder, 999).put(names[1], shards[1]);
  assert.deepEqual(keptIn(folder), [0]);
  await open(folder, 0).put(names[1], shards[1]);
  assert.deepEqual(keptIn(folder), [0]);
});

const damages: [string, Uint8Array][] = [
  ['a flipped bit', shards[0].map((byte, i) => (i === 500 ? byte ^ 4 : byte))],
  ['the end is missing', shards[0].subarray(0, 999)],
  ['nothing in it', new Uint8Array()],
];
for (const [what, bytes] of damages) {
  test(`a damaged file counts as absent and is removed: ${what}`, async t => {
    const folder = temporary(t);
    writeFileSync(join(folder, names[0]), bytes);
    const cache = open(folder);
    assert.equal(await cache.get(names[0]), undefined);
    assert.deepEqual(readdirSync(folder), []);
    await cache.put(names[0], shards[0]);
    assert.deepEqual(new Uint8Array((await cache.get(names[0]))!), shards[0]);
  });
}

test('parts of a killed process are bounded too, and files of others are left alone', async t => {
  const folder = temporary(t);
  const part = `${names[5]}.999-0.part`;
  const others = ['notes.txt', names[5].slice(1), `${names[5]}.bak`];
  for (const name of [part, ...others]) writeFileSync(join(folder, name), new Uint8Array(2000));
  for (const name of [part, ...others]) utimesSync(join(folder, name), 1000, 1000);
  await open(folder, 2500).put(names[0], shards[0]);
  assert.deepEqual(readdirSync(folder).toSorted(), [names[0], ...others].toSorted());
});

test('a folder that cannot be used costs one warning and nothing else', async t => {
  const file = join(temporary(t), 'file');
  writeFileSync(file, '');
  const warnings: string[] = [];
  const cache = openShardCache(file, { maxBytes: 10_000, onWarning: message => warnings.push(message) });
  for (const index of [0, 1]) {
    assert.equal(await cache.get(names[index]), undefined);
    await cache.put(names[index], shards[index]);
  }
  assert.equal(warnings.length, 1);
  assert.match(warnings[0], /^The shard cache .* cannot be used \(.*ENOTDIR|EEXIST/);
});

test('what is no file under the name of a shard is not waited for', async t => {
  const folder = temporary(t);
  execFileSync('mkfifo', [join(folder, names[0])]);
  mkdirSync(join(folder, names[1]));
  const warnings: string[] = [];
  const cache = openShardCache(folder, { maxBytes: 10_000, onWarning: message => warnings.push(message) });
  for (const name of names.slice(0, 2)) assert.equal(await cache.get(name), undefined);
  assert.equal(warnings.length, 1);
});

test('puts at the same time are all kept', async t => {
  const folder = temporary(t);
  const cache = open(folder);
  await Promise.all(shards.map((bytes, index) => cache.put(names[index], bytes)));
  assert.deepEqual(keptIn(folder), [0, 1, 2, 3, 4, 5]);
});

test('two processes share a folder that has room for a third of their shards', async t => {
  const folder = temporary(t);
  const code = `
    import { openShardCache } from '${import.meta.resolve('#dist/worker/shard-cache.js')}';
    import { sha256 } from '${import.meta.resolve('#dist/shared/hash.js')}';
    const cache = openShardCache(${JSON.stringify(folder)}, { maxBytes: 10_000, onWarning: message => { throw new Error(message); } });
    const shards = Array.from({ length: 30 }, (_, i) => new Uint8Array(1000).fill(i));
    let found = 0;
    for (let i = 0; i < 300; i++) {
      const bytes = shards[(i * Number(process.argv[1])) % shards.length];
      const kept = await cache.get(sha256(bytes));
      if (kept) {
        found++;
        if (Buffer.compare(kept, bytes) !== 0) throw new Error('other bytes');
      }
      await cache.put(sha256(bytes), bytes);
    }
    console.log(found);`;
  const outcomes = await Promise.all(
    ['7', '11'].map(async stride => {
      const child = spawn(process.execPath, ['--input-type=module', '--eval', code, stride], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      const [[exitCode], [found]] = await Promise.all([once(child, 'close'), once(child.stdout, 'data')]);
      return [exitCode, Number(found) >= 0];
    }),
  );
  assert.deepEqual(outcomes, [
    [0, true],
    [0, true],
  ]);
  const sizes = readdirSync(folder).map(name => statSync(join(folder, name)).size);
  assert.ok(readdirSync(folder).every(name => /^[0-9a-f]{64}$/.test(name)));
  assert.ok(sizes.reduce((sum, size) => sum + size, 0) <= 10_000);
});

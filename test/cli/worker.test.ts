// `lockstep worker`: what it prints and how it ends where nobody coordinates, and that its key is seen nowhere.

import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { resolve } from 'node:path';
import { before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { ownCacheFolder } from '#dist/cli/worker.js';
import { formatJoin } from '#dist/shared/join.js';
import { inTemporaryFolder, lockstep } from '../support/cli.js';

const main = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
const secret = new Uint8Array(32).fill(0x5a);

/** Of a port where nobody listens. */
let line: string;
/** What gives the key away: any third of the line, as it stands there. */
let telling: string[];

before(async () => {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  server.close();
  await once(server, 'close');
  const key = { id: '00112233aabbccdd', secret };
  line = formatJoin({ host: '127.0.0.1', port: address.port, key, isEncrypted: true });
  const encodings = (['hex', 'base64', 'base64url'] as const).map(name => Buffer.from(secret).toString(name));
  telling = encodings.map(text => text.slice(0, 16));
});

function assertHidden(text: string): void {
  assert.ok(!text.includes(line), text);
  for (const part of telling) assert.ok(!text.includes(part), text);
}

test('where nobody answers, it says what it tried for how long, and ends with exit code 1', async () => {
  const { code, stdout, stderr } = await lockstep(['worker', line, '--retry', '1s']);
  assert.equal(code, 1);
  assert.match(stdout, /^connecting to the coordinator\nno connection \(/);
  assert.match(stderr, /^LOCKSTEP_UNREACHABLE: No run could be joined for 1\.0 s; the last trouble was: /);
  assertHidden(stdout + stderr);
});

test('--json prints what changes, then the error', async () => {
  const { code, stdout, stderr } = await lockstep(['worker', line, '--retry', '1s', '--json']);
  assert.deepEqual([code, stderr], [1, '']);
  const objects = stdout
    .trimEnd()
    .split('\n')
    .map((text): Record<string, unknown> => JSON.parse(text));
  assert.deepEqual(objects[0], {
    type: 'status',
    state: 'connecting',
    text: 'connecting to the coordinator',
    parts: 0,
  });
  assert.equal(objects[1]['state'], 'reconnecting');
  assert.equal(objects.at(-1)?.['code'], 'LOCKSTEP_UNREACHABLE');
  assertHidden(stdout);
});

const refused: [string, () => string[], RegExp][] = [
  ['no line', () => [], /^LOCKSTEP_USAGE: There is no join line: /],
  ['no join line', () => ['nonsense'], /^LOCKSTEP_JOIN_LINE: /],
  ['a part of one', () => [line.slice(0, -5).slice(0, 40)], /^LOCKSTEP_JOIN_LINE: /],
  ['two', () => [line, line], /^LOCKSTEP_USAGE: Give one join line/],
  [
    'a time without a unit',
    () => [line, '--retry', '10'],
    /^LOCKSTEP_BAD_SETTING: Setting --retry is '10', expected a duration/,
  ],
  [
    'a time longer than any timer',
    () => [line, '--retry', '577h'],
    /^LOCKSTEP_BAD_SETTING: Setting --retry is '577h', expected a duration/,
  ],
  ['a name', () => [line, '--name', 'two words'], /^LOCKSTEP_BAD_SETTING: Setting name is "two words"/],
  ['workers', () => [line, '--workers', '0'], /^LOCKSTEP_BAD_SETTING: Setting workers is 0/],
  ['a size', () => [line, '--cache-size', '-1'], /^LOCKSTEP_BAD_SETTING: Setting cacheBytes is -1048576/],
];
for (const [what, args, message] of refused) {
  test(`refused as bad usage, without the key: ${what}`, async () => {
    const { code, stdout, stderr } = await lockstep(['worker', ...args()]);
    assert.deepEqual([code, stdout], [2, '']);
    assert.match(stderr, message);
    assertHidden(stderr);
  });
}

test('the cache is where the XDG Base Directory Specification says, which takes no relative path', () => {
  assert.equal(ownCacheFolder({ XDG_CACHE_HOME: resolve('/cache') }), resolve('/cache/lockstep/shards'));
  for (const folder of [undefined, '', 'cache', './cache'])
    assert.equal(ownCacheFolder({ XDG_CACHE_HOME: folder }), undefined);
});

test('a join line in the place of the command is not repeated', async () => {
  const { code, stderr } = await lockstep([line]);
  assert.equal(code, 2);
  assert.match(stderr, /^LOCKSTEP_USAGE: Unknown command\. /);
  assertHidden(stderr);
});

for (const way of ['an argument', 'LOCKSTEP_JOIN']) {
  test(`the list of processes shows no key, given as ${way}; Ctrl-C ends it with exit code 130`, async () => {
    await inTemporaryFolder(async cwd => {
      const isArgument = way === 'an argument';
      const child = spawn(process.execPath, [main, 'worker', ...(isArgument ? [line] : [])], {
        cwd,
        env: { ...process.env, ...(!isArgument && { LOCKSTEP_JOIN: line }) },
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      let stdout = '';
      child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
      await once(child.stdout, 'data');
      if (process.platform !== 'win32') {
        const listed = execFileSync('ps', ['-ww', '-A', '-o', 'pid=,args='], { encoding: 'utf8' });
        assertHidden(listed);
        assert.match(listed, new RegExp(`^ *${child.pid} ${isArgument ? 'lockstep worker' : ''}`, 'm'));
      }
      child.kill('SIGINT');
      const [code] = await once(child, 'close');
      if (process.platform !== 'win32') assert.equal(code, 130);
      assert.match(stdout, /\nleft the run, which goes on: 0 parts with 0 images/);
      assertHidden(stdout);
    });
  });
}

test('LOCKSTEP_JOIN is read, and erased before anything else is loaded', () => {
  const code = `
    const { joinLineOfEnvironment } = await import('${import.meta.resolve('#dist/cli/join-line.js')}');
    const { execFileSync } = await import('node:child_process');
    const ofChild = execFileSync(process.execPath, ['--print', 'process.env.LOCKSTEP_JOIN'], { encoding: 'utf8' });
    console.log(joinLineOfEnvironment, process.env.LOCKSTEP_JOIN, ofChild.trim());`;
  const told = execFileSync(process.execPath, ['--input-type=module', '--eval', code], {
    env: { ...process.env, LOCKSTEP_JOIN: 'the line' },
    encoding: 'utf8',
  });
  assert.equal(told, 'the line undefined undefined\n');
});

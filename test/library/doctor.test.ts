// `doctor`: what it says of machines that lack something; its self-test is done in `test/cli/doctor.test.ts`.

import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { doctor, type Check } from '#dist/library/index.js';
import { diagnose, judgeSelfTest, type Facts, type SelfTest } from '#dist/library/diagnosis.js';
import { engineNames } from '#dist/shared/settings.js';

const GIB = 2 ** 30;

const good: Facts = {
  nodeVersion: 'v20.1.0',
  supportedNode: '>=20',
  cores: 4,
  processor: 'abacus',
  hasSimd: true,
  hasSharedMemory: true,
  freeMemoryBytes: 4 * GIB,
  totalMemoryBytes: 8 * GIB,
  neededMemoryBytes: GIB / 4,
  engineProblems: { wasm: undefined, reference: undefined },
  tensorflow: undefined,
  disk: { dir: '/home/me', freeBytes: 10 * GIB },
  mnist: { digest: 'd'.repeat(64) },
};

test('a machine that has everything passes, with a check for every engine', () => {
  const checks = diagnose(good);
  assert.deepEqual(
    checks.filter(({ status, advice }) => status !== 'ok' || advice !== undefined),
    [],
  );
  for (const name of engineNames) assert.ok(checks.some(check => check.name === `engine ${name}`));
  assert.equal(
    checks.find(({ name }) => name === 'memory')?.found,
    '4.0 GiB of 8.0 GiB free; the defaults take about 256 MiB',
  );
});

const missing: { lacks: Partial<Facts>; name: string; status: Check['status']; found: RegExp }[] = [
  {
    lacks: { nodeVersion: 'v18.20.4' },
    name: 'node',
    status: 'failed',
    found: /v18\.20\.4, supported is >=20/,
  },
  { lacks: { hasSimd: false }, name: 'SIMD', status: 'failed', found: /no WebAssembly SIMD/ },
  { lacks: { hasSharedMemory: false }, name: 'shared memory', status: 'failed', found: /^no shared/ },
  {
    lacks: { freeMemoryBytes: GIB / 8 },
    name: 'memory',
    status: 'warning',
    found: /^128 MiB of 8\.0 GiB free/,
  },
  {
    lacks: { engineProblems: { wasm: 'no kernels', reference: undefined } },
    name: 'engine wasm',
    status: 'failed',
    found: /no kernels/,
  },
  {
    lacks: { engineProblems: { wasm: undefined, reference: 'no file' } },
    name: 'engine reference',
    status: 'warning',
    found: /no file/,
  },
  {
    lacks: { disk: { dir: '/home/me', freeBytes: 1000 } },
    name: 'disk',
    status: 'failed',
    found: /^0 MiB free in \/home\/me/,
  },
  {
    lacks: { disk: { dir: '/home/me', freeBytes: GIB, problem: 'EROFS: read-only' } },
    name: 'disk',
    status: 'failed',
    found: /^\/home\/me cannot be written: EROFS/,
  },
  { lacks: { mnist: { problem: 'not installed' } }, name: 'MNIST', status: 'failed', found: /not installed/ },
];

for (const { lacks, name, status, found } of missing) {
  test(`${name} is ${status} with advice where there is ${JSON.stringify(lacks)}`, () => {
    const bad = diagnose({ ...good, ...lacks }).filter(check => check.status !== 'ok');
    assert.deepEqual(
      bad.map(check => [check.name, check.status]),
      [[name, status]],
    );
    assert.match(bad[0].found, found);
    assert.match(bad[0].advice ?? '', /\.$/);
  });
}

const passed: SelfTest = {
  hash: 'a'.repeat(16),
  expectedHash: 'a'.repeat(16),
  steps: 938,
  workers: 1,
  seconds: 2.06,
  imagesPerSecond: 90_000,
  threadsLost: 0,
};

test('the self-test passes with its hash alone; a lost thread is a warning, another hash a failure', () => {
  assert.deepEqual(judgeSelfTest(passed), {
    name: 'self-test',
    status: 'ok',
    found: 'hash aaaaaaaaaaaaaaaa, as expected: 938 steps with 1 worker in 2.1 s',
  });
  assert.equal(judgeSelfTest({ ...passed, threadsLost: 1 }).status, 'warning');
  const other = judgeSelfTest({ ...passed, hash: 'b'.repeat(16) });
  assert.equal(other.status, 'failed');
  assert.match(other.found, /^hash b{16}, expected a{16}: .* other bits/);
  assert.match(judgeSelfTest({ problem: 'no memory' }).found, /no memory/);
  assert.equal(judgeSelfTest({ problem: 'no memory' }).status, 'failed');
});

/** A folder that is removed after the test, and is the temporary one meanwhile. */
async function withTemporaryFolder(work: (dir: string) => Promise<void>): Promise<void> {
  const dir = mkdtempSync(join(tmpdir(), 'lockstep-doctor-test-'));
  const before = process.env['TMPDIR'];
  process.env['TMPDIR'] = dir;
  try {
    await work(dir);
  } finally {
    if (before === undefined) delete process.env['TMPDIR'];
    else process.env['TMPDIR'] = before;
    rmSync(dir, { recursive: true });
  }
}

test('an aborted doctor rejects with LOCKSTEP_INTERRUPTED and leaves nothing behind', async () => {
  await withTemporaryFolder(async dir => {
    await assert.rejects(doctor({ runsDir: join(dir, 'deep', 'runs'), signal: AbortSignal.abort() }), {
      code: 'LOCKSTEP_INTERRUPTED',
    });
    assert.deepEqual(readdirSync(dir), []);
  });
});

test('where runs cannot be made the disk fails, and there is no self-test', async () => {
  await withTemporaryFolder(async dir => {
    writeFileSync(join(dir, 'runs'), 'a file');
    const report = await doctor({ runsDir: join(dir, 'runs') });
    const { isHealthy, checks, selfTest, nodeVersion, cores } = report;
    assert.equal(isHealthy, false);
    assert.deepEqual(
      checks.filter(({ status }) => status === 'failed').map(({ name }) => name),
      ['disk', 'self-test'],
    );
    assert.equal(selfTest, undefined);
    assert.equal(nodeVersion, process.version);
    const { freeDiskBytes, freeMemoryBytes, totalMemoryBytes } = report;
    for (const value of [freeDiskBytes, freeMemoryBytes, totalMemoryBytes, cores]) assert.ok(value > 0);
  });
});

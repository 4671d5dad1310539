// `lockstep bench`: what it prints and writes, on sweeps that are too short to mean anything.

import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { BenchResult } from '#dist/library/index.js';
import { inTemporaryFolder, lockstep } from '../support/cli.js';

const short = ['--repetitions', '1', '--warm-up-ms', '0', '--measure-ms', '100'];

test('--json prints one object with a row for every combination, and the figure has every line', async () => {
  await inTemporaryFolder(async cwd => {
    const lists = ['--workers', '1,2,1', '--batch', '64,128', '--leaf', '16,32'];
    const args = ['bench', 'mlp', ...lists, ...short, '--figure', 'scaling.svg', '--json'];
    const { code, stdout, stderr } = await lockstep(args, { cwd });
    assert.equal(code, 0, stderr);
    assert.equal(stderr, '');
    assert.equal(stdout.trimEnd().split('\n').length, 1);
    const { model, repetitions, measureMs, rows, advice }: BenchResult = JSON.parse(stdout);
    assert.deepEqual({ model, repetitions, measureMs }, { model: 'mlp', repetitions: 1, measureMs: 100 });
    assert.deepEqual(
      rows.map(({ workers, batch, leaf, lanes }) => [workers, batch, leaf, lanes]),
      [
        [1, 64, 16, 4],
        [2, 64, 16, 4],
        [1, 64, 32, 2],
        [2, 64, 32, 2],
        [1, 128, 16, 8],
        [2, 128, 16, 8],
        [1, 128, 32, 4],
        [2, 128, 32, 4],
      ],
    );
    for (const { workers, imagesPerSecond, stepMs, efficiency, shares, shareOfCeiling } of rows) {
      for (const { low, median, high } of [imagesPerSecond, stepMs, efficiency!, shareOfCeiling]) {
        assert.ok(0 < low && low <= median && median <= high);
      }
      if (workers === 1) assert.deepEqual(efficiency, { median: 1, low: 1, high: 1 });
      const parts = Object.values(shares);
      const sum = parts.reduce((total, part) => total + part, 0);
      assert.equal(parts.length, 5);
      assert.ok(Math.abs(sum - 1) < 1e-9);
    }
    assert.equal(advice.length, 4);
    const figure = readFileSync(join(cwd, 'scaling.svg'), 'utf8');
    for (const { batch, leaf } of advice) {
      assert.match(figure, new RegExp(`>batch ${batch}, leaf ${leaf}<`));
      assert.match(figure, new RegExp(`>batch ${batch}, leaf ${leaf}, without barriers<`));
    }
  });
});

test('the table has a line a row, and words say where more workers stop helping', async () => {
  const { code, stdout, stderr } = await lockstep(['bench', 'mlp', '--workers', '1,2', ...short]);
  assert.equal(code, 0, stderr);
  assert.match(stdout, /^mlp on mnist, engine wasm/);
  assert.match(stdout, /│ +workers │ +batch │ +leaf │ +lanes │ +images\/s .* of ceiling │/);
  assert.match(stdout, /│ +1 │ +128 │ +16 │ +8 │ .*100 % │/);
  assert.match(stdout, /│ +2 │ +128 │ +16 │ +8 │ /);
  assert.match(stdout, /^(Workers beyond 1 do not help|More workers help up to 2)/m);
});

const bad: [string[], RegExp][] = [
  [['--workers', '1,x'], /--workers holds 'x'/],
  [['--workers', ','], /--workers holds ''/],
  [['--workers', '300'], /--workers holds 300, expected a whole number from 1 to 256/],
  [['--batch', '64,-1'], /--batch holds '-1'/],
  [['--batch', '0'], /--batch holds 0/],
  [['--leaf', '7'], /batch \(128\) must be a multiple of leaf \(7\)/],
  [['--measure-ms', 'long'], /--measure-ms is NaN/],
  [['--warm-up-ms', '-1'], /--warm-up-ms is -1/],
  [['--figure', 'no/such/folder/scaling.svg'], /no\/such\/folder\/scaling\.svg/],
  [['--figure', '.'], /--figure is '\.', which cannot be written: EISDIR/],
  [['--figure', ''], /--figure is '', which cannot be written: ENOENT/],
];

for (const [args, message] of bad) {
  test(`refused as a bad setting: ${args.join(' ')}`, async () => {
    await inTemporaryFolder(async cwd => {
      const { code, stdout, stderr } = await lockstep(['bench', ...args], { cwd });
      assert.equal(code, 2);
      assert.equal(stdout, '');
      assert.match(stderr, /^LOCKSTEP_BAD_SETTING: /);
      assert.match(stderr, message);
      assert.ok(!existsSync(join(cwd, 'runs')));
    });
  });
}

test('a flag given twice is bad usage, and says how to give several values', async () => {
  const { code, stderr } = await lockstep(['bench', '--workers', '1', '--workers=2']);
  assert.equal(code, 2);
  assert.match(stderr, /^LOCKSTEP_USAGE: Flag --workers is given twice: write --workers 1,2\./);
});

test('a sweep that is refused leaves no figure behind, and spoils none', async () => {
  await inTemporaryFolder(async cwd => {
    writeFileSync(join(cwd, 'old.svg'), 'old');
    for (const figure of ['new.svg', 'old.svg']) {
      const { code } = await lockstep(['bench', '--leaf', '7', '--figure', figure], { cwd });
      assert.equal(code, 2);
    }
    assert.deepEqual(readdirSync(cwd), ['old.svg']);
    assert.equal(readFileSync(join(cwd, 'old.svg'), 'utf8'), 'old');
  });
});

test('with --json a bad list is an error object on standard output', async () => {
  const { code, stdout, stderr } = await lockstep(['bench', '--leaf', '', '--json']);
  assert.equal(code, 2);
  assert.equal(stderr, '');
  const { type, code: errorCode } = JSON.parse(stdout);
  assert.deepEqual([type, errorCode], ['error', 'LOCKSTEP_BAD_SETTING']);
});

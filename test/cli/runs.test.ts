// `lockstep runs`: a table of runs, among them one that is at work.

import assert from 'node:assert/strict';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { RunSummary } from '#dist/library/index.js';
import { eventsOf, inTemporaryFolder, lockstep, onlyEvent } from '../support/cli.js';

test('runs at work, killed, finished and damaged', async () => {
  await inTemporaryFolder(async cwd => {
    const train = ['train', 'mlp', '--json', '--workers', '1'];
    const finished = await lockstep([...train, '--max-steps', '3'], { cwd });
    const { hash, testAccuracy } = onlyEvent(eventsOf(finished.stdout), 'done');
    mkdirSync(join(cwd, 'runs', 'empty'));
    writeFileSync(join(cwd, 'runs', 'empty', 'hashes.txt'), '');

    let listing: Promise<{ stdout: string }> | undefined;
    await lockstep([...train, '--epochs', '1000', '--out', 'runs/long'], {
      cwd,
      onOutput: (text, kill) => {
        if (!text.includes('"type":"step"') || listing) return;
        listing = lockstep(['runs', '--json'], { cwd }).finally(() => kill('SIGKILL'));
      },
    });
    assert.ok(listing);
    const { runs }: { runs: RunSummary[] } = JSON.parse((await listing).stdout);
    assert.deepEqual(
      runs.map(({ state }) => state),
      ['running', 'finished', 'damaged'],
    );

    const { code, stdout } = await lockstep(['runs'], { cwd });
    assert.equal(code, 0);
    assert.match(
      stdout,
      /\n│ runs\/long +│ interrupted │ mlp +│ mnist +│ +[\d,]+ \/ 469,000 │ .* │ [0-9a-f]{16} │\n/,
    );
    const accuracy = `${(100 * testAccuracy).toFixed(2)} %`;
    assert.match(
      stdout,
      new RegExp(`\\n│ runs/mlp-1 +│ finished +│ mlp +│ mnist +│ +3 / 3 │ +${accuracy} │ ${hash} │\\n`),
    );
    assert.match(stdout, /\n│ runs\/empty +│ damaged +│/);
    assert.match(stdout, /\ndamaged {2}.*empty holds no run: there is no config\.json in it\.\n$/);
    const of = await lockstep(['runs', 'runs/mlp-1', '--json'], { cwd });
    assert.equal(JSON.parse(of.stdout).runs.length, 1);
  });
});

test('no folder, an empty one, and one that is named and not there', async () => {
  await inTemporaryFolder(async cwd => {
    for (let isThere = false; ; isThere = true) {
      const { code, stdout } = await lockstep(['runs'], { cwd });
      assert.equal(code, 0);
      assert.equal(stdout, 'There are no runs in runs. `lockstep train` begins one.\n');
      assert.equal((await lockstep(['runs', '--json'], { cwd })).stdout, '{"runs":[]}\n');
      assert.equal(existsSync(join(cwd, 'runs')), isThere);
      if (isThere) break;
      mkdirSync(join(cwd, 'runs'));
    }
    const { code, stderr } = await lockstep(['runs', 'none'], { cwd });
    assert.equal(code, 1);
    assert.match(stderr, /^LOCKSTEP_RUN_MISSING: .*none holds no run: ENOENT/);
  });
});

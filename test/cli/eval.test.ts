// `lockstep eval`: what it prints, for people and for programs.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { evaluate, type Evaluation } from '#dist/library/index.js';
import { eventsOf, inTemporaryFolder, lockstep, onlyEvent } from '../support/cli.js';
import { cyclicLabels, dataFiles, folderWith } from '../support/idx.js';

test("MNIST: the figures of the run's end, a table and a matrix that fit into 80 columns", async () => {
  await inTemporaryFolder(async cwd => {
    const trained = await lockstep(['train', 'mlp', '--max-steps', '50', '--out', 'run', '--json'], { cwd });
    const { testLoss, testAccuracy, hash } = onlyEvent(eventsOf(trained.stdout), 'done');
    const { code, stdout } = await lockstep(['eval', 'run', '--workers', '2'], { cwd });
    assert.equal(code, 0);
    const [weights, figures, ...rest] = stdout.trimEnd().split('\n');
    assert.equal(weights, 'mlp after all 50 steps: run/weights.safetensors');
    const accuracy = `${(100 * testAccuracy).toFixed(2)} %`;
    assert.equal(figures, `10,000 test images of mnist: loss ${testLoss.toFixed(4)}, accuracy ${accuracy}`);
    assert.match(stdout, /\n│ +7 │ +1,028 │ +\d+ │ +[\d.]+ % │ +[\d,]+ │ +[\d.]+ % │\n/);
    const { confusion, classes } = await evaluate(`${cwd}/run`);
    for (const [label, row] of confusion.entries()) {
      const cells = row.map(count => (count === 0 ? '\\.' : count)).join(' +');
      assert.match(stdout, new RegExp(`\\n +${label} +${cells}(\\n|$)`));
    }
    for (const line of rest) assert.ok(line.length <= 80, line);

    const json = await lockstep(['eval', 'run', '--json'], { cwd });
    const printed: Evaluation = JSON.parse(json.stdout);
    assert.deepEqual([printed.loss, printed.accuracy, printed.hash], [testLoss, testAccuracy, hash]);
    assert.deepEqual([printed.confusion, printed.classes], [confusion, classes]);
  });
});

test('62 classes have a table and their most confused pairs; other data are said to be other', async t => {
  const labels = cyclicLabels(124, 62);
  const data = folderWith(t, dataFiles(labels, labels));
  const other = folderWith(t, dataFiles(labels, cyclicLabels(62, 62)));
  await inTemporaryFolder(async cwd => {
    await lockstep(['train', 'mlp', '--max-steps', '1', '--out', 'run', '--data', data], { cwd });
    const { code, stdout } = await lockstep(['eval', 'run', '--data', other], { cwd });
    assert.equal(code, 0);
    assert.match(stdout, /\n62 test images of [^,]+, other data than it was trained on: loss /);
    assert.match(stdout, /\n│ +61 │ +1 │ /);
    assert.match(stdout, /\nThe 10 most confused of \d\d pairs:\n/);
    assert.doesNotMatch(stdout, /How often each class/);

    const fewer = await lockstep(['eval', 'run', '--data', folderWith(t, dataFiles([1, 0], [0, 1, 1]))], {
      cwd,
    });
    assert.equal(fewer.code, 0);
    assert.match(fewer.stdout, /\n3 test images of /);
    const more = folderWith(t, dataFiles(cyclicLabels(63, 63), [0]));
    const refused = await lockstep(['eval', 'run', '--data', more], { cwd });
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /^LOCKSTEP_DATA_SHAPE: .* has images of 28 x 28 x 1 in 63 classes/);
  });
});

test('no run, no workers and an unknown flag are coded errors', async () => {
  await inTemporaryFolder(async cwd => {
    const missing = await lockstep(['eval', 'none', '--json'], { cwd });
    assert.deepEqual(
      [missing.code, onlyEvent(eventsOf(missing.stdout), 'error').code],
      [1, 'LOCKSTEP_RUN_MISSING'],
    );
    const workers = await lockstep(['eval', 'none', '--workers', 'many'], { cwd });
    assert.equal(workers.code, 2);
    assert.match(workers.stderr, /^LOCKSTEP_BAD_SETTING: Setting workers is 'many'/);
    const flag = await lockstep(['eval', 'none', '--worker', '2'], { cwd });
    assert.equal(flag.code, 2);
    assert.match(flag.stderr, /The nearest is --workers\./);
    assert.equal((await lockstep(['eval'], { cwd })).code, 2);
  });
});

// `lockstep predict`: a picture, the probabilities, and what was done to a file.

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { loadMnist } from '#dist/coordinator/mnist.js';
import { predict, type Prediction } from '#dist/library/index.js';
import { eventsOf, inTemporaryFolder, lockstep, onlyEvent } from '../support/cli.js';
import { cyclicLabels, dataFiles, folderWith } from '../support/idx.js';
import { pngFile } from '../support/png.js';

const { images, labels } = loadMnist().test;

test('an index and files of the same image', async () => {
  await inTemporaryFolder(async cwd => {
    await lockstep(['train', 'lenet5', '--max-steps', '150', '--out', 'run'], { cwd });
    const { code, stdout } = await lockstep(['predict', 'run', '0'], { cwd });
    assert.equal(code, 0);
    const lines = stdout.trimEnd().split('\n');
    assert.deepEqual(lines.slice(0, 2), [
      'lenet5 after all 150 steps: run/weights.safetensors',
      'test image 0',
    ]);
    assert.match(stdout, /\n {6}▀▀▀▀█+▄ *\n/);
    const { class: best, probabilities } = await predict(join(cwd, 'run'), 0);
    assert.equal(best, labels[0]);
    for (const [label, probability] of probabilities.entries()) {
      const share = `${(100 * probability).toFixed(2)} %`;
      assert.match(lines.at(-11 + label)!, new RegExp(`^  ${label} +${share}(  █+)?$`));
    }
    assert.match(lines.at(-1)!, new RegExp(`^class ${best} with [\\d.]+ %, which is right$`));

    const large = Uint8Array.from({ length: 56 * 84 }, (_, i) => {
      const [x, y] = [Math.floor((i % 56) / 2), Math.floor(Math.floor(i / 56) / 2)];
      return y < 28 ? 255 - images[y * 28 + x] : 255;
    });
    writeFileSync(join(cwd, 'large.png'), pngFile({ width: 56, height: 84, samples: large }));
    const file = await lockstep(['predict', 'run', 'large.png'], { cwd });
    assert.match(
      file.stdout,
      /\nlarge\.png: 56 x 84 pixels, inverted \(it was dark on light\), cropped to its ink and centered, scaled to 28 x 28\n/,
    );
    assert.match(file.stdout, new RegExp(`\\nclass ${best} with [\\d.]+ %\\n$`));
    const asIs = await lockstep(['predict', 'run', 'large.png', '--as-is'], { cwd });
    assert.match(asIs.stdout, /\nlarge\.png: 56 x 84 pixels, scaled to 28 x 28\n/);

    writeFileSync(join(cwd, '7'), pngFile({ width: 28, height: 28, samples: images.subarray(0, 784) }));
    const json = await lockstep(['predict', 'run', './7', '--json'], { cwd });
    const printed: Prediction = JSON.parse(json.stdout);
    assert.deepEqual([printed.image, printed.class, printed.probabilities], ['./7', best, probabilities]);
    assert.deepEqual([printed.label, 'pixels' in printed], [null, false]);

    const broken = await lockstep(['predict', 'run', 'run/config.json'], { cwd });
    assert.equal(broken.code, 1);
    assert.match(
      broken.stderr,
      /^LOCKSTEP_IMAGE_FORMAT: run\/config\.json is no image: a PNG or a JPEG is needed\./,
    );
    for (const index of ['10000', '-1']) {
      const beyond = await lockstep(['predict', 'run', index, '--json'], { cwd });
      assert.equal(beyond.code, 2);
      assert.equal(onlyEvent(eventsOf(beyond.stdout), 'error').code, 'LOCKSTEP_BAD_SETTING');
    }
  });
});

test('of many classes the ten most probable are shown', async t => {
  const data = folderWith(t, dataFiles(cyclicLabels(52, 26), cyclicLabels(26, 26)));
  await inTemporaryFolder(async cwd => {
    await lockstep(['train', 'mlp', '--max-steps', '1', '--out', 'run', '--data', data], { cwd });
    const { stdout } = await lockstep(['predict', 'run', '25'], { cwd });
    assert.match(stdout, /\n\(the 10 most probable of 26 classes\)\nclass \d+ with /);
    const shares = [...stdout.matchAll(/^ {1,2}\d+ +([\d.]+) %/gm)].map(match => Number(match[1]));
    assert.equal(shares.length, 10);
    assert.deepEqual(
      shares,
      shares.toSorted((a, b) => b - a),
    );
  });
});

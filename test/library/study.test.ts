// Studies on a few small images: finished runs are kept, others go on, and what is no run of the study is left alone.

import assert from 'node:assert/strict';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { LockstepError, study, train, type Study, type StudyProgress } from '#dist/library/index.js';
import { studyOf } from '#dist/library/study.js';
import { compileModel } from '#dist/shared/model.js';
import { presetSpec } from '#dist/shared/presets.js';
import { createJob, resolveSettings } from '#dist/shared/settings.js';
import { loadMnist } from '#dist/coordinator/mnist.js';
import { F32_PROFILE } from '#dist/worker/engines/engine.js';
import { FULL_DEVICE, fullDeviceIsMissing } from '../support/full-device.js';
import { inTemporaryFolder } from '../support/cli.js';
import { goodFigures, writeRuns } from '../support/study.js';

const shape = { height: 16, width: 16, channels: 1 };
const labels = Uint8Array.from({ length: 96 }, (_, i) => i % 2);
/** White halves: left or right. */
const images = Uint8Array.from({ length: 96 * 256 }, (_, i) =>
  i % 16 >= 8 === (labels[Math.floor(i / 256)] === 1) ? 255 : i % 7,
);
const dataset = { name: 'halves', shape, classes: 2, train: { images, labels }, test: { images, labels } };
/** 6 steps each. */
const settings = { batch: 32, epochs: 2 };

interface Call {
  readonly seeds: number;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: StudyProgress) => void;
  readonly inject?: string;
}

function small(out: string, { seeds, inject, ...watcher }: Call): Promise<Study> {
  return studyOf({ seeds, out, workers: 1 }, watcher, { settings, dataset, ...(inject && { inject }) });
}

function read(dir: string, name: string): string {
  return readFileSync(join(dir, name), 'utf8');
}

test('more seeds later are trained alone, and the files are those of a study with all of them', async () => {
  await inTemporaryFolder(async dir => {
    const out = join(dir, 'study');
    const one = await small(out, { seeds: 1 });
    assert.equal(one.trained, 3);
    const metrics = join(out, 'runs', 'mlp-seed-1', 'metrics.jsonl');
    const before = readFileSync(metrics, 'utf8');
    const told: StudyProgress[] = [];
    const two = await small(out, { seeds: 2, onProgress: progress => told.push(progress) });
    assert.equal(two.trained, 3);
    assert.equal(readFileSync(metrics, 'utf8'), before);
    assert.deepEqual([told[0].done, told[0].runs, told[0].step, told[0].totalSteps], [3, 6, 18, 36]);
    assert.deepEqual(
      told.flatMap(({ ended }) => (ended ? [`${ended.model} ${ended.seed}`] : [])),
      ['lenet5 2', 'mlp 2', 'lenet5-regularized 2'],
    );
    assert.deepEqual([told.at(-1)!.done, told.at(-1)!.step], [6, 36]);

    const fresh = await small(join(dir, 'fresh'), { seeds: 2 });
    assert.deepEqual(fresh.files, two.files);
    for (const name of fresh.files) assert.equal(read(out, name), read(join(dir, 'fresh'), name), name);
    assert.doesNotMatch(read(out, 'study.json'), new RegExp(dir));
    for (const name of two.files.filter(file => file.startsWith('figures/'))) {
      assert.ok(read(out, 'README.md').includes(`](${name})`), name);
    }
    for (const seeds of [1, 2]) assert.equal((await small(out, { seeds })).trained, 0);
  });
});

test('a run has the figures and hash that the same training alone has', async () => {
  await inTemporaryFolder(async dir => {
    const { models } = await small(join(dir, 'study'), { seeds: 2 });
    for (const { model, runs } of models) {
      const alone = await train({ ...settings, model, seed: 2, dataset, workers: 2, out: join(dir, model) });
      const { hash, weightsSha256, epochs } = runs[1];
      assert.deepEqual([hash, weightsSha256], [alone.hash, alone.weightsSha256]);
      assert.equal(epochs.at(-1)!.testLoss, alone.testLoss);
    }
  });
});

test('a study that is interrupted goes on with the run that it was at', async () => {
  await inTemporaryFolder(async dir => {
    const stop = new AbortController();
    const out = join(dir, 'study');
    await assert.rejects(
      small(out, {
        seeds: 1,
        signal: stop.signal,
        onProgress: ({ current }) => {
          if (current?.model === 'mlp') stop.abort();
        },
      }),
      {
        code: 'LOCKSTEP_INTERRUPTED',
        message:
          /^Interrupted after 1 of 3 runs, in that of mlp with seed 1, which is saved\. The same command /,
      },
    );
    assert.ok(!existsSync(join(out, 'README.md')));
    const resumed = await small(out, { seeds: 1 });
    assert.equal(resumed.trained, 2);
    const whole = await small(join(dir, 'whole'), { seeds: 1 });
    assert.deepEqual(resumed.models, whole.models);
  });
});

test('what onProgress throws ends the study when the run at work is saved', async () => {
  await inTemporaryFolder(async dir => {
    const mine = new LockstepError('LOCKSTEP_INTERRUPTED', 'mine');
    let told = 0;
    const onProgress = ({ current }: StudyProgress): void => {
      // The first time nothing is at work yet.
      if (current?.model === 'mlp' && ++told === 2) throw mine;
    };
    await assert.rejects(small(dir, { seeds: 1, onProgress }), error => error === mine);
    const names = readdirSync(join(dir, 'runs', 'mlp-seed-1'));
    assert.deepEqual(
      names.filter(name => name.startsWith('lock')),
      [],
    );
    assert.ok(names.includes('checkpoints'));
    assert.equal((await small(dir, { seeds: 1 })).trained, 2);
  });
});

test('a thread that is lost is a warning, once', async () => {
  await inTemporaryFolder(async dir => {
    const { trained, warnings } = await small(dir, { seeds: 1, inject: 'exit:thread=0,step=2,phase=leaf' });
    assert.equal(trained, 3);
    assert.equal(warnings.length, 1);
    assert.match(warnings[0], /^Thread 0 was lost and replaced: .*\w\.$/);
  });
});

const obstacles: [string, (runDir: string) => void, RegExp][] = [
  [
    'another seed',
    runDir => {
      const config = JSON.parse(read(runDir, 'config.json'));
      config.bits.seed = 9;
      writeFileSync(join(runDir, 'config.json'), JSON.stringify(config));
    },
    /mlp-seed-1 holds a run that is not the study's: it differs in what decides bits, seed: remove it, or name another folder with --out\.$/,
  ],
  [
    'another arithmetic',
    runDir => {
      const config = JSON.parse(read(runDir, 'config.json'));
      config.bits.profile = 'other';
      writeFileSync(join(runDir, 'config.json'), JSON.stringify(config));
    },
    / bits, profile: remove it/,
  ],
  [
    'nodes of any arithmetic',
    runDir => {
      const config = JSON.parse(read(runDir, 'config.json'));
      config.settings.mixed = true;
      writeFileSync(join(runDir, 'config.json'), JSON.stringify(config));
    },
    / bits, mixed: remove it/,
  ],
  [
    'a config of nobody',
    runDir => writeFileSync(join(runDir, 'config.json'), '{}'),
    /cannot be read \(.*remove it/,
  ],
  [
    'other files',
    runDir => rmSync(join(runDir, 'config.json')),
    / holds files that are no run of the study: /,
  ],
  [
    'a file in the place of the folder',
    runDir => {
      rmSync(runDir, { recursive: true });
      writeFileSync(runDir, '');
    },
    / is no folder, and a run of the study is kept there: /,
  ],
];

for (const [what, change, message] of obstacles) {
  test(`refused before anything is trained: ${what}`, async () => {
    await inTemporaryFolder(async dir => {
      const [, mlp] = writeRuns(dir, [1], goodFigures, { settings, dataset });
      change(mlp);
      const progress: StudyProgress[] = [];
      const call = small(dir, { seeds: 2, onProgress: told => progress.push(told) });
      await assert.rejects(call, { code: 'LOCKSTEP_RUN_EXISTS', message });
      assert.deepEqual(progress, []);
    });
  });
}

const damages: [string, string, (text: string) => string][] = [
  ['a line that is none', 'metrics.jsonl', text => text.replace('{"type":"epoch"', '{"type":"ep')],
  ['an epoch too few', 'metrics.jsonl', text => text.replace(/.*"epoch":2,.*\n/, '')],
  ['another hash', 'hashes.txt', () => '0123456789abcdef\n'],
];

for (const [what, name, change] of damages) {
  test(`a finished run with ${what} is damaged, and the message says what to do`, async () => {
    await inTemporaryFolder(async dir => {
      const [, , regularized] = writeRuns(dir, [1], goodFigures, { settings, dataset });
      writeFileSync(join(regularized, name), change(read(regularized, name)));
      await assert.rejects(small(dir, { seeds: 1 }), {
        code: 'LOCKSTEP_FILE_DAMAGED',
        message:
          / cannot be used: .* Remove the folder .*lenet5-regularized-seed-1, and the same command trains this run again\.$/,
      });
    });
  });
}

test('a finished run that has lost a file is damaged, and not taken for one to go on with', async () => {
  await inTemporaryFolder(async dir => {
    const [, , regularized] = writeRuns(dir, [1], goodFigures, { settings, dataset });
    writeFileSync(join(regularized, 'weights.safetensors'), 'weights');
    rmSync(join(regularized, 'hashes.txt'));
    await assert.rejects(small(dir, { seeds: 1 }), {
      code: 'LOCKSTEP_FILE_DAMAGED',
      message:
        /hashes\.txt cannot be used: .* Remove the folder .*, and the same command trains this run again\.$/,
    });
  });
});

test('a run that is unfinished and has no good checkpoint is damaged, and the message says what to do', async () => {
  await inTemporaryFolder(async dir => {
    const [, mlp] = writeRuns(dir, [1], goodFigures, { settings, dataset });
    const metrics = read(mlp, 'metrics.jsonl');
    writeFileSync(join(mlp, 'metrics.jsonl'), metrics.replace(/.*"done".*\n/, ''));
    mkdirSync(join(mlp, 'checkpoints'));
    writeFileSync(join(mlp, 'checkpoints', 'step-000000006.safetensors'), 'no checkpoint');
    await assert.rejects(small(dir, { seeds: 1 }), {
      code: 'LOCKSTEP_FILE_DAMAGED',
      message:
        /^No checkpoint of .* can be used\. .* Remove the folder .*mlp-seed-1, and the same command trains this run again\.$/,
    });
  });
});

for (const mine of ['{"title":"mine"}', '{"format":"other"}', '[]', 'null', 'mine']) {
  test(`a study.json that is no study's, ${mine}, is not replaced, nor what is beside it`, async () => {
    await inTemporaryFolder(async dir => {
      writeFileSync(join(dir, 'study.json'), mine);
      writeFileSync(join(dir, 'README.md'), 'my own');
      await assert.rejects(study({ seeds: 1, out: dir }), {
        code: 'LOCKSTEP_RUN_EXISTS',
        message: / is no study's folder and holds README\.md, study\.json, which a study would replace: /,
      });
      assert.deepEqual(readdirSync(dir).toSorted(), ['README.md', 'study.json']);
      assert.deepEqual([read(dir, 'study.json'), read(dir, 'README.md')], [mine, 'my own']);
    });
  });
}

test("files that are no study's are not replaced", async () => {
  await inTemporaryFolder(async dir => {
    writeFileSync(join(dir, 'README.md'), 'mine');
    mkdirSync(join(dir, 'figures'));
    await assert.rejects(study({ seeds: 1, out: dir }), {
      code: 'LOCKSTEP_RUN_EXISTS',
      message: / is no study's folder and holds README\.md, figures, which a study would replace: /,
    });
    assert.equal(read(dir, 'README.md'), 'mine');
    assert.ok(!existsSync(join(dir, 'runs')));
    const file = join(dir, 'README.md');
    await assert.rejects(study({ seeds: 1, out: file }), { code: 'LOCKSTEP_RUN_FOLDER' });
  });
});

test(
  'a disk that is full is told as that, and not as a folder that is closed',
  { skip: fullDeviceIsMissing() },
  async () => {
    await inTemporaryFolder(async dir => {
      writeRuns(dir, [1], goodFigures, { settings, dataset });
      symlinkSync(FULL_DEVICE, join(dir, 'study.json.part'));
      await assert.rejects(small(dir, { seeds: 1 }), {
        code: 'LOCKSTEP_RUN_FOLDER',
        message:
          /^Cannot write the study's folder .*: ENOSPC.*\. Free some space, and give the same command again\.$/,
      });
    });
  },
);

const settingsCases: [string, object, RegExp][] = [
  ['no seeds', { seeds: 0 }, /^Setting seeds is 0, expected a whole number from 1 to 100\.$/],
  ['too many', { seeds: 101 }, /^Setting seeds is 101, expected a whole number from 1 to 100\.$/],
  ['no workers', { workers: 0 }, /^Setting workers is 0, expected a whole number from 1 to 256\.$/],
  ['no folder', { out: '' }, /^Setting out is 0, expected a path\.$/],
  ['misspelt', { seed: 1 }, /^There is no setting seed\.$/],
];

for (const [what, options, message] of settingsCases) {
  test(`a setting that cannot work: ${what}`, async () => {
    await assert.rejects(study(options), { code: 'LOCKSTEP_BAD_SETTING', message });
  });
}

test('a run of a study has the bits of `lockstep train` with that model and seed', async () => {
  await inTemporaryFolder(async dir => {
    const stop = new AbortController();
    const out = join(dir, 'study');
    const onProgress = ({ current }: StudyProgress): void => {
      if (current) stop.abort();
    };
    await assert.rejects(study({ seeds: 1, out, signal: stop.signal, onProgress }), {
      code: 'LOCKSTEP_INTERRUPTED',
    });
    const mnist = loadMnist();
    const model = compileModel(presetSpec('lenet5', mnist.classes), mnist.shape, mnist.classes);
    const alone = createJob(resolveSettings({ model: 'lenet5', seed: 1 }), model, mnist, F32_PROFILE);
    const { bits, totalSteps } = JSON.parse(read(join(out, 'runs', 'lenet5-seed-1'), 'config.json'));
    assert.deepEqual([bits, totalSteps], [alone.bits, alone.totalSteps]);
  });
});

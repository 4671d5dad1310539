// Runs that are ended and resumed: the same bits, events and lines as without the end.

import assert from 'node:assert/strict';
import {
  appendFileSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join, relative } from 'node:path';
import { test } from 'node:test';
import { train, type ModelSpec, type RunEvent, type TrainOptions } from '#dist/library/index.js';
import { inTemporaryFolder } from '../support/cli.js';
import { cyclicLabels, dataFiles, folderWith, gzipped } from '../support/idx.js';
import { damage, keptIn, trainUntil, type KeptRun } from '../support/kept-run.js';
import { randomTest } from '../support/random.js';
import { tinyDataset, tinyModel } from '../support/tiny.js';

/** 27 steps in 3 epochs of 9, each but the last of 24 samples. */
const tiny = { model: tinyModel, dataset: tinyDataset(), batch: 24, leaf: 3, epochs: 3, workers: 2 } as const;
const steps = 27;

function checkpointsIn(dir: string): string[] {
  return readdirSync(join(dir, 'checkpoints')).toSorted();
}

/** The folder of a whole run, to compare with. */
async function uninterrupted(dir: string, options: TrainOptions = {}): Promise<KeptRun> {
  const { runDir } = await train({ ...tiny, ...options, out: join(dir, 'whole') });
  return keptIn(runDir);
}

for (const optimizer of ['adam', 'sgd', 'adamw'] as const) {
  randomTest(
    `a run with ${optimizer} that is ended twice anywhere ends with the bits of one that is not`,
    async random => {
      await inTemporaryFolder(async dir => {
        const options = { optimizer, lr: 0.01, weightDecay: 0.01 };
        const whole = await uninterrupted(dir, options);
        for (let round = 0; round < 4; round++) {
          const out = join(dir, `run-${round}`);
          const first = random.integer(steps);
          await trainUntil({ ...tiny, ...options, out }, first);
          const second = first + random.integer(steps - first);
          await trainUntil({ resume: out, dataset: tiny.dataset, workers: 1 + random.integer(4) }, second);
          await train({ resume: out, dataset: tiny.dataset, workers: 1 + random.integer(4) });
          assert.deepEqual(keptIn(out), whole, `ended after ${first} and ${second}`);
        }
      });
    },
  );
}

test('a run can be ended after its last step and before its evaluation', async () => {
  await inTemporaryFolder(async dir => {
    const whole = await uninterrupted(dir);
    const out = join(dir, 'run');
    await train({ ...tiny, out });
    // As if it had been killed after the checkpoint of the last step was in place.
    const metrics = readFileSync(join(out, 'metrics.jsonl'), 'utf8').trimEnd().split('\n');
    writeFileSync(join(out, 'metrics.jsonl'), `${metrics.slice(0, -2).join('\n')}\n{"type":"ep`);
    rmSync(join(out, 'weights.safetensors'));
    await train({ resume: out, dataset: tiny.dataset });
    assert.deepEqual(keptIn(out), whole);
  });
});

test('lines that were written after the last checkpoint are written once, a torn one included', async () => {
  await inTemporaryFolder(async dir => {
    const whole = await uninterrupted(dir);
    const out = join(dir, 'run');
    await trainUntil({ ...tiny, out }, 10);
    for (const name of ['metrics.jsonl', 'hashes.txt']) {
      const path = join(dir, 'whole', name);
      const later = readFileSync(path).subarray(readFileSync(join(out, name)).length);
      appendFileSync(join(out, name), later.subarray(0, Math.floor(later.length * 0.6)));
    }
    await train({ resume: out, dataset: tiny.dataset });
    assert.deepEqual(keptIn(out), whole);
  });
});

test('a run without a checkpoint begins again', async () => {
  await inTemporaryFolder(async dir => {
    const whole = await uninterrupted(dir);
    const out = join(dir, 'run');
    await trainUntil({ ...tiny, out }, 12);
    rmSync(join(out, 'checkpoints'), { recursive: true });
    await train({ resume: out, dataset: tiny.dataset });
    assert.deepEqual(keptIn(out), whole);
  });
});

test('the last three checkpoints are kept, one exists at step 0, and due ones come at the step they are due', async () => {
  await inTemporaryFolder(async dir => {
    const stepsOf = async (checkpointEvery: string): Promise<number[]> => {
      const saved: number[] = [];
      for await (const event of train({ ...tiny, checkpointEvery, out: join(dir, checkpointEvery) })) {
        if (event.type === 'checkpoint') saved.push(event.step);
      }
      return saved;
    };
    assert.deepEqual(await stepsOf('8'), [0, 8, 16, 24, 27]);
    assert.deepEqual(
      checkpointsIn(join(dir, '8')),
      [16, 24, 27].map(step => `step-0000000${step}.safetensors`),
    );
    assert.deepEqual(await stepsOf('5steps'), [0, 5, 10, 15, 20, 25, 27]);
    assert.deepEqual(await stepsOf('2epochs'), [0, 18, 27]);
    assert.deepEqual(await stepsOf('1000s'), [0, 27]);
  });
});

test('a damaged newest checkpoint is named and the one before is used; with none left it is an error', async () => {
  await inTemporaryFolder(async dir => {
    const whole = await uninterrupted(dir);
    const out = join(dir, 'run');
    await trainUntil({ ...tiny, out }, 20);
    const files = checkpointsIn(out).map(name => join(out, 'checkpoints', name));
    assert.equal(files.length, 3);
    const good = files.map(file => readFileSync(file));
    for (const file of files) damage(file);
    await assert.rejects(train({ resume: out, dataset: tiny.dataset }), (error: Error) => {
      for (const file of files) assert.ok(error.message.includes(file), error.message);
      return 'code' in error && error.code === 'LOCKSTEP_FILE_DAMAGED';
    });
    for (const [index, file] of files.entries()) writeFileSync(file, good[index]);
    truncateSync(files[2], good[2].length - 1);
    damage(files[1]);
    const warnings: string[] = [];
    let resumedStep: number | undefined;
    for await (const event of train({ resume: out, dataset: tiny.dataset })) {
      if (event.type === 'warning') warnings.push(event.message);
      if (event.type === 'start') ({ resumedStep } = event);
    }
    assert.deepEqual(
      warnings.map(text => files.findIndex(file => text.includes(file))),
      [2, 1],
    );
    assert.equal(files[0].includes(`${resumedStep}.safetensors`), true);
    assert.ok(existsSync(`${files[1]}.unused`));
    assert.deepEqual(keptIn(out), whole);
  });
});

test('the checkpoint of another run is not taken', async () => {
  await inTemporaryFolder(async dir => {
    const [out, other] = [join(dir, 'run'), join(dir, 'other')];
    await trainUntil({ ...tiny, out }, 9);
    await trainUntil({ ...tiny, seed: 2, out: other }, 9);
    const [newest] = checkpointsIn(out).slice(-1);
    copyFileSync(join(other, 'checkpoints', newest), join(out, 'checkpoints', newest));
    const events: RunEvent[] = [];
    for await (const event of train({ resume: out, dataset: tiny.dataset })) events.push(event);
    assert.ok(events.some(event => event.type === 'warning' && event.message.includes('other settings')));
    assert.deepEqual(keptIn(out), await uninterrupted(dir));
  });
});

const changes = [
  { change: { seed: 2 }, message: /Setting seed is 2, and the run was begun with 1/ },
  { change: { lr: 0.5 }, message: /Setting lr is 0\.5/ },
  { change: { batch: 48 }, message: /Setting batch is 48/ },
  { change: { batch: 25 }, message: /Setting batch is 25, and the run was begun with 24/ },
  { change: { leaf: 6 }, message: /Setting leaf is 6, and the run was begun with 3/ },
  { change: { optimizer: 'sgd' }, message: /Setting optimizer is sgd/ },
  { change: { epochs: 4 }, message: /Setting epochs is 4, and the run was begun with 3/ },
  { change: { lrSchedule: 'constant' }, message: /Setting lrSchedule is constant/ },
  { change: { dataset: tinyDataset(100) }, message: /data is not what the run was begun with/ },
  {
    change: { model: { ...tinyModel, layers: tinyModel.layers.with(4, { type: 'dense', units: 12 }) } },
    message: /model/,
  },
  { change: { out: 'elsewhere' }, message: /stays in its folder/ },
] as const;

test('a resumed run refuses other values of what decides bits, by name, and takes other values of the rest', async () => {
  await inTemporaryFolder(async dir => {
    const whole = await uninterrupted(dir);
    const out = join(dir, 'run');
    await trainUntil({ ...tiny, out }, 10);
    for (const { change, message } of changes) {
      const call = train({ resume: out, dataset: tiny.dataset, ...change });
      await assert.rejects(call, { code: 'LOCKSTEP_RESUME_SETTING', message });
    }
    const rest = { workers: 3, engine: 'reference', checkpointEvery: '4', momentum: 0.1, seed: 1 } as const;
    await train({ resume: out, dataset: tiny.dataset, ...rest });
    assert.deepEqual(keptIn(out), whole);
    await assert.rejects(train({ resume: out, dataset: tiny.dataset }), { code: 'LOCKSTEP_RUN_FINISHED' });
    assert.deepEqual(keptIn(out), whole);
  });
});

test('epochs are added where the learning rate does not depend on their number', async () => {
  await inTemporaryFolder(async dir => {
    const constant = { ...tiny, lrSchedule: 'constant' } as const;
    const whole = await uninterrupted(dir, constant);
    const out = join(dir, 'run');
    await train({ ...constant, epochs: 1, out });
    await train({ resume: out, dataset: tiny.dataset, epochs: 2 });
    const fewer = train({ resume: out, dataset: tiny.dataset, epochs: 1 });
    await assert.rejects(fewer, { code: 'LOCKSTEP_RUN_FINISHED' });
    await train({ resume: out, dataset: tiny.dataset, epochs: 3 });
    assert.deepEqual(keptIn(out), whole);
  });
});

test('a folder without a run is LOCKSTEP_RUN_MISSING and left as it is', async () => {
  await inTemporaryFolder(async dir => {
    await assert.rejects(train({ resume: dir }), {
      code: 'LOCKSTEP_RUN_MISSING',
      message: /no config\.json/,
    });
    assert.deepEqual(readdirSync(dir), []);
    await assert.rejects(train({ resume: join(dir, 'nothing') }), { code: 'LOCKSTEP_RUN_MISSING' });
    writeFileSync(join(dir, 'config.json'), '{"settings":{}}');
    await assert.rejects(train({ resume: dir }), {
      code: 'LOCKSTEP_RUN_MISSING',
      message: /not of this version/,
    });
  });
});

test('a folder in which a run is at work is locked', async () => {
  await inTemporaryFolder(async dir => {
    const out = join(dir, 'run');
    for await (const event of train({ ...tiny, out })) {
      if (event.type !== 'start') continue;
      await assert.rejects(train({ resume: out, dataset: tiny.dataset }), { code: 'LOCKSTEP_RUN_LOCKED' });
    }
    assert.equal(
      readdirSync(out).some(name => name.startsWith('lock')),
      false,
    );
  });
});

test('a new run that cannot begin leaves no folder behind', async () => {
  await inTemporaryFolder(async dir => {
    const out = join(dir, 'run');
    const dying = train({ ...tiny, out, inject: 'exit:thread=any,step=1,phase=leaf,times=99' });
    await assert.rejects(dying, { code: 'LOCKSTEP_THREAD_DIES' });
    assert.ok(existsSync(join(out, 'config.json')), 'this one had begun');
    const units = 8192;
    const wide: ModelSpec = {
      name: 'wide',
      layers: [
        { type: 'flatten' },
        { type: 'dense', units },
        { type: 'dense', units: 60 },
        { type: 'dense', units },
        { type: 'dense', units: 3 },
      ],
    };
    const call = train({ ...tiny, model: wide, workers: 256, out: join(dir, 'wide') });
    await assert.rejects(call, { code: 'LOCKSTEP_MEMORY' });
    assert.equal(existsSync(join(dir, 'wide')), false);
  });
});

for (const [what, classes, side] of [
  ['26 classes', 26, 28],
  ['62 classes', 62, 28],
  ['images of 32 x 32', 10, 32],
] as const) {
  test(`a run on files with ${what} is resumed, from another working directory too`, async t => {
    const labels = cyclicLabels(3 * classes, classes);
    const data = folderWith(t, gzipped(dataFiles(labels, cyclicLabels(classes, classes), side)));
    await inTemporaryFolder(async dir => {
      const options = {
        model: 'lenet5',
        data: relative(process.cwd(), data),
        batch: 24,
        epochs: 2,
        workers: 2,
      } as const;
      const whole = keptIn((await train({ ...options, out: join(dir, 'whole') })).runDir);
      const out = join(dir, 'run');
      await trainUntil({ ...options, out }, 2);
      assert.equal((await train({ resume: out, workers: 1 })).runDir, out);
      assert.deepEqual(keptIn(out), whole);
      const { settings } = JSON.parse(readFileSync(join(out, 'config.json'), 'utf8'));
      assert.equal(settings.data, data);
      const other = folderWith(t, dataFiles(labels, labels, side));
      await trainUntil({ ...options, out: join(dir, 'third') }, 2);
      await assert.rejects(train({ resume: join(dir, 'third'), data: other }), {
        code: 'LOCKSTEP_RESUME_SETTING',
        message: /data/,
      });
    });
  });
}

test('where the metrics do not reach, an older checkpoint is used, and the newer one is kept', async () => {
  await inTemporaryFolder(async dir => {
    const whole = await uninterrupted(dir);
    const out = join(dir, 'run');
    await trainUntil({ ...tiny, out }, 20);
    const metrics = join(out, 'metrics.jsonl');
    truncateSync(metrics, readFileSync(metrics).length - 150);
    appendFileSync(metrics, 'null\n');
    const warnings: string[] = [];
    for await (const event of train({ resume: out, dataset: tiny.dataset })) {
      if (event.type === 'warning') warnings.push(event.message);
    }
    assert.match(warnings[0], /metrics\.jsonl has \d+ of the first \d+ steps.*kept as \.unused/);
    assert.deepEqual(keptIn(out), whole);
  });
});

const badContent = [
  {
    change: { train: { images: [1, 2], labels: [0] } },
    message: /train\.images is Array, expected a Uint8Array/,
  },
  { change: { test: undefined }, message: /dataset's test/ },
  {
    change: { shape: { height: 2.5, width: 4, channels: 1 } },
    message: /shape\.height is 2\.5, expected a whole/,
  },
  { change: { classes: Number.NaN }, message: /classes is NaN/ },
  { change: { classes: 257 }, message: /classes is 257, expected at most 256/ },
];

test('a dataset that is not what the types say is refused by name', async () => {
  for (const { change, message } of badContent) {
    // As from a caller without types.
    const options: object = { ...tiny, dataset: { ...tiny.dataset, ...change } };
    await assert.rejects(train(options), { code: 'LOCKSTEP_DATA_FORMAT', message });
  }
});

test('a checkpoint that cannot be read is like a damaged one', async () => {
  await inTemporaryFolder(async dir => {
    const whole = await uninterrupted(dir);
    const out = join(dir, 'run');
    await trainUntil({ ...tiny, out }, 12);
    const [newest] = checkpointsIn(out).slice(-1);
    rmSync(join(out, 'checkpoints', newest));
    mkdirSync(join(out, 'checkpoints', newest));
    await train({ resume: out, dataset: tiny.dataset });
    assert.deepEqual(keptIn(out), whole);
  });
});

// `verify`: honest runs pass, whatever happened to them; each change to a run folder is found at its step.

import assert from 'node:assert/strict';
import {
  appendFileSync,
  cpSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { decodeSafetensors, encodeSafetensors, type SafetensorsFile } from '#dist/coordinator/safetensors.js';
import {
  train,
  verify,
  VerifyError,
  type Verification,
  type VerifyOptions,
  type VerifyProgress,
} from '#dist/library/index.js';
import { inTemporaryFolder } from '../support/cli.js';
import { cyclicLabels, dataFiles, folderWith, names } from '../support/idx.js';
import { damage, trainUntil } from '../support/kept-run.js';
import { randomTest } from '../support/random.js';
import { tinyDataset, tinyModel } from '../support/tiny.js';

const dataset = tinyDataset();
/** 27 steps in 3 epochs of 9; of its checkpoints those after 16, 24 and 27 are kept. */
const tiny = { model: tinyModel, dataset, batch: 24, leaf: 3, epochs: 3, workers: 2 } as const;
const steps = 27;

/** Where lines of metrics.jsonl are, from 0: behind each 9 of steps is that of their epoch, at the end the line done. */
const stepLine = (step: number): number => step - 1 + Math.floor((step - 1) / 9);
const epochLine = (epoch: number): number => 10 * epoch - 1;
const DONE_LINE = 30;

const home = mkdtempSync(join(tmpdir(), 'lockstep-verify-'));
after(() => rmSync(home, { recursive: true }));
const finished = join(home, 'finished');
before(() => train({ ...tiny, checkpointEvery: '8', out: finished }));

/** Gives `work` a copy of the finished run. */
async function withCopy(work: (dir: string) => Promise<void>): Promise<void> {
  await inTemporaryFolder(async parent => {
    const dir = join(parent, 'run');
    cpSync(finished, dir, { recursive: true });
    await work(dir);
  });
}

function check(dir: string, options: VerifyOptions = {}): Promise<Verification> {
  return verify(dir, { dataset, workers: 1, ...options });
}

/** What was found is of this step, and of these files in this order. */
async function assertDiffers(
  promise: Promise<unknown>,
  step: number,
  files: readonly string[],
  what: RegExp = /./,
): Promise<void> {
  await assert.rejects(promise, (error: Error) => {
    assert.ok(error instanceof VerifyError, error.message);
    assert.equal(error.code, 'LOCKSTEP_VERIFY');
    assert.equal(error.step, step, error.message);
    assert.deepEqual(Array.from(new Set(error.differences.map(({ file }) => file))), files, error.message);
    assert.match(error.message, new RegExp(`differs at step ${step}, `));
    assert.match(error.message, what);
    return true;
  });
}

function edit(dir: string, name: string, change: (text: string) => string): void {
  const path = join(dir, name);
  const held = readFileSync(path, 'utf8');
  const changed = change(held);
  assert.notEqual(changed, held);
  writeFileSync(path, changed);
}

function editLines(dir: string, name: string, change: (lines: string[]) => void): void {
  edit(dir, name, text => {
    const lines = text.split('\n');
    change(lines);
    return lines.join('\n');
  });
}

/** Changes the value of a key in a line of metrics.jsonl by as little as a number can change. */
function nudge(dir: string, line: number, key: string): void {
  editLines(dir, 'metrics.jsonl', lines => {
    const metric: Record<string, number> = JSON.parse(lines[line]);
    const bits = new BigInt64Array(Float64Array.of(metric[key]).buffer);
    bits[0]++;
    lines[line] = JSON.stringify({ ...metric, [key]: new Float64Array(bits.buffer)[0] });
  });
}

/** Writes another content, with a checksum that suits it. */
function mended(path: string, change: (content: SafetensorsFile) => SafetensorsFile | void): void {
  const content = decodeSafetensors(readFileSync(path), path);
  writeFileSync(path, encodeSafetensors(change(content) ?? content));
}

/** Flips the lowest bit of one value. */
function flip(path: string, tensorName: string, index = 1): void {
  mended(path, ({ tensors }) => {
    const { values } = tensors.find(({ name }) => name === tensorName)!;
    new Uint32Array(values.buffer, values.byteOffset)[index] ^= 1;
  });
}

const checkpoint = (step: number): string => `checkpoints/step-${String(step).padStart(9, '0')}.safetensors`;

function reseed(dir: string, isThorough: boolean): void {
  edit(dir, 'config.json', text => {
    const config = JSON.parse(text);
    config.settings.seed++;
    if (isThorough) config.bits.seed++;
    return JSON.stringify(config);
  });
}

for (const workers of [1, 2, 3]) {
  test(`a run is what its settings give, workers: ${workers}`, async () => {
    const { hash, compared, startFile, ...rest } = await check(finished, { workers });
    assert.equal(hash, readFileSync(join(finished, 'hashes.txt'), 'utf8').trimEnd().split('\n').at(-1));
    assert.deepEqual(compared, {
      hashes: steps,
      steps,
      epochs: 3,
      done: true,
      checkpoints: [16, 24, 27].map(checkpoint),
      weights: true,
    });
    assert.deepEqual(
      [startFile, rest.start, rest.from, rest.to, rest.totalSteps],
      [null, 0, 0, steps, steps],
    );
    assert.deepEqual(
      [rest.isFinished, rest.workers, rest.warnings, rest.runDir],
      [true, workers, [], finished],
    );
  });
}

randomTest(
  'runs that were ended anywhere, resumed with other workers and lost threads are honest',
  async random => {
    await inTemporaryFolder(async dir => {
      for (const optimizer of ['adam', 'sgd', 'adamw'] as const) {
        const out = join(dir, optimizer);
        const ends = random.integer(steps);
        await trainUntil({ ...tiny, optimizer, lr: 0.01, out }, ends);
        const unfinished = await check(out);
        assert.ok(!unfinished.isFinished && unfinished.to >= ends);
        assert.deepEqual([unfinished.compared.hashes, unfinished.compared.done], [unfinished.to, false]);
        assert.ok(unfinished.compared.checkpoints.length > 0);
        const inject = 'throw:thread=1,step=20,phase=update';
        await train({ resume: out, dataset, workers: 1 + random.integer(3), inject });
        const { compared, to } = await check(out, { workers: 2 });
        assert.deepEqual([to, compared.hashes, compared.epochs, compared.done], [steps, steps, 3, true]);
      }
    });
  },
);

test('a run that is at work is verified up to the step that it had reached', async () => {
  await inTemporaryFolder(async dir => {
    const out = join(dir, 'run');
    const training = train({ ...tiny, lrSchedule: 'constant', epochs: 100_000, checkpointEvery: '40', out });
    for await (const event of training) {
      if (event.type !== 'epoch' || event.epoch % 10 !== 0) continue;
      const { isFinished, compared } = await check(out);
      assert.ok(!isFinished && compared.hashes >= event.step);
      if (event.epoch === 30) break;
    }
    await assert.rejects(training, { code: 'LOCKSTEP_INTERRUPTED' });
  });
});

test('a run of the engine reference, one with another end in sight, and one before its first step', async () => {
  await inTemporaryFolder(async dir => {
    const reference = join(dir, 'reference');
    await train({ ...tiny, engine: 'reference', workers: 1, maxSteps: 3, out: reference });
    assert.equal((await check(reference)).compared.hashes, 3);

    // Its weights.safetensors is that of its first end.
    const longer = join(dir, 'longer');
    await train({ ...tiny, lrSchedule: 'constant', maxSteps: 12, out: longer });
    const training = train({ resume: longer, dataset, maxSteps: 20, checkpointEvery: '1' });
    for await (const event of training) if (event.type === 'checkpoint' && event.step === 15) break;
    await assert.rejects(training, { code: 'LOCKSTEP_INTERRUPTED' });
    const { compared, totalSteps, isFinished } = await check(longer);
    assert.deepEqual([compared.weights, totalSteps, isFinished], [false, 20, false]);

    const begun = join(dir, 'begun');
    await trainUntil({ ...tiny, out: begun }, 0);
    truncateSync(join(begun, 'hashes.txt'), 0);
    truncateSync(join(begun, 'metrics.jsonl'), 0);
    for (const name of readdirSync(join(begun, 'checkpoints'))) {
      if (!name.endsWith('000.safetensors')) rmSync(join(begun, 'checkpoints', name));
    }
    const { to, compared: none } = await check(begun);
    assert.deepEqual([to, none.hashes, none.checkpoints], [0, 0, [checkpoint(0)]]);
    flip(join(begun, checkpoint(0)), 'conv1.kernel');
    await assertDiffers(check(begun), 0, [checkpoint(0)], /1 of the 45 values of its tensor conv1\.kernel/);
  });
});

const spoilers: [string, (dir: string) => void, number, string[], RegExp][] = [
  ...[16, 24, 27].flatMap((step): typeof spoilers => [
    [
      `a flipped bit of a weight in the checkpoint after ${step}, its checksum mended`,
      dir => flip(join(dir, checkpoint(step)), 'fc1.kernel', 17),
      step,
      [checkpoint(step)],
      /: 1 of the \d+ values of its tensor fc1\.kernel differ\./,
    ],
  ]),
  [
    'a flipped bit of the optimizer, its checksum mended',
    dir => flip(join(dir, checkpoint(16)), 'fc2.bias.secondMoment'),
    16,
    [checkpoint(16)],
    /fc2\.bias\.secondMoment/,
  ],
  [
    'another number in the metadata of a checkpoint',
    dir =>
      mended(join(dir, checkpoint(24)), ({ metadata, tensors }) => ({
        tensors,
        metadata: { ...metadata, epochCorrect: '1' },
      })),
    24,
    [checkpoint(24)],
    /: its epochCorrect is 1, and not \d+\./,
  ],
  [
    'a checkpoint whose checksum is wrong',
    dir => damage(join(dir, checkpoint(24))),
    24,
    [checkpoint(24)],
    /SHA-256/,
  ],
  [
    'a checkpoint under the name of another step',
    dir => cpSync(join(dir, checkpoint(16)), join(dir, checkpoint(12))),
    12,
    [checkpoint(12)],
    /its step is 16, and not 12/,
  ],
  [
    'another loss of a step',
    dir => nudge(dir, stepLine(11), 'loss'),
    11,
    ['metrics.jsonl'],
    /line 12 has the loss [\d.]+, and not [\d.]+\./,
  ],
  [
    'another learning rate',
    dir => nudge(dir, stepLine(1), 'learningRate'),
    1,
    ['metrics.jsonl'],
    /learningRate/,
  ],
  [
    'another test loss of an epoch',
    dir => nudge(dir, epochLine(2), 'testLoss'),
    18,
    ['metrics.jsonl'],
    /testLoss/,
  ],
  [
    'another running accuracy',
    dir => nudge(dir, epochLine(1), 'runningAccuracy'),
    9,
    ['metrics.jsonl'],
    /runningAccuracy/,
  ],
  [
    'another test accuracy at the end',
    dir => nudge(dir, DONE_LINE, 'testAccuracy'),
    27,
    ['metrics.jsonl'],
    /line 31/,
  ],
  [
    'a key more in a line',
    dir => edit(dir, 'metrics.jsonl', text => text.replace('"step":5,', '"step":5,"note":1,')),
    5,
    ['metrics.jsonl'],
    /has the note 1, and not undefined/,
  ],
  [
    'a line that is missing',
    dir => editLines(dir, 'metrics.jsonl', lines => lines.splice(stepLine(14), 1)),
    14,
    ['metrics.jsonl'],
    /is the step line of step 15, and not the step line of step 14/,
  ],
  [
    'the line of an epoch that is missing',
    dir => editLines(dir, 'metrics.jsonl', lines => lines.splice(epochLine(1), 1)),
    9,
    ['metrics.jsonl'],
    /not the epoch line of step 9/,
  ],
  [
    'a line twice',
    dir => editLines(dir, 'metrics.jsonl', lines => lines.splice(stepLine(14), 0, lines[stepLine(14)])),
    15,
    ['metrics.jsonl'],
    /is the step line of step 14, and not/,
  ],
  [
    'a line that is none',
    dir => editLines(dir, 'metrics.jsonl', lines => (lines[stepLine(3)] = '{"type":')),
    3,
    ['metrics.jsonl'],
    /line 3 is no JSON object/,
  ],
  [
    'a line behind the end',
    dir => editLines(dir, 'metrics.jsonl', lines => lines.splice(DONE_LINE + 1, 0, lines[DONE_LINE])),
    27,
    ['metrics.jsonl'],
    /line 32 is the line done, behind the end/,
  ],
  [
    'another hash',
    dir => editLines(dir, 'hashes.txt', lines => (lines[6] = lines[5])),
    7,
    ['hashes.txt'],
    /line 7 is "[0-9a-f]{16}", and not "[0-9a-f]{16}"\./,
  ],
  [
    'one digit of the last hash',
    dir =>
      editLines(
        dir,
        'hashes.txt',
        lines => (lines[26] = lines[26].replace(/.$/, d => (d === '0' ? '1' : '0'))),
      ),
    27,
    ['hashes.txt'],
    /line 27/,
  ],
  [
    'hashes that end early',
    dir => truncateSync(join(dir, 'hashes.txt'), 17 * 20),
    21,
    ['hashes.txt'],
    /no line 21/,
  ],
  [
    'a hash too many',
    dir => appendFileSync(join(dir, 'hashes.txt'), '0123456789abcdef\n'),
    27,
    ['config.json'],
    /has 27 steps, and its files tell of step 28/,
  ],
  [
    'a flipped bit in the final weights, their checksum mended',
    dir => flip(join(dir, 'weights.safetensors'), 'fc2.bias', 0),
    27,
    ['weights.safetensors'],
    /1 of the 3 values of its tensor fc2\.bias differ/,
  ],
  [
    'a flipped bit in the final weights of a run that lost its last line',
    dir => {
      flip(join(dir, 'weights.safetensors'), 'fc2.bias', 0);
      editLines(dir, 'metrics.jsonl', lines => lines.splice(-2, 1));
    },
    27,
    ['weights.safetensors'],
    /1 of the 3 values of its tensor fc2\.bias differ/,
  ],
  [
    'a loss that stands twice in its line',
    dir =>
      editLines(dir, 'metrics.jsonl', lines => {
        lines[stepLine(7)] = lines[stepLine(7)].replace('{', '{"loss":0.001,');
      }),
    7,
    ['metrics.jsonl'],
    /no JSON object with a type and a step, as runs write them/,
  ],
  [
    'another seed among the settings',
    dir => reseed(dir, false),
    0,
    ['config.json'],
    /seed is 1, .* make it 2/,
  ],
  [
    'another seed everywhere in the config',
    dir => reseed(dir, true),
    1,
    ['hashes.txt', 'metrics.jsonl'],
    /line 1 /,
  ],
  [
    'another normalization',
    dir => edit(dir, 'config.json', text => text.replace(/"shift": [\d.]+/, '"shift": 1')),
    0,
    ['config.json'],
    /normalization/,
  ],
  [
    'several changes: the first is told',
    dir => {
      flip(join(dir, checkpoint(16)), 'conv1.bias');
      nudge(dir, stepLine(20), 'loss');
      editLines(dir, 'hashes.txt', lines => (lines[15] = lines[16]));
      nudge(dir, stepLine(16), 'loss');
      nudge(dir, stepLine(17), 'loss');
    },
    16,
    ['hashes.txt', 'metrics.jsonl', checkpoint(16)],
    /./,
  ],
];

for (const [name, spoil, step, files, what] of spoilers) {
  test(`found: ${name}`, () =>
    withCopy(async dir => {
      spoil(dir);
      await assertDiffers(check(dir), step, files, what);
    }));
}

test('what may be deleted is not missed', () =>
  withCopy(async dir => {
    rmSync(join(dir, 'weights.safetensors'));
    rmSync(join(dir, checkpoint(24)));
    const { compared } = await check(dir);
    assert.deepEqual([compared.weights, compared.checkpoints], [false, [16, 27].map(checkpoint)]);
    rmSync(join(dir, 'checkpoints'), { recursive: true });
    assert.deepEqual((await check(dir)).compared.checkpoints, []);
    for (const name of ['hashes.txt', 'metrics.jsonl']) {
      rmSync(join(dir, name));
      await assert.rejects(check(dir), { code: 'LOCKSTEP_FILE_DAMAGED', message: new RegExp(name) });
      writeFileSync(join(dir, name), readFileSync(join(finished, name)));
    }
  }));

test('lines behind the last checkpoint of a run that was killed may be missing or torn, those before may not', () =>
  withCopy(async dir => {
    rmSync(join(dir, checkpoint(27)));
    const killedIn = (line: number): void =>
      editLines(dir, 'metrics.jsonl', lines => lines.splice(line, Infinity, '{"type":"st'));
    killedIn(stepLine(26));
    truncateSync(join(dir, 'hashes.txt'), 26 * 17 - 3);
    const { to, isFinished, compared } = await check(dir);
    assert.deepEqual([to, isFinished, compared.hashes, compared.steps], [25, false, 25, 25]);
    truncateSync(join(dir, 'hashes.txt'), 24 * 17);
    const { to: last, compared: fewer } = await check(dir);
    assert.deepEqual([last, fewer.hashes, fewer.steps], [25, 24, 25]);
    killedIn(stepLine(24));
    await assertDiffers(check(dir), 24, ['metrics.jsonl'], /it lacks the step line of step 24/);
    truncateSync(join(dir, 'hashes.txt'), 23 * 17);
    await assertDiffers(check(dir), 24, ['hashes.txt', 'metrics.jsonl'], /it has no line 24/);
  }));

test('some steps are computed from the newest checkpoint before them, or from the beginning', () =>
  withCopy(async dir => {
    const computed = async (range: string): Promise<[number, number, number, number]> => {
      const { start, compared, startFile } = await check(dir, { steps: range });
      assert.equal(startFile, start === 0 ? null : checkpoint(start));
      return [start, compared.hashes, compared.steps, compared.checkpoints.length];
    };
    assert.deepEqual(await computed('17..20'), [16, 4, 4, 0]);
    assert.deepEqual(await computed('16..24'), [16, 8, 8, 1]);
    assert.deepEqual(await computed('20..27'), [16, 8, 8, 2]);
    assert.deepEqual(await computed('26..27'), [24, 2, 2, 1]);
    assert.deepEqual(await computed('27..27'), [27, 0, 0, 0]);
    assert.deepEqual(await computed('5..12'), [0, 8, 8, 0]);
    assert.deepEqual(await computed('0..0'), [0, 0, 0, 0]);

    editLines(dir, 'hashes.txt', lines => (lines[19] = lines[18]));
    nudge(dir, stepLine(6), 'loss');
    for (const range of ['18..22', '20..20', '5..27', '17..27']) {
      await assertDiffers(check(dir, { steps: range }), range === '5..27' ? 6 : 20, [
        range === '5..27' ? 'metrics.jsonl' : 'hashes.txt',
      ]);
    }
    // What lies outside is not compared.
    assert.deepEqual(await computed('21..27'), [16, 7, 7, 2]);
    assert.deepEqual(await computed('7..19'), [0, 13, 13, 1]);
    assert.deepEqual(await computed('0..5'), [0, 5, 5, 0]);
  }));

test('a checkpoint that does not agree with the hashes is no beginning', () =>
  withCopy(async dir => {
    flip(join(dir, checkpoint(24)), 'conv1.kernel');
    const { start, warnings } = await check(dir, { steps: '25..27' });
    assert.equal(start, 16);
    assert.match(warnings.join(), /000000024\.safetensors does not agree with hashes\.txt/);
    await assertDiffers(check(dir, { steps: '24..27' }), 24, [checkpoint(24)]);
    damage(join(dir, checkpoint(16)));
    const { start: first, warnings: both } = await check(dir, { steps: '25..27' });
    assert.deepEqual([first, both.length], [0, 2]);
    // The hash says nothing of the optimizer's state, which is taken as it is, and says so.
    flip(join(dir, checkpoint(27)), 'conv1.bias.firstMoment');
    await assertDiffers(check(dir, { steps: '26..27' }), 27, [checkpoint(27)], /from its beginning/);
  }));

test("a state of the optimizer that a beginning's hash does not show is seen in the next step", () =>
  withCopy(async dir => {
    mended(join(dir, checkpoint(24)), ({ tensors }) => {
      tensors.find(({ name }) => name === 'fc2.bias.firstMoment')!.values.fill(1);
    });
    await assertDiffers(
      check(dir, { steps: '24..26' }),
      25,
      ['hashes.txt'],
      /from checkpoints\/step-000000024\.safetensors, which it takes as it is/,
    );
  }));

test('data that are not there, or are others, are coded errors', async t => {
  await assert.rejects(verify(finished), { code: 'LOCKSTEP_DATA_MISSING' });
  const other = tinyDataset(203, labels => (labels[7] = (labels[7] + 1) % 3));
  await assert.rejects(verify(finished, { dataset: other }), {
    code: 'LOCKSTEP_DATA_DIGEST',
    message: /was trained on data with the digest [0-9a-f]{64} \(tiny\), and tiny has [0-9a-f]{64}/,
  });
  const files = dataFiles(cyclicLabels(30, 3), cyclicLabels(9, 3), 9);
  const data = folderWith(t, files);
  const moved = folderWith(t, files);
  await inTemporaryFolder(async dir => {
    const { model, batch, leaf } = tiny;
    const { runDir } = await train({ model, batch, leaf, data, epochs: 1, out: join(dir, 'run') });
    assert.equal((await verify(runDir)).compared.epochs, 1);
    rmSync(join(data, names.testLabels));
    await assert.rejects(verify(runDir), { code: 'LOCKSTEP_DATA_MISSING' });
    assert.equal((await verify(runDir, { data: moved })).compared.epochs, 1);
    writeFileSync(join(data, names.testLabels), files[names.testLabels].with(8, 1));
    await assert.rejects(verify(runDir), { code: 'LOCKSTEP_DATA_DIGEST' });
  });
});

test('what nobody can compute again, and TensorFlow or another version has computed, is refused', async () => {
  await inTemporaryFolder(async dir => {
    const out = join(dir, 'mixed');
    const keyFile = join(dir, 'key');
    await trainUntil({ ...tiny, listen: '0', mixed: true, keyFile, out }, 4);
    const refused = { code: 'LOCKSTEP_NOT_REPRODUCIBLE', message: /--mixed/ };
    await assert.rejects(check(out), refused);
    await train({ resume: out, dataset });
    await assert.rejects(check(out), refused);
  });
  const edits: [
    (config: { settings: Record<string, unknown>; bits: Record<string, unknown> }) => void,
    RegExp,
  ][] = [
    [config => (config.settings.engine = 'tensorflow'), /TensorFlow/],
    [config => (config.bits.profile = 'lockstep-f32-1'), /arithmetic lockstep-f32-1, .* has lockstep-f32-/],
    [config => (config.bits.bitsVersion = 0), /version 0 of the bits/],
  ];
  for (const [change, message] of edits) {
    await withCopy(async dir => {
      edit(dir, 'config.json', text => {
        const config = JSON.parse(text);
        change(config);
        return JSON.stringify(config);
      });
      await assert.rejects(check(dir), { code: 'LOCKSTEP_NOT_REPRODUCIBLE', message });
    });
  }
});

function listing(dir: string): [string, number][] {
  return readdirSync(dir, { recursive: true, encoding: 'utf8' })
    .toSorted()
    .map(name => [name, statSync(join(dir, name)).mtimeMs]);
}

test('it tells how far it is, can be ended, and changes nothing', async () => {
  const held = listing(finished);
  const told: VerifyProgress[] = [];
  await check(finished, { steps: '18..25', onProgress: progress => told.push(progress) });
  assert.deepEqual(told[0], { start: 16, step: 16, to: 25 });
  assert.deepEqual(told.at(-1), { start: 16, step: 25, to: 25 });
  const stop = new AbortController();
  await assert.rejects(check(finished, { signal: stop.signal, onProgress: () => stop.abort() }), {
    code: 'LOCKSTEP_INTERRUPTED',
    message: 'Interrupted after step 0; steps 0 to 27 were to be compared, and nothing differed yet.',
  });
  assert.deepEqual(listing(finished), held);
});

test('steps that are none, or that the run has not done, are bad settings', async () => {
  for (const range of ['5', '5..', '7..5', 'a..b', '1..28', '-1..4']) {
    await assert.rejects(check(finished, { steps: range }), {
      code: 'LOCKSTEP_BAD_SETTING',
      message: /^Setting steps is /,
    });
  }
  await assert.rejects(check(finished, { workers: 0 }), { code: 'LOCKSTEP_BAD_SETTING' });
  await assert.rejects(check(join(home, 'none')), { code: 'LOCKSTEP_RUN_MISSING' });
});

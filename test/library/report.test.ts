// `report`: what it gathers is what the files and `evaluate` say, and what it writes and leaves alone.

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
import { readRunConfig } from '#dist/coordinator/stored-run.js';
import { evaluate, report, train, type RunEvent, type TrainOptions } from '#dist/library/index.js';
import { gatherRun, namesOf } from '#dist/library/report.js';
import { inTemporaryFolder } from '../support/cli.js';
import { trainUntil } from '../support/kept-run.js';
import { tinyDataset, tinyModel } from '../support/tiny.js';

/** Epochs of 9 whole steps, and so few test images that each has its picture. */
function dataset() {
  const { name, shape, classes, train: trainSet, test: testSet } = tinyDataset(216);
  const size = shape.height * shape.width;
  const few = { images: testSet.images.slice(0, 20 * size), labels: testSet.labels.slice(0, 20) };
  return { name, shape, classes, train: trainSet, test: few };
}

const tiny = { model: tinyModel, dataset: dataset(), batch: 24, leaf: 3, epochs: 3, workers: 2 } as const;
const steps = 27;

function gather(dir: string, options: Parameters<typeof gatherRun>[1] = { dataset: tiny.dataset }) {
  return gatherRun({ name: 'run', dir, config: readRunConfig(dir) }, options, 1);
}

async function eventsOf(options: TrainOptions): Promise<RunEvent[]> {
  const events: RunEvent[] = [];
  for await (const event of train(options)) events.push(event);
  return events;
}

test('a run that lost a thread and was resumed is gathered as its events and files tell it', async () => {
  await inTemporaryFolder(async dir => {
    const out = join(dir, 'run');
    await trainUntil({ ...tiny, out }, 12);
    const inject = 'throw:thread=1,step=20,phase=leaf';
    const told = await eventsOf({ resume: out, dataset: tiny.dataset, workers: 3, inject });
    const done = told.at(-1)!;
    const lost = told.find(event => event.type === 'thread-lost')!;
    const run = await gather(out);
    assert.ok(done.type === 'done');
    assert.deepEqual(
      [run.state, run.step, run.totalSteps, run.stepsPerEpoch, run.hash, run.weightsSha256, run.warnings],
      ['finished', steps, steps, 9, done.hash, done.weightsSha256, []],
    );
    assert.deepEqual([run.model, run.parameters, run.dataset.name], ['tiny', 427, 'tiny']);

    const [first, second, ...more] = run.sessions;
    assert.deepEqual(more, []);
    assert.deepEqual([first.end, first.workers, first.marks], ['interrupted', 2, []]);
    assert.ok(first.lastStep >= 12 && first.threads.length === 2);
    assert.deepEqual(
      [second.end, second.workers, second.resumedStep, second.lastStep, second.endMs],
      ['done', 3, first.lastStep, steps, done.timeMs],
    );
    assert.deepEqual(
      second.threads.map(({ leaves, waitMs }) => [leaves, waitMs]),
      done.threads.map(({ leaves, waitMs }) => [leaves, waitMs]),
    );
    assert.deepEqual(
      second.marks.map(({ type, who, timeMs, step }) => ({ type, who, timeMs, step })),
      [{ type: 'thread-lost', who: 'thread 1', timeMs: lost.timeMs, step: lost.step }],
    );
    const total = (key: 'images' | 'trainMs'): number =>
      second.rates.reduce((sum, rate) => sum + rate[key], 0);
    const rate = (1000 * total('images')) / total('trainMs');
    assert.ok(Math.abs(rate / done.imagesPerSecond - 1) < 0.01, `${rate} and ${done.imagesPerSecond}`);

    const lines = readFileSync(join(out, 'metrics.jsonl'), 'utf8').trimEnd().split('\n');
    const metrics = lines.map((line): { type: string; loss: number; testLoss: number } => JSON.parse(line));
    assert.deepEqual(
      run.steps.map(({ loss }) => loss),
      metrics.flatMap(({ type, loss }) => (type === 'step' ? [loss] : [])),
    );
    assert.deepEqual(
      run.epochs.map(({ testLoss }) => testLoss),
      metrics.flatMap(({ type, testLoss }) => (type === 'epoch' ? [testLoss] : [])),
    );
    const settings = Object.fromEntries(run.settings);
    assert.deepEqual(
      [settings['model'], settings['batch'], settings['lr-schedule']],
      ['tiny', '24', 'one-cycle'],
    );
    assert.ok(!('out' in settings) && !('nesterov' in settings) && !('max-steps' in settings));

    const { path } = await report(out, { dataset: tiny.dataset });
    const html = readFileSync(path, 'utf8');
    // The mark of the timeline, for those who point at it, and the row of the table.
    assert.ok(html.includes(`lost at ${(lost.timeMs / 1000).toFixed(3)} s`));
    assert.ok(html.includes(`<td>${(lost.timeMs / 1000).toFixed(3)} s</td>`));
  });
});

test('the test set has the figures that evaluate gives, and the worst digits are the worst', async () => {
  await inTemporaryFolder(async dir => {
    const out = join(dir, 'run');
    await train({ ...tiny, maxSteps: 12, out });
    const { test: tested } = await gather(out);
    assert.ok(typeof tested !== 'string');
    const { samples, loss, accuracy, classes, confusion, confusedPairs, step } = await evaluate(out, {
      dataset: tiny.dataset,
    });
    const { worst, ...rest } = tested;
    assert.deepEqual(rest, { samples, loss, accuracy, classes, confusion, confusedPairs, step });
    // All 20 are among them.
    const { images, labels } = tiny.dataset.test;
    const size = images.length / labels.length;
    assert.deepEqual(
      worst.map(({ index }) => index).toSorted((a, b) => a - b),
      Array.from(labels.keys()),
    );
    for (const [
      rank,
      { index, label, predicted, ofLabel, ofPredicted, loss: own, pixels },
    ] of worst.entries()) {
      assert.equal(label, labels[index]);
      assert.deepEqual(pixels, images.slice(index * size, (index + 1) * size));
      assert.ok(Math.abs(own + Math.log(ofLabel)) < 1e-9);
      assert.ok(predicted === label ? ofPredicted === ofLabel : ofPredicted > ofLabel);
      assert.ok(rank === 0 || own <= worst[rank - 1].loss);
    }
    const mean = worst.reduce((sum, digit) => sum + digit.loss, 0) / samples;
    assert.ok(Math.abs(mean - loss) < 1e-5, `${mean} and ${loss}`);
    assert.equal(worst.filter(({ label, predicted }) => label === predicted).length, accuracy * samples);
  });
});

test('without its data, its events or any step a run has a report all the same', async () => {
  await inTemporaryFolder(async dir => {
    const out = join(dir, 'run');
    await train({ ...tiny, maxSteps: 12, out });
    rmSync(join(out, 'events.jsonl'));
    const { path, sizeBytes, runs, warnings } = await report(out);
    assert.equal(path, join(out, 'report.html'));
    const html = readFileSync(path, 'utf8');
    assert.deepEqual([Buffer.byteLength(html), sizeBytes < 3e6], [sizeBytes, true]);
    assert.equal(warnings.length, 1);
    assert.match(warnings[0], /^The test set is not evaluated\. The run .* was trained on arrays/);
    assert.deepEqual([runs[0].testAccuracy, runs[0].step], [null, 12]);
    const run = await gather(out);
    assert.deepEqual([run.sessions, run.stepsPerEpoch], [[], 9]);

    mkdirSync(join(out, 'events.jsonl'));
    assert.match((await gather(out)).warnings[0], /events\.jsonl cannot be used: E/);

    const other = await gather(out, {
      dataset: { ...tiny.dataset, name: 'other', train: tiny.dataset.test },
    });
    assert.deepEqual(other.warnings.slice(0, 1), [
      'The test set is that of other, other data than the run was trained on.',
    ]);
    await assert.rejects(report(out, { dataset: tiny.dataset, data: 'somewhere' }), {
      code: 'LOCKSTEP_BAD_SETTING',
      message: /leave one of them out/,
    });

    // Data that were named must be of use, and the report that is there stays.
    const [, page] = [
      await report(out, { dataset: tiny.dataset }),
      readFileSync(join(out, 'report.html'), 'utf8'),
    ];
    await assert.rejects(report(out, { data: join(dir, 'nowhere') }), { code: 'LOCKSTEP_DATA_MISSING' });
    const { height, width } = tiny.dataset.shape;
    const turned = { ...tiny.dataset, shape: { height: width, width: height, channels: 1 } };
    await assert.rejects(report(out, { dataset: turned }), { code: 'LOCKSTEP_DATA_SHAPE' });
    assert.equal(readFileSync(join(out, 'report.html'), 'utf8'), page);

    const waiting = join(dir, 'waiting');
    await trainUntil({ ...tiny, out: waiting }, 0);
    rmSync(join(waiting, 'checkpoints'), { recursive: true });
    const { warnings: missing } = await report(waiting, { dataset: tiny.dataset });
    assert.match(missing[0], /^The test set is not evaluated\. .* it has no checkpoint yet/);
  });
});

test('runs are compared under names that tell them apart', async () => {
  await inTemporaryFolder(async dir => {
    const [a, b] = [join(dir, 'a', 'run'), join(dir, 'b', 'run')];
    await train({ ...tiny, maxSteps: 4, out: a });
    await train({ ...tiny, maxSteps: 5, out: b });
    const out = join(dir, 'both.html');
    const result = await report([a, b], { out });
    assert.deepEqual(
      result.runs.map(({ name, runDir, step }) => [name, runDir, step]),
      [
        ['a/run', a, 4],
        ['b/run', b, 5],
      ],
    );
    assert.match(result.warnings[1], /^b\/run: The test set is not evaluated/);
    assert.ok(readFileSync(out, 'utf8').includes('b/run'));
    assert.ok(!existsSync(join(a, 'report.html')));

    symlinkSync(a, join(dir, 'same'));
    for (const [dirs, message] of [
      [[a, b, join(dir, 'same')], /^Setting runs has the run .*same twice: name each once\.$/],
      [[], /^Setting runs is 0, expected 1 to 7 run folders\.$/],
      [Array.from({ length: 8 }, () => a), /expected 1 to 7 run folders/],
    ] as const) {
      await assert.rejects(report(dirs, { out }), { code: 'LOCKSTEP_BAD_SETTING', message });
    }
    await assert.rejects(report([a, dir]), { code: 'LOCKSTEP_RUN_MISSING' });
    assert.ok(!existsSync(join(a, 'report.html.part')));
  });
});

test('a report is replaced; what is something else, or cannot be written, is left as it is', async () => {
  await inTemporaryFolder(async dir => {
    const out = join(dir, 'run');
    await train({ ...tiny, maxSteps: 4, out });
    const { path } = await report(out);
    const before = readFileSync(path, 'utf8');
    writeFileSync(path, before.replaceAll('tiny', 'old'));
    await report(out);
    assert.equal(readFileSync(path, 'utf8'), before);
    const files = readdirSync(out).toSorted();
    const homepage = join(dir, 'index.html');
    writeFileSync(homepage, '<!doctype html>\n<h1>me</h1>');

    const metrics = readFileSync(join(out, 'metrics.jsonl'));
    for (const [file, message] of [
      [join(out, 'metrics.jsonl'), /is there already, is no report, and was left as it is/],
      [out, /is no report/],
      [homepage, /is no report/],
      [join(dir, 'nothing', 'report.html'), /cannot be written: ENOENT/],
    ] as const) {
      await assert.rejects(report(out, { out: file }), { code: 'LOCKSTEP_BAD_SETTING', message });
    }
    assert.deepEqual(readFileSync(join(out, 'metrics.jsonl')), metrics);
    writeFileSync(join(out, 'hashes.txt'), 'no hash, and long enough to be one');
    await assert.rejects(report(out, { out: join(dir, 'new.html') }), { code: 'LOCKSTEP_FILE_DAMAGED' });
    assert.equal(readFileSync(homepage, 'utf8'), '<!doctype html>\n<h1>me</h1>');
    assert.deepEqual(readdirSync(dir), ['index.html', 'run']);
    assert.deepEqual(readdirSync(out).toSorted(), files);
  });
});

test('names are the ends of paths, as long as they must be', () => {
  const cases: [string[], string[]][] = [
    [['/a/run'], ['run']],
    [
      ['/a/run', '/b/run', '/a/other'],
      ['a/run', 'b/run', 'other'],
    ],
    [
      ['/run', '/a/run', '/b/a/run'],
      ['run', 'a/run', 'b/a/run'],
    ],
  ];
  for (const [dirs, names] of cases) assert.deepEqual(namesOf(dirs), names);
});

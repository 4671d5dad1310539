// Compares the training speed of Lockstep with that of PyTorch on CPU: same model, batch, workers and optimizer.

import { writeFileSync } from 'node:fs';
import { parse, join } from 'node:path';
import {
  count,
  loadLineChart,
  machine,
  median,
  models,
  modes,
  nameList,
  note,
  numberList,
  preparePytorch,
  report,
  runBenchmark,
  table,
  trainLockstep,
  trainPytorch,
  wholeNumber,
  workerList,
} from './pytorch.js';

const usage = `npm run bench:pytorch -- [flags]

  --models       lenet5,mlp
  --workers      1,2
  --batch        32,64,256: images a step of each worker
  --best-batch   with one worker also these, to find each program's best one:
                 32,64,128,256,512,1024 unless --batch is given
  --repetitions  3: each program's runs, in turns
  --epochs       3 a run; the first does not count
  --yes          install PyTorch (5 GB) without asking, where it is missing
  --json FILE    all figures; '-' is stdout, instead of the table
  --figure FILE  images/s over the batch as SVG; a file each for several models`;

/** Constant, and low enough that every batch learns. */
const recipe = { optimizer: 'sgd', lr: 0.01, momentum: 0.9, lrSchedule: 'constant' };

await runBenchmark({
  command: 'bench:pytorch',
  usage,
  options: {
    models: { type: 'string', default: models.join(',') },
    workers: { type: 'string', default: '1,2' },
    batch: { type: 'string' },
    'best-batch': { type: 'string' },
    repetitions: { type: 'string', default: '3' },
    epochs: { type: 'string', default: '3' },
    yes: { type: 'boolean', default: false },
    json: { type: 'string' },
    figure: { type: 'string' },
  },
  body: benchmark,
});

async function benchmark(flags) {
  const configurations = configurationsOf(flags);
  const repetitions = wholeNumber('repetitions', flags.repetitions, 1);
  const epochs = wholeNumber('epochs', flags.epochs, 2);
  const lineChart = flags.figure === undefined ? undefined : await loadLineChart();
  const pytorch = await preparePytorch(flags);

  const results = [];
  for (const configuration of configurations)
    results.push(measure(pytorch, configuration, { repetitions, epochs }));
  const best = bestBatches(results);
  const about = machine(pytorch);
  report({
    text: textOf({ results, best, about, repetitions, epochs }),
    results: { machine: about, recipe, repetitions, epochs, results, best },
    json: flags.json,
  });
  if (lineChart) draw(lineChart, results, flags.figure);
}

function configurationsOf(flags) {
  const batches = numberList('batch', flags.batch ?? '32,64,256');
  const isDefault = flags.batch === undefined;
  const wanted = flags['best-batch'] ?? (isDefault ? '32,64,128,256,512,1024' : undefined);
  const more = wanted === undefined ? [] : numberList('best-batch', wanted);
  const workerCounts = workerList(flags.workers);
  return nameList('models', flags.models, models).flatMap(model =>
    workerCounts.flatMap(workers =>
      [...new Set([...batches, ...(workers === 1 ? more : [])])]
        .toSorted((a, b) => a - b)
        .map(batch => ({ model, workers, batch })),
    ),
  );
}

/** In turns, so that whatever else the machine does meets all alike: Lockstep, eager, compile, Lockstep, ... */
function measure(pytorch, configuration, { repetitions, epochs }) {
  const { model, workers, batch } = configuration;
  const lockstep = [];
  const pytorchRuns = Object.fromEntries(modes.map(mode => [mode, []]));
  const failures = {};
  for (let repetition = 1; repetition <= repetitions; repetition++) {
    const run = { ...configuration, epochs, recipe };
    lockstep.push(figuresOf(trainLockstep(run)));
    for (const mode of modes.filter(name => failures[name] === undefined)) {
      const { failure, ...trained } = trainPytorch(pytorch, { ...run, mode });
      if (failure === undefined) {
        pytorchRuns[mode].push(figuresOf(trained));
      } else {
        failures[mode] = failure;
        note(`torch.compile failed, eager counts: ${failure}`);
      }
    }
    const speeds = [
      `Lockstep ${count(lockstep.at(-1).imagesPerSecond)}`,
      ...modes
        .filter(mode => pytorchRuns[mode].length > 0)
        .map(mode => `PyTorch ${mode} ${count(pytorchRuns[mode].at(-1).imagesPerSecond)}`),
    ];
    note(
      `${model}, workers ${workers}, batch ${batch} each, ${repetition} of ${repetitions}: ${speeds.join(', ')} images/s`,
    );
  }
  const tried = modes
    .filter(mode => failures[mode] === undefined)
    .map(mode => summary(pytorchRuns[mode], mode));
  const faster = tried.toSorted((a, b) => b.imagesPerSecond - a.imagesPerSecond)[0];
  const own = summary(lockstep);
  return {
    ...configuration,
    lockstep: own,
    pytorch: faster,
    ratio: own.imagesPerSecond / faster.imagesPerSecond,
    tried,
    failures,
  };
}

/** A run's speed: the median of its epochs but the first. */
function figuresOf({ epochs }) {
  const speeds = epochs.slice(1).map(({ imagesPerSecond }) => imagesPerSecond);
  return { imagesPerSecond: median(speeds), epochs: speeds, testAccuracy: epochs.at(-1).testAccuracy };
}

function summary(runs, mode) {
  const speeds = runs.map(({ imagesPerSecond }) => imagesPerSecond);
  return {
    mode,
    imagesPerSecond: median(speeds),
    low: Math.min(...speeds),
    high: Math.max(...speeds),
    testAccuracy: median(runs.map(({ testAccuracy }) => testAccuracy)),
    runs,
  };
}

/** With one worker, each program at the batch that suits it best. */
function bestBatches(results) {
  return models.flatMap(model => {
    const alone = results.filter(result => result.model === model && result.workers === 1);
    if (alone.length < 2) return [];
    const bestOf = side => {
      const { batch, [side]: figures } = alone.toSorted(
        (a, b) => b[side].imagesPerSecond - a[side].imagesPerSecond,
      )[0];
      return { batch, imagesPerSecond: figures.imagesPerSecond, mode: figures.mode };
    };
    const [lockstep, pytorch] = [bestOf('lockstep'), bestOf('pytorch')];
    return [{ model, lockstep, pytorch, ratio: lockstep.imagesPerSecond / pytorch.imagesPerSecond }];
  });
}

function textOf({ results, best, about, repetitions, epochs }) {
  const head = ['model', 'workers', 'batch each', 'Lockstep images/s', 'PyTorch images/s', 'mode', 'ratio'];
  const rows = results.map(({ model, workers, batch, lockstep, pytorch, ratio }) => [
    model,
    workers,
    batch,
    count(lockstep.imagesPerSecond),
    count(pytorch.imagesPerSecond),
    pytorch.mode,
    ratio.toFixed(2),
  ]);
  return [
    `${about.processor}, ${about.cores} cores, Node ${about.node}, torch ${about.torch}`,
    table(head, rows, 1),
    `Medians over ${repetitions} x each program in turns, a run's figure the median of its epochs from 2 to ${epochs}.`,
    'Ratio is Lockstep / PyTorch.',
    ...best.map(
      ({ model, lockstep, pytorch, ratio }) =>
        `${model}, one worker, each at its best batch: Lockstep ${count(lockstep.imagesPerSecond)} (${lockstep.batch}), ` +
        `PyTorch ${count(pytorch.imagesPerSecond)} (${pytorch.batch}, ${pytorch.mode}), ratio ${ratio.toFixed(2)}`,
    ),
    ...results.flatMap(({ model, workers, batch, failures }) =>
      Object.values(failures).map(
        reason => `torch.compile failed for ${model}, workers ${workers}, batch ${batch}: ${reason}`,
      ),
    ),
  ].join('\n');
}

function draw(lineChart, results, file) {
  const drawn = models.filter(model => results.some(result => result.model === model));
  for (const model of drawn) {
    const ofModel = results.filter(result => result.model === model);
    const workerCounts = [...new Set(ofModel.map(({ workers }) => workers))];
    const series = workerCounts.flatMap(workers =>
      ['lockstep', 'pytorch'].map(side => ({
        name: `${side === 'lockstep' ? 'Lockstep' : 'PyTorch'}, ${workers} ${workers === 1 ? 'worker' : 'workers'}`,
        points: ofModel
          .filter(result => result.workers === workers)
          .map(({ batch, [side]: { imagesPerSecond, low, high } }) => ({
            x: batch,
            y: imagesPerSecond,
            low,
            high,
          })),
      })),
    );
    const { dir, name, ext } = parse(file);
    const path = drawn.length === 1 ? file : join(dir, `${name}-${model}${ext}`);
    const labels = {
      title: `${model}: training speed`,
      xLabel: 'batch of each worker',
      yLabel: 'images a second',
    };
    writeFileSync(path, lineChart({ ...labels, series }));
    note(`drawn: ${path}`);
  }
}

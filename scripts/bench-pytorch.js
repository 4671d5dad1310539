// Compares the training speed of Lockstep with that of PyTorch on CPU: same model, batch, workers and optimizer.

import { join, parse } from 'node:path';
import { integer, plural } from '../dist/shared/format.js';
import {
  median,
  nameList,
  numberList,
  outputFor,
  runBenchmark,
  table,
  wholeNumber,
  withOutputs,
  writeOutput,
} from './benchmark.js';
import {
  failureLines,
  inTurns,
  loadLineChart,
  machine,
  models,
  preparePytorch,
  report,
  warnOfCores,
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
  const workerCounts = workerList(flags.workers);
  const configurations = configurationsOf(flags, workerCounts);
  const repetitions = wholeNumber('repetitions', flags.repetitions, 1);
  const epochs = wholeNumber('epochs', flags.epochs, 2);
  const lineChart = flags.figure === undefined ? undefined : await loadLineChart();
  const isJson = flags.json === '-';
  const output = isJson ? undefined : outputFor('json', flags.json);
  const figures = figuresFor(configurations, flags.figure);
  await withOutputs([output, ...figures.map(figure => figure.output)], async () => {
    const pytorch = await preparePytorch(flags);
    warnOfCores(workerCounts);

    const results = [];
    for (const configuration of configurations)
      results.push(measure(pytorch, configuration, { repetitions, epochs }));
    const best = bestBatches(results);
    const about = machine(pytorch);
    report({
      text: textOf({ results, best, about, repetitions, epochs }),
      results: { machine: about, recipe, repetitions, epochs, results, best },
      output,
      isJson,
    });
    for (const { model, output: file } of figures) writeOutput(file, draw(lineChart, results, model));
  });
}

/** A file for each model. */
function figuresFor(configurations, path) {
  if (path === undefined) return [];
  const drawn = [...new Set(configurations.map(({ model }) => model))];
  const { dir, name, ext } = parse(path);
  return drawn.map(model => {
    const own = drawn.length === 1 ? path : join(dir, `${name}-${model}${ext}`);
    return { model, output: outputFor('figure', own) };
  });
}

function configurationsOf(flags, workerCounts) {
  const batches = numberList('batch', flags.batch ?? '32,64,256');
  const isDefault = flags.batch === undefined;
  const wanted = flags['best-batch'] ?? (isDefault ? '32,64,128,256,512,1024' : undefined);
  const more = wanted === undefined ? [] : numberList('best-batch', wanted);
  return nameList('models', flags.models, models).flatMap(model =>
    workerCounts.flatMap(workers =>
      [...new Set([...batches, ...(workers === 1 ? more : [])])]
        .toSorted((a, b) => a - b)
        .map(batch => ({ model, workers, batch })),
    ),
  );
}

/** The fastest of PyTorch's ways counts; with several workers the faster of DistributedDataParallel's is told too. */
function measure(pytorch, configuration, { repetitions, epochs }) {
  const { lockstep, ways, failures } = inTurns(
    pytorch,
    repetitions,
    () => ({ ...configuration, epochs, recipe, seed: 1 }),
    figuresOf,
    ({ imagesPerSecond }) => `${integer(imagesPerSecond)} images/s`,
  );
  const tried = ways.map(({ name, isDdp, runs }) => summary(runs, { way: name, isDdp }));
  const own = summary(lockstep);
  const fastest = fastestOf(tried);
  const ddp = fastestOf(tried.filter(({ isDdp }) => isDdp));
  return {
    ...configuration,
    lockstep: own,
    pytorch: fastest,
    ratio: own.imagesPerSecond / fastest.imagesPerSecond,
    ddp,
    ratioToDdp: ddp && own.imagesPerSecond / ddp.imagesPerSecond,
    tried,
    failures,
  };
}

function fastestOf(tried) {
  return tried.toSorted((a, b) => b.imagesPerSecond - a.imagesPerSecond)[0];
}

/** A run's speed: the median of its epochs but the first. */
function figuresOf({ epochs }) {
  const speeds = epochs.slice(1).map(({ imagesPerSecond }) => imagesPerSecond);
  return { imagesPerSecond: median(speeds), epochs: speeds, testAccuracy: epochs.at(-1).testAccuracy };
}

function summary(runs, way) {
  const speeds = runs.map(({ imagesPerSecond }) => imagesPerSecond);
  return {
    ...way,
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
      return { batch, imagesPerSecond: figures.imagesPerSecond, way: figures.way };
    };
    const [lockstep, pytorch] = [bestOf('lockstep'), bestOf('pytorch')];
    return [{ model, lockstep, pytorch, ratio: lockstep.imagesPerSecond / pytorch.imagesPerSecond }];
  });
}

function textOf({ results, best, about, repetitions, epochs }) {
  const head = [
    'model',
    'workers',
    'batch each',
    'Lockstep images/s',
    'PyTorch images/s',
    'way',
    'ratio',
    'DDP images/s',
    'ratio to DDP',
  ];
  const rows = results.map(({ model, workers, batch, lockstep, pytorch, ratio, ddp, ratioToDdp }) => [
    model,
    workers,
    batch,
    integer(lockstep.imagesPerSecond),
    integer(pytorch.imagesPerSecond),
    pytorch.way,
    ratio.toFixed(2),
    ddp ? integer(ddp.imagesPerSecond) : '',
    ddp ? ratioToDdp.toFixed(2) : '',
  ]);
  return [
    `${about.processor}, ${plural(about.cores, 'core')}, Node ${about.node}, torch ${about.torch}`,
    table(head, rows, 1),
    `Medians over ${repetitions} x each program in turns, a run's figure the median of its epochs from 2 to ${epochs}.`,
    'Ratio is Lockstep / the fastest way of PyTorch: DDP has a process for each worker, threads one process with as many',
    'threads and the whole batch of a step.',
    ...best.map(
      ({ model, lockstep, pytorch, ratio }) =>
        `${model}, one worker, each at its best batch: Lockstep ${integer(lockstep.imagesPerSecond)} (${lockstep.batch}), ` +
        `PyTorch ${integer(pytorch.imagesPerSecond)} (${pytorch.batch}, ${pytorch.way}), ratio ${ratio.toFixed(2)}`,
    ),
    ...failureLines(results),
  ].join('\n');
}

function draw(lineChart, results, model) {
  const ofModel = results.filter(result => result.model === model);
  const workerCounts = [...new Set(ofModel.map(({ workers }) => workers))];
  const series = workerCounts.flatMap(workers =>
    ['lockstep', 'pytorch'].map(side => ({
      name: `${side === 'lockstep' ? 'Lockstep' : 'PyTorch'}, ${plural(workers, 'worker')}`,
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
  return lineChart({
    title: `${model}: training speed`,
    xLabel: 'batch of each worker',
    yLabel: 'images a second',
    series,
  });
}

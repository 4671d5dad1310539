// Seconds to 98 % and 99 % test accuracy with LeNet-5, of Lockstep and of PyTorch with the same recipe.

import { percent, plural } from '../dist/shared/format.js';
import { resolveSettings } from '../dist/shared/settings.js';
import {
  median,
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
  preparePytorch,
  report,
  warnOfCores,
  workerList,
} from './pytorch.js';

const targets = [0.98, 0.99];

/** What `lockstep train lenet5` does by default. */
const model = 'lenet5';
const { batch, optimizer, lr, lrSchedule, epochs: defaultEpochs } = resolveSettings({ model });
const recipe = { optimizer, lr, lrSchedule };

const usage = `npm run bench:time-to-accuracy -- [flags]

  --workers      1,2: they share the batch of ${batch}
  --repetitions  3: each program's runs, in turns, with seeds 1, 2, 3
  --epochs       ${defaultEpochs}: the learning rate's cycle has this length
  --yes          install PyTorch (5 GB) without asking, where it is missing
  --json FILE    all figures; '-' is stdout, instead of the table
  --figure FILE  test accuracy over training seconds as SVG`;

await runBenchmark({
  command: 'bench:time-to-accuracy',
  usage,
  options: {
    workers: { type: 'string', default: '1,2' },
    repetitions: { type: 'string', default: '3' },
    epochs: { type: 'string', default: String(defaultEpochs) },
    yes: { type: 'boolean', default: false },
    json: { type: 'string' },
    figure: { type: 'string' },
  },
  body: benchmark,
});

async function benchmark(flags) {
  const workerCounts = workerList(flags.workers, batch);
  const repetitions = wholeNumber('repetitions', flags.repetitions, 1);
  const epochs = wholeNumber('epochs', flags.epochs, 1);
  const lineChart = flags.figure === undefined ? undefined : await loadLineChart();
  const isJson = flags.json === '-';
  const output = isJson ? undefined : outputFor('json', flags.json);
  const figure = outputFor('figure', flags.figure);
  await withOutputs([output, figure], async () => {
    const pytorch = await preparePytorch(flags);
    warnOfCores(workerCounts);

    const results = workerCounts.map(workers => measure(pytorch, workers, { repetitions, epochs }));
    const about = machine(pytorch);
    report({
      text: textOf({ results, about, repetitions, epochs }),
      results: { machine: about, model, batch, recipe, repetitions, epochs, targets, results },
      output,
      isJson,
    });
    if (figure) writeOutput(figure, draw(lineChart, results));
  });
}

/** The way that trains fastest counts for PyTorch; where that is not DistributedDataParallel, that is told too. */
function measure(pytorch, workers, { repetitions, epochs }) {
  const configuration = { model, workers, batch: batch / workers };
  const { lockstep, ways, failures } = inTurns(
    pytorch,
    repetitions,
    seed => ({ ...configuration, epochs, recipe, seed, evaluate: true }),
    withTimes,
    run => `${run.at(-1).trainSeconds.toFixed(1)} s, ${percent(run.at(-1).testAccuracy)}`,
  );
  const ranked = ways.toSorted((a, b) => secondsOf(a) - secondsOf(b));
  const told = new Set([ranked[0], ranked.find(({ isDdp }) => isDdp)]);
  return {
    ...configuration,
    sides: [
      sideOf('Lockstep', lockstep),
      ...[...told].filter(Boolean).map(({ name, runs }) => sideOf('PyTorch', runs, name)),
    ],
    tried: Object.fromEntries(ways.map(({ name, runs }) => [name, runs])),
    failures,
  };
}

function secondsOf({ runs }) {
  return median(runs.map(run => run.at(-1).trainSeconds));
}

function sideOf(program, runs, way) {
  return { program, way, runs, targets: targets.map(target => reach(runs, target)) };
}

/** The state after each epoch, seconds counted from the first step. */
function withTimes({ epochs }) {
  let trainSeconds = 0;
  let evaluationSeconds = 0;
  return epochs.map(epoch => {
    trainSeconds += epoch.trainSeconds;
    evaluationSeconds += epoch.evaluationSeconds ?? 0;
    const wallSeconds = epoch.wallSeconds ?? trainSeconds + evaluationSeconds;
    return { epoch: epoch.epoch, trainSeconds, wallSeconds, testAccuracy: epoch.testAccuracy };
  });
}

/** Medians over the runs; a run that stays below the target counts as infinitely long. */
function reach(runs, target) {
  const reached = runs.map(run => run.find(({ testAccuracy }) => testAccuracy >= target));
  const medianOf = figure => {
    const value = median(reached.map(state => state?.[figure] ?? Infinity));
    return Number.isFinite(value) ? value : null;
  };
  return {
    target,
    reachedRuns: reached.filter(state => state !== undefined).length,
    epoch: medianOf('epoch'),
    trainSeconds: medianOf('trainSeconds'),
    wallSeconds: medianOf('wallSeconds'),
  };
}

function textOf({ results, about, repetitions, epochs }) {
  const head = [
    'workers',
    'program',
    'test accuracy',
    'runs that reach it',
    'epoch',
    'training s',
    'with evaluation s',
  ];
  const rows = results.flatMap(({ workers, sides }) =>
    targets.flatMap((target, index) =>
      sides.map(({ program, way, runs, targets: reached }) => {
        const { reachedRuns, epoch, trainSeconds, wallSeconds } = reached[index];
        return [
          workers,
          way === undefined ? program : `${program}, ${way}`,
          percent(target, 0),
          `${reachedRuns} of ${runs.length}`,
          digits(epoch, Number.isInteger(epoch) ? 0 : 1),
          digits(trainSeconds, 2),
          digits(wallSeconds, 2),
        ];
      }),
    ),
  );
  return [
    `${about.processor}, ${plural(about.cores, 'core')}, Node ${about.node}, torch ${about.torch}`,
    `${model}, ${optimizer}, ${lrSchedule} to ${lr} over ${plural(epochs, 'epoch')}, ${batch} images a step in all`,
    table(head, rows, 3),
    `Medians over ${repetitions} x each program in turns, with seeds from 1; a run that misses counts as endless. The clock starts at the`,
    'first step: start of the process and compilation are excluded on both sides. Accuracy is known after each',
    'epoch, so an epoch is the resolution. Each evaluation covers the training and the test set.',
    ...failureLines(results),
  ].join('\n');
}

function digits(value, behindPoint) {
  return value === null ? '-' : value.toFixed(behindPoint);
}

function draw(lineChart, results) {
  const series = results.flatMap(({ workers, sides }) =>
    sides.slice(0, 2).map(({ program, runs }) => ({
      name: `${program}, ${plural(workers, 'worker')}`,
      points: runs[0].map((_, index) => {
        const accuracies = runs.map(run => run[index].testAccuracy * 100);
        return {
          x: median(runs.map(run => run[index].trainSeconds)),
          y: median(accuracies),
          low: Math.min(...accuracies),
          high: Math.max(...accuracies),
        };
      }),
    })),
  );
  return lineChart({
    title: `${model}: accuracy after each epoch`,
    xLabel: 'training seconds',
    yLabel: 'test accuracy, %',
    series,
  });
}

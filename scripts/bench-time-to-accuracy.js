// Seconds to 98 % and 99 % test accuracy with LeNet-5, of Lockstep and of PyTorch with the same recipe.

import { writeFileSync } from 'node:fs';
import {
  loadLineChart,
  machine,
  median,
  modes,
  note,
  preparePytorch,
  report,
  runBenchmark,
  table,
  trainLockstep,
  trainPytorch,
  wholeNumber,
  workerList,
} from './pytorch.js';

const targets = [0.98, 0.99];
const batch = 128;

/** What `lockstep train lenet5` does by default. */
const recipe = { optimizer: 'adam', lr: 0.008, lrSchedule: 'one-cycle' };

const usage = `npm run bench:time-to-accuracy -- [flags]

  --workers      1,2: they share the batch of ${batch}
  --repetitions  3: each program's runs, in turns, with seeds 1, 2, 3
  --epochs       5: the learning rate's cycle has this length
  --yes          install PyTorch (5 GB) without asking, where it is missing
  --json FILE    all figures; '-' is stdout, instead of the table
  --figure FILE  test accuracy over training seconds as SVG`;

await runBenchmark({
  command: 'bench:time-to-accuracy',
  usage,
  options: {
    workers: { type: 'string', default: '1,2' },
    repetitions: { type: 'string', default: '3' },
    epochs: { type: 'string', default: '5' },
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
  const pytorch = await preparePytorch(flags);

  const results = workerCounts.map(workers => measure(pytorch, workers, { repetitions, epochs }));
  const about = machine(pytorch);
  report({
    text: textOf({ results, about, repetitions, epochs }),
    results: { machine: about, model: 'lenet5', batch, recipe, repetitions, epochs, targets, results },
    json: flags.json,
  });
  if (lineChart) {
    writeFileSync(flags.figure, draw(lineChart, results));
    note(`drawn: ${flags.figure}`);
  }
}

/** In turns: Lockstep, eager, compile, Lockstep, ... The faster mode over all epochs counts for PyTorch. */
function measure(pytorch, workers, { repetitions, epochs }) {
  const runs = Object.fromEntries(['lockstep', ...modes].map(name => [name, []]));
  const failures = {};
  for (let seed = 1; seed <= repetitions; seed++) {
    const run = { model: 'lenet5', workers, batch: batch / workers, epochs, recipe, seed };
    runs.lockstep.push(withTimes(trainLockstep(run)));
    for (const mode of modes.filter(name => failures[name] === undefined)) {
      const { failure, ...trained } = trainPytorch(pytorch, { ...run, mode, evaluate: true });
      if (failure === undefined) {
        runs[mode].push(withTimes(trained));
      } else {
        failures[mode] = failure;
        note(`torch.compile failed, eager counts: ${failure}`);
      }
    }
    const ends = Object.entries(runs)
      .filter(([, done]) => done.length > 0)
      .map(([name, done]) => {
        const last = done.at(-1).at(-1);
        return `${name} ${last.trainSeconds.toFixed(1)} s, ${(last.testAccuracy * 100).toFixed(2)} %`;
      });
    note(`workers ${workers}, seed ${seed}: ${ends.join('; ')}`);
  }
  const tried = modes.filter(mode => failures[mode] === undefined);
  const secondsOf = mode => median(runs[mode].map(run => run.at(-1).trainSeconds));
  const mode = tried.toSorted((a, b) => secondsOf(a) - secondsOf(b))[0];
  return {
    workers,
    sides: [sideOf('Lockstep', runs.lockstep), sideOf('PyTorch', runs[mode], mode)],
    tried: Object.fromEntries(tried.map(name => [name, runs[name]])),
    failures,
  };
}

function sideOf(program, runs, mode) {
  return { program, mode, runs, targets: targets.map(target => reach(runs, target)) };
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
      sides.map(({ program, mode, targets: reached }) => {
        const { reachedRuns, epoch, trainSeconds, wallSeconds } = reached[index];
        return [
          workers,
          mode === undefined ? program : `${program} ${mode}`,
          `${(target * 100).toFixed(0)} %`,
          `${reachedRuns} of ${repetitions}`,
          digits(epoch, Number.isInteger(epoch) ? 0 : 1),
          digits(trainSeconds, 2),
          digits(wallSeconds, 2),
        ];
      }),
    ),
  );
  return [
    `${about.processor}, ${about.cores} cores, Node ${about.node}, torch ${about.torch}`,
    `lenet5, Adam, one-cycle to ${recipe.lr} over ${epochs} epochs, ${batch} images a step in all`,
    table(head, rows, 3),
    `Medians over ${repetitions} x each program in turns, with seeds from 1; a run that misses counts as endless. The clock starts at the`,
    'first step: start of the process and compilation are excluded on both sides. Accuracy is known after each',
    'epoch, so an epoch is the resolution. Each evaluation covers the training and the test set.',
    ...results.flatMap(({ workers, failures }) =>
      Object.values(failures).map(reason => `torch.compile failed with workers ${workers}: ${reason}`),
    ),
  ].join('\n');
}

function digits(value, behindPoint) {
  return value === null ? '-' : value.toFixed(behindPoint);
}

function draw(lineChart, results) {
  const series = results.flatMap(({ workers, sides }) =>
    sides.map(({ program, runs }) => ({
      name: `${program}, ${workers} ${workers === 1 ? 'worker' : 'workers'}`,
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
    title: 'lenet5: accuracy after each epoch',
    xLabel: 'training seconds',
    yLabel: 'test accuracy, %',
    series,
  });
}

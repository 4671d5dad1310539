// `lockstep study`: trains the presets over several seeds, and writes what came out, beside published figures.

import { join, relative } from 'node:path';
import { SingleBar } from 'cli-progress';
import colors from 'picocolors';
import type { Argv, CommandModule, InferredOptionTypes } from 'yargs';
import { study, type Study, type StudyProgress } from '../library/index.js';
import { studyDefaults } from '../library/study.js';
import { finalOf, labels, measures, published } from '../report/study-figures.js';
import { measureWords, seedsText, show, showSummary, standing } from '../report/study-text.js';
import { jsonFlag, newTable, percent, plural, toWorkers, warningLine, withoutUndefined } from './format.js';
import { untilSignal } from './signals.js';

export const studyFlags = {
  seeds: {
    type: 'number',
    requiresArg: true,
    describe: 'How many seeds, from 1 on; with more than before only the new ones are trained',
    defaultDescription: String(studyDefaults.seeds),
  },
  out: {
    type: 'string',
    requiresArg: true,
    describe: 'The folder',
    defaultDescription: studyDefaults.out,
  },
  workers: {
    type: 'string',
    requiresArg: true,
    describe: "Worker threads, or 'auto': one for each core",
    defaultDescription: String(studyDefaults.workers),
  },
  json: jsonFlag,
} as const;

type Arguments = InferredOptionTypes<typeof studyFlags>;

export const studyCommand: CommandModule<object, Arguments> = {
  command: 'study',
  describe: 'Train LeNet-5, the MLP and a regularized LeNet-5 over several seeds and compare them',
  builder: (yargs): Argv<Arguments> =>
    yargs
      .options(studyFlags)
      .example('$0 study', 'Five seeds, into the folder study')
      .example('$0 study --seeds 1', 'A quick look')
      .example('$0 study --seeds 10', 'Adds five to those that are there')
      .epilogue(
        'Interrupted or killed, the same command goes on. The folder gets README.md, study.html, study.json with all ' +
          'numbers, figures and the runs.',
      ),
  handler: async ({ seeds, out, workers, json }) => {
    const options = { seeds, out, workers: workers === undefined ? undefined : toWorkers(workers) };
    const progress = process.stderr.isTTY ? showBar() : json ? silent : showLines();
    let result: Study;
    try {
      result = await untilSignal(
        signal => study({ ...withoutUndefined(options), signal, onProgress: progress.show }),
        progress.end,
      );
    } finally {
      progress.end();
    }
    process.stdout.write(json ? `${JSON.stringify(result)}\n` : `${describe(result)}\n`);
  },
};

interface Display {
  readonly show: (progress: StudyProgress) => void;
  readonly end: () => void;
}

const silent: Display = { show: () => {}, end: () => {} };

/** On standard error, over all runs. */
function showBar(): Display {
  const bar = new SingleBar({
    format: '{bar} {percentage}%  {what}  ETA {eta_formatted}',
    stream: process.stderr,
    barsize: 20,
    clearOnComplete: true,
    // Steps of the models take unlike times: about as many updates as a run of each has.
    etaBuffer: 100,
    // Nothing of the terminal is changed, so an interrupt leaves nothing to put back.
    linewrap: true,
    gracefulExit: false,
  });
  let shownStep: number | undefined;
  return {
    show({ done, runs, step, totalSteps, current }) {
      const told = {
        what: current ? `run ${done + 1}/${runs}: ${current.model}, seed ${current.seed}` : `${done}/${runs}`,
      };
      if (shownStep === undefined) bar.start(totalSteps, step, told);
      else if (step > shownStep) bar.update(step, told);
      // A step that is no further would make the time that is left infinite.
      else bar.update(told);
      shownStep = step;
    },
    end: () => bar.stop(),
  };
}

/** A line for each run that ends. */
function showLines(): Display {
  let isStarted = false;
  return {
    show({ done, runs, ended }) {
      if (!isStarted) {
        const before = done > 0 ? `, ${done} of them done before` : '';
        process.stdout.write(`${plural(runs, 'run')}${before}\n`);
      }
      isStarted = true;
      if (!ended) return;
      const { model, seed, epochs, hash } = ended;
      const { testLoss, testAccuracy } = epochs.at(-1)!;
      process.stdout.write(
        `run ${done} of ${runs}  ${model}, seed ${seed}  test loss ${testLoss.toFixed(4)}, ` +
          `accuracy ${percent(testAccuracy)}  hash ${hash}\n`,
      );
    },
    end: () => {},
  };
}

function describe(result: Study): string {
  const { models, dataset, dir, files, warnings } = result;
  const table = newTable(
    ['model', 'study', ...measures.map(measure => measureWords[measure])],
    ['left', 'left', ...measures.map(() => 'right' as const)],
  );
  for (const each of models) {
    const { model } = each;
    const final = finalOf(each);
    table.push(
      [labels[model], 'here', ...measures.map(measure => colors.bold(showSummary(measure, final[measure])))],
      ['', 'published', ...measures.map(measure => show(measure, published[model][measure]))],
    );
  }
  const folder = relative('.', dir) || '.';
  const pages = files.filter(name => !name.includes('/')).map(name => join(folder, name));
  return [
    ...warnings.map(warningLine),
    `${colors.bold('study')} on ${dataset.name}, ${plural(result.epochs, 'epoch')}, ${seedsText(result)}`,
    table.toString(),
    standing(result, 'test'),
    standing(result, 'training'),
    `wrote ${pages.join(', ')} and ${plural(files.length - pages.length, 'figure')}`,
  ].join('\n');
}

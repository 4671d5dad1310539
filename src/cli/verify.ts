// `lockstep verify <run>`: computes a run again and compares what its folder keeps.

import { SingleBar } from 'cli-progress';
import colors from 'picocolors';
import type { Argv, CommandModule, InferredOptionTypes } from 'yargs';
import { verify, type Verification, type VerifyProgress } from '../library/index.js';
import { evalFlags } from './eval.js';
import { integer, jsonFlag, plural, toWorkers, warningLine, withoutUndefined } from './format.js';
import { untilSignal } from './signals.js';

export const verifyFlags = {
  steps: {
    type: 'string',
    requiresArg: true,
    describe: 'A..B: from the state after A steps to that after B',
    defaultDescription: 'all that the run has done',
  },
  workers: evalFlags.workers,
  data: { ...evalFlags.data, describe: "The folder where the run's data are now" },
  'label-offset': evalFlags['label-offset'],
  json: jsonFlag,
} as const;

type Arguments = InferredOptionTypes<typeof verifyFlags> & { run: string };

export const verifyCommand: CommandModule<object, Arguments> = {
  command: 'verify <run>',
  describe: 'Compute a run again and compare its hashes, metrics, checkpoints and weights',
  builder: (yargs): Argv<Arguments> =>
    yargs
      .positional('run', { type: 'string', demandOption: true, describe: 'The run folder' })
      .options(verifyFlags)
      .example('$0 verify runs/lenet5-1', 'All that the run has done, from its beginning')
      .example(
        '$0 verify runs/lenet5-1 --steps 469..938',
        'Its second epoch, from the newest checkpoint before',
      )
      .example('$0 verify runs/lenet5-1 --workers 1 --json', 'With one thread, for a program to read')
      .epilogue(
        'Exit code 1 if something differs: the first step that does is named, and what differs there.\n' +
          'Docs: docs/verify.md says what is compared and what is not promised.',
      ),
  handler: async ({ run, steps, workers, data, labelOffset, json }) => {
    const options = {
      steps,
      data,
      labelOffset,
      workers: workers === undefined ? undefined : toWorkers(workers),
    };
    const progress = showProgress();
    let verification: Verification;
    try {
      verification = await untilSignal(
        signal => verify(run, { ...withoutUndefined(options), signal, onProgress: progress.show }),
        progress.end,
      );
    } finally {
      progress.end();
    }
    process.stdout.write(json ? `${JSON.stringify(verification)}\n` : `${describe(verification)}\n`);
  },
};

/** A bar on standard error, if that is a terminal. */
function showProgress(): { show: (progress: VerifyProgress) => void; end: () => void } {
  if (!process.stderr.isTTY) return { show: () => {}, end: () => {} };
  const bar = new SingleBar({
    format: '{bar} {percentage}%  step {value}/{total}  ETA {eta}s',
    stream: process.stderr,
    barsize: 20,
    clearOnComplete: true,
    // Nothing of the terminal is changed, so an interrupt leaves nothing to put back.
    linewrap: true,
    gracefulExit: false,
  });
  let isStarted = false;
  return {
    show({ start, step, to }) {
      if (isStarted) bar.update(step);
      else bar.start(to, start);
      isStarted = true;
    },
    end: () => bar.stop(),
  };
}

function describe(verification: Verification): string {
  const { model, dataset, totalSteps, isFinished, start, startFile, from, to } = verification;
  const { compared, hash, workers, seconds, warnings } = verification;
  const { hashes, steps, epochs, checkpoints, weights, done } = compared;
  const parts = [
    plural(hashes, 'hash', 'hashes'),
    `figures of ${plural(steps, 'step')} and ${plural(epochs, 'epoch')}`,
    plural(checkpoints.length, 'checkpoint'),
    ...(weights ? ['final weights'] : []),
    ...(done ? ['result'] : []),
  ];
  const extent =
    from === 0 && to === totalSteps && isFinished
      ? `all ${plural(to, 'step')}`
      : `steps ${integer(from)} to ${integer(to)} of ${integer(totalSteps)}`;
  const begin = startFile === null ? 'the beginning' : startFile;
  return [
    ...warnings.map(warningLine),
    `${colors.bold(model)} on ${dataset}: ${extent}; ${integer(to - start)} computed again from ${begin}, ` +
      `${plural(workers, 'worker')}, ${seconds.toFixed(1)} s`,
    `equal: ${parts.join(', ')}`,
    `${colors.green('verified')}  hash ${hash} after step ${integer(to)}`,
  ].join('\n');
}

// `lockstep train [model]`: flags in, events out.

import type { ArgumentsCamelCase, Argv, CommandModule, InferredOptionTypes } from 'yargs';
import { readConfig, train, type TrainOptions } from '../library/index.js';
import { LockstepError } from '../shared/errors.js';
import { defaults, engineNames, learningRateScheduleNames, optimizerNames } from '../shared/settings.js';
import { chooseDisplay } from './display.js';
import { collectLess } from './garbage.js';
import { modelHelp, toWorkers, withoutUndefined } from './format.js';
import { untilSignal } from './signals.js';

export const trainFlags = {
  workers: {
    type: 'string',
    requiresArg: true,
    describe: "Worker threads, or 'auto': one for each core; 0 with --listen: remote nodes compute all",
    defaultDescription: String(defaults.workers),
  },
  epochs: {
    type: 'number',
    requiresArg: true,
    describe: 'Passes over the training set',
    defaultDescription: String(defaults.epochs),
  },
  'max-steps': { type: 'number', requiresArg: true, describe: 'End after so many steps at the latest' },
  batch: {
    type: 'number',
    requiresArg: true,
    describe: 'Samples a step',
    defaultDescription: String(defaults.batch),
  },
  leaf: {
    type: 'number',
    requiresArg: true,
    describe: 'Samples of a lane in a step, a divisor of the batch',
    defaultDescription: 'at least 8 lanes',
  },
  optimizer: {
    choices: optimizerNames,
    requiresArg: true,
    describe: 'How weights are updated',
    defaultDescription: defaults.optimizer,
  },
  lr: {
    type: 'number',
    requiresArg: true,
    describe: 'Peak learning rate',
    defaultDescription: '0.008; mlp: 0.012; sgd: 0.05',
  },
  momentum: {
    type: 'number',
    requiresArg: true,
    describe: 'Of sgd',
    defaultDescription: String(defaults.momentum),
  },
  nesterov: { type: 'boolean', describe: 'Nesterov momentum, of sgd' },
  'weight-decay': {
    type: 'number',
    requiresArg: true,
    describe: 'L2 penalty; with adamw decoupled',
    defaultDescription: '0; lenet5-regularized: 1e-4',
  },
  'lr-schedule': {
    choices: learningRateScheduleNames,
    requiresArg: true,
    describe: 'How the learning rate changes over the run',
    defaultDescription: defaults.lrSchedule,
  },
  warmup: {
    type: 'number',
    requiresArg: true,
    describe: 'Steps in which the learning rate rises',
    defaultDescription: '0; one-cycle: 30 % of all',
  },
  seed: {
    type: 'number',
    requiresArg: true,
    describe: 'Of initial weights, sample order and dropout',
    defaultDescription: String(defaults.seed),
  },
  init: {
    type: 'boolean',
    describe: 'Begin a model that brings its weights from the seed all the same',
  },
  engine: {
    choices: engineNames,
    requiresArg: true,
    describe: 'What computes',
    defaultDescription: defaults.engine,
  },
  devices: {
    type: 'string',
    requiresArg: true,
    describe: "With tensorflow: 'cpu', 'all' GPUs, or numbers such as '0,1'",
    defaultDescription: 'all GPUs, else cpu',
  },
  data: {
    type: 'string',
    requiresArg: true,
    describe: 'A folder of IDX files, gzipped or not, to train on',
    defaultDescription: 'MNIST',
  },
  'label-offset': {
    type: 'number',
    requiresArg: true,
    describe: 'The smallest label in the files: class 0',
    defaultDescription: String(defaults.labelOffset),
  },
  out: {
    type: 'string',
    requiresArg: true,
    describe: 'The run folder',
    defaultDescription: 'runs/<model>-<n>',
  },
  'checkpoint-every': {
    type: 'string',
    requiresArg: true,
    describe: "Steps ('500'), epochs ('2epochs') or seconds ('30s') between checkpoints",
    defaultDescription: defaults.checkpointEvery,
  },
  resume: {
    type: 'string',
    requiresArg: true,
    describe: 'Go on with the run in this folder, to the same bits',
  },
  listen: {
    type: 'string',
    requiresArg: true,
    describe: 'Let other machines join: PORT on loopback, or HOST:PORT; port 0 is any that is free',
  },
  advertise: {
    type: 'string',
    requiresArg: true,
    describe: 'The host by which they reach this machine',
    defaultDescription: 'that of --listen',
  },
  'min-nodes': {
    type: 'number',
    requiresArg: true,
    describe: 'Wait for so many remote nodes before the first step',
    defaultDescription: '0; 1 with --workers 0',
  },
  patience: {
    type: 'string',
    requiresArg: true,
    describe: "How long to wait while nobody is there to compute, such as '10m'; then the run ends, saved",
    defaultDescription: 'without end',
  },
  'key-file': {
    type: 'string',
    requiresArg: true,
    describe: 'Where the key of the run is kept',
    defaultDescription: "one for each run in the user's state folder",
  },
  'join-file': {
    type: 'string',
    requiresArg: true,
    describe: 'Write the join line, which holds the key, to this file and tell it nowhere else',
  },
  insecure: { type: 'boolean', describe: 'Encrypt nothing between the machines' },
  mixed: {
    type: 'boolean',
    describe: 'Let nodes of other engines, versions and devices compute too: nobody can reproduce the run',
  },
  audit: {
    type: 'number',
    requiresArg: true,
    describe: 'The share of leases that two nodes compute and that is compared, from 0 to 1',
    defaultDescription: '0.001',
  },
  config: {
    type: 'string',
    requiresArg: true,
    describe: 'A JSON file with settings by the names of these flags; a flag wins over the file',
  },
  json: { type: 'boolean', describe: 'Print one JSON object an event' },
  quiet: { type: 'boolean', describe: 'Print errors only' },
} as const;

/** Errors that an `error` event has told already. */
export const toldErrors = new WeakSet<Error>();

type Arguments = InferredOptionTypes<typeof trainFlags> & { model: string | undefined };

export const trainCommand: CommandModule<object, Arguments> = {
  command: 'train [model]',
  describe: 'Train a model on MNIST or your images, with threads and other machines',
  builder: (yargs): Argv<Arguments> =>
    yargs
      .positional('model', {
        type: 'string',
        describe: modelHelp,
        defaultDescription: 'lenet5',
      })
      .options(trainFlags)
      .example('$0 train', 'LeNet-5 for 5 epochs with every core')
      .example('$0 train mlp --workers 4 --epochs 10', 'The small network, longer, with 4 threads')
      .example('$0 train my-model.json', 'A model of your own: docs/model.md')
      .example('$0 train --data ./fashion', 'LeNet-5 on the IDX files of a folder')
      .example('$0 train lenet5 --seed 7 --json', 'Events for a program to read')
      .example('$0 train --config mine.json --seed 2', 'Settings from a file, one of them replaced')
      .example('$0 train --resume runs/lenet5-1', 'Go on where a run was ended')
      .example('$0 train --listen 0.0.0.0:7077', 'Other machines join with the line that it prints')
      .epilogue(
        'Workers, other machines, engine and output decide no bits: the hash is the same for any of them.\n' +
          "LOCKSTEP_INJECT='KIND:thread=1,step=300,phase=PHASE' makes a thread fail there: see docs/faults.md.",
      ),
  handler: async argv => {
    const options = toOptions(argv);
    if (options.listen !== undefined) collectLess();
    // A resumed run at its old port has the join line that its agents know.
    const isTold = !argv.quiet || argv.json || options.joinFile !== undefined || options.resume !== undefined;
    if (options.listen !== undefined && !isTold) {
      throw new LockstepError(
        'LOCKSTEP_USAGE',
        'With --quiet nobody would be told the join line: say with --join-file where it is to be written.',
      );
    }
    const display = chooseDisplay(argv);
    try {
      await untilSignal(
        async signal => {
          for await (const event of train({ ...options, signal })) display.show(event);
        },
        () => display.end(),
      );
    } catch (error) {
      if (error instanceof Error) toldErrors.add(error);
      throw error;
    } finally {
      display.end();
    }
  },
};

function toOptions(argv: ArgumentsCamelCase<Arguments>): TrainOptions {
  const { model, maxSteps, weightDecay, lrSchedule, data, labelOffset } = argv;
  const { out, checkpointEvery, resume, config } = argv;
  const {
    epochs,
    batch,
    leaf,
    optimizer,
    lr,
    momentum,
    nesterov,
    warmup,
    seed,
    init,
    engine,
    devices,
    mixed,
  } = argv;
  const { listen, advertise, minNodes, patience, keyFile, joinFile, insecure, audit } = argv;
  const injected = process.env['LOCKSTEP_INJECT'];
  const chosen = {
    model,
    workers: argv.workers === undefined ? undefined : toWorkers(argv.workers),
    epochs,
    maxSteps,
    batch,
    leaf,
    optimizer,
    lr,
    momentum,
    nesterov,
    weightDecay,
    lrSchedule,
    warmup,
    seed,
    init,
    engine,
    devices,
    mixed,
    data,
    labelOffset,
    out,
    checkpointEvery,
    resume,
    listen,
    advertise,
    minNodes,
    patience,
    keyFile,
    joinFile,
    insecure,
    audit,
  };
  return {
    ...(config !== undefined && readConfig(config)),
    ...withoutUndefined(chosen),
    ...(injected && { inject: injected }),
  };
}

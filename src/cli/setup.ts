// `lockstep setup tensorflow`: gets what an engine needs that does not come with the package.

import { createInterface } from 'node:readline';
import colors from 'picocolors';
import type { Argv, CommandModule, InferredOptionTypes } from 'yargs';
import { setupTensorflow, type SetupPlan, type SetupResult, type SetupStep } from '../library/index.js';
import { LockstepError } from '../shared/errors.js';
import { megabytes } from '../shared/format.js';
import { jsonFlag, warningLine } from './format.js';
import { untilSignal } from './signals.js';

export const setupWhats = ['tensorflow'] as const;

export const setupFlags = {
  gpu: { type: 'boolean', describe: 'For NVIDIA GPUs: with the libraries of CUDA, and proved on a GPU' },
  yes: { type: 'boolean', describe: 'Download without asking' },
  json: jsonFlag,
} as const;

type Arguments = InferredOptionTypes<typeof setupFlags> & { what: (typeof setupWhats)[number] };

export const setupCommand: CommandModule<object, Arguments> = {
  command: 'setup <what>',
  describe: 'Get TensorFlow for the engine of that name, and prove it with a training step',
  builder: (yargs): Argv<Arguments> =>
    yargs
      .positional('what', { choices: setupWhats, demandOption: true, describe: 'What to get' })
      .options(setupFlags)
      .example('$0 setup tensorflow', 'For the CPU; says how much it downloads, and asks')
      .example('$0 setup tensorflow --gpu', 'For NVIDIA GPUs')
      .example('$0 setup tensorflow --yes', 'In a script')
      .epilogue(
        'It goes into ~/.cache/lockstep/tensorflow ($XDG_CACHE_HOME); removing that folder undoes it. An installed package\n' +
          '@tensorflow/tfjs-node or @tensorflow/tfjs-node-gpu is used as it is. Needs g++, pip and npm, on Linux for x64.',
      ),
  handler: async ({ gpu = false, yes = false, json = false }) => {
    const print = (text: string): void => void (json || process.stdout.write(`${text}\n`));
    const result = await untilSignal(signal =>
      setupTensorflow({
        gpu,
        signal,
        confirm: async plan => {
          print(describePlan(plan));
          return yes || ask('Go on? [y/N] ', json, signal);
        },
        onStep: step => print(describeStep(step)),
        ...(process.stdout.isTTY && !json && { terminal: process.stdout.fd }),
      }),
    );
    process.stdout.write(json ? `${JSON.stringify(result)}\n` : `${describeResult(result)}\n`);
  },
};

function describeStep({ step, steps, what }: SetupStep): string {
  return `${colors.bold(`${step}/${steps}`)} ${what}`;
}

function describePlan({ name, folder, downloadBytes, diskBytes, peakDiskBytes, warning }: SetupPlan): string {
  const lines = [
    `${colors.bold(name)}: ${megabytes(downloadBytes)} to download, ${megabytes(diskBytes)} on the disk ` +
      `(${megabytes(peakDiskBytes)} while it is built), in ${folder}`,
  ];
  if (warning !== undefined) lines.push(warningLine(`It will end without a proof. ${warning}`));
  return lines.join('\n');
}

function describeResult({ name, source, isGpu, folder, proof: { loss, gpu } }: SetupResult): string {
  return [
    `${colors.bold(name)}, ${isGpu ? 'for GPUs' : 'for the CPU'}, ${source === 'setup' ? 'set up' : 'as installed'} in ${folder}`,
    `It did a training step on ${gpu ?? 'the CPU'}: loss ${loss.toFixed(4)}.`,
    'Use it with: lockstep train lenet5 --engine tensorflow',
  ].join('\n');
}

/** @throws LOCKSTEP_SETUP where nobody can be asked */
function ask(question: string, isJson: boolean, signal: AbortSignal): Promise<boolean> {
  if (isJson || !process.stdin.isTTY || !process.stdout.isTTY) {
    throw new LockstepError('LOCKSTEP_SETUP', 'Nobody can be asked here. Say --yes to download it.');
  }
  return new Promise(resolve => {
    // The terminal stays as it is, so that Ctrl-C is a signal.
    const lines = createInterface({ input: process.stdin, output: process.stdout, terminal: false });
    const end = (): void => lines.close();
    signal.addEventListener('abort', end);
    lines.once('close', () => {
      signal.removeEventListener('abort', end);
      resolve(false);
    });
    lines.question(question, answer => {
      resolve(/^y(es)?$/i.test(answer.trim()));
      lines.close();
    });
  });
}

// `lockstep export <run>`: a run's weights in files for other programs.

import { relative } from 'node:path';
import type { Argv, CommandModule, InferredOptionTypes } from 'yargs';
import { exportFormats } from '../library/export.js';
import { exportRun, type ExportResult } from '../library/index.js';
import { describeWeights, integer, jsonFlag, warningLine, withoutUndefined } from './format.js';

export const exportFlags = {
  to: {
    choices: exportFormats,
    demandOption: true,
    requiresArg: true,
    describe: 'The format: tensors alone, a tf.LayersModel, or ONNX',
  },
  out: {
    type: 'string',
    requiresArg: true,
    describe: 'The file, or for tfjs the folder, which must not be there yet',
    defaultDescription: "in the run's folder export",
  },
  softmax: {
    type: 'boolean',
    default: false,
    describe: 'End the model with a softmax: it gives probabilities and not logits',
  },
  json: jsonFlag,
} as const;

type Arguments = InferredOptionTypes<typeof exportFlags> & { run: string };

export const exportCommand: CommandModule<object, Arguments> = {
  command: 'export <run>',
  describe: "Write a run's weights as safetensors, or its model for TensorFlow.js or ONNX",
  builder: (yargs): Argv<Arguments> =>
    yargs
      .positional('run', { type: 'string', demandOption: true, describe: 'The run folder' })
      .options(exportFlags)
      .example('$0 export runs/lenet5-1 --to onnx', 'runs/lenet5-1/export/lenet5.onnx')
      .example('$0 export runs/lenet5-1 --to tfjs --out web/digits', 'web/digits/model.json and its weights')
      .epilogue('Of a run that is not finished, the newest checkpoint is exported.'),
  handler: async ({ run, to, out, softmax, json }) => {
    const result = await exportRun(run, { to, softmax, ...withoutUndefined({ out }) });
    process.stdout.write(`${json ? JSON.stringify(result) : describe(result)}\n`);
  },
};

function describe(result: ExportResult): string {
  const { path, sizeBytes, input, output, warnings } = result;
  return [
    ...warnings.map(warningLine),
    describeWeights(result),
    `wrote ${relative('.', path)}, ${integer(Math.ceil(sizeBytes / 1024))} KiB`,
    ...(input === null ? [] : [`  takes  ${input}`]),
    ...(output === null ? [] : [`  gives  ${output}`]),
  ].join('\n');
}

// `lockstep model NAME`: the layer table of a preset or of a model file.

import colors from 'picocolors';
import type { Argv, CommandModule, InferredOptionTypes } from 'yargs';
import { describeModel, type ModelDescription } from '../library/index.js';
import { integer, jsonFlag, modelHelp, newTable } from './format.js';

export const modelFlags = {
  data: {
    type: 'string',
    requiresArg: true,
    describe: 'For the images of this folder',
    defaultDescription: 'MNIST',
  },
  'label-offset': {
    type: 'number',
    requiresArg: true,
    describe: 'Its smallest label',
    defaultDescription: '0',
  },
  json: jsonFlag,
} as const;

type Arguments = InferredOptionTypes<typeof modelFlags> & { name: string };

export const modelCommand: CommandModule<object, Arguments> = {
  command: 'model <name>',
  describe: 'Show the layers of a model with output shapes and parameter counts',
  builder: (yargs): Argv<Arguments> =>
    yargs
      .positional('name', { type: 'string', demandOption: true, describe: modelHelp })
      .options(modelFlags)
      .example('$0 model lenet5', 'The layers of LeNet-5')
      .example('$0 model my-model.json', 'Those of your own, if their shapes fit: docs/model.md')
      .example('$0 model lenet5 --data ./emnist', 'For images of your own'),
  handler: ({ name, data, labelOffset, json }) => {
    const description = describeModel(name, data, labelOffset);
    process.stdout.write(json ? `${JSON.stringify(description)}\n` : `${layerTable(description)}\n`);
  },
};

function layerTable({ model, about, input, layers, parameters }: ModelDescription): string {
  const table = newTable(
    ['layer', 'type', 'output', 'parameters', 'kernel + bias'],
    ['left', 'left', 'left', 'right', 'left'],
  );
  table.push(['input', '', input, '', '']);
  for (const { name, type, output, parameters: count, arithmetic } of layers) {
    table.push([name, type, output, count > 0 ? integer(count) : '', arithmetic]);
  }
  table.push(['total', '', '', colors.bold(integer(parameters)), '']);
  return `${colors.bold(model)}: ${about}\n${table.toString()}`;
}

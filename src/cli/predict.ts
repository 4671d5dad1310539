// `lockstep predict <run> <image>`: what a run's weights see in one image.

import colors from 'picocolors';
import type { Argv, CommandModule, InferredOptionTypes } from 'yargs';
import { predict, type Prediction, type Preparation } from '../library/index.js';
import { columnsOr, describeWeights, jsonFlag, percent, warningLine, withoutUndefined } from './format.js';
import { drawImage } from './picture.js';

export const predictFlags = {
  'as-is': {
    type: 'boolean',
    default: false,
    describe: 'Scale the image and do nothing else: no inverting, cropping or raising of contrast',
  },
  data: {
    type: 'string',
    requiresArg: true,
    describe: 'A folder of IDX files, gzipped or not, whose test images are meant',
    defaultDescription: "the run's data",
  },
  'label-offset': {
    type: 'number',
    requiresArg: true,
    describe: 'The smallest label in those files: class 0',
    defaultDescription: '0',
  },
  json: jsonFlag,
} as const;

type Arguments = InferredOptionTypes<typeof predictFlags> & { run: string; image: string };

export const predictCommand: CommandModule<object, Arguments> = {
  command: 'predict <run> <image>',
  describe: 'Predict the class of a PNG or JPEG, or of a test image',
  builder: (yargs): Argv<Arguments> =>
    yargs
      .positional('run', { type: 'string', demandOption: true, describe: 'The run folder' })
      .positional('image', {
        type: 'string',
        demandOption: true,
        describe: 'A PNG or JPEG file, or the index of a test image',
      })
      .options(predictFlags)
      .example('$0 predict runs/lenet5-1 digit.png', 'A picture, light on dark or dark on light')
      .example('$0 predict runs/lenet5-1 42', "Image 42, counted from 0, of the run's test set")
      .example('$0 predict runs/fashion shoe.jpg --as-is', 'A picture that is scaled and nothing else')
      .epilogue('A file whose name is a number is named with its folder: ./42'),
  handler: async ({ run, image, asIs, data, labelOffset, json }) => {
    const isIndex = /^-?\d+$/.test(image);
    const options = withoutUndefined({ asIs, data, labelOffset });
    const prediction = await predict(run, isIndex ? Number(image) : image, options);
    process.stdout.write(json ? `${toJson(prediction)}\n` : `${describe(prediction, columnsOr(80))}\n`);
  },
};

/** Without the pixels, which are for pictures. */
function toJson(prediction: Prediction): string {
  return JSON.stringify({ ...prediction, pixels: undefined });
}

const BARS_SHOWN = 10;

function describe(prediction: Prediction, columns: number): string {
  const { image, class: best, probabilities, label, preparation, pixels, shape, warnings } = prediction;
  const verdict = label === null ? '' : label === best ? ', which is right' : `, and it is class ${label}`;
  // Of several channels the first is drawn.
  const gray = pixels.filter((_, i) => i % shape.channels === 0);
  return [
    ...warnings.map(warningLine),
    describeWeights(prediction),
    preparation === null
      ? `test image ${image}`
      : `${image}: ${describePreparation(preparation, prediction)}`,
    drawImage(gray, shape.width, shape.height, columns),
    ...bars(probabilities),
    `${colors.bold(`class ${best}`)} with ${percent(probabilities[best])}${verdict}`,
  ].join('\n');
}

function describePreparation(
  { width, height, isTurned, isInverted, isStretched, isCropped, isScaled }: Preparation,
  { shape }: Prediction,
): string {
  const done = [
    ...(isTurned ? ['turned as its EXIF data say'] : []),
    ...(isInverted ? ['inverted (it was dark on light)'] : []),
    ...(isStretched ? ['contrast raised'] : []),
    ...(isCropped ? ['cropped to its ink and centered'] : []),
    ...(isScaled ? [`scaled to ${shape.width} x ${shape.height}`] : []),
  ];
  return `${width} x ${height} pixels, ${done.length > 0 ? done.join(', ') : 'taken as they are'}`;
}

/** Every class in its order, or the most probable ones of many. */
function bars(probabilities: readonly number[]): string[] {
  const all = probabilities.map((probability, label) => ({ label, probability }));
  const isMany = all.length > BARS_SHOWN;
  const shown = isMany ? all.toSorted((a, b) => b.probability - a.probability).slice(0, BARS_SHOWN) : all;
  const lines = shown.map(({ label, probability }) => {
    const bar = '█'.repeat(Math.round(20 * probability));
    return `${`${label}`.padStart(3)}  ${percent(probability).padStart(8)}  ${bar}`.trimEnd();
  });
  return isMany ? [...lines, `(the ${BARS_SHOWN} most probable of ${all.length} classes)`] : lines;
}

// `lockstep data [dir]`: what a dataset holds.

import { basename } from 'node:path';
import colors from 'picocolors';
import type { Argv, CommandModule, InferredOptionTypes } from 'yargs';
import { describeData, type DataDescription, type Example } from '../library/index.js';
import { shardSamples } from '../shared/shards.js';
import type { Shape } from '../shared/shape.js';
import { columnsOr, integer, jsonFlag, newTable, percent } from './format.js';
import { drawImage } from './picture.js';

export const dataFlags = {
  'label-offset': {
    type: 'number',
    requiresArg: true,
    default: 0,
    describe: 'The smallest label in the files: class 0',
  },
  json: jsonFlag,
} as const;

type Arguments = InferredOptionTypes<typeof dataFlags> & { dir: string | undefined };

export const dataCommand: CommandModule<object, Arguments> = {
  command: 'data [dir]',
  describe: 'Show what a dataset holds: digests, classes, shards, pictures',
  builder: (yargs): Argv<Arguments> =>
    yargs
      .positional('dir', {
        type: 'string',
        describe: 'A folder of four IDX files, gzipped or not',
        defaultDescription: 'MNIST',
      })
      .options(dataFlags)
      .example('$0 data', 'MNIST')
      .example('$0 data ./fashion', 'The IDX files of a folder')
      .example('$0 data ./letters --label-offset 1', 'Labels that begin at 1')
      .example('$0 data --json', 'Every shard with its digest, for a program to read')
      .epilogue(
        'The files are found by their names: *train*images*, *train*labels*, and *t10k* or *test* with the same words.',
      ),
  handler: ({ dir, labelOffset, json }) => {
    const description = describeData(dir, labelOffset);
    process.stdout.write(json ? `${toJson(description)}\n` : `${toText(description)}\n`);
  },
};

/** Without the pixels of the examples, which are in the files. */
function toJson({ examples, ...description }: DataDescription): string {
  return JSON.stringify({
    ...description,
    examples: examples.map(({ class: label, sample }) => ({ class: label, sample })),
  });
}

function toText(description: DataDescription): string {
  const { name, digest, shape, classes, sets, examples } = description;
  return [
    `${colors.bold(name)}: ${integer(sets.train.samples)} training and ${integer(sets.test.samples)} test images of ` +
      `${shape.height} x ${shape.width} pixels, ${classes === 1 ? '1 class' : `${classes} classes`}`,
    `digest ${digest}`,
    fileTable(description),
    classTable(description),
    shardTable(description),
    pictures(examples, shape, columnsOr(80)),
  ].join('\n');
}

function fileTable({ sets: { train, test } }: DataDescription): string {
  const table = newTable(['file', 'bytes', 'SHA-256'], ['left', 'right', 'left']);
  for (const { images, labels } of [train.files, test.files]) {
    for (const { path, sizeBytes, sha256 } of [images, labels]) {
      // Whole it needs 107 columns; `--json` has it whole anyway.
      table.push([
        basename(path),
        integer(sizeBytes),
        columnsOr(110) < 107 ? `${sha256.slice(0, 12)}...` : sha256,
      ]);
    }
  }
  return table.toString();
}

const BAR_COLUMNS = 20;

function classTable({ sets: { train, test } }: DataDescription): string {
  const table = newTable(
    ['class', 'training', 'share', '', 'test', 'share'],
    ['right', 'right', 'right', 'left', 'right', 'right'],
  );
  const most = Math.max(...train.perClass);
  for (const [label, count] of train.perClass.entries()) {
    const ofTest = test.perClass[label];
    table.push([
      `${label}`,
      integer(count),
      percent(count / train.samples),
      '█'.repeat(Math.round((BAR_COLUMNS * count) / most)),
      integer(ofTest),
      percent(ofTest / test.samples),
    ]);
  }
  return table.toString();
}

function shardTable({ shape, shards }: DataDescription): string {
  const table = newTable(
    ['set', 'shards', 'samples each', 'in the last', 'bytes', 'first and last SHA-256'],
    ['left', 'right', 'right', 'right', 'right', 'left'],
  );
  for (const set of ['train', 'test'] as const) {
    const own = shards.filter(shard => shard.set === set);
    const [first, last] = [own[0], own.at(-1)!];
    table.push([
      set === 'train' ? 'training' : 'test',
      integer(own.length),
      integer(shardSamples(shape)),
      integer(last.samples),
      integer(own.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)),
      `${first.sha256.slice(0, 12)} ${last.sha256.slice(0, 12)}`,
    ]);
  }
  return table.toString();
}

/** Columns of a picture, and between two of them. */
const PICTURE_COLUMNS = 16;
const GAP = '   ';
const ROWS_OF_PICTURES = 2;

/** The first classes, side by side: as many as fit into `columns` and a few rows. */
function pictures(examples: readonly Example[], { width, height }: Shape, columns: number): string {
  const drawn = examples.map(({ class: label, pixels }) => {
    const lines = drawImage(pixels, width, height, Math.min(PICTURE_COLUMNS, columns)).split('\n');
    const columnsUsed = Math.max(lines[0].length, `${label}`.length);
    return [`${label}`, ...lines].map(line => line.padEnd(columnsUsed));
  });
  const perRow = Math.max(1, Math.floor((columns + GAP.length) / (drawn[0][1].length + GAP.length)));
  const rows = Array.from({ length: ROWS_OF_PICTURES }, (_, row) =>
    drawn.slice(row * perRow, (row + 1) * perRow),
  );
  return rows
    .filter(row => row.length > 0)
    .map(row =>
      row[0]
        .map((_, line) =>
          row
            .map(picture => picture[line])
            .join(GAP)
            .trimEnd(),
        )
        .join('\n'),
    )
    .join('\n');
}

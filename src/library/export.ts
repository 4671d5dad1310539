// `exportRun`: a run's weights in files for other programs, as bare tensors or as a model that takes images.

import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import * as v from 'valibot';
import { namedTensors } from '../coordinator/checkpoint.js';
import { makeFolder } from '../coordinator/disk.js';
import { replaceFile } from '../coordinator/run-folder.js';
import { encodeSafetensors } from '../coordinator/safetensors.js';
import { LockstepError, messageOf } from '../shared/errors.js';
import { oneOf, parseSettings, path } from '../shared/settings.js';
import { encodeOnnx } from './export-onnx.js';
import { encodeLayersModel } from './export-tfjs.js';
import { openRun, type TrainedRun, type WeightsSource } from './trained.js';

export const exportFormats = ['safetensors', 'tfjs', 'onnx'] as const;
export type ExportFormat = (typeof exportFormats)[number];

export interface ExportOptions {
  readonly to: ExportFormat;
  /** The file, or for tfjs the folder; by default in the run's folder `export`. */
  readonly out?: string;
  /** Ends the model with a softmax, so that it gives probabilities and not logits. */
  readonly softmax?: boolean;
}

export interface ExportResult extends WeightsSource {
  readonly to: ExportFormat;
  /** Of the file, or for tfjs of the folder; absolute. */
  readonly path: string;
  readonly sizeBytes: number;
  /** What the exported model takes and gives; null where there are tensors alone. */
  readonly input: string | null;
  readonly output: string | null;
  readonly warnings: readonly string[];
}

/** What an encoder made. */
export interface Exported {
  /** By their names in the folder; of a format that is one file, that one. */
  readonly files: readonly (readonly [name: string, content: Uint8Array])[];
  readonly input: string | null;
  readonly output: string | null;
}

/** What the encoders are told. */
export interface ToExport extends TrainedRun {
  /** Of every file, as far as the format has a place for it. */
  readonly metadata: Readonly<Record<string, string>>;
  readonly softmax: boolean;
}

const encoders: Record<ExportFormat, (run: ToExport) => Exported> = {
  safetensors: encodeTensors,
  tfjs: encodeLayersModel,
  onnx: encodeOnnx,
};

const optionsSchema = v.strictObject({
  runDir: path,
  to: oneOf(exportFormats),
  out: v.optional(path),
  softmax: v.optional(v.boolean('true or false'), false),
});

/**
 * Writes the weights of a finished run, or of its newest checkpoint, as a file or folder of another format. What an
 * earlier call wrote to the default place is replaced; an `out` that is there already is left alone.
 * @throws LOCKSTEP_EXPORT if the model has no counterpart in the format, or the files cannot be written; LockstepError with
 *   another code of `docs/errors.md`
 */
export async function exportRun(runDir: string, options: ExportOptions): Promise<ExportResult> {
  const { to, out, softmax } = parseSettings(optionsSchema, { ...options, runDir });
  if (softmax && to === 'safetensors') {
    throw new LockstepError(
      'LOCKSTEP_BAD_SETTING',
      'Setting softmax is true, and safetensors holds tensors, which end with nothing: use --to tfjs or --to onnx.',
    );
  }
  const target = out === undefined ? undefined : resolve(out);
  if (target !== undefined && existsSync(target)) {
    throw new LockstepError(
      'LOCKSTEP_EXPORT',
      `${target} is there already and was left as it is: name another with --out, or remove it.`,
    );
  }
  const run = openRun(runDir);
  const { files, ...told } = encoders[to]({ ...run, metadata: metadataOf(run), softmax });
  const { source, warnings } = run;
  const isFolder = to === 'tfjs';
  const written = target ?? join(source.runDir, 'export', `${source.model}${isFolder ? '-' : '.'}${to}`);
  try {
    makeFolder(isFolder ? written : resolve(written, '..'));
    for (const [name, content] of files) replaceFile(isFolder ? join(written, name) : written, content);
  } catch (cause) {
    throw new LockstepError(
      'LOCKSTEP_EXPORT',
      `${written} cannot be written: ${messageOf(cause)}. Name another place with --out.`,
      { cause },
    );
  }
  const sizeBytes = files.reduce((sum, [, content]) => sum + content.length, 0);
  return { ...source, to, path: written, sizeBytes, ...told, warnings };
}

/** Texts, as two of the three formats want them. */
function metadataOf({ source, config }: TrainedRun): Record<string, string> {
  const { shape, classes } = config.dataset;
  return {
    model: source.model,
    step: String(source.step),
    totalSteps: String(source.totalSteps),
    hash: source.hash,
    classes: String(classes),
    shape: JSON.stringify([shape.height, shape.width, shape.channels]),
    normalization: JSON.stringify(config.normalization),
  };
}

/** The weights by their names, and the layers that they belong to. */
function encodeTensors({ config, model, weights, metadata }: ToExport): Exported {
  const content = encodeSafetensors({
    tensors: namedTensors(model, weights),
    metadata: { ...metadata, layers: JSON.stringify(config.model.layers) },
  });
  return { files: [['', content]], input: null, output: null };
}

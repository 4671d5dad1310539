// Checkpoints: everything that a run needs to go on to the same bits, in one safetensors file.

import * as v from 'valibot';
import { LockstepError } from '../shared/errors.js';
import { canonicalJson, formatHash, hex64, sha256 } from '../shared/hash.js';
import type { Model } from '../shared/model.js';
import { emptyBank, initialState, type NodeState, type Sums } from '../shared/node.js';
import { initialBetaPowers, type BetaPowers } from '../shared/optimizer.js';
import { weightsDigest, type Job, type OptimizerName } from '../shared/settings.js';
import { decodeSafetensors, encodeSafetensors, type TensorValues } from './safetensors.js';

/** A run between two steps. */
export interface TrainingState extends NodeState {
  readonly powers: BetaPowers;
  /** Over the steps of the epoch so far; over all of the last epoch where `step` ends one. */
  readonly epochSums: Sums;
}

export const noSums: Sums = { lossSum: 0, correct: 0, samples: 0 };

/** Where every run of a job begins. */
export function beginning(job: Job): TrainingState {
  return { ...initialState(job), powers: initialBetaPowers, epochSums: noSums };
}

/** Raised when older programs could not read the files any more. */
const FORMAT = 'lockstep-checkpoint-1';
const INITIAL_FORMAT = 'lockstep-initial-weights-1';

const moments = [
  ['first', 'firstMoment'],
  ['second', 'secondMoment'],
] as const;

/** The optimizer's state: which vectors it uses, and what they are called behind a tensor's name. */
const stateVectors: Record<OptimizerName, readonly (readonly ['first' | 'second', string])[]> = {
  sgd: [['first', 'momentum']],
  adam: moments,
  adamw: moments,
};

/** Of the tensors in a checkpoint: nearly all of it. */
export function checkpointBytes({ model, bits }: Job): number {
  return 4 * model.parameterCount * (1 + stateVectors[bits.optimizer.name].length);
}

/** The flat vector as its named tensors. */
export function namedTensors(model: Model, vector: Float32Array, suffix = ''): TensorValues[] {
  return model.tensors.map(({ name, shape, offset, size }) => ({
    name: `${name}${suffix}`,
    shape,
    values: vector.subarray(offset, offset + size),
  }));
}

export function encodeCheckpoint({ model, bits }: Job, state: TrainingState): Uint8Array {
  const { step, hash, bank, powers, epochSums } = state;
  return encodeSafetensors({
    tensors: [
      ...namedTensors(model, bank.weights),
      ...stateVectors[bits.optimizer.name].flatMap(([vector, name]) =>
        namedTensors(model, bank[vector], `.${name}`),
      ),
    ],
    metadata: {
      format: FORMAT,
      model: model.spec.name,
      step: String(step),
      hash: formatHash(hash),
      bits: bitsDigest(bits),
      beta1Power: String(powers.beta1),
      beta2Power: String(powers.beta2),
      epochLossSum: String(epochSums.lossSum),
      epochCorrect: String(epochSums.correct),
      epochSamples: String(epochSums.samples),
    },
  });
}

/** The weights that a job begins with, as a file for its folder, where they do not follow from the seed. */
export function initialWeightsFile({ model, initialWeights }: Job): Uint8Array | undefined {
  if (!initialWeights) return undefined;
  return encodeSafetensors({
    tensors: namedTensors(model, initialWeights),
    metadata: { format: INITIAL_FORMAT, model: model.spec.name },
  });
}

/** Its content, of all tensors one after another. `digest`: see `weightsDigest`. @throws LOCKSTEP_FILE_DAMAGED */
export function readInitialWeights(file: Uint8Array, path: string, digest: string): Float32Array {
  const { tensors } = decodeSafetensors(file, path);
  const weights = new Float32Array(tensors.reduce((sum, { values }) => sum + values.length, 0));
  let at = 0;
  for (const { values } of tensors) {
    weights.set(values, at);
    at += values.length;
  }
  if (weightsDigest(weights) !== digest) {
    throw new LockstepError('LOCKSTEP_FILE_DAMAGED', `${path} belongs to a run with other initial weights.`);
  }
  return weights;
}

/** Names the settings that decide bits: checkpoints of other runs are not taken for this one's. */
function bitsDigest(bits: object): string {
  return sha256(canonicalJson(bits));
}

const number = v.pipe(v.string(), v.transform(Number), v.finite());
const metadataSchema = v.object({
  format: v.literal(FORMAT),
  bits: v.string(),
  step: number,
  hash: v.pipe(v.string(), v.regex(hex64)),
  beta1Power: number,
  beta2Power: number,
  epochLossSum: number,
  epochCorrect: number,
  epochSamples: number,
});

/** A checkpoint's content, checked to belong to the run with these settings. */
function openCheckpoint(bits: object, file: Uint8Array, path: string) {
  const { metadata, tensors } = decodeSafetensors(file, path);
  const parsed = v.safeParse(metadataSchema, metadata);
  if (!parsed.success) {
    throw new LockstepError('LOCKSTEP_FILE_DAMAGED', `${path} is no checkpoint of format ${FORMAT}.`);
  }
  const held = parsed.output;
  if (held.bits !== bitsDigest(bits)) {
    throw new LockstepError('LOCKSTEP_FILE_DAMAGED', `${path} belongs to a run with other settings.`);
  }
  return { held, tensors };
}

/**
 * The state that a file of this job holds.
 * @throws LOCKSTEP_FILE_DAMAGED if it is not as it was written, or is of another job or another version
 */
export function decodeCheckpoint({ model, bits }: Job, file: Uint8Array, path: string): TrainingState {
  const { held, tensors } = openCheckpoint(bits, file, path);
  const bank = emptyBank(model);
  bank.weights.set(vectorOf(model, tensors, '', path));
  for (const [vector, name] of stateVectors[bits.optimizer.name]) {
    bank[vector].set(vectorOf(model, tensors, `.${name}`, path));
  }
  return {
    step: held.step,
    hash: BigInt(`0x${held.hash}`),
    bank,
    powers: { beta1: held.beta1Power, beta2: held.beta2Power },
    epochSums: {
      lossSum: held.epochLossSum,
      correct: held.epochCorrect,
      samples: held.epochSamples,
    },
  };
}

/** Weights without an optimizer's state: all that is needed to use them. */
export interface TrainedWeights {
  /** A vector of `model.paddedCount`. */
  readonly weights: Float32Array;
  readonly step: number;
  readonly hash: string;
}

/** The weights of a checkpoint. `bits`: the settings of its run that decide bits. @throws LOCKSTEP_FILE_DAMAGED */
export function checkpointWeights(
  model: Model,
  bits: object,
  file: Uint8Array,
  path: string,
): TrainedWeights {
  const { held, tensors } = openCheckpoint(bits, file, path);
  return { weights: vectorOf(model, tensors, '', path), step: held.step, hash: held.hash };
}

/** Those of weights.safetensors, whose run ended with `hash` after `step`. @throws LOCKSTEP_FILE_DAMAGED */
export function finalWeights(
  model: Model,
  { step, hash }: { readonly step: number; readonly hash: string | null },
  file: Uint8Array,
  path: string,
): TrainedWeights {
  const { metadata, tensors } = decodeSafetensors(file, path);
  if (metadata['hash'] !== hash || hash === null) {
    throw new LockstepError(
      'LOCKSTEP_FILE_DAMAGED',
      `${path} has the hash ${metadata['hash']}, and its run ended with ${hash}.`,
    );
  }
  return { weights: vectorOf(model, tensors, '', path), step, hash };
}

/** The reverse of `namedTensors`: a vector of `model.paddedCount`. @throws LOCKSTEP_FILE_DAMAGED */
function vectorOf(
  model: Model,
  tensors: readonly TensorValues[],
  suffix: string,
  path: string,
): Float32Array {
  const held = new Map(tensors.map(tensor => [tensor.name, tensor]));
  const vector = new Float32Array(model.paddedCount);
  for (const { name, shape, offset } of model.tensors) {
    const tensor = held.get(`${name}${suffix}`);
    if (tensor?.shape.join(' x ') !== shape.join(' x ')) {
      throw new LockstepError(
        'LOCKSTEP_FILE_DAMAGED',
        `${path} has not the tensor ${name}${suffix} of ${shape.join(' x ')} that the run's config.json says.`,
      );
    }
    vector.set(tensor.values, offset);
  }
  return vector;
}

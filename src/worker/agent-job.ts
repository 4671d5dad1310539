// What an agent is told of its job: checked for what no schema can say, and which shards lie under which lanes.

import { largestFrames } from '../shared/codec.js';
import type { SetName } from '../shared/dataset.js';
import { LockstepError, messageOf } from '../shared/errors.js';
import { canonicalJson } from '../shared/hash.js';
import type { LeafJob } from '../shared/leaf-job.js';
import type { MessageOf } from '../shared/messages.js';
import { compileModel, layersModelOf, MOST_PARAMETERS, type Model } from '../shared/model.js';
import type { Lanes } from '../shared/node.js';
import { laneStart } from '../shared/schedule.js';
import type { Shard } from '../shared/shards.js';
import type { EngineName } from '../shared/settings.js';
import { sizeOf } from '../shared/shape.js';

/** Of the largest weights that there can be: what a connection must let through before it knows the job. */
export const MOST_FRAME_BYTES = largestFrames({ paddedCount: MOST_PARAMETERS }, 0).toAgent;

export interface AgentJob {
  /** All that was told, except by which process: equal texts are the same job. */
  readonly identity: string;
  readonly leafJob: LeafJob;
  readonly lanes: number;
  readonly shards: readonly Shard[];
  /** The largest frame that an agent gets for this job. */
  readonly maxFrameBytes: number;
}

/** An engine that a node computes with, and the name of its arithmetic. */
export interface NodeEngine {
  readonly engine: EngineName;
  readonly profile: string;
}

/**
 * `engines`: those of the node, of which the first computes where arithmetics may be mixed and the run's is not among them.
 * @throws LOCKSTEP_PROTOCOL where the job contradicts itself; LOCKSTEP_PROFILE where the node has not the run's arithmetic
 */
export function readJob(message: MessageOf<'job'>, engines: readonly NodeEngine[]): AgentJob {
  const { normalization, samples, batch, leaf, seed } = message;
  if (leaf === 0 || batch === 0 || batch % leaf !== 0) {
    throw refuse(`its batch of ${batch} is no multiple of its leaf of ${leaf}`);
  }
  if (samples.train === 0) throw refuse('it has no training samples');
  const { engine, profile } = engineFor(message, engines);
  const model = compile(message);
  if (layersModelOf(model.spec) && engine !== 'tensorflow') {
    // Where arithmetics may be mixed, this one cannot be.
    throw new LockstepError(
      'LOCKSTEP_PROFILE',
      `The run trains a tf.LayersModel, which only TensorFlow computes, and this node has ${engine}: ` +
        'start it with --engine tensorflow.',
    );
  }
  const shards = message.shards.map(shard => ({
    ...shard,
    sizeBytes: shard.samples * (sizeOf(message.shape) + 1),
  }));
  checkCover(shards, samples);
  const { type: _, incarnation: __, ...told } = message;
  return {
    identity: canonicalJson(told),
    leafJob: { model, normalization, samples, batch, leaf, seed, engine, profile },
    lanes: batch / leaf,
    shards,
    maxFrameBytes: largestFrames(model, Math.max(...shards.map(({ sizeBytes }) => sizeBytes))).toAgent,
  };
}

function engineFor(job: MessageOf<'job'>, engines: readonly NodeEngine[]): NodeEngine {
  const own = engines.find(({ engine }) => engine === job.engine) ?? (job.isMixed ? engines[0] : undefined);
  if (!own) {
    const advice =
      job.engine === 'tensorflow'
        ? 'start it with --engine tensorflow'
        : 'start it without --engine tensorflow';
    throw new LockstepError(
      'LOCKSTEP_PROFILE',
      `The run is computed with the engine ${job.engine}, and this node has ${engines[0].engine}: ${advice}.`,
    );
  }
  if (own.profile === job.profile || job.isMixed) return own;
  throw new LockstepError(
    'LOCKSTEP_PROFILE',
    `The run is computed in the arithmetic ${job.profile}, and this node has ${own.profile}: ` +
      'install the same version of Lockstep on both machines.',
  );
}

function compile({ model, shape, classes }: MessageOf<'job'>): Model {
  try {
    return compileModel(model, shape, classes);
  } catch (error) {
    throw refuse(`its model cannot be: ${messageOf(error)}`);
  }
}

/** The shards of each set follow one another without a gap, the training set's first. */
function checkCover(shards: readonly Shard[], samples: LeafJob['samples']): void {
  let set: SetName = 'train';
  let position = 0;
  for (const [index, shard] of shards.entries()) {
    if (set === 'train' && shard.set === 'test' && position === samples.train) {
      set = 'test';
      position = 0;
    }
    if (shard.set !== set || shard.from !== position || shard.samples === 0) {
      throw refuse(`its shard ${index} does not follow on the one before it`);
    }
    position += shard.samples;
  }
  const isWhole =
    set === 'test' ? position === samples.test : position === samples.train && samples.test === 0;
  if (!isWhole) throw refuse('its shards are not its samples');
}

function refuse(what: string): LockstepError {
  return new LockstepError('LOCKSTEP_PROTOCOL', `The coordinator's job makes no sense: ${what}.`);
}

/** Indexes of the shards that hold the samples of some lanes. */
export function shardsUnder(
  { leafJob, lanes, shards }: AgentJob,
  set: SetName,
  { from, to }: Lanes,
): number[] {
  const samples = leafJob.samples[set];
  const start = laneStart(from, lanes, samples);
  const end = laneStart(to, lanes, samples);
  const found: number[] = [];
  if (start === end) return found;
  // The first shard of the set that reaches beyond `start`; they are in order.
  let low = 0;
  let high = shards.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    const shard = shards[middle];
    const isBefore =
      shard.set === set ? shard.from + shard.samples <= start : shard.set === 'train' && set === 'test';
    if (isBefore) low = middle + 1;
    else high = middle;
  }
  for (let index = low; index < shards.length; index++) {
    const shard = shards[index];
    if (shard.set !== set || shard.from >= end) break;
    found.push(index);
  }
  return found;
}

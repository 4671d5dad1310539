// The messages between the coordinator and an agent, a schema each. `docs/protocol.md` says who sends what when.

import * as v from 'valibot';
import { MOST_SAMPLES } from './dataset.js';
import { hex256, hex64 } from './hash.js';
import { anyModelSpecSchema } from './model.js';
import { engineNames, MOST_BATCH } from './settings.js';

/** Raised with every change that the other side would not understand. */
export const PROTOCOL_VERSION = 2;

/** The most parts of a lease, and the most shards asked for at once. */
export const MOST_PARTS = 64;
export const MOST_FETCHES = 16;
/** More than any dataset has that fits into the memory of a node. */
const MOST_SHARDS = 8192;

/** Characters of what is told to people, and of the name of a dataset. */
const MOST_TEXT = 2000;
export const MOST_NAME = 1000;
const MOST_PROFILE = 300;

const count = (most: number) => v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(most));
const finite = v.pipe(v.number(), v.finite());
const duration = v.pipe(finite, v.minValue(0));
/** Texts go to terminals, where control characters do more than they say. */
const text = (most: number) => v.pipe(v.string(), v.maxLength(most), v.regex(/^\P{Cc}*$/u));
/** 64 bits: a run, an incarnation, weights, a check. */
const digest64 = v.pipe(v.string(), v.regex(hex64));
const digest256 = v.pipe(v.string(), v.regex(hex256));
/** Those that are sent may lie in memory that threads share. */
const bytes: v.GenericSchema<Uint8Array> = v.instance(Uint8Array);
const step = count(2_147_483_647);
const samples = count(MOST_SAMPLES);
/** Of leaves of one sample. */
const lane = count(MOST_BATCH);
const lanes = v.strictObject({ from: lane, to: lane });
const set = v.picklist(['train', 'test']);
const extent = v.pipe(count(65_536), v.minValue(1));

/** What may be sent of a text that comes from elsewhere: a message, or the name of a dataset. */
export function plainText(from: string, most = MOST_TEXT): string {
  return from.replaceAll(/\p{Cc}+/gu, ' ').slice(0, most);
}

/** What every lease and every answer says of where it belongs; any mismatch is dropped and counted. */
const work = {
  /** The job's hash before its first step. */
  run: digest64,
  /** Drawn by each process that coordinates the run. */
  incarnation: digest64,
  /** Updates done. */
  step,
  /** The chain's hash after them, which names the weights. */
  weights: digest64,
  kind: v.picklist(['gradient', 'evaluate']),
  set,
};

const shard = v.strictObject({ set, from: samples, samples, sha256: digest256 });

/** From the coordinator. */
export const toAgentSchema = v.variant('type', [
  /** The answer to `hello`: what is computed here. */
  v.strictObject({
    type: v.literal('job'),
    run: digest64,
    incarnation: digest64,
    model: v.lazy(() => anyModelSpecSchema),
    shape: v.strictObject({ height: extent, width: extent, channels: extent }),
    classes: extent,
    normalization: v.strictObject({ scale: finite, shift: finite }),
    samples: v.strictObject({ train: samples, test: samples }),
    batch: count(MOST_BATCH),
    leaf: count(MOST_BATCH),
    seed: count(Number.MAX_SAFE_INTEGER),
    engine: v.picklist(engineNames),
    profile: text(MOST_PROFILE),
    /** Whether nodes of other arithmetics may compute too. */
    isMixed: v.boolean(),
    dataset: v.strictObject({ name: text(MOST_NAME), digest: digest256 }),
    shards: v.pipe(v.array(shard), v.maxLength(MOST_SHARDS)),
  }),
  /** The lanes whose shards the node is to hold; answered by `prepared` once it does. Replaces the plan before. */
  v.strictObject({ type: v.literal('plan'), plan: count(Number.MAX_SAFE_INTEGER), from: lane, to: lane }),
  /** f32, little endian, of all parameters; kept until the next. */
  v.strictObject({ type: v.literal('weights'), step, weights: digest64, data: bytes }),
  /** Parts to compute, in this order, one answer each. */
  v.strictObject({
    type: v.literal('lease'),
    ...work,
    parts: v.pipe(v.array(lanes), v.minLength(1), v.maxLength(MOST_PARTS)),
  }),
  /** Images of the samples, then their labels. */
  v.strictObject({ type: v.literal('shard'), index: count(MOST_SHARDS), data: bytes }),
  v.strictObject({ type: v.literal('ping'), sentMs: duration }),
  /** Final: the agent ends. `code` is empty where the run was finished with it. */
  v.strictObject({ type: v.literal('end'), code: text(100), message: text(MOST_TEXT) }),
]);

/** From the agent. */
export const toCoordinatorSchema = v.variant('type', [
  v.strictObject({
    type: v.literal('hello'),
    protocol: count(Number.MAX_SAFE_INTEGER),
    version: text(100),
    /** For people; need not be unique. */
    name: v.pipe(text(100), v.regex(/^[\w.-]+$/)),
    threads: v.pipe(count(4096), v.minValue(1)),
  }),
  /** The name of the node's arithmetic, the bits of the known leaves, and what one of them takes. */
  v.strictObject({
    type: v.literal('checked'),
    profile: text(MOST_PROFILE),
    digests: v.pipe(v.array(digest64), v.length(3)),
    leafMs: duration,
    shortMs: duration,
  }),
  /** The shards of this plan are held. */
  v.strictObject({ type: v.literal('prepared'), plan: count(Number.MAX_SAFE_INTEGER) }),
  v.strictObject({
    type: v.literal('fetch'),
    shards: v.pipe(v.array(count(MOST_SHARDS)), v.minLength(1), v.maxLength(MOST_FETCHES)),
  }),
  /** The exact sums of a part: losses on their grid, gradients of all parameters as `packed-sums` writes them. */
  v.strictObject({
    type: v.literal('sum'),
    ...work,
    part: lanes,
    lossSum: finite,
    correct: samples,
    samples,
    computeMs: duration,
    gradient: bytes,
  }),
  /** A part that was bad twice. */
  v.strictObject({ type: v.literal('bad-leaf'), ...work, part: lanes, message: text(MOST_TEXT) }),
  /** The node goes, and why, for people; its leases are free. */
  v.strictObject({ type: v.literal('leave'), reason: text(MOST_TEXT) }),
  v.strictObject({ type: v.literal('pong'), sentMs: duration }),
]);

export type ToAgent = v.InferOutput<typeof toAgentSchema>;
export type ToCoordinator = v.InferOutput<typeof toCoordinatorSchema>;
export type Message = ToAgent | ToCoordinator;
export type MessageOf<Type extends Message['type']> = Extract<Message, { type: Type }>;

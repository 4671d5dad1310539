// What a run folder tells to those who only read it.

import { closeSync, existsSync, fstatSync, openSync, readFileSync, readSync } from 'node:fs';
import { join, resolve } from 'node:path';
import * as v from 'valibot';
import { LockstepError, messageOf } from '../shared/errors.js';
import type { Dataset, Normalization } from '../shared/dataset.js';
import { anyModelSpecSchema, type ModelSpec } from '../shared/model.js';
import { trainSettingsSchema, wholeNumber, type Job, type TrainSettings } from '../shared/settings.js';
import type { Shape } from '../shared/shape.js';

/** `config.json`: every setting, apart from them exactly those that decide bits, and what the data looked like. */
export interface RunConfig {
  readonly settings: TrainSettings;
  readonly model: ModelSpec;
  readonly dataset: {
    readonly name: string;
    readonly digest: string;
    readonly shape: Shape;
    readonly classes: number;
    /** The data came as arrays, which no file of the run can bring back. */
    readonly isGiven: boolean;
  };
  readonly normalization: Normalization;
  readonly bits: Readonly<Record<string, unknown>>;
  readonly totalSteps: number;
}

const extent = wholeNumber(1);

const runConfigSchema = v.object({
  settings: trainSettingsSchema,
  model: anyModelSpecSchema,
  dataset: v.object({
    name: v.string(),
    digest: v.string(),
    shape: v.object({ height: extent, width: extent, channels: extent }),
    classes: extent,
    isGiven: v.boolean(),
  }),
  normalization: v.object({ scale: v.number(), shift: v.number() }),
  bits: v.record(v.string(), v.unknown()),
  totalSteps: v.number(),
});

export function runConfig(job: Job, { name, digest, shape, classes }: Dataset, isGiven: boolean): RunConfig {
  const { settings, model, bits, normalization, totalSteps } = job;
  return {
    settings: { ...settings, leaf: bits.leaf, ...(settings.data && { data: resolve(settings.data) }) },
    model: model.spec,
    dataset: { name, digest, shape, classes, isGiven },
    normalization,
    bits: { ...bits },
    totalSteps,
  };
}

/** A line of hashes.txt: 16 digits and a line end. */
export const HASH_LINE_BYTES = 17;

export function isRun(dir: string): boolean {
  return existsSync(join(dir, 'config.json'));
}

/** @throws LOCKSTEP_RUN_MISSING */
export function requireRun(dir: string): void {
  if (!isRun(dir)) throw missing(dir, 'there is no config.json in it');
}

/** Whether the run in the folder has done all its steps and kept its weights; damaged files do not say so. */
export function isFinished(dir: string): boolean {
  try {
    return readProgress(dir).isFinished;
  } catch {
    return false;
  }
}

/** How far a run has come, by what its folder keeps. */
export interface RunProgress {
  readonly isFinished: boolean;
  /** Steps whose hash is kept. */
  readonly step: number;
  /** After the last of them; null before the first. */
  readonly hash: string | null;
  /** Of the last evaluation; null before the first. */
  readonly testAccuracy: number | null;
  /** What the line `done` of a finished run says of its bits; of others null. */
  readonly end: RunEnd | null;
}

interface RunEnd {
  readonly hash: string;
  readonly weightsSha256: string;
}

/** Of lines, which hold more. */
const typeSchema = v.object({ type: v.string() });
const evaluationSchema = v.object({ testAccuracy: v.optional(v.number()) });
const endSchema = v.object({ hash: v.string(), weightsSha256: v.string() });

/** @throws LOCKSTEP_FILE_DAMAGED if metrics.jsonl or hashes.txt are not as a run writes them */
export function readProgress(dir: string): RunProgress {
  const [step, line] = withFile(dir, 'hashes.txt', (descriptor, size) => {
    // A process that was killed may have left half a line behind.
    const lines = Math.floor(size / HASH_LINE_BYTES);
    const at = Math.max(0, lines - 1) * HASH_LINE_BYTES;
    return [lines, readText(descriptor, at, lines * HASH_LINE_BYTES)] as const;
  });
  if (step > 0 && !/^[0-9a-f]{16}\n$/.test(line)) throw damaged(dir, 'hashes.txt', `line ${step} is no hash`);
  const [last, evaluated] = withFile(dir, 'metrics.jsonl', (descriptor, size) => {
    const lastLine = lastLineWith(descriptor, size, '');
    const isDone = lastLine?.startsWith('{"type":"done"');
    return [lastLine, isDone ? lastLine : lastLineWith(descriptor, size, '{"type":"epoch"')] as const;
  });
  const end =
    last !== undefined && parseMetric(dir, last, typeSchema).type === 'done'
      ? parseMetric(dir, last, endSchema)
      : null;
  return {
    isFinished: end !== null,
    step,
    hash: step > 0 ? line.trimEnd() : null,
    testAccuracy:
      (evaluated === undefined ? undefined : parseMetric(dir, evaluated, evaluationSchema).testAccuracy) ??
      null,
    end,
  };
}

function withFile<T>(dir: string, name: string, read: (descriptor: number, size: number) => T): T {
  let descriptor: number;
  try {
    descriptor = openSync(join(dir, name), 'r');
  } catch (error) {
    throw damaged(dir, name, messageOf(error));
  }
  try {
    return read(descriptor, fstatSync(descriptor).size);
  } finally {
    closeSync(descriptor);
  }
}

/** The last whole line that begins so; looked for from the end, since a long run's file exceeds what a string can hold. */
function lastLineWith(descriptor: number, size: number, beginning: string): string | undefined {
  const pieceBytes = 1_048_576;
  let later = '';
  for (let end = size; end > 0; end -= pieceBytes) {
    const from = Math.max(0, end - pieceBytes);
    // What stands behind the last line end is no whole line; what stands before the first may begin further up.
    const lines = (readText(descriptor, from, end) + later).split('\n');
    const whole = lines.slice(from === 0 ? 0 : 1, -1);
    const found = whole.findLast(line => line.startsWith(beginning));
    if (found !== undefined) return found;
    later = lines.length > 1 ? `${lines[0]}\n` : lines[0];
  }
  return undefined;
}

function readText(descriptor: number, from: number, end: number): string {
  const bytes = Buffer.alloc(end - from);
  const length = readSync(descriptor, bytes, 0, bytes.length, from);
  return bytes.toString('latin1', 0, length);
}

function parseMetric<T>(dir: string, line: string, schema: v.GenericSchema<unknown, T>): T {
  try {
    return v.parse(schema, JSON.parse(line));
  } catch {
    throw damaged(dir, 'metrics.jsonl', `it has the line ${JSON.stringify(line.slice(0, 60))}`);
  }
}

export function damaged(dir: string, name: string, why: string): LockstepError {
  return new LockstepError('LOCKSTEP_FILE_DAMAGED', `${join(dir, name)} cannot be used: ${why}.`);
}

/** @throws LOCKSTEP_RUN_MISSING if the folder holds no config of this version */
export function readRunConfig(dir: string): RunConfig {
  requireRun(dir);
  const parsed = v.safeParse(runConfigSchema, readJson(dir));
  if (parsed.success) return parsed.output;
  const [issue] = parsed.issues;
  throw missing(dir, `config.json is not of this version: ${v.getDotPath(issue) ?? 'it'}: ${issue.message}`);
}

function readJson(dir: string): unknown {
  try {
    return JSON.parse(readFileSync(join(dir, 'config.json'), 'utf8'));
  } catch (error) {
    throw missing(dir, `config.json cannot be read: ${messageOf(error)}`);
  }
}

export function missing(dir: string, why: string): LockstepError {
  return new LockstepError('LOCKSTEP_RUN_MISSING', `${resolve(dir)} holds no run: ${why}.`);
}

// What a run folder tells to those who only read it.

import { existsSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import * as v from 'valibot';
import { LockstepError, messageOf } from '../shared/errors.js';
import { modelSpecSchema, type ModelSpec } from '../shared/model.js';
import { trainSettingsSchema, type Job, type TrainSettings } from '../shared/settings.js';

/** `config.json`: every setting, apart from them exactly those that decide bits, and what the data looked like. */
export interface RunConfig {
  readonly settings: TrainSettings;
  readonly model: ModelSpec;
  readonly dataset: { readonly name: string; readonly digest: string; readonly isGiven: boolean };
  readonly bits: Readonly<Record<string, unknown>>;
  readonly totalSteps: number;
}

const runConfigSchema = v.object({
  settings: trainSettingsSchema,
  model: modelSpecSchema,
  dataset: v.object({ name: v.string(), digest: v.string(), isGiven: v.boolean() }),
  bits: v.record(v.string(), v.unknown()),
  totalSteps: v.number(),
});

/** `isGiven`: the data came as arrays, which no file of the run can bring back. */
export function runConfig(
  job: Job,
  datasetName: string,
  isGiven: boolean,
): RunConfig & Pick<Job, 'normalization'> {
  const { settings, model, bits, normalization, totalSteps } = job;
  return {
    settings: { ...settings, leaf: bits.leaf, ...(settings.data && { data: resolve(settings.data) }) },
    model: model.spec,
    dataset: { name: datasetName, digest: bits.datasetDigest, isGiven },
    bits: { ...bits },
    normalization,
    totalSteps,
  };
}

/** @throws LOCKSTEP_RUN_MISSING */
export function requireRun(dir: string): void {
  if (!existsSync(join(dir, 'config.json'))) throw missing(dir, 'there is no config.json in it');
}

/** Whether the run in the folder has done all its steps and kept its weights. */
export function isFinished(dir: string): boolean {
  return lastMetric(dir)?.type === 'done';
}

/** The last whole line of metrics.jsonl. */
export function lastMetric(dir: string): { readonly type: string; readonly step: number } | undefined {
  const lines = readFileSync(join(dir, 'metrics.jsonl'), 'utf8').split('\n');
  const last = lines.at(-2);
  return last === undefined ? undefined : JSON.parse(last);
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

function missing(dir: string, why: string): LockstepError {
  return new LockstepError('LOCKSTEP_RUN_MISSING', `${resolve(dir)} holds no run: ${why}.`);
}

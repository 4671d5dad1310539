// What a run folder keeps of a run, times and places aside: equal for equal runs. And ways to end and to spoil one.

import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { train, type TrainOptions } from '#dist/library/index.js';

export interface KeptRun {
  readonly metrics: readonly object[];
  readonly hashes: string;
  readonly weights: Buffer;
}

const different = new Set([
  'seconds',
  'timeMs',
  'startedAt',
  'imagesPerSecond',
  'threads',
  'workers',
  'runDir',
]);

/** An event or a line of metrics.jsonl without what differs between equal runs. */
export function withoutTimes(line: object): object {
  return Object.fromEntries(Object.entries(line).filter(([name]) => !different.has(name)));
}

export function keptIn(dir: string): KeptRun {
  const lines = readFileSync(join(dir, 'metrics.jsonl'), 'utf8').trimEnd().split('\n');
  return {
    metrics: lines.map(line => withoutTimes(JSON.parse(line))),
    hashes: readFileSync(join(dir, 'hashes.txt'), 'utf8'),
    weights: readFileSync(join(dir, 'weights.safetensors')),
  };
}

/** Changes one bit in the middle of a file. */
export function damage(file: string): void {
  const bytes = readFileSync(file);
  bytes[bytes.length >> 1] ^= 1;
  writeFileSync(file, bytes);
}

/** Trains until the checkpoint after `step`, and ends there as a signal would. */
export async function trainUntil(options: TrainOptions, step: number): Promise<void> {
  const training = train({ ...options, checkpointEvery: '1' });
  await assert.rejects(
    async () => {
      for await (const event of training) if (event.type === 'checkpoint' && event.step >= step) break;
      await training;
    },
    { code: 'LOCKSTEP_INTERRUPTED' },
  );
}

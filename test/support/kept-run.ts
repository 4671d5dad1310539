// What a run folder keeps of a finished run, times and places aside: equal for equal runs.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';

export interface KeptRun {
  readonly metrics: readonly object[];
  readonly hashes: string;
  readonly weights: Buffer;
}

const different = new Set(['seconds', 'timeMs', 'imagesPerSecond', 'threads', 'workers', 'runDir']);

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

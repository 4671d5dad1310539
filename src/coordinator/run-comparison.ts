// What a run folder holds, beside a run that is computed again: it takes the folder's place in the run loop, and compares
// what the loop would write with what is there. It changes nothing.

import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { LockstepError, messageOf } from '../shared/errors.js';
import { canonicalJson } from '../shared/hash.js';
import type { MetricLine } from '../shared/metrics.js';
import { reading } from './lines.js';
import { metricsIn, type Line } from './metrics-file.js';
import { CHECKPOINTS_DIR, stepOf, WEIGHTS_FILE } from './run-folder.js';
import type { RunRecord } from './run.js';
import { decodeSafetensors, tensorBytes } from './safetensors.js';
import { HASH_LINE_BYTES } from './stored-run.js';
import { listCheckpoints } from './stored-weights.js';

/** Something in a run folder that is not what the run gives when it is computed again. */
export interface Difference {
  /** Updates done. */
  readonly step: number;
  /** In the run folder. */
  readonly file: string;
  readonly what: string;
}

/** How far a run has come, and what its folder keeps of it. */
export interface KeptRun {
  readonly dir: string;
  /** Whether its last line is `done`. */
  readonly isFinished: boolean;
  /** The last step that a file tells of. */
  readonly lastStep: number;
  /** Their names, newest first. */
  readonly checkpoints: readonly string[];
  /** hashes.txt */
  readonly hashes: Buffer;
}

/** @throws LOCKSTEP_FILE_DAMAGED if hashes.txt or metrics.jsonl cannot be read */
export function readKeptRun(dir: string): KeptRun {
  // A run that is at work writes in the reverse order, so what is told of a step here is there.
  const checkpoints = listCheckpoints(dir);
  let last: Line | undefined;
  let lastStep = Math.max(0, ...checkpoints.map(stepOf));
  for (const line of metricsIn(dir)) {
    last = line;
    if (line.metric) lastStep = Math.max(lastStep, line.metric.step);
  }
  const hashes = reading(dir, 'hashes.txt', path => readFileSync(path));
  lastStep = Math.max(lastStep, Math.floor(hashes.length / HASH_LINE_BYTES));
  return { dir: resolve(dir), isFinished: last?.metric?.type === 'done', lastStep, checkpoints, hashes };
}

/** Line `step` of hashes.txt without its end; fewer than 16 characters where there is no such line. */
export function hashLine({ hashes }: KeptRun, step: number): string {
  const end = step * HASH_LINE_BYTES;
  return hashes.toString('latin1', end - HASH_LINE_BYTES, end).replace(/\n$/, '');
}

/** What is compared. */
export interface Extent {
  /** The state that is recomputed from is the one after so many steps, at most `from`. */
  readonly start: number;
  /** That state is the one of a checkpoint, and not the run's beginning. */
  readonly isFromCheckpoint: boolean;
  /** What belongs to steps from <= step <= to. */
  readonly from: number;
  readonly to: number;
  /** Of the whole run. */
  readonly totalSteps: number;
}

/** Of the run's files: what was compared, whether it was equal or not. */
export interface Compared {
  /** Lines of hashes.txt. */
  readonly hashes: number;
  /** Lines of metrics.jsonl. */
  readonly steps: number;
  readonly epochs: number;
  readonly done: boolean;
  /** Their names in the run folder. */
  readonly checkpoints: readonly string[];
  /** Whether weights.safetensors was. */
  readonly weights: boolean;
}

export class RunComparison implements RunRecord {
  readonly dir: string;
  readonly differences: Difference[] = [];
  readonly #kept: KeptRun;
  readonly #extent: Extent;
  readonly #checkpoints: readonly string[];
  /** Up to here a run that was killed has kept every line: they are synced before a checkpoint. */
  readonly #savedStep: number;
  readonly #lines: Generator<Line, undefined>;
  #next: Line | undefined;
  /** Whose hash was compared last. */
  #step: number;
  readonly #counts = { hashes: 0, step: 0, epoch: 0, done: 0, weights: 0 };
  readonly #checkpointsCompared: string[] = [];

  constructor(kept: KeptRun, extent: Extent) {
    this.dir = kept.dir;
    this.#kept = kept;
    this.#extent = extent;
    this.#checkpoints = kept.checkpoints.filter(
      name => stepOf(name) >= extent.from && !(extent.isFromCheckpoint && stepOf(name) === extent.start),
    );
    this.#savedStep = kept.checkpoints.length > 0 ? stepOf(kept.checkpoints[0]) : 0;
    this.#lines = metricsIn(kept.dir);
    this.#step = extent.start;
    do this.#advance();
    while (this.#next && !(this.#next.metric && this.#isMeant(this.#next.metric)));
  }

  get compared(): Compared {
    const { hashes, step: steps, epoch: epochs, done, weights } = this.#counts;
    const checkpoints = this.#checkpointsCompared;
    return { hashes, steps, epochs, done: done > 0, checkpoints, weights: weights > 0 };
  }

  /** Steps with a checkpoint that is to be compared, ascending. */
  get checkpointSteps(): readonly number[] {
    return this.#checkpoints.map(stepOf).toReversed();
  }

  /** Those of the first step that has some. */
  get firstDifferences(): readonly Difference[] {
    const first = Math.min(...this.differences.map(({ step }) => step));
    return this.differences.filter(({ step }) => step === first);
  }

  /** @throws if an earlier step differs, which ends the run loop: all of a step has been compared, nothing later counts */
  recordHashes(hashes: readonly string[]): void {
    if (this.firstDifferences.some(({ step }) => step <= this.#step))
      throw new Error('an earlier step differs');
    for (const hash of hashes) {
      const step = ++this.#step;
      if (step < this.#extent.from) continue;
      const line = hashLine(this.#kept, step);
      const isMissing = line.length < HASH_LINE_BYTES - 1;
      if (isMissing && !this.#mustHave(step <= this.#savedStep)) continue;
      this.#counts.hashes++;
      if (isMissing) this.#note(step, 'hashes.txt', `it has no line ${step}`);
      else if (line !== hash) {
        this.#note(step, 'hashes.txt', `line ${step} is ${JSON.stringify(line)}, and not "${hash}"`);
      }
    }
  }

  recordMetrics(lines: readonly MetricLine[]): void {
    for (const expected of lines) if (this.#isMeant(expected)) this.#compareLine(expected);
  }

  async saveCheckpoint(step: number, file: Uint8Array): Promise<string> {
    for (const name of this.#checkpoints.filter(held => stepOf(held) === step)) {
      const path = `${CHECKPOINTS_DIR}/${name}`;
      if (this.#compareFile(step, path, file)) this.#checkpointsCompared.push(path);
    }
    return CHECKPOINTS_DIR;
  }

  saveWeights(file: Uint8Array): void {
    const { to, totalSteps } = this.#extent;
    if (to < totalSteps) return;
    // Without the line of its end a run may hold the weights of an earlier end, to which steps were added.
    if (!this.#kept.isFinished && !this.#isOfEnd(file)) return;
    if (this.#compareFile(to, WEIGHTS_FILE, file)) this.#counts.weights++;
  }

  /** Looks at what lies behind the last step of the run. */
  end(): void {
    const { to, totalSteps } = this.#extent;
    if (to < totalSteps) return;
    const { lastStep, isFinished } = this.#kept;
    if (this.#next && isFinished) {
      this.#note(to, 'metrics.jsonl', `line ${this.#next.number} is ${describe(this.#next)}, behind the end`);
    }
    if (lastStep > totalSteps) {
      this.#note(
        to,
        'config.json',
        `the run has ${totalSteps} steps, and its files tell of step ${lastStep}`,
      );
    }
  }

  /** Ends the reading of files. */
  close(): void {
    this.#lines.return(undefined);
  }

  /** Whether the weights in the folder say that they are those of the end. */
  #isOfEnd(file: Uint8Array): boolean {
    try {
      const kept = decodeSafetensors(readFileSync(join(this.dir, WEIGHTS_FILE)), WEIGHTS_FILE);
      return kept.metadata.hash === decodeSafetensors(file, WEIGHTS_FILE).metadata.hash;
    } catch {
      return false;
    }
  }

  #mustHave(isSaved: boolean): boolean {
    return isSaved || this.#kept.isFinished;
  }

  /** A line that is to be compared, or what it says would be if it were. */
  #isMeant({ type, step }: MetricLine): boolean {
    const { start, from, to, totalSteps } = this.#extent;
    if (type === 'step') return step > start && step >= from;
    return step >= from && (type !== 'done' || to === totalSteps);
  }

  #compareLine(expected: MetricLine): void {
    const { type, step } = expected;
    const found = this.#next;
    // The evaluation comes after the checkpoint of its step.
    if (!found && !this.#mustHave(type === 'step' ? step <= this.#savedStep : step < this.#savedStep)) return;
    this.#counts[type]++;
    const note = (what: string): void => this.#note(step, 'metrics.jsonl', what);
    if (!found) return note(`it lacks ${describe({ metric: expected })}`);
    const { number, metric } = found;
    if (metric?.type !== type || metric.step !== step) {
      return note(`line ${number} is ${describe(found)}, and not ${describe({ metric: expected })}`);
    }
    this.#advance();
    const names = new Set([...Object.keys(expected), ...Object.keys(metric)]);
    for (const name of names) {
      if (type === 'done' && ofThisCall.has(name)) continue;
      const [is, should] = [metric[name], expected[name]].map(canonicalJson);
      if (is !== should) note(`line ${number} has the ${name} ${is}, and not ${should}`);
    }
  }

  /** False where it is not there: old checkpoints and the weights of a finished run may be removed. */
  #compareFile(step: number, name: string, expected: Uint8Array): boolean {
    let file: Uint8Array;
    try {
      file = readFileSync(join(this.dir, name));
    } catch (error) {
      if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return false;
      this.#note(step, name, `it cannot be read: ${messageOf(error)}`);
      return true;
    }
    for (const what of fileDifferences(file, expected)) this.#note(step, name, what);
    return true;
  }

  #advance(): void {
    this.#next = this.#lines.next().value;
  }

  #note(step: number, file: string, what: string): void {
    this.differences.push({ step, file, what });
  }
}

/** Of the line `done`: what is of one call, and not of the run. */
const ofThisCall = new Set(['imagesPerSecond', 'seconds', 'workers', 'threads', 'nodes', 'runDir']);

/** What a safetensors file has that another has not, tensors bit for bit. */
function fileDifferences(file: Uint8Array, expected: Uint8Array): string[] {
  const should = decodeSafetensors(expected, '');
  let is: typeof should;
  try {
    is = decodeSafetensors(file, 'it');
  } catch (error) {
    if (error instanceof LockstepError) return [error.message.replace(/\.$/, '')];
    throw error;
  }
  const keys = new Set([...Object.keys(should.metadata), ...Object.keys(is.metadata)]);
  const metadata = Array.from(keys)
    .filter(key => is.metadata[key] !== should.metadata[key])
    .map(key => `its ${key} is ${is.metadata[key]}, and not ${should.metadata[key]}`);
  const held = new Map(is.tensors.map(tensor => [tensor.name, tensor]));
  const tensors = should.tensors.flatMap(({ name, shape, values }) => {
    const tensor = held.get(name);
    if (!tensor) return [`it has no tensor ${name}`];
    if (tensor.shape.join() !== shape.join()) return [`its tensor ${name} is ${tensor.shape.join(' x ')}`];
    const count = differing(tensor.values, values);
    return count === 0 ? [] : [`${count} of the ${values.length} values of its tensor ${name} differ`];
  });
  const more = is.tensors.length - should.tensors.length;
  return [...metadata, ...tensors, ...(more > 0 ? [`it has ${more} tensors more`] : [])];
}

/** How many values have other bits. */
function differing(a: Float32Array, b: Float32Array): number {
  if (Buffer.compare(tensorBytes(a), tensorBytes(b)) === 0) return 0;
  const [x, y] = [a, b].map(({ buffer, byteOffset, length }) => new Uint32Array(buffer, byteOffset, length));
  return x.reduce((count, bits, i) => count + (bits === y[i] ? 0 : 1), 0);
}

function describe({ metric }: Pick<Line, 'metric'>): string {
  if (!metric) return 'no JSON object with a type and a step, as runs write them';
  return metric.type === 'done' ? 'the line done' : `the ${metric.type} line of step ${metric.step}`;
}

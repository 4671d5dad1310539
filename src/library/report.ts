// `report`: what a run's folder tells, as one HTML file; of several runs, beside each other.

import { closeSync, openSync, readSync, realpathSync } from 'node:fs';
import { join, resolve, sep } from 'node:path';
import * as v from 'valibot';
import { statsOf } from '../coordinator/disk.js';
import { readEpochs, readStepMeans } from '../coordinator/metrics-file.js';
import { readEvents } from '../coordinator/event-file.js';
import { readProgress, readRunConfig, type RunConfig } from '../coordinator/stored-run.js';
import { GENERATOR } from '../report/html.js';
import { openOutput, type Output } from '../report/output.js';
import type { ReportedRun, TestResult, WorstImage } from '../report/reported-run.js';
import type { Dataset } from '../shared/dataset.js';
import { LockstepError } from '../shared/errors.js';
import { flagOf } from '../shared/format.js';
import { compileModel } from '../shared/model.js';
import { parseSettings, path, workersSchema, type TrainSettings } from '../shared/settings.js';
import { softmax } from '../shared/softmax.js';
import { testFigures } from './evaluate.js';
import { sessionsOf, type RunSessions } from './run-sessions.js';
import { stateOf } from './runs.js';
import { checkCall, openRun, openRunData, type DataOptions } from './trained.js';

/** The test set is taken from these data; by default from each run's own. */
export interface ReportOptions extends DataOptions {
  /** The file; by default `report.html` in the folder of the first run. */
  readonly out?: string;
  /** Threads that evaluate the test set. */
  readonly workers?: TrainSettings['workers'];
}

export interface ReportResult {
  /** Of the file; absolute. */
  readonly path: string;
  readonly sizeBytes: number;
  readonly runs: readonly (Pick<ReportedRun, 'name' | 'runDir' | 'state' | 'step' | 'hash'> & {
    /** On the test set of the report, with the weights after `testStep` steps; null where it could not be evaluated. */
    readonly testAccuracy: number | null;
    readonly testStep: number | null;
  })[];
  readonly warnings: readonly string[];
}

/** So many lines a figure can tell apart. */
export const MOST_RUNS = 7;
/** Points of the curves over steps. */
const MOST_STEP_MEANS = 400;
/** Pictures of test images. */
const MOST_WORST = 24;

const runsExpected = `1 to ${MOST_RUNS} run folders`;
const runDirsSchema = v.object({
  runs: v.pipe(v.array(path), v.minLength(1, runsExpected), v.maxLength(MOST_RUNS, runsExpected)),
});

/**
 * Writes what the folders of runs tell as one HTML file that needs nothing beside it: curves, figures of the test set with
 * the newest weights, speed, and who did the work. An earlier report in its place is replaced. Where a test set cannot be
 * evaluated the report says so.
 * @throws LOCKSTEP_BAD_SETTING, among others if the file cannot be written or is something else than a report;
 * LOCKSTEP_RUN_MISSING; LOCKSTEP_FILE_DAMAGED if hashes.txt or metrics.jsonl are not as a run writes them
 */
export async function report(
  runDirs: string | readonly string[],
  options: ReportOptions = {},
): Promise<ReportResult> {
  const { runs: dirs } = parseSettings(runDirsSchema, { runs: [runDirs].flat() });
  checkCall({ out: v.optional(path), workers: v.optional(workersSchema) }, dirs[0], options);
  const { out, workers, ...dataOptions } = options;
  // They are read first: what is no run is told before anything is written.
  const configs = dirs.map(dir => readRunConfig(dir));
  const paths = dirs.map(dir => resolve(dir));
  refuseRepeated(paths);
  const names = namesOf(paths);
  const file = resolve(out ?? join(paths[0], 'report.html'));
  const output = openReport(file);
  try {
    const reported: ReportedRun[] = [];
    for (const [index, config] of configs.entries()) {
      const run = { name: names[index], dir: paths[index], config };
      reported.push(await gatherRun(run, dataOptions, workers));
    }
    // The plotting library is loaded for nothing else.
    const { reportPage } = await import('../report/run-report.js');
    const html = reportPage(reported);
    output.write(html);
    return {
      path: file,
      sizeBytes: Buffer.byteLength(html),
      runs: reported.map(({ name, runDir, state, step, hash, test }) => {
        const [testAccuracy, testStep] = typeof test === 'string' ? [null, null] : [test.accuracy, test.step];
        return { name, runDir, state, step, hash, testAccuracy, testStep };
      }),
      warnings: reported.flatMap(({ name, warnings }) =>
        warnings.map(warning => (reported.length > 1 ? `${name}: ${warning}` : warning)),
      ),
    };
  } catch (error) {
    output.discard();
    throw error;
  }
}

function refuseRepeated(dirs: readonly string[]): void {
  const paths = dirs.map(dir => realpathSync(dir));
  const repeated = paths.findIndex((one, index) => paths.indexOf(one) < index);
  if (repeated < 0) return;
  throw new LockstepError(
    'LOCKSTEP_BAD_SETTING',
    `Setting runs has the run ${dirs[repeated]} twice: name each once.`,
  );
}

/** The last parts of the paths, as many of each as no other path ends with. */
export function namesOf(dirs: readonly string[]): string[] {
  const partsOf = dirs.map(dir => dir.split(sep).filter(part => part !== ''));
  return partsOf.map((parts, index) => {
    const endsAlike = (count: number): boolean =>
      partsOf.some(
        (other, at) => at !== index && other.slice(-count).join(sep) === parts.slice(-count).join(sep),
      );
    let count = 1;
    while (count < parts.length && endsAlike(count)) count++;
    return parts.slice(-count).join('/');
  });
}

/** @throws LOCKSTEP_BAD_SETTING if there is something that is no report, or nothing can be written there */
function openReport(file: string): Output {
  const stats = statsOf(file);
  if (stats && !(stats.isFile() && (stats.size === 0 || isOwn(file)))) {
    throw new LockstepError(
      'LOCKSTEP_BAD_SETTING',
      `Setting out is '${file}', which is there already, is no report, and was left as it is: name another file.`,
    );
  }
  return openOutput(file, 'out');
}

/** What cannot be read is no report, as far as one can see. */
function isOwn(file: string): boolean {
  try {
    const descriptor = openSync(file, 'r');
    try {
      const bytes = Buffer.alloc(1000);
      return bytes.toString('latin1', 0, readSync(descriptor, bytes)).includes(GENERATOR);
    } finally {
      closeSync(descriptor);
    }
  } catch {
    return false;
  }
}

/** @throws what `report` does of a run */
export async function gatherRun(
  { name, dir, config }: { readonly name: string; readonly dir: string; readonly config: RunConfig },
  dataOptions: DataOptions,
  workers?: TrainSettings['workers'],
): Promise<ReportedRun> {
  const { settings, model: spec, bits, totalSteps } = config;
  const { name: dataset, digest, shape, classes } = config.dataset;
  const { parameterCount } = compileModel(spec, shape, classes);
  const { step, hash, end, isFinished } = readProgress(dir);
  const state = stateOf(dir, isFinished);
  const steps = readStepMeans(dir, step, MOST_STEP_MEANS);
  const epochs = readEpochs(dir);
  const history = readSessions(dir);
  const { test, warnings } = await testRun(dir, dataOptions, workers);
  const [firstEpoch] = epochs;
  return {
    name,
    runDir: dir,
    model: spec.name,
    parameters: parameterCount,
    dataset: { name: dataset, digest, shape, classes },
    settings: settingsOf(config),
    profile: String(bits['profile']),
    state,
    step,
    totalSteps,
    stepsPerEpoch:
      history.stepsPerEpoch ??
      firstEpoch?.step ??
      (settings.maxSteps === undefined ? totalSteps / settings.epochs : null),
    hash,
    weightsSha256: end?.weightsSha256 ?? null,
    steps,
    epochs,
    sessions: history.sessions,
    test,
    warnings: [...warnings, ...history.warnings],
  };
}

/** Nothing but the report needs the file of events, so it may be gone, or damaged. */
function readSessions(dir: string): RunSessions {
  try {
    return sessionsOf(readEvents(dir));
  } catch (error) {
    if (!(error instanceof LockstepError)) throw error;
    return { sessions: [], stepsPerEpoch: null, warnings: [error.message] };
  }
}

/** By flag, as they would be given; `out` is the run folder. */
function settingsOf({ settings, model: spec }: RunConfig): [name: string, value: string][] {
  return Object.entries(settings)
    .filter(([name, value]) => name !== 'out' && value !== undefined && value !== false)
    .map(([name, value]) => [flagOf(name), typeof value === 'object' ? spec.name : String(value)]);
}

interface Tested {
  readonly test: TestResult | string;
  readonly warnings: readonly string[];
}

/** Without its data, or before the first checkpoint, a run has a report all the same. */
async function testRun(
  dir: string,
  dataOptions: DataOptions,
  workers: TrainSettings['workers'] | undefined,
): Promise<Tested> {
  const isNamed = dataOptions.data !== undefined || dataOptions.dataset !== undefined;
  try {
    const run = openRun(dir);
    const dataset = openRunData(run, dataOptions);
    const { figures, ...found } = await testFigures(run, dataset, workers);
    const isOther = dataset.digest !== run.config.dataset.digest;
    if (isOther && isNamed) {
      run.warnings.push(`The test set is that of ${dataset.name}, other data than the run was trained on.`);
    }
    const worst = worstImages(dataset, found);
    return { test: { ...figures, step: run.source.step, worst }, warnings: run.warnings };
  } catch (error) {
    // What the caller got wrong is told, in the data that were named too.
    const isMistake =
      error instanceof LockstepError &&
      (error.code === 'LOCKSTEP_BAD_SETTING' || (isNamed && error.code.startsWith('LOCKSTEP_DATA')));
    if (!(error instanceof LockstepError) || isMistake) throw error;
    return { test: error.message, warnings: [`The test set is not evaluated. ${error.message}`] };
  }
}

/** Those with the largest loss, the largest first; of equal ones the first first. */
function worstImages(
  { classes, shape, test }: Dataset,
  { logits, predicted }: { readonly logits: Float32Array; readonly predicted: Uint8Array },
): WorstImage[] {
  const logitsOf = (index: number): Float32Array => logits.subarray(index * classes, (index + 1) * classes);
  const losses = Float64Array.from(test.labels, (label, index) => crossEntropy(logitsOf(index), label));
  const indices = Array.from(losses.keys()).toSorted((a, b) => losses[b] - losses[a] || a - b);
  const sizeBytes = shape.height * shape.width * shape.channels;
  return indices.slice(0, MOST_WORST).map(index => {
    const label = test.labels[index];
    const probabilities = softmax(logitsOf(index));
    return {
      index,
      label,
      predicted: predicted[index],
      ofLabel: probabilities[label],
      ofPredicted: probabilities[predicted[index]],
      loss: losses[index],
      pixels: test.images.slice(index * sizeBytes, (index + 1) * sizeBytes),
    };
  });
}

/** In nats, finite where the probability of the label is too small for a number. */
function crossEntropy(logits: Float32Array, label: number): number {
  const most = logits.reduce((a, b) => Math.max(a, b));
  const sum = logits.reduce((total, logit) => total + Math.exp(logit - most), 0);
  return most + Math.log(sum) - logits[label];
}

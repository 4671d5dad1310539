// `train`: puts the parts together. Everything the command line does is this call.

import { availableParallelism } from 'node:os';
import { resolve } from 'node:path';
import {
  beginning,
  checkpointBytes,
  initialWeightsFile,
  type TrainingState,
} from '../coordinator/checkpoint.js';
import { openData } from '../coordinator/data.js';
import { loadModel } from '../coordinator/model-file.js';
import { run, type RunOutcome } from '../coordinator/run.js';
import { RunFolder } from '../coordinator/run-folder.js';
import type { TensorValues } from '../coordinator/safetensors.js';
import { isFinished, readRunConfig, runConfig } from '../coordinator/stored-run.js';
import { initialWeightsIn } from '../coordinator/stored-weights.js';
import { systemClock, wallClockTime } from '../shared/clock.js';
import { emptyClasses, type Dataset, type DatasetContent } from '../shared/dataset.js';
import { LockstepError, messageOf } from '../shared/errors.js';
import type { RunEvent, RunEventBody } from '../shared/events.js';
import { parseFault, type Fault } from '../shared/faults.js';
import { plural } from '../shared/format.js';
import {
  listenFlags,
  privateListening,
  resolveListening,
  type Listening,
  type ListenSettings,
} from '../shared/listen.js';
import { compileModel, layersModelOf, type ModelSpec } from '../shared/model.js';
import type { LocalNode } from '../shared/node.js';
import { checkResume } from '../shared/resume.js';
import {
  createJob,
  defaults,
  resolveSettings,
  resumedSettings,
  type Job,
  type TrainSettings,
} from '../shared/settings.js';
import { profileOf } from '../worker/engines/engine.js';
import { createPool } from '../worker/pool.js';
import type { OpenCluster, OwnProcesses } from './listening.js';
import type { ProcessPlan } from './tensorflow.js';
import { startTraining, type Training, type Weights } from './training.js';

/** Those of `ListenSettings` belong to the call and not to the run: with `resume` they are given again. */
export interface TrainOptions extends Partial<TrainSettings>, ListenSettings {
  /** Images and labels as arrays, in the place of MNIST. */
  readonly dataset?: DatasetContent;
  /** The folder of a run to go on with. Settings that are not named are those that it was begun with. */
  readonly resume?: string | undefined;
  /** Ends the run at the next step boundary, saved; the promise then rejects with LOCKSTEP_INTERRUPTED. */
  readonly signal?: AbortSignal | undefined;
  /** A fault to inject, in the form of `docs/faults.md`. */
  readonly inject?: string | undefined;
}

/**
 * Trains a model with worker threads of this process, and with remote nodes where it listens for them, and keeps the
 * result in a run folder. Prints nothing.
 * @throws LockstepError with a code of `docs/errors.md`, after an event that says the same
 */
export function train(options: TrainOptions = {}): Training {
  const { signal: callerSignal, ...rest } = options;
  return startTraining(async (tell, signal) => {
    const startMs = systemClock.nowMs();
    const startedAt = wallClockTime();
    let folder: RunFolder | undefined;
    let lastStep = 0;
    const emit = (body: RunEventBody, step = lastStep): void => {
      lastStep = step;
      const event: RunEvent = { ...body, step, timeMs: systemClock.nowMs() - startMs };
      folder?.recordEvent(event);
      tell(event);
    };
    try {
      const task = takeUp(rest);
      ({ folder } = task.begun);
      const { result, weights } = await trainTask(task, { startMs, startedAt, emit, signal });
      emit({ type: 'done', ...result }, result.steps);
      return { ...result, weights: namedWeights(weights) };
    } catch (error) {
      const code = error instanceof LockstepError ? error.code : 'LOCKSTEP_INTERNAL';
      if (code !== 'LOCKSTEP_INTERRUPTED') emit({ type: 'error', code, message: messageOf(error) });
      throw error;
    } finally {
      // Behind the last event, which it keeps, and before the promise settles: then the folder is free.
      folder?.close();
    }
  }, callerSignal);
}

function namedWeights(tensors: readonly TensorValues[]): Weights {
  return Object.fromEntries(tensors.map(({ name, shape, values }) => [name, { shape, values }]));
}

interface Watcher {
  readonly startMs: number;
  readonly startedAt: string;
  readonly signal: AbortSignal;
  readonly emit: (event: RunEventBody, step?: number) => void;
}

/** What is to be done, checked; its folder is open. */
interface Task {
  readonly begun: Begun;
  readonly chosen: Chosen;
  /** How it was to listen. */
  readonly given: ListenSettings;
  readonly fault: Fault | undefined;
  readonly isResumed: boolean;
  /** What was wrong with checkpoints, a sentence each. */
  readonly damaged: readonly string[];
}

function takeUp({ inject, resume, dataset: content, ...options }: Omit<TrainOptions, 'signal'>): Task {
  const fault = inject === undefined ? undefined : parseFault(inject);
  if (resume !== undefined && typeof resume !== 'string') {
    throw new LockstepError('LOCKSTEP_BAD_SETTING', `Setting resume is ${String(resume)}, expected a path.`);
  }
  const { listen, advertise, minNodes, patience, keyFile, joinFile, insecure, audit, ...settings } = options;
  const given = { listen, advertise, minNodes, patience, keyFile, joinFile, insecure, audit };
  const chosen = { settings, content, listening: resolveListening(given) };
  const damaged: string[] = [];
  const begun = resume === undefined ? begin(chosen) : goOn(resume, chosen, message => damaged.push(message));
  return { begun, chosen, given, fault, isResumed: resume !== undefined, damaged };
}

async function trainTask(task: Task, watcher: Watcher): Promise<RunOutcome> {
  const { begun, chosen, given, isResumed } = task;
  const { emit } = watcher;
  const { listening } = chosen;
  const { folder, job } = begun;
  // Where nobody is left to compute, the run ends as if it were interrupted, with this reason.
  const giveUp = new AbortController();
  const signal = AbortSignal.any([watcher.signal, giveUp.signal]);
  let own: LocalNode;
  let open: OpenCluster | undefined;
  try {
    const isMixed = job.settings.mixed === true;
    if (isMixed && given.audit !== undefined && given.audit > 0) {
      throw new LockstepError(
        'LOCKSTEP_BAD_SETTING',
        'Setting audit compares the sums of nodes, which differ where arithmetics are mixed: leave out mixed or audit.',
      );
    }
    const plans = await plansOf(job);
    own = await startNode(task, watcher, plans);
    const door = listening ?? (plans.length > 0 ? privateListening() : undefined);
    if (door) {
      // Runs that do not listen start without the network.
      const { openCluster } = await import('./listening.js');
      const onGiveUp = (error: LockstepError): void => giveUp.abort(error);
      const clock = systemClock;
      open = await openCluster({
        ...begun,
        listening: isMixed ? { ...door, audit: 0 } : door,
        isMixed,
        runDir: folder.dir,
        isResumed,
        own,
        clock,
        signal,
        emit,
        onGiveUp,
        processes: ownProcesses(plans, emit),
      });
    }
    const { reason } = giveUp.signal;
    // What no process can compute is no run to go on with.
    if (!isResumed && open && reason instanceof LockstepError && reason.code !== 'LOCKSTEP_NO_NODES') {
      await open.close(false);
      throw reason;
    }
  } catch (error) {
    if (!isResumed) folder.abandon();
    throw error;
  }
  let isDone = false;
  try {
    const cluster = open?.cluster;
    const node = cluster ?? own;
    const resumeFlags = open && listening && listenFlags(given, listening, open.port);
    const { result, weights } = await run({
      ...begun,
      node,
      clock: systemClock,
      ...watcher,
      signal,
      resumeFlags,
      nodeReports: cluster && (() => cluster.nodeReports()),
    });
    isDone = true;
    const nodes = cluster && { nodes: cluster.nodeReports() };
    return { result: { ...result, ...nodes }, weights };
  } finally {
    await (open ? open.close(isDone) : own.close());
  }
}

/** Of the engine `tensorflow` alone. @throws LOCKSTEP_NO_TENSORFLOW, LOCKSTEP_NO_GPU */
async function plansOf({ settings, lanes }: Job): Promise<ProcessPlan[]> {
  const { engine, devices, workers } = settings;
  if (engine !== 'tensorflow' || workers === 0) return [];
  const { planProcesses } = await import('./tensorflow.js');
  return planProcesses({ devices, workers, most: lanes });
}

function ownProcesses(plans: readonly ProcessPlan[], emit: Watcher['emit']): OwnProcesses | undefined {
  if (plans.length === 0) return undefined;
  return {
    count: plans.length,
    profile: plans[0].place.profile,
    async run(joinLine, signal) {
      const { runProcesses } = await import('./processes.js');
      return runProcesses({
        plans,
        joinLine,
        prefix: '',
        cacheDir: undefined,
        // Shards are fetched again over loopback in no time, and a copy of the data belongs to nobody's home.
        cacheBytes: 0,
        retryMs: undefined,
        clock: systemClock,
        signal,
        onWarning: message => emit({ type: 'warning', message }),
      });
    },
  };
}

/** Says what is to be done, and starts the threads that will do it. */
async function startNode(
  { begun, chosen, fault, damaged }: Task,
  { startedAt, emit }: Watcher,
  plans: readonly ProcessPlan[],
): Promise<LocalNode> {
  const { job, dataset, folder, from } = begun;
  const cores = availableParallelism();
  const isElsewhere = job.settings.engine === 'tensorflow';
  const workers = job.settings.workers === 'auto' ? cores : job.settings.workers;
  const threads = isElsewhere ? 0 : workers;
  const computing = isElsewhere ? plans.length : threads;
  folder.checkSpace(checkpointBytes(job));
  emit({ type: 'start', startedAt, ...describeStart(begun, computing) }, from.step);
  for (const message of [...damaged, ...warnings(chosen.settings, begun, { threads, computing }, fault)]) {
    emit({ type: 'warning', message });
  }
  return createPool({
    job,
    dataset,
    threads,
    cores,
    state: from,
    clock: systemClock,
    fault,
    onWarning: message => emit({ type: 'warning', message }),
    onThreadLost: ({ step, ...lost }) => emit({ type: 'thread-lost', ...lost }, step),
  });
}

interface Begun {
  readonly job: Job;
  readonly dataset: Dataset;
  readonly folder: RunFolder;
  readonly from: TrainingState;
}

interface Chosen {
  readonly settings: Partial<TrainSettings>;
  readonly content: DatasetContent | undefined;
  readonly listening: Listening | undefined;
}

function begin({ settings: chosen, content, listening }: Chosen): Begun {
  const settings = resolveSettings(chosen);
  requireComputing(settings, listening);
  const dataset = openData(settings, content);
  const { spec, readWeights } = loadModel(settings.model, dataset.classes);
  const job = jobOf(settings, spec, dataset, settings.init ? undefined : readWeights?.());
  const from = beginning(job);
  const config = runConfig(job, dataset, content !== undefined);
  const folder = RunFolder.create(settings.out, job.model.spec.name, config, initialWeightsFile(job));
  return { job, dataset, folder, from };
}

function goOn(
  dir: string,
  { settings: chosen, content, listening }: Chosen,
  onDamaged: (message: string) => void,
): Begun {
  if (chosen.out !== undefined && resolve(chosen.out) !== resolve(dir)) {
    throw new LockstepError('LOCKSTEP_RESUME_SETTING', 'A resumed run stays in its folder: leave out away.');
  }
  const folder = RunFolder.reopen(dir);
  try {
    const stored = readRunConfig(dir);
    if (stored.dataset.isGiven && content === undefined && chosen.data === undefined) {
      throw new LockstepError(
        'LOCKSTEP_RESUME_SETTING',
        `The run ${folder.dir} was begun with arrays as its dataset (${stored.dataset.name}): hand them over again.`,
      );
    }
    // Arrays take the place of the folder that the run was begun with.
    const begunWith =
      content === undefined
        ? stored.settings
        : { ...stored.settings, data: undefined, labelOffset: defaults.labelOffset };
    const settings = resumedSettings(begunWith, chosen);
    requireComputing(settings, listening);
    const dataset = openData(settings, content);
    const { spec, readWeights } =
      chosen.model === undefined
        ? { spec: stored.model, readWeights: initialWeightsIn(dir, stored) }
        : loadModel(settings.model, dataset.classes);
    const job = jobOf(settings, spec, dataset, settings.init ? undefined : readWeights?.());
    checkResume(stored, chosen, job);
    if (isFinished(dir) && job.totalSteps <= stored.totalSteps) {
      throw new LockstepError(
        'LOCKSTEP_RUN_FINISHED',
        `The run ${folder.dir} has done its ${stored.totalSteps} steps. More can be added with ${limitsOf(job)} ` +
          'where the learning rate does not depend on their number (--lr-schedule constant).',
      );
    }
    const from = folder.restore(job, onDamaged);
    folder.writeConfig(runConfig(job, dataset, content !== undefined));
    return { job, dataset, folder, from };
  } catch (error) {
    folder.close();
    throw error;
  }
}

function requireComputing({ workers }: TrainSettings, listening: Listening | undefined): void {
  if (workers !== 0 || listening) return;
  throw new LockstepError(
    'LOCKSTEP_BAD_SETTING',
    'Setting workers is 0, and nobody listens for remote nodes that could compute: set listen, or more workers.',
  );
}

/** The flags that say how many steps a run has. */
function limitsOf({ settings, stepsPerEpoch, totalSteps }: Job): string {
  const flags = [
    ...(settings.epochs * stepsPerEpoch === totalSteps ? ['--epochs'] : []),
    ...(settings.maxSteps === totalSteps ? ['--max-steps'] : []),
  ];
  return flags.join(' and ');
}

function jobOf(
  settings: TrainSettings,
  spec: ModelSpec,
  dataset: Dataset,
  fileWeights: Float32Array | undefined,
): Job {
  const model = compileModel(spec, dataset.shape, dataset.classes);
  return createJob(settings, model, dataset, profileOf(settings.engine), fileWeights);
}

function describeStart({ job, dataset, folder, from }: Begun, workers: number) {
  const { settings, model, bits, lanes, stepsPerEpoch, totalSteps } = job;
  return {
    model: model.spec.name,
    parameters: model.parameterCount,
    dataset: dataset.name,
    trainSamples: dataset.train.labels.length,
    testSamples: dataset.test.labels.length,
    epochs: Math.ceil(totalSteps / stepsPerEpoch),
    totalSteps,
    stepsPerEpoch,
    batch: bits.batch,
    leaf: bits.leaf,
    lanes,
    workers,
    engine: settings.engine,
    profile: bits.profile,
    seed: settings.seed,
    runDir: folder.dir,
    resumedStep: from.step,
  };
}

function warnings(
  chosen: Partial<TrainSettings>,
  { job, dataset }: Begun,
  { threads, computing }: { readonly threads: number; readonly computing: number },
  fault: Fault | undefined,
): string[] {
  const { lanes, settings } = job;
  const found: string[] = [];
  const empty = emptyClasses(dataset);
  if (empty.length > 0) {
    found.push(
      `${plural(empty.length, 'class', 'classes')} of ${dataset.classes} have no training images ` +
        `(${empty.slice(0, 10).join(', ')}${empty.length > 10 ? ', ...' : ''}): is a label wrong?`,
    );
  }
  for (const name of ['momentum', 'nesterov'] as const) {
    if (chosen[name] !== undefined && settings.optimizer !== 'sgd') {
      found.push(`The setting ${name} is of the optimizer sgd; it has no effect with ${settings.optimizer}.`);
    }
  }
  if (settings.mixed) {
    found.push('Nodes of any arithmetic may compute (--mixed): nobody can reproduce the bits of this run.');
  }
  if (chosen.init && !layersModelOf(job.model.spec)) {
    found.push(
      'The setting init is for models that bring their weights; this one begins from the seed anyway.',
    );
  }
  if (lanes < computing) {
    found.push(
      `${computing} workers share ${plural(lanes, 'lane')}, so ${computing - lanes} of them have no leaves to compute: ` +
        'a larger batch or a smaller leaf gives more lanes (and other bits).',
    );
  }
  if (fault && threads === 0) found.push('There is a fault to inject, and no thread here that could fail.');
  else if (typeof fault?.thread === 'number' && fault.thread >= threads) {
    found.push(`The fault to inject names thread ${fault.thread}; there are threads 0 to ${threads - 1}.`);
  }
  return found;
}

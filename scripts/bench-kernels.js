// Times every kernel on real digits with trained weights, beside what this machine's registers can do; then a step of
// one thread beside the same leaves run back to back. `npm run bench:kernels -- --help` lists the options.

import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { loadMnist } from '../dist/coordinator/mnist.js';
import { loadModelSpec } from '../dist/coordinator/model-file.js';
import { planSpan } from '../dist/coordinator/run.js';
import { steadySettings } from '../dist/library/bench.js';
import { train } from '../dist/library/index.js';
import { systemClock } from '../dist/shared/clock.js';
import { gradientBound, lossBound } from '../dist/shared/exact-sum.js';
import { percent } from '../dist/shared/format.js';
import { BLOCK_PARAMETERS, blockCount } from '../dist/shared/hash.js';
import { compileModel } from '../dist/shared/model.js';
import { initialBetaPowers } from '../dist/shared/optimizer.js';
import { presetNames } from '../dist/shared/presets.js';
import { Schedule } from '../dist/shared/schedule.js';
import { createJob, defaults } from '../dist/shared/settings.js';
import { F32_PROFILE } from '../dist/worker/engines/engine.js';
import { createWasmEngine } from '../dist/worker/engines/wasm.js';
import { instantiateKernels, loadKernelModule } from '../dist/worker/kernels.js';
import { createMemory, planMemory, STEP_NUMBERS, viewMemory } from '../dist/worker/memory.js';
import { createPool, loadDataset } from '../dist/worker/pool.js';
import { median, note, runBenchmark, table, wholeNumber } from './benchmark.js';
import { compile } from './build-kernels.js';

const usage = `npm run bench:kernels -- [flags]

  --models       lenet5,mlp: ${presetNames.join(', ')}, or files that end with .json
  --batch        ${defaults.batch}
  --leaf         that of the batch
  --images       12000: so many for each figure of a repetition
  --repetitions  5
  --json         print one JSON object`;

/** What a parameter costs in an update, in multiply-adds; beside them are a root and a division in Adam's. */
const updateMultiplyAdds = { updateSgd: 3, updateAdam: 5 };

const onceAStep = new Set(['reduce', 'updateSgd', 'updateAdam', 'digestBlocks', 'chainHash']);

/** Read when the flags have been checked. */
let dataset;

await runBenchmark({
  command: 'bench:kernels',
  usage,
  options: {
    models: { type: 'string', default: 'lenet5,mlp' },
    batch: { type: 'string', default: String(defaults.batch) },
    leaf: { type: 'string' },
    images: { type: 'string', default: '12000' },
    repetitions: { type: 'string', default: '5' },
    json: { type: 'boolean', default: false },
  },
  body: benchmark,
});

async function benchmark(flags) {
  const names = flags.models.split(',').map(name => name.trim());
  const images = wholeNumber('images', flags.images, 1);
  const repetitions = wholeNumber('repetitions', flags.repetitions, 1);
  const batch = wholeNumber('batch', flags.batch, 1);
  const leaf = flags.leaf === undefined ? undefined : wholeNumber('leaf', flags.leaf, 1);
  const chosen = names.map(model => steadySettings({ model, batch, leaf }));
  dataset = loadMnist();
  for (const name of names) loadModelSpec(name, dataset.classes);
  const multiplyAddsPerSecond = await measurePeak(repetitions);
  const reports = [];
  for (const settings of chosen) {
    const report = await measureModel(settings, { images, repetitions, multiplyAddsPerSecond });
    reports.push(report);
    if (!flags.json) print(report, multiplyAddsPerSecond);
  }
  if (flags.json) console.log(JSON.stringify({ multiplyAddsPerSecond, models: reports }));
}

async function measurePeak(repetitions) {
  const path = join(dirname(fileURLToPath(import.meta.url)), '..', 'bench', 'peak.ts');
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true });
  const { instance } = await WebAssembly.instantiate(await compile(path), { env: { memory } });
  const { peak, multiplyAddsPerIteration } = instance.exports;
  const iterations = 5_000_000;
  const rates = [];
  for (let i = 0; i < repetitions + 1; i++) {
    const ms = timed(() => peak(iterations));
    if (i > 0) rates.push((iterations * multiplyAddsPerIteration.value) / (ms / 1000));
  }
  return median(rates);
}

function timed(work) {
  const startMs = systemClock.nowMs();
  work();
  return systemClock.nowMs() - startMs;
}

async function measureModel(settings, { images, repetitions, multiplyAddsPerSecond }) {
  const { model: name, batch } = settings;
  const model = compileModel(loadModelSpec(name, dataset.classes), dataset.shape, dataset.classes);
  const job = createJob(settings, model, dataset, F32_PROFILE);
  const bench = createBench(job, await trainedWeights(name));
  const runs = [];
  const whole = [];
  for (let i = 0; i < repetitions + 1; i++) {
    whole.push(await bench.leaves(bench.kernels, images));
    runs.push(await bench.timedSteps(images));
  }
  const figures = (part, multiplyAddsOf) =>
    Object.keys(runs[0][part]).map(kernel => {
      const microseconds = median(runs.slice(1).map(run => run[part][kernel]));
      const multiplyAdds = multiplyAddsOf(kernel);
      const share = multiplyAdds && multiplyAdds / (microseconds * 1e-6) / multiplyAddsPerSecond;
      return { kernel, microseconds, multiplyAdds, share };
    });
  return {
    model: name,
    batch,
    leaf: job.bits.leaf,
    leavesMicrosecondsAnImage: median(whole.slice(1)),
    /** Microseconds an image. */
    kernels: figures('anImage', kernel => denseMultiplyAdds(model, kernel)),
    /** Microseconds a step. */
    stepKernels: figures(
      'aStep',
      kernel => updateMultiplyAdds[kernel] && updateMultiplyAdds[kernel] * model.parameterCount,
    ),
    step: await measureStep(job, bench, repetitions),
  };
}

/** Weights after an epoch: how many gradients and activations are zero depends on them. */
async function trainedWeights(name) {
  const dir = mkdtempSync(join(tmpdir(), 'lockstep-bench-'));
  try {
    await train({ model: name, epochs: 1, out: join(dir, 'run') });
    const file = readFileSync(join(dir, 'run', 'weights.safetensors'));
    const header = Number(file.readBigUInt64LE(0));
    return new Float32Array(file.buffer.slice(file.byteOffset + 8 + header, file.byteOffset + file.length));
  } finally {
    rmSync(dir, { recursive: true });
  }
}

/** Multiply-adds for an image as if nothing were skipped, for the kernels that do them. */
function denseMultiplyAdds(model, kernel) {
  const [name, ofLayer] = kernel.split(' ');
  const layer = model.layers.find(other => other.name === ofLayer);
  if (!layer || !/Forward|Backward/.test(name) || /relu|pool|dropout/i.test(name)) return undefined;
  const weights = layer.parameters.kernel.size;
  const positions = layer.spec.type === 'conv2d' ? layer.output.height * layer.output.width : 1;
  const isBoth = name === 'conv2dBackward' && layer !== model.layers.find(({ parameters }) => parameters);
  return weights * positions * (isBoth ? 2 : 1);
}

/** An engine on a memory of its own, and its leaves run back to back. */
function createBench(job, weightsGiven) {
  const { model, normalization, bits } = job;
  const samples = { train: dataset.train.labels.length, test: dataset.test.labels.length };
  const plan = { model, threads: 1, leaf: bits.leaf, samples };
  const layout = planMemory(plan);
  const memory = createMemory(layout);
  const views = viewMemory(memory, layout, plan);
  loadDataset(dataset, views.sets);
  const { weights } = views.banks[0];
  const { gradient } = views.threads[0];
  weights.subarray(0, model.parameterCount).set(weightsGiven);
  const engineJob = {
    model,
    normalization,
    sets: views.sets,
    seed: bits.seed,
    leaf: bits.leaf,
    lossBound: lossBound(samples.train),
  };
  const kernels = instantiateKernels(loadKernelModule(), memory);
  const schedule = new Schedule({
    samples: samples.train,
    seed: bits.seed,
    batch: bits.batch,
    leaf: bits.leaf,
  });
  const bound = gradientBound(schedule.lanes);

  /** Microseconds an image: the leaves of the schedule's first steps, each added to the sum. */
  async function leaves(used, count, onStep = () => {}, onEnd = () => {}) {
    const engine = createWasmEngine(engineJob, used, memory, layout.threads[0].scratch, () => {});
    await engine.useWeights(weights);
    let done = 0;
    const startMs = systemClock.nowMs();
    for (let step = 0; done < count; step++) {
      for (let lane = 0; lane < schedule.lanes; lane++) {
        const positions = schedule.leafPositions(step % schedule.stepsPerEpoch, lane);
        if (positions.length === 0) continue;
        await engine.gradient({ step, lane, positions }, gradient);
        used.addLeaf(gradient.byteOffset, layout.parts, model.paddedCount, bound, lane === 0 ? 1 : 0);
        done += positions.length;
      }
      onStep(step);
    }
    onEnd(done);
    return ((systemClock.nowMs() - startMs) * 1000) / done;
  }

  /** What follows a step's leaves on one thread, with both optimizers; writes the other bank, which nobody reads. */
  function finishStep(used, step) {
    const { sums, sources, digests, steps, banks } = layout;
    const [from, to] = banks;
    const blocks = blockCount(model.parameterCount);
    const end = blocks * BLOCK_PARAMETERS;
    views.sources[0] = schedule.lanes > 1 ? layout.parts : 0;
    views.sources[1] = gradient.byteOffset;
    used.reduce(sums, sources, 1, 0, end, bound);
    const inverse = 1 / bits.batch;
    const { weights: w0, first: m0, second: v0 } = from;
    const { weights: w1, first: m1, second: v1 } = to;
    used.updateSgd(w0, m0, w1, m1, sums, 0, end, inverse, 0.01, 0.9, 0, 0);
    used.updateAdam(
      w0,
      m0,
      v0,
      w1,
      m1,
      v1,
      sums,
      0,
      end,
      inverse,
      0.001,
      0.9,
      0.1,
      0.999,
      0.001,
      1e-8,
      1,
      0,
      1,
    );
    used.digestBlocks(w1, digests, 0, blocks);
    used.chainHash(steps, steps + STEP_NUMBERS * 8, step + 1, digests, blocks);
  }

  /**
   * The same with a clock around every call, and the rest of each step; calls are told apart by the layer whose
   * parameters they are given.
   */
  async function timedSteps(count) {
    const totals = new Map();
    const named = new Map();
    for (const { name, parameters } of model.layers) {
      if (!parameters) continue;
      for (const base of [weights.byteOffset, gradient.byteOffset]) {
        named.set(base + parameters.kernel.offset * 4, name);
        named.set(base + parameters.bias.offset * 4, name);
      }
    }
    const layersOf = layerNames(model);
    const used = Object.fromEntries(
      Object.entries(kernels).map(([kernel, call]) => [
        kernel,
        (...args) => {
          const startMs = systemClock.nowMs();
          const result = call(...args);
          const ms = systemClock.nowMs() - startMs;
          const isOfLayer = /dense|conv2d|shift/i.test(kernel);
          const of =
            isOfLayer && (args.map(argument => named.get(argument)).find(Boolean) ?? layersOf(kernel, args));
          const key = of ? `${kernel} ${of}` : kernel;
          totals.set(key, (totals.get(key) ?? 0) + ms);
          return result;
        },
      ]),
    );
    let images = 0;
    let steps = 0;
    const onStep = step => {
      steps++;
      finishStep(used, step);
    };
    await leaves(used, count, onStep, done => (images = done));
    const over = (units, isWanted) =>
      Object.fromEntries(
        [...totals].filter(([key]) => isWanted(key)).map(([key, ms]) => [key, (ms * 1000) / units]),
      );
    return {
      anImage: over(images, key => !onceAStep.has(key)),
      aStep: over(steps, key => onceAStep.has(key)),
    };
  }

  return { leaves, timedSteps, kernels, weights };
}

/** The layer of a call that gets no parameters of the flat vector: by the sizes among its arguments. */
function layerNames(model) {
  const trained = model.layers.filter(({ parameters }) => parameters);
  return (kernel, args) => {
    if (kernel === 'imageConv2dForward') return trained[0].name;
    if (kernel === 'winogradConv2dForward') {
      const [channels, filters] = args.slice(9, 11);
      return trained.find(({ parameters }) => `${parameters.kernel.shape}` === `5,5,${channels},${filters}`)
        ?.name;
    }
    if (kernel !== 'denseBackwardInputs') return undefined;
    const [inputs, outputs] = args.slice(4, 6);
    return trained.find(({ parameters }) => {
      const { shape } = parameters.kernel;
      return shape.length === 2 && shape[0] === inputs && shape[1] === outputs;
    })?.name;
  };
}

/** A step of one thread beside its leaves back to back, with the weights of the moment, in turns. */
async function measureStep(job, bench, repetitions) {
  const { bits } = job;
  const node = await createPool({
    job,
    dataset,
    threads: 1,
    cores: 1,
    clock: systemClock,
    onThreadLost: ({ reason }) => note(`thread lost: ${reason}`),
    onWarning: note,
  });
  try {
    const spanSteps = Math.min(node.spanLimit, Math.ceil(20_000 / bits.batch));
    const ratios = [];
    const stepTimes = [];
    let powers = initialBetaPowers;
    let step = 0;
    for (let i = 0; i < repetitions + 2; i++) {
      const { scalars, ...behind } = planSpan(job, step, step + spanSteps, powers);
      powers = behind.powers.at(-1);
      const startMs = systemClock.nowMs();
      await node.train(step, scalars);
      const stepMicroseconds = ((systemClock.nowMs() - startMs) * 1000) / scalars.length;
      step += scalars.length;
      bench.weights.set(node.state().bank.weights);
      const leavesMicroseconds = (await bench.leaves(bench.kernels, spanSteps * bits.batch)) * bits.batch;
      if (i < 2) continue;
      ratios.push(stepMicroseconds / leavesMicroseconds);
      stepTimes.push(stepMicroseconds);
    }
    return { microseconds: median(stepTimes), overLeaves: median(ratios), repetitions };
  } finally {
    await node.close();
  }
}

function print({ model, batch, leaf, leavesMicrosecondsAnImage, kernels, stepKernels, step }, peak) {
  console.log(
    `\n${model}, leaves of ${leaf}; registers alone: ${(peak / 1e9).toFixed(1)} G multiply-adds a second`,
  );
  const share = 'share of peak, nothing counted as skipped or saved';
  console.log(table(['kernel', 'microseconds an image', share], rowsOf(kernels), 1));
  console.log(table(['kernel, once a step', 'microseconds a step', share], rowsOf(stepKernels), 1));
  console.log(`leaves back to back: ${leavesMicrosecondsAnImage.toFixed(2)} microseconds an image`);
  console.log(
    `a step of ${batch} with one thread: ${step.microseconds.toFixed(0)} microseconds, ` +
      `${step.overLeaves.toFixed(3)} x its leaves (median of ${step.repetitions}, in turns)`,
  );
}

function rowsOf(kernels) {
  return kernels
    .toSorted((a, b) => b.microseconds - a.microseconds)
    .map(({ kernel, microseconds, share }) => [
      kernel,
      microseconds < 0.1 ? microseconds.toPrecision(2) : microseconds.toFixed(2),
      share ? percent(share, 0) : '',
    ]);
}

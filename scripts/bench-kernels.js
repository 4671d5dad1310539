// Times every kernel on real digits with trained weights, beside what this machine's registers can do; then a step of
// one thread beside the same leaves run back to back. `npm run bench:kernels -- --help` lists the options.

import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import Table from 'cli-table3';
import { loadMnist } from '../dist/coordinator/mnist.js';
import { loadModelSpec } from '../dist/coordinator/model-file.js';
import { planSpan } from '../dist/coordinator/run.js';
import { train } from '../dist/library/index.js';
import { spreadOf } from '../dist/library/scaling.js';
import { systemClock } from '../dist/shared/clock.js';
import { gradientBound, lossBound } from '../dist/shared/exact-sum.js';
import { compileModel } from '../dist/shared/model.js';
import { initialBetaPowers } from '../dist/shared/optimizer.js';
import { Schedule } from '../dist/shared/schedule.js';
import { createJob, resolveSettings } from '../dist/shared/settings.js';
import { F32_PROFILE } from '../dist/worker/engines/engine.js';
import { createWasmEngine } from '../dist/worker/engines/wasm.js';
import { instantiateKernels, loadKernelModule } from '../dist/worker/kernels.js';
import { createMemory, planMemory, viewMemory } from '../dist/worker/memory.js';
import { createPool, loadDataset } from '../dist/worker/pool.js';
import { compile } from './build-kernels.js';

const PEAK_ACCUMULATORS = 12;

const { values: flags } = parseArgs({
  options: {
    models: { type: 'string', default: 'lenet5,mlp' },
    batch: { type: 'string', default: '128' },
    leaf: { type: 'string' },
    images: { type: 'string', default: '12000' },
    repetitions: { type: 'string', default: '5' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});
if (flags.help) {
  console.log(
    'npm run bench:kernels -- [--models lenet5,mlp] [--batch 128] [--leaf N] [--images 12000] [--repetitions 5] [--json]',
  );
  process.exit(0);
}

const median = values => spreadOf(values).median;
const repetitions = Number(flags.repetitions);
const dataset = loadMnist();
const multiplyAddsPerSecond = await measurePeak();
const reports = [];
for (const name of flags.models.split(',')) reports.push(await measureModel(name));
if (flags.json) console.log(JSON.stringify({ multiplyAddsPerSecond, models: reports }));
else for (const report of reports) print(report);

async function measurePeak() {
  const path = join(dirname(fileURLToPath(import.meta.url)), '..', 'bench', 'peak.ts');
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true });
  const { instance } = await WebAssembly.instantiate(await compile(path), { env: { memory } });
  const { peak } = instance.exports;
  const iterations = 5_000_000;
  const rates = [];
  for (let i = 0; i < repetitions + 1; i++) {
    const ms = timed(() => peak(iterations));
    if (i > 0) rates.push((iterations * PEAK_ACCUMULATORS * 4) / (ms / 1000));
  }
  return median(rates);
}

function timed(work) {
  const startMs = systemClock.nowMs();
  work();
  return systemClock.nowMs() - startMs;
}

async function measureModel(name) {
  const batch = Number(flags.batch);
  const leaf = flags.leaf === undefined ? undefined : Number(flags.leaf);
  const settings = resolveSettings({ model: name, batch, ...(leaf && { leaf }) });
  const model = compileModel(loadModelSpec(name, dataset.classes), dataset.shape, dataset.classes);
  const job = createJob(settings, model, dataset, F32_PROFILE);
  const bench = createBench(job, await trainedWeights(name));
  const perImage = [];
  const whole = [];
  for (let i = 0; i < repetitions + 1; i++) {
    whole.push(await bench.leaves(bench.kernels, Number(flags.images)));
    perImage.push(await bench.timedLeaves(Number(flags.images)));
  }
  const kernels = Object.keys(perImage[0].microseconds).map(kernel => {
    const microseconds = median(perImage.slice(1).map(times => times.microseconds[kernel]));
    const multiplyAdds = denseMultiplyAdds(model, kernel);
    const share = multiplyAdds && multiplyAdds / (microseconds * 1e-6) / multiplyAddsPerSecond;
    return { kernel, microseconds, multiplyAdds, share };
  });
  const leafMicroseconds = median(whole.slice(1));
  const step = await measureStep(job, bench);
  return { model: name, batch, leaf: job.bits.leaf, leafMicroseconds, kernels, step };
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
  async function leaves(used, count, onLeaf = () => {}) {
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
    }
    onLeaf(done);
    return ((systemClock.nowMs() - startMs) * 1000) / done;
  }

  /** The same with a clock around every call; calls are told apart by the layer whose parameters they are given. */
  async function timedLeaves(count) {
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
    let done = 0;
    await leaves(used, count, total => (done = total));
    return {
      microseconds: Object.fromEntries([...totals].map(([key, ms]) => [key, (ms * 1000) / done])),
    };
  }

  return { leaves, timedLeaves, kernels, weights };
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
async function measureStep(job, bench) {
  const { bits } = job;
  const node = await createPool({
    job,
    dataset,
    threads: 1,
    cores: 1,
    clock: systemClock,
    onThreadLost: ({ reason }) => console.error(`thread lost: ${reason}`),
    onWarning: message => console.error(message),
  });
  try {
    const spanSteps = Math.min(node.spanLimit, Math.ceil(20_000 / bits.batch));
    const ratios = [];
    const stepTimes = [];
    let powers = initialBetaPowers;
    let step = 0;
    for (let i = 0; i < repetitions + 2; i++) {
      const { scalars, ...behind } = planSpan(job, step, Math.min(step + spanSteps, job.totalSteps), powers);
      powers = behind.powers.at(-1);
      const startMs = systemClock.nowMs();
      await node.train(step, scalars);
      const stepMicroseconds = ((systemClock.nowMs() - startMs) * 1000) / scalars.length;
      step += scalars.length;
      bench.weights.set(node.state().bank.weights);
      const leafMicroseconds = (await bench.leaves(bench.kernels, spanSteps * bits.batch)) * bits.batch;
      if (i < 2) continue;
      ratios.push(stepMicroseconds / leafMicroseconds);
      stepTimes.push(stepMicroseconds);
    }
    return { microseconds: median(stepTimes), overLeaves: median(ratios), repetitions };
  } finally {
    await node.close();
  }
}

function print({ model, batch, leaf, leafMicroseconds, kernels, step }) {
  const peak = (multiplyAddsPerSecond / 1e9).toFixed(1);
  console.log(`\n${model}, leaves of ${leaf}; registers alone: ${peak} G multiply-adds a second`);
  const table = new Table({
    head: ['kernel', 'microseconds an image', 'share of peak, nothing counted as skipped or saved'],
    colAligns: ['left', 'right', 'right'],
    style: { head: [], border: [] },
  });
  const shown = kernels.filter(({ microseconds }) => microseconds >= 0.005);
  for (const { kernel, microseconds, share } of shown.toSorted((a, b) => b.microseconds - a.microseconds)) {
    table.push([kernel, microseconds.toFixed(2), share ? `${(share * 100).toFixed(0)} %` : '']);
  }
  console.log(table.toString());
  console.log(`leaves back to back: ${leafMicroseconds.toFixed(2)} microseconds an image`);
  console.log(
    `a step of ${batch} with one thread: ${step.microseconds.toFixed(0)} microseconds, ` +
      `${step.overLeaves.toFixed(3)} x its leaves (median of ${step.repetitions}, in turns)`,
  );
}

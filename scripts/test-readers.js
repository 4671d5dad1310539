// Opens exported models with TensorFlow.js and ONNX Runtime, which are installed into a temporary folder, and compares what
// they compute with what this program computes: logits of the first 1,000 test images, and how many of all are right.

import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { beginning, encodeCheckpoint, initialWeightsFile } from '../dist/coordinator/checkpoint.js';
import { readLayersModel } from '../dist/coordinator/layers-model-file.js';
import { loadMnist } from '../dist/coordinator/mnist.js';
import { RunFolder } from '../dist/coordinator/run-folder.js';
import { runConfig } from '../dist/coordinator/stored-run.js';
import { evaluate, exportRun, train } from '../dist/library/index.js';
import { tensorflowRuntimes } from '../dist/library/tensorflow.js';
import { evaluateWith, openRun, openRunData } from '../dist/library/trained.js';
import { compileModel } from '../dist/shared/model.js';
import { createJob, resolveSettings } from '../dist/shared/settings.js';
import { softmax } from '../dist/shared/softmax.js';
import { profileOf } from '../dist/worker/engines/engine.js';
import { plainEnv, run } from './run.js';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const COMPARED = 1000;
/** Largest allowed distance of an output, as a part of the largest one: f32 sums in other orders. */
const TOLERANCE = 1e-5;

/** What no preset has: vectors that are positions and the reverse, rows that fill no window, an end without dense. */
const corners = {
  layers: [
    { type: 'conv2d', filters: 4, kernelSize: 3, stride: 3, padding: 'same' },
    { type: 'avgPool2d', poolSize: 3 },
    { type: 'relu' },
    { type: 'conv2d', filters: 16, kernelSize: 3, stride: 2, padding: 2 },
    { type: 'conv2d', filters: 12, kernelSize: 3 },
    { type: 'dense', units: 14 },
    { type: 'relu' },
    { type: 'maxPool2d', poolSize: 1 },
    { type: 'flatten' },
    { type: 'conv2d', filters: 10, kernelSize: 1 },
  ],
};

const dir = mkdtempSync(join(tmpdir(), 'lockstep-readers-'));
try {
  const readers = join(dir, 'readers');
  cpSync(join(root, 'test', 'readers'), readers, { recursive: true });
  // Scripts of packages would load what is not needed: libraries for GPUs.
  const installed = spawnSync('npm', ['ci', '--ignore-scripts'], {
    cwd: readers,
    env: plainEnv,
    encoding: 'utf8',
  });
  if (/\b(ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH)\b/.test(installed.stderr)) {
    console.log('SKIPPED: the package registry cannot be reached from here, so no other reader was tried.');
  } else {
    if (installed.status !== 0) throw new Error(`npm ci failed: ${installed.stderr}`);
    await compare(readers);
  }
} finally {
  rmSync(dir, { recursive: true });
}

async function compare(readers) {
  const { test } = loadMnist();
  const images = join(dir, 'images');
  const labels = join(dir, 'labels');
  writeFileSync(images, test.images);
  writeFileSync(labels, test.labels);
  const samples = test.labels.length;

  const own = join(dir, 'corners.json');
  writeFileSync(own, JSON.stringify(corners));
  const cases = [];
  const whole = async (runDir, name) => {
    const trained = openRun(runDir);
    const { logits } = await evaluateWith(trained, openRunData(trained, {}).test);
    const { accuracy } = await evaluate(runDir);
    const expected = join(dir, `${name}.logits`);
    writeFileSync(expected, logits);
    const correct = Math.round(accuracy * samples);
    return { logits, figures: { expected, samples, compared: COMPARED, scale: 1, correct } };
  };
  for (const model of ['lenet5', 'mlp', 'lenet5-regularized', join(root, 'examples', 'strided.json'), own]) {
    const name = basename(model, '.json');
    const { runDir } = await train({ model, maxSteps: 300, out: join(dir, name) });
    const { logits, figures } = await whole(runDir, name);
    for (const to of ['tfjs', 'onnx'])
      cases.push({ name, to, ...figures, ...(await exported(runDir, { to })) });
    if (model !== 'mlp') continue;
    const probabilities = join(dir, `${name}.probabilities`);
    const values = new Float32Array(logits.length);
    for (let at = 0; at < values.length; at += 10) values.set(softmax(logits.subarray(at, at + 10)), at);
    writeFileSync(probabilities, values);
    for (const to of ['tfjs', 'onnx']) {
      const out = join(dir, `softmax.${to}`);
      const made = await exported(runDir, { to, softmax: true, out });
      cases.push({ name: `${name} with --softmax`, to, ...figures, expected: probabilities, ...made });
    }
  }

  const isTensorflowHere = tensorflowRuntimes().length > 0;
  if (!isTensorflowHere) {
    console.log(
      'SKIPPED: TensorFlow is not set up here, so no model of tf.layers was trained (lockstep setup tensorflow).',
    );
  }
  const made = join(dir, 'made');
  mkdirSync(made);
  run(process.execPath, ['read.js', 'make', made], { cwd: readers });
  for (const name of ['positions', 'rows']) {
    const original = join(made, name, 'model.json');
    const runDir = beginRun(original, name);
    const { file } = await exported(runDir, { to: 'tfjs', softmax: true });
    const scale = name === 'rows' ? 1 / 255 : 1;
    const few = { samples: COMPARED, compared: COMPARED, scale, correct: undefined };
    cases.push({ name: `tf.layers, ${name}`, to: 'tfjs', file, expected: original, ...few });
    if (!isTensorflowHere) continue;
    const settings = { engine: 'tensorflow', devices: 'cpu', workers: 1, maxSteps: 60 };
    const { runDir: trained } = await train({
      ...settings,
      model: original,
      out: join(dir, `trained-${name}`),
    });
    const { figures } = await whole(trained, name);
    const { file: trainedFile } = await exported(trained, { to: 'tfjs' });
    cases.push({ name: `tf.layers, ${name}, trained`, to: 'tfjs', file: trainedFile, ...figures, scale });
  }

  const job = join(dir, 'job.json');
  writeFileSync(job, JSON.stringify({ images, labels, cases }));
  const found = JSON.parse(run(process.execPath, ['read.js', 'read', job], { cwd: readers }));
  for (const [i, { name, to, samples: count, correct, file }] of cases.entries()) {
    const { distance, largest, length, correct: theirs, metadata } = found[i];
    const share = distance / largest;
    if (length !== 10 * count) throw new Error(`${file}: ${length} outputs`);
    const figures = `outputs of ${COMPARED} images differ by ${distance.toExponential(1)} at most, ${share.toExponential(1)} of the largest`;
    if (!(share <= TOLERANCE)) throw new Error(`${to}, ${name}: ${figures}`);
    if (correct !== undefined && theirs !== correct) {
      throw new Error(`${to}, ${name}: ${theirs} of ${count} right, and ours has ${correct}`);
    }
    if (to === 'tfjs' && !/^[0-9a-f]{16}$/.test(metadata.hash))
      throw new Error(`${file}: no hash in its metadata`);
    const right = correct === undefined ? '' : `; ${theirs} of ${count} right, as here`;
    console.log(`ok  ${to.padEnd(4)}  ${name}: ${figures}${right}`);
  }
}

async function exported(runDir, options) {
  const { path, to } = await exportRun(runDir, options);
  return { file: to === 'tfjs' ? join(path, 'model.json') : path };
}

/** A run of a tf.LayersModel that has done no step: it needs no TensorFlow. */
function beginRun(path, name) {
  const { spec, readWeights } = readLayersModel(path, JSON.parse(readFileSync(path, 'utf8')), name);
  const dataset = loadMnist();
  const { shape, classes } = dataset;
  const engine = 'tensorflow';
  const model = compileModel(spec, shape, classes);
  const job = createJob(resolveSettings({ engine }), model, dataset, profileOf(engine), readWeights());
  const out = join(dir, `run-${name}`);
  const folder = RunFolder.create(out, name, runConfig(job, dataset, false), initialWeightsFile(job));
  folder.close();
  writeFileSync(
    join(out, 'checkpoints', 'step-000000000.safetensors'),
    encodeCheckpoint(job, beginning(job)),
  );
  return out;
}

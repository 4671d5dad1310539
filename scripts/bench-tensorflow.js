// Training with TensorFlow beside the same `variableGrads` loop written by hand, at the same leaf, in turns: how much the
// schedule, the sums, the network on loopback and the updates cost. `npm run bench:tensorflow -- --help` lists the options.

import { fork, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { loadMnist } from '../dist/coordinator/mnist.js';
import { planProcesses } from '../dist/library/tensorflow.js';
import { loadTensorflow } from '../dist/worker/engines/tensorflow/native.js';
import { median, numberList, runBenchmark, wholeNumber } from './benchmark.js';

const own = fileURLToPath(import.meta.url);
const main = fileURLToPath(new URL('../dist/cli/main.js', import.meta.url));

// In a thread, as the engine is: there it is faster than in the main one.
if (!isMainThread) parentPort.postMessage(loop(workerData));
else if (process.argv[2] !== 'loop') await compare();
else {
  process.once('message', task => {
    new Worker(own, { workerData: task }).once('message', rate => process.send(rate, () => process.exit()));
  });
}

function compare() {
  return runBenchmark({
    command: 'bench:tensorflow',
    usage: `npm run bench:tensorflow -- [flags]

  --workers  1,2: processes
  --leaf     64
  --repeats  3`,
    options: {
      workers: { type: 'string', default: '1,2' },
      leaf: { type: 'string', default: '64' },
      repeats: { type: 'string', default: '3' },
    },
    body: async values => {
      const leaf = wholeNumber('leaf', values.leaf, 1);
      const repeats = wholeNumber('repeats', values.repeats, 1);
      for (const workers of numberList('workers', values.workers)) {
        const [byHand, trained] = [[], []];
        for (let i = 0; i < repeats; i++) {
          byHand.push(await loopsOf(workers, leaf));
          trained.push(await trainWith(workers, leaf));
        }
        const [hand, ours] = [median(byHand), median(trained)];
        console.log(
          `${workers} process(es), leaf ${leaf}: ${Math.round(ours)} images/s, by hand ${Math.round(hand)}: ` +
            `${((100 * ours) / hand).toFixed(1)} %`,
        );
      }
    },
  });
}

/** Images/s of so many loops at the same time. */
async function loopsOf(workers, leaf) {
  const plans = await planProcesses({ devices: 'cpu', workers });
  const rates = await Promise.all(
    plans.map(async ({ place, env }) => {
      const child = fork(own, ['loop'], { env, stdio: ['ignore', 'ignore', 'ignore', 'ipc'] });
      child.send({ place, leaf });
      const [rate] = await once(child, 'message');
      return rate;
    }),
  );
  return rates.reduce((sum, rate) => sum + rate, 0);
}

/** From the times of the events of a run, without its beginning. */
async function trainWith(workers, leaf) {
  const dir = mkdtempSync(join(tmpdir(), 'lockstep-bench-'));
  const batch = 4 * leaf;
  const flags = [
    '--engine',
    'tensorflow',
    '--devices',
    'cpu',
    '--workers',
    workers,
    '--leaf',
    leaf,
    '--batch',
    batch,
  ];
  const limits = ['--max-steps', Math.ceil(40_000 / batch), '--out', join(dir, 'run'), '--json'];
  const child = spawn(
    process.execPath,
    [main, 'train', 'lenet5', ...flags.map(String), ...limits.map(String)],
    {
      stdio: ['ignore', 'pipe', 'ignore'],
    },
  );
  const steps = [];
  for await (const line of createInterface(child.stdout)) {
    const event = JSON.parse(line);
    if (event.type === 'step') steps.push(event);
  }
  rmSync(dir, { recursive: true });
  const first = steps.find(({ step }) => step * batch >= 8000);
  const last = steps.at(-1);
  return ((last.step - first.step) * batch * 1000) / (last.timeMs - first.timeMs);
}

/** The loop: images and labels to tensors, gradients of the sum of the losses, and these back to arrays. */
function loop({ place, leaf }) {
  const tf = loadTensorflow(place.runtime, place.device);
  const { images, labels } = loadMnist().train;
  const shapes = [[5, 5, 1, 6], [6], [5, 5, 6, 16], [16], [256, 120], [120], [120, 84], [84], [84, 10], [10]];
  const variables = shapes.map(shape => tf.variable(tf.randomUniform(shape, -0.1, 0.1)));
  const [k1, b1, k2, b2, w3, b3, w4, b4, w5, b5] = variables;
  const pool = x => tf.maxPool(tf.relu(x), 2, 2, 'valid');
  const logitsOf = x => {
    const first = pool(tf.add(tf.conv2d(x, k1, 1, 'valid'), b1));
    const second = pool(tf.add(tf.conv2d(first, k2, 1, 'valid'), b2));
    const third = tf.relu(tf.add(tf.matMul(tf.reshape(second, [leaf, -1]), w3), b3));
    return tf.add(tf.matMul(tf.relu(tf.add(tf.matMul(third, w4), b4)), w5), b5);
  };
  const step = at =>
    tf.tidy(() => {
      const pixels = new Float32Array(leaf * 784);
      for (let i = 0; i < pixels.length; i++) pixels[i] = images[at * 784 + i] / 255;
      const x = tf.tensor4d(pixels, [leaf, 28, 28, 1]);
      const truth = tf
        .oneHot(tf.tensor1d(Int32Array.from(labels.subarray(at, at + leaf)), 'int32'), 10)
        .cast('float32');
      const { value, grads } = tf.variableGrads(
        () => tf.neg(tf.sum(tf.mul(truth, tf.logSoftmax(logitsOf(x))))),
        variables,
      );
      return [value.dataSync()[0], ...variables.map(({ name }) => grads[name].dataSync())];
    });
  const steps = Math.ceil(32_000 / leaf);
  for (let i = 0; i < 8000 / leaf; i++) step(i * leaf);
  const startMs = performance.now();
  for (let i = 0; i < steps; i++) step((i * leaf) % 50_000);
  return (steps * leaf * 1000) / (performance.now() - startMs);
}

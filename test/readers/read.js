// Reads exported models with TensorFlow.js and ONNX Runtime. `scripts/test-readers.js` runs it beside its packages.
//
// `read.js make DIR`: saves two models of tf.layers into DIR. `read.js read JOB.json`: the figures of each of its cases.

import { createServer } from 'node:http';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as tf from '@tensorflow/tfjs';
import * as ort from 'onnxruntime-node';

const BATCH = 500;

const [, , what, given] = process.argv;
await tf.setBackend('cpu');
if (what === 'make') await make(given);
else console.log(JSON.stringify(await read(JSON.parse(readFileSync(given, 'utf8')))));

/** One that ends with a softmax of its last layer and takes bytes, one that ends with a layer of its own. */
async function make(dir) {
  const { layers } = tf;
  const models = {
    positions: [
      layers.rescaling({ inputShape: [28, 28, 1], scale: 1 / 127.5, offset: -1 }),
      layers.conv2d({ filters: 4, kernelSize: 5, strides: 2, padding: 'same', activation: 'relu' }),
      layers.depthwiseConv2d({ kernelSize: 3, depthMultiplier: 2 }),
      layers.prelu(),
      layers.globalAveragePooling2d({}),
      layers.dense({ units: 10, activation: 'softmax' }),
    ],
    rows: [
      layers.inputLayer({ inputShape: [28, 28] }),
      layers.bidirectional({ layer: layers.lstm({ units: 6 }), mergeMode: 'concat' }),
      layers.layerNormalization(),
      layers.dropout({ rate: 0.5 }),
      layers.dense({ units: 10 }),
      layers.softmax(),
    ],
  };
  for (const [name, list] of Object.entries(models)) {
    const folder = join(dir, name);
    mkdirSync(folder);
    await tf.sequential({ layers: list }).save(
      tf.io.withSaveHandler(async ({ modelTopology, weightSpecs, weightData }) => {
        const weightsManifest = [{ paths: ['weights.bin'], weights: weightSpecs }];
        const json = { format: 'layers-model', modelTopology, weightsManifest };
        writeFileSync(join(folder, 'model.json'), JSON.stringify(json));
        writeFileSync(join(folder, 'weights.bin'), new Uint8Array(weightData));
        return { modelArtifactsInfo: { dateSaved: new Date(), modelTopologyType: 'JSON' } };
      }),
    );
  }
}

/**
 * Of each case: the class and the largest distance from the expected outputs, over its first images; how many of them are
 * classified right.
 */
async function read({ images, labels, cases }) {
  const pixels = readFileSync(images);
  const truth = readFileSync(labels);
  const server = createServer(({ url }, response) => response.end(readFileSync(decodeURIComponent(url))));
  await new Promise(resolve => server.listen(0, '127.0.0.1', resolve));
  const origin = `http://127.0.0.1:${server.address().port}`;
  const found = [];
  for (const { file, expected, samples, compared, scale } of cases) {
    const isOnnx = file.endsWith('.onnx');
    const { run, ...told } = isOnnx ? await openOnnx(file) : await openLayersModel(`${origin}${file}`, scale);
    const outputs = [];
    for (let from = 0; from < samples; from += BATCH) {
      const count = Math.min(BATCH, samples - from);
      outputs.push(...(await run(pixels.subarray(from * 784, (from + count) * 784), count)));
    }
    const wanted =
      typeof expected === 'string' && expected.endsWith('.json')
        ? await outputsOf(`${origin}${expected}`, pixels, compared, scale)
        : floats(expected);
    let distance = 0;
    let largest = 0;
    for (let i = 0; i < compared * 10; i++) {
      distance = Math.max(distance, Math.abs(outputs[i] - wanted[i]));
      largest = Math.max(largest, Math.abs(wanted[i]));
    }
    let correct = 0;
    for (let s = 0; s < samples; s++) {
      const scores = outputs.slice(s * 10, s * 10 + 10);
      if (scores.indexOf(Math.max(...scores)) === truth[s]) correct++;
    }
    found.push({ file, distance, largest, correct, length: outputs.length, ...told });
  }
  server.close();
  server.closeAllConnections();
  return found;
}

async function outputsOf(url, pixels, samples, scale) {
  const { run } = await openLayersModel(url, scale);
  return run(pixels.subarray(0, samples * 784), samples);
}

async function openLayersModel(url, scale) {
  const model = await tf.loadLayersModel(url);
  const shape = model.inputs[0].shape.slice(1);
  return {
    metadata: model.getUserDefinedMetadata(),
    run: async (bytes, count) =>
      tf.tidy(() => {
        const x = tf.mul(tf.tensor(Float32Array.from(bytes), [count, ...shape]), scale);
        return [...model.predict(x, { batchSize: count }).dataSync()];
      }),
  };
}

async function openOnnx(file) {
  const session = await ort.InferenceSession.create(file, { intraOpNumThreads: 1, logSeverityLevel: 2 });
  return {
    metadata: { inputs: session.inputMetadata, outputs: session.outputMetadata },
    run: async (bytes, count) => {
      const images = new ort.Tensor('uint8', Uint8Array.from(bytes), [count, 28, 28, 1]);
      const outputs = await session.run({ images });
      return [...Object.values(outputs)[0].data];
    },
  };
}

function floats(path) {
  return new Float32Array(Uint8Array.from(readFileSync(path)).buffer);
}

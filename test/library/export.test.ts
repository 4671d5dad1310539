// `exportRun`: what stands in the files of each format. `npm run test:readers` computes with them.

import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { beginning, encodeCheckpoint, initialWeightsFile } from '#dist/coordinator/checkpoint.js';
import { readModelFile } from '#dist/coordinator/model-file.js';
import { RunFolder } from '#dist/coordinator/run-folder.js';
import { decodeSafetensors } from '#dist/coordinator/safetensors.js';
import { runConfig } from '#dist/coordinator/stored-run.js';
import { exportRun, train, type ModelSpec } from '#dist/library/index.js';
import { createDataset } from '#dist/shared/dataset.js';
import { compileModel } from '#dist/shared/model.js';
import { createJob, resolveSettings } from '#dist/shared/settings.js';
import { profileOf } from '#dist/worker/engines/engine.js';
import { damage, trainUntil } from '../support/kept-run.js';
import {
  countingWeights,
  kerasCnn,
  layer,
  temporaryFolder,
  writeModelFiles,
} from '../support/layers-model.js';
import { Message } from '../support/protobuf.js';
import { tinyDataset, tinyModel } from '../support/tiny.js';

/** 9 x 7: padding of each kind, both pools, a dense layer on 1 x 1 positions, and a convolution at the end. */
const winding: ModelSpec = {
  name: 'winding',
  layers: [
    { type: 'conv2d', filters: 2, kernelSize: 3, stride: 2, padding: 'same' },
    { type: 'relu' },
    { type: 'conv2d', filters: 3, kernelSize: 2, padding: 1 },
    { type: 'avgPool2d', poolSize: 2 },
    { type: 'maxPool2d', poolSize: 2 },
    { type: 'dense', units: 6 },
    { type: 'dropout', rate: 0.25 },
    { type: 'flatten' },
    { type: 'conv2d', filters: 3, kernelSize: 1 },
  ],
};
const dataset = tinyDataset();
const settings = { dataset, batch: 24, leaf: 3, maxSteps: 5, workers: 1 } as const;

const metadataKeys = ['model', 'step', 'totalSteps', 'hash', 'classes', 'shape', 'normalization'];

test('safetensors: the weights of the run, what they belong to, and a checksum', async t => {
  const { runDir, hash, weights } = await train({
    ...settings,
    model: winding,
    out: join(temporaryFolder(t), 'run'),
  });
  const result = await exportRun(runDir, { to: 'safetensors' });
  assert.equal(result.path, join(runDir, 'export', 'winding.safetensors'));
  const file = readFileSync(result.path);
  assert.deepEqual([result.sizeBytes, result.input, result.output], [file.length, null, null]);
  const { tensors, metadata } = decodeSafetensors(file, result.path);
  assert.deepEqual(
    Object.fromEntries(tensors.map(({ name, ...tensor }) => [name, tensor])),
    Object.fromEntries(
      Object.entries(weights).map(([name, { shape, values }]) => [name, { shape: [...shape], values }]),
    ),
  );
  assert.deepEqual(Object.keys(metadata), [...metadataKeys, 'layers']);
  assert.deepEqual(
    [metadata['model'], metadata['step'], metadata['hash'], metadata['classes'], metadata['shape']],
    ['winding', '5', hash, '3', '[9,7,1]'],
  );
  assert.deepEqual(JSON.parse(metadata['layers']), winding.layers);
  const { normalization } = JSON.parse(readFileSync(join(runDir, 'config.json'), 'utf8'));
  assert.deepEqual(JSON.parse(metadata['normalization']), normalization);
});

interface ModelJson {
  readonly userDefinedMetadata: Record<string, string>;
  readonly modelTopology: {
    readonly config: { readonly layers: { class_name: string; config: Record<string, unknown> }[] };
  };
}

function readJson(path: string): ModelJson {
  return JSON.parse(readFileSync(path, 'utf8'));
}

test('tfjs: layers behind one that normalizes bytes, and the weights under the names of tf.layers', async t => {
  const { runDir, weights } = await train({
    ...settings,
    model: winding,
    out: join(temporaryFolder(t), 'run'),
  });
  const { path, input, output } = await exportRun(runDir, { to: 'tfjs', softmax: true });
  assert.equal(path, join(runDir, 'export', 'winding-tfjs'));
  assert.equal(input, 'bytes from 0 to 255 as float32, N x 9 x 7 x 1');
  assert.equal(output, 'probabilities, N x 3');
  const json = readJson(join(path, 'model.json'));
  assert.deepEqual(Object.keys(json.userDefinedMetadata), [...metadataKeys, 'input', 'output']);
  const { normalization } = JSON.parse(readFileSync(join(runDir, 'config.json'), 'utf8'));
  const { layers } = json.modelTopology.config;
  assert.deepEqual(layers[0], {
    class_name: 'Rescaling',
    config: {
      name: 'normalization',
      batch_input_shape: [null, 9, 7, 1],
      scale: normalization.scale,
      offset: -normalization.shift,
    },
  });
  assert.deepEqual(
    layers.slice(1).map(({ class_name, config: { name, ...config } }) => [class_name, name, config]),
    [
      ['Conv2D', 'conv1', { filters: 2, kernel_size: [3, 3], strides: [2, 2], padding: 'same' }],
      ['ReLU', 'relu1', {}],
      [
        'ZeroPadding2D',
        'conv2_padding',
        {
          padding: [
            [1, 1],
            [1, 1],
          ],
        },
      ],
      ['Conv2D', 'conv2', { filters: 3, kernel_size: [2, 2], strides: [1, 1], padding: 'valid' }],
      ['AveragePooling2D', 'pool1', { pool_size: [2, 2], strides: [2, 2], padding: 'valid' }],
      ['MaxPooling2D', 'pool2', { pool_size: [2, 2], strides: [2, 2], padding: 'valid' }],
      ['Flatten', 'fc1_flatten', {}],
      ['Dense', 'fc1', { units: 6 }],
      ['Dropout', 'dropout1', { rate: 0.25 }],
      ['Reshape', 'conv3_reshape', { target_shape: [1, 1, 6] }],
      ['Conv2D', 'conv3', { filters: 3, kernel_size: [1, 1], strides: [1, 1], padding: 'valid' }],
      ['Flatten', 'flatten_end', {}],
      ['Softmax', 'softmax', {}],
    ],
  );
  const { spec, readWeights } = readModelFile(join(path, 'model.json'));
  const [kept] = spec.layers;
  assert.ok(kept.type === 'layersModel');
  assert.deepEqual(
    kept.tensors,
    Object.entries(weights).map(([name, { shape }]) => ({ name: name.replace('.', '/'), shape: [...shape] })),
  );
  assert.deepEqual(
    Array.from(readWeights!()),
    Object.values(weights).flatMap(({ values }) => Array.from(values)),
  );
});

/** A run of a tf.LayersModel that has done no step: its folder needs no TensorFlow. */
function beginRun(t: TestContext, path: string): string {
  const { spec, readWeights } = readModelFile(path);
  const set = { images: new Uint8Array(40 * 784), labels: Uint8Array.from({ length: 40 }, (_, i) => i % 10) };
  const shape = { height: 28, width: 28, channels: 1 };
  const blank = createDataset({ name: 'blank', shape, classes: 10, train: set, test: set });
  const engine = 'tensorflow';
  const model = compileModel(spec, shape, 10);
  const chosen = resolveSettings({ engine, batch: 8, leaf: 8 });
  const job = createJob(chosen, model, blank, profileOf(engine), readWeights!());
  const out = join(temporaryFolder(t), 'run');
  const folder = RunFolder.create(out, spec.name, runConfig(job, blank, true), initialWeightsFile(job));
  folder.close();
  writeFileSync(
    join(out, 'checkpoints', 'step-000000000.safetensors'),
    encodeCheckpoint(job, beginning(job)),
  );
  return out;
}

test('a tf.LayersModel goes back as it came, without its softmax unless one is asked for', async t => {
  const original = writeModelFiles(t, kerasCnn);
  const runDir = beginRun(t, original);
  for (const softmax of [false, true]) {
    const { path, input, output } = await exportRun(runDir, { to: 'tfjs', softmax });
    assert.equal(input, 'numbers from 0 to 1 (byte / 255) as float32, N x 28 x 28 x 1');
    assert.equal(output, softmax ? 'probabilities, N x 10' : 'logits, N x 10');
    const file = join(path, 'model.json');
    const [there, back] = [original, file].map(readModelFile);
    assert.deepEqual(back.spec.layers, there.spec.layers);
    assert.deepEqual(back.readWeights!(), countingWeights(kerasCnn.weights));
    const { class_name } = readJson(file).modelTopology.config.layers.at(-1)!;
    assert.equal(class_name, softmax ? 'Softmax' : 'Dense');
  }
});

test('a model that takes bytes says so; extents that its file left open are those of the run; names stay unlike', async t => {
  const dense = { units: 10, activation: 'softmax' };
  const original = writeModelFiles(t, {
    layers: [
      layer('Rescaling', 'bytes', { scale: 1 / 255, batch_input_shape: [null, null, null, 1] }),
      layer('Flatten', 'softmax'),
      layer('Dense', 'scores', dense),
    ],
    weights: [
      { name: 'scores/kernel', shape: [784, 10] },
      { name: 'scores/bias', shape: [10] },
    ],
  });
  const { path, input } = await exportRun(beginRun(t, original), { to: 'tfjs', softmax: true });
  assert.equal(input, 'bytes from 0 to 255 as float32, N x 28 x 28 x 1');
  const { layers } = readJson(join(path, 'model.json')).modelTopology.config;
  assert.deepEqual(layers[0].config['batch_input_shape'], [null, 28, 28, 1]);
  assert.deepEqual(
    layers.map(({ config }) => config['name']),
    ['bytes', 'softmax', 'scores', 'softmax_'],
  );
});

test('ONNX is refused for a tf.LayersModel, naming its first layer', async t => {
  const runDir = beginRun(t, writeModelFiles(t, kerasCnn));
  await assert.rejects(exportRun(runDir, { to: 'onnx' }), {
    code: 'LOCKSTEP_EXPORT',
    message:
      /^Model my-cnn is a tf\.LayersModel.*its layer look \(Conv2D\) has no counterpart\. Use --to tfjs\.$/,
  });
  assert.equal(existsSync(join(runDir, 'export')), false);
});

/** The attributes of a node. */
function attributesOf(node: Message): Record<string, number | number[]> {
  return Object.fromEntries(
    node.messages(5).map(attribute => {
      const [type] = attribute.numbers(20);
      const value = type === 2 ? attribute.numbers(3)[0] : attribute.numbers(8);
      assert.ok(type === 2 || type === 7);
      return [attribute.texts(1)[0], value];
    }),
  );
}

/** Name, element type and extents of an input or output of the graph. */
function valueOf(value: Message): unknown[] {
  const [tensor] = value.messages(2)[0].messages(1);
  const dims = tensor.messages(2)[0].messages(1);
  return [...value.texts(1), ...tensor.numbers(1), dims.map(dim => dim.texts(2)[0] ?? dim.numbers(1)[0])];
}

test('ONNX: opset, shapes, every node in its order, and kernels with their outputs first', async t => {
  const { runDir, weights, hash } = await train({
    ...settings,
    model: winding,
    out: join(temporaryFolder(t), 'run'),
  });
  const { path, input, output } = await exportRun(runDir, { to: 'onnx' });
  assert.equal(path, join(runDir, 'export', 'winding.onnx'));
  assert.deepEqual([input, output], ['bytes from 0 to 255 as uint8, N x 9 x 7 x 1', 'logits, N x 3']);
  const file = new Message(readFileSync(path));
  const [opset] = file.messages(8);
  assert.deepEqual(
    [file.numbers(1), file.texts(2), opset.texts(1), opset.numbers(2)],
    [[7], ['Lockstep'], [''], [13]],
  );
  const metadata = Object.fromEntries(file.messages(14).map(entry => [entry.texts(1)[0], entry.texts(2)[0]]));
  assert.deepEqual(Object.keys(metadata), [...metadataKeys, 'input', 'output']);
  assert.equal(metadata['hash'], hash);
  const [graph] = file.messages(7);
  assert.deepEqual(graph.messages(11).map(valueOf), [['images', 2, ['N', 9, 7, 1]]]);
  assert.deepEqual(graph.messages(12).map(valueOf), [['logits', 1, ['N', 3]]]);

  const nodes = graph.messages(1);
  assert.deepEqual(
    nodes.map(node => [node.texts(4)[0], node.texts(1).slice(1), attributesOf(node)]),
    [
      ['Cast', [], { to: 1 }],
      ['Mul', ['normalization.scale'], {}],
      ['Sub', ['normalization.shift'], {}],
      ['Transpose', [], { perm: [0, 3, 1, 2] }],
      ['Conv', ['conv1.kernel', 'conv1.bias'], { kernel_shape: [3, 3], strides: [2, 2], pads: [1, 1, 1, 1] }],
      ['Relu', [], {}],
      ['Conv', ['conv2.kernel', 'conv2.bias'], { kernel_shape: [2, 2], strides: [1, 1], pads: [1, 1, 1, 1] }],
      ['AveragePool', [], { kernel_shape: [2, 2], strides: [2, 2] }],
      ['MaxPool', [], { kernel_shape: [2, 2], strides: [2, 2] }],
      ['Flatten', [], { axis: 1 }],
      ['Gemm', ['fc1.kernel', 'fc1.bias'], {}],
      ['Reshape', ['conv3.shape'], {}],
      ['Conv', ['conv3.kernel', 'conv3.bias'], { kernel_shape: [1, 1], strides: [1, 1], pads: [0, 0, 0, 0] }],
      ['Flatten', [], { axis: 1 }],
    ],
  );
  const values = nodes.flatMap(node => node.texts(2));
  assert.deepEqual(
    nodes.map(node => node.texts(1)[0]),
    ['images', ...values.slice(0, -1)],
  );
  assert.equal(values.at(-1), 'logits');
  assert.equal(new Set(values).size, values.length);

  const tensors = new Map(graph.messages(5).map(tensor => [tensor.texts(8)[0], tensor]));
  const floats = (name: string): number[] => {
    const [raw] = tensors.get(name)!.bytes(9);
    return [...new Float32Array(Uint8Array.from(raw).buffer)];
  };
  const { scale, shift } = JSON.parse(metadata['normalization']);
  assert.deepEqual([floats('normalization.scale'), floats('normalization.shift')], [[scale], [shift]]);
  assert.deepEqual(tensors.get('conv2.kernel')!.numbers(1), [3, 2, 2, 2]);
  const kernel = weights['conv2.kernel'].values;
  const expected = Array.from({ length: 24 }, (_, at) => {
    const [output_, input_, position] = [Math.floor(at / 8), Math.floor(at / 4) % 2, at % 4];
    return kernel[(position * 2 + input_) * 3 + output_];
  });
  assert.deepEqual(floats('conv2.kernel'), expected);
  for (const name of ['conv1.bias', 'fc1.kernel', 'fc1.bias']) {
    assert.deepEqual(floats(name), [...weights[name].values]);
    assert.deepEqual(tensors.get(name)!.numbers(1), [...weights[name].shape]);
  }
  const [shape] = tensors.get('conv3.shape')!.bytes(9);
  assert.deepEqual([...new BigInt64Array(Uint8Array.from(shape).buffer)], [0n, 6n, 1n, 1n]);
});

test('ONNX: rows of a layer before flatten are put in our order again; a softmax ends the graph if asked for', async t => {
  const { runDir } = await train({ ...settings, model: tinyModel, out: join(temporaryFolder(t), 'run') });
  const { path, output } = await exportRun(runDir, { to: 'onnx', softmax: true });
  assert.equal(output, 'probabilities, N x 3');
  const [graph] = new Message(readFileSync(path)).messages(7);
  const ops = graph.messages(1).map(node => [node.texts(4)[0], attributesOf(node)['perm']]);
  assert.deepEqual(ops.slice(6, 9), [
    ['MaxPool', undefined],
    ['Transpose', [0, 2, 3, 1]],
    ['Flatten', undefined],
  ]);
  assert.deepEqual(ops.at(-1), ['Softmax', undefined]);
  assert.deepEqual(graph.messages(12).map(valueOf), [['probabilities', 1, ['N', 3]]]);
});

test('a run that was interrupted is exported with its newest good checkpoint, again and again', async t => {
  const out = join(temporaryFolder(t), 'run');
  await trainUntil({ ...settings, model: tinyModel, maxSteps: 20, out }, 4);
  const first = await exportRun(out, { to: 'safetensors' });
  assert.deepEqual([first.isFinished, first.warnings], [false, []]);
  const before = readFileSync(first.path);
  damage(join(out, first.file));
  const second = await exportRun(out, { to: 'safetensors' });
  assert.equal(second.step, first.step - 1);
  assert.equal(second.warnings.length, 1);
  assert.equal(second.path, first.path);
  assert.notDeepEqual(readFileSync(first.path), before);
});

test('a place that is taken or cannot be written is refused, and options that cannot be', async t => {
  const dir = temporaryFolder(t);
  const { runDir } = await train({ ...settings, model: tinyModel, out: join(dir, 'run') });
  const file = join(dir, 'file');
  writeFileSync(file, 'mine');
  const folder = join(dir, 'folder');
  mkdirSync(folder);
  for (const [to, out] of [
    ['onnx', file],
    ['tfjs', folder],
    ['tfjs', file],
  ] as const) {
    await assert.rejects(exportRun(runDir, { to, out }), {
      code: 'LOCKSTEP_EXPORT',
      message: /is there already/,
    });
  }
  assert.equal(readFileSync(file, 'utf8'), 'mine');
  await assert.rejects(exportRun(runDir, { to: 'onnx', out: join(file, 'below') }), {
    code: 'LOCKSTEP_EXPORT',
    message: /below cannot be written: .* Name another place with --out\.$/,
  });
  const out = join(dir, 'new', 'model.onnx');
  assert.equal((await exportRun(runDir, { to: 'onnx', out })).path, out);
  assert.ok(existsSync(out));
  for (const [options, message] of [
    [{ to: 'keras' }, /^Setting to is "keras", expected .*onnx/],
    [{ to: 'safetensors', softmax: true }, /^Setting softmax is true/],
    [{ to: 'onnx', data: 'x' }, /^There is no setting data\.$/],
  ] as const) {
    // @ts-expect-error -- as a program without types calls it
    await assert.rejects(exportRun(runDir, options), { code: 'LOCKSTEP_BAD_SETTING', message });
  }
  await assert.rejects(exportRun(dir, { to: 'onnx' }), { code: 'LOCKSTEP_RUN_MISSING' });
});

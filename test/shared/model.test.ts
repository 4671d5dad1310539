// Models: the shapes and parameters of the presets, and errors that say which layer cannot work and why.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as v from 'valibot';
import {
  compileModel,
  modelSpecSchema,
  paddedInput,
  type LayerSpec,
  type Model,
} from '#dist/shared/model.js';
import { canonicalJson } from '#dist/shared/hash.js';
import { formatShape, type Shape } from '#dist/shared/shape.js';
import { presetNames, presetSpec } from '#dist/shared/presets.js';

const image = { height: 28, width: 28, channels: 1 };

/** A line a layer: name, what it gives, and its parameters. */
function tableOf(model: Model): string[] {
  return model.layers.map(({ name, output, parameters }) => {
    const count = parameters ? parameters.kernel.size + parameters.bias.size : 0;
    return `${name}: ${formatShape(output)}, ${count}`;
  });
}

test('lenet5 on MNIST has the published shapes and 44,426 parameters', () => {
  const model = compileModel(presetSpec('lenet5', 10), image, 10);
  assert.deepEqual(tableOf(model), [
    'conv1: 24 x 24 x 6, 156',
    'relu1: 24 x 24 x 6, 0',
    'pool1: 12 x 12 x 6, 0',
    'conv2: 8 x 8 x 16, 2416',
    'relu2: 8 x 8 x 16, 0',
    'pool2: 4 x 4 x 16, 0',
    'flatten1: 256, 0',
    'fc1: 120, 30840',
    'relu3: 120, 0',
    'fc2: 84, 10164',
    'relu4: 84, 0',
    'fc3: 10, 850',
  ]);
  assert.equal(model.parameterCount, 44_426);
  assert.equal(model.paddedCount, 87 * 512);
});

test('lenet5-regularized has the parameters of lenet5 and dropout behind its first dense layer', () => {
  const model = compileModel(presetSpec('lenet5-regularized', 10), image, 10);
  assert.equal(model.parameterCount, 44_426);
  assert.equal(tableOf(model)[9], 'dropout1: 120, 0');
});

test('mlp on MNIST has 15,910 parameters', () => {
  const model = compileModel(presetSpec('mlp', 10), image, 10);
  assert.deepEqual(tableOf(model), ['flatten1: 784, 0', 'fc1: 20, 15700', 'relu1: 20, 0', 'fc2: 10, 210']);
  assert.equal(model.parameterCount, 15_910);
  assert.equal(model.paddedCount, 32 * 512);
});

test('tensors have the shapes of TensorFlow and lie one behind the other', () => {
  const model = compileModel(presetSpec('lenet5', 10), image, 10);
  assert.deepEqual(
    model.tensors.map(({ name, shape, fanIn }) => [name, shape, fanIn]),
    [
      ['conv1.kernel', [5, 5, 1, 6], 25],
      ['conv1.bias', [6], 25],
      ['conv2.kernel', [5, 5, 6, 16], 150],
      ['conv2.bias', [16], 150],
      ['fc1.kernel', [256, 120], 256],
      ['fc1.bias', [120], 256],
      ['fc2.kernel', [120, 84], 120],
      ['fc2.bias', [84], 120],
      ['fc3.kernel', [84, 10], 84],
      ['fc3.bias', [10], 84],
    ],
  );
  let offset = 0;
  for (const tensor of model.tensors) {
    assert.equal(tensor.offset, offset);
    assert.equal(
      tensor.size,
      tensor.shape.reduce((product, extent) => product * extent, 1),
    );
    offset += tensor.size;
  }
  assert.equal(offset, model.parameterCount);
});

test('every preset compiles for any number of classes and passes its schema', () => {
  for (const name of presetNames) {
    for (const classes of [2, 10, 47]) {
      const spec = presetSpec(name, classes);
      assert.equal(compileModel(spec, image, classes).layers.at(-1)!.output.channels, classes);
      assert.deepEqual(v.parse(modelSpecSchema, spec), spec);
    }
  }
});

test('the padded count is the parameters rounded up to whole blocks of 512', () => {
  for (const [features, padded] of [
    [510, 512],
    [511, 512],
    [512, 1024],
    [1023, 1024],
    [1024, 1536],
  ]) {
    const spec = { name: 'one', layers: [{ type: 'dense', units: 1 } as const] };
    const model = compileModel(spec, { height: 1, width: 1, channels: features }, 1);
    assert.equal(model.parameterCount, features + 1);
    assert.equal(model.paddedCount, padded);
  }
});

test('pooling drops the positions that do not fill a window, and each layer gets what the last one gives', () => {
  const spec = {
    name: 'odd',
    layers: [
      { type: 'conv2d', filters: 3, kernelSize: 2 },
      { type: 'maxPool2d', poolSize: 3 },
      { type: 'flatten' },
      { type: 'dense', units: 4 },
    ] satisfies LayerSpec[],
  };
  const model = compileModel(spec, { height: 9, width: 6, channels: 2 }, 4);
  assert.deepEqual(tableOf(model), [
    'conv1: 8 x 5 x 3, 27',
    'pool1: 2 x 1 x 3, 0',
    'flatten1: 6, 0',
    'fc1: 4, 28',
  ]);
  for (const [i, layer] of model.layers.entries()) {
    assert.deepEqual(layer.input, i === 0 ? model.input : model.layers[i - 1].output);
  }
});

/** TensorFlow's documentation: ceil(extent / stride) positions, the odd zero behind. */
test("padding 'same' gives ceil(extent / stride) positions, with an odd zero at the lower right", () => {
  for (let extent = 1; extent <= 12; extent++) {
    for (let kernelSize = 1; kernelSize <= 7; kernelSize++) {
      for (let stride = 1; stride <= 4; stride++) {
        const spec = { type: 'conv2d', filters: 2, kernelSize, stride, padding: 'same' } as const;
        const input = { height: extent, width: 13 - extent, channels: 3 };
        const layers = [spec, { type: 'flatten' }, { type: 'dense', units: 4 }] satisfies LayerSpec[];
        const [{ output }] = compileModel({ name: 'same', layers }, input, 4).layers;
        assert.deepEqual(output, {
          height: Math.ceil(input.height / stride),
          width: Math.ceil(input.width / stride),
          channels: 2,
        });
        const { shape, top, left } = paddedInput(spec, input);
        for (const [padded, own, before] of [
          [shape.height, input.height, top],
          [shape.width, input.width, left],
        ]) {
          const behind = padded - own - before;
          assert.ok(before >= 0 && (behind === before || behind === before + 1), `${before}, ${behind}`);
        }
      }
    }
  }
});

/** What one convolution of one filter gives of 7 x 10 x 1. */
function outputOf(kernelSize: number, stride: number, padding: number): string {
  const layers: LayerSpec[] = [
    { type: 'conv2d', filters: 1, kernelSize, stride, padding },
    { type: 'flatten' },
    { type: 'dense', units: 2 },
  ];
  const model = compileModel({ name: 'one', layers }, { height: 7, width: 10, channels: 1 }, 2);
  return formatShape(model.layers[0].output);
}

test('strides and padding by a number give floor((extent + 2 * padding - kernelSize) / stride) + 1 positions', () => {
  assert.equal(outputOf(3, 2, 0), '3 x 4 x 1');
  assert.equal(outputOf(3, 2, 1), '4 x 5 x 1');
  assert.equal(outputOf(2, 5, 0), '2 x 2 x 1');
  assert.equal(outputOf(9, 1, 1), '1 x 4 x 1');
  assert.equal(outputOf(7, 65_536, 0), '1');
});

test('pools are counted together, whatever they take of a window', () => {
  const layers: LayerSpec[] = [
    { type: 'maxPool2d', poolSize: 2 },
    { type: 'avgPool2d', poolSize: 2 },
    { type: 'flatten' },
    { type: 'dense', units: 4 },
  ];
  const model = compileModel({ name: 'pools', layers }, { height: 8, width: 9, channels: 2 }, 4);
  assert.deepEqual(tableOf(model).slice(0, 2), ['pool1: 4 x 4 x 2, 0', 'pool2: 2 x 2 x 2, 0']);
});

function canonical(layer: object): string {
  return canonicalJson(v.parse(modelSpecSchema, { name: 'a', layers: [layer] }).layers);
}

test('a layer has one canonical form: defaults are left out, and what was always there stays as it was', () => {
  const conv = { type: 'conv2d', filters: 6, kernelSize: 5 };
  const before = '[{"filters":6,"kernelSize":5,"type":"conv2d"}]';
  for (const defaults of [
    {},
    { stride: 1 },
    { padding: 'valid' },
    { padding: 0 },
    { stride: 1, padding: 'valid' },
  ]) {
    assert.equal(canonical({ ...conv, ...defaults }), before, JSON.stringify(defaults));
  }
  assert.equal(
    canonical({ ...conv, stride: 2, padding: 'same' }),
    '[{"filters":6,"kernelSize":5,"padding":"same","stride":2,"type":"conv2d"}]',
  );
  assert.equal(
    canonical({ ...conv, padding: 2 }),
    '[{"filters":6,"kernelSize":5,"padding":2,"type":"conv2d"}]',
  );
});

const small = { height: 4, width: 6, channels: 2 };
const vector = { height: 1, width: 1, channels: 5 };

const misfits: { why: string; input: Shape; layers: LayerSpec[]; message: RegExp }[] = [
  {
    why: 'a kernel larger than its input',
    input: small,
    layers: [{ type: 'relu' }, { type: 'conv2d', filters: 1, kernelSize: 5 }],
    message: /^Layer conv1 \(number 2 of model misfit\) gets 4 x 6 x 2 and needs at least 5 x 5 positions/,
  },
  {
    why: 'a kernel larger than its padded input',
    input: small,
    layers: [{ type: 'conv2d', filters: 1, kernelSize: 7, padding: 1 }],
    message: /^Layer conv1 .* gets 4 x 6 x 2 and needs at least 7 x 7 positions for its kernel, padding incl/,
  },
  {
    why: 'a padding as large as the kernel',
    input: small,
    layers: [{ type: 'conv2d', filters: 1, kernelSize: 3, padding: 3 }],
    message: /^Layer conv1 .* gets 4 x 6 x 2 and needs a padding below its kernelSize of 3, not 3/,
  },
  {
    why: 'a window of means larger than its input',
    input: small,
    layers: [{ type: 'avgPool2d', poolSize: 5 }],
    message: /^Layer pool1 .* gets 4 x 6 x 2 and needs at least 5 x 5 positions for its window/,
  },
  {
    why: 'a window larger than its input',
    input: small,
    layers: [
      { type: 'maxPool2d', poolSize: 2 },
      { type: 'maxPool2d', poolSize: 3 },
    ],
    message: /^Layer pool2 \(number 2 of model misfit\) gets 2 x 3 x 2 and needs at least 3 x 3 positions/,
  },
  {
    why: 'dense behind an image',
    input: small,
    layers: [{ type: 'dense', units: 3 }],
    message: /^Layer fc1 \(number 1 of model misfit\) gets 4 x 6 x 2 and needs a vector: put a flatten layer/,
  },
  {
    why: 'another number of outputs than classes',
    input: vector,
    layers: [{ type: 'dense', units: 4 }],
    message:
      /^Model misfit ends with 4 outputs, and the dataset has 3 classes: let its last layer be dense with units 3/,
  },
  {
    why: 'an image at the end',
    input: small,
    layers: [{ type: 'conv2d', filters: 3, kernelSize: 2 }],
    message: /^Model misfit ends with 3 x 5 x 3 outputs, and the dataset has 3 classes/,
  },
  {
    why: 'nothing to train',
    input: { height: 1, width: 3, channels: 1 },
    layers: [{ type: 'flatten' }],
    message: /^Model misfit has no parameters to train/,
  },
];

for (const { why, input, layers, message } of misfits) {
  test(`${why} is refused with LOCKSTEP_MODEL_SHAPE`, () => {
    assert.throws(() => compileModel({ name: 'misfit', layers }, input, 3), {
      name: 'LockstepError',
      code: 'LOCKSTEP_MODEL_SHAPE',
      message,
    });
  });
}

function isModel(layer: unknown, name = 'a.b-c_1'): boolean {
  return v.is(modelSpecSchema, { name, layers: [layer] });
}

test('the schema refuses what is no layer, sizes that are no positive integer, and unknown keys', () => {
  assert.ok(isModel({ type: 'dense', units: 3 }));
  assert.ok(isModel({ type: 'dropout', rate: 0 }));
  assert.ok(isModel({ type: 'conv2d', filters: 65_536, kernelSize: 3, stride: 2, padding: 2 }));
  assert.ok(isModel({ type: 'avgPool2d', poolSize: 2 }));
  for (const layer of [
    { type: 'lstm' },
    { type: 'dense' },
    { type: 'dense', units: 0 },
    { type: 'dense', units: 1.5 },
    { type: 'dense', units: '3' },
    { type: 'dense', units: 3, bias: false },
    { type: 'conv2d', filters: 3, kernelSize: -1 },
    { type: 'conv2d', filters: 65_537, kernelSize: 1 },
    { type: 'conv2d', filters: 3, kernelSize: 3, stride: 0 },
    { type: 'conv2d', filters: 3, kernelSize: 3, stride: null },
    { type: 'conv2d', filters: 3, kernelSize: 3, stride: [2, 2] },
    { type: 'conv2d', filters: 3, kernelSize: 3, padding: 'full' },
    { type: 'conv2d', filters: 3, kernelSize: 3, padding: -1 },
    { type: 'conv2d', filters: 3, kernelSize: 3, padding: 1.5 },
    { type: 'avgPool2d' },
    { type: 'maxPool2d', poolSize: 2, stride: 2 },
    { type: 'dropout', rate: 1 },
    { type: 'dropout', rate: -0.1 },
    { type: 'dropout', rate: NaN },
  ]) {
    assert.ok(!isModel(layer), JSON.stringify(layer));
  }
  assert.ok(!isModel({ type: 'relu' }, '../up'));
  assert.ok(!isModel({ type: 'relu' }, ''));
  assert.ok(!v.is(modelSpecSchema, { name: 'empty', layers: [] }));
});

test('a model of more parameters than memory can hold is refused', () => {
  const layers = [65_536, 65_536, 10].map(units => ({ type: 'dense' as const, units }));
  const spec = { name: 'huge', layers: [{ type: 'flatten' as const }, ...layers] };
  assert.throws(() => compileModel(spec, { height: 4, width: 4, channels: 1 }, 10), {
    code: 'LOCKSTEP_MODEL_SHAPE',
    message: /^Model huge has 4296802314 parameters, and 67108864 are possible\.$/,
  });
});

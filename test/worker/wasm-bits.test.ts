// The wasm engine against its scalar reference, bit for bit, on an awkward grid of models.

import { test } from 'node:test';
import * as fc from 'fast-check';
import { loadMnist } from '#dist/coordinator/mnist.js';
import type { LabelledImages } from '#dist/shared/dataset.js';
import { initialWeights } from '#dist/shared/initial-weights.js';
import { LockstepError } from '#dist/shared/errors.js';
import { compileModel, type LayerSpec } from '#dist/shared/model.js';
import type { Shape } from '#dist/shared/shape.js';
import { presetNames, presetSpec } from '#dist/shared/presets.js';
import {
  assertSameLoss,
  assertSameResult,
  createFixture,
  randomWeights,
  zeroBlack,
  type FixtureOptions,
} from '../support/engine-fixture.js';
import { assertSameBits } from '../support/bits.js';
import { checkAsyncProperty, Random, randomTest, testSeed } from '../support/random.js';

const conv = (filters: number, kernelSize: number): LayerSpec => ({ type: 'conv2d', filters, kernelSize });
/** A convolution with a stride and perhaps padding. */
const strided = (
  filters: number,
  kernelSize: number,
  stride: number,
  padding?: 'same' | number,
): LayerSpec => ({ type: 'conv2d', filters, kernelSize, stride, ...(padding !== undefined && { padding }) });
const pool = (poolSize: number): LayerSpec => ({ type: 'maxPool2d', poolSize });
const average = (poolSize: number): LayerSpec => ({ type: 'avgPool2d', poolSize });
const dense = (units: number): LayerSpec => ({ type: 'dense', units });
const dropout = (rate: number): LayerSpec => ({ type: 'dropout', rate });
const relu: LayerSpec = { type: 'relu' };
const flatten: LayerSpec = { type: 'flatten' };

function describe(layers: readonly LayerSpec[], { height, width, channels }: Shape): string {
  return `${height}x${width}x${channels} ${layers.map(spec => Object.values(spec).join(' ')).join(', ')}`;
}

/** One leaf with its gradient and one evaluation, by both engines. */
async function compare(
  options: Omit<FixtureOptions, 'samples'>,
  leafSamples: number,
  weights?: Float32Array,
): Promise<void> {
  const { random, layers, input } = options;
  const fixture = createFixture({
    samples: Math.max(6, leafSamples),
    leaf: Math.min(leafSamples, 32),
    ...options,
  });
  const { model, gradientOf, createEngine } = fixture;
  const view = fixture.putWeights(weights ?? randomWeights(model, random));
  const leaf = {
    step: random.integer(1000),
    lane: random.integer(64),
    positions: random.distinct(leafSamples, Math.max(6, leafSamples)),
  };
  const wasm = createEngine('wasm');
  const reference = createEngine('reference');
  await wasm.useWeights(view);
  await reference.useWeights(view);
  const what = describe(layers, input);
  assertSameResult(model, await gradientOf(wasm, leaf), await gradientOf(reference, leaf), what);
  const evaluated = leaf.positions.subarray(0, 40);
  const logits = new Float32Array(evaluated.length * model.classes);
  const expected = logits.slice();
  assertSameLoss(
    await wasm.evaluate('test', evaluated, logits),
    await reference.evaluate('test', evaluated, expected),
    `${what}: evaluation`,
  );
  assertSameBits(logits, expected, `${what}: logits`);
}

const kernelSizes = [1, 2, 3, 5];
const filterCounts = [1, 2, 3, 4, 5, 6, 8, 11, 12, 13, 16, 17, 21];
const channelCounts = [1, 2, 3, 6, 7];

for (const kernelSize of kernelSizes) {
  for (const channels of channelCounts) {
    randomTest(
      `convolutions of size ${kernelSize} on ${channels} channels: every number of filters`,
      async random => {
        for (const [i, filters] of filterCounts.entries()) {
          // Output widths 1 to 9: whole register tiles of 2 and 4 pixels, and every rest.
          const width = kernelSize + ((i + channels) % 9);
          const input = { height: kernelSize + (i % 4), width, channels };
          const normalization = i % 2 === 0 ? { normalization: zeroBlack } : {};
          const head = [conv(filters, kernelSize), relu, flatten, dense(3)];
          await compare({ layers: head, input, random, ...normalization }, 3);
          // The same convolution behind another one, so that it passes a gradient on to its input.
          const deep = [conv(channels, 1), relu, ...head];
          await compare({ layers: deep, input: { ...input, channels: 1 + (i % 3) }, random }, 3);
        }
      },
    );
  }
}

const strides = [1, 2, 3, 4];
const paddings = [undefined, 'same', 1, 2] as const;
const tails: Record<string, LayerSpec[]> = {
  relu: [relu],
  'relu, pool 2': [relu, pool(2)],
  'pool 3': [pool(3)],
  'average pool 2': [average(2)],
  nothing: [],
};

for (const stride of strides) {
  for (const padding of paddings) {
    randomTest(`convolutions of stride ${stride} with padding ${padding ?? 'valid'}`, async random => {
      for (const kernelSize of [1, 2, 3, 5]) {
        if (typeof padding === 'number' && padding >= kernelSize) continue;
        for (const [name, tail] of Object.entries(tails)) {
          const least = name.endsWith('3') ? 3 : name.endsWith('2') ? 2 : 1;
          const around = typeof padding === 'number' ? 2 * padding : 0;
          const extent = (): number => {
            const outputs = least + random.integer(5);
            if (padding === 'same') return (outputs - 1) * stride + 1 + random.integer(stride);
            return Math.max(1, (outputs - 1) * stride + kernelSize - around) + random.integer(stride);
          };
          const filters = random.pick([1, 3, 4, 6, 8, 13, 16]);
          const input = { height: extent(), width: extent(), channels: 1 + random.integer(3) };
          const layers = [strided(filters, kernelSize, stride, padding), ...tail, flatten, dense(4)];
          await compare({ layers, input, random }, 3);
          await compare({ layers, input, random, normalization: zeroBlack }, 3);
          // The same behind another convolution, so that it passes a gradient on to its input.
          await compare({ layers: [conv(input.channels, 1), relu, ...layers], input, random }, 3);
        }
      }
    });
  }
}

randomTest('padded first convolutions on images with blank regions', async random => {
  for (const kernelSize of [3, 5, 7]) {
    for (const padding of ['same', 1, 2] as const) {
      for (const width of [8, 9, 12, 17]) {
        // Around the 64 rows, padding included, that the kernel for images takes.
        const input = {
          height: width === 9 ? 60 + random.integer(4) : 8 + random.integer(9),
          width,
          channels: 1,
        };
        const layers = [strided(5, kernelSize, 1, padding), relu, pool(2), flatten, dense(4)];
        const sets = { train: inkedSet(random, 9, input), test: inkedSet(random, 9, input) };
        await compare({ layers, input, random, sets }, 9);
        await compare({ layers, input, random, sets, normalization: zeroBlack }, 9);
      }
    }
  }
});

for (const extents of [
  [1, 7],
  [6, 1],
  [1, 1],
] as const) {
  randomTest(`images of ${extents.join(' x ')}`, async random => {
    const [height, width] = extents;
    for (const channels of [1, 3]) {
      const input = { height, width, channels };
      for (const layers of [
        [conv(4, 1), relu, flatten, dense(4)],
        [strided(4, 3, 1, 'same'), relu, strided(5, 2, 2, 'same'), flatten, dense(4)],
        [strided(5, 3, 2, 1), average(1), flatten, dense(4)],
        [flatten, strided(5, 3, 1, 'same'), flatten, dense(4)],
      ]) {
        await compare({ layers, input, random }, 5);
      }
    }
  });
}

for (const channels of channelCounts) {
  randomTest(`Winograd's convolution of ${channels} channels: every number of filters`, async random => {
    for (const [i, filters] of filterCounts.entries()) {
      for (const cells of [[], [pool(2)], [relu, pool(4)]]) {
        const poolSize = [1, 2, 4][cells.length];
        const width = 4 + poolSize + ((i + channels) % 9);
        const input = { height: random.pick([8, 12]), width, channels: 1 + (i % 3) };
        for (const five of [conv(filters, 5), strided(filters, 5, 1, 'same')]) {
          const layers = [conv(channels, 1), relu, five, ...cells, relu, flatten, dense(3)];
          await compare({ layers, input, random }, 3);
        }
      }
    }
  });
}

const unitCounts = [1, 3, 7, 10, 12, 20, 21, 24, 25, 44, 84, 120];

for (const units of unitCounts) {
  randomTest(`dense layers of ${units} units before and behind every other number of units`, async random => {
    for (const [i, others] of unitCounts.entries()) {
      const input = { height: 1, width: 2 + i, channels: 1 + (i % 3) };
      const normalization = i % 2 === 0 ? { normalization: zeroBlack } : {};
      const layers = [flatten, dense(units), relu, dense(others), ...(i % 3 ? [relu] : []), dense(4)];
      await compare({ layers, input, random, ...normalization }, 4);
    }
  });
}

for (const classes of [1, 2, 9, 26, 100]) {
  randomTest(`${classes} classes`, async random => {
    const layers = [flatten, dense(5), relu, dense(classes)];
    await compare({ layers, input: { height: 3, width: 3, channels: 1 }, random }, 9);
  });
}

for (const poolSize of [2, 3]) {
  for (const filters of [1, 3, 4, 6, 9]) {
    randomTest(
      `pooling by ${poolSize} of ${filters} channels, with and without rows that are left over`,
      async random => {
        for (let rest = 0; rest < poolSize; rest++) {
          for (let restColumns = 0; restColumns < poolSize; restColumns++) {
            const input = {
              height: 2 * poolSize + rest,
              width: 3 * poolSize + restColumns,
              channels: filters,
            };
            await compare({ layers: [pool(poolSize), flatten, dense(3)], input, random }, 3);
            const behindConv = [conv(filters, 2), pool(poolSize), conv(5, 1), relu, flatten, dense(3)];
            const larger = { height: input.height + 1, width: input.width + 1, channels: 2 };
            await compare({ layers: behindConv, input: larger, random }, 3);
            const averages = [conv(filters, 2), average(poolSize), conv(5, 1), relu, flatten, dense(3)];
            await compare({ layers: averages, input: larger, random }, 3);
            await compare({ layers: [average(poolSize), flatten, dense(3)], input, random }, 3);
          }
        }
      },
    );
  }
}

const orders: Record<string, LayerSpec[]> = {
  'relu before pool': [conv(6, 3), relu, pool(2), flatten, dense(4)],
  'relu after pool': [conv(6, 3), pool(2), relu, flatten, dense(4)],
  'relu on both sides of pool': [conv(6, 3), relu, pool(2), relu, flatten, dense(4)],
  'dropout before relu': [
    conv(5, 3),
    dropout(0.25),
    relu,
    pool(2),
    flatten,
    dense(7),
    dropout(0.5),
    relu,
    dense(4),
  ],
  'dropout after relu': [
    conv(5, 3),
    relu,
    dropout(0.25),
    pool(2),
    flatten,
    dense(7),
    relu,
    dropout(0.5),
    dense(4),
  ],
  'dropout between pool and convolution': [
    conv(3, 2),
    pool(2),
    dropout(0.5),
    conv(5, 2),
    relu,
    flatten,
    dense(4),
  ],
  'dropout first, before a convolution': [dropout(0.25), conv(5, 3), relu, flatten, dense(4)],
  'dropout first, before a dense layer': [flatten, dropout(0.5), dense(9), relu, dense(4)],
  'dropout last': [flatten, dense(9), relu, dense(4), dropout(0.25)],
  'two dropouts in a row': [flatten, dense(9), dropout(0.25), dropout(0.5), relu, dense(4)],
  'dropout between a convolution and its pool': [
    conv(5, 3),
    dropout(0.3),
    relu,
    { type: 'maxPool2d', poolSize: 2 },
    flatten,
    dense(4),
  ],
  'dropout at rate 0': [conv(5, 3), dropout(0), relu, flatten, dense(4)],
  'dropout of nearly everything': [conv(5, 3), dropout(0.99), relu, flatten, dense(4)],
  'two convolutions without pool': [conv(4, 3), relu, conv(7, 3), relu, flatten, dense(4)],
  'three convolutions without anything between': [conv(3, 2), conv(5, 2), conv(2, 3), flatten, dense(4)],
  'relu first': [relu, conv(5, 3), relu, flatten, dense(4)],
  'pool first': [pool(2), conv(5, 2), relu, flatten, dense(4)],
  'flatten and relu first': [flatten, relu, dense(8), relu, dense(4)],
  'dense only': [flatten, dense(4)],
  'dense layers without relu': [flatten, dense(12), dense(9), dense(4)],
  'relu twice, flatten twice': [conv(4, 3), relu, relu, flatten, flatten, dense(4)],
  'relu last': [flatten, dense(9), relu, dense(4), relu],
  'pool last': [conv(4, 3), pool(3), conv(4, 1), pool(2), flatten],
  'convolution directly followed by flatten': [conv(4, 4), flatten, dense(4)],
  'convolution of the whole image to the classes': [conv(3, 3), relu, conv(4, 6), flatten],
  'two pools in a row': [conv(6, 2), pool(2), pool(2), flatten, dense(4)],
  'average pool first': [average(2), conv(5, 2), relu, flatten, dense(4)],
  'average pool between relus': [conv(6, 3), relu, average(2), relu, flatten, dense(4)],
  'average pool of a pool, then a convolution': [
    conv(6, 2),
    pool(2),
    average(2),
    conv(4, 1),
    flatten,
    dense(4),
  ],
  'average pool last': [conv(4, 3), relu, average(6), flatten],
  'padding first': [strided(5, 3, 1, 'same'), relu, pool(2), flatten, dense(4)],
  'padding behind a relu': [relu, strided(5, 3, 1, 2), relu, flatten, dense(4)],
  'padding behind a dropout': [dropout(0.25), strided(5, 3, 2, 'same'), relu, flatten, dense(4)],
  'padded convolutions in a row': [
    strided(5, 3, 1, 'same'),
    strided(6, 5, 2, 'same'),
    strided(4, 2, 1, 1),
    flatten,
    dense(4),
  ],
  'strides instead of pools': [strided(6, 3, 2), relu, strided(9, 3, 2), relu, flatten, dense(4)],
  'a stride above the kernel': [strided(6, 2, 3), relu, strided(5, 1, 2), flatten, dense(4)],
};

for (const [order, layers] of Object.entries(orders)) {
  randomTest(`layers in the order: ${order}`, async random => {
    const isWholeImage = order.startsWith('convolution of the whole');
    for (const channels of [1, 2, 3]) {
      const input = { height: 8, width: isWholeImage ? 8 : 9, channels };
      // 33 and 70 samples go through the layers in several tiles.
      for (const leafSamples of [1, 5, 33, 70]) {
        await compare({ layers, input, classes: 4, random }, leafSamples);
        await compare({ layers, input, classes: 4, random, normalization: zeroBlack }, leafSamples);
      }
    }
  });
}

for (const gain of [0, 1e-30, 1e-6, 30]) {
  randomTest(`weights of scale ${gain}`, async random => {
    const layers = [conv(6, 3), relu, pool(2), conv(5, 2), relu, flatten, dense(9), relu, dense(4)];
    const { model } = createFixture({
      layers,
      input: { height: 9, width: 9, channels: 2 },
      samples: 1,
      random,
    });
    const weights = randomWeights(model, random, gain);
    await compare({ layers, input: model.input, random }, 35, weights);
  });
}

/** Images on a black background: bands, a spot or lines of ink, no ink at all, or ink everywhere. */
function inkedSet(random: Random, samples: number, { height, width, channels }: Shape): LabelledImages {
  const images = new Uint8Array(samples * height * width * channels);
  for (let s = 0; s < samples; s++) {
    const rows = Array.from({ length: height }, () => random.chance(0.5));
    const columns = Array.from({ length: width }, () => random.chance(0.5));
    const [top, left] = [random.integer(height), random.integer(width)];
    const kind = random.integer(6);
    for (let i = 0; i < height * width * channels; i++) {
      const [row, column] = [Math.floor(i / channels / width), Math.floor(i / channels) % width];
      const isInked = [
        kind === 0,
        kind === 1 && rows[row] && columns[column],
        kind === 2 && (row < top || column > left),
        kind === 3 && Math.abs(row - top) < 4 && Math.abs(column - left) < 3,
        kind === 4 && row === height - 1,
      ].includes(true);
      if (isInked) images[s * height * width * channels + i] = random.integer(256);
    }
  }
  return { images, labels: Uint8Array.from({ length: samples }, () => random.integer(4)) };
}

/** What can stand behind a first convolution. */
const heads: Record<string, LayerSpec[]> = {
  'relu, pool 2': [relu, pool(2)],
  'pool 2, relu': [pool(2), relu],
  'pool 2': [pool(2)],
  'relu, pool 2, dropout': [relu, pool(2), dropout(0.25)],
  'relu, pool 3': [relu, pool(3)],
  relu: [relu],
  nothing: [],
};

for (const [name, head] of Object.entries(heads)) {
  for (const kernelSize of [1, 2, 3, 5, 7]) {
    randomTest(
      `a first convolution of size ${kernelSize}, then ${name}, on images with blank regions`,
      async random => {
        const least = name.endsWith('pool 3') ? 3 : 2;
        // Around what the kernel for images takes: outputs from 8 columns on, inputs of up to 64 rows.
        for (const outWidth of [7, 8, 9, 10, 11, 13, 15, 18]) {
          const heights = outWidth === 9 ? [63, 64, 65] : [kernelSize - 1 + least + random.integer(12)];
          for (const height of heights) {
            const filters = 1 + random.integer(7);
            const input = { height, width: outWidth + kernelSize - 1, channels: 1 };
            const behind = height < 60 && random.chance(0.3) ? [conv(3, 1), relu] : [];
            const layers = [conv(filters, kernelSize), ...head, ...behind, flatten, dense(4)];
            const sets = { train: inkedSet(random, 9, input), test: inkedSet(random, 9, input) };
            await compare({ layers, input, random, sets }, 9);
            await compare({ layers, input, random, sets, normalization: zeroBlack }, 9);
          }
        }
      },
    );
  }
}

randomTest('a first dense layer on images with blank regions', async random => {
  for (const units of [1, 3, 4, 7, 20, 23, 24, 49]) {
    for (const [height, width] of [
      [1, 1],
      [3, 5],
      [4, 4],
      [5, 7],
      [28, 28],
    ]) {
      for (const channels of [1, 3]) {
        const input = { height, width, channels };
        const layers = [flatten, dense(units), relu, dense(4)];
        const sets = { train: inkedSet(random, 40, input), test: inkedSet(random, 40, input) };
        await compare({ layers, input, random, sets }, 40);
        await compare({ layers, input, random, sets, normalization: zeroBlack }, 40);
      }
    }
  }
});

const small = (max: number): fc.Arbitrary<number> => fc.integer({ min: 1, max });

test('any model of up to eight layers, on any images', async () => {
  const layerArbitrary: fc.Arbitrary<LayerSpec> = fc.oneof(
    { weight: 3, arbitrary: fc.tuple(small(22), small(5)).map(([filters, size]) => conv(filters, size)) },
    {
      weight: 2,
      arbitrary: fc
        .tuple(small(22), small(4), small(4), fc.constantFrom('same' as const, 0, 1, 2, 3))
        .map(([filters, size, stride, padding]) => strided(filters, size, stride, padding)),
    },
    { weight: 1, arbitrary: fc.constantFrom(pool(2), pool(3), average(2), average(3)) },
    { weight: 3, arbitrary: fc.constant(relu) },
    { weight: 1, arbitrary: fc.constantFrom(0, 0.25, 0.5, 0.75).map(dropout) },
  );
  const property = fc.asyncProperty(
    fc.record({ height: small(12), width: small(12), channels: small(8) }),
    fc.array(layerArbitrary, { maxLength: 4 }),
    fc.array(fc.oneof(fc.constant(relu), small(50).map(dense), fc.constant(dropout(0.5))), { maxLength: 3 }),
    small(12),
    small(40),
    fc.boolean(),
    fc.nat(),
    async (input, front, back, classes, leafSamples, isZeroBlack, stream) => {
      const layers = [...fitting(front, input), flatten, ...back, dense(classes)];
      const normalization = isZeroBlack ? { normalization: zeroBlack } : {};
      const random = new Random(`any model ${stream}`);
      await compare({ layers, input, random, ...normalization }, leafSamples);
    },
  );
  await checkAsyncProperty(property, 200);
});

/** Those of the layers, in turn, that can take what they are given. */
function fitting(layers: readonly LayerSpec[], input: Shape): LayerSpec[] {
  const fit: LayerSpec[] = [];
  for (const layer of layers) {
    if (isGood([...fit, layer, flatten, dense(1)], input)) fit.push(layer);
  }
  return fit;
}

function isGood(layers: LayerSpec[], input: Shape): boolean {
  try {
    compileModel({ name: 'test', layers }, input, 1);
    return true;
  } catch (error) {
    if (error instanceof LockstepError && error.code === 'LOCKSTEP_MODEL_SHAPE') return false;
    throw error;
  }
}

const mnist = loadMnist();
const first = ({ images, labels }: typeof mnist.train, samples: number) => ({
  images: images.subarray(0, samples * 28 * 28),
  labels: labels.subarray(0, samples),
});

for (const preset of presetNames) {
  const { layers } = presetSpec(preset, mnist.classes);
  // More samples than pass through the layers together.
  const samples = 40;
  const options = {
    layers,
    input: mnist.shape,
    sets: { train: first(mnist.train, samples), test: first(mnist.test, samples) },
  };

  randomTest(`${preset} on MNIST digits, with weights as training leaves them`, random =>
    compare({ ...options, random }, samples),
  );

  randomTest(`${preset} on MNIST digits, with initial weights`, async random => {
    const { model } = createFixture({ ...options, samples, random });
    await compare({ ...options, random }, samples, initialWeights(model, testSeed));
  });

  randomTest(`${preset} on random 28 x 28 images`, random =>
    compare({ layers, input: mnist.shape, random }, 9),
  );
}

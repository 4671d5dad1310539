// What every engine promises, whatever its arithmetic: one suite, run against each from `engines.test.ts`.

import assert from 'node:assert/strict';
import { gradientBound, roundLoss } from '#dist/shared/exact-sum.js';
import type { LayerSpec } from '#dist/shared/model.js';
import { exp, log } from '#dist/shared/math.js';
import type { Shape } from '#dist/shared/shape.js';
import { predictedClass } from '#dist/shared/softmax.js';
import type { Engine, Leaf, LeafResult } from '#dist/worker/engines/engine.js';
import { assertSameBits, hasSameBits } from '../support/bits.js';
import {
  assertSameLoss,
  assertSameResult,
  createFixture,
  largestMagnitude,
  randomWeights,
  type EngineFixture,
  type FixtureOptions,
  type EngineName,
} from '../support/engine-fixture.js';
import { randomTest, type Random } from '../support/random.js';

interface Case {
  readonly input: Shape;
  readonly layers: readonly LayerSpec[];
}

const plain: Record<string, Case> = {
  convolutions: {
    input: { height: 9, width: 10, channels: 2 },
    layers: [
      { type: 'conv2d', filters: 5, kernelSize: 3 },
      { type: 'relu' },
      { type: 'maxPool2d', poolSize: 2 },
      { type: 'conv2d', filters: 6, kernelSize: 2 },
      { type: 'relu' },
      { type: 'flatten' },
      { type: 'dense', units: 11 },
      { type: 'relu' },
      { type: 'dense', units: 4 },
    ],
  },
  'strides, padding and average pools': {
    input: { height: 9, width: 10, channels: 1 },
    layers: [
      { type: 'conv2d', filters: 4, kernelSize: 3, padding: 'same' },
      { type: 'relu' },
      { type: 'maxPool2d', poolSize: 2 },
      { type: 'conv2d', filters: 6, kernelSize: 3, stride: 2, padding: 1 },
      { type: 'relu' },
      { type: 'avgPool2d', poolSize: 2 },
      { type: 'flatten' },
      { type: 'dense', units: 4 },
    ],
  },
  "Winograd's convolution": {
    input: { height: 12, width: 11, channels: 1 },
    layers: [
      { type: 'conv2d', filters: 3, kernelSize: 1 },
      { type: 'relu' },
      { type: 'conv2d', filters: 5, kernelSize: 5 },
      { type: 'relu' },
      { type: 'maxPool2d', poolSize: 2 },
      { type: 'flatten' },
      { type: 'dense', units: 4 },
    ],
  },
  'dense layers': {
    input: { height: 5, width: 5, channels: 1 },
    layers: [{ type: 'flatten' }, { type: 'dense', units: 7 }, { type: 'relu' }, { type: 'dense', units: 3 }],
  },
};

const withDropout: Case = {
  input: { height: 8, width: 7, channels: 1 },
  layers: [
    { type: 'conv2d', filters: 4, kernelSize: 3 },
    { type: 'relu' },
    { type: 'maxPool2d', poolSize: 2 },
    { type: 'dropout', rate: 0.25 },
    { type: 'flatten' },
    { type: 'dense', units: 9 },
    { type: 'relu' },
    { type: 'dropout', rate: 0.5 },
    { type: 'dense', units: 4 },
  ],
};

const cases: Record<string, Case> = { ...plain, dropout: withDropout };
const SAMPLES = 80;

/** A fixture with one engine that has taken random weights. */
async function begin(
  name: EngineName,
  { input, layers }: Case,
  random: Random,
  more: Pick<FixtureOptions, 'leaf' | 'seed' | 'lossBound'> = {},
): Promise<EngineFixture & { engine: Engine; weights: Float32Array }> {
  const fixture = createFixture({ input, layers, samples: SAMPLES, leaf: 32, random, ...more });
  const engine = fixture.createEngine(name);
  const weights = fixture.putWeights(randomWeights(fixture.model, random));
  await engine.useWeights(weights);
  return { ...fixture, engine, weights };
}

function leafOf(positions: Iterable<number>, step = 3, lane = 2): Leaf {
  return { step, lane, positions: Uint32Array.from(positions) };
}

/** A bad leaf shows as a loss that is not finite or as a gradient that the exact sum refuses. */
function isNoticed({ isLossFinite }: LeafResult, gradient: Float32Array): boolean {
  const bound = gradientBound(1);
  return !isLossFinite || gradient.some(component => !(Math.abs(component) <= bound));
}

export function engineContract(name: EngineName): void {
  const promise = (words: string, body: (random: Random) => Promise<void>): void =>
    randomTest(`${name}: ${words}`, body);

  for (const [kind, model] of Object.entries(plain)) {
    // 5 is a short leaf, 32 a whole one; 70 is longer than what passes through the layers together.
    for (const length of [1, 5, 32, 70]) {
      promise(`the gradient of a leaf of ${length} is the sum over its samples: ${kind}`, async random => {
        const { engine, gradientOf, model: compiled } = await begin(name, model, random);
        const positions = random.distinct(length, SAMPLES);
        const { gradient } = await gradientOf(engine, leafOf(positions));
        const sum = new Float64Array(gradient.length);
        for (const position of positions) {
          const single = await gradientOf(engine, leafOf([position]));
          for (const [i, component] of single.gradient.entries()) sum[i] += component;
        }
        for (const { name: tensor, offset, size } of compiled.tensors) {
          const tolerance = 2e-5 * largestMagnitude(sum.subarray(offset, offset + size));
          // A single sample may leave a unit without a gradient, a whole leaf does not leave a tensor without one.
          assert.ok(length < 32 || tolerance > 0, `${tensor} has no gradient at all`);
          for (let i = offset; i < offset + size; i++) {
            const error = Math.abs(gradient[i] - sum[i]);
            assert.ok(error <= tolerance, `${tensor}[${i - offset}]: ${gradient[i]}, sum ${sum[i]}`);
          }
        }
      });
    }
  }

  for (const [kind, model] of Object.entries(cases)) {
    promise(`behind the last parameter the gradient is zero, whatever was there: ${kind}`, async random => {
      const { engine, gradientOf, model: compiled } = await begin(name, model, random);
      const { gradient } = await gradientOf(engine, leafOf([0, 1, 2]));
      assert.ok(compiled.paddedCount > compiled.parameterCount);
      const behind = gradient.subarray(compiled.parameterCount);
      assert.ok(
        behind.every(component => Object.is(component, 0)),
        `${behind[0]} behind the last parameter`,
      );
    });

    promise(
      `a leaf's loss and correct count are those of training mode on its samples: ${kind}`,
      async random => {
        const { engine, gradientOf } = await begin(name, model, random);
        const hasDropout = model.layers.some(({ type }) => type === 'dropout');
        const positions = random.distinct(20, SAMPLES);
        const leaf = await gradientOf(engine, leafOf(positions));
        const evaluated = await engine.evaluate('train', positions);
        assert.ok(leaf.isLossFinite && evaluated.isLossFinite);
        if (hasDropout) assert.notEqual(leaf.lossSum, evaluated.lossSum);
        else assertSameLoss(leaf, evaluated, 'a leaf and its evaluation');
      },
    );

    promise(`an evaluation is exactly the sum of single evaluations, in any order: ${kind}`, async random => {
      const { engine } = await begin(name, model, random);
      const positions = random.distinct(70, SAMPLES);
      const whole = await engine.evaluate('test', positions);
      let lossSum = 0;
      let correct = 0;
      for (const position of positions.toReversed()) {
        const single = await engine.evaluate('test', Uint32Array.of(position));
        assert.ok(single.correct === 0 || single.correct === 1);
        assert.equal(single.lossSum, roundLoss(single.lossSum), 'off the loss grid');
        lossSum += single.lossSum;
        correct += single.correct;
      }
      assertSameLoss(whole, { lossSum, correct, isLossFinite: true }, '70 samples');
    });

    promise(
      `an evaluation's logits are those of its loss and predictions, row by row: ${kind}`,
      async random => {
        const { engine, job } = await begin(name, model, random);
        const { classes } = job.model;
        const positions = random.distinct(70, SAMPLES);
        const logits = new Float32Array(70 * classes).fill(NaN);
        const whole = await engine.evaluate('test', positions, logits);
        let lossSum = 0;
        let correct = 0;
        for (const [i, position] of positions.entries()) {
          const row = logits.subarray(i * classes, (i + 1) * classes);
          const single = new Float32Array(classes).fill(NaN);
          await engine.evaluate('test', Uint32Array.of(position), single);
          assertSameBits(row, single, `logits of sample ${position}`);
          const label = job.sets.test.labels[position];
          const most = Math.max(...row);
          const sum = row.reduce((total, logit) => total + exp(logit - most), 0);
          lossSum += roundLoss(log(sum) - (row[label] - most));
          correct += predictedClass(row) === label ? 1 : 0;
        }
        assertSameLoss(whole, { lossSum, correct, isLossFinite: true }, 'from the logits');
        assertSameLoss(whole, await engine.evaluate('test', positions), 'without logits');
      },
    );

    promise(`a leaf gives the same bits again, whatever was computed in between: ${kind}`, async random => {
      const { engine, weights, gradientOf, model: compiled, putWeights } = await begin(name, model, random);
      const leaf = leafOf(random.distinct(33, SAMPLES), 7, 1);
      const first = await gradientOf(engine, leaf);
      assertSameResult(compiled, await gradientOf(engine, leaf), first, 'at once');

      await gradientOf(engine, leafOf(random.distinct(70, SAMPLES), 8, 5));
      assertSameResult(compiled, await gradientOf(engine, leaf), first, 'after a longer leaf');

      await gradientOf(engine, leafOf([0], 9, 0));
      assertSameResult(compiled, await gradientOf(engine, leaf), first, 'after a short leaf');

      await engine.evaluate('test', random.distinct(40, SAMPLES));
      assertSameResult(compiled, await gradientOf(engine, leaf), first, 'after an evaluation');

      await engine.useWeights(putWeights(randomWeights(compiled, random), 1));
      await gradientOf(engine, leaf);
      await engine.useWeights(weights);
      assertSameResult(compiled, await gradientOf(engine, leaf), first, 'after other weights');

      await engine.useWeights(putWeights(new Float32Array(compiled.paddedCount).fill(NaN), 1));
      await gradientOf(engine, leafOf(random.distinct(70, SAMPLES)));
      await engine.useWeights(weights);
      assertSameResult(compiled, await gradientOf(engine, leaf), first, 'after a leaf full of NaN');
    });

    promise(`weights that come later count as those that came first: ${kind}`, async random => {
      const {
        engine,
        gradientOf,
        createEngine,
        model: compiled,
        putWeights,
      } = await begin(name, model, random);
      const leaf = leafOf(random.distinct(12, SAMPLES));
      const before = await gradientOf(engine, leaf);
      const later = putWeights(randomWeights(compiled, random), 1);
      await engine.useWeights(later);
      const after = await gradientOf(engine, leaf);
      assert.ok(!hasSameBits(before.gradient, after.gradient), 'the new weights have no effect');
      assert.notEqual(before.lossSum, after.lossSum);

      const other = createEngine(name);
      await other.useWeights(later);
      assertSameResult(compiled, after, await gradientOf(other, leaf), 'two engines, one bank');
    });

    promise(`the parts of a leaf's sample list matter only by what they name: ${kind}`, async random => {
      const { engine, gradientOf, model: compiled } = await begin(name, model, random);
      const buffer = new Uint32Array(40).fill(2 ** 31);
      buffer.set([5, 9, 5], 17);
      const view = buffer.subarray(17, 20);
      const result = await gradientOf(engine, { step: 0, lane: 0, positions: view });
      assertSameResult(compiled, result, await gradientOf(engine, leafOf([5, 9, 5], 0, 0)), 'a view');
    });

    promise(`no leaf writes to the weights, the images or the labels: ${kind}`, async random => {
      const { engine, gradientOf, job, weights } = await begin(name, model, random);
      const held = (): Uint8Array[] => [
        new Uint8Array(weights.buffer, weights.byteOffset, weights.byteLength).slice(),
        ...Object.values(job.sets).flatMap(({ images, labels }) => [images.slice(), labels.slice()]),
      ];
      const before = held();
      await gradientOf(engine, leafOf(random.distinct(70, SAMPLES)));
      await engine.evaluate('test', random.distinct(70, SAMPLES));
      assert.deepEqual(held(), before);
    });
  }

  promise('gradients are taken on the training set, evaluations on the set that is named', async random => {
    const { engine, gradientOf, job } = await begin(name, plain['dense layers'], random);
    const positions = random.distinct(9, SAMPLES);
    const leaf = await gradientOf(engine, leafOf(positions));
    const train = await engine.evaluate('train', positions);
    const test = await engine.evaluate('test', positions);
    assertSameLoss(leaf, train, 'training set');
    assert.notEqual(test.lossSum, train.lossSum);

    job.sets.test.images.set(job.sets.train.images);
    job.sets.test.labels.set(job.sets.train.labels);
    assertSameLoss(await engine.evaluate('test', positions), train, 'the same images in the other set');
  });

  promise('without weights every class is equally likely, and the first one is predicted', async random => {
    const { engine, gradientOf, job, putWeights, model } = await begin(name, plain.convolutions, random);
    await engine.useWeights(putWeights(new Float32Array(model.paddedCount)));
    const positions = Uint32Array.from({ length: 70 }, (_, i) => i);
    const { lossSum, correct, gradient } = await gradientOf(engine, leafOf(positions));
    assert.equal(lossSum, 70 * roundLoss(Math.log(4)));
    const counts = [0, 1, 2, 3].map(
      label => positions.filter(i => job.sets.train.labels[i] === label).length,
    );
    assert.equal(correct, counts[0]);
    // The last layer's bias gets softmax - one-hot of every sample: quarters and integers, exact in f32.
    const { offset, size } = model.tensors.at(-1)!;
    assert.deepEqual(
      [...gradient.subarray(offset, offset + size)],
      counts.map(count => 70 / 4 - count),
    );
  });

  promise('a model that is sure of one class is correct where that is the label', async random => {
    const { engine, gradientOf, job, putWeights, model } = await begin(name, plain['dense layers'], random);
    for (let sure = 0; sure < 3; sure++) {
      const weights = new Float32Array(model.paddedCount);
      weights[model.tensors.at(-1)!.offset + sure] = 5;
      await engine.useWeights(putWeights(weights));
      const positions = Uint32Array.from({ length: SAMPLES }, (_, i) => i);
      const right = job.sets.test.labels.filter(label => label === sure).length;
      const { correct, lossSum } = await engine.evaluate('test', positions);
      assert.equal(correct, right);
      const loss = Math.log(1 + 2 * Math.exp(-5));
      assert.ok(Math.abs(lossSum - (SAMPLES * loss + 5 * (SAMPLES - right))) < SAMPLES * 2 ** -20);
      const { gradient } = await gradientOf(engine, leafOf(positions.subarray(0, 1)));
      assert.equal(
        gradient.filter(component => component !== 0).length,
        3,
        'only the last bias has a gradient',
      );
    }
  });

  promise('dropout is keyed by seed, step, lane and place in the leaf', async random => {
    const { engine, gradientOf } = await begin(name, withDropout, random);
    const positions = [3, 14, 15, 9, 26];
    const base = await gradientOf(engine, leafOf(positions, 6, 2));
    const others = {
      'another step': await gradientOf(engine, leafOf(positions, 7, 2)),
      'another lane': await gradientOf(engine, leafOf(positions, 6, 3)),
      'step and lane exchanged': await gradientOf(engine, leafOf(positions, 2, 6)),
    };
    for (const [what, { gradient, lossSum }] of Object.entries(others)) {
      assert.ok(!hasSameBits(gradient, base.gradient), `${what} drops the same elements`);
      assert.notEqual(lossSum, base.lossSum, what);
    }
    // One image at every place of a leaf: if all places dropped the same elements, all had the same loss.
    const losses: number[] = [];
    for (let length = 1; length <= 40; length++) {
      losses.push((await gradientOf(engine, leafOf(new Uint32Array(length).fill(3), 6, 2))).lossSum);
    }
    const single = losses.map((loss, i) => loss - (losses[i - 1] ?? 0));
    assert.ok(new Set(single).size > 1, 'all places of a leaf drop the same elements');
    const evaluated = await engine.evaluate('train', new Uint32Array(40).fill(3));
    assert.equal(evaluated.lossSum, 40 * (await engine.evaluate('train', Uint32Array.of(3))).lossSum);
  });

  promise('another seed drops other elements and changes nothing else', async random => {
    const results = [];
    for (const seed of [1, 2, 1 + 2 ** 32]) {
      // The same name for the stream: equal images and weights.
      const { engine, gradientOf } = await begin(name, withDropout, random.fork('job'), { seed });
      const leaf = leafOf([0, 1, 2, 3]);
      results.push({
        ...(await gradientOf(engine, leaf)),
        evaluated: await engine.evaluate('train', leaf.positions),
      });
    }
    const [first, ...others] = results;
    for (const other of others) {
      assert.ok(!hasSameBits(other.gradient, first.gradient));
      assertSameLoss(other.evaluated, first.evaluated, 'evaluation');
    }
  });

  for (const [kind, model] of Object.entries(plain)) {
    promise(`without dropout step, lane and seed decide nothing: ${kind}`, async random => {
      const results = [];
      for (const [seed, step, lane] of [
        [1, 0, 0],
        [1, 9, 0],
        [1, 0, 9],
        [2, 0, 0],
      ]) {
        const {
          engine,
          gradientOf,
          model: compiled,
        } = await begin(name, model, random.fork('job'), { seed });
        results.push({ compiled, ...(await gradientOf(engine, leafOf([4, 8, 1], step, lane))) });
      }
      for (const result of results) assertSameResult(result.compiled, result, results[0], 'the same leaf');
    });
  }

  promise('dropout at rate 0 gives the bits of the model without it', async random => {
    const at = (rate: number): Case => ({
      ...withDropout,
      layers: withDropout.layers.map(layer => (layer.type === 'dropout' ? { ...layer, rate } : layer)),
    });
    const without = { ...withDropout, layers: withDropout.layers.filter(({ type }) => type !== 'dropout') };
    const [dropped, bare] = [
      await begin(name, at(0), random.fork('job')),
      await begin(name, without, random.fork('job')),
    ];
    const leaf = leafOf(random.distinct(35, SAMPLES));
    assertSameResult(
      dropped.model,
      await dropped.gradientOf(dropped.engine, leaf),
      await bare.gradientOf(bare.engine, leaf),
      'rate 0',
    );
  });

  promise('one NaN weight is noticed, wherever it is, if its input is not zero', async random => {
    // No ReLU and no dropout: no activation is zero.
    const { engine, gradientOf, model, weights } = await begin(
      name,
      {
        input: { height: 6, width: 5, channels: 1 },
        layers: [
          { type: 'conv2d', filters: 3, kernelSize: 2 },
          { type: 'maxPool2d', poolSize: 2 },
          { type: 'flatten' },
          { type: 'dense', units: 5 },
          { type: 'dense', units: 3 },
        ],
      },
      random,
    );
    for (const { name: tensor, offset, size } of model.tensors) {
      for (let i = offset; i < offset + size; i++) {
        const held = weights[i];
        weights[i] = NaN;
        await engine.useWeights(weights);
        const { gradient, ...result } = await gradientOf(engine, leafOf([0, 1, 2, 3]));
        assert.ok(isNoticed(result, gradient), `${tensor}[${i - offset}] trains on silently`);
        weights[i] = held;
      }
    }
    await engine.useWeights(weights);
    const healthy = await gradientOf(engine, leafOf([0, 1, 2, 3]));
    assert.ok(!isNoticed(healthy, healthy.gradient), 'healthy weights are refused');
  });

  for (const [kind, model] of Object.entries(cases)) {
    promise(
      `a NaN bias, or a unit whose weights are NaN, is noticed in every layer: ${kind}`,
      async random => {
        const { engine, gradientOf, model: compiled, putWeights, weights } = await begin(name, model, random);
        const healthy = weights.slice();
        for (const { name: layer, parameters } of compiled.layers) {
          if (!parameters) continue;
          const { kernel, bias } = parameters;
          for (let unit = 0; unit < bias.size; unit++) {
            const badBias = healthy.slice();
            badBias[bias.offset + unit] = NaN;
            const badUnit = healthy.slice();
            for (let i = unit; i < kernel.size; i += bias.size) badUnit[kernel.offset + i] = NaN;
            for (const bad of [badBias, badUnit]) {
              await engine.useWeights(putWeights(bad));
              // So many samples that no unit has an input of zeros only.
              const { gradient, ...result } = await gradientOf(engine, leafOf(random.distinct(12, SAMPLES)));
              assert.ok(isNoticed(result, gradient), `unit ${unit} of ${layer} trains on silently`);
            }
          }
        }
      },
    );

    promise(
      `weights that have grown beyond all measure are noticed in every tensor: ${kind}`,
      async random => {
        // Without ReLU: it may switch off what has grown, and then the leaf is sound.
        const layers = model.layers.filter(({ type }) => type !== 'relu');
        const linear = await begin(name, { ...model, layers }, random);
        const { engine, gradientOf, model: compiled, putWeights, weights } = linear;
        const healthy = weights.slice();
        for (const factor of [1e12, 1e30, 1e37]) {
          for (const { name: tensor, offset, size } of compiled.tensors) {
            const huge = healthy.slice();
            for (let i = offset; i < offset + size; i++) huge[i] *= factor;
            await engine.useWeights(putWeights(huge));
            const { gradient, ...result } = await gradientOf(engine, leafOf(random.distinct(20, SAMPLES)));
            assert.ok(isNoticed(result, gradient), `${tensor} times ${factor} trains on silently`);
          }
        }
      },
    );
  }

  promise('a loss is finite up to its bound and not beyond', async random => {
    for (const bound of [2 ** 15, 2 ** 11]) {
      const more = { lossBound: bound };
      const fixture = await begin(name, plain['dense layers'], random, more);
      const { engine, gradientOf, putWeights, model, job } = fixture;
      const position = job.sets.train.labels.indexOf(0);
      const lastBias = model.tensors.at(-1)!.offset;
      for (const [loss, isFinite] of [
        [bound, true],
        [bound + 1, false],
        [Infinity, false],
      ] as const) {
        const weights = new Float32Array(model.paddedCount);
        weights[lastBias + 1] = loss;
        await engine.useWeights(putWeights(weights));
        assert.equal((await gradientOf(engine, leafOf([position]))).isLossFinite, isFinite, `loss ${loss}`);
        assert.equal((await engine.evaluate('train', Uint32Array.of(position))).isLossFinite, isFinite);
      }
    }
  });

  promise('one bad sample is noticed at every place of a leaf', async random => {
    const { engine, gradientOf, putWeights, model, job } = await begin(name, plain['dense layers'], random);
    // Class 0 is very unlikely, so exactly the samples of class 0 have a loss beyond its bound.
    const weights = new Float32Array(model.paddedCount);
    weights[model.tensors.at(-1)!.offset] = -1e6;
    await engine.useWeights(putWeights(weights));
    const bad = job.sets.train.labels.indexOf(0);
    const good = job.sets.train.labels.findIndex(label => label !== 0);
    for (let at = 0; at < 40; at++) {
      const positions = Uint32Array.from({ length: 40 }, (_, i) => (i === at ? bad : good));
      assert.equal((await gradientOf(engine, leafOf(positions))).isLossFinite, false, `place ${at}`);
      assert.equal((await engine.evaluate('train', positions)).isLossFinite, false, `place ${at}`);
    }
    assert.equal((await engine.evaluate('train', new Uint32Array(40).fill(good))).isLossFinite, true);
  });

  promise('every call gives at least one sign of life', async random => {
    const { input, layers } = plain.convolutions;
    const { createEngine, putWeights, gradientOf, model } = createFixture({
      input,
      layers,
      samples: 80,
      random,
    });
    let signs = 0;
    const engine = createEngine(name, () => signs++);
    await engine.useWeights(putWeights(randomWeights(model, random)));
    for (const length of [1, 32, 33, 80]) {
      for (const work of [
        () => gradientOf(engine, leafOf(random.distinct(length, 80))),
        () => engine.evaluate('test', random.distinct(length, 80)),
      ]) {
        const before = signs;
        await work();
        assert.ok(signs > before, `no sign of life from ${length} samples`);
      }
    }
  });
}

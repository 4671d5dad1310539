// Files of tf.LayersModel: a model.json with the topology, and beside it the bytes of the weights.
//
// TensorFlow.js writes them (`model.save`), and Keras' converter does (`tensorflowjs_converter`). What decides nothing is
// taken out of the topology, so that the rest can be compared, hashed and told to other machines; whether it can be
// trained is for `src/shared/layers-model.ts` to say.

import { readFileSync } from 'node:fs';
import { dirname, isAbsolute, join } from 'node:path';
import * as v from 'valibot';
import { LockstepError, messageOf } from '../shared/errors.js';
import { canonicalJson } from '../shared/hash.js';
import {
  layersModelSchema,
  ownerOf,
  plainName,
  readTopology,
  type TopologyLayer,
} from '../shared/layers-model.js';
import type { ModelSpec } from '../shared/model.js';
import { describeJson } from './json-file.js';

/** Whether JSON is what TensorFlow.js or Keras wrote: our own models have none of these keys. */
export function isLayersModelFile(given: object): boolean {
  return ['modelTopology', 'weightsManifest', 'format', 'class_name'].some(key => Object.hasOwn(given, key));
}

const json = v.looseObject({});
const layerSchema = v.object({ class_name: v.string(), config: v.looseObject({ name: plainName }) });
const layersSchema = v.array(layerSchema, 'a list of layers with class_name, config and a name in it');
/** Older files of Keras have the list of layers at once. */
const sequentialSchema = v.object({
  class_name: v.literal('Sequential'),
  config: v.union(
    [layersSchema, v.object({ layers: layersSchema })],
    'layers with class_name, config and a name in it',
  ),
});

const extent = v.pipe(v.number(), v.integer(), v.minValue(0));
const manifestSchema = v.array(
  v.object({
    paths: v.array(plainName),
    weights: v.array(
      v.object({
        name: plainName,
        shape: v.array(extent),
        dtype: v.string(),
        quantization: v.optional(v.unknown()),
        /** Of the optimizer's state. */
        group: v.optional(v.string()),
      }),
    ),
  }),
  'a list of paths and weights',
);
type Manifest = v.InferOutput<typeof manifestSchema>;

/**
 * The model of a file whose JSON is `given`.
 * @throws LOCKSTEP_MODEL_FILE if it does not follow the format, or holds something else than a sequential model;
 *   LOCKSTEP_MODEL_LAYER
 */
export function readLayersModel(
  path: string,
  given: object,
  name: string,
): { readonly spec: ModelSpec; readonly readWeights: () => Float32Array } {
  const fail = (what: string): never => {
    throw new LockstepError('LOCKSTEP_MODEL_FILE', `${path}: ${what}.`);
  };
  const { modelTopology, weightsManifest, format } = v.parse(json, given);
  if (format === 'graph-model' || (isObject(modelTopology) && 'node' in modelTopology)) {
    fail('it is a graph model, which has no layers: convert it with --output_format tfjs_layers_model');
  }
  if (modelTopology === undefined) {
    fail(
      'modelTopology is missing: save the model with model.save(), or convert it with tensorflowjs_converter',
    );
  }
  const model =
    isObject(modelTopology) && 'model_config' in modelTopology
      ? modelTopology['model_config']
      : modelTopology;
  const className = isObject(model) ? model['class_name'] : undefined;
  if (className !== 'Sequential') {
    fail(
      `its model is of class ${describeJson(className)}, and only sequential models can be trained: tf.sequential()`,
    );
  }
  const parsed = v.safeParse(sequentialSchema, model);
  if (!parsed.success) {
    const [issue] = parsed.issues;
    return fail(
      `the model's ${v.getDotPath(issue) ?? 'topology'} is ${describeJson(issue.input)}, expected ${issue.message}`,
    );
  }
  const { config } = parsed.output;
  const topology = canonicalJson(canonicalLayers(Array.isArray(config) ? config : config.layers));
  const layers = readTopology(name, { topology });
  const manifest = v.safeParse(manifestSchema, weightsManifest);
  if (!manifest.success) {
    const [issue] = manifest.issues;
    return fail(
      `weightsManifest${afterDot(v.getDotPath(issue))} is ${describeJson(issue.input)}, expected ${issue.message}`,
    );
  }
  const tensors = manifest.output.flatMap(({ weights }) =>
    weights.filter(isOfModel).map(weight => ({ name: tensorName(weight.name, layers), shape: weight.shape })),
  );
  const spec = v.safeParse(layersModelSchema, { type: 'layersModel', topology, tensors });
  if (!spec.success) {
    const [issue] = spec.issues;
    return fail(
      `it is too large, or not one model: its ${v.getDotPath(issue)} is ${describeJson(issue.input).slice(0, 60)}`,
    );
  }
  return {
    spec: { name, layers: [spec.output] },
    readWeights: () => readWeights(path, manifest.output),
  };
}

function isObject(value: unknown): value is Record<string, unknown> {
  return v.is(json, value);
}

function afterDot(path: string | null): string {
  return path === null ? '' : `.${path}`;
}

/** Files hold the optimizer's state behind the weights, where it was saved. */
function isOfModel({ group }: Manifest[number]['weights'][number]): boolean {
  return group !== 'optimizer';
}

/** `layer/weight`: Keras puts the model's name before it, sometimes. */
function tensorName(weight: string, layers: readonly TopologyLayer[]): string {
  const parts = weight.split('/');
  const from = parts.findLastIndex((_, i) => ownerOf(parts.slice(i).join('/'), layers));
  return parts.slice(Math.max(0, from)).join('/');
}

/** The input in the first layer's config, the final softmax taken off, and configs without what decides nothing. */
function canonicalLayers(given: v.InferOutput<typeof layersSchema>): TopologyLayer[] {
  let inputShape: unknown;
  const layers = given.flatMap(({ class_name, config }) => {
    const { batch_input_shape, batch_shape, ...rest } = config;
    inputShape ??= batch_input_shape ?? batch_shape;
    return class_name === 'InputLayer' ? [] : [{ class_name, config: canonicalConfig(class_name, rest) }];
  });
  let isTaken = false;
  for (let last = layers.at(-1); last; last = layers.at(-1)) {
    const { class_name, config } = last;
    const activation =
      class_name === 'Softmax' && isLastAxis(config['axis']) ? 'softmax' : config['activation'];
    if (activation === 'softmax' && !isTaken) isTaken = true;
    else if (class_name !== 'Activation' || activation !== 'linear') break;
    if (class_name !== 'Activation' && class_name !== 'Softmax') {
      delete config['activation'];
      break;
    }
    layers.pop();
  }
  const [first, ...others] = layers;
  if (!first) return [];
  const batchInput = Array.isArray(inputShape) ? { batch_input_shape: [null, ...inputShape.slice(1)] } : {};
  return [{ ...first, config: { ...first.config, ...batchInput } }, ...others];
}

/** Of a row of scores for each sample. */
function isLastAxis(axis: unknown): boolean {
  return axis === undefined || axis === -1 || axis === 1;
}

/** Settings that say what happens anyway. */
const neutral: Readonly<Record<string, (value: unknown, className: string) => boolean>> = {
  trainable: value => value === true,
  dtype: value => value === 'float32' || (isObject(value) && v.is(float32Policy, value)),
  activation: (value, className) => value === 'linear' && className !== 'Activation',
  groups: value => value === 1,
  dilation_rate: value => [value].flat().every(rate => rate === 1),
  dropout: value => value === 0,
  recurrent_dropout: value => value === 0,
  stateful: value => value === false,
  seed: () => true,
  keepdims: value => value === false,
  negative_slope: value => value === 0,
  reset_after: value => value === false,
  rms_scaling: value => value === false,
  threshold: value => value === 0,
  time_major: value => value === false,
};
const float32Policy = v.object({ config: v.object({ name: v.literal('float32') }) });

/** Initializers decide nothing: weights come from the file or from the seed. */
function canonicalConfig<Config extends { name: string }>(className: string, config: Config): Config {
  const kept = Object.entries(config).flatMap(([key, value]: [string, unknown]) => {
    if (value === null || key.endsWith('_initializer')) return [];
    if (Object.hasOwn(neutral, key) && neutral[key](value, className)) return [];
    return [[key, key === 'layer' ? canonicalInner(value) : value]];
  });
  return Object.fromEntries(kept);
}

/** The layer within a Bidirectional or TimeDistributed. */
function canonicalInner(value: unknown): unknown {
  const inner = v.safeParse(layerSchema, value);
  if (!inner.success) return value;
  const { class_name, config } = inner.output;
  return { class_name, config: canonicalConfig(class_name, config) };
}

/** Of the types that files of weights have; an optimizer's state has others than float32. */
const itemBytes: Readonly<Record<string, number>> = { float32: 4, int32: 4, bool: 1, uint8: 1, uint16: 2 };

/** @throws LOCKSTEP_MODEL_FILE */
function readWeights(path: string, manifest: Manifest): Float32Array {
  const fail = (what: string): never => {
    throw new LockstepError(
      'LOCKSTEP_MODEL_FILE',
      `The weights of ${path} cannot be used: ${what}. To begin with weights of the seed instead, say --init.`,
    );
  };
  const read = (name: string): Uint8Array => {
    if (isAbsolute(name) || name.split(/[/\\]/).includes('..')) fail(`${name} is not in the model's folder`);
    try {
      return readFileSync(join(dirname(path), name));
    } catch (error) {
      return fail(messageOf(error));
    }
  };
  const parts = manifest.flatMap(({ paths, weights }) => {
    const bytes = Buffer.concat(paths.map(read));
    let end = 0;
    const ranges = weights.map(weight => {
      const { name, shape, dtype, quantization } = weight;
      if (quantization !== undefined) fail(`${name} is quantized: convert the model without quantization`);
      if (isOfModel(weight) && dtype !== 'float32') fail(`${name} is of dtype ${dtype} and not float32`);
      const size = shape.reduce((product, count) => product * count, itemBytes[dtype] ?? NaN);
      return { weight, from: end, to: (end += size) };
    });
    if (end !== bytes.length) {
      const has = paths.length > 1 ? 'have' : 'has';
      fail(`${paths.join(', ')} should have ${end} bytes and ${has} ${bytes.length}`);
    }
    return ranges
      .filter(({ weight }) => isOfModel(weight))
      .map(({ weight, from, to }) => {
        // A copy of its own, at an address that a Float32Array takes.
        const values = new Float32Array(Uint8Array.from(bytes.subarray(from, to)).buffer);
        if (!values.every(Number.isFinite)) fail(`${weight.name} has values that are no finite numbers`);
        return values;
      });
  });
  const all = new Float32Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const values of parts) {
    all.set(values, at);
    at += values.length;
  }
  return all;
}

// Models of tf.layers: sequential ones, as TensorFlow.js and Keras' converter write them, that end in class scores.
//
// To us such a model is one layer, which only the engine `tensorflow` computes: the text of its topology and the tensors of
// its weights. The text has a canonical form (`src/coordinator/layers-model-file.ts` makes it): a list of class_name and
// config, the keys sorted, without what decides nothing and without the final softmax. Everything that cannot be trained
// as every other model is, by the gradient of the mean loss alone, is refused here, by whoever compiles the model.

import * as v from 'valibot';
import type { Normalization } from './dataset.js';
import { LockstepError } from './errors.js';
import { sizeOf, type Shape } from './shape.js';

const MOST_TOPOLOGY = 262_144;
const MOST_TENSORS = 1024;

/** Texts of it are shown, and go to terminals, where control characters do more than they say. */
export const plainName = v.pipe(
  v.string('a text'),
  v.regex(/^[^\p{Cc}]{1,200}$/u, 'a text of 1 to 200 characters'),
);
const extent = v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(67_108_864));

export const layersModelSchema = v.strictObject({
  type: v.literal('layersModel'),
  /** The canonical JSON of its layers. A text, since messages nest their values a few levels deep only. */
  topology: v.pipe(v.string(), v.maxLength(MOST_TOPOLOGY)),
  /** In the order of the flat vector: names begin with that of their layer and a slash. */
  tensors: v.pipe(
    v.array(v.strictObject({ name: plainName, shape: v.pipe(v.array(extent), v.maxLength(6)) })),
    v.minLength(1),
    v.maxLength(MOST_TENSORS),
  ),
});

export type LayersModelSpec = v.InferOutput<typeof layersModelSchema>;

const topologySchema = v.array(
  v.strictObject({ class_name: v.string(), config: v.looseObject({ name: plainName }) }),
);

/** A layer as it stands in the topology. */
export type TopologyLayer = v.InferOutput<typeof topologySchema>[number];

/** Classes whose output for a sample, and whose gradient, follow from their input and their weights alone. */
export const trainedClasses: ReadonlySet<string> = new Set(
  [
    'Activation AveragePooling1D AveragePooling2D Bidirectional Conv1D Conv2D Conv2DTranspose Cropping2D Dense',
    'DepthwiseConv2D Dropout ELU Flatten GRU GlobalAveragePooling1D GlobalAveragePooling2D GlobalMaxPooling1D',
    'GlobalMaxPooling2D LSTM LayerNormalization LeakyReLU MaxPooling1D MaxPooling2D PReLU Permute ReLU RepeatVector',
    'Rescaling Reshape SeparableConv2D SimpleRNN Softmax TimeDistributed UpSampling2D ZeroPadding2D',
  ].flatMap(line => line.split(' ')),
);

const statistics = 'it keeps running statistics of its inputs, which no gradient trains';
const ownNumbers = 'it draws random numbers of its own, which no seed repeats; Dropout has ours';
const nested = 'it is a model within the model: put its layers in its place';
const refusedClasses: Readonly<Record<string, string>> = {
  BatchNormalization: `${statistics}: leave it out, or put LayerNormalization in its place`,
  SyncBatchNormalization: `${statistics}: leave it out, or put LayerNormalization in its place`,
  Normalization: statistics,
  GaussianNoise: ownNumbers,
  GaussianDropout: ownNumbers,
  AlphaDropout: ownNumbers,
  SpatialDropout1D: ownNumbers,
  SpatialDropout2D: ownNumbers,
  SpatialDropout3D: ownNumbers,
  RandomWidth: ownNumbers,
  ThresholdedReLU: 'TensorFlow.js has no gradient of it',
  Sequential: nested,
  Model: nested,
  Functional: nested,
};

/** Settings of Keras that TensorFlow.js passes over in silence, so that it would compute something else. */
const ignoredSettings = [
  'backward_layer',
  'groups',
  'keepdims',
  'negative_slope',
  'output_padding',
  'reset_after',
  'rms_scaling',
  'threshold',
  'time_major',
];

/** Layers that are an activation and nothing else. */
const activationClasses = new Set(['Activation', 'ELU', 'LeakyReLU', 'PReLU', 'ReLU', 'Softmax']);

/**
 * The layers of a canonical topology.
 * @throws LOCKSTEP_MODEL_LAYER naming the layer, its class and why it cannot be trained
 */
export function readTopology(
  modelName: string,
  { topology }: Pick<LayersModelSpec, 'topology'>,
): TopologyLayer[] {
  const parsed = v.safeParse(v.pipe(v.string(), v.parseJson(), topologySchema), topology);
  if (!parsed.success) throw refusal(modelName, 'its topology is no list of layers that have names');
  const layers = parsed.output;
  const last = layers.at(-1);
  if (!last) throw refusal(modelName, 'it has no layers');
  const names = new Set<string>();
  for (const layer of layers) {
    const why = untrainable(layer);
    if (why !== undefined) throw layerRefusal(modelName, layer, why);
    const { name } = layer.config;
    if (names.has(name)) throw layerRefusal(modelName, layer, 'another layer has its name');
    names.add(name);
  }
  const head = layers.findLast(({ class_name: name }) => !passesOn.has(name)) ?? last;
  const { class_name, config } = head;
  if (activationClasses.has(class_name) || config['activation'] !== undefined) {
    const activation = config['activation'] ?? class_name;
    const what = `it ends the model with the activation ${JSON.stringify(activation)}`;
    throw layerRefusal(
      modelName,
      head,
      `${what}: a classifier ends with one softmax, or with none for its logits`,
    );
  }
  return layers;
}

/** Behind the end of what computes they change no more than a shape. */
const passesOn = new Set(['Reshape', 'Flatten', 'Permute', 'Dropout', 'InputLayer']);

function refusal(modelName: string, why: string): LockstepError {
  return new LockstepError('LOCKSTEP_MODEL_LAYER', `Model ${modelName} cannot be trained: ${why}.`);
}

function layerRefusal(modelName: string, layer: TopologyLayer, why: string): LockstepError {
  return refusal(modelName, `its layer ${describeTopologyLayer(layer)} is refused, since ${why}`);
}

/** Its name and its class. */
export function describeTopologyLayer({ class_name, config }: TopologyLayer): string {
  return `${config.name} (${JSON.stringify(class_name).slice(1, -1)})`;
}

/** Why a layer cannot be trained, if so. What decides nothing has been taken out of its config before. */
function untrainable({ class_name, config }: TopologyLayer): string | undefined {
  if (Object.hasOwn(refusedClasses, class_name)) return refusedClasses[class_name];
  if (!trainedClasses.has(class_name))
    return 'its class is none that Lockstep knows: docs/model.md has a list';
  if (config['trainable'] !== undefined)
    return 'it is frozen (trainable is false), and all weights are trained here';
  if (config['dtype'] !== undefined) return `its dtype is ${JSON.stringify(config['dtype'])} and not float32`;
  for (const key of Object.keys(config)) {
    if (key.endsWith('_regularizer'))
      return `it has a ${key}, and losses here have no such term: see --weight-decay`;
    if (key.endsWith('_constraint')) return `it has a ${key}, which no gradient keeps`;
  }
  if (config['stateful'] === true) return 'it is stateful: a batch would depend on the one before it';
  if (
    config['recurrent_dropout'] !== undefined ||
    (config['dropout'] !== undefined && class_name !== 'Dropout')
  ) {
    return 'its dropout draws random numbers of its own, which no seed repeats';
  }
  const ignored = ignoredSettings.find(key => config[key] !== undefined);
  if (ignored !== undefined) return `it has a ${ignored}, which TensorFlow.js does not know`;
  if (config['dilation_rate'] !== undefined)
    return 'TensorFlow.js has no gradient of convolutions with a dilation_rate';
  if (class_name === 'Dropout') {
    const { rate } = config;
    if (typeof rate !== 'number' || !(rate >= 0 && rate < 1)) return 'its rate is not from 0 to below 1';
    if (config['noise_shape'] !== undefined) return 'its mask has a noise_shape of its own';
  }
  if (class_name === 'Bidirectional' || class_name === 'TimeDistributed') {
    const inner = v.safeParse(topologySchema.item, config['layer']);
    if (!inner.success) return 'it has no layer inside';
    if (inner.output.class_name === 'Dropout')
      return 'the Dropout inside it has no mask of ours: put it outside';
    const why = untrainable(inner.output);
    if (why !== undefined)
      return `the layer ${describeTopologyLayer(inner.output)} inside it is refused: ${why}`;
  }
  return undefined;
}

/**
 * What the first layer takes for images of `input`, without the samples: height x width x channels, height x width of one
 * channel, or all pixels in a row.
 * @throws LOCKSTEP_MODEL_SHAPE if it takes other images
 */
export function inputShapeOf(modelName: string, [first]: readonly TopologyLayer[], input: Shape): number[] {
  const { height, width, channels } = input;
  const given = v.safeParse(v.array(v.nullable(v.number())), first.config['batch_input_shape']);
  const wanted = given.success ? given.output.slice(1) : [];
  const forms = [[height, width, channels], ...(channels === 1 ? [[height, width]] : []), [sizeOf(input)]];
  // Where it says nothing, it takes any.
  const form = forms.find(
    extents =>
      extents.length === wanted.length &&
      extents.every((size, i) => wanted[i] === null || wanted[i] === size),
  );
  if (form) return form;
  const takes = wanted.map(size => size ?? 'any').join(' x ') || 'images of no given size';
  throw new LockstepError(
    'LOCKSTEP_MODEL_SHAPE',
    `Model ${modelName} takes ${takes} at its layer ${describeTopologyLayer(first)}, and the dataset's images ` +
      `are ${height} x ${width} x ${channels}.`,
  );
}

/** Layers that leave the last extent of what they get as it is. */
const keepsChannels = /^(Dropout|Global\w+|(Average|Max)Pooling\w+|LayerNormalization|Rescaling)$/;

/** The outputs, where the layers say how many without being built; the engine sees the others. */
function outputsOf(layers: readonly TopologyLayer[]): number | undefined {
  const last = layers.findLast(({ class_name }) => !keepsChannels.test(class_name));
  const count = last?.config['units'] ?? last?.config['filters'];
  return typeof count === 'number' ? count : undefined;
}

/** Layers that only put values in other places. */
const movesOnly = /^(Cropping2D|Flatten|Permute|RepeatVector|Reshape|UpSampling2D|ZeroPadding2D)$/;
/** A Rescaling by less than this is one of bytes: by 1/255, 1/127.5 or 1/128; one by 2 has numbers from 0 to 1. */
const BYTE_SCALE = 0.1;

/** These models have their pixels from 0 to 1, unless they begin with a layer that scales bytes. */
function normalizationOf(layers: readonly TopologyLayer[]): Normalization {
  const first = layers.find(({ class_name }) => !movesOnly.test(class_name));
  const scale = first?.class_name === 'Rescaling' ? first.config['scale'] : undefined;
  const takesBytes = typeof scale === 'number' && Math.abs(scale) < BYTE_SCALE;
  return { scale: takesBytes ? 1 : Math.fround(1 / 255), shift: 0 };
}

/** Where a weight begins that is no weight of a sum: by the last part of its name. */
const constants: Readonly<Record<string, number>> = { gamma: 1, beta: 0, alpha: 0 };

/** A tensor as the flat vector holds it, but for its place there. */
export interface LayersModelTensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly fanIn: number;
  readonly constant?: number;
}

/**
 * What the rest of the program has to know of a model.
 * @throws LOCKSTEP_MODEL_LAYER, LOCKSTEP_MODEL_SHAPE
 */
export function compileLayersModel(
  modelName: string,
  spec: LayersModelSpec,
  input: Shape,
  classes: number,
): { readonly tensors: readonly LayersModelTensor[]; readonly normalization: Normalization } {
  const layers = readTopology(modelName, spec);
  inputShapeOf(modelName, layers, input);
  const outputs = outputsOf(layers);
  if (outputs !== undefined && outputs !== classes) {
    throw new LockstepError(
      'LOCKSTEP_MODEL_SHAPE',
      `Model ${modelName} ends with ${outputs} outputs, and the dataset has ${classes} classes.`,
    );
  }
  const owners = spec.tensors.map(({ name }) => ownerOf(name, layers));
  const seen = new Set<string>();
  const tensors = spec.tensors.map(({ name, shape }, index): LayersModelTensor => {
    const owner = owners[index];
    if (!owner) throw refusal(modelName, `its weight ${name} belongs to no layer`);
    if (seen.has(name)) throw refusal(modelName, `it has two weights ${name}`);
    seen.add(name);
    const part = name.slice(name.lastIndexOf('/') + 1);
    if (Object.hasOwn(constants, part)) return { name, shape, fanIn: 1, constant: constants[part] };
    // A bias has as many inputs as the kernel of its layer, whichever of them the file names first.
    const kernel = spec.tensors.findLast((other, i) => owners[i] === owner && other.shape.length > 1);
    return { name, shape, fanIn: fanInOf(shape.length > 1 ? { name, shape } : (kernel ?? { name, shape })) };
  });
  return { tensors, normalization: normalizationOf(layers) };
}

/** The extents of a kernel but the last; of a depthwise one, whose channels are not summed, rows and columns. */
function fanInOf({ name, shape }: LayersModelSpec['tensors'][number]): number {
  const summed = shape.slice(0, name.endsWith('/depthwise_kernel') ? -2 : -1);
  return summed.reduce((product, size) => product * size, 1);
}

/** The layer that a weight's name begins with: the longest such name. */
export function ownerOf(weight: string, layers: readonly TopologyLayer[]): TopologyLayer | undefined {
  return layers
    .filter(({ config }) => weight.startsWith(`${config.name}/`))
    .toSorted((a, b) => b.config.name.length - a.config.name.length)
    .at(0);
}

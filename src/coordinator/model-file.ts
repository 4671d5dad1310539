// Models in files of their own: JSON in the format of `docs/model.md` or a tf.LayersModel, checked at the door.

import { basename, dirname, resolve } from 'node:path';
import * as v from 'valibot';
import { LockstepError } from '../shared/errors.js';
import { layerKeys, modelSpecSchema, type ModelSpec } from '../shared/model.js';
import { isModelFile, presetSpec } from '../shared/presets.js';
import { nearest, readJsonObject, type JsonFileKind } from './json-file.js';
import { isLayersModelFile, readLayersModel } from './layers-model-file.js';

const fileKind: JsonFileKind = { code: 'LOCKSTEP_MODEL_FILE', noun: 'model', content: 'a list of layers' };

export interface LoadedModel {
  readonly spec: ModelSpec;
  /**
   * Reads the weights that come with the model, in the order of the flat vector; absent where none do.
   * @throws LOCKSTEP_MODEL_FILE if they cannot be read or are not as the model's file says
   */
  readonly readWeights?: () => Float32Array;
}

/**
 * A preset for images of `classes` classes, the model of a file, or the layers given.
 * @throws LOCKSTEP_BAD_SETTING if `model` is no preset's name and no path that ends with .json; LOCKSTEP_MODEL_FILE,
 *   LOCKSTEP_MODEL_LAYER
 */
export function loadModel(model: string | ModelSpec, classes: number): LoadedModel {
  if (typeof model === 'object') return { spec: model };
  return isModelFile(model) ? readModelFile(model) : { spec: presetSpec(model, classes) };
}

/** As `loadModel`, without the weights. */
export function loadModelSpec(model: string | ModelSpec, classes: number): ModelSpec {
  return loadModel(model, classes).spec;
}

/**
 * Without a name of its own, a model has the file's. A key `$schema`, which editors read, is dropped.
 * @throws LOCKSTEP_MODEL_FILE naming the file, the place in it, what was expected and what was found; LOCKSTEP_MODEL_LAYER
 */
export function readModelFile(path: string): LoadedModel {
  const given = readJsonObject(path, fileKind);
  if (isLayersModelFile(given)) return readLayersModel(path, given, nameOf(path));
  const parsed = v.safeParse(modelSpecSchema, { name: nameOf(path), ...given });
  if (parsed.success) return { spec: parsed.output };
  // A misspelt key is missing as well: the wrong one tells more.
  const issue = parsed.issues.find(isUnknownKey) ?? parsed.issues[0];
  throw new LockstepError(fileKind.code, `${path}: ${explain(issue)}.`);
}

/**
 * The file's name without its ending, other characters than a name may have replaced; the folder's where the file is
 * called as all that TensorFlow.js saves.
 */
function nameOf(path: string): string {
  const file = basename(path);
  return (
    (file === 'model.json' ? basename(dirname(resolve(path))) : file.replace(/\.json$/, '')).replaceAll(
      /[^\w.-]+/g,
      '-',
    ) || 'model'
  );
}

type Issue = v.InferIssue<typeof modelSpecSchema>;

function isUnknownKey({ type, expected }: Issue): boolean {
  return type === 'strict_object' && expected === 'never';
}

/** Where something is wrong, what is there, and what was expected. */
function explain(issue: Issue): string {
  const { type, received, message } = issue;
  const place = placeOf(issue);
  if (type === 'strict_object') {
    const { key = '', input } = issue.path?.at(-1) ?? {};
    const layer = layerType(input);
    const keys = layer === undefined ? ['name', 'layers'] : layerKeys[layer];
    const what = `${layer === undefined ? 'a model' : `a layer of type ${layer}`} has ${keys.join(', ')}`;
    if (!isUnknownKey(issue)) return `${place} is missing; ${what}`;
    return `${place} is unknown; ${what}; the nearest is ${nearest(String(key), keys)}`;
  }
  if (type === 'variant') {
    const types = Object.keys(layerKeys);
    if (issue.expected === 'Object') return `${place} is ${received}, expected an object with a type`;
    if (typeof issue.input !== 'string') {
      const found = issue.input === undefined ? 'missing' : received;
      return `${place} is ${found}, expected one of ${types.join(', ')}`;
    }
    return `${place} is ${received}, expected one of ${types.join(', ')}; the nearest is ${nearest(issue.input, types)}`;
  }
  return `${place} is ${received}, expected ${message}`;
}

/** As one would write it in JavaScript: `layers[3].units`. */
function placeOf({ path }: Issue): string {
  const parts = (path ?? []).map(({ key }) => (typeof key === 'number' ? `[${key}]` : `.${String(key)}`));
  return parts.join('').replace(/^\./, '');
}

function layerType(layer: unknown): string | undefined {
  if (typeof layer !== 'object' || layer === null || !('type' in layer)) return undefined;
  const { type } = layer;
  return typeof type === 'string' && Object.hasOwn(layerKeys, type) ? type : undefined;
}

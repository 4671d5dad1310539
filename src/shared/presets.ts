// The models that have a name, with the training settings that suit them on MNIST.

import { closest } from 'fastest-levenshtein';
import { LockstepError } from './errors.js';
import type { TrainSettings } from './settings.js';
import type { LayerSpec, ModelSpec } from './model.js';

export interface Preset {
  readonly about: string;
  /** The layers, for images of a dataset with `classes` classes. */
  readonly layers: (classes: number) => LayerSpec[];
  readonly settings: Partial<TrainSettings>;
}

function lenet5(classes: number, regularization: LayerSpec[]): LayerSpec[] {
  return [
    { type: 'conv2d', filters: 6, kernelSize: 5 },
    { type: 'relu' },
    { type: 'maxPool2d', poolSize: 2 },
    { type: 'conv2d', filters: 16, kernelSize: 5 },
    { type: 'relu' },
    { type: 'maxPool2d', poolSize: 2 },
    { type: 'flatten' },
    { type: 'dense', units: 120 },
    { type: 'relu' },
    ...regularization,
    { type: 'dense', units: 84 },
    { type: 'relu' },
    { type: 'dense', units: classes },
  ];
}

export const presets: Record<string, Preset> = {
  lenet5: {
    about: 'LeNet-5: two convolutions, three dense layers, ReLU and max-pooling',
    layers: classes => lenet5(classes, []),
    settings: {},
  },
  mlp: {
    about: 'one hidden layer of 20 units',
    layers: classes => [
      { type: 'flatten' },
      { type: 'dense', units: 20 },
      { type: 'relu' },
      { type: 'dense', units: classes },
    ],
    settings: { lr: 0.012 },
  },
  'lenet5-regularized': {
    about: 'LeNet-5 with weight decay and dropout after the first hidden dense layer',
    layers: classes => lenet5(classes, [{ type: 'dropout', rate: 0.5 }]),
    settings: { weightDecay: 1e-4 },
  },
};

export const presetNames = Object.keys(presets);

/** A model is named by its preset, or by the path of a file of its own. */
export function isModelFile(model: string): boolean {
  return model.endsWith('.json');
}

/** @throws LOCKSTEP_BAD_SETTING with the nearest name */
export function presetNamed(name: string): Preset {
  if (Object.hasOwn(presets, name)) return presets[name];
  throw new LockstepError(
    'LOCKSTEP_BAD_SETTING',
    `Setting model is ${JSON.stringify(name)}, expected one of ${presetNames.join(', ')}, or the path of a model file, ` +
      `which ends with .json; the nearest name is ${closest(name, presetNames)}.`,
  );
}

/** @throws LOCKSTEP_BAD_SETTING if there is no preset of that name */
export function presetSpec(name: string, classes: number): ModelSpec {
  return { name, layers: presetNamed(name).layers(classes) };
}

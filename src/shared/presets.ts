// The models that have a name, with the training settings that suit them on MNIST.

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

export function presetSpec(name: string, classes: number): ModelSpec {
  return { name, layers: presets[name].layers(classes) };
}

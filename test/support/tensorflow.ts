// TensorFlow.js on its plain CPU backend: an arithmetic that is not ours.

import { register } from 'node:module';
import * as tf from '@tensorflow/tfjs-core';

register('./tensorflow-hooks.js', import.meta.url);
await import('@tensorflow/tfjs-backend-cpu');
await import('@tensorflow/tfjs-core/dist/register_all_gradients.js');
// As in its own tests: no banner that recommends the native backend.
tf.env().set('IS_TEST', true);
await tf.setBackend('cpu');

export { tf };

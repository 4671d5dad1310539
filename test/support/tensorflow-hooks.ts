// Module hooks for TensorFlow.js: its gradients are published only as ES modules that Node.js does not take for such,
// since their package does not say so and their imports leave out `.js`.

import type { LoadHook, ResolveHook } from 'node:module';

const FOLDER = '/@tensorflow/tfjs-core/dist/';
/** The one file of the folder that is CommonJS, and what every other import of the package gets. */
const MAIN = 'tf-core.node.js';

export const resolve: ResolveHook = (specifier, context, next) => {
  const isInside = context.parentURL?.includes(FOLDER) && !context.parentURL.endsWith(MAIN);
  const isBare = isInside && specifier.startsWith('.') && !specifier.endsWith('.js');
  return next(isBare ? `${specifier}.js` : specifier, context);
};

export const load: LoadHook = (url, context, next) => {
  const isModule = url.includes(FOLDER) && !url.endsWith(MAIN);
  return next(url, isModule ? { ...context, format: 'module' } : context);
};

// TensorFlow on this machine: what is installed, and the places to compute that there are.

import { findRuntimes, setupFolder, type TensorflowRuntime } from '../worker/engines/tensorflow/runtime.js';

/** The best first. */
export function tensorflowRuntimes(): TensorflowRuntime[] {
  return findRuntimes(setupFolder(process.env), process.cwd());
}

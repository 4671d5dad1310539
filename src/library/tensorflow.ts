// TensorFlow on this machine: what is installed, and the places to compute that there are.

import { findRuntimes, setupFolder, type TensorflowRuntime } from '../worker/engines/tensorflow/runtime.js';

/** The best first. */
export function tensorflowRuntimes(): TensorflowRuntime[] {
  return findRuntimes(setupFolder(process.env), process.cwd());
}

/** Where `setup` builds. */
export function tensorflowFolder(): string {
  return setupFolder(process.env);
}

/** For a program that is run here, with what is set for it. */
export function inheritedEnvironment(settings: Readonly<Record<string, string>>): NodeJS.ProcessEnv {
  return { ...process.env, ...settings };
}

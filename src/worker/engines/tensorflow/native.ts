// The TensorFlow engine on tfjs-node's native binding. It is loaded in one thread of a process: two that load it at the
// same moment crash it.

import { createRequire } from 'node:module';
import util from 'node:util';
import * as v from 'valibot';
import { LockstepError, messageOf } from '../../../shared/errors.js';
import type { Engine, EngineJob } from '../engine.js';
import { createTensorflowEngine, type Tfjs } from './engine.js';
import type { Device, TensorflowPlace, TensorflowRuntime } from './runtime.js';

export function createNativeEngine(
  job: EngineJob,
  { runtime, device }: TensorflowPlace,
  showProgress: () => void,
): Engine {
  return createTensorflowEngine(loadTensorflow(runtime, device), job, showProgress);
}

/** @throws LOCKSTEP_NO_TENSORFLOW where it does not load, or runs on no GPU although it is meant to */
export function loadTensorflow({ name, entry }: TensorflowRuntime, device: Device): Tfjs {
  // Node 23 removed them, and tfjs-node calls them.
  const old: Record<string, unknown> = util;
  old['isNullOrUndefined'] ??= (value: unknown) => value === null || value === undefined;
  old['isArray'] ??= Array.isArray;
  let tf: Tfjs;
  try {
    tf = createRequire(import.meta.url)(entry);
  } catch (cause) {
    throw new LockstepError(
      'LOCKSTEP_NO_TENSORFLOW',
      `${name} does not load from ${entry}: ${messageOf(cause)}. Build it anew with: lockstep setup tensorflow`,
      { cause },
    );
  }
  const { isUsingGpuDevice } = v.parse(v.looseObject({ isUsingGpuDevice: v.boolean() }), tf.backend());
  if (device !== 'cpu' && !isUsingGpuDevice) {
    throw new LockstepError(
      'LOCKSTEP_NO_GPU',
      `TensorFlow sees no GPU ${device}: see whether nvidia-smi lists it, and what lockstep setup tensorflow --gpu says; --devices cpu does without.`,
    );
  }
  return tf;
}

// The TensorFlow engine on tfjs-node's native binding.

import type { Engine, EngineJob } from '../engine.js';
import { createTensorflowEngine } from './engine.js';
import { loadTensorflow, type TensorflowPlace } from './runtime.js';

export function createNativeEngine(
  job: EngineJob,
  { runtime, device }: TensorflowPlace,
  showProgress: () => void,
): Engine {
  return createTensorflowEngine(loadTensorflow(runtime, device), job, showProgress);
}

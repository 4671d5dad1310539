// Which engines can be had here, and why another cannot.

import { messageOf } from '../../shared/errors.js';
import type { ThreadEngineName } from '../../shared/settings.js';
import { loadKernelModule } from '../kernels.js';

/** For each engine of threads, what throws where it is missing. All of them update and add with the kernels. */
const attempts: Record<ThreadEngineName, () => unknown> = {
  wasm: loadKernelModule,
  reference: () => {
    loadKernelModule();
    return import('./reference.js');
  },
};

/** Why the engine is missing; undefined if it is not. */
export async function engineProblem(name: ThreadEngineName): Promise<string | undefined> {
  try {
    await attempts[name]();
    return undefined;
  } catch (error) {
    return messageOf(error);
  }
}

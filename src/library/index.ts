// The library: what `import ... from 'lockstep'` gives.

export {
  bench,
  benchDefaults,
  type BenchOptions,
  type BenchProgress,
  type BenchResult,
  type BenchSettings,
} from './bench.js';
export { describeModel, type LayerDescription, type ModelDescription } from './describe.js';
export type { Advice, BenchRow, Configuration, Limit, Spread } from './scaling.js';
export { train, type TrainOptions } from './train.js';
export { LockstepError, type ErrorCode } from '../shared/errors.js';
export type { EventOf, RunEvent, RunResult, ThreadReport } from '../shared/events.js';
export type { TrainSettings } from '../shared/settings.js';

// The library: what `import ... from 'lockstep'` gives.

export { describeModel, type LayerDescription, type ModelDescription } from './describe.js';
export { train, type TrainOptions } from './train.js';
export { LockstepError, type ErrorCode } from '../shared/errors.js';
export type { EventOf, RunEvent, RunResult, ThreadReport } from '../shared/events.js';
export type { TrainSettings } from '../shared/settings.js';

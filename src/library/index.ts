// The library: what `import ... from 'lockstep'` gives.

export {
  bench,
  benchDefaults,
  type BenchOptions,
  type BenchProgress,
  type BenchResult,
  type BenchSettings,
} from './bench.js';
export {
  describeData,
  type DataDescription,
  type DataFile,
  type Example,
  type SetDescription,
} from './data.js';
export { evaluate, type EvaluateOptions, type Evaluation } from './evaluate.js';
export { exportRun, type ExportFormat, type ExportOptions, type ExportResult } from './export.js';
export { predict, type Prediction, type PredictOptions, type Preparation } from './predict.js';
export { report, type ReportOptions, type ReportResult } from './report.js';
export { listRuns, type DamagedRun, type RunSummary } from './runs.js';
export type { DataOptions, WeightsSource } from './trained.js';
export { describeModel, type LayerDescription, type ModelDescription } from './describe.js';
export type { Check, SelfTest } from './diagnosis.js';
export { doctor, type DoctorOptions, type DoctorReport } from './doctor.js';
export { readConfig } from '../coordinator/config-file.js';
export type { Advice, BenchRow, Configuration, Limit, Spread } from './scaling.js';
export {
  setupTensorflow,
  type SetupOptions,
  type SetupPlan,
  type SetupProof,
  type SetupResult,
  type SetupStep,
} from './setup.js';
export { study, type Study, type StudyOptions, type StudyProgress, type StudySettings } from './study.js';
export { train, type TrainOptions } from './train.js';
export { verify, VerifyError, type Verification, type VerifyOptions, type VerifyProgress } from './verify.js';
export { work, workDefaults, type WorkOptions, type WorkResult } from './work.js';
export type { AgentStatus as WorkStatus } from '../worker/agent.js';
export type { Training, TrainResult, Weights } from './training.js';
export type { ClassResult, ConfusedPair, Confusion } from '../shared/confusion.js';
export type { DatasetContent, LabelledImages } from '../shared/dataset.js';
export type { ListenSettings } from '../shared/listen.js';
export type { LayerSpec, ModelSpec } from '../shared/model.js';
export type { Compared, Difference } from '../coordinator/run-comparison.js';
export { LockstepError, type ErrorCode } from '../shared/errors.js';
export type { EventOf, NodeReport, RunEvent, RunResult, ThreadReport } from '../shared/events.js';
export type {
  Figures as StudyFigures,
  StudyLayer,
  StudyModel,
  StudyResult,
  StudyRun,
  Summary,
} from '../report/study-figures.js';
export type { Shard } from '../shared/shards.js';
export type { TrainSettings } from '../shared/settings.js';

// Coded errors: what a user can act on. Everything else that throws is an invariant and a bug of ours.

/** Every code with the sentence that `docs/errors.md` explains further. A test keeps both lists equal. */
export const errorCodes = {
  LOCKSTEP_USAGE: 'The command line does not say what to do.',
  LOCKSTEP_BAD_SETTING: 'A setting has a value that cannot work.',
  LOCKSTEP_CONFIG_FILE: 'A config file cannot be read, or holds what is no setting.',
  LOCKSTEP_BAD_INJECT: 'LOCKSTEP_INJECT does not describe a fault.',
  LOCKSTEP_DATA_MISSING: 'A data file is not there or cannot be read.',
  LOCKSTEP_DATA_AMBIGUOUS: 'Several data files of a folder could be meant.',
  LOCKSTEP_DATA_FORMAT: 'A data file is not what its name and header say.',
  LOCKSTEP_DATA_DIGEST: 'Data is not what its digest says.',
  LOCKSTEP_DATA_SHAPE: 'The images or classes of a dataset are not those that a model was trained for.',
  LOCKSTEP_IMAGE_MISSING: 'An image file is not there or cannot be read.',
  LOCKSTEP_IMAGE_FORMAT: 'An image file is no PNG or JPEG that shows something.',
  LOCKSTEP_MODEL_FILE: 'A model file cannot be read, or does not describe a model.',
  LOCKSTEP_MODEL_SHAPE: 'A layer cannot take what the layer before it gives.',
  LOCKSTEP_MODEL_LAYER: 'A layer of a tf.LayersModel cannot be trained as a run trains.',
  LOCKSTEP_RUN_EXISTS: 'The output folder already holds a run or other files.',
  LOCKSTEP_RUN_FOLDER: 'The run folder cannot be written.',
  LOCKSTEP_RUN_LOCKED: 'Another process is at work in the run folder.',
  LOCKSTEP_RUN_MISSING: 'A folder holds no run that this version can read.',
  LOCKSTEP_RUN_FINISHED: 'The run has done all its steps.',
  LOCKSTEP_RESUME_SETTING: 'A setting that decides bits is not the one that the run was begun with.',
  LOCKSTEP_FILE_DAMAGED: 'A file of a run is not as it was written.',
  LOCKSTEP_VERIFY: 'A run is not what its settings give.',
  LOCKSTEP_NOT_REPRODUCIBLE: 'A run cannot be computed again here, bit for bit.',
  LOCKSTEP_EXPORT: 'A run cannot be exported to this format or place.',
  LOCKSTEP_BAD_LEAF: 'A gradient or loss is not a number, or too large to be summed exactly.',
  LOCKSTEP_BAD_WEIGHTS: 'An update made a weight that is not a finite number.',
  LOCKSTEP_THREAD_DIES: 'Worker threads keep dying.',
  LOCKSTEP_MEMORY: 'The shared memory that this run needs cannot be had.',
  LOCKSTEP_BUILD: 'The compiled kernels are missing or cannot be loaded.',
  LOCKSTEP_NO_TENSORFLOW: 'TensorFlow is not installed, or does not load.',
  LOCKSTEP_NO_GPU: 'TensorFlow cannot use a GPU of this machine.',
  LOCKSTEP_PROCESS_DIES: 'TensorFlow processes keep dying.',
  LOCKSTEP_SETUP: 'TensorFlow could not be set up.',
  LOCKSTEP_SUMS_DIFFER: 'Two nodes gave different sums for the same lanes.',
  LOCKSTEP_NO_NODES: 'No node was there to compute, for longer than the run waits.',
  LOCKSTEP_LISTEN: 'The coordinator cannot listen on an address.',
  LOCKSTEP_KEY_FILE: "The file of a run's key cannot be used.",
  LOCKSTEP_KEY: 'The coordinator refuses the key of a join line.',
  LOCKSTEP_PROTOCOL_VERSION: 'The coordinator and an agent speak different versions of the protocol.',
  LOCKSTEP_JOIN_LINE: 'A join line is not one, or not whole.',
  LOCKSTEP_PROTOCOL: 'The other side does not keep to the protocol.',
  LOCKSTEP_UNREACHABLE: 'An agent could not join a run for as long as it was told to try.',
  LOCKSTEP_PROFILE: 'A node computes in another arithmetic than the run.',
  LOCKSTEP_INTERRUPTED: 'The run was interrupted before its end.',
} as const;

export type ErrorCode = keyof typeof errorCodes;

export function isErrorCode(code: string): code is ErrorCode {
  return Object.hasOwn(errorCodes, code);
}

/** An error a user can act on: `message` says what happened and what to do. */
export class LockstepError extends Error {
  override readonly name = 'LockstepError';
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** The text of anything that was thrown. */
export function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}

// What a resumed run may change: whatever decides no bits.

import { LockstepError } from './errors.js';
import { canonicalJson } from './hash.js';
import type { BitSettings, Job, TrainSettings } from './settings.js';

/** Settings that decide bits, and where they go. Batch and leaf have been compared before. */
const decides: readonly (readonly [keyof TrainSettings, keyof BitSettings])[] = [
  ['model', 'layers'],
  ['seed', 'seed'],
  ['optimizer', 'optimizer'],
  ['momentum', 'optimizer'],
  ['nesterov', 'optimizer'],
  ['weightDecay', 'optimizer'],
  ['lr', 'learningRate'],
  ['lrSchedule', 'learningRate'],
  ['warmup', 'learningRate'],
  ['epochs', 'learningRate'],
  ['maxSteps', 'learningRate'],
];

/**
 * Compares the job of a resumed run with what was stored of it. More epochs pass where the learning rate does not
 * depend on the total, since then no bit does.
 * @throws LOCKSTEP_RESUME_SETTING naming the setting
 */
export function checkResume(
  stored: { readonly settings: TrainSettings; readonly bits: Readonly<Record<string, unknown>> },
  chosen: Partial<TrainSettings>,
  { bits }: Job,
): void {
  const now: Readonly<Record<string, unknown>> = { ...bits };
  const changed = new Set(
    [...Object.keys(bits), 'initialWeights'].filter(
      name => canonicalJson(now[name]) !== canonicalJson(stored.bits[name]),
    ),
  );
  if (changed.size === 0) return;
  for (const [name, target] of decides) {
    if (chosen[name] === undefined || chosen[name] === stored.settings[name]) continue;
    if (changed.has(target)) refuse(difference(name, chosen, stored.settings));
  }
  if (changed.has('datasetDigest')) {
    refuse(
      `The data is not what the run was begun with (digest ${bits.datasetDigest}): name it with --data.`,
    );
  }
  if (changed.has('initialWeights') && changed.size === 1) {
    refuse('The weights of the model file are not those that the run was begun with.');
  }
  if (changed.has('layers')) refuse('The model has other layers than the run was begun with.');
  refuse(`This version computes other bits than the one that began the run (${[...changed].join(', ')}).`);
}

/**
 * Batch and leaf must suit each other, so a change of one is refused before they are compared; and init says where weights
 * come from that a resumed run has long had.
 */
export function refuseOtherStart(stored: TrainSettings, chosen: Partial<TrainSettings>): void {
  for (const name of ['batch', 'leaf'] as const) {
    if (chosen[name] !== undefined && chosen[name] !== stored[name]) refuse(difference(name, chosen, stored));
  }
  if (chosen.init !== undefined && chosen.init !== (stored.init ?? false)) {
    refuse(difference('init', chosen, stored));
  }
}

function difference(
  name: keyof TrainSettings,
  chosen: Partial<TrainSettings>,
  stored: TrainSettings,
): string {
  return `Setting ${name} is ${show(chosen[name])}, and the run was begun with ${show(stored[name])}.`;
}

function refuse(what: string): never {
  throw new LockstepError(
    'LOCKSTEP_RESUME_SETTING',
    `${what} A resumed run keeps every setting that decides bits; begin a new run to change one.`,
  );
}

function show(value: TrainSettings[keyof TrainSettings]): string {
  if (typeof value === 'object') return `${value.name} with layers of its own`;
  return value === undefined ? 'not set' : String(value);
}

// When a checkpoint is due: every so many steps, epochs or seconds, as `--checkpoint-every` says, or at listed steps.

export type CheckpointPolicy =
  | { readonly unit: 'steps' | 'epochs' | 'seconds'; readonly every: number }
  /** In ascending order. */
  | { readonly unit: 'listed'; readonly steps: readonly number[] };

export const checkpointEveryPattern = /^([1-9]\d{0,8})(s|steps|epochs)?$/;

/** Reads `500` or `500steps`, `2epochs`, `30s`. The text has been checked against the pattern. */
export function parseCheckpointEvery(text: string): CheckpointPolicy {
  const [, count, unit] = checkpointEveryPattern.exec(text)!;
  return { unit: unit === 's' ? 'seconds' : unit === 'epochs' ? 'epochs' : 'steps', every: Number(count) };
}

/** The last checkpoint, and where the run is since; before the first one, `savedStep` is -1 and `sinceMs` infinite. */
export interface CheckpointAge {
  readonly savedStep: number;
  readonly sinceMs: number;
}

export function isCheckpointDue(
  policy: CheckpointPolicy,
  { savedStep, sinceMs }: CheckpointAge,
  step: number,
  stepsPerEpoch: number,
): boolean {
  if (policy.unit === 'seconds') return sinceMs >= policy.every * 1000;
  return step >= nextDueStep(policy, savedStep, stepsPerEpoch);
}

/** The next step, after `step`, behind which a checkpoint is due; infinite where time decides. */
export function nextDueStep(policy: CheckpointPolicy, step: number, stepsPerEpoch: number): number {
  if (policy.unit === 'seconds') return Infinity;
  if (policy.unit === 'listed') return policy.steps.find(listed => listed > step) ?? Infinity;
  const period = policy.unit === 'epochs' ? policy.every * stepsPerEpoch : policy.every;
  return (Math.floor(step / period) + 1) * period;
}

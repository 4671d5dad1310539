// Durations as people write them: 90s, 10m, 2h.

export const durationForm = "a duration such as '90s', '10m' or '2h', of 24 days at most";
/** Timers take no more milliseconds than 2^31. */
const MOST_MS = 24 * 24 * 3_600_000;
const unitMs = { s: 1000, m: 60_000, h: 3_600_000 };

/** Milliseconds; undefined if the text is no duration. */
export function parseDuration(text: string): number | undefined {
  const [, count, unit] = /^([1-9]\d{0,8})([smh])$/.exec(text) ?? [];
  if (unit !== 's' && unit !== 'm' && unit !== 'h') return undefined;
  const ms = Number(count) * unitMs[unit];
  return ms <= MOST_MS ? ms : undefined;
}

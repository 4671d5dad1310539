// Bytes that nobody can guess come in by the door: this module alone asks the system for them. What decides bits of the
// weights is drawn from philox.ts.

import { randomBytes } from 'node:crypto';

export type RandomBytes = (sizeBytes: number) => Uint8Array;

export const systemRandom: RandomBytes = sizeBytes => randomBytes(sizeBytes);

/** In [0, 1), of 32 bits. */
export function systemFraction(): number {
  return randomBytes(4).readUInt32LE() / 4_294_967_296;
}

// The safetensors format: a u64 length, a JSON header with names, shapes and offsets, and the tensors' bytes.

import type { Model } from '../shared/model.js';

/** The bytes of all tensors of a model, little-endian f32 in the order of the flat vector: what is hashed. */
export function tensorBytes(weights: Float32Array): Uint8Array {
  return new Uint8Array(weights.buffer, weights.byteOffset, weights.byteLength);
}

/** A whole file. The header is padded with spaces so that the data begins at a multiple of 8. */
export function encodeSafetensors(
  model: Model,
  weights: Float32Array,
  metadata: Record<string, string>,
): Uint8Array {
  const entries = model.tensors.map(({ name, shape, offset, size }) => [
    name,
    { dtype: 'F32', shape, data_offsets: [offset * 4, (offset + size) * 4] },
  ]);
  const json = JSON.stringify({ __metadata__: metadata, ...Object.fromEntries(entries) });
  const header = Buffer.from(json.padEnd(json.length + (-Buffer.byteLength(json) & 7), ' '));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  return Buffer.concat([length, header, tensorBytes(weights)]);
}

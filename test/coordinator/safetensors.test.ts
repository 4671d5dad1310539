// The safetensors format, read back by its specification: u64 length, JSON header, tensors.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { namedTensors } from '#dist/coordinator/checkpoint.js';
import { decodeSafetensors, encodeSafetensors, tensorBytes } from '#dist/coordinator/safetensors.js';
import { initialWeights } from '#dist/shared/initial-weights.js';
import { compileModel, type Model } from '#dist/shared/model.js';
import { presetNames, presetSpec } from '#dist/shared/presets.js';

interface Entry {
  readonly dtype: string;
  readonly shape: number[];
  readonly data_offsets: [number, number];
}

type Header = Record<string, Entry> & { readonly __metadata__: Record<string, string> };

/** A file taken apart, with the offset of its data. */
function parse(file: Uint8Array) {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const dataStart = 8 + Number(view.getBigUint64(0, true));
  const text = new TextDecoder('utf-8', { fatal: true }).decode(file.subarray(8, dataStart));
  const { __metadata__: metadata, ...tensors }: Header = JSON.parse(text);
  return { text, metadata, tensors, dataStart, data: file.subarray(dataStart) };
}

function modelOf(name: string): Model {
  return compileModel(presetSpec(name, 10), { height: 28, width: 28, channels: 1 }, 10);
}

function weightsOf(model: Model): Float32Array {
  return initialWeights(model, 1).subarray(0, model.parameterCount);
}

for (const name of presetNames) {
  test(`the tensors of ${name} cover the data exactly, with names, shapes and values`, () => {
    const model = modelOf(name);
    const weights = weightsOf(model);
    const { tensors, data } = parse(
      encodeSafetensors({ tensors: namedTensors(model, weights), metadata: {} }),
    );
    assert.deepEqual(
      Object.keys(tensors),
      model.tensors.map(tensor => tensor.name),
    );
    let end = 0;
    for (const { name: tensorName, shape, offset, size } of model.tensors) {
      const entry = tensors[tensorName];
      assert.equal(entry.dtype, 'F32');
      assert.deepEqual(entry.shape, [...shape]);
      assert.deepEqual(entry.data_offsets, [end, end + 4 * size]);
      [, end] = entry.data_offsets;
      const view = new DataView(data.buffer, data.byteOffset + entry.data_offsets[0]);
      for (const index of [0, size - 1]) {
        assert.equal(view.getFloat32(4 * index, true), weights[offset + index]);
      }
    }
    assert.equal(end, data.length);
    assert.deepEqual(Buffer.from(data), Buffer.from(tensorBytes(weights)));
  });
}

test('the header is a JSON object that begins the file, and the data begins at a multiple of 8', () => {
  const model = modelOf('mlp');
  for (let length = 0; length < 17; length++) {
    for (const letter of ['x', 'é', '樹', '🌲']) {
      const metadata = { note: letter.repeat(length) };
      const file = parse(encodeSafetensors({ tensors: namedTensors(model, weightsOf(model)), metadata }));
      assert.equal(file.dataStart % 8, 0, `${length} times ${letter}`);
      assert.match(file.text, /^\{.*\} {0,7}$/s);
      const { sha256: _, ...rest } = file.metadata;
      assert.deepEqual(rest, metadata);
      assert.equal(file.data.length, 4 * model.parameterCount);
    }
  }
});

test('the bytes of tensors are those of the view alone, little-endian', () => {
  const weights = Float32Array.of(9, 1, -2, 9).subarray(1, 3);
  assert.deepEqual([...tensorBytes(weights)], [0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0]);
});

function assertDamaged(bytes: Uint8Array): void {
  assert.throws(() => decodeSafetensors(bytes, 'some/file'), {
    code: 'LOCKSTEP_FILE_DAMAGED',
    message: /^some\/file is damaged/,
  });
}

test('what is encoded is decoded, and every flipped bit and every cut is found', () => {
  const tensors = [
    { name: 'a', shape: [2, 3], values: Float32Array.of(1, -2, 3, Infinity, NaN, -0) },
    { name: 'b.c', shape: [], values: Float32Array.of(7) },
    { name: 'empty', shape: [0, 4], values: new Float32Array(0) },
  ];
  const metadata = { note: 'é "quoted"', step: '3' };
  const file = encodeSafetensors({ tensors, metadata });
  assert.deepEqual(decodeSafetensors(file, 'x'), { tensors, metadata });
  for (let bit = 0; bit < file.length * 8; bit++) {
    const flipped = Uint8Array.from(file);
    flipped[bit >> 3] ^= 1 << (bit & 7);
    assertDamaged(flipped);
  }
  for (let length = 0; length < file.length; length++) assertDamaged(file.subarray(0, length));
  assertDamaged(Buffer.concat([file, Buffer.alloc(1)]));
});

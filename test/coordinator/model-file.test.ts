// Model files: what is read, what is refused and how, and that example and documentation say the same.

import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { loadModelSpec, readModelFile } from '#dist/coordinator/model-file.js';
import { compileModel, layerKeys, type ModelSpec } from '#dist/shared/model.js';
import { presetSpec } from '#dist/shared/presets.js';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** Gives `work` the path of a file in a folder that is removed afterwards. */
function withFile(text: string | Uint8Array, work: (path: string) => void, name = 'my-model.json'): void {
  const dir = mkdtempSync(join(tmpdir(), 'lockstep-model-'));
  try {
    const path = join(dir, name);
    writeFileSync(path, text);
    work(path);
  } finally {
    rmSync(dir, { recursive: true });
  }
}

function read(text: string | Uint8Array, name?: string): ModelSpec {
  let spec: ModelSpec | undefined;
  withFile(text, path => (spec = readModelFile(path).spec), name);
  return spec!;
}

const dense = '{ "type": "dense", "units": 10 }';

test('a file gives its layers, in their canonical form, and its name', () => {
  const text = `{
    "name": "tiny_1.0",
    "layers": [
      { "type": "conv2d", "filters": 4, "kernelSize": 3, "stride": 1, "padding": "valid" },
      { "type": "conv2d", "filters": 4, "kernelSize": 3, "stride": 2, "padding": "same" },
      { "type": "avgPool2d", "poolSize": 2 }, { "type": "relu" }, { "type": "flatten" },
      { "type": "dropout", "rate": 0.25 }, ${dense}
    ]
  }`;
  assert.deepEqual(read(text), {
    name: 'tiny_1.0',
    layers: [
      { type: 'conv2d', filters: 4, kernelSize: 3 },
      { type: 'conv2d', filters: 4, kernelSize: 3, stride: 2, padding: 'same' },
      { type: 'avgPool2d', poolSize: 2 },
      { type: 'relu' },
      { type: 'flatten' },
      { type: 'dropout', rate: 0.25 },
      { type: 'dense', units: 10 },
    ],
  });
});

test('a byte-order mark, Windows line ends and a key $schema change nothing', () => {
  const plain = `{\n"layers": [\n${dense}\n]\n}\n`;
  const windows = `\uFEFF{\r\n"$schema": "somewhere.json",\r\n"layers": [\r\n${dense}\r\n]\r\n}\r\n`;
  assert.deepEqual(read(windows), read(plain));
});

test("a model without a name takes the file's, made safe for a folder", () => {
  const text = `{ "layers": [${dense}] }`;
  for (const [file, name] of [
    ['my-model.json', 'my-model'],
    ['My model (2).json', 'My-model-2-'],
    ['v1.2_a.json', 'v1.2_a'],
    ['.json', 'model'],
  ]) {
    assert.equal(read(text, file).name, name);
  }
});

test('a model is a preset, or a file if it ends with .json', () => {
  assert.deepEqual(loadModelSpec('mlp', 7), presetSpec('mlp', 7));
  withFile(`{ "layers": [${dense}] }`, path =>
    assert.deepEqual(loadModelSpec(path, 7).layers, [{ type: 'dense', units: 10 }]),
  );
  for (const unknown of ['lenet6', 'constructor', '']) {
    assert.throws(() => loadModelSpec(unknown, 10), {
      code: 'LOCKSTEP_BAD_SETTING',
      message: /^Setting model is ".*", expected one of lenet5, mlp, .*\.json; the nearest name is \w+/,
    });
  }
});

const refused: Record<string, { text: string; message: RegExp }> = {
  'nothing at all': { text: '', message: /no JSON/ },
  'no JSON': { text: '{\n  "layers": [,]\n}', message: /no JSON/ },
  'a comma too many': {
    text: '{\r\n  "layers": [{ "type": "relu", }]\r\n}',
    message: /my-model\.json, line 2, column 32: .*no JSON/,
  },
  'a list': { text: '[]', message: / is a list, expected an object with a list of layers\.$/ },
  'a number': { text: '3', message: / is 3, expected an object/ },
  null: { text: 'null', message: / is null, expected an object/ },
  'no layers': { text: '{}', message: /: layers is missing; a model has name, layers\.$/ },
  'an empty list of layers': {
    text: '{ "layers": [] }',
    message: /: layers is 0, expected a list of at least one layer\.$/,
  },
  'layers that are no list': {
    text: '{ "layers": 5 }',
    message: /: layers is 5, expected a list of layers\.$/,
  },
  'a name with a slash': {
    text: `{ "name": "../up", "layers": [${dense}] }`,
    message: /: name is "\.\.\/up", expected letters, digits, dots, dashes and underscores\.$/,
  },
  'a name that is null': {
    text: `{ "name": null, "layers": [${dense}] }`,
    message: /: name is null, expected /,
  },
  'an unknown key of the model': {
    text: `{ "layer": [${dense}] }`,
    message: /: layer is unknown; a model has name, layers; the nearest is layers\.$/,
  },
  'an unknown key of a layer': {
    text: `{ "layers": [${dense}, { "type": "conv2d", "filters": 3, "kernelsize": 3 }] }`,
    message:
      /: layers\[1\]\.kernelsize is unknown; a layer of type conv2d has type, filters, kernelSize, stride, padding; the nearest is kernelSize\.$/,
  },
  'a key that objects inherit': {
    text: `{ "layers": [{ "type": "relu", "toString": 1 }] }`,
    message: /: layers\[0\]\.toString is unknown/,
  },
  'the key __proto__': {
    text: `{ "layers": [{ "type": "relu", "__proto__": {} }] }`,
    message: /: layers\[0\]\.__proto__ is unknown/,
  },
  'a missing key': {
    text: '{ "layers": [{ "type": "relu" }, { "type": "dense" }] }',
    message: /: layers\[1\]\.units is missing; a layer of type dense has type, units\.$/,
  },
  'a value out of range': {
    text: '{ "layers": [{ "type": "relu" }, { "type": "dense", "units": 0 }] }',
    message: /: layers\[1\]\.units is 0, expected a whole number from 1 to 65536\.$/,
  },
  'a value of another type': {
    text: '{ "layers": [{ "type": "dense", "units": "10" }] }',
    message: /: layers\[0\]\.units is "10", expected a whole number/,
  },
  'a value beyond all numbers': {
    text: '{ "layers": [{ "type": "dense", "units": 1e999 }] }',
    message: /: layers\[0\]\.units is Infinity, expected a whole number/,
  },
  'another padding': {
    text: '{ "layers": [{ "type": "conv2d", "filters": 1, "kernelSize": 3, "padding": "full" }] }',
    message: /: layers\[0\]\.padding is "full", expected 'valid', 'same' or a whole number from 0/,
  },
  'an unknown type': {
    text: '{ "layers": [{ "type": "Conv2D" }] }',
    message: /: layers\[0\]\.type is "Conv2D", expected one of conv2d, .*; the nearest is conv2d\.$/,
  },
  'no type': {
    text: '{ "layers": [{}] }',
    message: /: layers\[0\]\.type is missing, expected one of conv2d/,
  },
  'a layer that is no object': {
    text: '{ "layers": ["relu"] }',
    message: /: layers\[0\] is "relu", expected an object with a type\.$/,
  },
};

for (const [what, { text, message }] of Object.entries(refused)) {
  test(`${what} is refused with LOCKSTEP_MODEL_FILE, naming file and place`, () => {
    withFile(text, path => {
      assert.throws(
        () => readModelFile(path),
        (error: unknown) => {
          assert.ok(error instanceof Error && 'code' in error);
          assert.equal(error.code, 'LOCKSTEP_MODEL_FILE');
          assert.ok(error.message.startsWith(path), error.message);
          assert.match(error.message, message);
          return true;
        },
      );
    });
  });
}

test('a file that cannot be read is refused with LOCKSTEP_MODEL_FILE', () => {
  withFile('', path => {
    assert.throws(() => readModelFile(`${path}.json`), {
      code: 'LOCKSTEP_MODEL_FILE',
      message: /^Cannot read the model .*my-model\.json\.json: ENOENT/,
    });
    mkdirSync(`${path}.dir.json`);
    assert.throws(() => readModelFile(`${path}.dir.json`), {
      code: 'LOCKSTEP_MODEL_FILE',
      message: /EISDIR/,
    });
  });
});

test('every type of layer is in docs/model.md, with its keys', () => {
  const text = readFileSync(join(root, 'docs', 'model.md'), 'utf8');
  for (const [type, [, ...keys]] of Object.entries(layerKeys)) {
    const row = text.split('\n').find(line => line.startsWith(`| \`${type}\``));
    assert.ok(row, type);
    for (const key of keys) assert.ok(row.includes(`\`${key}\``), `${type}: ${key}`);
  }
});

test('every example compiles, and the one in docs/model.md is the file', () => {
  const dir = join(root, 'examples');
  const names = readdirSync(dir);
  assert.ok(names.length > 0);
  for (const name of names) {
    compileModel(readModelFile(join(dir, name)).spec, { height: 28, width: 28, channels: 1 }, 10);
  }
  const documented = /```json\n([^]*?)```/.exec(readFileSync(join(root, 'docs', 'model.md'), 'utf8'));
  assert.equal(documented?.[1], readFileSync(join(dir, 'strided.json'), 'utf8'));
});

// Config files: what they may say, how they are refused, and that the flags and both JSON schemas say the same.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { trainFlags } from '#dist/cli/train.js';
import { readConfig } from '#dist/library/index.js';
import { callFlags, settingOf } from '#dist/shared/config.js';
import { listenSettingsSchema } from '#dist/shared/listen.js';
import { resolveSettings, trainSettingsSchema, type TrainSettings } from '#dist/shared/settings.js';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** Gives `work` the path of a file in a folder that is removed afterwards. */
function withFile(text: string | Uint8Array, work: (path: string, dir: string) => void): void {
  const dir = mkdtempSync(join(tmpdir(), 'lockstep-config-'));
  try {
    const path = join(dir, 'mine.json');
    writeFileSync(path, text);
    work(path, dir);
  } finally {
    rmSync(dir, { recursive: true });
  }
}

function read(text: string | Uint8Array): Partial<TrainSettings> {
  let settings: Partial<TrainSettings> = {};
  withFile(text, path => (settings = readConfig(path)));
  return settings;
}

const everySetting = {
  model: 'mlp',
  workers: 3,
  epochs: 2,
  'max-steps': 11,
  batch: 96,
  leaf: 12,
  optimizer: 'adamw',
  lr: 0.125,
  momentum: 0.5,
  nesterov: true,
  'weight-decay': 0.25,
  'lr-schedule': 'cosine',
  warmup: 3,
  seed: 7,
  init: true,
  engine: 'reference',
  data: '/data/fashion',
  'label-offset': 1,
  'checkpoint-every': '3epochs',
  out: '/runs/mine',
  listen: '[::]:7077',
  advertise: 'trainer.example.org',
  'min-nodes': 2,
  patience: '10m',
  'key-file': '/keys/mine',
  'join-file': '/keys/join',
  insecure: true,
  mixed: false,
  devices: 'cpu',
  audit: 0.5,
};

test('every setting can be said, by the name of its flag', () => {
  assert.equal(
    Object.keys(everySetting).length,
    Object.keys({ ...trainSettingsSchema.entries, ...listenSettingsSchema.entries }).length,
  );
  assert.deepEqual(read(JSON.stringify(everySetting)), {
    model: 'mlp',
    workers: 3,
    epochs: 2,
    maxSteps: 11,
    batch: 96,
    leaf: 12,
    optimizer: 'adamw',
    lr: 0.125,
    momentum: 0.5,
    nesterov: true,
    weightDecay: 0.25,
    lrSchedule: 'cosine',
    warmup: 3,
    seed: 7,
    init: true,
    engine: 'reference',
    data: '/data/fashion',
    labelOffset: 1,
    checkpointEvery: '3epochs',
    out: '/runs/mine',
    listen: '[::]:7077',
    advertise: 'trainer.example.org',
    minNodes: 2,
    patience: '10m',
    keyFile: '/keys/mine',
    joinFile: '/keys/join',
    insecure: true,
    mixed: false,
    devices: 'cpu',
    audit: 0.5,
  });
});

test('the keys are the flags of train, the model and nothing else', () => {
  assert.deepEqual(
    [...Object.keys(trainFlags), 'model'].toSorted(),
    [...settingOf.keys(), ...callFlags].toSorted(),
  );
});

test('an empty config sets nothing; what it leaves out comes from preset and defaults', () => {
  assert.deepEqual(read('{}'), {});
  assert.deepEqual(
    resolveSettings(read('{ "model": "mlp", "workers": "auto" }')),
    resolveSettings({ model: 'mlp' }),
  );
  assert.equal(resolveSettings(read('{ "model": "mlp", "lr": 0.5 }')).lr, 0.5);
});

test('a byte-order mark, Windows line ends and a key $schema change nothing', () => {
  const text = '\uFEFF{\r\n  "$schema": "./config.schema.json",\r\n  "max-steps": 3\r\n}\r\n';
  assert.deepEqual(read(text), { maxSteps: 3 });
});

test("relative paths begin at the file's folder; a preset is no path", () => {
  const text =
    '{ "model": "nets/mine.json", "data": "../fashion", "out": "runs/x", "key-file": "key", "join-file": "join" }';
  withFile(text, (path, dir) => {
    const { model, data, out, keyFile, joinFile } = readConfig(path);
    assert.deepEqual(
      [model, data, out, keyFile, joinFile],
      [
        join(dir, 'nets', 'mine.json'),
        resolve(dir, '../fashion'),
        join(dir, 'runs/x'),
        join(dir, 'key'),
        join(dir, 'join'),
      ],
    );
  });
  assert.deepEqual(read('{ "model": "mlp" }'), { model: 'mlp' });
});

const refused: Record<string, { text: string | Uint8Array; message: RegExp }> = {
  'an empty file': { text: '', message: /: this is no JSON: / },
  'half a file': {
    text: '{\n  "seed": 1,\n  "epochs"',
    message: /mine\.json(, line 3, column \d+)?: this is no JSON: /,
  },
  'a list': { text: '[]', message: /mine\.json is a list, expected an object with settings\.$/ },
  'no object': { text: 'null', message: /mine\.json is null, expected an object with settings\.$/ },
  'a misspelt key': {
    text: '{ "max-step": 3 }',
    message: /: max-step is unknown; the nearest setting is max-steps\.$/,
  },
  'a key in camel case': {
    text: '{ "lrSchedule": "cosine" }',
    message: /: lrSchedule is unknown; the nearest setting is lr-schedule\.$/,
  },
  'the key __proto__': { text: '{ "__proto__": {} }', message: /: __proto__ is unknown/ },
  'a key that objects inherit': { text: '{ "toString": 1 }', message: /: toString is unknown/ },
  'a flag that is no setting': {
    text: '{ "json": true }',
    message: /: json is a flag only: give it as --json\.$/,
  },
  'a number as text': {
    text: '{ "epochs": "5" }',
    message: /: epochs is "5", expected a whole number from 1\.$/,
  },
  'a fraction': { text: '{ "epochs": 1.5 }', message: /: epochs is 1\.5, expected a whole number from 1\.$/ },
  'a number out of range': {
    text: '{ "max-steps": 0 }',
    message: /: max-steps is 0, expected a whole number from 1\.$/,
  },
  'a number beyond all numbers': {
    text: '{ "lr": 1e999 }',
    message: /: lr is Infinity, expected a number above 0\.$/,
  },
  'a number beyond whole numbers': {
    text: '{ "seed": 1e300 }',
    message: /: seed is 1e\+300, expected a whole/,
  },
  'a setting that is null': {
    text: '{ "leaf": null }',
    message: /: leaf is null, expected a whole number from 1\.$/,
  },
  'text as a switch': {
    text: '{ "nesterov": "yes" }',
    message: /: nesterov is "yes", expected true or false\.$/,
  },
  'no choice': {
    text: '{ "optimizer": "adma" }',
    message: /: optimizer is "adma", expected one of sgd, adam, adamw\.$/,
  },
  'workers as text': {
    text: '{ "workers": "4" }',
    message: /: workers is "4", expected a whole number from 0 to 256, or 'auto'\.$/,
  },
  'an empty path': { text: '{ "data": "" }', message: /: data is "", expected a path\.$/ },
  'a model in the config': {
    text: '{ "model": { "layers": [] } }',
    message: /: model is an object, expected a preset's name/,
  },
  'a list in the place of a number': { text: '{ "batch": [64] }', message: /: batch is a list, expected / },
};

for (const [what, { text, message }] of Object.entries(refused)) {
  test(`${what} is refused with LOCKSTEP_CONFIG_FILE, naming file and key`, () => {
    withFile(text, path => {
      assert.throws(
        () => readConfig(path),
        (error: unknown) => {
          assert.ok(error instanceof Error && 'code' in error);
          assert.equal(error.code, 'LOCKSTEP_CONFIG_FILE');
          assert.ok(error.message.startsWith(path), error.message);
          assert.match(error.message, message);
          return true;
        },
      );
    });
  });
}

test('a file that cannot be read is refused with LOCKSTEP_CONFIG_FILE', () => {
  withFile('', (path, dir) => {
    const code = 'LOCKSTEP_CONFIG_FILE';
    assert.throws(() => readConfig(`${path}.gone`), {
      code,
      message: /^Cannot read the config .*\.gone: ENOENT/,
    });
    mkdirSync(join(dir, 'folder'));
    assert.throws(() => readConfig(join(dir, 'folder')), { code, message: /EISDIR/ });
  });
});

test('docs/*.schema.json are what the schemas in the source make', () => {
  const script = join(root, 'scripts', 'json-schemas.js');
  const { status, stderr } = spawnSync(process.execPath, [script, '--check'], { encoding: 'utf8' });
  assert.equal(stderr, '');
  assert.equal(status, 0);
});

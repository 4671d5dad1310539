// Opens weights, checkpoints and exports with Python's safetensors, in a virtual environment of its own.

import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { run } from './run.js';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const main = join(root, 'dist', 'cli', 'main.js');
const packages = ['safetensors==0.8.0', 'numpy==2.4.6'];

const reader = `
import hashlib, json, sys
from safetensors import safe_open
found = []
for path in sys.argv[1:]:
    with safe_open(path, framework="np") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        digest = hashlib.sha256()
        for name in file.offset_keys():
            digest.update(tensors[name].tobytes())
        found.append({
            "metadata": file.metadata(),
            "shapes": {name: list(tensor.shape) for name, tensor in tensors.items()},
            "sha256": digest.hexdigest(),
        })
print(json.dumps(found))
`;

const hasPython = spawnSync('python3', ['-c', 'import venv, ensurepip']).status === 0;
if (!hasPython) {
  console.log('skipped: there is no python3 with venv, and this reads files with its safetensors');
  process.exit(0);
}

const dir = mkdtempSync(join(tmpdir(), 'lockstep-safetensors-'));
try {
  const python = join(dir, 'venv', 'bin', 'python');
  run('python3', ['-m', 'venv', join(dir, 'venv')]);
  run(python, ['-m', 'pip', 'install', '--quiet', ...packages]);
  const script = join(dir, 'read.py');
  writeFileSync(script, reader);
  const statesOf = { adam: ['firstMoment', 'secondMoment'], sgd: ['momentum'] };
  for (const [optimizer, states] of Object.entries(statesOf)) {
    const out = join(dir, optimizer);
    const args = ['train', 'lenet5', '--max-steps', '20', '--optimizer', optimizer, '--json', '--out', out];
    const done = JSON.parse(
      run(process.execPath, [main, ...args])
        .trimEnd()
        .split('\n')
        .at(-1),
    );
    const described = JSON.parse(run(process.execPath, [main, 'model', 'lenet5', '--json']));
    const checkpoint = readdirSync(join(out, 'checkpoints')).toSorted().at(-1);
    const { path } = JSON.parse(
      run(process.execPath, [main, 'export', out, '--to', 'safetensors', '--json']),
    );
    const files = [join(out, 'weights.safetensors'), join(out, 'checkpoints', checkpoint), path];
    const [weights, state, exported] = JSON.parse(run(python, [script, ...files]));

    const names = described.layers.filter(({ parameters }) => parameters > 0).map(({ name }) => name);
    const tensors = names.flatMap(name => [`${name}.kernel`, `${name}.bias`]);
    sameNames(weights.shapes, tensors);
    equal(weights.shapes['conv2.kernel'], [5, 5, 6, 16], 'shape of conv2.kernel');
    equal(weights.sha256, done.weightsSha256, 'bytes of the weights');
    equal(weights.metadata.hash, done.hash, 'hash of the weights');
    equal(exported.shapes, weights.shapes, 'shapes of the export');
    equal(exported.sha256, done.weightsSha256, 'bytes of the export');
    equal(JSON.parse(exported.metadata.shape), [28, 28, 1], 'shape of images of the export');
    const expected = [...tensors, ...states.flatMap(name => tensors.map(tensor => `${tensor}.${name}`))];
    sameNames(state.shapes, expected);
    equal(state.shapes[`fc1.kernel.${states[0]}`], [256, 120], 'shape of a state');
    equal([state.metadata.step, state.metadata.hash], ['20', done.hash], 'step and hash of the checkpoint');
    console.log(`ok  ${optimizer}: weights, ${checkpoint} and an export open in Python's safetensors`);
  }
} finally {
  rmSync(dir, { recursive: true });
}

function sameNames(shapes, expected) {
  equal(Object.keys(shapes).toSorted().join(' '), expected.toSorted().join(' '), 'names of the tensors');
}

function equal(found, expected, what) {
  if (JSON.stringify(found) === JSON.stringify(expected)) return;
  throw new Error(`${what}: expected ${JSON.stringify(expected)}, found ${JSON.stringify(found)}`);
}

// Processes for TensorFlow that come to nothing: with a package in its place that does not load, or ends its process.

import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { allotted, chooseGpus, parseGpus } from '#dist/library/tensorflow.js';
import { tensorflowEnvironment } from '#dist/worker/engines/tensorflow/runtime.js';
import { eventsOf, inTemporaryFolder, lockstep, onlyEvent } from '../support/cli.js';

/** What `@tensorflow/tfjs-node` does when it is loaded. */
async function trainWith(program: string) {
  return inTemporaryFolder(async cwd => {
    const folder = join(cwd, 'node_modules', '@tensorflow', 'tfjs-node');
    mkdirSync(join(folder, 'lib', 'napi-v8'), { recursive: true });
    mkdirSync(join(folder, 'dist'));
    writeFileSync(join(folder, 'package.json'), '{ "version": "0.0.1", "main": "dist/index.js" }');
    writeFileSync(join(folder, 'lib', 'napi-v8', 'tfjs_binding.node'), '');
    writeFileSync(join(folder, 'dist', 'index.js'), program);
    const flags = ['--engine', 'tensorflow', '--devices', 'cpu', '--workers', '1', '--json'];
    const env = { XDG_CACHE_HOME: cwd };
    const { code, stdout } = await lockstep(['train', 'mlp', ...flags, '--out', 'run'], { cwd, env });
    return { code, events: eventsOf(stdout) };
  });
}

test('a TensorFlow that does not load ends the run with its reason, and the command that mends it', async () => {
  const { code, events } = await trainWith("throw new Error('the binding is of another make');");
  assert.equal(code, 1);
  const error = onlyEvent(events, 'error');
  assert.equal(error.code, 'LOCKSTEP_NO_TENSORFLOW');
  assert.match(error.message, /the binding is of another make.*lockstep setup tensorflow/s);
});

test('a process that dies again and again without having computed anything ends the run', async () => {
  const { code, events } = await trainWith("process.kill(process.pid, 'SIGKILL');");
  assert.equal(code, 1);
  const error = onlyEvent(events, 'error');
  assert.equal(error.code, 'LOCKSTEP_PROCESS_DIES');
  assert.match(error.message, /cpu0 was lost 5 times in a row .* the last time SIGKILL/);
  const told = events.filter(event => event.type === 'warning' && /is started again/.test(event.message));
  assert.equal(told.length, 4);
});

test('without TensorFlow nothing is begun', async () => {
  await inTemporaryFolder(async cwd => {
    const flags = ['--engine', 'tensorflow', '--devices', 'cpu', '--out', 'run'];
    const { code, stderr } = await lockstep(['train', 'mlp', ...flags], {
      cwd,
      env: { XDG_CACHE_HOME: cwd },
    });
    assert.equal(code, 1);
    assert.match(stderr, /^LOCKSTEP_NO_TENSORFLOW: .* lockstep setup tensorflow\n$/);
    const again = await lockstep(['runs', cwd], { cwd });
    assert.doesNotMatch(again.stdout, /mlp/);
  });
});

const gpus = parseGpus('0, NVIDIA H100 80GB HBM3\n1, Tesla T4\n\n');

test('GPUs are told by nvidia-smi, and chosen by number', () => {
  assert.deepEqual(gpus, [
    { index: 0, name: 'NVIDIA H100 80GB HBM3' },
    { index: 1, name: 'Tesla T4' },
  ]);
  assert.deepEqual(chooseGpus('1', gpus), [gpus[1]]);
  assert.deepEqual(
    [chooseGpus('all', gpus), chooseGpus(undefined, gpus), chooseGpus('cpu', gpus)],
    [gpus, gpus, []],
  );
  for (const [devices, message] of [
    ['2', /no GPU 2; nvidia-smi lists 0, 1/],
    ['0,00', /names GPU 00 twice/],
  ] as const) {
    assert.throws(() => chooseGpus(devices, gpus), { message });
  }
  assert.throws(() => chooseGpus('all', []), { code: 'LOCKSTEP_NO_GPU' });
  assert.deepEqual(allotted(gpus, '1,7'), [gpus[1]]);
  for (const none of ['', '-1']) assert.deepEqual(allotted(gpus, none), []);
  for (const unknown of [undefined, 'GPU-8932f937']) assert.deepEqual(allotted(gpus, unknown), gpus);
});

test('settings of the environment that would be named wrongly are refused', () => {
  assert.equal(tensorflowEnvironment('cpu', {})['TF_DETERMINISTIC_OPS'], '1');
  for (const name of ['TF_DETERMINISTIC_OPS', 'TF_ENABLE_ONEDNN_OPTS', 'TF_NUM_INTRAOP_THREADS']) {
    for (const value of ['', 'false', '-1']) {
      assert.throws(() => tensorflowEnvironment('cpu', { [name]: value }), { code: 'LOCKSTEP_BAD_SETTING' });
    }
  }
});

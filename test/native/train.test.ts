// Training with TensorFlow: processes of the coordinator's own, agents, processes killed, and one hash for all.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { eventsOf, inTemporaryFolder, lockstep, onlyEvent } from '../support/cli.js';
import { childrenOf, Field } from '../support/processes.js';
import { Random } from '../support/random.js';

const job = ['train', 'lenet5', '--engine', 'tensorflow', '--devices', 'cpu', '--epochs', '1', '--seed', '7'];

async function train(...flags: string[]) {
  return inTemporaryFolder(async cwd => {
    const { code, stdout, stderr } = await lockstep([...job, ...flags, '--out', 'run', '--json'], { cwd });
    assert.equal(code, 0, stderr + stdout.slice(-1000));
    return eventsOf(stdout);
  });
}

const whole = train('--workers', '2');

test('LeNet-5 learns in an epoch with two processes', async () => {
  const events = await whole;
  const { testAccuracy, nodes } = onlyEvent(events, 'done');
  assert.ok(testAccuracy >= 0.97, `accuracy ${testAccuracy}`);
  assert.deepEqual(nodes?.map(({ name }) => name).toSorted(), ['cpu0', 'cpu1']);
  const { epochs, leaf, lanes, workers } = onlyEvent(events, 'start');
  assert.deepEqual({ epochs, leaf, lanes, workers }, { epochs: 1, leaf: 64, lanes: 4, workers: 2 });
});

test('the hash is the same for any number of processes, also when they are killed', async t => {
  const { hash, testLoss } = onlyEvent(await whole, 'done');
  for (const workers of ['1', '3']) {
    const done = onlyEvent(await train('--workers', workers), 'done');
    assert.deepEqual([done.hash, done.testLoss], [hash, testLoss], `${workers} processes`);
  }
  const random = new Random('kill');
  const field = new Field(t);
  const coordinator = field.coordinate([...job.slice(1), '--workers', '2']);
  for (const step of [30, 90, 150]) {
    await coordinator.step(step);
    const children = childrenOf(coordinator.pid);
    process.kill(random.pick(children), 'SIGKILL');
  }
  const done = await coordinator.done();
  assert.equal(done.hash, hash);
  assert.equal(coordinator.all('node-lost').length, 3);
  assert.ok(
    coordinator
      .all('warning')
      .some(({ message }) => /was lost \(SIGKILL\). It is started again/.test(message)),
  );
});

test('two agents of one process each give the same hash, and one without TensorFlow is refused', async t => {
  const { hash } = onlyEvent(await whole, 'done');
  const field = new Field(t);
  const coordinator = field.coordinate([...job.slice(1), '--workers', '0', '--min-nodes', '2']);
  const line = await coordinator.join();
  const flags = ['--engine', 'tensorflow', '--devices', 'cpu'];
  const agents = ['a', 'b'].map(name => field.work(line, { name, workers: 1, flags }));
  const plain = field.work(line, { name: 'plain', workers: 1 });
  const { code } = await plain.ended;
  assert.equal(code, 1);
  assert.match(plain.stderr, /LOCKSTEP_PROFILE: The run is computed with the engine tensorflow/);
  assert.equal((await coordinator.done()).hash, hash);
  for (const agent of agents) assert.equal((await agent.ended).code, 0, agent.tail());
});

test('a run is resumed, evaluated and used for predictions with the bits that it ended with', async () => {
  await inTemporaryFolder(async cwd => {
    const short = ['--max-steps', '40', '--lr-schedule', 'constant', '--json'];
    const whole40 = await lockstep([...job, '--workers', '1', ...short, '--out', 'whole'], { cwd });
    const flags = [...job, '--workers', '1', ...short, '--max-steps', '20', '--out', 'run'];
    await lockstep(flags.toSpliced(flags.indexOf('--max-steps'), 2), { cwd });
    const resumed = await lockstep(['train', '--resume', 'run', '--max-steps', '40', '--json'], { cwd });
    const done = onlyEvent(eventsOf(resumed.stdout), 'done');
    assert.equal(done.hash, onlyEvent(eventsOf(whole40.stdout), 'done').hash);
    const { stdout: predicted } = await lockstep(['predict', 'run', '3', '--json'], { cwd });
    assert.equal(typeof JSON.parse(predicted).class, 'number', predicted);
    const { stdout: told, code } = await lockstep(['eval', 'run', '--json'], { cwd });
    assert.equal(code, 0);
    const { loss, accuracy } = JSON.parse(told);
    assert.deepEqual([loss, accuracy], [done.testLoss, done.testAccuracy]);
  });
});

test('nodes of two arithmetics compute only where that is allowed, and the run says so from then on', async t => {
  const field = new Field(t);
  const flags = [
    'mlp',
    '--epochs',
    '1',
    '--max-steps',
    '60',
    '--workers',
    '0',
    '--min-nodes',
    '1',
    '--out',
    'mixed',
  ];
  const tensorflow = { name: 'a', workers: 1, flags: ['--engine', 'tensorflow', '--devices', 'cpu'] };
  const strict = field.coordinate(flags);
  const refused = field.work(await strict.join(), tensorflow);
  assert.equal((await refused.ended).code, 1);
  assert.match(refused.stderr, /LOCKSTEP_PROFILE: The run is computed with the engine wasm/);
  strict.kill('SIGKILL');
  await strict.ended;
  const mixed = field.coordinate(['--resume', 'mixed', '--mixed', '--min-nodes', '1', '--workers', '0']);
  const agent = field.work(await mixed.join(), tensorflow);
  const { nodes } = await mixed.done();
  assert.ok(nodes?.some(({ name, parts }) => name === 'a-cpu0' && parts > 0));
  await agent.ended;
  const { stdout } = await lockstep(['eval', join(field.dir, 'mixed'), '--json']);
  assert.match(JSON.parse(stdout).warnings.join(), /nobody can reproduce it/);
});

// Agents and coordinators that are killed and frozen, and a network that fails: each test ends in the hash of one thread.
//
// Moments are counted in steps and drawn from the seed. `npm run test:remote` has more of everything, and longer.

import assert from 'node:assert/strict';
import { parseJoin } from '#dist/shared/join.js';
import { lockstep } from '../support/cli.js';
import {
  assertOneHash,
  Field,
  isLong,
  samplesIn,
  through,
  type Coordinator,
  type Program,
} from '../support/processes.js';
import { startFaultyProxy, type Fault, type FaultKind } from '../support/proxy.js';
import { randomTest, type Random } from '../support/random.js';

const LANES = 8;
const BATCH = isLong ? 256 : 128;
const settings = [
  'lenet5',
  '--seed',
  '7',
  '--batch',
  String(BATCH),
  '--epochs',
  '20',
  '--max-steps',
  isLong ? '3000' : '250',
];

/** Of the steps that this process did; only whoever counts each sample once comes to it. */
function samplesOf(coordinator: Coordinator, steps: number): number {
  const [{ resumedStep }] = coordinator.all('start');
  return samplesIn(steps, BATCH, LANES) - samplesIn(resumedStep, BATCH, LANES);
}

function assertEachSampleOnce(coordinator: Coordinator): void {
  const [done] = coordinator.all('done');
  const counted = done.nodes?.reduce((sum, { samples }) => sum + samples, 0);
  assert.equal(counted, samplesOf(coordinator, done.steps));
}

async function assertFinished(agents: readonly Program[]): Promise<void> {
  for (const agent of agents) {
    const { code } = await agent.ended;
    assert.equal(code, 0, agent.tail());
  }
}

/** Kills one agent after the other, each at its moment, and starts it again; gives those that are left. */
async function killAgents(
  coordinator: Coordinator,
  agents: Map<string, Program>,
  start: (name: string) => Program,
  random: Random,
  kills: number,
  isMoment: (kill: number) => Promise<void>,
): Promise<void> {
  const joins = new Map([...agents.keys()].map(name => [name, 1]));
  for (let kill = 0; kill < kills; kill++) {
    await isMoment(kill);
    const name = random.pick([...agents.keys()]);
    const agent = agents.get(name)!;
    agent.kill('SIGKILL');
    await agent.ended;
    agents.set(name, start(name));
    joins.set(name, joins.get(name)! + 1);
    await coordinator.joined(name, joins.get(name));
  }
}

randomTest('agents that are killed at any step and started again change no bit', async (random, context) => {
  const kills = isLong ? 6 : 2;
  const field = new Field(context);
  const coordinator = field.coordinate([...settings, '--workers', '0', '--min-nodes', '2']);
  const line = await coordinator.join();
  const start = (name: string): Program => field.work(line, { name });
  const agents = new Map(['alpha', 'beta'].map(name => [name, start(name)]));
  let step = 0;
  await killAgents(coordinator, agents, start, random, kills, async () => {
    step += 5 + random.integer(25);
    await coordinator.step(step);
  });
  await assertOneHash(coordinator, settings);
  assertEachSampleOnce(coordinator);
  assert.equal(coordinator.all('node-lost').length, kills, coordinator.tail());
  await assertFinished([...agents.values()]);
});

randomTest('agents of which one is killed every second change no bit', async (random, context) => {
  if (!isLong) return context.skip('in npm run test:remote');
  const field = new Field(context);
  const coordinator = field.coordinate([...settings, '--workers', '0', '--min-nodes', '3']);
  const line = await coordinator.join();
  const start = (name: string): Program => field.work(line, { name });
  const agents = new Map(['alpha', 'beta', 'gamma'].map(name => [name, start(name)]));
  await coordinator.step(1);
  const [{ timeMs }] = coordinator.all('step');
  await killAgents(coordinator, agents, start, random, 12, async kill => {
    await coordinator.until(`second ${kill}`, () =>
      coordinator.events.find(event => event.timeMs >= timeMs + 1000 * (kill + random.uniform(0, 1))),
    );
  });
  await assertOneHash(coordinator, settings);
  assertEachSampleOnce(coordinator);
  await assertFinished([...agents.values()]);
});

randomTest('a frozen agent costs no bit, and is used again afterwards', async (random, context) => {
  const field = new Field(context);
  // In 20 s the other one does up to 3000 steps, and some must be left for the one that was frozen.
  const enough = isLong ? [...settings.slice(0, -1), '5000'] : settings;
  const coordinator = field.coordinate([...enough, '--workers', '0', '--min-nodes', '2']);
  const line = await coordinator.join();
  const names = ['alpha', 'beta'];
  const agents = names.map(name => field.work(line, { name }));
  await coordinator.step(isLong ? 100 + random.integer(100) : 10 + random.integer(40));
  // One that has lanes then.
  const name = await coordinator.until(
    'a node has lanes',
    () =>
      random.pick(
        coordinator
          .all('node')
          .slice(-2)
          .filter(({ lanes }) => lanes > 0),
      )?.name,
  );
  const frozen = agents[names.indexOf(name)];
  frozen.kill('SIGSTOP');
  const { timeMs } = coordinator.events.at(-1)!;
  await coordinator.event('lease-expired');
  await coordinator.until('the time is over', () =>
    coordinator.events.find(event => event.timeMs >= timeMs + (isLong ? 20_000 : 0)),
  );
  frozen.kill('SIGCONT');
  const samplesBefore = coordinator.all('node').findLast(event => event.name === name)!.samples;
  const done = await assertOneHash(coordinator, enough);
  assertEachSampleOnce(coordinator);
  const samples = done.nodes?.find(node => node.name === name)?.samples;
  assert.ok(samples !== undefined && samples > samplesBefore, 'it was not used again');
  await assertFinished(agents);
});

randomTest('a coordinator that is killed is resumed, and agents come back', async (random, context) => {
  const field = new Field(context);
  const args = [...settings, '--workers', '0', '--out', 'run', '--checkpoint-every', '20'];
  let coordinator = field.coordinate([...args, '--min-nodes', '2']);
  const line = await coordinator.join();
  const { port } = parseJoin(line);
  const agents = ['alpha', 'beta'].map(name => field.work(line, { name }));
  let step = 0;
  for (let kill = 0; kill < (isLong ? 2 : 1); kill++) {
    step += 20 + random.integer(50);
    await coordinator.step(step);
    coordinator.kill('SIGKILL');
    await coordinator.ended;
    coordinator = field.coordinate(['--resume', 'run', '--workers', '0', '--min-nodes', '2'], String(port));
    assert.equal(await coordinator.join(), line);
    const second = await lockstep(['train', '--resume', 'run', '--listen', '0', '--workers', '0'], {
      cwd: field.dir,
      env: { XDG_STATE_HOME: `${field.dir}/state` },
    });
    assert.equal(second.code, 1);
    assert.match(second.stderr, /^LOCKSTEP_RUN_LOCKED: /);
  }
  await assertOneHash(coordinator, settings);
  assertEachSampleOnce(coordinator);
  await assertFinished(agents);
});

const kinds: readonly FaultKind[] = ['reset', 'end', 'stall', 'corrupt', 'delay', 'throttle'];

/** A fault somewhere between the first byte and some dozens of steps; those that last are cut off then. */
function faultsOf(kind: FaultKind, isOneWay: boolean, random: Random): Fault[] {
  const way = random.pick(['up', 'down'] as const);
  const afterBytes = random.chance(0.25)
    ? random.integer(2000)
    : random.integer(way === 'up' ? 400_000 : 3_000_000);
  const cut: Fault = { kind: 'reset', way: 'up', afterBytes: afterBytes + 2_000_000 };
  switch (kind) {
    case 'stall':
      return [
        {
          kind,
          way,
          afterBytes,
          isBothWays: !isOneWay,
          durationMs: random.uniform(200, isLong ? 5000 : 800),
        },
        cut,
      ];
    case 'delay':
      return [{ kind, delayMs: random.uniform(1, 30) }, cut];
    case 'throttle':
      return [{ kind, bytesPerSecond: random.uniform(4_000_000, 40_000_000) }, cut];
    case 'reset':
    case 'end':
    case 'corrupt':
      return [{ kind, way, afterBytes }];
  }
}

for (const isInsecure of [false, true]) {
  const how = isInsecure ? 'without TLS' : 'with TLS';
  randomTest(`a network that fails in every way changes no bit, ${how}`, async (random, context) => {
    if (isInsecure && !isLong) return context.skip('in npm run test:remote');
    const field = new Field(context);
    const flags = isInsecure ? ['--insecure'] : [];
    const coordinator = field.coordinate([...settings, '--workers', '0', ...flags]);
    const line = await coordinator.join();
    // An agent that loses connection after connection waits longer and longer: some time the network is good.
    const faulty = kinds.length * (isLong ? 6 : 1.5);
    const shift = random.integer(kinds.length);
    const proxy = await startFaultyProxy(context, parseJoin(line), random, (connection, ofConnection) => {
      if (connection >= faulty) return [];
      const kind = kinds[(connection + shift) % kinds.length];
      return faultsOf(kind, connection < faulty / 2, ofConnection);
    });
    const names = ['alpha', 'beta', 'gamma'];
    // How they end is not looked at: one that is away at the run's end finds nobody any more.
    for (const name of names) field.work(through(line, proxy), { name });
    await assertOneHash(coordinator, settings);
    assertEachSampleOnce(coordinator);
    for (const kind of kinds) assert.ok((proxy.happened.get(kind) ?? 0) > 0, `${kind} has not happened`);
  });
}

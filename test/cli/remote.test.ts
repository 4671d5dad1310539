// `lockstep train --listen` and `lockstep worker` together, as processes: the hash is that of a local run.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { eventsOf, inTemporaryFolder, lockstep, onlyEvent, type Outcome } from '../support/cli.js';
import { cyclicLabels, dataFiles, folderWith } from '../support/idx.js';

const short = ['train', 'mlp', '--max-steps', '60', '--batch', '64', '--json'];

interface Remote {
  readonly coordinator: Outcome;
  readonly agents: readonly Outcome[];
}

/** A coordinator, and agents that join as soon as it listens. */
async function trainRemotely(
  cwd: string,
  flags: readonly string[],
  agents: readonly { readonly name: string; readonly workers: number }[],
): Promise<Remote> {
  const started: Promise<Outcome>[] = [];
  const coordinator = await lockstep([...short, '--listen', '0', '--join-file', 'join', ...flags], {
    cwd,
    env: { XDG_STATE_HOME: join(cwd, 'state') },
    onOutput: text => {
      if (!text.includes('"type":"listening"')) return;
      // In the environment, where a script has it from the file.
      const env = { LOCKSTEP_JOIN: readFileSync(join(cwd, 'join'), 'utf8').trimEnd() };
      for (const { name, workers } of agents) {
        // Where the coordinator has failed they do not look for it for long.
        const flagsOfAgent = ['--name', name, '--workers', `${workers}`, '--cache', join(cwd, name)];
        const args = ['worker', ...flagsOfAgent, '--retry', '20s'];
        started.push(lockstep(args, { cwd, env }));
      }
    },
  });
  return { coordinator, agents: await Promise.all(started) };
}

test('agents alone, or together with threads, encrypted or not, give the hash of a local run', async t => {
  const data = folderWith(t, dataFiles(cyclicLabels(3000, 10), cyclicLabels(200, 10)));
  await inTemporaryFolder(async cwd => {
    const local = await lockstep([...short, '--data', data, '--workers', '1'], { cwd });
    const { hash, weightsSha256, testLoss } = onlyEvent(eventsOf(local.stdout), 'done');
    const both = [
      { name: 'alpha', workers: 1 },
      { name: 'beta', workers: 2 },
    ];
    for (const flags of [
      ['--workers', '0', '--min-nodes', '2', '--audit', '1'],
      ['--workers', '1', '--min-nodes', '2', '--insecure'],
    ]) {
      const { coordinator, agents } = await trainRemotely(cwd, ['--data', data, ...flags], both);
      assert.deepEqual([coordinator.code, coordinator.stderr], [0, ''], coordinator.stdout);
      const events = eventsOf(coordinator.stdout);
      const done = onlyEvent(events, 'done');
      assert.deepEqual(
        { hash: done.hash, weightsSha256: done.weightsSha256, testLoss: done.testLoss },
        { hash, weightsSha256, testLoss },
        flags.join(' '),
      );
      const names = events.flatMap(event => (event.type === 'node-joined' ? [event.name] : []));
      assert.deepEqual(names.toSorted(), ['alpha', 'beta']);
      assert.deepEqual(done.nodes?.map(({ name }) => name).toSorted(), ['alpha', 'beta']);
      // Every sample was computed once; with threads of its own the coordinator had a share too.
      const samples = done.nodes.reduce((sum, node) => sum + node.samples, 0);
      if (flags[1] === '0') assert.equal(samples, samplesIn(60));
      else assert.ok(samples <= samplesIn(60));
      for (const agent of agents) {
        assert.deepEqual([agent.code, agent.stderr], [0, ''], agent.stdout);
        assert.match(agent.stdout, /\nfinished: [\d,]+ parts? /);
      }
    }
  });
});

/** 3000 samples in 8 lanes of 375 are an epoch of 46 steps of 8 x 8 and one of 8 x 7. */
function samplesIn(steps: number): number {
  const epochs = Math.floor(steps / 47);
  return epochs * 3000 + (steps % 47) * 64;
}

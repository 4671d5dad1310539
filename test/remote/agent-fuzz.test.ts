// A coordinator that holds the key and does not keep to the protocol: an agent drops it, keeps nothing of it and joins a
// better one. In one process, between stand-ins.

import assert from 'node:assert/strict';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { LockstepError } from '#dist/shared/errors.js';
import type { Message } from '#dist/shared/messages.js';
import { Harness, job, leaseOf, shardOf, weightsOf } from '../support/agent-harness.js';
import { messagesToAgent } from '../support/messages.js';
import { mutatedFrame } from '../support/mutate.js';
import { randomTest } from '../support/random.js';

const MIB = 1024 * 1024;
const FRAMES = Number(process.env['LOCKSTEP_FUZZ_FRAMES'] ?? 2000);

setFlagsFromString('--expose-gc');
const collectGarbage: () => void = runInNewContext('gc');

function heldMiB(): number {
  collectGarbage();
  const { heapUsed, external } = process.memoryUsage();
  return (heapUsed + external) / MIB;
}

randomTest(
  `an agent that ${FRAMES} mutated frames are thrown at goes on or ends with a code`,
  async random => {
    // Of this job and of another; what an agent holds must not be enough to be misled.
    const templates: Message[] = [
      ...messagesToAgent(10),
      job,
      weightsOf(1),
      leaseOf(1, [[0, 2]]),
      shardOf(0),
    ];
    const counts = { dropped: 0, ended: 0, outlived: 0 };
    let harness = await Harness.start();
    let known: object | undefined;
    const before = heldMiB();
    for (let i = 0; i < FRAMES; i++) {
      if (harness.ended) {
        // A frame that was a refusal, or a job that this node cannot do.
        if ('error' in harness.ended)
          assert.ok(harness.ended.error instanceof LockstepError, String(harness.ended.error));
        counts.ended++;
        harness = await Harness.start();
      }
      if (harness.connection.ended !== undefined) {
        counts.dropped++;
        await harness.clock.advance(10_000);
      }
      const { connection } = harness;
      // As far along as it draws.
      if (connection !== known && random.chance(0.6)) {
        await harness.prepare();
        await connection.say(weightsOf(1));
      }
      known = connection;
      await connection.sayFrame(mutatedFrame(random, random.pick(templates)));
      if (connection.ended === undefined) counts.outlived++;
      if (connection.sent.length > 50) connection.take();
      // Nothing of what was thrown waits for anything.
      assert.ok(harness.clock.timers < 10, `${harness.clock.timers} timers`);
    }
    assert.ok(counts.dropped > FRAMES / 4, JSON.stringify(counts));
    assert.ok(heldMiB() - before < 32, `${heldMiB() - before} MiB more`);
    assert.equal('polluted' in {}, false);

    // One that keeps to the protocol is served as if nothing had been.
    const last = await Harness.start();
    await last.prepare();
    await last.connection.say(weightsOf(1));
    await last.connection.say(leaseOf(1, [[0, 2]]));
    last.connection.takeOne('sum');
  },
);

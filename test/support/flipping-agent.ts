// An agent that computes wrongly once: arguments are its name and the folder of its cache; the join line is in
// LOCKSTEP_JOIN. Of the next part that it computes after a SIGUSR2, one bit of one component is another.

import { systemClock as clock } from '#dist/shared/clock.js';
import { parseJoin } from '#dist/shared/join.js';
import type { AgentNode } from '#dist/shared/node.js';
import { systemRandom } from '#dist/shared/random.js';
import { runAgent } from '#dist/worker/agent.js';
import { MOST_FRAME_BYTES } from '#dist/worker/agent-job.js';
import { connect } from '#dist/worker/connect.js';
import { F32_PROFILE } from '#dist/worker/engines/engine.js';
import { checkNumerics } from '#dist/worker/numerics-check.js';
import { createAgentNode } from '#dist/worker/pool.js';
import { openShardCache } from '#dist/worker/shard-cache.js';

const [name, cacheDir] = process.argv.slice(2);
const join = parseJoin(process.env['LOCKSTEP_JOIN'] ?? '');
const onWarning = console.error;
let isDue = false;
process.once('SIGUSR2', () => (isDue = true));

function flipping(node: AgentNode): AgentNode {
  return {
    threads: node.threads,
    loadShard: (...shard) => node.loadShard(...shard),
    setWeights: (...weights) => node.setWeights(...weights),
    close: () => node.close(),
    async compute(task, lanes) {
      const sums = await node.compute(task, lanes);
      if (isDue && task.kind === 'gradient') {
        isDue = false;
        // Where a gradient is not zero.
        const component = sums.gradient.findIndex(value => value !== 0);
        const bits = new BigUint64Array(sums.gradient.buffer, sums.gradient.byteOffset, sums.gradient.length);
        bits[component] ^= 1n << 40n;
        console.log(`flipped a bit in step ${task.step + 1}, lanes ${lanes.from} to ${lanes.to - 1}`);
      }
      return sums;
    },
  };
}

await runAgent({
  connect: signal =>
    connect(join, {
      nodeId: Buffer.from(systemRandom(8)).toString('hex'),
      maxFrameBytes: MOST_FRAME_BYTES,
      timeoutMs: 10_000,
      signal,
      clock,
      random: systemRandom,
    }),
  clock,
  random: () => 0.5,
  name,
  threads: 1,
  version: 'of a test',
  engines: [{ engine: 'wasm', profile: F32_PROFILE }],
  retryMs: 10_000,
  createNode: async job =>
    flipping(
      await createAgentNode({
        job,
        threads: 1,
        cores: 1,
        clock,
        name,
        fault: undefined,
        onWarning,
        onThreadLost: ({ reason }) => onWarning(reason),
      }),
    ),
  check: job => checkNumerics(job, { clock }),
  cache: openShardCache(cacheDir, { maxBytes: 1_000_000_000, onWarning }),
  onStatus: ({ text }) => console.log(text),
});

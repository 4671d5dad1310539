// A thread's last gradient is checked only where it is reduced, slice by slice: found by one thread, made by another.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { MessageChannel } from 'node:worker_threads';
import { Piscina } from 'piscina';
import { leafJobOf } from '#dist/shared/leaf-job.js';
import { loadKernelModule } from '#dist/worker/kernels.js';
import {
  commands,
  control,
  createMemory,
  failures,
  planMemory,
  threadWord,
  viewMemory,
  type MemoryPlan,
} from '#dist/worker/memory.js';
import type { ThreadMessage, ThreadTask } from '#dist/worker/thread.js';
import { createTinyPool, tinyDataset, tinyJob } from '../support/tiny.js';

// One sample in 131,072 lanes: the only leaf is its thread's last one. So many lanes leave gradients the bound 0.5,
// and a new network's gradient of the label's bias is about 1/3 - 1.
const lanes = 131_072;

for (const threads of [1, 3]) {
  test(`a last gradient that is too large is found and named, with ${threads} threads`, async () => {
    const dataset = tinyDataset(1);
    const job = tinyJob({ batch: lanes, leaf: 1, epochs: 1, lrSchedule: 'constant' }, dataset);
    const node = await createTinyPool({ job, dataset, threads });
    try {
      await assert.rejects(
        node.train(0, [{ stepSize: 0.1, secondMomentScale: 1, decayFactor: 1 }]),
        (error: Error) => {
          const pattern =
            /^Step 1, lane 131071, computed twice .* \(thread (\d)\): layer fc2 \(fc2\.bias\) .* may reach 0\.5 /;
          const thread = Number(pattern.exec(error.message)?.[1]);
          assert.ok(node.reports()[thread]?.leaves > 0, error.message);
          return 'code' in error && error.code === 'LOCKSTEP_BAD_LEAF';
        },
      );
    } finally {
      await node.close();
    }
  });
}

/** What the last of 3 threads, alone with a memory in which the others seem to have arrived, says of their gradients. */
async function failureOfThread2(spoil: (gradients: readonly Float32Array[]) => void) {
  const dataset = tinyDataset();
  const whole = tinyJob({}, dataset);
  const job = leafJobOf(whole, dataset);
  const { model, leaf, samples } = job;
  const plan: MemoryPlan = { model, threads: 3, leaf, samples };
  const layout = planMemory(plan);
  const memory = createMemory(layout);
  const views = viewMemory(memory, layout, plan);
  const words = views.control;
  const { port1, port2 } = new MessageChannel();
  const task: ThreadTask = {
    // The model has one block, and that is the last thread's slice.
    thread: 2,
    memory,
    kernelModule: loadKernelModule(),
    layout,
    plan,
    job,
    optimizer: whole.bits.optimizer,
    spinMs: 0,
    port: port2,
  };
  for (const [thread, of] of views.threads.entries()) {
    of.words[threadWord.lastLane] = 40 + thread;
    if (thread < 2) views.sources[2 * thread + 1] = layout.threads[thread].gradient;
  }
  spoil(views.threads.map(({ gradient }) => gradient));
  words[control.kind] = commands.train;
  words[control.endStep] = 1;
  words[control.arrived] = 2;
  // No lane is left for it.
  words[control.nextLeaf] = job.batch / leaf;
  const pool = new Piscina({
    filename: new URL('../../dist/worker/thread.js', import.meta.url).href,
    maxThreads: 1,
  });
  const after = async (type: ThreadMessage['type']): Promise<void> => {
    const [message]: ThreadMessage[] = await once(port1, 'message');
    assert.equal(message.type, type);
  };
  const wake = (): void => {
    Atomics.add(words, control.command, 1);
    Atomics.notify(words, control.command);
  };
  try {
    const end = pool.run(task, { transferList: [port2] });
    await after('ready');
    wake();
    await after('parked');
    words[control.kind] = commands.close;
    wake();
    await end;
  } finally {
    await pool.destroy();
  }
  return {
    kind: words[control.failure],
    thread: words[control.failureThread],
    lane: words[control.failureLane],
    tensor: model.tensors[words[control.failureTensor]]?.name,
  };
}

for (const owner of [0, 1]) {
  test(`thread 2 finds a gradient that thread ${owner} made, and names that thread and its lane`, async () => {
    const failure = await failureOfThread2(gradients => gradients[owner].fill(Number.NaN, 60, 61));
    assert.deepEqual(failure, {
      kind: failures.badLeaf,
      thread: owner,
      lane: 40 + owner,
      tensor: 'fc1.kernel',
    });
  });
}

// A process that computes with TensorFlow in one thread, told what to do over the channel to its parent: to be an agent, to
// evaluate, or to show what it takes.

import { mnistClasses, mnistShape } from '../coordinator/mnist.js';
import { systemClock } from '../shared/clock.js';
import { LockstepError, messageOf } from '../shared/errors.js';
import type { LeafJob } from '../shared/leaf-job.js';
import { compileModel } from '../shared/model.js';
import type { LostThread } from '../shared/node.js';
import { presetSpec } from '../shared/presets.js';
import { defaultLeaf } from '../shared/schedule.js';
import { tensorflowBatch } from '../shared/settings.js';
import type { AgentStatus } from '../worker/agent.js';
import { profileOf } from '../worker/engines/engine.js';
import { checkNumerics } from '../worker/numerics-check.js';
import { BEAT_MS, type FromProcess, type ToProcess } from './processes.js';
import { workHere } from './work.js';

/** A process that is to leave and does not ends itself. */
const LEAVE_MS = 5000;

const stop = new AbortController();
/** An agent hands its leases back; nobody waits for anything else. */
let isAgent = false;
const leave = (): void => {
  if (!isAgent) endNow();
  stop.abort();
  systemClock.after(LEAVE_MS, endNow);
};
// A Ctrl-C goes to all processes of a terminal; the parent says when its children are to leave.
process.on('SIGINT', () => {});
process.on('SIGTERM', leave);
// The parent is gone.
process.on('disconnect', leave);
process.title = 'lockstep tensorflow';

function tell(message: FromProcess): Promise<void> {
  return new Promise(resolve => {
    if (process.connected) process.send!(message, () => resolve());
    else resolve();
  });
}

systemClock.every(BEAT_MS, () => void tell({ type: 'beat' }));

process.on('message', (message: ToProcess) => {
  if (message.type === 'leave') return leave();
  obey(message).then(end, (error: unknown) => {
    const code = error instanceof LockstepError ? error.code : 'LOCKSTEP_INTERNAL';
    end({ type: 'error', code, message: messageOf(error) });
  });
});

function onWarning(message: string): void {
  void tell({ type: 'warning', message });
}

function onThreadLost({ reason }: LostThread): void {
  end({ type: 'warning', message: `its thread was lost: ${reason}` });
}

async function obey(message: Exclude<ToProcess, { type: 'leave' }>): Promise<FromProcess> {
  if (message.type === 'evaluate') {
    const { evaluateHere } = await import('./trained.js');
    return {
      type: 'evaluated',
      sums: await evaluateHere(message.task, onWarning, { place: message.place, onThreadLost }),
    };
  }
  if (message.type === 'probe') {
    const { leafMs } = await checkNumerics(probedJob(), {
      clock: systemClock,
      tensorflow: message.place,
      onThreadLost,
    });
    return { type: 'probed', result: { leafMs, memoryBytes: process.memoryUsage.rss() } };
  }
  isAgent = true;
  const { joinLine, name, place, cacheDir, cacheBytes, retryMs } = message.task;
  const options = {
    name,
    workers: 1,
    cacheDir,
    cacheBytes,
    retryMs,
    signal: stop.signal,
    onStatus: (status: AgentStatus) => void tell({ type: 'status', status }),
    onWarning,
  };
  return { type: 'end', result: await workHere(joinLine, options, { place, onThreadLost }) };
}

/** Of leaves of LeNet-5 on MNIST. */
function probedJob(): LeafJob {
  const model = compileModel(presetSpec('lenet5', mnistClasses), mnistShape, mnistClasses);
  return {
    model,
    normalization: { scale: 1 / 255, shift: 0 },
    samples: { train: 60_000, test: 10_000 },
    batch: tensorflowBatch,
    leaf: defaultLeaf(tensorflowBatch, 'tensorflow'),
    seed: 1,
    engine: 'tensorflow',
    profile: profileOf('tensorflow'),
  };
}

/** `process.exit` would wait for threads that are at work in native code, some of them for ever. */
function endNow(): void {
  process.kill(process.pid, 'SIGKILL');
}

function end(message: FromProcess): void {
  void tell(message).then(endNow);
}

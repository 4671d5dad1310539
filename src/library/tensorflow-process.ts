// A process that computes with TensorFlow: an agent with one thread, told what to do over the channel to its parent.

import { LockstepError, messageOf } from '../shared/errors.js';
import type { FromProcess, ToProcess } from './processes.js';
import { workHere } from './work.js';

const stop = new AbortController();
const leave = (): void => stop.abort();
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

process.on('message', (message: ToProcess) => {
  if (message.type === 'leave') return leave();
  const { joinLine, name, place, cacheDir, cacheBytes, retryMs } = message.task;
  workHere(
    joinLine,
    {
      name,
      workers: 1,
      cacheDir,
      cacheBytes,
      retryMs,
      signal: stop.signal,
      onStatus: status => void tell({ type: 'status', status }),
      onWarning: text => void tell({ type: 'warning', message: text }),
    },
    {
      place,
      onThreadLost: ({ reason }) => end(70, { type: 'warning', message: `its thread was lost: ${reason}` }),
    },
  ).then(
    result => end(0, { type: 'end', result }),
    (error: unknown) => {
      const code = error instanceof LockstepError ? error.code : 'LOCKSTEP_INTERNAL';
      end(1, { type: 'error', code, message: messageOf(error) });
    },
  );
});

/** At once: threads that are at work in native code are not waited for. */
function end(exitCode: number, message: FromProcess): void {
  void tell(message).then(() => process.exit(exitCode));
}

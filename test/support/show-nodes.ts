// Shows a run with remote nodes on standard output, as `lockstep train` does, for the terminal's test.

import { chooseDisplay } from '#dist/cli/display.js';
import type { NodeReport } from '#dist/library/index.js';
import { someReport, someStart } from './events.js';

const common = { step: 0, timeMs: 0 };

function report(index: number): NodeReport {
  return someReport({
    node: `${index}`.padStart(16, '0'),
    name: `node-${index}`,
    imagesPerSecond: 1000 - index,
  });
}

const display = chooseDisplay({});
display.show(someStart);
display.show({ ...common, type: 'listening', address: '127.0.0.1:7077', join: 'the-join-line' });
for (let index = 1; index <= 13; index++) {
  const { node, name, threads } = report(index);
  display.show({ ...common, type: 'node', ...report(index) });
  display.show({ ...common, type: 'node-joined', node, name, threads, address: `10.0.0.${index}:4711` });
}
const { node, name } = report(3);
display.show({ ...common, type: 'node-lost', node, name, reason: 'it left\u001B[2J' });
display.show({ ...common, type: 'lease-expired', node, name, fromLane: 2, toLane: 4 });
display.end();

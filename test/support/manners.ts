// Loaded before a program (`node --import`): when it has ended, says what a library must not do and something did.

import { writeFileSync } from 'node:fs';
import { isMainThread } from 'node:worker_threads';

const reportFile = process.env['LOCKSTEP_TEST_MANNERS'];

if (isMainThread && reportFile !== undefined) {
  const offences: string[] = [];
  process.on('newListener', (name: string) => {
    if (/^SIG|^uncaughtException|^unhandledRejection/.test(name)) offences.push(`a listener for ${name}`);
  });
  const exit = process.exit.bind(process);
  process.exit = code => {
    offences.push('process.exit');
    return exit(code);
  };
  process.on('exit', () => writeFileSync(reportFile, JSON.stringify(offences)));
}

// Preloaded into a process of the command line: kills it, by a real SIGKILL, at the n-th write of a checkpoint.
//
// LOCKSTEP_TEST_KILL is `<place> <n>`: `write` before the file is synced, `rename` before it gets its name, `renamed`
// when it has it and the folder is not synced yet; `config` before the config of a new run gets its name.

import fs from 'node:fs';
import promises from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';

const [place, n] = (process.env.LOCKSTEP_TEST_KILL ?? ' ').split(' ');
let seen = 0;

function kill(at: string): void {
  if (at === place && ++seen === Number(n)) process.kill(process.pid, 'SIGKILL');
}

const { open, rename } = promises;

promises.open = async (...args) => {
  const handle = await open(...args);
  const sync = handle.sync.bind(handle);
  handle.sync = async () => {
    kill('write');
    await sync();
  };
  return handle;
};

promises.rename = async (from, to) => {
  kill('rename');
  await rename(from, to);
  kill('renamed');
};

const { renameSync } = fs;

fs.renameSync = (from, to) => {
  if (String(to).endsWith('config.json')) kill('config');
  renameSync(from, to);
};

syncBuiltinESMExports();

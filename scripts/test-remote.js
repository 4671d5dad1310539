// The tests of remote nodes at full length: more faults, 20 s of a frozen agent, every frame of LOCKSTEP_FUZZ_FRAMES.

import { spawnSync } from 'node:child_process';

const { status } = spawnSync('npm', ['test', '--', 'remote/'], {
  stdio: 'inherit',
  env: { ...process.env, LOCKSTEP_TEST_REMOTE: 'long' },
});
process.exit(status ?? 1);

// Replays simulated runs: `npm run test:simulation -- SEED [COUNT]`. One alone tells what happens in it.

import { spawnSync } from 'node:child_process';

const [seed = '1', count = '1'] = process.argv.slice(2);
const { status } = spawnSync('npm', ['test', '--', 'simulation'], {
  stdio: 'inherit',
  env: {
    ...process.env,
    LOCKSTEP_SIMULATION_SEED: seed,
    LOCKSTEP_SIMULATION_SEEDS: count,
    ...(count === '1' && { LOCKSTEP_SIMULATION_TRACE: '1' }),
  },
});
process.exit(status ?? 1);

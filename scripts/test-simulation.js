// Replays simulated runs: `npm run test:simulation -- SEED [COUNT]`, by default one.

import { spawnSync } from 'node:child_process';

const [seed = '1', count = '1'] = process.argv.slice(2);
const { status } = spawnSync('npm', ['test', '--', 'simulation'], {
  stdio: 'inherit',
  env: { ...process.env, LOCKSTEP_SIMULATION_SEED: seed, LOCKSTEP_SIMULATION_SEEDS: count },
});
process.exit(status ?? 1);

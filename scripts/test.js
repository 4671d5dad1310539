// Runs the compiled tests, listed explicitly: on Node 20 `node --test` is green when it finds none. This is not.
// Arguments select test files by parts of their names: `npm test -- schedule pool`.

import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { plainEnv } from './run.js';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const wanted = process.argv.slice(2);
const sources = readdirSync(join(root, 'test'), { recursive: true })
  .filter(name => name.endsWith('.test.ts'))
  // What needs TensorFlow is run when it is asked for.
  .filter(name =>
    wanted.length === 0 ? !name.startsWith('native/') : wanted.some(part => name.includes(part)),
  )
  .toSorted();
if (sources.length === 0) {
  console.error(`No test file in test/ matches ${wanted.join(' ') || '*.test.ts'}.`);
  process.exit(1);
}
const files = sources.map(name => join(root, 'dist-test', name.replace(/\.ts$/, '.js')));
const { status } = spawnSync(
  process.execPath,
  ['--test', '--test-reporter=spec', `--test-concurrency=${availableParallelism()}`, ...files],
  { cwd: root, env: plainEnv, stdio: 'inherit' },
);
process.exit(status ?? 1);

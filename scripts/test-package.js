// Packs the package, installs it as a user would (`--omit=dev`, an empty folder) and uses command and library there.

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { run } from './run.js';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
/** What a user has no use for. */
const unwanted = /(^|\/)(test|scripts|src|kernels|bench|dist-test)\/|\.tsbuildinfo$|\.map$|(?<!\.d)\.ts$/;

const consumer = `
import { train, LockstepError, type RunEvent, type ModelSpec, type DatasetContent } from 'lockstep';

const model: ModelSpec = { name: 'small', layers: [{ type: 'flatten' }, { type: 'dense', units: 2 }] };
const images = Uint8Array.from({ length: 40 * 16 }, (_, i) => (Math.floor(i / 16) % 2) * 200);
const labels = Uint8Array.from({ length: 40 }, (_, i) => i % 2);
const dataset: DatasetContent = {
  shape: { height: 4, width: 4, channels: 1 },
  classes: 2,
  train: { images, labels },
  test: { images, labels },
};
const events: RunEvent['type'][] = [];
const training = train({ model, dataset, epochs: 3, batch: 8, workers: 2, out: 'small' });
for await (const event of training) events.push(event.type);
const { testAccuracy, weights, hash } = await training;
if (testAccuracy !== 1 || weights['fc1.kernel'].values.length !== 32) throw new Error('not as expected');
if (events[0] !== 'start' || events.at(-1) !== 'done') throw new Error(events.join(' '));
try {
  await train({ batch: 0 });
} catch (error) {
  if (!(error instanceof LockstepError) || error.code !== 'LOCKSTEP_BAD_SETTING') throw error;
  console.log(hash);
}
`;

const dir = mkdtempSync(join(tmpdir(), 'lockstep-package-'));
try {
  const [{ filename, files, size }] = JSON.parse(
    run('npm', ['pack', '--json', '--pack-destination', dir], { cwd: root }),
  );
  const offenders = files.map(({ path }) => path).filter(path => unwanted.test(path));
  if (offenders.length > 0) throw new Error(`the tarball holds ${offenders.join(', ')}`);
  console.log(
    `ok  ${filename}: ${files.length} files, ${Math.round(size / 1024)} KiB, neither tests nor build sources`,
  );

  const user = join(dir, 'user');
  mkdirSync(user);
  writeFileSync(join(user, 'package.json'), JSON.stringify({ private: true, type: 'module' }));
  run('npm', ['install', '--silent', '--omit=dev', join(dir, filename)], { cwd: user });
  const trained = run('npx', ['lockstep', 'train', 'mlp', '--max-steps', '20'], { cwd: user });
  if (!/^done in .*\n {2}hash +[0-9a-f]{16}$/m.test(trained)) throw new Error(trained);
  console.log('ok  npx lockstep train mlp --max-steps 20');

  writeFileSync(join(user, 'consumer.ts'), consumer);
  const tsc = join(root, 'node_modules', 'typescript', 'bin', 'tsc');
  const flags = ['--strict', '--target', 'es2023', '--module', 'nodenext', '--types', 'node'];
  const types = ['--typeRoots', join(root, 'node_modules', '@types')];
  run(process.execPath, [tsc, ...flags, ...types, 'consumer.ts'], { cwd: user });
  console.log(
    `ok  the library under tsc --strict: ${run(process.execPath, ['consumer.js'], { cwd: user }).trim()}`,
  );
} finally {
  rmSync(dir, { recursive: true });
}

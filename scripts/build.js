// Builds what is missing or stale, and nothing else: the compiler's record of what it has built is not trusted where
// an output has disappeared, and outputs whose source is gone are removed.

import { spawnSync } from 'node:child_process';
import { chmodSync, cpSync, existsSync, readdirSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildKernels } from './build-kernels.js';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');

let isIncomplete = false;
for (const [sourceDir, outputDir] of [
  ['src', 'dist'],
  ['test', 'dist-test'],
]) {
  const sources = filesIn(sourceDir).filter(name => name.endsWith('.ts'));
  const expected = sources.flatMap(name => ['.js', '.d.ts'].map(ending => name.replace(/\.ts$/, ending)));
  const outputs = new Set(filesIn(outputDir));
  isIncomplete ||= expected.some(name => !outputs.has(name));
  for (const name of outputs) {
    const isCompiled = /\.(js|d\.ts|js\.map)$/.test(name);
    if (isCompiled && !expected.includes(name.replace(/\.map$/, ''))) rmSync(join(root, outputDir, name));
  }
}

const compiler = join(root, 'node_modules', 'typescript', 'bin', 'tsc');
const { status } = spawnSync(process.execPath, [compiler, '-b', ...(isIncomplete ? ['--force'] : [])], {
  cwd: root,
  stdio: 'inherit',
});
if (status !== 0) process.exit(status ?? 1);
await buildKernels();
// The pinned packages that `lockstep setup` gets.
cpSync(join(root, 'src', 'library', 'tensorflow'), join(root, 'dist', 'library', 'tensorflow'), {
  recursive: true,
});
// What `npx lockstep` runs; the compiler does not mark it executable.
chmodSync(join(root, 'dist', 'cli', 'main.js'), 0o755);

function filesIn(dir) {
  const path = join(root, dir);
  return existsSync(path)
    ? readdirSync(path, { recursive: true }).map(name => name.replaceAll('\\', '/'))
    : [];
}

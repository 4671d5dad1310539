// Compiles kernels/ into dist/kernels.wasm if it is missing or stale, and refuses a module that keeps state.

import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const sourceDir = join(root, 'kernels');
const target = join(root, 'dist', 'kernels.wasm');
const stamp = join(root, 'dist', 'kernels.sha256');

// -O1: higher levels let the optimizer regroup unrolled chains and merge repeated loads, and the result spills.
const compilerOptions = [
  '-O1',
  '--runtime=stub',
  '--noAssert',
  '--importMemory',
  '--sharedMemory',
  '--initialMemory=1',
  '--maximumMemory=65536',
  '--enable=simd,threads',
];

const sources = readdirSync(sourceDir)
  .filter(name => name.endsWith('.ts'))
  .toSorted();
const compilerVersion = readFileSync(join(root, 'node_modules', 'assemblyscript', 'package.json'));
const digest = createHash('sha256')
  .update(readFileSync(fileURLToPath(import.meta.url)))
  .update(compilerVersion);
for (const name of sources) digest.update(name).update(readFileSync(join(sourceDir, name)));
const wanted = digest.digest('hex');

export async function buildKernels() {
  if (existsSync(target) && existsSync(stamp) && readFileSync(stamp, 'utf8') === wanted) return;
  mkdirSync(dirname(target), { recursive: true });
  const binary = await compile(join(sourceDir, 'index.ts'));
  refuseState(binary);
  writeFileSync(target, binary);
  writeFileSync(stamp, wanted);
}

/** The binary of a module as the kernels are compiled, from its entry file; ends the process on an error. */
export async function compile(path) {
  const { default: asc } = await import('assemblyscript/asc');
  let binary;
  const entry = relative(root, path);
  const { error } = await asc.main([entry, '--outFile=kernels.wasm', ...compilerOptions], {
    baseDir: root,
    stderr: process.stderr,
    readFile: (name, baseDir) => {
      const source = join(baseDir, name);
      return existsSync(source) ? readFileSync(source, 'utf8') : null;
    },
    writeFile: (name, contents) => {
      if (name.endsWith('.wasm')) binary = contents;
    },
    listFiles: () => [],
  });
  if (error) {
    process.stderr.write(`\n${error.message}\n`);
    process.exit(1);
  }
  return binary;
}

/**
 * A second instance on the same memory would reset static data, and an allocator would hand out addresses that are
 * in use: the module must have no data segment, no mutable global and no allocator. Sections are (id, size, content).
 */
function refuseState(binary) {
  const exported = WebAssembly.Module.exports(new WebAssembly.Module(binary)).map(({ name }) => name);
  const allocator = exported.find(name => name.startsWith('__'));
  if (allocator) throw new Error(`kernels: the module exports ${allocator}, part of an allocator`);
  let at = 8;
  const leb = () => {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = binary[at++];
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return value >>> 0;
    }
  };
  while (at < binary.length) {
    const id = binary[at++];
    const size = leb();
    const end = at + size;
    if (id === 11 && size > 1) throw new Error('kernels: the module has a data segment');
    if (id === 6 && size > 1) throw new Error('kernels: the module has a global variable');
    at = end;
  }
}

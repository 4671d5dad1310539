// Every TypeScript example of the documents: type-checked against the built package, run as a process that has to end by
// itself, and compared with the output that stands below it.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));
const preload = `--import=${import.meta.resolve('../support/manners.js')}`;

interface Example {
  /** Where it stands: `library-30` is line 30 of library.md. */
  readonly name: string;
  readonly code: string;
  /** What follows it. */
  readonly output: { readonly language: string; readonly text: string } | undefined;
}

function examplesOf(file: string): Example[] {
  const text = readFileSync(join(root, file), 'utf8').replaceAll('\r\n', '\n');
  const blocks = Array.from(
    text.matchAll(/^```(\w*)\n([^]*?)^```$/gm),
    ({ index, 1: language, 2: content }) => ({
      language,
      text: content,
      line: text.slice(0, index).split('\n').length,
    }),
  );
  const prefix = file.replace(/^.*\//, '').replace('.md', '').toLowerCase();
  return blocks.flatMap(({ language, text: code, line }, index) =>
    language === 'ts' ? [{ name: `${prefix}-${line}`, code, output: blocks[index + 1] }] : [],
  );
}

const examples = ['README.md', 'docs/library.md'].flatMap(examplesOf);

let dir: string;
let checked: ReturnType<typeof run>;

/** In the folder of the examples. Who does not end is killed, and has no status. */
function run(args: readonly string[], env: Record<string, string> = {}) {
  const { status, stdout, stderr } = spawnSync(process.execPath, args, {
    cwd: dir,
    env: { ...process.env, ...env },
    encoding: 'utf8',
    timeout: 60_000,
    killSignal: 'SIGKILL',
  });
  return { status, stdout, stderr };
}

before(() => {
  dir = mkdtempSync(join(tmpdir(), 'lockstep-examples-'));
  mkdirSync(join(dir, 'node_modules'));
  symlinkSync(root, join(dir, 'node_modules', 'lockstep'), 'junction');
  writeFileSync(join(dir, 'package.json'), JSON.stringify({ private: true, type: 'module' }));
  for (const { name, code } of examples) writeFileSync(join(dir, `${name}.ts`), code);
  const compiler = join(root, 'node_modules', 'typescript', 'bin', 'tsc');
  const options = ['--strict', '--exactOptionalPropertyTypes', '--target', 'es2023', '--module', 'nodenext'];
  const types = ['--types', 'node', '--typeRoots', join(root, 'node_modules', '@types')];
  checked = run([compiler, ...options, ...types, ...examples.map(({ name }) => `${name}.ts`)]);
});

after(() => rmSync(dir, { recursive: true }));

test('all examples pass the compiler', () => {
  assert.ok(examples.length >= 10, `${examples.length} examples`);
  assert.deepEqual(checked, { status: 0, stdout: '', stderr: '' });
});

for (const { name, code, output } of examples) {
  test(`${name} prints what the page says, nothing else, and ends by itself`, () => {
    assert.equal(output?.language, 'text', 'an example is followed by a block of what it prints');
    assert.doesNotMatch(code, /process\.(exit|on)/);
    const report = join(dir, `${name}.json`);
    const ended = run([preload, `${name}.js`], { LOCKSTEP_TEST_MANNERS: report });
    assert.deepEqual(ended, { status: 0, stdout: output.text, stderr: '' });
    assert.deepEqual(JSON.parse(readFileSync(report, 'utf8')), []);
  });
}

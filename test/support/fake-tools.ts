// Stand-ins for the programs that `setup` runs: nothing is downloaded, and every call is a line of a log.

import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const programs = {
  'g++': `
    if (args[0] === '--version') return;
    mkdirSync('tensorflow', { recursive: true });
    writeFileSync(args[args.indexOf('-o') + 1], 'binding');
  `,
  npm: `
    if (args[0] === '--version') return;
    if (!existsSync('package-lock.json')) throw new Error('no lock');
    for (const dir of ['dist', 'binding']) mkdirSync('node_modules/@tensorflow/tfjs-node/' + dir, { recursive: true });
    writeFileSync('node_modules/@tensorflow/tfjs-node/dist/index.js', 'throw new Error("a stand-in")');
    writeFileSync('node_modules/@tensorflow/tfjs-node/binding/one.cc', '');
  `,
  python3: `
    if (args.includes('--version')) return;
    if (args[0] === '-c' && args[1].includes('libcuda')) {
      const driver = { driverProblem: 'no libcuda.so.1 here', driverCuda: 0, initCode: 0, devices: 0 };
      return console.log(JSON.stringify({ ...driver, libraryProblems: [] }));
    }
    if (args[0] === '-c') return mkdirSync(args[3] + '/tensorflow', { recursive: true });
    const [, name, version] = /^(\\S+)==(\\S+) --hash=sha256:/.exec(readFileSync(args.at(-1), 'utf8'));
    const wheel = args[args.indexOf('-d') + 1] + '/' + name.replaceAll('-', '_') + '-' + version + '-py3-none-any.whl';
    appendFileSync(log, (existsSync(wheel) ? 'kept ' : 'got ') + name + '\\n');
    if (name === failing) {
      console.error('Looking around\\nERROR: the network is down');
      process.exit(1);
    }
    writeFileSync(wheel, '');
  `,
};

export type FakeTool = keyof typeof programs;
export const fakeTools: readonly FakeTool[] = ['g++', 'npm', 'python3'];

export interface FakeTools {
  /** For PATH. */
  readonly bin: string;
  /** The calls since the last look, one a line: `npm ci --ignore-scripts ...`. */
  readonly calls: () => string[];
  /** The package whose download fails from now on. */
  readonly fail: (name: string | undefined) => void;
}

export function installFakeTools(dir: string, names: readonly FakeTool[] = fakeTools): FakeTools {
  const bin = join(dir, 'bin');
  const log = join(dir, 'calls.log');
  const failure = join(dir, 'failing');
  mkdirSync(bin);
  writeFileSync(log, '');
  for (const name of names) {
    const program = `#!${process.execPath}
const { appendFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } = require('node:fs');
const args = process.argv.slice(2);
const log = ${JSON.stringify(log)};
const failing = existsSync(${JSON.stringify(failure)}) && readFileSync(${JSON.stringify(failure)}, 'utf8');
appendFileSync(log, ${JSON.stringify(name)} + ' ' + args.join(' ').replaceAll('\\n', ' ') + '\\n');
(() => {${programs[name]}})();
`;
    writeFileSync(join(bin, name), program);
    chmodSync(join(bin, name), 0o755);
  }
  let seen = 0;
  return {
    bin,
    calls() {
      const lines = readFileSync(log, 'utf8').split('\n').slice(0, -1);
      const fresh = lines.slice(seen);
      seen = lines.length;
      return fresh;
    },
    fail: name => writeFileSync(failure, name ?? ''),
  };
}

/** Why `setup` refuses this machine, or false. */
export function setupIsImpossible(): string | false {
  if (process.platform === 'linux' && process.arch === 'x64' && !existsSync('/etc/alpine-release'))
    return false;
  return `setup builds on Linux for x64 with glibc, and this is ${process.platform} on ${process.arch}`;
}

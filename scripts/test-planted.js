// Plants one fault at a time in a copy of the tree and demands that the test suite turns red for each.
// A control without a fault must stay green, so that red means the fault and nothing else.

import { spawn, spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { plainEnv } from './run.js';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const copied = [
  'package.json',
  'tsconfig.json',
  'tsconfig.base.json',
  'src',
  'kernels',
  'scripts',
  'test',
  'docs',
  'examples',
  'bench',
  'README.md',
];

/** Each edit replaces every occurrence of `from`, which must exist. */
const faults = [
  {
    name: 'an f32 sum in order of arrival',
    edits: [
      { file: 'kernels/exact.ts', from: 'f64x2.sub(f64x2.add(low, rounder), rounder)', to: 'low' },
      { file: 'kernels/exact.ts', from: 'f64x2.sub(f64x2.add(high, rounder), rounder)', to: 'high' },
      {
        file: 'kernels/exact.ts',
        from: /f64x2\.add\(v128\.load\((base|a)(, 16)?\), (low|high|v128\.load\(b\))\)/g,
        to: 'f64x2.promote_low_f32x4(f32x4.demote_f64x2_zero($&))',
      },
    ],
  },
  {
    name: 'a leaf counted twice',
    edits: [
      {
        file: 'src/worker/thread.ts',
        from: 'const lane = takeLane();',
        to: 'const taken = takeLane();\nconst lane = taken === schedule.lanes && step === 7 ? 0 : taken;',
      },
    ],
  },
  {
    name: "an update applied twice after a thread's death",
    edits: [
      {
        file: 'src/worker/crew.ts',
        from: 'slot.isGone = true;',
        to: `slot.isGone = true;
    if (phases[phase - 1] === 'update') {
      const { banks, control: words } = this.#views;
      banks[words[control.published] & 1].weights.set(banks[(words[control.published] + 1) & 1].weights);
    }`,
      },
    ],
  },
  {
    name: 'dropout keyed by thread',
    edits: [
      {
        file: 'src/worker/thread.ts',
        from: 'seed: job.seed,',
        to: 'seed: job.seed + thread,',
      },
    ],
  },
  {
    name: 'a short last leaf weighted as full',
    edits: [
      {
        file: 'src/worker/pool.ts',
        from: 'this.#schedule.samplesInStep(firstStep + index)',
        to: 'this.#schedule.lanes * this.#schedule.leaf',
      },
    ],
  },
  {
    name: 'an evaluation that forgets its last, short leaf',
    edits: [
      {
        file: 'src/worker/thread.ts',
        from: 'if (from >= end) break;',
        to: 'if (from + EVALUATION_LEAF > end && from > 0) break;',
      },
    ],
  },
  {
    name: 'a running loss that counts one thread only',
    edits: [
      {
        file: 'src/worker/thread.ts',
        from: 'sumOverThreads(threadNumber.lossSum)',
        to: 'own.numbers[threadNumber.lossSum]',
      },
    ],
  },
  {
    name: 'a reduction whose verdict on gradients is ignored',
    edits: [
      {
        file: 'src/worker/thread.ts',
        from: 'if (kernels.reduce(sums, sources, threads, a, b, bound) !== 1) stopForGradients(step);',
        to: 'if (kernels.reduce(sums, sources, threads, a, b, bound) === -1) stopForGradients(step);',
      },
    ],
  },
  {
    name: 'a reduction that blames the thread it runs on',
    edits: [
      {
        file: 'src/worker/thread.ts',
        from: 'indexes.find(of => badTensor(step, of) !== undefined) ?? thread',
        to: 'indexes.includes(thread) ? thread : thread',
      },
    ],
  },
  // Each of these must be found within 200 simulated runs.
  {
    name: 'a late sum counted twice',
    suite: 'simulation',
    edits: [
      {
        file: 'src/coordinator/ledger.ts',
        from: "} else effects.push({ type: 'drop', node, reason: 'late twin' });",
        to: "} else effects.push({ type: 'add' });",
      },
    ],
  },
  {
    name: 'a lost lease never given to another',
    suite: 'simulation',
    edits: [
      {
        file: 'src/coordinator/ledger.ts',
        from: 'parts: before.parts.map(part => ({ ...part, holdings: others(part.holdings) })),',
        to: 'parts: before.parts,',
      },
    ],
  },
  {
    name: 'a sum from stale weights accepted',
    suite: 'simulation',
    edits: [{ file: 'src/coordinator/ledger.ts', from: ' && a.weights === b.weights', to: '' }],
  },
  {
    name: 'lanes dropped when their node rejoins',
    suite: 'simulation',
    edits: [
      {
        file: 'src/coordinator/planner.ts',
        from: 'if (!isFree(share)) return unowned(lanes);',
        to: 'if (!isFree(share)) return [];',
      },
    ],
  },
  {
    name: 'a queue of leases without bound',
    suite: 'simulation',
    edits: [
      {
        file: 'src/coordinator/ledger.ts',
        from: 'return ledger.overdue.some(lease => lease.node === node);',
        to: 'return ledger.overdue.length < 0 && node === OWN_NODE;',
      },
      {
        file: 'src/coordinator/ledger.ts',
        from: 'export const emptyLedger',
        to: "const OWN_NODE = '';\nexport const emptyLedger",
      },
    ],
  },
  {
    name: 'a verification that takes any hash for the right one',
    suite: 'library/verify',
    edits: [
      {
        file: 'src/coordinator/run-comparison.ts',
        from: 'else if (line !== hash) {',
        to: 'else if (line.length !== hash.length) {',
      },
    ],
  },
  {
    name: 'a timeline that is late',
    suite: 'report/run-report',
    edits: [
      {
        file: 'src/report/run-timeline.ts',
        from: 'x: (offsetMs + mark.timeMs) / 1000',
        to: 'x: (offsetMs + 1.02 * mark.timeMs) / 1000',
      },
    ],
  },
];

let isGood = true;
const wanted = process.argv.slice(2);
for (const fault of [{ name: 'no fault (control)', edits: [] }, ...faults]) {
  if (!wanted.every(part => fault.name.includes(part))) continue;
  const { failedTest, output } = await suiteWith(fault);
  const isControl = fault.edits.length === 0;
  const isAsWished = isControl === (failedTest === undefined);
  isGood &&= isAsWished;
  const found = failedTest === undefined ? 'green' : `red: ${failedTest}`;
  console.log(`${isAsWished ? 'ok' : 'NOT OK'}  ${fault.name}: the suite is ${found}`);
  if (!isAsWished) console.log(output);
}
process.exit(isGood ? 0 : 1);

/** Builds and tests a copy with the fault in it; ends at the first test that fails. */
async function suiteWith({ name, edits, suite }) {
  const dir = mkdtempSync(join(tmpdir(), 'lockstep-planted-'));
  try {
    for (const entry of copied) cpSync(join(root, entry), join(dir, entry), { recursive: true });
    symlinkSync(join(root, 'node_modules'), join(dir, 'node_modules'));
    for (const { file, from, to } of edits) {
      const path = join(dir, file);
      const text = readFileSync(path, 'utf8');
      const edited = text.replaceAll(from, to);
      if (edited === text) throw new Error(`${name}: ${file} has no ${from}; the fault must be planted anew`);
      writeFileSync(path, edited);
    }
    const build = spawnSync('npm', ['run', '--silent', 'build'], { cwd: dir, encoding: 'utf8' });
    if (build.status !== 0) throw new Error(`${name}: does not build\n${build.stdout}${build.stderr}`);
    return await firstFailure(dir, suite);
  } finally {
    rmSync(dir, { recursive: true });
  }
}

function firstFailure(dir, suite) {
  return new Promise(resolve => {
    const args = ['scripts/test.js', ...(suite === undefined ? [] : [suite])];
    const env = { ...plainEnv, LOCKSTEP_SIMULATION_SEEDS: '200' };
    const child = spawn(process.execPath, args, { cwd: dir, env, detached: true });
    let output = '';
    let failedTest;
    const read = text => {
      output += text;
      failedTest ??= /^\s*✖ (?!failing tests)(.*?) \(/m.exec(output)?.[1];
      if (failedTest !== undefined && child.exitCode === null) process.kill(-child.pid, 'SIGKILL');
    };
    child.stdout.setEncoding('utf8').on('data', read);
    child.stderr.setEncoding('utf8').on('data', read);
    child.on('close', code => {
      resolve({ failedTest: failedTest ?? (code === 0 ? undefined : `exit code ${code}`), output });
    });
  });
}

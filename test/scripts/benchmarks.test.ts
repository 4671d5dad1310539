// The benchmark scripts: what they refuse, and what they make of figures, with a Python that trains nothing.

import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { resolveSettings } from '#dist/shared/settings.js';
import { inTemporaryFolder, runScript } from '../support/cli.js';

/**
 * Answers as a Python with a pip and torch would. Each training's speed is the next of its way in FAKE_RATES, 0 being a
 * failure. Every call is a line of FAKE_LOG.
 */
const fakePython = `#!${process.execPath}
const { appendFileSync, cpSync, existsSync, mkdirSync, readFileSync } = require('node:fs');
const { FAKE_LOG: log, FAKE_RATES: rates, FAKE_PIP: pip, OMP_NUM_THREADS: omp } = process.env;
const args = process.argv.slice(2);
const flag = name => args[args.indexOf('--' + name) + 1];
if (args[0] === '-c') {
  if (args[1].includes('torch')) console.log('2.15.0+cpu');
} else if (args[1] === 'venv') {
  mkdirSync(args[3] + '/bin', { recursive: true });
  cpSync(__filename, args[3] + '/bin/python');
} else if (args[1] === 'pip') {
  if (pip) console.error(pip);
  process.exitCode = pip ? 1 : 0;
} else {
  const kind = flag('workers') !== '1' ? 'DDP ' : flag('threads') !== '1' ? 'threads ' : '';
  const way = kind + flag('mode');
  const call = [way, flag('workers'), flag('threads'), flag('batch'), flag('lr'), omp].join(' ');
  const before = existsSync(log) ? readFileSync(log, 'utf8').split('\\n').filter(line => line === call).length : 0;
  appendFileSync(log, call + '\\n');
  const rate = JSON.parse(rates)[way][before];
  if (rate === 0) {
    console.error('Traceback\\nRuntimeError: DefaultCPUAllocator: not enough memory\\nsome advice');
    process.exit(1);
  }
  const epochs = Array.from({ length: Number(flag('epochs')) }, (_, i) => ({
    epoch: i + 1,
    imagesPerSecond: i === 0 ? 1 : rate,
    trainSeconds: 60000 / rate,
    evaluationSeconds: 1,
    testAccuracy: 0.982,
  }));
  console.log(JSON.stringify({ epochs }));
}
`;

interface Fake {
  readonly dir: string;
  /** The calls that would train: way, workers, threads, batch, rate, OMP_NUM_THREADS. */
  readonly calls: () => string[];
  readonly run: (
    script: string,
    args: readonly string[],
    env?: Record<string, string>,
  ) => ReturnType<typeof runScript>;
}

/** A folder of its own as working directory and cache, and nothing but the fake Python on the PATH. */
function withFakePython(work: (fake: Fake) => Promise<void>): Promise<void> {
  return inTemporaryFolder(async dir => {
    const log = join(dir, 'log');
    mkdirSync(join(dir, 'bin'));
    writeFileSync(join(dir, 'bin', 'python3'), fakePython, { mode: 0o755 });
    const given = { PATH: join(dir, 'bin'), XDG_CACHE_HOME: join(dir, 'cache'), FAKE_LOG: log };
    await work({
      dir,
      calls: () => (existsSync(log) ? readFileSync(log, 'utf8').trimEnd().split('\n') : []),
      run: (script, args, env) => runScript(script, args, { cwd: dir, env: { ...given, ...env } }),
    });
  });
}

const refused: [string, readonly string[], RegExp][] = [
  ['bench-kernels.js', ['--models', 'nope'], /model is "nope", expected one of lenet5/],
  ['bench-kernels.js', ['--batch', '0'], /--batch is '0'/],
  ['bench-kernels.js', ['--leaf', '7'], /batch \(128\) must be a multiple of leaf \(7\)/],
  ['bench-kernels.js', ['--repetitions', '0'], /--repetitions is '0'/],
  ['bench-kernels.js', ['--images', 'abc'], /--images is 'abc'/],
  ['bench-kernels.js', ['--bogus'], /Unknown option '--bogus'/],
  // 300 workers are more than the cores: no warning may come before the error.
  ['bench-pytorch.js', ['--workers', '300', '--models', 'nope'], /--models names 'nope'/],
  ['bench-pytorch.js', ['--workers', '7'], /--workers has 7/],
  ['bench-pytorch.js', ['--epochs', '1'], /--epochs is '1'/],
  [
    'bench-pytorch.js',
    ['--json', 'no/such/x.json'],
    /--json is 'no\/such\/x\.json', which cannot be written/,
  ],
  ['bench-pytorch.js', ['--models', 'mlp', '--figure', '.'], /--figure is '\.', which cannot be written/],
  ['bench-time-to-accuracy.js', ['--workers', '3'], /--workers has 3/],
  ['bench-time-to-accuracy.js', ['--figure', 'no/such/x.svg'], /--figure is 'no\/such\/x\.svg'/],
];

test('bad usage is a line on standard error and exit code 2, before anything else', async () => {
  await withFakePython(async ({ dir, run }) => {
    for (const [script, args, message] of refused) {
      const { code, stdout, stderr } = await run(script, args);
      assert.match(stderr, message);
      assert.match(stderr, /^error: .*\n$/);
      assert.equal(code, 2, stderr);
      assert.equal(stdout, '');
    }
    assert.ok(!existsSync(join(dir, 'cache')));
  });
});

test('what keeps PyTorch away is a line and exit code 1, and nothing half-made is left', async () => {
  const args = ['--models', 'mlp', '--workers', '1', '--json', 'x.json'];
  const offline =
    'WARNING: Retrying: NewConnectionError: Name or service not known\nERROR: No matching distribution';
  await withFakePython(async ({ dir, calls, run }) => {
    for (const [more, env, message] of [
      [[], {}, /about 5 GB.*give --yes/],
      [['--yes'], { PATH: dir }, /There is no Python 3\.10 or newer/],
      [
        ['--yes'],
        { FAKE_PIP: offline },
        /pip could not install torch==.*: PyPI cannot be reached\. Check the network/,
      ],
      [['--yes'], { FAKE_PIP: 'ERROR: no space left' }, /pip could not install .*: ERROR: no space left/],
    ] as const) {
      const { code, stdout, stderr } = await run('bench-pytorch.js', [...args, ...more], env);
      assert.match(stderr, message);
      assert.deepEqual([code, stdout], [1, '']);
      assert.ok(!existsSync(join(dir, 'cache', 'lockstep', 'bench-pytorch')));
      assert.ok(!existsSync(join(dir, 'x.json')));
    }
    assert.deepEqual(calls(), []);
  });
});

interface Side {
  readonly way?: string;
  readonly imagesPerSecond: number;
  readonly low: number;
  readonly high: number;
}

interface PytorchReport {
  readonly results: readonly {
    readonly lockstep: Side;
    readonly pytorch: Side;
    readonly ratio: number;
    readonly ddp: Side;
    readonly ratioToDdp: number;
    readonly tried: readonly Side[];
    readonly failures: readonly { way: string; repetition: number; reason: string }[];
  }[];
}

test('the fastest way of PyTorch counts, DDP is told beside it, and a way that fails keeps its good runs', async () => {
  await withFakePython(async ({ dir, calls, run }) => {
    const rates = {
      'DDP eager': [300, 100, 200],
      'DDP compile': [0],
      'threads eager': [500, 900, 700],
      'threads compile': [650, 0, 550],
    };
    const args = ['--models', 'mlp', '--workers', '2', '--batch', '500', '--epochs', '2', '--yes'];
    const { code, stdout, stderr } = await run(
      'bench-pytorch.js',
      [...args, '--json', 'x.json', '--figure', 'x.svg'],
      {
        FAKE_RATES: JSON.stringify(rates),
      },
    );
    assert.equal(code, 0, stderr);
    const report: PytorchReport = JSON.parse(readFileSync(join(dir, 'x.json'), 'utf8'));
    const [{ lockstep, pytorch, ratio, ddp, ratioToDdp, tried, failures }] = report.results;
    assert.deepEqual(
      tried.map(({ way, imagesPerSecond, low, high }) => [way, imagesPerSecond, low, high]),
      [
        ['DDP eager', 200, 100, 300],
        ['threads eager', 700, 500, 900],
        ['threads compile', 600, 550, 650],
      ],
    );
    assert.deepEqual([pytorch.way, ddp.way], ['threads eager', 'DDP eager']);
    assert.equal(ratio, lockstep.imagesPerSecond / 700);
    assert.equal(ratioToDdp, lockstep.imagesPerSecond / 200);
    const reason = 'RuntimeError: DefaultCPUAllocator: not enough memory';
    assert.deepEqual(failures, [
      { way: 'DDP compile', repetition: 1, reason },
      { way: 'threads compile', repetition: 2, reason },
    ]);
    assert.match(
      stdout,
      new RegExp(`threads eager .* ${ratio.toFixed(2)} .* 200 .* ${ratioToDdp.toFixed(2)} `),
    );
    assert.match(
      stdout,
      /PyTorch, threads compile, failed in run 2 of mlp, workers 2, batch 500 each: RuntimeError/,
    );
    assert.deepEqual(calls().slice(0, 4), [
      'DDP eager 2 1 500 0.01 1',
      'DDP compile 2 1 500 0.01 1',
      'threads eager 1 2 1000 0.01 2',
      'threads compile 1 2 1000 0.01 2',
    ]);
    assert.equal(calls().length, 3 + 1 + 3 + 3);
    assert.match(readFileSync(join(dir, 'x.svg'), 'utf8'), /PyTorch, 2 workers/);
  });
});

test('time to accuracy takes the recipe of train, and a way that never gets there has no time', async () => {
  await withFakePython(async ({ calls, run }) => {
    const rates = { eager: [1000], compile: [500] };
    const args = ['--workers', '1', '--repetitions', '1', '--epochs', '1', '--yes', '--json', '-'];
    const { code, stdout, stderr } = await run('bench-time-to-accuracy.js', args, {
      FAKE_RATES: JSON.stringify(rates),
    });
    assert.equal(code, 0, stderr);
    const { recipe, batch, results } = JSON.parse(stdout);
    const { optimizer, lr, lrSchedule, batch: expected } = resolveSettings({ model: 'lenet5' });
    assert.deepEqual([recipe, batch], [{ optimizer, lr, lrSchedule }, expected]);
    const [, { way, targets }] = results[0].sides;
    assert.equal(way, 'eager');
    assert.deepEqual(targets, [
      { target: 0.98, reachedRuns: 1, epoch: 1, trainSeconds: 60, wallSeconds: 61 },
      { target: 0.99, reachedRuns: 0, epoch: null, trainSeconds: null, wallSeconds: null },
    ]);
    assert.deepEqual(calls(), [`eager 1 1 ${batch} ${lr} 1`, `compile 1 1 ${batch} ${lr} 1`]);
  });
});

// `setupTensorflow` with programs that download and compile nothing: what is asked, kept, removed and left behind.

import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, readFileSync, realpathSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import {
  LockstepError,
  setupTensorflow,
  type ErrorCode,
  type SetupOptions,
  type SetupPlan,
  type SetupStep,
} from '#dist/library/index.js';
import { NPM_BYTES, TENSORFLOW_VERSION, TFJS_VERSION, wheels } from '#dist/library/setup-pins.js';
import { findRuntimes, READY_FILE } from '#dist/worker/engines/tensorflow/runtime.js';
import { inTemporaryFolder } from '../support/cli.js';
import { installFakeTools, setupIsImpossible, type FakeTool, type FakeTools } from '../support/fake-tools.js';

const skip = setupIsImpossible();

interface Place extends FakeTools {
  /** Where everything goes. */
  readonly all: string;
  readonly names: () => string[];
}

/** Nothing but the fake programs on the PATH, and a cache of its own. */
function withTools(work: (place: Place) => Promise<void>, tools?: readonly FakeTool[]): Promise<void> {
  return inTemporaryFolder(async dir => {
    const fake = installFakeTools(dir, tools);
    Object.assign(process.env, { PATH: fake.bin, XDG_CACHE_HOME: join(dir, 'cache') });
    const all = join(dir, 'cache', 'lockstep', 'tensorflow');
    await work({ ...fake, all, names: () => (existsSync(all) ? readdirSync(all).toSorted() : []) });
  });
}

const proveBroken = (): never => {
  throw new LockstepError('LOCKSTEP_NO_TENSORFLOW', 'It does not load.');
};
const proveNone = (): never => {
  throw new LockstepError('LOCKSTEP_NO_GPU', 'None.');
};
const prove = (): Promise<{ loss: number }> => Promise.resolve({ loss: 2.5 });

async function refused(code: ErrorCode, message: RegExp, options: SetupOptions): Promise<void> {
  await assert.rejects(setupTensorflow(options), (error: unknown) => {
    assert.ok(error instanceof LockstepError, String(error));
    assert.equal(error.code, code, error.message);
    assert.match(error.message, message);
    return true;
  });
}

const built = (kind: string): string => `${TENSORFLOW_VERSION}-${kind}`;

test('the npm packages are pinned by hash, the wheels too', () => {
  const folder = fileURLToPath(new URL('../../dist/library/tensorflow', import.meta.url));
  const text = readFileSync(join(folder, 'package-lock.json'), 'utf8');
  const { packages }: { packages: Record<string, { version: string; integrity?: string }> } =
    JSON.parse(text);
  const { '': _, ...others } = packages;
  assert.equal(others['node_modules/@tensorflow/tfjs-node'].version, TFJS_VERSION);
  for (const [name, { integrity }] of Object.entries(others)) assert.match(integrity ?? '', /^sha512-/, name);
  // An address would bind users to the registry that made the lock.
  assert.doesNotMatch(text, /"resolved"/);
  for (const { name, sizeBytes, sha256 } of [...wheels.cpu, ...wheels.gpu]) {
    assert.match(sha256, /^[0-9a-f]{64}$/, name);
    assert.ok(sizeBytes > 1e6, name);
  }
});

test('programs that are missing are named with the packages that have them', { skip }, async () => {
  await withTools(async ({ names }) => {
    await refused('LOCKSTEP_SETUP', /g\+\+ .*apt-get install g\+\+.*pip .*python3-pip.*npm/, { prove });
    assert.deepEqual(names(), []);
  }, []);
  await withTools(async () => {
    await refused('LOCKSTEP_SETUP', /needed: python3 -m pip --version \(.*python3-pip[^;]*\)\.$/, { prove });
  }, ['g++', 'npm']);
});

test('a no downloads nothing; the plan says what a yes would', { skip }, async () => {
  await withTools(async ({ calls, names, all }) => {
    let plan: SetupPlan | undefined;
    const confirm = (asked: SetupPlan): boolean => {
      plan = asked;
      return false;
    };
    await refused('LOCKSTEP_SETUP', /Nothing was downloaded/, { prove, confirm });
    assert.ok(plan);
    assert.equal(plan.folder, join(all, built('cpu')));
    assert.equal(plan.downloadBytes, NPM_BYTES + wheels.cpu[0].sizeBytes);
    assert.ok(plan.peakDiskBytes > plan.diskBytes);
    assert.deepEqual(
      calls().filter(call => !call.includes('--version')),
      [],
    );
    assert.deepEqual(names(), []);
  });
});

test('it is built under another name, gets its own when it is whole, and is proved', { skip }, async () => {
  await withTools(async ({ all, calls, names }) => {
    mkdirSync(join(all, '.partial-1.0.0-cpu', 'node_modules'), { recursive: true });
    const steps: SetupStep[] = [];
    const kinds: string[] = [];
    const result = await setupTensorflow({
      onStep: step => steps.push(step),
      prove: kind => {
        kinds.push(kind);
        assert.deepEqual(names(), [built('cpu')]);
        return prove();
      },
    });
    const folder = join(all, built('cpu'));
    assert.deepEqual(result, {
      name: `TensorFlow ${TENSORFLOW_VERSION}, tfjs-node ${TFJS_VERSION}`,
      source: 'setup',
      isGpu: false,
      folder,
      isNew: true,
      proof: { loss: 2.5 },
    });
    assert.deepEqual(kinds, ['cpu']);
    assert.deepEqual(
      steps.map(({ step, steps: of }) => `${step}/${of}`),
      ['1/6', '2/6', '3/6', '4/6', '5/6', '6/6'],
    );
    const ready: unknown = JSON.parse(readFileSync(join(folder, READY_FILE), 'utf8'));
    assert.deepEqual(ready, { tensorflow: TENSORFLOW_VERSION, tfjs: TFJS_VERSION, isGpu: false });
    const [runtime] = findRuntimes(all, all);
    assert.ok(existsSync(runtime.entry));
    const asked = calls();
    const npm = asked.find(call => call.startsWith('npm ci'));
    assert.match(npm ?? '', /--ignore-scripts/);
    const pip = asked.find(call => call.includes('pip download'));
    assert.match(pip ?? '', /--no-deps --only-binary=:all: .*--require-hashes/);
    const compiler = asked.find(call => call.startsWith('g++ -O2'));
    assert.match(
      compiler ?? '',
      /binding\/one\.cc .*-Wl,-rpath,\$ORIGIN\/\.\.\/\.\.\/\.\.\/\.\.\/\.\.\/tensorflow$/,
    );
    assert.deepEqual(names(), [built('cpu')]);
  });
});

test('after a download that failed the others are kept, and it goes on from there', { skip }, async () => {
  await withTools(async ({ calls, fail, names, all }) => {
    const [first, second, ...rest] = wheels.gpu.map(({ name }) => name);
    fail(second);
    const options: SetupOptions = { gpu: true, prove: async () => ({ loss: 1, gpu: 'a GPU' }) };
    const message =
      /downloading nvidia-cublas-cu12: python3, exit code 1\.\nLooking around\nERROR: the network is down$/;
    await refused('LOCKSTEP_SETUP', message, options);
    const got = (): string[] => calls().filter(call => /^(got|kept) /.test(call));
    assert.deepEqual(got(), [`got ${first}`, `got ${second}`]);
    assert.deepEqual(names(), [`.partial-${built('gpu')}-${process.pid}`, 'downloads']);
    assert.deepEqual(findRuntimes(all, all), []);

    fail(undefined);
    let plan: SetupPlan | undefined;
    const confirm = (asked: SetupPlan): boolean => {
      plan = asked;
      return true;
    };
    const { proof } = await setupTensorflow({ ...options, confirm });
    assert.deepEqual(proof, { loss: 1, gpu: 'a GPU' });
    assert.deepEqual(got(), [`kept ${first}`, ...[second, ...rest].map(name => `got ${name}`)]);
    const missing = wheels.gpu.slice(1).reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
    assert.equal(plan?.downloadBytes, NPM_BYTES + missing);
    assert.deepEqual(names(), [built('gpu')]);
  });
});

test('what is there is proved and not built again, unless it does not load', { skip }, async () => {
  await withTools(async ({ calls, names, all }) => {
    await setupTensorflow({ prove });
    calls();
    const again = await setupTensorflow({ prove });
    assert.equal(again.isNew, false);
    assert.deepEqual(calls(), []);

    /** Whatever is found does not load. */
    const proveNew = (): (() => Promise<{ loss: number }>) => {
      let proofs = 0;
      return () => (proofs++ === 0 ? proveBroken() : prove());
    };
    writeFileSync(join(all, built('cpu'), 'damaged'), '');
    const anew = await setupTensorflow({ prove: proveNew() });
    assert.equal(anew.isNew, true);
    assert.equal(existsSync(join(all, built('cpu'), 'damaged')), false);

    await setupTensorflow({ gpu: true, prove: async () => ({ loss: 1, gpu: 'a GPU' }) });
    assert.deepEqual(names(), [built('cpu'), built('gpu')]);
    const other = await setupTensorflow({ prove: proveNew() });
    assert.deepEqual([other.isNew, other.isGpu, names()], [true, false, [built('cpu')]]);
  });
});

test(
  'an installed package is used as it is, and never touched; where it does not load, something better is built',
  { skip },
  async () => {
    const started = process.cwd();
    await withTools(async ({ calls, names, all }) => {
      const project = join(all, '..', 'project');
      const folder = join(project, 'node_modules', '@tensorflow', 'tfjs-node');
      const files = {
        'package.json': '{ "name": "@tensorflow/tfjs-node", "version": "4.22.0", "main": "dist/index.js" }',
        'dist/index.js': '',
        'lib/napi-v8/tfjs_binding.node': '',
      };
      for (const [name, content] of Object.entries(files)) {
        mkdirSync(dirname(join(folder, name)), { recursive: true });
        writeFileSync(join(folder, name), content);
      }
      process.chdir(project);
      try {
        const { source, isNew, ...rest } = await setupTensorflow({ prove });
        assert.deepEqual([source, isNew, rest.folder], ['package', false, realpathSync(folder)]);
        assert.deepEqual([calls(), names()], [[], []]);
        let proofs = 0;
        const instead = await setupTensorflow({ prove: () => (proofs++ === 0 ? proveBroken() : prove()) });
        assert.deepEqual([instead.source, instead.isNew, names()], ['setup', true, [built('cpu')]]);
        assert.equal(existsSync(join(folder, 'dist', 'index.js')), true);
        assert.equal((await setupTensorflow({ prove })).source, 'setup');
        // It is not for GPUs.
        const gpu = await setupTensorflow({ gpu: true, prove: async () => ({ loss: 1, gpu: 'a GPU' }) });
        assert.equal(gpu.isNew, true);
      } finally {
        process.chdir(started);
      }
    });
  },
);

test('a proof that did not run on a GPU is none; what was built is kept', { skip }, async () => {
  await withTools(async ({ names }) => {
    const options: SetupOptions = { gpu: true, prove };
    await refused(
      'LOCKSTEP_NO_GPU',
      /^The driver is missing: .*no libcuda\.so\.1 here.*What was built is kept/,
      options,
    );
    await refused('LOCKSTEP_NO_GPU', /^The driver is missing/, { gpu: true, prove: proveNone });
    assert.deepEqual(names(), [built('gpu')]);
  });
});

test('an interruption ends it, and gives back the lock', { skip }, async () => {
  await withTools(async ({ names }) => {
    const asked = new AbortController();
    const confirm = (): boolean => {
      asked.abort();
      return false;
    };
    await refused('LOCKSTEP_INTERRUPTED', /interrupted/, { prove, signal: asked.signal, confirm });
    assert.deepEqual(names(), []);
    const abort = new AbortController();
    await refused('LOCKSTEP_INTERRUPTED', /interrupted/, {
      prove,
      signal: abort.signal,
      onStep: ({ step }) => {
        if (step === 3) abort.abort();
      },
    });
    assert.deepEqual(names(), [`.partial-${built('cpu')}-${process.pid}`, 'downloads']);
    assert.equal((await setupTensorflow({ prove })).isNew, true);
  });
});

test('a second one at the same time is refused', { skip }, async () => {
  await withTools(async () => {
    const confirm = async (): Promise<boolean> => {
      await refused('LOCKSTEP_SETUP', /Process \d+ is at work/, { prove });
      return true;
    };
    assert.equal((await setupTensorflow({ prove, confirm })).isNew, true);
  });
});

test('an unknown option is an error', async () => {
  // @ts-expect-error -- as from JavaScript
  await refused('LOCKSTEP_BAD_SETTING', /nothing/, { nothing: true });
});

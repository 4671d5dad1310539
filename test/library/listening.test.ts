// A coordinator that listens, with nobody who joins: what it tells, keeps, refuses and waits for.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { once } from 'node:events';
import { join } from 'node:path';
import { test } from 'node:test';
import { LockstepError, train, type EventOf, type RunEvent, type TrainOptions } from '#dist/library/index.js';
import { openCluster, type ClusterParts } from '#dist/library/listening.js';
import { resolveListening } from '#dist/shared/listen.js';
import { inTemporaryFolder } from '../support/cli.js';
import { tinyDataset, tinyModel } from '../support/tiny.js';

const { name, shape, classes, train: trainSet, test: testSet } = tinyDataset();
const dataset = { name, shape, classes, train: trainSet, test: testSet };
const tiny = { model: tinyModel, dataset, batch: 24, leaf: 3, epochs: 2, workers: 1 } as const;

interface Outcome {
  readonly events: readonly RunEvent[];
  readonly error: LockstepError | undefined;
}

/** A training to its end; `onEvent` may abort it. */
async function outcomeOf(
  options: TrainOptions,
  onEvent: (event: RunEvent, abort: () => void) => void = () => {},
): Promise<Outcome> {
  const controller = new AbortController();
  const events: RunEvent[] = [];
  try {
    for await (const event of train({ ...options, signal: controller.signal })) {
      events.push(event);
      onEvent(event, () => controller.abort());
    }
    return { events, error: undefined };
  } catch (error) {
    assert.ok(error instanceof LockstepError, String(error));
    return { events, error };
  }
}

function find<Type extends RunEvent['type']>({ events }: Outcome, type: Type): EventOf<Type> {
  const found = events.find((event): event is EventOf<Type> => event.type === type);
  assert.ok(found, `no event ${type} among ${events.map(event => event.type).join(', ')}`);
  return found;
}

/** Gives `work` a folder with the options of a run and of its key. */
function inFolder(work: (dir: string, options: TrainOptions) => Promise<void>): Promise<void> {
  return inTemporaryFolder(dir => work(dir, { ...tiny, out: join(dir, 'run'), keyFile: join(dir, 'key') }));
}

test('listening changes no bits, and tells address and join line before the first step', async () => {
  await inFolder(async (dir, options) => {
    const { keyFile: _, ...local } = options;
    const plain = await train({ ...local, out: join(dir, 'plain') });
    assert.equal(plain.nodes, undefined);
    const outcome = await outcomeOf({ ...options, listen: '0' });
    const { address, join: line } = find(outcome, 'listening');
    assert.match(address, /^127\.0\.0\.1:[1-9]\d*$/);
    assert.ok(line !== undefined && /^\S+$/.test(line), line);
    const types = outcome.events.map(({ type }) => type);
    assert.ok(types.indexOf('start') < types.indexOf('listening'));
    assert.ok(types.indexOf('listening') < types.indexOf('step'));
    const done = find(outcome, 'done');
    assert.equal(done.hash, plain.hash);
    assert.deepEqual(done.nodes, []);
  });
});

test('the key is kept outside the run folder for its owner alone, and --resume finds it again', async () => {
  await inFolder(async (dir, options) => {
    const begun = await outcomeOf({ ...options, listen: '0', epochs: 50 }, (event, abort) => {
      if (event.type === 'step') abort();
    });
    assert.equal(begun.error?.code, 'LOCKSTEP_INTERRUPTED');
    const { address, join: line } = find(begun, 'listening');
    assert.equal(statSync(join(dir, 'key')).mode & 0o777, 0o600);
    // The command goes on at the same address, with the same key.
    const { resume } = find(begun, 'interrupted');
    assert.ok(
      resume.endsWith(`${join(dir, 'run')} --listen ${address} --key-file ${join(dir, 'key')}`),
      resume,
    );
    const { out: _, epochs: __, ...rest } = options;
    const resumed = await outcomeOf({ ...rest, resume: join(dir, 'run'), listen: address });
    assert.equal(resumed.error, undefined);
    assert.equal(find(resumed, 'listening').join, line);
    for (const file of readdirSync(join(dir, 'run'), { recursive: true, encoding: 'utf8' })) {
      const secret: unknown = JSON.parse(readFileSync(join(dir, 'key'), 'utf8')).secret;
      assert.ok(typeof secret === 'string');
      const path = join(dir, 'run', file);
      if (statSync(path).isFile()) assert.ok(!readFileSync(path).includes(secret), file);
    }
    // Nothing of how it listened is a setting of the run.
    assert.doesNotMatch(readFileSync(join(dir, 'run', 'config.json'), 'utf8'), /listen|keyFile|audit/);
  });
});

test('a new run in the place of an old one has a key of its own', async () => {
  await inFolder(async (dir, { keyFile, ...options }) => {
    assert.ok(keyFile !== undefined);
    const state = process.env['XDG_STATE_HOME'];
    process.env['XDG_STATE_HOME'] = join(dir, 'state');
    try {
      const keys = [];
      for (let run = 0; run < 2; run++) {
        const { join: line } = find(await outcomeOf({ ...options, listen: '0' }), 'listening');
        keys.push(line!.slice(0, line!.indexOf('@')));
        rmSync(join(dir, 'run'), { recursive: true });
      }
      assert.notEqual(keys[0], keys[1]);
    } finally {
      if (state === undefined) delete process.env['XDG_STATE_HOME'];
      else process.env['XDG_STATE_HOME'] = state;
    }
  });
});

test('a join file that cannot be written ends the run before it begins, and leaves no key', async () => {
  await inFolder(async (dir, options) => {
    const { error } = await outcomeOf({ ...options, listen: '0', joinFile: dir });
    assert.equal(error?.code, 'LOCKSTEP_KEY_FILE');
    assert.deepEqual(readdirSync(dir), []);
  });
});

test('a join file replaces no link, and is another than the key file', async () => {
  await inFolder(async (dir, options) => {
    writeFileSync(join(dir, 'target'), 'kept');
    symlinkSync(join(dir, 'target'), join(dir, 'link'));
    const linked = await outcomeOf({ ...options, listen: '0', joinFile: join(dir, 'link') });
    assert.equal(linked.error?.code, 'LOCKSTEP_KEY_FILE');
    assert.match(linked.error?.message ?? '', /no regular file/);
    assert.equal(readFileSync(join(dir, 'link'), 'utf8'), 'kept');
    const same = join(dir, 'same');
    const both = await outcomeOf({ ...options, listen: '0', joinFile: same, keyFile: same });
    assert.match(both.error?.message ?? '', /joinFile and keyFile are the same file/);
  });
});

test('whatever keeps it from listening, its own node is closed', async () => {
  const closed: string[] = [];
  const listening = resolveListening({ listen: '0' })!;
  const own = { threads: 1, close: async () => closed.push('own') };
  // Nothing of what a job must have.
  const parts: ClusterParts = { ...JSON.parse('{"job": {}}'), listening, own };
  await assert.rejects(openCluster(parts), TypeError);
  assert.deepEqual(closed, ['own']);
});

test('the join line goes to a file instead, whole and for its owner alone', async () => {
  await inFolder(async (dir, options) => {
    const joinFile = join(dir, 'deep', 'join');
    const outcome = await outcomeOf({ ...options, listen: '0', joinFile });
    const { address, join: line } = find(outcome, 'listening');
    assert.equal(line, undefined);
    assert.match(readFileSync(joinFile, 'utf8'), /^\S+\n$/);
    assert.ok(readFileSync(joinFile, 'utf8').includes(address.split(':')[1]));
    assert.equal(statSync(joinFile).mode & 0o777, 0o600);
    assert.deepEqual(readdirSync(join(dir, 'deep')), ['join']);
    // One that is there is replaced, and is then as closed as a new one.
    writeFileSync(joinFile, 'old', { mode: 0o644 });
    await outcomeOf({ ...options, out: join(dir, 'next'), listen: '0', joinFile });
    assert.match(readFileSync(joinFile, 'utf8'), /^\S+\n$/);
    assert.equal(statSync(joinFile).mode & 0o777, 0o600);
  });
});

for (const file of ['keyFile', 'joinFile'] as const) {
  test(`a ${file} in the run folder is refused`, async () => {
    await inFolder(async (dir, options) => {
      const { error } = await outcomeOf({ ...options, listen: '0', [file]: join(dir, 'run', 'secret') });
      assert.equal(error?.code, 'LOCKSTEP_KEY_FILE');
      assert.match(error.message, /lies in the run folder/);
      // Nothing is left of the run that did not begin.
      assert.ok(!readdirSync(dir).includes('run'));
    });
  });
}

test('a port that is taken ends the run before it begins', async () => {
  await inFolder(async (dir, options) => {
    const other = createServer().listen(0, '127.0.0.1');
    await once(other, 'listening');
    const bound = other.address();
    assert.ok(bound !== null && typeof bound === 'object');
    const outcome = await outcomeOf({ ...options, listen: `${bound.port}` });
    other.close();
    assert.equal(outcome.error?.code, 'LOCKSTEP_LISTEN');
    assert.deepEqual(
      outcome.events.map(({ type }) => type),
      ['start', 'error'],
    );
    // Neither the run nor its key.
    assert.deepEqual(readdirSync(dir), []);
  });
});

test('workers 0 needs somebody else who computes, also in a resumed run', async () => {
  await inFolder(async (dir, { keyFile, ...options }) => {
    const refused = { code: 'LOCKSTEP_BAD_SETTING', message: /^Setting workers is 0, and nobody listens/ };
    await assert.rejects(train({ ...options, workers: 0 }), refused);
    assert.ok(!readdirSync(dir).includes('run'));
    const begun = await outcomeOf({ ...options, workers: 0, listen: '0', keyFile }, (event, abort) => {
      if (event.type === 'waiting') abort();
    });
    assert.equal(begun.error?.code, 'LOCKSTEP_INTERRUPTED');
    assert.match(find(begun, 'waiting').message, /1 node/);
    await assert.rejects(train({ dataset, resume: join(dir, 'run') }), refused);
    // It can go on with threads of its own.
    const { hash } = await train({ dataset, resume: join(dir, 'run'), workers: 1 });
    assert.equal(hash, (await train({ ...options, out: join(dir, 'plain') })).hash);
  });
});

test('a run that waits for nodes ends when it is told to, saved before its first step', async () => {
  await inFolder(async (dir, options) => {
    const outcome = await outcomeOf({ ...options, listen: '0', minNodes: 2 }, (event, abort) => {
      if (event.type === 'waiting') abort();
    });
    assert.match(find(outcome, 'waiting').message, /2 nodes/);
    assert.equal(outcome.error?.code, 'LOCKSTEP_INTERRUPTED');
    assert.match(outcome.error.message, /after step 0 of/);
    assert.equal(find(outcome, 'checkpoint').step, 0);
    assert.ok(readdirSync(join(dir, 'run')).includes('config.json'));
  });
});

for (const options of [{ minNodes: 1 }, { workers: 0 }]) {
  test(`a run with ${JSON.stringify(options)} has no patience without end: it ends with a code, saved`, async () => {
    await inFolder(async (dir, rest) => {
      const outcome = await outcomeOf({ ...rest, ...options, listen: '0', patience: '1s' });
      assert.equal(outcome.error?.code, 'LOCKSTEP_NO_NODES');
      assert.match(outcome.error.message, /^Fewer than 1 node joined within 1 s .*--resume \S+ --listen 127/);
      assert.equal(find(outcome, 'checkpoint').step, 0);
      assert.ok(find(outcome, 'interrupted').resume.includes(join(dir, 'run')));
      assert.equal(find(outcome, 'error').code, 'LOCKSTEP_NO_NODES');
    });
  });
}

test('an outside address is told, and nothing encrypted is warned of there', async () => {
  await inFolder(async (dir, options) => {
    const loopback = await outcomeOf({ ...options, listen: '0', insecure: true });
    assert.ok(!loopback.events.some(({ type }) => type === 'warning'));
    const advertised = await outcomeOf({
      ...options,
      out: join(dir, 'second'),
      listen: '0',
      advertise: 'trainer.example.org',
      insecure: true,
    });
    assert.match(find(advertised, 'listening').address, /^trainer\.example\.org:\d+$/);
    assert.match(find(advertised, 'warning').message, /^Nothing is encrypted/);
    const encrypted = await outcomeOf({
      ...options,
      out: join(dir, 'third'),
      listen: '0',
      advertise: 'trainer.example.org',
    });
    assert.ok(!encrypted.events.some(({ type }) => type === 'warning'));
  });
});

test('what only a listening coordinator understands is refused elsewhere', async () => {
  for (const options of [{ minNodes: 1 }, { joinFile: 'x' }, { audit: 1 }]) {
    await assert.rejects(train({ ...tiny, ...options }), {
      code: 'LOCKSTEP_BAD_SETTING',
      message: /nobody listens for them: set listen as well\.$/,
    });
  }
});

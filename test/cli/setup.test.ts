// `lockstep setup tensorflow`: asking and refusing, with programs that download nothing.

import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { test } from 'node:test';
import { inTemporaryFolder, lockstep } from '../support/cli.js';
import { installFakeTools, setupIsImpossible, type FakeTools } from '../support/fake-tools.js';
import { inTerminal, linesOf, terminalIsMissing } from '../support/terminal.js';

function withTools(
  work: (cwd: string, env: Record<string, string>, tools: FakeTools) => Promise<void>,
): Promise<void> {
  return inTemporaryFolder(cwd => {
    const tools = installFakeTools(cwd);
    const path = `${tools.bin}${delimiter}${process.env['PATH']}`;
    return work(cwd, { PATH: path, XDG_CACHE_HOME: join(cwd, 'cache') }, tools);
  });
}

const downloads = ({ calls }: FakeTools): string[] => calls().filter(call => / (ci|download) /.test(call));

test('without a terminal it downloads nothing unless told --yes', { skip: setupIsImpossible() }, async () => {
  await withTools(async (cwd, env, tools) => {
    const { code, stdout, stderr } = await lockstep(['setup', 'tensorflow', '--gpu'], { cwd, env });
    assert.equal(code, 1);
    assert.equal(stderr, 'LOCKSTEP_SETUP: Nobody can be asked here. Say --yes to download it.\n');
    assert.match(
      stdout,
      /^1\/6 .*\nTensorFlow \S+ for GPUs: 3,456 MB to download, .*\nwarning .*driver is missing/,
    );
    const json = await lockstep(['setup', 'tensorflow', '--json'], { cwd, env });
    assert.deepEqual([json.code, json.stderr], [1, '']);
    assert.match(json.stdout, /^\{"type":"error","code":"LOCKSTEP_SETUP",.*\}\n$/);
    assert.deepEqual(downloads(tools), []);
    assert.deepEqual(readdirSync(join(cwd, 'cache', 'lockstep', 'tensorflow')), []);
  });
});

test('with --yes it goes through its steps to a proof', { skip: setupIsImpossible() }, async () => {
  await withTools(async (cwd, env, tools) => {
    const { code, stdout, stderr } = await lockstep(['setup', 'tensorflow', '--yes'], { cwd, env });
    // What these programs have made is no TensorFlow.
    assert.notEqual(code, 0);
    assert.match(stderr, /^LOCKSTEP_/);
    assert.match(
      stdout,
      /\n2\/6 npm [^]*\n3\/6 tensorflow-cpu [^]*\n4\/6 [^]*\n5\/6 [^]*\n6\/6 doing a training step\n/,
    );
    assert.equal(downloads(tools).length, 2);
  });
});

test(
  'a terminal is asked, and no answer is a no',
  { skip: setupIsImpossible() || terminalIsMissing() },
  async () => {
    await withTools(async (cwd, env, tools) => {
      const { code, output } = inTerminal(['setup', 'tensorflow'], { columns: 200, cwd, env });
      assert.equal(code, 1);
      const lines = linesOf(output);
      assert.match(lines[1], /350 MB to download/);
      assert.match(lines.join('\n'), /Go on\? \[y\/N\] .*Nothing was downloaded/s);
      assert.deepEqual(downloads(tools), []);
    });
  },
);

test('only tensorflow can be set up', async () => {
  const { code, stderr } = await lockstep(['setup', 'torch']);
  assert.equal(code, 2);
  assert.match(stderr, /^LOCKSTEP_USAGE: .*torch.*tensorflow/s);
});

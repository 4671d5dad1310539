// On a real terminal: the line of progress fits into it, what is told above it is whole, and NO_COLOR is kept.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { progressLine } from '#dist/cli/progress-line.js';
import { formatJoin } from '#dist/shared/join.js';
import { inTemporaryFolder, lockstep } from '../support/cli.js';
import { inTerminal, linesOf, terminalIsMissing } from '../support/terminal.js';

const showNodes = fileURLToPath(new URL('../support/show-nodes.js', import.meta.url));

const parts = [
  { rank: 0, text: '33%' },
  { rank: 1, text: 'epoch 2/5' },
  { rank: 3, text: 'loss 0.0446' },
  { rank: 2, text: 'ETA 4s' },
];
const drawBar = (length: number): string => '='.repeat(length);

const widths: [number, string][] = [
  [200, '==================== 33%  epoch 2/5  loss 0.0446  ETA 4s'],
  [56, '==================== 33%  epoch 2/5  loss 0.0446  ETA 4s'],
  [55, '=================== 33%  epoch 2/5  loss 0.0446  ETA 4s'],
  [41, '===== 33%  epoch 2/5  loss 0.0446  ETA 4s'],
  [40, '33%  epoch 2/5  loss 0.0446  ETA 4s'],
  [35, '33%  epoch 2/5  loss 0.0446  ETA 4s'],
  [34, '=========== 33%  epoch 2/5  ETA 4s'],
  [22, '33%  epoch 2/5  ETA 4s'],
  [21, '====== 33%  epoch 2/5'],
  [14, '33%  epoch 2/5'],
  [13, '========= 33%'],
  [3, '33%'],
  [1, '33%'],
];

for (const [columns, expected] of widths) {
  test(`progress in ${columns} columns`, () => assert.equal(progressLine(parts, drawBar, columns), expected));
}

const skip = terminalIsMissing();
const train = ['train', 'mlp', '--epochs', '1'];
const isProgress = (line: string): boolean => /^([=-]+ )?\d+%/.test(line);

for (const columns of [10, 30, 80, 200]) {
  test(`training on a terminal of ${columns} columns`, { skip }, async () => {
    await inTemporaryFolder(async cwd => {
      const { code, output } = inTerminal(train, { columns, cwd });
      assert.equal(code, 0, output);
      const progress = linesOf(output).filter(isProgress);
      assert.ok(progress.length > 0);
      for (const line of progress) assert.ok(line.length < columns, line);
      if (columns === 200) assert.match(progress.at(-1)!, /^[=-]{20} .*images\/s .*loss .*accuracy .*ETA /);
      // The terminal is to wrap the other lines: nothing of them is lost.
      assert.ok(!output.includes('\u001b[?7l'));
      const told = linesOf(output).find(line => line.startsWith('epoch 1'));
      assert.match(told ?? '', /train loss 0\.\d+, accuracy \d+\.\d+ % {2}test loss .* images\/s$/);
      // The cursor is there again.
      assert.ok(output.lastIndexOf('\u001b[?25h') > output.lastIndexOf('\u001b[?25l'));
    });
  });
}

for (const columns of [40, 120]) {
  test(`remote nodes on a terminal of ${columns} columns`, { skip }, async () => {
    await inTemporaryFolder(async cwd => {
      const { code, output } = inTerminal([], { columns, cwd, program: showNodes });
      assert.equal(code, 0, output);
      const lines = linesOf(output);
      const rows = lines.filter(line => /^node-\d+ /.test(line));
      assert.ok(rows.length >= 10, output);
      for (const row of rows) assert.ok(row.length < columns, row);
      assert.match(rows.at(-1)!, columns === 40 ? /spare +0 +990$/ : /it is to be measured$/);
      assert.ok(lines.includes('and 3 more'), output);
      // Ready to be copied: nothing else is on its line.
      assert.ok(lines.includes("lockstep worker 'the-join-line'"), output);
      const told = lines.join(' ');
      assert.match(told, /node joined {2}node-13 \(00000000\) with 8 threads, from 10\.0\.0\.13:4711/);
      assert.match(told, /node lost {2}node-3 \(00000000\): it left\?\[2J\. Others compute its lanes/);
      assert.match(told, /late {2}node-3 \(00000000\) did not answer for lanes 2 to 3 of step 1 in time/);
      assert.ok(output.lastIndexOf('\u001b[?25h') > output.lastIndexOf('\u001b[?25l'));
    });
  });
}

test('the bar of the benchmark fits into a terminal of 30 columns', { skip }, async () => {
  await inTemporaryFolder(async cwd => {
    const short = ['--workers', '1', '--repetitions', '2', '--warm-up-ms', '0', '--measure-ms', '50'];
    const { code, output } = inTerminal(['bench', 'mlp', ...short], { columns: 30, cwd });
    assert.equal(code, 0, output);
    const progress = linesOf(output).filter(line => /^[=-]{20} /.test(line));
    assert.ok(progress.length > 0);
    for (const line of progress) assert.ok(line.length <= 30, line);
  });
});

test(
  'a node says what it is doing in one line that fits into a terminal of 30 columns',
  { skip },
  async () => {
    await inTemporaryFolder(async cwd => {
      const key = { id: '0123456789abcdef', secret: new Uint8Array(32) };
      // A port that is reserved, and where nobody listens.
      const line = formatJoin({ host: '127.0.0.1', port: 1, key, isEncrypted: true });
      const { code, output } = inTerminal(['worker', line, '--retry', '1s'], { columns: 30, cwd });
      assert.equal(code, 1, output);
      const told = linesOf(output).filter(text => /^(connecting|no connection)/.test(text));
      assert.ok(told.some(text => text.startsWith('no connection (')));
      for (const text of told) assert.ok(text.length < 30, text);
      assert.ok(output.lastIndexOf('\u001b[?25h') > output.lastIndexOf('\u001b[?25l'));
    });
  },
);

test('colours on a terminal, and none with NO_COLOR', { skip }, async () => {
  await inTemporaryFolder(async cwd => {
    // oxlint-disable-next-line no-control-regex -- these are the colours
    const coloured = /\u001b\[[\d;]*m/;
    assert.match(inTerminal(train, { columns: 80, cwd }).output, coloured);
    assert.match(inTerminal(['model', 'mlp'], { columns: 80, cwd }).output, coloured);
    const env = { NO_COLOR: '1' };
    assert.doesNotMatch(inTerminal(train, { columns: 80, cwd, env }).output, coloured);
    assert.doesNotMatch(inTerminal(['model', 'mlp'], { columns: 80, cwd, env }).output, coloured);
  });
});

test('a terminal that does not know its width gets help and pictures as a usual one', { skip }, async () => {
  await inTemporaryFolder(async cwd => {
    const help = inTerminal(['--help'], { columns: 0, cwd });
    assert.match(help.output, /lockstep train \[model\] {2}.*Train a model/);
    const data = inTerminal(['data'], { columns: 0, cwd });
    assert.match(data.output, /\n0 {16}/);
    await lockstep(['train', 'mlp', '--max-steps', '1', '--out', 'run'], { cwd });
    const prediction = inTerminal(['predict', 'run', '0'], { columns: 0, cwd });
    assert.match(prediction.output, /\n +▄▄▄ +\r?\n/);
    const evaluation = inTerminal(['eval', 'run'], { columns: 0, cwd });
    assert.match(evaluation.output, /How often each class/);
  });
});

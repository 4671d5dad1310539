// `lockstep train --listen` as a process: who is shown the join line, exit codes, help.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { eventsOf, inTemporaryFolder, lockstep, onlyEvent } from '../support/cli.js';
import { inTerminal, linesOf, terminalIsMissing } from '../support/terminal.js';

const short = ['train', 'mlp', '--max-steps', '3', '--workers', '1', '--listen', '0'];

test('--json has the join line in one event; the key is in the state folder, and no word of it in the run', async () => {
  await inTemporaryFolder(async cwd => {
    const env = { XDG_STATE_HOME: join(cwd, 'state') };
    const { code, stdout, stderr } = await lockstep([...short, '--json', '--out', 'run'], { cwd, env });
    assert.deepEqual([code, stderr], [0, '']);
    const { join: line } = onlyEvent(eventsOf(stdout), 'listening');
    assert.ok(line !== undefined);
    assert.equal(stdout.split(line).length, 2);
    const [file, ...others] = readdirSync(join(cwd, 'state', 'lockstep', 'keys'));
    assert.deepEqual(others, []);
    assert.equal(statSync(join(cwd, 'state', 'lockstep', 'keys', file)).mode & 0o777, 0o600);
    assert.deepEqual(onlyEvent(eventsOf(stdout), 'done').nodes, []);
  });
});

test('output that goes to a file has no key, and says how to get the join line', async () => {
  await inTemporaryFolder(async cwd => {
    const args = ['--key-file', 'key', '--join-file', 'join'];
    const plain = await lockstep([...short, ...args], { cwd });
    assert.equal(plain.code, 0, plain.stderr);
    const line = readFileSync(join(cwd, 'join'), 'utf8').trimEnd();
    const { secret } = JSON.parse(readFileSync(join(cwd, 'key'), 'utf8'));
    assert.ok(!plain.stdout.includes(line) && !plain.stdout.includes(secret));
    assert.match(plain.stdout, /listening on 127\.0\.0\.1:\d+; the join line is in the file/);
    const none = await lockstep([...short, '--key-file', 'key'], { cwd });
    assert.ok(!none.stdout.includes(secret));
    assert.match(none.stdout, /listening on .* is shown on a terminal only: give --join-file or --json/);
    const json = await lockstep([...short, ...args, '--json'], { cwd });
    assert.equal(onlyEvent(eventsOf(json.stdout), 'listening').join, undefined);
    assert.ok(!json.stdout.includes(secret));
  });
});

test('a terminal shows the command for other machines, once', { skip: terminalIsMissing() }, async () => {
  await inTemporaryFolder(async cwd => {
    const args = short.map(word => (word === '3' ? '300' : word));
    const { code, output } = inTerminal([...args, '--key-file', 'key'], { columns: 200, cwd });
    assert.equal(code, 0, output);
    const commands = linesOf(output).filter(line => line.includes('lockstep worker'));
    assert.equal(commands.length, 1, output);
    assert.match(commands[0], /^lockstep worker '[^' ]+'$/);
  });
});

test('what cannot work exits with 2 and names the setting', async () => {
  await inTemporaryFolder(async cwd => {
    const cases: [string[], RegExp][] = [
      [['--workers', '0'], /^LOCKSTEP_BAD_SETTING: Setting workers is 0, and nobody listens/],
      [['--listen', 'here'], /^LOCKSTEP_BAD_SETTING: Setting listen is "here", expected a text such as/],
      [
        ['--listen', '0', '--audit', '2'],
        /^LOCKSTEP_BAD_SETTING: Setting audit is 2, expected a number from 0 to 1/,
      ],
      [['--insecure'], /^LOCKSTEP_BAD_SETTING: Setting insecure is of remote nodes/],
    ];
    for (const [args, message] of cases) {
      const { code, stdout, stderr } = await lockstep(['train', 'mlp', ...args], { cwd });
      assert.deepEqual([code, stdout], [2, ''], args.join(' '));
      assert.match(stderr, message);
    }
    assert.deepEqual(readdirSync(cwd), []);
  });
});

test('Ctrl-C while it waits for nodes saves the run, and the command shown goes on with it', async () => {
  await inTemporaryFolder(async cwd => {
    const args = ['train', 'mlp', '--max-steps', '3', '--workers', '0', '--listen', '0', '--key-file', 'key'];
    const { code, stderr } = await lockstep([...args, '--out', 'run'], {
      cwd,
      onOutput: (text, kill) => {
        if (text.includes('waiting')) kill('SIGINT');
      },
    });
    assert.equal(code, 130);
    assert.match(stderr, /after step 0 of 3.* --resume \S+ --listen 127\.0\.0\.1:\d+ --key-file key\n$/);
    const resumed = await lockstep(['train', '--resume', 'run', '--workers', '1', '--json'], { cwd });
    const plain = await lockstep(['train', 'mlp', '--max-steps', '3', '--json'], { cwd });
    const [done, expected] = [resumed, plain].map(({ stdout }) => onlyEvent(eventsOf(stdout), 'done'));
    assert.equal(done.hash, expected.hash);
  });
});

test('help and completion know the flags', async () => {
  const { stdout } = await lockstep(['train', '--help']);
  const flags = [
    'listen',
    'advertise',
    'min-nodes',
    'patience',
    'key-file',
    'join-file',
    'insecure',
    'audit',
  ];
  for (const flag of flags) assert.match(stdout, new RegExp(`^ +--${flag} `, 'm'), flag);
  assert.match(stdout, /lockstep train --listen 0\.0\.0\.0:7077/);
  const completed = (await lockstep(['--complete', 'train', 'mlp', '--'])).stdout.split('\n');
  for (const flag of flags) assert.ok(completed.includes(`--${flag}`), flag);
});

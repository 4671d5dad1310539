// `lockstep completion`: the scripts in real shells, and the candidates behind them.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { complete, type CommandFlags } from '#dist/cli/completion.js';
import { trainFlags } from '#dist/cli/train.js';
import { presetNames } from '#dist/shared/presets.js';
import { optimizerNames } from '#dist/shared/settings.js';
import { inTemporaryFolder, lockstep } from '../support/cli.js';

const main = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));

const commands: CommandFlags = {
  train: trainFlags,
  data: { 'label-offset': { type: 'number' }, json: { type: 'boolean' } },
  doctor: { json: { type: 'boolean' } },
};

const cases: [string[], string[]][] = [
  [[''], ['train', 'data', 'doctor']],
  [[], ['train', 'data', 'doctor']],
  [['t'], ['train']],
  [['--v'], ['--version']],
  [['nothing', ''], []],
  [['toString', ''], []],
  [
    ['train', ''],
    ['lenet5', 'mlp', 'lenet5-regularized'],
  ],
  [['train', 'm'], ['mlp']],
  [['train', 'my-model'], []],
  [
    ['train', '--optimizer', 'adam'],
    ['adam', 'adamw'],
  ],
  [
    ['train', '--optimizer=adam'],
    ['--optimizer=adam', '--optimizer=adamw'],
  ],
  [
    ['train', '--optimizer', '=', 'adam'],
    ['adam', 'adamw'],
  ],
  [
    ['train', '--lr-schedule', '='],
    ['constant', 'cosine', 'one-cycle'],
  ],
  [['train', '--workers', ''], ['auto']],
  [['train', '--data', ''], []],
  [
    ['train', '--json', ''],
    ['lenet5', 'mlp', 'lenet5-regularized'],
  ],
  [
    ['train', '--seed', '3', 'l'],
    ['lenet5', 'lenet5-regularized'],
  ],
  [
    ['train', '--seed', '=', '3', 'l'],
    ['lenet5', 'lenet5-regularized'],
  ],
  [
    ['train', 'mlp', '--w'],
    ['--workers', '--weight-decay', '--warmup'],
  ],
  [
    ['train', 'mlp', '--workers=2', '--w'],
    ['--weight-decay', '--warmup'],
  ],
  [
    ['data', 'here', ''],
    ['--label-offset', '--json', '--help'],
  ],
  [
    ['data', 'here', '--json', '--'],
    ['--label-offset', '--help'],
  ],
  [['data', ''], []],
  [['data', '--nothing='], []],
  [['data', 'here', 'more'], []],
  [
    ['doctor', ''],
    ['--json', '--help'],
  ],
];

for (const [words, expected] of cases) {
  test(`candidates for: ${words.join(' ')}`, () => assert.deepEqual(complete(words, commands), expected));
}

test('every command that takes words completes them or leaves them to the shell, and offers no flags', async () => {
  const { stdout } = await lockstep(['--help']);
  const taking = Array.from(stdout.matchAll(/^ {2}lockstep (\w+) [<[]/gm), match => match[1]);
  assert.ok(taking.length > 4, stdout);
  await inTemporaryFolder(async cwd => {
    for (const command of taking) {
      const candidates = (await lockstep(['--complete', command, ''], { cwd })).stdout;
      assert.doesNotMatch(candidates, /^--/m, command);
      assert.match((await lockstep(['--complete', command, '--js'], { cwd })).stdout, /^--json\n$/);
    }
  });
});

/** A folder with runs, where `lockstep` is on the path. */
function withShell(work: (cwd: string, env: NodeJS.ProcessEnv) => Promise<void>): Promise<void> {
  return inTemporaryFolder(async cwd => {
    const bin = join(cwd, 'bin');
    mkdirSync(bin);
    writeFileSync(join(bin, 'lockstep'), `#!/bin/sh\nexec '${process.execPath}' '${main}' "$@"\n`);
    chmodSync(join(bin, 'lockstep'), 0o755);
    for (const run of ['runs/lenet5-1', 'runs/lenet5-2', 'elsewhere/my run']) {
      mkdirSync(join(cwd, run), { recursive: true });
      for (const file of ['config.json', 'hashes.txt']) writeFileSync(join(cwd, run, file), '');
    }
    mkdirSync(join(cwd, 'runs', 'lenet5-notes'));
    await work(cwd, { ...process.env, PATH: `${bin}${delimiter}${process.env['PATH']}` });
  });
}

/** What shells complete, by the words before the cursor. */
const inShells: [string[], string[]][] = [
  [['lockstep', 'tra'], ['train']],
  [['lockstep', 'train', 'lenet5-'], ['lenet5-regularized']],
  [['lockstep', 'model', ''], [...presetNames]],
  [['lockstep', 'train', '--optimizer', ''], [...optimizerNames]],
  [['lockstep', 'train', '--check'], ['--checkpoint-every']],
  [['lockstep', 'bench', '--engine', 're'], ['reference']],
  [
    ['lockstep', 'train', '--resume', ''],
    ['runs/lenet5-1', 'runs/lenet5-2'],
  ],
  [['lockstep', 'train', '--resume', './runs/lenet5-2'], ['./runs/lenet5-2']],
  [['lockstep', 'completion', 'z'], ['zsh']],
  [['lockstep', 'train', '--data', 'bi'], []],
];

function shellIsMissing(shell: string): string | false {
  const { error } = spawnSync(shell, ['-c', ':']);
  return error ? `there is no ${shell} here (${error.message})` : false;
}

test('bash completes with the script', { skip: shellIsMissing('bash') }, async () => {
  await withShell(async (cwd, env) => {
    writeFileSync(join(cwd, 'script'), (await lockstep(['completion', 'bash'])).stdout);
    const ask = (words: readonly string[]): string[] => {
      // As bash calls a completion function: the words in COMP_WORDS, the answer in COMPREPLY.
      const code =
        'source ./script; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _lockstep; ' +
        'printf "%s\\n" "${COMPREPLY[@]}"; complete -p lockstep >&2';
      const { status, stdout, stderr } = spawnSync('bash', ['-c', code, 'bash', ...words], {
        cwd,
        env,
        encoding: 'utf8',
      });
      assert.equal(status, 0);
      // Where nothing is found, files are completed.
      assert.equal(stderr, 'complete -o bashdefault -o default -F _lockstep lockstep\n');
      return stdout.split('\n').filter(line => line !== '');
    };
    for (const [words, expected] of inShells) assert.deepEqual(ask(words), expected, words.join(' '));
    assert.deepEqual(ask(['lockstep', 'train', '--optimizer', '=', 'sg']), ['sgd']);
    const spaced = ['lockstep', 'train', '--resume'];
    assert.deepEqual(ask([...spaced, 'elsewhere/']), ['elsewhere/my\\ run']);
    assert.deepEqual(ask([...spaced, 'elsewhere/my\\ r']), ['elsewhere/my\\ run']);
  });
});

test('zsh completes with the script', { skip: shellIsMissing('zsh') }, async () => {
  await withShell(async (cwd, env) => {
    writeFileSync(join(cwd, 'script'), (await lockstep(['completion', 'zsh'])).stdout);
    const ask = (words: readonly string[]): string[] => {
      // As zsh calls a completion function, with what would come from its completion system replaced.
      const code =
        'compdef() { [[ "$1 $2" == "_lockstep lockstep" ]] }; _files() { print -r -- FILES }; ' +
        'compadd() { shift; print -rl -- "$@" }; ' +
        'source ./script && words=("$@") && CURRENT=$# && _lockstep';
      const { status, stdout, stderr } = spawnSync('zsh', ['-fc', code, 'zsh', ...words], {
        cwd,
        env,
        encoding: 'utf8',
      });
      assert.deepEqual([status, stderr], [0, '']);
      return stdout.split('\n').filter(line => line !== '');
    };
    for (const [words, expected] of inShells) {
      assert.deepEqual(ask(words), expected.length > 0 ? expected : ['FILES'], words.join(' '));
    }
    assert.deepEqual(ask(['lockstep', 'train', '--optimizer=sg']), ['--optimizer=sgd']);
    assert.deepEqual(ask(['lockstep', 'train', '--resume', 'elsewhere/']), ['elsewhere/my run']);
  });
});

async function script(shell: string, ...args: string[]): Promise<string> {
  return (await lockstep(['completion', ...args], { env: { SHELL: shell } })).stdout;
}

test('the shell is the one named, else the own one, else bash; as JSON too', async () => {
  const [bash, zsh] = [await script('/bin/sh', 'bash'), await script('/bin/sh', 'zsh')];
  assert.notEqual(bash, zsh);
  assert.equal(await script('/usr/bin/zsh'), zsh);
  assert.equal(await script('/usr/bin/fish'), bash);
  assert.deepEqual(JSON.parse(await script('/bin/zsh', '--json')), { shell: 'zsh', script: zsh });
  const { code, stderr } = await lockstep(['completion', 'tcsh']);
  assert.equal(code, 2);
  assert.match(stderr, /^LOCKSTEP_USAGE: .*tcsh.*bash/s);
});

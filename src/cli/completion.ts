// `lockstep completion`: a script that completes commands, flags and their values in bash and zsh.
//
// The script asks `lockstep --complete WORD...`, which answers with a candidate a line for the last of the words. Where
// there is none, the shell completes names of files.

import { existsSync, readdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import type { Argv, CommandModule, InferredOptionTypes } from 'yargs';
import { MOST_RUNS } from '../library/report.js';
import { presetNames } from '../shared/presets.js';
import { jsonFlag } from './format.js';
import { setupWhats } from './setup.js';

const shells = ['bash', 'zsh'] as const;
type Shell = (typeof shells)[number];

/** The first word of the command line by which the scripts ask. */
export const COMPLETE = '--complete';

export const completionFlags = { json: jsonFlag } as const;

type Arguments = InferredOptionTypes<typeof completionFlags> & { shell: Shell | undefined };

export const completionCommand: CommandModule<object, Arguments> = {
  command: 'completion [shell]',
  describe: 'Print a script that completes commands, flags and values in your shell',
  builder: (yargs): Argv<Arguments> =>
    yargs
      .positional('shell', { choices: shells, describe: 'The shell', defaultDescription: '$SHELL, or bash' })
      .options(completionFlags)
      .example('source <($0 completion bash)', 'For this bash; in ~/.bashrc for every one')
      .example('source <($0 completion zsh)', 'For zsh, behind compinit in ~/.zshrc')
      .epilogue('It completes the command `lockstep`, which has to be on the path.'),
  handler: ({ shell = ownShell(), json }) => {
    const script = scripts[shell];
    process.stdout.write(json ? `${JSON.stringify({ shell, script })}\n` : script);
  },
};

function ownShell(): Shell {
  const name = basename(process.env['SHELL'] ?? '');
  return shells.find(shell => shell === name) ?? 'bash';
}

const scripts: Record<Shell, string> = {
  // Without mapfile: macOS has bash 3.2.
  bash: `# Completion of lockstep for bash; for every shell: source <(lockstep completion bash) in ~/.bashrc
_lockstep() {
  local line
  COMPREPLY=()
  while IFS= read -r line; do
    COMPREPLY+=("$(printf '%q' "$line")")
  done < <("\${COMP_WORDS[0]}" ${COMPLETE} "\${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -o bashdefault -o default -F _lockstep lockstep
`,
  zsh: `#compdef lockstep
# Completion of lockstep for zsh: source <(lockstep completion zsh) behind compinit in ~/.zshrc
_lockstep() {
  local -a found
  found=("\${(@f)$("\${(Q)words[1]}" ${COMPLETE} "\${(@)words[2,CURRENT]}" 2>/dev/null)}")
  found=("\${(@)found:#}")
  if (( \${#found} )); then
    compadd -- "\${found[@]}"
  else
    _files
  fi
}
if [[ "\${zsh_eval_context[-1]}" == loadautofunc ]]; then
  _lockstep "$@"
else
  compdef _lockstep lockstep
fi
`,
};

interface Flag {
  readonly type?: string;
  readonly choices?: readonly string[];
}

/** The flags of each command. */
export type CommandFlags = Readonly<Record<string, Readonly<Record<string, Flag>>>>;

type Values = (typed: string) => readonly string[];

const files: Values = () => [];

/** What the words behind a command can be, beside flags. */
const positionalValues: Readonly<Record<string, readonly Values[]>> = {
  train: [() => presetNames],
  worker: [files],
  model: [() => presetNames],
  bench: [() => presetNames],
  data: [files],
  eval: [runFolders],
  predict: [runFolders, files],
  export: [runFolders],
  report: Array.from({ length: MOST_RUNS }, () => runFolders),
  runs: [files],
  verify: [runFolders],
  setup: [() => setupWhats],
  completion: [() => shells],
};

/** What flags without choices can be. */
const flagValues: Readonly<Record<string, Values>> = {
  resume: runFolders,
  workers: () => ['auto'],
};

/** Candidates for the last of `words`, those behind `lockstep`. */
export function complete(words: readonly string[], commands: CommandFlags): string[] {
  const [command, ...rest] = joinAssignments(words.map(unquoted));
  if (rest.length === 0) {
    const typed = command ?? '';
    return startingWith(typed, typed.startsWith('-') ? ['--help', '--version'] : Object.keys(commands));
  }
  if (!Object.hasOwn(commands, command)) return [];
  const own = commands[command];
  const current = rest.at(-1)!;
  const before = rest.slice(0, -1);

  const [, assigned, typed] = /^--([\w-]+)=(.*)$/s.exec(current) ?? [];
  if (assigned !== undefined) {
    // bash takes what stands behind the = as a word of its own.
    const prefix = words.at(-1) === current ? `--${assigned}=` : '';
    return valuesOf(own, assigned, typed).map(value => `${prefix}${value}`);
  }
  const previous = before.at(-1);
  if (previous !== undefined && takesNextWord(own, previous)) {
    return valuesOf(own, previous.slice(2), current);
  }
  const positionals = before.filter(
    (word, i) => !word.startsWith('-') && !(i > 0 && takesNextWord(own, before[i - 1])),
  );
  if (!current.startsWith('-')) {
    const values = positionalValues[command]?.[positionals.length];
    if (values) return startingWith(current, values(current));
    // Nothing but flags can follow, unless a word has been begun.
    if (current !== '') return [];
  }
  const used = new Set(before.map(word => word.replace(/=.*/s, '')));
  const names = [...Object.keys(own), 'help'].map(name => `--${name}`);
  return startingWith(
    current,
    names.filter(name => !used.has(name)),
  );
}

/** Joins what bash takes apart: `--seed`, `=`, `7`. */
function joinAssignments(words: readonly string[]): string[] {
  const joined: string[] = [];
  for (const [i, word] of words.entries()) {
    const isPart = word === '=' || words[i - 1] === '=';
    if (isPart && joined.at(-1)?.startsWith('--')) joined[joined.length - 1] += word;
    else joined.push(word);
  }
  return joined;
}

/** As the shell will read it, where it is simple to say. */
function unquoted(word: string): string {
  return word.replaceAll(/\\(.)/gs, '$1');
}

function takesNextWord(own: CommandFlags[string], word: string): boolean {
  const name = word.slice(2);
  return word.startsWith('--') && Object.hasOwn(own, name) && own[name].type !== 'boolean';
}

function valuesOf(own: CommandFlags[string], name: string, typed: string): string[] {
  if (!Object.hasOwn(own, name)) return [];
  return startingWith(typed, own[name].choices ?? flagValues[name]?.(typed) ?? []);
}

function startingWith(typed: string, candidates: readonly string[]): string[] {
  return candidates.filter(candidate => candidate.startsWith(typed));
}

/** Runs in this folder, in `runs`, and where the typed path leads. */
function runFolders(typed: string): string[] {
  const parents = new Set(['', 'runs/', typed.slice(0, typed.lastIndexOf('/') + 1)]);
  return [...parents].flatMap(parent =>
    namesIn(parent === '' ? '.' : parent)
      .map(name => `${parent}${name}`)
      .filter(dir => ['config.json', 'hashes.txt'].every(file => existsSync(join(dir, file)))),
  );
}

function namesIn(dir: string): string[] {
  try {
    return readdirSync(dir).toSorted();
  } catch {
    return [];
  }
}

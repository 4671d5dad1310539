// What the layering and the linter cannot forbid, and documents that must agree with the source.

import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { beginning, encodeCheckpoint } from '#dist/coordinator/checkpoint.js';
import { decodeSafetensors } from '#dist/coordinator/safetensors.js';
import * as library from '#dist/library/index.js';
import { errorCodes } from '#dist/shared/errors.js';
import { faultKinds, phases } from '#dist/shared/faults.js';
import { createJob } from '#dist/shared/settings.js';
import { tinyDataset, tinyJob } from './support/tiny.js';

const root = fileURLToPath(new URL('..', import.meta.url));

interface Source {
  readonly name: string;
  readonly text: string;
  /** Without comments. */
  readonly code: string;
}

const sources: Source[] = ['src', 'kernels', 'scripts', 'test', 'bench'].flatMap(dir =>
  readdirSync(join(root, dir), { recursive: true, encoding: 'utf8' })
    .filter(name => /\.(ts|js)$/.test(name))
    .map(name => {
      const text = readFileSync(join(root, dir, name), 'utf8');
      const code = text.replaceAll(/\/\*[^]*?\*\//g, '').replaceAll(/(?<!['":])\/\/.*/g, '');
      return { name: `${dir}/${name.replaceAll('\\', '/')}`, text, code };
    }),
);

interface Ban {
  readonly what: string;
  readonly pattern: RegExp;
  readonly where: (name: string) => boolean;
}

const inSource = (name: string): boolean => name.startsWith('src/');
/** Modules whose results are, or lead to, bits of the weights. */
const decidesBits = (name: string): boolean => /^(src\/shared\/|src\/worker\/|kernels\/)/.test(name);

const bans: Ban[] = [
  {
    what: 'the clock and timers come in by the door, src/shared/clock.ts',
    pattern: /Date\.now|new Date\b|performance\.now|\bset(Timeout|Interval|Immediate)\(/,
    where: name => inSource(name) && name !== 'src/shared/clock.ts',
  },
  {
    what: 'randomness is drawn from src/shared/philox.ts, with a seed; secrets from src/shared/random.ts',
    pattern: /Math\.random|randomBytes|randomUUID|getRandomValues/,
    where: name => name !== 'src/shared/random.ts',
  },
  {
    what: 'built-in functions whose bits differ between engines or processors decide no bits',
    pattern: /Math\.(a?(cos|sin|tan)h?|atan2|exp|expm1|log|log1p|log2|log10|pow|hypot|cbrt)\b|[^*]\*\*(?!\/)/,
    where: decidesBits,
  },
  {
    what: 'relaxed instructions give other bits on other processors',
    pattern: /relaxed/,
    where: name => name.startsWith('kernels/'),
  },
  {
    what: 'only the command line talks to the terminal, reads the environment or ends the process',
    pattern: /console\.|process\.(stdout|stderr|env|exit\b|on\()/,
    where: name =>
      inSource(name) &&
      !name.startsWith('src/cli/') &&
      // It may end itself; and the command line and the library must find the same key, and the same TensorFlow.
      ![
        'src/worker/thread.ts',
        'src/library/listening.ts',
        'src/library/tensorflow.ts',
        'src/library/tensorflow-process.ts',
      ].includes(name),
  },
  {
    what: 'tests wait for events, not for time',
    pattern: /\bset(Timeout|Interval)\(|timers\/promises/,
    where: name => name.startsWith('test/'),
  },
  {
    what: 'unfinished work is written down elsewhere',
    pattern: /\b(TO[D]O|FIX[M]E|HA[C]K)\b/,
    where: () => true,
  },
];

for (const { what, pattern, where } of bans) {
  test(what, () => {
    const offenders = sources.filter(
      ({ name, code }) => where(name) && pattern.test(code) && name !== 'test/tidy.test.ts',
    );
    assert.deepEqual(
      offenders.map(({ name }) => name),
      [],
    );
  });
}

test('every file begins with a line that says what it is for', () => {
  const offenders = sources.filter(({ text }) => !/^(#!.*\n)?\/\/ \S/.test(text));
  assert.deepEqual(
    offenders.map(({ name }) => name),
    [],
  );
});

test('docs/errors.md has every code and no other', () => {
  const documented = readFileSync(join(root, 'docs', 'errors.md'), 'utf8').matchAll(/^## `(LOCKSTEP_\w+)`/gm);
  assert.deepEqual(
    Array.from(documented, match => match[1]).toSorted(),
    [...Object.keys(errorCodes), 'LOCKSTEP_INTERNAL'].toSorted(),
  );
});

test('docs/faults.md has every kind and phase', () => {
  const text = readFileSync(join(root, 'docs', 'faults.md'), 'utf8');
  for (const word of [...faultKinds, ...phases]) assert.match(text, new RegExp(`\`${word}\``));
});

/** What stands between backquotes in the first column of the table whose header begins with `heading`. */
function firstColumn(file: string, heading: string): string[] {
  const text = readFileSync(join(root, 'docs', file), 'utf8');
  const rows = text
    .slice(text.search(new RegExp(`^\\| ${heading} `, 'm')))
    .split('\n\n')[0]
    .split('\n')
    .slice(2);
  return rows.flatMap(row => Array.from(row.split('|')[1].matchAll(/`(\w+)`/g), match => match[1]));
}

test('docs/library.md has every export that is no type and no other', () => {
  assert.deepEqual(firstColumn('library.md', 'export').toSorted(), Object.keys(library).toSorted());
});

test('docs/bits.md has every setting that decides bits and no other', () => {
  const { model, settings } = tinyJob();
  const { bits } = createJob(settings, model, tinyDataset(), 'any', new Float32Array(model.parameterCount));
  assert.deepEqual(firstColumn('bits.md', 'setting').toSorted(), Object.keys(bits).toSorted());
});

test('docs/files.md has every key of the metadata of a checkpoint and no other', () => {
  const job = tinyJob();
  const { metadata } = decodeSafetensors(encodeCheckpoint(job, beginning(job)), 'checkpoint');
  assert.deepEqual(
    firstColumn('files.md', 'metadata key').toSorted(),
    [...Object.keys(metadata), 'sha256'].toSorted(),
  );
});

test('links in the documents lead somewhere', () => {
  const pages = readdirSync(join(root, 'docs')).filter(name => name.endsWith('.md'));
  const broken = ['README.md', ...pages.map(name => `docs/${name}`)].flatMap(page => {
    const links = readFileSync(join(root, page), 'utf8').matchAll(/\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)/g);
    return Array.from(links).flatMap(([link, path, anchor]) => {
      const target = path === '' ? join(root, page) : join(root, dirname(page), path);
      if (!existsSync(target)) return [`${page}: ${link}`];
      return anchor === undefined || anchorsOf(target).includes(anchor) ? [] : [`${page}: ${link}`];
    });
  });
  assert.deepEqual(broken, []);
});

/** As GitHub makes them of headings. */
function anchorsOf(page: string): string[] {
  const headings = readFileSync(page, 'utf8').matchAll(/^#+ (.*)$/gm);
  return Array.from(headings, ([, heading]) =>
    heading
      .toLowerCase()
      .replaceAll(/[^\w -]/g, '')
      .replaceAll(' ', '-'),
  );
}

// The page on the protocol says what the schemas say.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import {
  MOST_FETCHES,
  MOST_PARTS,
  PROTOCOL_VERSION,
  toAgentSchema,
  toCoordinatorSchema,
} from '#dist/shared/messages.js';
import { allMessages } from '../support/messages.js';

const page = readFileSync(new URL('../../docs/protocol.md', import.meta.url), 'utf8');
const schemas = [...toAgentSchema.options, ...toCoordinatorSchema.options];

/** What stands under the heading of a message. */
function section(type: string): string {
  const [, text] = page.split(`\n### \`${type}\`\n`);
  assert.ok(text !== undefined, `docs/protocol.md does not have ${type}`);
  return text.split(/\n##+ /)[0];
}

/** The names of fields in fields; those of a model are in `docs/model.md`. */
function innerKeys(schema: object): string[] {
  const inner: string[] = [];
  if ('entries' in schema && typeof schema.entries === 'object' && schema.entries !== null) {
    for (const [key, value] of Object.entries<object>({ ...schema.entries })) {
      inner.push(key, ...innerKeys(value));
    }
  }
  if ('item' in schema && typeof schema.item === 'object' && schema.item !== null) {
    inner.push(...innerKeys(schema.item));
  }
  return inner;
}

for (const { entries } of schemas) {
  const type = entries.type.literal;
  test(`docs/protocol.md has every field of ${type} and no other`, () => {
    const text = section(type);
    const named = Array.from(text.matchAll(/^\| `(\w+)`/gm), match => match[1]);
    assert.deepEqual(
      named,
      Object.keys(entries).filter(key => key !== 'type'),
    );
    for (const schema of Object.values(entries)) {
      for (const key of innerKeys(schema))
        assert.ok(text.includes(`\`${key}\``), `${type} does not name ${key}`);
    }
  });
}

test('docs/protocol.md has no message that there is not', () => {
  assert.deepEqual(
    Array.from(page.matchAll(/^### `([\w-]+)`$/gm), match => match[1]),
    schemas.map(({ entries }) => entries.type.literal),
  );
});

test('docs/protocol.md names the version and the limits', () => {
  assert.match(page, new RegExp(`This is version ${PROTOCOL_VERSION}\\.`));
  assert.match(page, new RegExp(`At most ${MOST_FETCHES} may be asked for and unanswered`));
  assert.match(page, new RegExp(`up to ${MOST_PARTS} that are not answered`));
});

test('the messages that the codec is tested with are of every type', () => {
  assert.deepEqual(
    allMessages().map(({ type }) => type),
    schemas.map(({ entries }) => entries.type.literal),
  );
});

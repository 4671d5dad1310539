// The join line.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { LockstepError } from '#dist/shared/errors.js';
import { formatJoin, parseJoin } from '#dist/shared/join.js';
import { checkProperty } from '../support/property.js';

const secret = Uint8Array.from({ length: 32 }, (_, i) => 250 - 7 * i);
const secretText = Buffer.from(secret).toString('base64url');
const key = { id: '0123456789abcdef', secret };
const line = `lockstep://0123456789abcdef:${secretText}@example.org:7077`;

test('what is formatted is parsed again, also with quotes and white space around it', () => {
  const noNullPrototype = { noNullPrototype: true };
  const join = fc.record(
    {
      host: fc.oneof(fc.domain(), fc.ipV4(), fc.ipV6(), fc.constantFrom('localhost', 'my_host', '::1')),
      port: fc.integer({ min: 1, max: 65_535 }),
      key: fc.record(
        {
          id: fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }).map(id => id.toString(16).padStart(16, '0')),
          secret: fc.uint8Array({ minLength: 32, maxLength: 32 }).map(bytes => Uint8Array.from(bytes)),
        },
        noNullPrototype,
      ),
      isEncrypted: fc.boolean(),
    },
    noNullPrototype,
  );
  const around = fc.constantFrom('', ' ', "'", '"', ' "', "\t'", '\n', '\r\n');
  checkProperty(
    fc.property(join, around, around, (value, before, after) => {
      assert.deepEqual(parseJoin(before + formatJoin(value) + after), value);
    }),
    { runs: 500 },
  );
});

test('the line looks as it is documented', () => {
  const join = { host: 'example.org', port: 7077, key, isEncrypted: true };
  assert.equal(formatJoin(join), line);
  assert.equal(
    formatJoin({ ...join, host: '::1', isEncrypted: false }),
    `lockstep-insecure://0123456789abcdef:${secretText}@[::1]:7077`,
  );
});

const change = (from: string | RegExp, to: string): string => line.replace(from, to);
const malformed: [string, RegExp][] = [
  ['', /empty/],
  [" '' ", /empty/],
  [`${line.slice(0, 40)} ${line.slice(40)}`, /white space/],
  [`${line.slice(0, 40)}\n${line.slice(40)}`, /white space/],
  [line.slice(5), /does not begin/],
  [change('lockstep', 'https'), /does not begin/],
  [change('lockstep', 'lockstep-secure'), /does not begin/],
  [line.slice(0, 60), /no @/],
  [change('0123456789abcdef', '0123'), /key id/],
  [change('0123456789abcdef', '0123456789ABCDEF'), /key id/],
  [change(`:${secretText}`, ''), /key is not/],
  [change(secretText, `${secretText}:`), /key is not/],
  [change(secretText, ''), /secret/],
  [change(secretText, secretText.slice(1)), /secret/],
  [change(secretText, `${secretText}A`), /secret/],
  [change(secretText, `${secretText.slice(1)}+`), /secret/],
  [change(secretText, `${secretText}=`), /secret/],
  [change(secretText, `${secretText.slice(0, -1)}B`), /secret/],
  [change(':7077', ''), /port/],
  [change('7077', '0'), /port/],
  [change('7077', '65536'), /port/],
  [change('7077', '7e3'), /address/],
  [change('7077', '-1'), /address/],
  [change('7077', '7077/path'), /address/],
  [change('example.org', ''), /host/],
  [change('example.org', 'a/b'), /host/],
  [change('example.org', '::1'), /address/],
  [change('example.org', '[::g]'), /IPv6/],
  [change('example.org', '[]'), /IPv6/],
  [change('example.org', '[1.2.3.4]'), /IPv6/],
];

test('a malformed line is refused with what is wrong, and without what it holds', () => {
  for (const [text, reason] of malformed) {
    assert.throws(
      () => parseJoin(text),
      (error: unknown) => {
        assert.ok(error instanceof LockstepError, text);
        assert.equal(error.code, 'LOCKSTEP_JOIN_LINE');
        assert.match(error.message, reason, text);
        for (let at = 0; at + 6 <= secretText.length; at++) {
          assert.ok(!error.message.includes(secretText.slice(at, at + 6)), error.message);
        }
        return true;
      },
      text,
    );
  }
});

test('no line brings anything but a join or the code', () => {
  const pieces = fc.array(fc.oneof(fc.string(), fc.constantFrom('lockstep://', ':', '@', '[', ']', line)));
  checkProperty(
    fc.property(pieces, parts => {
      try {
        parseJoin(parts.join(''));
      } catch (error) {
        assert.ok(error instanceof LockstepError && error.code === 'LOCKSTEP_JOIN_LINE');
      }
    }),
    { runs: 1000 },
  );
});

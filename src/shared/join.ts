// The join line: everything an agent needs to reach and to convince a coordinator, in one word to paste.

import { isIPv6 } from 'node:net';
import { LockstepError } from './errors.js';
import { formatAddress, SECRET_BYTES } from './handshake.js';
import { hex64 } from './hash.js';

/** A key that both sides share. */
export interface Key {
  /** Public: 16 hexadecimal digits. */
  readonly id: string;
  /** `SECRET_BYTES`. */
  readonly secret: Uint8Array;
}

export interface Join {
  readonly host: string;
  readonly port: number;
  readonly key: Key;
  /** Whether the connection is encrypted; where not, the key is proved by an HMAC. */
  readonly isEncrypted: boolean;
}

const ENCRYPTED = 'lockstep';
const INSECURE = 'lockstep-insecure';

/** Holds the secret: for the terminal, the `listening` event and `--join-file`, and nowhere else. */
export function formatJoin({ host, port, key, isEncrypted }: Join): string {
  const scheme = isEncrypted ? ENCRYPTED : INSECURE;
  const secret = Buffer.from(key.secret).toString('base64url');
  return `${scheme}://${key.id}:${secret}@${formatAddress(host, port)}`;
}

/**
 * Takes a line as it is pasted, also with white space or quotes around it.
 * @throws LOCKSTEP_JOIN_LINE, saying what is wrong without a word of the line, which may hold the secret
 */
export function parseJoin(line: string): Join {
  const word = line.replaceAll(/^[\s'"`]+|[\s'"`]+$/g, '');
  if (word === '') fail('it is empty');
  if (/\s/.test(word)) fail('there is white space inside it');
  const scheme = /^([a-z-]+):\/\//.exec(word)?.[1];
  if (scheme !== ENCRYPTED && scheme !== INSECURE) {
    fail(`it does not begin with ${ENCRYPTED}:// or ${INSECURE}://`);
  }
  const rest = word.slice(`${scheme}://`.length);
  const split = rest.indexOf('@');
  if (split < 0) fail('it has no @ between key and address; its end or its beginning is missing');

  const [id, secretText, ...more] = rest.slice(0, split).split(':');
  if (!hex64.test(id)) fail('its key id is not of 16 hexadecimal digits');
  if (secretText === undefined || more.length > 0) fail('its key is not an id, a colon and a secret');
  const secret = new Uint8Array(Buffer.from(secretText, 'base64url'));
  // Node's decoder skips what it does not know, and a last character has bits that count for nothing.
  if (secret.length !== SECRET_BYTES || Buffer.from(secret).toString('base64url') !== secretText) {
    fail('its secret is not 32 bytes in base64url, 43 characters');
  }

  const address = /^(?:\[([^\]]*)\]|([^:[\]]*))(?::(\d+))?$/.exec(rest.slice(split + 1));
  if (address === null) fail('its address is not host:port, or [host]:port for an IPv6 host');
  const [, bracketed, plain, portText] = address;
  if (bracketed !== undefined && (!isIPv6(bracketed) || bracketed.includes('%')))
    fail('what is in brackets is no IPv6 address');
  const host = bracketed ?? plain;
  if (bracketed === undefined && !/^[\w.-]+$/.test(host)) fail('its host is no name and no address');
  const port = Number(portText);
  if (!(port >= 1 && port <= 65_535)) fail('its port is not from 1 to 65535');
  return { host, port, key: { id, secret }, isEncrypted: scheme === ENCRYPTED };
}

function fail(what: string): never {
  throw new LockstepError(
    'LOCKSTEP_JOIN_LINE',
    `This is not a join line: ${what}. Copy the whole line that the coordinator printed, in single quotes.`,
  );
}

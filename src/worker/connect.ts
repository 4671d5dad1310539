// The agent's way in: one attempt to reach the coordinator of a join line and to prove the key to it.

import { Agent, get, type IncomingMessage } from 'node:http';
import { isIP, type Socket } from 'node:net';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import { WebSocket, type ClientOptions } from 'ws';
import type { Clock } from '../shared/clock.js';
import type { Connection } from '../shared/connection.js';
import { LockstepError, messageOf } from '../shared/errors.js';
import {
  formatAddress,
  formatIdentity,
  headers,
  isHex256,
  isProof,
  NONCE_BYTES,
  proofOf,
  SUBPROTOCOL,
  TLS_CIPHER,
  TLS_VERSION,
  type Exchange,
} from '../shared/handshake.js';
import type { Join } from '../shared/join.js';
import type { RandomBytes } from '../shared/random.js';
import { connectionOf, socketOptions, type SocketLimits } from '../shared/socket.js';

export interface ConnectOptions extends SocketLimits {
  /** 16 hexadecimal digits; the same whenever this node connects. */
  readonly nodeId: string;
  /** For all of it. */
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
  readonly clock: Clock;
  readonly random: RandomBytes;
}

/**
 * Connects once. Trouble with the network is an ordinary Error with a short text: try again later.
 * @throws LOCKSTEP_KEY where the coordinator refuses the key. Whoever can change bytes on the way can cause that too, and
 * so can a network that damages them: believe it when it has come three times in a row.
 * @throws LOCKSTEP_PROTOCOL_VERSION
 * @throws the signal's reason once it is aborted
 */
export async function connect(join: Join, options: ConnectOptions): Promise<Connection> {
  const { signal, clock, timeoutMs } = options;
  signal?.throwIfAborted();
  const ending = new AbortController();
  const abort = (): void => ending.abort(signal!.reason);
  signal?.addEventListener('abort', abort);
  const at = formatAddress(join.host, join.port);
  const cancelTimeout = clock.after(timeoutMs, () =>
    ending.abort(new Error(`${at} has not answered within ${timeoutMs / 1000} s`)),
  );
  try {
    return join.isEncrypted
      ? await connectEncrypted(join, options, ending.signal)
      : await connectInsecure(join, options, ending.signal);
  } finally {
    cancelTimeout();
    signal?.removeEventListener('abort', abort);
  }
}

async function connectEncrypted(
  join: Join,
  options: ConnectOptions,
  ending: AbortSignal,
): Promise<Connection> {
  const socket = await openTls(join, options.nodeId, ending);
  const way = { createConnection: () => socket, generateMask: zeroMask };
  return upgrade(join, options, ending, way, () => {});
}

/** Masks keep old proxies from misreading plain bytes; nobody reads these, and a mask costs time. */
function zeroMask(mask: Buffer): void {
  mask.fill(0);
}

/** Only a TLS connection that the pre-shared key has made is given back. */
function openTls({ host, port, key }: Join, nodeId: string, ending: AbortSignal): Promise<TLSSocket> {
  const socket = connectTls({
    host,
    port,
    pskCallback: () => ({ psk: key.secret, identity: formatIdentity({ keyId: key.id, nodeId }) }),
    ciphers: TLS_CIPHER,
    minVersion: TLS_VERSION,
    // In a higher version a certificate would do, and anybody may have one that is trusted.
    maxVersion: TLS_VERSION,
    // There is no certificate.
    checkServerIdentity: () => undefined,
  });
  return until(
    ending,
    () => socket.destroy(),
    (resolve, reject) => {
      socket.on('error', error =>
        reject(isKeyAlert(error) ? keyError(host, port) : troubleOf(error, host, port)),
      );
      socket.on('close', () => reject(new Error(`${formatAddress(host, port)} broke the connection off`)));
      socket.on('secureConnect', () => {
        if (socket.getCipher().name.startsWith('ECDHE-PSK')) resolve(socket);
        else reject(new Error(`${formatAddress(host, port)} does not prove that it knows the key`));
      });
    },
  );
}

/**
 * What a coordinator says that cannot read the end of the handshake, which is encrypted with the key. Measured on Node
 * 20 and 26: the names differ before `ALERT`. Trouble on this side has names without that word.
 */
function isKeyAlert(error: Error): boolean {
  return 'code' in error && /ALERT_(BAD_RECORD_MAC|DECRYPT_ERROR)$/.test(String(error.code));
}

async function connectInsecure(
  join: Join,
  options: ConnectOptions,
  ending: AbortSignal,
): Promise<Connection> {
  const { host, port, key } = join;
  // The nonce is good for the connection that it came by.
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  try {
    const coordinatorNonce = await askNonce(join, agent, ending);
    const exchange: Exchange = {
      coordinatorNonce,
      agentNonce: Buffer.from(options.random(NONCE_BYTES)).toString('hex'),
      identity: formatIdentity({ keyId: key.id, nodeId: options.nodeId }),
    };
    const proof = {
      [headers.identity]: exchange.identity,
      [headers.nonce]: exchange.agentNonce,
      [headers.proof]: proofOf(key.secret, 'agent', exchange),
    };
    return await upgrade(join, options, ending, { agent, headers: proof }, response => {
      if (!isProof(response.headers[headers.proof], key.secret, 'coordinator', exchange))
        throw new Error(`${formatAddress(host, port)} does not prove that it knows the key`);
    });
  } finally {
    agent.destroy();
  }
}

function askNonce({ host, port }: Join, agent: Agent, ending: AbortSignal): Promise<string> {
  const request = get({ host, port, agent, path: '/' });
  return until(
    ending,
    () => request.destroy(),
    (resolve, reject) => {
      request.on('error', error => reject(troubleOf(error, host, port)));
      request.on('response', response => {
        const nonce = response.headers[headers.nonce];
        if (response.statusCode !== 401 || !isHex256(nonce)) {
          reject(notCoordinator(host, port));
          return;
        }
        response.on('end', () => resolve(nonce));
        response.on('error', error => reject(troubleOf(error, host, port)));
        response.resume();
      });
    },
  );
}

/** `check` throws where the coordinator's consent does not hold. */
function upgrade(
  { host, port, isEncrypted }: Join,
  options: ConnectOptions,
  ending: AbortSignal,
  way: ClientOptions,
  check: (response: IncomingMessage) => void,
): Promise<Connection> {
  const at = formatAddress(host, port);
  const socket = new WebSocket(`${isEncrypted ? 'wss' : 'ws'}://${at}/`, SUBPROTOCOL, {
    ...socketOptions(options),
    ...way,
  });
  let stream: Socket;
  return until(
    ending,
    () => socket.terminate(),
    (resolve, reject) => {
      socket.on('error', error => reject(troubleOf(error, host, port)));
      socket.on('unexpected-response', (_, response) => reject(refusalOf(response, host, port)));
      socket.on('upgrade', response => {
        stream = response.socket;
        try {
          check(response);
          if (response.headers['sec-websocket-protocol'] !== SUBPROTOCOL) throw versionError(host, port);
        } catch (error) {
          reject(error);
        }
      });
      socket.on('open', () => {
        const { maxFrameBytes, mostBufferedBytes } = options;
        resolve(connectionOf(socket, stream, { maxFrameBytes, mostBufferedBytes, peer: at }));
      });
    },
  );
}

/** A promise that `ending` rejects too; whoever rejects it, what was begun is destroyed, at once. */
function until<T>(
  ending: AbortSignal,
  destroy: () => void,
  start: (resolve: (value: T) => void, reject: (error: unknown) => void) => void,
): Promise<T> {
  return new Promise((resolve, reject) => {
    let isSettled = false;
    const settle = (): boolean => {
      if (isSettled) return false;
      isSettled = true;
      ending.removeEventListener('abort', abort);
      return true;
    };
    const fail = (error: unknown): void => {
      if (!settle()) return;
      reject(error);
      destroy();
    };
    const abort = (): void => fail(ending.reason);
    ending.addEventListener('abort', abort);
    start(value => {
      if (settle()) resolve(value);
    }, fail);
    if (ending.aborted) abort();
  });
}

/** The answer to an upgrade request that was not granted. */
function refusalOf(
  { headers: { [headers.refusal]: refusal }, statusCode }: IncomingMessage,
  host: string,
  port: number,
) {
  switch (refusal) {
    case 'key':
      return keyError(host, port);
    case 'protocol':
      return versionError(host, port);
    case 'connections':
      return new Error(`${formatAddress(host, port)} has as many connections as it takes`);
    case 'host':
      return new Error(`${formatAddress(host, port)} does not know itself by the name ${host}`);
    case undefined:
      return notCoordinator(host, port);
    default:
      return new Error(`${formatAddress(host, port)} refuses the connection (${statusCode})`);
  }
}

function keyError(host: string, port: number): LockstepError {
  return new LockstepError(
    'LOCKSTEP_KEY',
    `${formatAddress(host, port)} refuses the key of the join line: it is the key of another run, or was not copied ` +
      'whole. Copy the line again that the coordinator printed.',
  );
}

function versionError(host: string, port: number): LockstepError {
  return new LockstepError(
    'LOCKSTEP_PROTOCOL_VERSION',
    `${formatAddress(host, port)} does not speak ${SUBPROTOCOL}. Install the same version of Lockstep on both machines.`,
  );
}

function notCoordinator(host: string, port: number): Error {
  return new Error(`${formatAddress(host, port)} answers, but not as the coordinator of this join line`);
}

/** What an error of the network means, in a few words. */
function troubleOf(error: Error, host: string, port: number): Error {
  const code = 'code' in error ? String(error.code) : '';
  const at = formatAddress(host, port);
  const say = (text: string): Error => new Error(text, { cause: error });
  switch (code) {
    case 'ECONNREFUSED':
      return say(`nobody listens at ${at}`);
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return say(`the name ${host} leads to no address`);
    case 'EHOSTUNREACH':
    case 'ENETUNREACH':
      return say(`there is no way to ${isIP(host) ? at : host}`);
    case 'ETIMEDOUT':
      return say(`${at} does not answer`);
    case 'ECONNRESET':
    case 'EPIPE':
      return say(`${at} broke the connection off`);
    default:
      // OpenSSL's own texts, and the HTTP parser's: whatever is there, it is no coordinator of ours.
      if (/^(ERR_SSL|HPE)_/.test(code))
        return say(`${at} answers, but not as the coordinator of this join line`);
      return say(`${at}: ${messageOf(error)}`);
  }
}

// The coordinator's door: lets those in who prove the key, within limits, and counts whom it turned away.
//
// A guest waits until it has proved the key, by TLS-PSK or by an HMAC, and its upgrade to WebSocket was granted. All of
// that has one deadline. Only so many may wait: who has waited longest makes room for the next, so that sockets that say
// nothing cannot keep an agent out.

import { createServer as createHttpServer, STATUS_CODES, type IncomingMessage, type Server } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import { isIP, Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { constants } from 'node:crypto';
import { WebSocketServer } from 'ws';
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
  parseIdentity,
  proofOf,
  SECRET_BYTES,
  SUBPROTOCOL,
  TLS_CIPHER,
  TLS_VERSION,
  type Exchange,
} from '../shared/handshake.js';
import type { Key } from '../shared/join.js';
import type { RandomBytes } from '../shared/random.js';
import { connectionOf, socketOptions, type Offence, type SocketLimits } from '../shared/socket.js';

export interface DoorLimits {
  /** From the first packet to the granted upgrade. An agent takes three round trips and some 10 ms of computing. */
  readonly handshakeMs: number;
  /** That have proved the key. Some 70 KiB each, without what they are sent. */
  readonly connections: number;
  /** That have not, yet. Some 70 KiB each; agents that all start at once come again. */
  readonly waiting: number;
  /** Of a request; ours have less than 1 KiB. */
  readonly headerBytes: number;
}

const defaultLimits: DoorLimits = {
  handshakeMs: 10_000,
  connections: 1024,
  waiting: 64,
  headerBytes: 4096,
};

/** Why somebody was turned away before it was let in. */
type Refusal =
  /** The handshake took too long. */
  | 'handshake-time'
  /** Others came while it waited, and it had waited longest. */
  | 'waiting'
  /** It proved the key, but there is no room. */
  | 'connections'
  /** It went before it was let in. */
  | 'left'
  /** No TLS handshake of ours. */
  | 'tls'
  /** No HTTP request. */
  | 'http'
  /** A request that asks for something else than ours do. */
  | 'request'
  /** A browser sent it. */
  | 'origin'
  /** It asked for another host. */
  | 'host'
  /** An unknown key id or a wrong secret. */
  | 'key'
  /** It speaks another version of the protocol. */
  | 'protocol';

/** Why a connection was refused, or cut later. */
export type RefusalReason = Refusal | Offence;

export interface DoorOptions extends SocketLimits {
  readonly host: string;
  /** 0: any that is free. */
  readonly port: number;
  readonly key: Key;
  /** Nothing is encrypted. */
  readonly isInsecure: boolean;
  /** Names by which the coordinator is reached, besides IP addresses, `localhost` and `host`. Without TLS only. */
  readonly names?: readonly string[];
  readonly limits?: Partial<DoorLimits>;
  readonly clock: Clock;
  readonly random: RandomBytes;
  /** `nodeId` has 16 hexadecimal digits; a node that comes again has the same. */
  onConnection(this: void, connection: Connection, nodeId: string): void;
  /** May be called thousands of times a second. */
  onRefused?(this: void, reason: RefusalReason, peer: string): void;
}

export interface Door {
  readonly address: { readonly host: string; readonly port: number };
  /** How many were refused, or cut later, by reason. */
  readonly refusals: ReadonlyMap<RefusalReason, number>;
  /** Ends all connections, which takes up to two seconds where the other side does not answer, and stops listening. */
  close(): Promise<void>;
}

/**
 * Listens, until it is closed.
 * @throws LOCKSTEP_LISTEN
 */
export async function startServer(options: DoorOptions): Promise<Door> {
  const door = new SocketDoor(options);
  await door.listen();
  return door;
}

interface Guest {
  readonly socket: Socket;
  readonly peer: string;
  readonly cancelDeadline: () => void;
  /** Given out, and not used yet. One in the life of a connection. */
  nonce?: string;
  wasChallenged: boolean;
  /** The TLS handshake got as far as the key. */
  namedKey: boolean;
  isRefused: boolean;
  connection?: Connection;
}

/** What an upgrade request was found to be. */
type Verdict = { refusal: Refusal; status: number } | { nodeId: string; proof?: string };

class SocketDoor implements Door {
  readonly refusals = new Map<RefusalReason, number>();
  address = { host: '', port: 0 };
  readonly #options: DoorOptions;
  readonly #limits: DoorLimits;
  readonly #server: Server;
  readonly #upgrades: WebSocketServer;
  /** By the four numbers that make a TCP connection, which is what its socket and the TLS socket over it share. */
  readonly #guests = new Map<string, Guest>();
  /** Those not let in yet, the one first that has waited longest. */
  readonly #waiting = new Set<Guest>();
  /** What each TLS handshake names. */
  readonly #identities = new WeakMap<Duplex, string>();
  /** Of the answers to upgrade requests that are being granted. */
  readonly #proofs = new WeakMap<IncomingMessage, string>();
  /** Let in, and not ended. */
  #connections = 0;
  #closed: Promise<void> | undefined;

  constructor(options: DoorOptions) {
    this.#options = options;
    this.#limits = { ...defaultLimits, ...options.limits };
    this.#upgrades = new WebSocketServer({
      noServer: true,
      clientTracking: false,
      ...socketOptions(options),
    });
    this.#upgrades.on('headers', (lines, request) => {
      const proof = this.#proofs.get(request);
      if (proof !== undefined) lines.push(`${headers.proof}: ${proof}`);
    });
    this.#upgrades.on('wsClientError', (_, socket, request) => {
      const guest = this.#guestOf(request.socket);
      if (guest) this.#refuse(guest, 'request');
      answer(socket, 400);
    });
    this.#server = this.#createServer();
    this.#server.on('connection', socket => this.#admit(socket));
    this.#server.on('request', (request, response) => {
      const guest = this.#guestOf(request.socket);
      const refusal = guest === undefined ? 'request' : this.#challenge(guest, request);
      if (refusal === undefined) {
        response.writeHead(401, { [headers.nonce]: guest!.nonce, 'content-length': 0 }).end();
        return;
      }
      if (guest) this.#refuse(guest, refusal);
      response.writeHead(426, { connection: 'close', 'content-length': 0, upgrade: 'websocket' }).end();
      response.on('finish', () => request.socket.destroy());
    });
    this.#server.on('upgrade', (request, socket, head) => this.#upgrade(request, socket, head));
    // Otherwise `CONNECT` and `Expect` would be answered by Node, and not counted.
    for (const event of ['connect', 'checkContinue', 'checkExpectation']) {
      this.#server.on(event, ({ socket }: IncomingMessage) => this.#turnAway(socket, 'request'));
    }
    this.#server.on('clientError', (_, socket) => {
      this.#turnAway(socket, options.isInsecure ? 'http' : 'tls');
    });
  }

  async listen(): Promise<void> {
    const { host, port } = this.#options;
    try {
      await new Promise<void>((resolve, reject) => {
        this.#server.once('error', reject);
        this.#server.listen({ host, port }, () => resolve());
      });
    } catch (cause) {
      throw listenError(host, port, cause);
    }
    const bound = this.#server.address();
    if (bound !== null && typeof bound === 'object') this.address = { host: bound.address, port: bound.port };
    // Whatever goes wrong with a single connection from here on is that connection's matter.
    this.#server.on('error', () => {});
  }

  async close(): Promise<void> {
    if (!this.#closed) {
      this.#closed = new Promise(resolve => this.#server.close(() => resolve()));
      for (const { connection, socket } of this.#guests.values()) {
        if (connection) connection.close('the coordinator ends');
        else socket.destroy();
      }
    }
    return this.#closed;
  }

  #createServer(): Server {
    const { key, isInsecure, random } = this.#options;
    // The deadline of the handshake is ours, on our clock.
    const limits = {
      maxHeaderSize: this.#limits.headerBytes,
      keepAliveTimeout: 0,
      headersTimeout: 0,
      requestTimeout: 0,
    };
    if (isInsecure) return createHttpServer(limits);
    const server = createHttpsServer({
      ...limits,
      pskCallback: (socket, identity) => {
        this.#identities.set(socket, identity);
        const guest = this.#guestOf(socket);
        if (guest) guest.namedKey = true;
        // An unknown id fails where a wrong secret does.
        return parseIdentity(identity)?.keyId === key.id ? key.secret : random(SECRET_BYTES);
      },
      ciphers: TLS_CIPHER,
      maxVersion: TLS_VERSION,
      // With a ticket, a key that is no longer valid would go on to work; a second handshake costs computing.
      secureOptions: constants.SSL_OP_NO_TICKET | constants.SSL_OP_NO_RENEGOTIATION,
    });
    return server;
  }

  #admit(socket: Socket): void {
    socket.on('error', () => {});
    const id = idOf(socket);
    if (id === undefined || this.#guests.has(id) || this.#closed) {
      socket.destroy();
      return;
    }
    const guest: Guest = {
      socket,
      peer: formatAddress(plain(socket.remoteAddress!), socket.remotePort!),
      cancelDeadline: this.#options.clock.after(this.#limits.handshakeMs, () =>
        this.#drop(guest, 'handshake-time'),
      ),
      wasChallenged: false,
      namedKey: false,
      isRefused: false,
    };
    if (this.#waiting.size >= this.#limits.waiting) {
      const [longest] = this.#waiting;
      this.#drop(longest, 'waiting');
    }
    this.#guests.set(id, guest);
    this.#waiting.add(guest);
    socket.once('close', () => {
      this.#guests.delete(id);
      if (guest.connection) this.#connections--;
      if (this.#endWaiting(guest) && !this.#closed) this.#refuse(guest, 'left');
    });
  }

  #guestOf(socket: Duplex): Guest | undefined {
    const id = socket instanceof Socket ? idOf(socket) : undefined;
    return id === undefined ? undefined : this.#guests.get(id);
  }

  /** Whether it was still waiting. */
  #endWaiting(guest: Guest): boolean {
    guest.cancelDeadline();
    return this.#waiting.delete(guest);
  }

  /** Gives the guest of a plain request its nonce, or says why not. */
  #challenge(guest: Guest, request: IncomingMessage): Refusal | undefined {
    const { isInsecure, random } = this.#options;
    const hasBody = 'content-length' in request.headers || 'transfer-encoding' in request.headers;
    if (!isInsecure || guest.wasChallenged || request.method !== 'GET' || hasBody) return 'request';
    const refusal = this.#originOrHost(request);
    if (refusal || request.url !== '/') return refusal ?? 'request';
    guest.wasChallenged = true;
    guest.nonce = Buffer.from(random(NONCE_BYTES)).toString('hex');
    return undefined;
  }

  #upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    socket.on('error', () => {});
    const guest = this.#guestOf(socket);
    if (!guest || guest.isRefused) {
      socket.destroy();
      return;
    }
    const verdict = this.#judge(guest, request);
    if ('refusal' in verdict) {
      this.#refuse(guest, verdict.refusal);
      answer(socket, verdict.status, verdict.refusal);
      return;
    }
    if (verdict.proof !== undefined) this.#proofs.set(request, verdict.proof);
    this.#upgrades.handleUpgrade(request, socket, head, webSocket => {
      this.#endWaiting(guest);
      this.#connections++;
      const { peer } = guest;
      const { maxFrameBytes, mostBufferedBytes } = this.#options;
      const onOffence = (offence: Offence): void => this.#count(offence, peer);
      guest.connection = connectionOf(webSocket, request.socket, {
        maxFrameBytes,
        mostBufferedBytes,
        peer,
        onOffence,
      });
      this.#options.onConnection(guest.connection, verdict.nodeId);
    });
  }

  #judge(guest: Guest, request: IncomingMessage): Verdict {
    const refusal = this.#originOrHost(request);
    if (refusal) return { refusal, status: 403 };
    if (request.url !== '/') return { refusal: 'request', status: 404 };
    // Before the proof, which is of the version too: another one would seem to be a wrong key.
    if (request.headers['sec-websocket-protocol'] !== SUBPROTOCOL)
      return { refusal: 'protocol', status: 400 };
    const proved = this.#options.isInsecure ? this.#judgeProof(guest, request) : this.#judgeTls(request);
    if ('refusal' in proved) return proved;
    if (this.#connections >= this.#limits.connections) return { refusal: 'connections', status: 503 };
    return proved;
  }

  #judgeTls({ socket }: IncomingMessage): Verdict {
    const identity = parseIdentity(this.#identities.get(socket) ?? '');
    return identity ? { nodeId: identity.nodeId } : { refusal: 'key', status: 403 };
  }

  #judgeProof(guest: Guest, request: IncomingMessage): Verdict {
    const { key, random } = this.#options;
    const {
      [headers.identity]: identity,
      [headers.nonce]: agentNonce,
      [headers.proof]: proof,
    } = request.headers;
    const coordinatorNonce = guest.nonce;
    delete guest.nonce;
    if (coordinatorNonce === undefined) return { refusal: 'request', status: 401 };
    const parsed = typeof identity === 'string' ? parseIdentity(identity) : undefined;
    if (!parsed || !isHex256(agentNonce)) return { refusal: 'request', status: 400 };
    const exchange: Exchange = { coordinatorNonce, agentNonce, identity: formatIdentity(parsed) };
    const secret = parsed.keyId === key.id ? key.secret : random(SECRET_BYTES);
    if (!isProof(proof, secret, 'agent', exchange)) return { refusal: 'key', status: 403 };
    return { nodeId: parsed.nodeId, proof: proofOf(secret, 'coordinator', exchange) };
  }

  /**
   * A browser names the page that a request is from; ours do not. A page that has its own name lead to this machine
   * would be betrayed by that name.
   */
  #originOrHost({ headers: { origin, host = '' } }: IncomingMessage): Refusal | undefined {
    if (origin !== undefined) return 'origin';
    if (!this.#options.isInsecure) return undefined;
    const name = host.replace(/:\d+$/, '').replace(/^\[(.*)\]$/, '$1');
    const names = ['localhost', this.#options.host, ...(this.#options.names ?? [])];
    const isKnown = names.some(known => known.toLowerCase() === name.toLowerCase());
    return isIP(name) !== 0 || isKnown ? undefined : 'host';
  }

  #turnAway(socket: Duplex, refusal: Refusal): void {
    const guest = this.#guestOf(socket);
    if (guest) this.#refuse(guest, guest.namedKey && refusal === 'tls' ? 'key' : refusal);
    socket.destroy();
  }

  #drop(guest: Guest, refusal: Refusal): void {
    this.#refuse(guest, refusal);
    this.#endWaiting(guest);
    guest.socket.destroy();
  }

  /** Counts it, once. */
  #refuse(guest: Guest, refusal: Refusal): void {
    if (guest.isRefused || guest.connection) return;
    guest.isRefused = true;
    this.#count(refusal, guest.peer);
  }

  #count(reason: RefusalReason, peer: string): void {
    this.refusals.set(reason, (this.refusals.get(reason) ?? 0) + 1);
    this.#options.onRefused?.(reason, peer);
  }
}

function idOf({ localAddress, localPort, remoteAddress, remotePort }: Socket): string | undefined {
  if (remoteAddress === undefined || remotePort === undefined) return undefined;
  return `${localAddress} ${localPort} ${remoteAddress} ${remotePort}`;
}

/** An IPv4 address that came in by an IPv6 socket, as everybody writes it. */
function plain(address: string): string {
  return address.replace(/^::ffff:(?=\d+\.)/, '');
}

/** To an upgrade request that is not granted; the connection ends with it. */
function answer(socket: Duplex, status: number, refusal?: Refusal): void {
  const lines = [
    `HTTP/1.1 ${status} ${STATUS_CODES[status]}`,
    'connection: close',
    'content-length: 0',
    ...(refusal === undefined ? [] : [`${headers.refusal}: ${refusal}`]),
  ];
  socket.end(`${lines.join('\r\n')}\r\n\r\n`, () => socket.destroy());
}

function listenError(host: string, port: number, cause: unknown): LockstepError {
  const code = cause instanceof Error && 'code' in cause ? cause.code : undefined;
  const at = formatAddress(host, port);
  const fail = (what: string): LockstepError =>
    new LockstepError('LOCKSTEP_LISTEN', `Cannot listen on ${at}: ${what}`, { cause });
  switch (code) {
    case 'EADDRINUSE':
      return fail('another program does. End it, or choose another port; port 0 takes any that is free.');
    case 'EACCES':
      return fail('the system does not allow it. Ports below 1024 are reserved: choose a higher one.');
    case 'EADDRNOTAVAIL':
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
    case 'EINVAL':
      return fail(`${host} is no address of this machine. 0.0.0.0 means all that it has.`);
    default:
      return fail(`${messageOf(cause)}. Choose another address.`);
  }
}

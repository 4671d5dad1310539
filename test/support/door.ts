// A coordinator's door on a port of its own, a clock that stands still, and what arrives there.

import { EventEmitter, once } from 'node:events';
import { connect as connectSocket, createServer, type Server, type Socket } from 'node:net';
import type { TestContext } from 'node:test';
import { startServer, type Door, type DoorOptions, type RefusalReason } from '#dist/coordinator/server.js';
import type { Clock } from '#dist/shared/clock.js';
import type { Connection } from '#dist/shared/connection.js';
import type { Join, Key } from '#dist/shared/join.js';
import type { RandomBytes } from '#dist/shared/random.js';
import { connect, type ConnectOptions } from '#dist/worker/connect.js';
import { Random } from './random.js';

const bytes = new Random('secrets of tests');
export const seededBytes: RandomBytes = sizeBytes =>
  Uint8Array.from({ length: sizeBytes }, () => bytes.integer(256));

export const NODE_ID = '0123456789abcdef';

export class StandingClock implements Clock {
  readonly #timers = new Set<{ atMs: number; action: () => void }>();
  readonly #events = new EventEmitter();
  #nowMs = 0;

  nowMs(): number {
    return this.#nowMs;
  }

  every(): () => void {
    throw new Error('not needed here');
  }

  after(delayMs: number, action: () => void): () => void {
    const timer = { atMs: this.#nowMs + delayMs, action };
    this.#timers.add(timer);
    this.#events.emit('timers');
    return () => {
      this.#timers.delete(timer);
      this.#events.emit('timers');
    };
  }

  advance(ms: number): void {
    this.#nowMs += ms;
    for (const timer of this.#timers) {
      if (timer.atMs > this.#nowMs || !this.#timers.delete(timer)) continue;
      timer.action();
    }
  }

  /** Once so many timers run. */
  async waitForTimers(count: number): Promise<void> {
    while (this.#timers.size !== count) await once(this.#events, 'timers');
  }
}

export interface OpenDoor extends Door {
  readonly key: Key;
  readonly join: Join;
  readonly clock: StandingClock;
  /** A connection from both of its ends. */
  enter(
    options?: Partial<ConnectOptions>,
    way?: Partial<Join>,
  ): Promise<{ agent: Connection; coordinator: Connection; nodeId: string }>;
  /** Once so many have been refused for one of these reasons. */
  refused(count: number, ...reasons: RefusalReason[]): Promise<void>;
}

/** Closed at the test's end. */
export async function openDoor(
  context: TestContext,
  { isInsecure = false, ...options }: Partial<DoorOptions> = {},
): Promise<OpenDoor> {
  const events = new EventEmitter();
  events.setMaxListeners(0);
  const clock = new StandingClock();
  const key = { id: 'fedcba9876543210', secret: seededBytes(32) };
  const door = await startServer({
    host: '127.0.0.1',
    port: 0,
    key,
    isInsecure,
    maxFrameBytes: 8_000_000,
    clock,
    random: seededBytes,
    onConnection(connection, nodeId) {
      if (events.emit('connection', connection, nodeId)) return;
      // Nobody waits for it, and it has to be read.
      connection.onFrame = () => {};
    },
    onRefused: () => void events.emit('refused'),
    ...options,
  });
  const agents: Connection[] = [];
  context.after(() => {
    // One that is not read would have the door wait for its answer.
    for (const agent of agents) agent.destroy('the test ends');
    return door.close();
  });
  const join: Join = { ...door.address, key, isEncrypted: !isInsecure };
  return {
    address: door.address,
    refusals: door.refusals,
    close: () => door.close(),
    key,
    join,
    clock,
    async enter(more, way) {
      const arrival = new Promise<{ coordinator: Connection; nodeId: string }>(resolve => {
        events.once('connection', (coordinator: Connection, nodeId: string) =>
          resolve({ coordinator, nodeId }),
        );
      });
      const [agent, arrived] = await Promise.all([enter({ ...join, ...way }, more), arrival]);
      agents.push(agent);
      return { agent, ...arrived };
    },
    async refused(count, ...reasons) {
      const counted = () => reasons.reduce((sum, reason) => sum + (door.refusals.get(reason) ?? 0), 0);
      while (counted() < count) await once(events, 'refused');
    },
  };
}

export function enter(join: Join, options: Partial<ConnectOptions> = {}): Promise<Connection> {
  return connect(join, {
    nodeId: NODE_ID,
    maxFrameBytes: 8_000_000,
    timeoutMs: 10_000,
    clock: new StandingClock(),
    random: seededBytes,
    ...options,
  });
}

export async function nextFrame(connection: Connection): Promise<Uint8Array> {
  return new Promise(resolve => {
    connection.onFrame = resolve;
  });
}

export function ended(connection: Connection): Promise<string> {
  return new Promise(resolve => {
    connection.onClose = resolve;
  });
}

/** Whatever else happens to it before. */
export function closed(socket: EventEmitter): Promise<void> {
  return new Promise(resolve => void socket.once('close', () => resolve()));
}

/** A bare TCP connection, open; its errors are those of the other side, and no matter. */
export async function dial({ host, port }: { host: string; port: number }): Promise<Socket> {
  const socket = connectSocket({ host, port, noDelay: true });
  await once(socket, 'connect');
  socket.on('error', () => {});
  // So that an end is seen.
  socket.resume();
  return socket;
}

/** Listens until the test's end. */
export async function serve(context: TestContext, server: Server): Promise<{ host: string; port: number }> {
  const sockets = new Set<Socket>();
  server.on('connection', socket => {
    sockets.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => sockets.delete(socket));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  context.after(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  const address = server.address();
  if (typeof address !== 'object' || !address) throw new Error('it does not listen');
  return { host: '127.0.0.1', port: address.port };
}

/** Between an agent and a door: `pass` is given each piece and sends on what it likes, and may pause where it is from. */
export function startProxy(
  context: TestContext,
  to: { host: string; port: number },
  pass: (piece: Buffer, from: 'agent' | 'coordinator', send: (piece: Buffer) => void, source: Socket) => void,
): Promise<{ host: string; port: number }> {
  const proxy = createServer({ noDelay: true }, near => {
    const far = connectSocket({ ...to, noDelay: true });
    far.on('error', () => {});
    near.on('data', piece => pass(piece, 'agent', sent => far.write(sent), near));
    far.on('data', piece => pass(piece, 'coordinator', sent => near.write(sent), far));
    near.on('close', () => far.destroy());
    far.on('close', () => near.destroySoon());
  });
  return serve(context, proxy);
}

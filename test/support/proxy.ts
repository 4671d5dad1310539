// A TCP proxy on loopback between agents and a coordinator, whose faults follow a seeded plan.
//
// Faults begin when so many bytes have passed in a way, or, for those that last, with the connection: a plan says the
// same of every run with its seed, whatever the time.

import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import type { TestContext } from 'node:test';
import { systemClock } from '#dist/shared/clock.js';
import type { Random } from './random.js';

/** From the agent up to the coordinator, or down to the agent. */
export type Way = 'up' | 'down';

export type Fault =
  /** Both sides get an RST. */
  | { readonly kind: 'reset'; readonly way: Way; readonly afterBytes: number }
  /** Both sides get a FIN, as if the other had closed. */
  | { readonly kind: 'end'; readonly way: Way; readonly afterBytes: number }
  /** Nothing passes for a while, in one way or in both. */
  | {
      readonly kind: 'stall';
      readonly way: Way;
      readonly afterBytes: number;
      readonly isBothWays: boolean;
      readonly durationMs: number;
    }
  /** One bit of one byte is another. */
  | { readonly kind: 'corrupt'; readonly way: Way; readonly afterBytes: number }
  /** Everything takes so much longer, both ways. */
  | { readonly kind: 'delay'; readonly delayMs: number }
  /** Each way carries no more. */
  | { readonly kind: 'throttle'; readonly bytesPerSecond: number };

export type FaultKind = Fault['kind'];

export interface FaultyProxy {
  readonly host: string;
  readonly port: number;
  /** Connections that were made through it. */
  readonly connections: number;
  /** How often each kind of fault has happened. */
  readonly happened: ReadonlyMap<FaultKind, number>;
}

/** More than the sockets hold themselves. */
const MOST_QUEUED_BYTES = 262_144;

/** Closed at the test's end. `plan` is asked at each connection, counted from 0, with random numbers of its own. */
export async function startFaultyProxy(
  context: TestContext,
  to: { readonly host: string; readonly port: number },
  random: Random,
  plan: (connection: number, random: Random) => readonly Fault[],
): Promise<FaultyProxy> {
  const links = new Set<Link>();
  const happened = new Map<FaultKind, number>();
  let connections = 0;
  const server = createServer({ noDelay: true, pauseOnConnect: true }, near => {
    const ofConnection = random.fork(`connection ${connections}`);
    const far = connect({ ...to, noDelay: true });
    const link = new Link(near, far, plan(connections++, ofConnection), kind => {
      happened.set(kind, (happened.get(kind) ?? 0) + 1);
    });
    links.add(link);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  context.after(() => {
    server.close();
    for (const link of links) link.reset();
  });
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('it does not listen');
  return {
    host: '127.0.0.1',
    port: address.port,
    happened,
    get connections() {
      return connections;
    },
  };
}

class Link {
  readonly #pipes: Record<Way, Pipe>;
  readonly #sockets: readonly Socket[];
  readonly #onFault: (kind: FaultKind) => void;
  /** Still to come. */
  #faults: readonly Sudden[];

  constructor(near: Socket, far: Socket, faults: readonly Fault[], onFault: (kind: FaultKind) => void) {
    this.#sockets = [near, far];
    this.#pipes = {
      up: new Pipe(near, far, faults, piece => this.#strike('up', piece)),
      down: new Pipe(far, near, faults, piece => this.#strike('down', piece)),
    };
    for (const { kind } of faults) if (kind === 'delay' || kind === 'throttle') onFault(kind);
    this.#faults = faults.filter(
      (fault): fault is Sudden => fault.kind !== 'delay' && fault.kind !== 'throttle',
    );
    this.#onFault = onFault;
    for (const socket of this.#sockets) {
      // Whatever breaks one side breaks the other.
      socket.on('error', () => this.reset());
      socket.on('close', () => {
        for (const pipe of Object.values(this.#pipes)) pipe.stopIfBroken();
      });
    }
    near.resume();
  }

  reset(): void {
    for (const pipe of Object.values(this.#pipes)) pipe.stop();
    for (const socket of this.#sockets) {
      // A reset while the end is being sent leaves Node 20 a handle that it waits for, busily, when the process exits.
      if (socket.connecting || socket.writableEnded) socket.destroy();
      else if (!socket.destroyed) socket.resetAndDestroy();
    }
  }

  /** Does to a piece what is due in it; gives what passes. */
  #strike(way: Way, piece: Buffer): Buffer {
    const pipe = this.#pipes[way];
    const isDue = (fault: Sudden): boolean =>
      fault.way === way && fault.afterBytes < pipe.passedBytes + piece.length;
    const due = this.#faults.filter(isDue);
    this.#faults = this.#faults.filter(fault => !isDue(fault));
    let passing = piece;
    for (const fault of due) {
      this.#onFault(fault.kind);
      const at = Math.max(0, fault.afterBytes - pipe.passedBytes);
      switch (fault.kind) {
        case 'corrupt':
          passing[at] ^= 1 << (fault.afterBytes % 8);
          break;
        case 'stall':
          for (const name of ['up', 'down'] as const) {
            if (fault.isBothWays || name === way) this.#pipes[name].stall(fault.durationMs);
          }
          break;
        case 'end':
          passing = passing.subarray(0, at);
          for (const half of Object.values(this.#pipes)) half.end(half === pipe ? passing : undefined);
          return passing.subarray(0, 0);
        case 'reset':
          this.reset();
          return passing.subarray(0, 0);
      }
    }
    return passing;
  }
}

type Sudden = Extract<Fault, { way: Way }>;

/** One way of a connection: what came first goes first, each piece when it is due. */
class Pipe {
  passedBytes = 0;
  readonly #from: Socket;
  readonly #to: Socket;
  readonly #delayMs: number;
  readonly #bytesPerSecond: number;
  readonly #queue: { readonly piece: Buffer; readonly dueMs: number }[] = [];
  #queuedBytes = 0;
  /** When a throttled way has carried what it was given. */
  #freeMs = 0;
  #stalledUntilMs = 0;
  #hasEnded = false;
  #isStopped = false;
  #cancel: (() => void) | undefined;

  constructor(from: Socket, to: Socket, faults: readonly Fault[], strike: (piece: Buffer) => Buffer) {
    this.#from = from;
    this.#to = to;
    this.#delayMs = Math.max(0, ...faults.map(fault => (fault.kind === 'delay' ? fault.delayMs : 0)));
    this.#bytesPerSecond = Math.min(
      Infinity,
      ...faults.map(fault => (fault.kind === 'throttle' ? fault.bytesPerSecond : Infinity)),
    );
    from.on('data', piece => {
      if (this.#isStopped || this.#hasEnded) return;
      const passing = strike(piece);
      this.passedBytes += piece.length;
      if (passing.length > 0) this.#push(passing);
    });
    from.on('end', () => {
      this.#hasEnded = true;
      this.#flush();
    });
    to.on('drain', () => this.#flush());
  }

  stall(durationMs: number): void {
    this.#stalledUntilMs = systemClock.nowMs() + durationMs;
  }

  /** What is still in it arrives, then `last`, and then the end. */
  end(last?: Buffer): void {
    if (last) this.#push(last);
    this.#hasEnded = true;
    this.#flush();
  }

  stop(): void {
    this.#isStopped = true;
    this.#cancel?.();
    this.#queue.length = 0;
    // A socket that is not read does not see its end.
    this.#from.resume();
  }

  /** Where nobody reads any more, or nobody is left that could end it. */
  stopIfBroken(): void {
    if (this.#to.destroyed) this.stop();
    if (this.#from.destroyed && !this.#hasEnded) this.end();
  }

  #push(piece: Buffer): void {
    const nowMs = systemClock.nowMs();
    this.#freeMs = Math.max(this.#freeMs, nowMs) + (piece.length / this.#bytesPerSecond) * 1000;
    this.#queue.push({ piece, dueMs: this.#freeMs + this.#delayMs });
    this.#queuedBytes += piece.length;
    if (this.#queuedBytes > MOST_QUEUED_BYTES) this.#from.pause();
    this.#flush();
  }

  #flush(): void {
    this.#cancel?.();
    this.#cancel = undefined;
    while (this.#queue.length > 0 && !this.#isStopped && !this.#to.destroyed) {
      if (this.#to.writableNeedDrain) return;
      const [{ piece, dueMs }] = this.#queue;
      const waitMs = Math.max(dueMs, this.#stalledUntilMs) - systemClock.nowMs();
      if (waitMs > 0) {
        this.#cancel = systemClock.after(waitMs, () => this.#flush());
        return;
      }
      this.#queue.shift();
      this.#queuedBytes -= piece.length;
      this.#to.write(piece);
      if (this.#queuedBytes <= MOST_QUEUED_BYTES) this.#from.resume();
    }
    if (this.#hasEnded && this.#queue.length === 0 && !this.#isStopped) this.#to.end();
  }
}

// Who was not let in, told at most once a second for each reason: strangers may knock thousands of times a second.

import type { Clock } from '../shared/clock.js';
import type { RunEventBody } from '../shared/events.js';
import { integer } from '../shared/format.js';
import type { RefusalReason } from './server.js';

const PERIOD_MS = 1000;

const texts: Record<RefusalReason, string> = {
  'handshake-time': 'its handshake took too long',
  waiting: 'too many are waiting to be let in',
  connections: 'too many nodes are connected',
  left: 'it went before it was let in',
  tls: 'it did not begin with our TLS handshake',
  http: 'it sent no HTTP request',
  request: 'it asked for something else',
  origin: 'it is a web page in a browser',
  host: 'it asked for a host that is not this one (--advertise names one)',
  key: 'its key id is unknown or its key is wrong',
  protocol: 'it speaks another version of the protocol',
  text: 'it sent a text',
  ping: 'it sent a WebSocket ping',
  fragments: 'it sent a message in fragments',
  'message-size': 'it sent a message that is too long',
  frame: 'it broke the rules of WebSocket',
  'slow-reader': 'it does not read what it is sent',
};

interface Open {
  /** Since it was told last. */
  count: number;
  lastAddress: string;
  toldMs: number;
}

export class Refusals {
  readonly #clock: Clock;
  readonly #emit: (event: RunEventBody) => void;
  readonly #open = new Map<string, Open>();
  readonly #stop: () => void;

  constructor(clock: Clock, emit: (event: RunEventBody) => void) {
    this.#clock = clock;
    this.#emit = emit;
    this.#stop = clock.every(PERIOD_MS, () => this.#tellOpen());
  }

  /** One that the door turned away. */
  count(reason: RefusalReason, address: string): void {
    this.tell(texts[reason], address);
  }

  /** Tells it at once, unless the same was told within the last second: then with others, later. */
  tell(reason: string, address: string): void {
    const open = this.#open.get(reason);
    if (open) {
      open.count++;
      open.lastAddress = address;
      return;
    }
    this.#open.set(reason, { count: 0, lastAddress: address, toldMs: this.#clock.nowMs() });
    this.#emit({ type: 'node-refused', address, reason });
  }

  /** Tells what is left. */
  close(): void {
    this.#stop();
    this.#tellOpen(-Infinity);
  }

  #tellOpen(periodMs = PERIOD_MS): void {
    const nowMs = this.#clock.nowMs();
    for (const [reason, open] of this.#open) {
      if (nowMs - open.toldMs < periodMs) continue;
      if (open.count === 0) {
        this.#open.delete(reason);
        continue;
      }
      const others = open.count > 1 ? ` (and ${integer(open.count - 1)} more like it since the last)` : '';
      this.#emit({ type: 'node-refused', address: open.lastAddress, reason: `${reason}${others}` });
      open.count = 0;
      open.toldMs = nowMs;
    }
  }
}

// What is thrown at a coordinator while it trains, by strangers and by one who holds the key: training goes on, the
// memory stays flat, everybody is dropped for a reason that is counted, and the hash is that of one thread.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import { systemClock as clock } from '#dist/shared/clock.js';
import { decode, encode, MOST_JOB_FRAME_BYTES } from '#dist/shared/codec.js';
import type { Connection } from '#dist/shared/connection.js';
import { parseJoin, type Join } from '#dist/shared/join.js';
import { PROTOCOL_VERSION, type Message } from '#dist/shared/messages.js';
import { systemRandom } from '#dist/shared/random.js';
import { readJob } from '#dist/worker/agent-job.js';
import { connect } from '#dist/worker/connect.js';
import { F32_PROFILE } from '#dist/worker/engines/engine.js';
import { checkNumerics } from '#dist/worker/numerics-check.js';
import { dial } from '../support/door.js';
import { messagesToCoordinator } from '../support/messages.js';
import { mutatedFrame } from '../support/mutate.js';
import { assertOneHash, Field, isLong, through, type Coordinator } from '../support/processes.js';
import { startFaultyProxy } from '../support/proxy.js';
import { randomTest, type Random } from '../support/random.js';

const MIB = 1024 * 1024;
const STRANGERS = isLong ? 1000 : 200;
const FRAMES = isLong ? Number(process.env['LOCKSTEP_FUZZ_FRAMES'] ?? 20_000) : 500;
const FRAMES_PER_CONNECTION = 10;
/** Slow as they are, so many steps take longer than everything that is thrown. */
const STEPS = isLong ? 6000 : 200;
const settings = ['mlp', '--seed', '7', '--max-steps', String(STEPS), '--epochs', '100'];

/** Resident, of another process; undefined where there is no /proc. */
function residentBytes(pid: number): number | undefined {
  if (process.platform !== 'linux') return undefined;
  return 1024 * Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]);
}

/** Everyone who was refused for a reason that fits, those included that are told of together. */
function refused(coordinator: Coordinator, reason: RegExp): number {
  return coordinator.all('node-refused').reduce((sum, event) => {
    const more = /\(and ([\d,]+) more/.exec(event.reason)?.[1].replaceAll(',', '') ?? '0';
    return reason.test(event.reason) ? sum + 1 + Number(more) : sum;
  }, 0);
}

/** Sockets that say nothing, say nonsense, or one byte after the other. */
async function crowd(at: { host: string; port: number }, random: Random): Promise<Socket[]> {
  const sockets: Socket[] = [];
  const drips: Socket[] = [];
  const hello = Buffer.of(22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3);
  for (let i = 0; i < STRANGERS; i++) {
    const socket = await dial(at);
    sockets.push(socket);
    const way = i % 4;
    if (way === 1) socket.write(Buffer.from(random.floats(1 + random.integer(500), -1, 1).buffer));
    else if (way === 2) socket.write('GET / HTTP/1.1\r\nhost: here\r\n\r\n');
    else if (way === 3) drips.push(socket);
    for (const drip of drips.slice(-20)) {
      if (drip.writable) drip.write(Buffer.of(hello[drip.bytesWritten % hello.length]));
    }
  }
  return sockets;
}

/** Gets as far as it draws, and then says what nobody may say, until it is thrown out. */
class KeyHolder {
  static #digests: Promise<readonly string[]> | undefined;

  static async visit(join: Join, random: Random): Promise<void> {
    const connection = await connect(join, {
      nodeId: Buffer.from(systemRandom(8)).toString('hex'),
      maxFrameBytes: 16_000_000,
      timeoutMs: 30_000,
      clock,
      random: systemRandom,
    });
    const ended = new Promise<void>(resolve => (connection.onClose = () => resolve()));
    const depth = random.integer(3);
    await Promise.race([ended, this.#behave(connection, depth)]);
    const templates: Message[] = messagesToCoordinator(20).filter(({ type }) => type !== 'leave');
    for (let i = 0; i < FRAMES_PER_CONNECTION; i++) {
      connection.send(mutatedFrame(random, random.pick(templates)));
    }
    // What came of it so far does not matter; this is out of order whatever came before.
    for (let i = 0; i < 2; i++) {
      connection.send(
        encode({ type: 'hello', protocol: PROTOCOL_VERSION, version: '0', name: 'twice', threads: 1 }),
      );
    }
    await ended;
  }

  /** Keeps to the protocol until it is known, or checked as well. */
  static #behave(connection: Connection, depth: number): Promise<void> {
    return new Promise((resolve, reject) => {
      connection.onFrame = frame => {
        const message = decode(frame, 'agent', MOST_JOB_FRAME_BYTES);
        if (message.type !== 'job') return;
        if (depth < 2) return resolve();
        this.#digests ??= checkNumerics(
          readJob(message, [{ engine: 'wasm', profile: F32_PROFILE }]).leafJob,
          { clock },
        ).then(({ digests }) => digests);
        this.#digests.then(([a, b, c]) => {
          connection.send(
            encode({ type: 'checked', profile: F32_PROFILE, digests: [a, b, c], leafMs: 1, shortMs: 1 }),
          );
          resolve();
        }, reject);
      };
      if (depth === 0) return resolve();
      connection.send(
        encode({ type: 'hello', protocol: PROTOCOL_VERSION, version: '0', name: 'mallory', threads: 1 }),
      );
    });
  }
}

randomTest(
  `${STRANGERS} strangers and ${FRAMES} frames of a holder of the key stop no training and change no bit`,
  async (random, context) => {
    const field = new Field(context);
    const coordinator = field.coordinate([...settings, '--workers', '0', '--audit', '0']);
    const line = await coordinator.join();
    const join = parseJoin(line);
    // It is slow so that the run is not over too soon.
    const slow = await startFaultyProxy(context, join, random, () => [{ kind: 'delay', delayMs: 20 }]);
    const first = field.work(through(line, slow), { name: 'first' });
    await coordinator.step(5);
    const stepOf = (): number => coordinator.all('step').at(-1)!.step;
    const [stepBefore, residentBefore] = [stepOf(), residentBytes(coordinator.pid)];

    const strangers = await crowd(join, random);
    const residentOfCrowd = residentBytes(coordinator.pid);
    // Half of them break no rule; of those only 64 may wait at a time, and the others are told of within a second or two.
    await coordinator.until('those who wait make room', () =>
      refused(coordinator, /too many are waiting/) > STRANGERS / 8 ? true : undefined,
    );
    for (const socket of strangers) socket.destroy();
    const visits = FRAMES / FRAMES_PER_CONNECTION;
    for (let i = 0; i < visits; i++) await KeyHolder.visit(join, random.fork(`visit ${i}`));
    const residentAfter = residentBytes(coordinator.pid);
    assert.ok(!coordinator.hasEnded, 'the run was over before everything was thrown');
    assert.ok(stepOf() > stepBefore + 10, 'no step was done meanwhile');

    const second = field.work(line, { name: 'second', workers: 2 });
    await assertOneHash(coordinator, settings);
    for (const agent of [first, second]) assert.equal((await agent.ended).code, 0, agent.tail());
    if (residentBefore !== undefined) {
      const most = Math.max(residentOfCrowd!, residentAfter!) - residentBefore;
      assert.ok(most < 100 * MIB, `${most / MIB} MiB more`);
    }
    // Those whose lies began when they might have computed were nodes already, and are told of as lost.
    const lost = coordinator.all('node-lost').filter(({ name }) => name === 'mallory');
    assert.equal(refused(coordinator, /./) + lost.length, STRANGERS + visits, coordinator.tail());
    assert.ok(lost.length > visits / 10);
    // 64 may wait at a time.
    for (const reason of [
      /too many are waiting/,
      /did not begin with our TLS/,
      /A frame from the other side/,
    ]) {
      assert.ok(refused(coordinator, reason) > 20, String(reason));
    }
  },
);

// The door and the way in: who comes in, who does not, and what a crowd outside costs.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer as createHttpServer, request as httpRequest, type IncomingMessage } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join as joinPath } from 'node:path';
import { test, type TestContext } from 'node:test';
import { connect as connectTls, createServer as createTlsServer, type TLSSocket } from 'node:tls';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { WebSocket, WebSocketServer } from 'ws';
import { startServer, type RefusalReason } from '#dist/coordinator/server.js';
import { LockstepError, messageOf } from '#dist/shared/errors.js';
import { formatIdentity, headers, proofOf, SUBPROTOCOL, TLS_CIPHER } from '#dist/shared/handshake.js';
import type { Join, Key } from '#dist/shared/join.js';
import { selfSigned } from '../support/certificate.js';
import {
  closed,
  dial,
  ended,
  enter,
  nextFrame,
  NODE_ID,
  openDoor,
  seededBytes,
  serve,
  StandingClock,
  startProxy,
  type OpenDoor,
} from '../support/door.js';
import { Random, randomTest } from '../support/random.js';

const MIB = 1024 * 1024;
/** How many times as much is thrown at the doors: .ci/run asks for 100,000 frames, which is 5. */
const fuzzFactor = Math.max(1, Math.round(Number(process.env['LOCKSTEP_FUZZ_FRAMES'] ?? 20_000) / 20_000));

setFlagsFromString('--expose-gc');
const collectGarbage: () => void = runInNewContext('gc');

/** What never comes makes a test fail, rather than wait for ever. */
function socketTest(promise: string, body: (context: TestContext) => Promise<void>): void {
  test(promise, { timeout: 60_000 }, body);
}

function memoryMiB(): number {
  collectGarbage();
  const { heapUsed, external } = process.memoryUsage();
  return (heapUsed + external) / MIB;
}

for (const isInsecure of [false, true]) {
  const how = isInsecure ? 'without TLS' : 'with TLS';

  socketTest(`frames of any size go both ways, whole and in order, ${how}`, async context => {
    const door = await openDoor(context, { isInsecure });
    const { agent, coordinator, nodeId } = await door.enter();
    assert.equal(nodeId, NODE_ID);
    const random = new Random(`frames ${how}`);
    const frames = [0, 1, 125, 126, 65_535, 65_536, 5_000_000, 3].map(length =>
      Buffer.from(random.floats(Math.ceil(length / 4), 0, 1).buffer).subarray(0, length),
    );
    for (const [from, to] of [
      [agent, coordinator],
      [coordinator, agent],
    ]) {
      const arrived: Buffer[] = [];
      const all = new Promise<void>(resolve => {
        to.onFrame = frame => {
          arrived.push(Buffer.from(frame));
          if (arrived.length === frames.length) resolve();
        };
      });
      const copies = frames.map(frame => Buffer.from(frame));
      for (const frame of frames) from.send(frame);
      await all;
      assert.ok(arrived.every((frame, i) => frame.equals(copies[i])));
      assert.ok(
        frames.every((frame, i) => frame.equals(copies[i])),
        'a frame was changed by sending it',
      );
      // That the network has taken the last of it is told a little later.
      while (from.bufferedBytes > 0) await new Promise(resolve => void setImmediate(resolve));
      assert.equal(from.sentBytes, to.receivedBytes);
    }
    assert.equal(door.refusals.size, 0);
  });

  socketTest(`a large frame that trickles moves the counters of both sides, ${how}`, async context => {
    const door = await openDoor(context, { isInsecure, maxFrameBytes: 64 * MIB });
    // Where the sockets' buffers end, nobody can say: the frame is larger than all of them. What the proxy holds back,
    // it gives away piece by piece, each when the counters have moved because of the one before.
    const waiting: (() => void)[] = [];
    let isSlow = false;
    const proxy = await startProxy(context, door.address, (piece, from, send, source) => {
      send(piece);
      if (from !== 'coordinator' || !isSlow) return;
      source.pause();
      waiting.push(() => source.resume());
    });
    const { agent, coordinator } = await door.enter({ maxFrameBytes: 64 * MIB }, proxy);
    const whole: Uint8Array[] = [];
    agent.onFrame = arrived => whole.push(arrived);
    isSlow = true;
    const opening = { sent: coordinator.sentBytes, received: agent.receivedBytes };
    const frame = Buffer.alloc(48 * MIB);
    coordinator.send(frame);
    const sent = new Set<number>();
    const received = new Set<number>();
    while (whole.length === 0) {
      if (coordinator.bufferedBytes > 0) sent.add(coordinator.sentBytes);
      received.add(agent.receivedBytes);
      waiting.shift()?.();
      await new Promise(resolve => void setImmediate(resolve));
    }
    assert.ok(sent.size > 10, `${sent.size} values of sentBytes while it waits`);
    assert.ok(received.size > 100, `${received.size} values of receivedBytes before it is whole`);
    assert.ok(Math.max(...sent) < opening.sent + frame.length);
    assert.ok(agent.receivedBytes >= opening.received + frame.length);
    assert.ok(coordinator.sentBytes >= opening.sent + frame.length);
  });

  socketTest(`frames that come together with the consent are not lost, ${how}`, async context => {
    const clock = new StandingClock();
    const key = { id: '0000000000000000', secret: seededBytes(32) };
    const door = await startServer({
      host: '127.0.0.1',
      port: 0,
      key,
      isInsecure,
      clock,
      random: seededBytes,
      maxFrameBytes: 1000,
      onConnection: connection => connection.send(Buffer.from('at once')),
    });
    context.after(() => door.close());
    const agent = await enter({ ...door.address, key, isEncrypted: !isInsecure });
    assert.equal(Buffer.from(await nextFrame(agent)).toString(), 'at once');
  });

  socketTest(`whoever closes gives the other side the reason, ${how}`, async context => {
    const door = await openDoor(context, { isInsecure });
    const long = `${'é'.repeat(100)} end`;
    for (const [reason, told] of [
      ['the run is finished', 'the run is finished'],
      [long, 'é'.repeat(61)],
    ]) {
      const { agent, coordinator } = await door.enter();
      const ends = [ended(agent), ended(coordinator)];
      let frames = 0;
      agent.onFrame = () => frames++;
      coordinator.close(reason);
      coordinator.send(Buffer.from('too late'));
      assert.deepEqual(await Promise.all(ends), [told, reason]);
      assert.equal(frames, 0);
    }
    const { agent, coordinator } = await door.enter();
    const end = ended(coordinator);
    nextFrame(coordinator).catch(() => {});
    agent.destroy('gone');
    assert.equal(await end, 'the connection broke off');
  });

  socketTest(`an unknown id and a wrong secret are refused alike, ${how}`, async context => {
    const door = await openDoor(context, { isInsecure });
    const errors: unknown[] = [];
    for (const key of [
      { id: door.key.id, secret: seededBytes(32) },
      { id: '0123456789abcdef', secret: door.key.secret },
      { id: 'not one at all', secret: door.key.secret },
    ]) {
      // What is no id at all gets the same from TLS; without TLS it is no request of ours.
      if (isInsecure && key.id.includes(' ')) continue;
      await assert.rejects(enter({ ...door.join, key }), error => {
        assert.ok(error instanceof LockstepError);
        assert.equal(error.code, 'LOCKSTEP_KEY');
        errors.push(error.message);
        return true;
      });
    }
    assert.equal(new Set(errors).size, 1);
    await door.refused(errors.length, 'key');
    assert.deepEqual([...door.refusals], [['key', errors.length]]);
  });

  socketTest(
    `whoever says nothing, or one byte after the other, is out when its time is over, ${how}`,
    async context => {
      const door = await openDoor(context, { isInsecure, limits: { handshakeMs: 500 } });
      const silent = await Promise.all(Array.from({ length: 20 }, () => dial(door.address)));
      await door.clock.waitForTimers(20);
      const drip = await dial(door.address);
      await door.clock.waitForTimers(21);
      const closes = [...silent, drip].map(socket => closed(socket));
      const { bytes } = await recorded(context, door);
      for (let i = 0; i < 100; i++) {
        await new Promise(resolve => void drip.write(bytes.agent.subarray(i, i + 1), resolve));
        door.clock.advance(4.9);
      }
      assert.ok(!drip.closed);
      assert.equal(door.refusals.size, 0);
      door.clock.advance(11);
      await Promise.all(closes);
      assert.deepEqual([...door.refusals], [['handshake-time', 21]]);
      const { agent } = await door.enter();
      agent.close('enough');
    },
  );

  socketTest(`a network that carries single bytes keeps nobody out, ${how}`, async context => {
    const door = await openDoor(context, { isInsecure });
    const proxy = await startProxy(context, door.address, (piece, _, send) => {
      for (const byte of piece) send(Buffer.of(byte));
    });
    const agent = await enter({ ...door.join, ...proxy });
    agent.close('enough');
    assert.equal(door.refusals.size, 0);
  });

  socketTest(`a thousand sockets that prove nothing neither disturb nor keep out, ${how}`, async context => {
    const door = await openDoor(context, { isInsecure });
    const { agent, coordinator } = await door.enter();
    coordinator.onFrame = frame => coordinator.send(frame);
    const before = memoryMiB();
    const crowd: Socket[] = [];
    for (let i = 0; i < 1000; i++) {
      const socket = await dial(door.address);
      if (i % 2 === 1) socket.write(isInsecure ? 'GET / HTTP/1.1\r\n' : Buffer.of(22, 3, 1, 2, 0, 1));
      crowd.push(socket);
      if (i % 50 === 0) {
        agent.send(Buffer.alloc(10_000, i));
        assert.equal((await nextFrame(agent))[0], i % 256);
      }
    }
    await door.refused(1000 - 64, 'waiting');
    assert.ok(memoryMiB() - before < 32, `${memoryMiB() - before} MiB more`);
    const { agent: second } = await door.enter();
    second.close('enough');
    for (const socket of crowd) socket.destroy();
    await door.refused(63, 'left', 'http');
    agent.send(Buffer.of(1));
    await nextFrame(agent);
  });

  socketTest(`there is room for so many connections, and again when one has ended, ${how}`, async context => {
    const door = await openDoor(context, { isInsecure, limits: { connections: 1 } });
    const { agent, coordinator } = await door.enter();
    await assert.rejects(enter(door.join), isTrouble(/has as many connections as it takes$/));
    assert.deepEqual([...door.refusals], [['connections', 1]]);
    const end = ended(coordinator);
    nextFrame(coordinator).catch(() => {});
    agent.destroy('gone');
    await end;
    const { agent: second } = await door.enter();
    second.close('enough');
  });

  socketTest(`trouble with the network is no final refusal, ${how}`, async context => {
    const door = await openDoor(context, { isInsecure });
    const nobody = await openDoor(context, { isInsecure });
    await nobody.close();
    await assert.rejects(enter(nobody.join), isTrouble(/^nobody listens at 127\.0\.0\.1:\d+$/));
    await assert.rejects(enter({ ...door.join, host: 'nowhere.invalid' }), isTrouble(/nowhere\.invalid/));
    const hangUp = await serve(
      context,
      createServer(socket => socket.destroy()),
    );
    await assert.rejects(enter({ ...door.join, ...hangUp }), isTrouble(/broke the connection off$/));
    const other = await serve(
      context,
      createHttpServer((_, response) => response.writeHead(200).end('hello')),
    );
    await assert.rejects(enter({ ...door.join, ...other }), isTrouble(/answers, but not as the coordinator/));
    await assert.rejects(enter({ ...door.join, isEncrypted: isInsecure }), isTrouble(/./));
  });

  socketTest(`an attempt ends with its time, or when it is no longer wanted, ${how}`, async context => {
    const door = await openDoor(context, { isInsecure });
    const silent = await serve(
      context,
      createServer(socket => socket.resume()),
    );
    const clock = new StandingClock();
    const late = enter({ ...door.join, ...silent }, { clock, timeoutMs: 3000 });
    await clock.waitForTimers(1);
    clock.advance(3000);
    await assert.rejects(late, isTrouble(/has not answered within 3 s$/));
    const controller = new AbortController();
    const unwanted = enter({ ...door.join, ...silent }, { signal: controller.signal });
    controller.abort(new Error('Ctrl-C'));
    await assert.rejects(unwanted, /^Error: Ctrl-C$/);
    await assert.rejects(enter(door.join, { signal: controller.signal }), /^Error: Ctrl-C$/);
  });

  randomTest(`a door that damaged beginnings are thrown at stays open, ${how}`, async (random, context) => {
    const door = await openDoor(context, { isInsecure });
    const { bytes } = await recorded(context, door);
    const before = memoryMiB();
    const count = 2000 * fuzzFactor;
    for (let done = 0; done < count; done += 50) {
      await Promise.all(
        Array.from({ length: 50 }, async () => {
          const socket = await dial(door.address);
          const end = closed(socket);
          socket.end(mutated(bytes.agent, random));
          await end;
        }),
      );
    }
    assert.ok(memoryMiB() - before < 32, `${memoryMiB() - before} MiB more`);
    await door.enter();
    const total = [...door.refusals.values()].reduce((sum, refusals) => sum + refusals, 0);
    assert.equal(total, count);
  });

  randomTest(
    `an agent that damaged answers are thrown at is not let in, and can try again, ${how}`,
    async (random, context) => {
      const door = await openDoor(context, { isInsecure });
      const { bytes } = await recorded(context, door);
      const liar = await serve(
        context,
        createServer(socket => {
          socket.once('data', () => socket.end(mutated(bytes.coordinator, random)));
          socket.on('data', () => {});
        }),
      );
      const before = memoryMiB();
      for (let done = 0; done < 1000 * fuzzFactor; done += 20) {
        const attempts = Array.from({ length: 20 }, () => enter({ ...door.join, ...liar }));
        for (const { status } of await Promise.allSettled(attempts)) assert.equal(status, 'rejected');
      }
      assert.ok(memoryMiB() - before < 32, `${memoryMiB() - before} MiB more`);
    },
  );
}

const offences: { what: string; reason: RefusalReason; send: (socket: WebSocket, wire: Socket) => void }[] = [
  { what: 'a text message', reason: 'text', send: socket => socket.send('hello') },
  { what: 'a WebSocket ping', reason: 'ping', send: socket => socket.ping() },
  {
    what: 'a flood of WebSocket pings',
    reason: 'ping',
    send: socket => {
      for (let i = 0; i < 10_000; i++) socket.ping();
    },
  },
  { what: 'a WebSocket pong', reason: 'ping', send: socket => socket.pong() },
  {
    what: 'a message in fragments',
    reason: 'fragments',
    send: socket => {
      socket.send(Buffer.of(1), { fin: false });
      socket.send(Buffer.of(2), { fin: true });
    },
  },
  {
    what: 'empty fragments without end',
    reason: 'fragments',
    send: socket => {
      for (let i = 0; i < 1000; i++) socket.send(Buffer.alloc(0), { fin: false });
    },
  },
  {
    what: 'a message that is too long',
    reason: 'message-size',
    send: socket => socket.send(Buffer.alloc(1001)),
  },
  {
    what: 'a length that lies',
    reason: 'message-size',
    send: (_, wire) => wire.write(Buffer.from('82ff001fffffffffffff00000000', 'hex')),
  },
  { what: 'an unmasked frame', reason: 'frame', send: (_, wire) => wire.write(Buffer.of(0x82, 1, 1)) },
  { what: 'an unknown kind of frame', reason: 'frame', send: (_, wire) => wire.write(Buffer.of(0x83, 0x80)) },
];

for (const { what, reason, send } of offences) {
  socketTest(`one that holds the key and sends ${what} is cut off`, async context => {
    const door = await openDoor(context, { maxFrameBytes: 1000 });
    const { agent, coordinator } = await door.enter({ nodeId: 'aaaaaaaaaaaaaaaa' });
    const [socket, wire] = await openWebSocket(door);
    const end = closed(socket);
    send(socket, wire);
    await end;
    await door.refused(1, reason);
    assert.deepEqual([...door.refusals], [[reason, 1]]);
    agent.send(Buffer.alloc(1000, 7));
    assert.equal((await nextFrame(coordinator)).length, 1000);
  });
}

socketTest('a coordinator that breaks the rules is cut off by the agent', async context => {
  const key = { id: '0000000000000000', secret: seededBytes(32) };
  const coordinator = await serveUpgrades(context, key, SUBPROTOCOL, socket => socket.send('text'));
  const agent = await enter({ ...coordinator, key, isEncrypted: true });
  const end = ended(agent);
  nextFrame(agent).catch(() => {});
  assert.match(await end, /text message/);
});

socketTest(
  'one that does not read what it is sent is cut off, and only so much waits for it',
  async context => {
    const door = await openDoor(context, { maxFrameBytes: 65_536 });
    const { coordinator } = await door.enter();
    const end = ended(coordinator);
    let sent = 0;
    let most = 0;
    const frame = Buffer.alloc(65_536);
    for (; door.refusals.size === 0 && sent < 1000; sent++) {
      most = Math.max(most, coordinator.bufferedBytes);
      coordinator.send(frame);
      // The network takes what it can.
      await new Promise(resolve => void setImmediate(resolve));
    }
    assert.match(await end, /does not read/);
    assert.deepEqual([...door.refusals], [['slow-reader', 1]]);
    assert.ok(most <= 4 * 65_536, `${most} bytes waited`);
    assert.ok(sent < 1000, `${sent} frames were sent`);
  },
);

socketTest('a bound of its own for what waits', async context => {
  const door = await openDoor(context, { maxFrameBytes: 1000, mostBufferedBytes: 10 * MIB });
  const { agent, coordinator } = await door.enter({ maxFrameBytes: 8 * MIB });
  coordinator.send(Buffer.alloc(8 * MIB));
  assert.equal((await nextFrame(agent)).length, 8 * MIB);
  assert.equal(door.refusals.size, 0);
});

interface UpgradeRequest {
  readonly path?: string;
  readonly method?: string;
  readonly protocol?: string;
  readonly origin?: string;
}

const requests: { what: string; reason: RefusalReason; status: number; request: UpgradeRequest }[] = [
  { what: 'of a browser', reason: 'origin', status: 403, request: { origin: 'http://example.org' } },
  { what: 'for another path', reason: 'request', status: 404, request: { path: '/other' } },
  { what: 'of another protocol', reason: 'protocol', status: 400, request: { protocol: 'lockstep.999' } },
  { what: 'with another method', reason: 'request', status: 400, request: { method: 'POST' } },
];

for (const { what, reason, status, request } of requests) {
  socketTest(`an upgrade request ${what} is refused to one that holds the key`, async context => {
    const door = await openDoor(context);
    const answer = await refusedUpgrade(door, request);
    assert.equal(answer.statusCode, status);
    assert.deepEqual([...door.refusals], [[reason, 1]]);
  });
}

socketTest('without TLS another protocol is told from a wrong key', async context => {
  const door = await openDoor(context, { isInsecure: true });
  const socket = await dial(door.address);
  const answer = collect(socket);
  socket.write(
    'GET / HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: upgrade\r\nupgrade: websocket\r\n' +
      'sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n' +
      'sec-websocket-protocol: lockstep.999\r\n\r\n',
  );
  assert.match(await answer, /^HTTP\/1\.1 400 /);
  assert.deepEqual([...door.refusals], [['protocol', 1]]);
});

socketTest('a request that is no upgrade is answered and the connection closed', async context => {
  for (const isInsecure of [false, true]) {
    const door = await openDoor(context, { isInsecure });
    const socket = isInsecure ? await dial(door.address) : await openTls(door);
    const answer = collect(socket);
    socket.write('POST / HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 5\r\n\r\nhello');
    assert.match(await answer, /^HTTP\/1\.1 426 /);
    assert.deepEqual([...door.refusals], [['request', 1]]);
  }
});

socketTest('headers that are too long are refused', async context => {
  const door = await openDoor(context, { isInsecure: true });
  const socket = await dial(door.address);
  const end = closed(socket);
  socket.write(`GET / HTTP/1.1\r\nhost: 127.0.0.1\r\nx: ${'x'.repeat(5000)}\r\n\r\n`);
  await end;
  assert.deepEqual([...door.refusals], [['http', 1]]);
});

socketTest('without TLS, only known names of the host are answered', async context => {
  const door = await openDoor(context, { isInsecure: true, names: ['Train.Example.ORG'] });
  const ask = async (host: string): Promise<string> => {
    const socket = await dial(door.address);
    const answer = collect(socket);
    socket.end(`GET / HTTP/1.1\r\nhost: ${host}\r\n\r\n`);
    return (await answer).slice(9, 12);
  };
  for (const host of ['127.0.0.1', '[::1]:7077', 'localhost:1', '10.0.0.1:80', 'train.example.org:7077'])
    assert.equal(await ask(host), '401', host);
  for (const host of ['example.org', 'localhost.example.org:80', '127.0.0.1.example.org', ''])
    assert.equal(await ask(host), '426', host);
  assert.equal(door.refusals.get('host'), 4);
});

socketTest('without TLS, what was sent once does not let in again', async context => {
  const door = await openDoor(context, { isInsecure: true });
  const { bytes, nonce } = await recorded(context, door);
  const secondRequest = bytes.agent.subarray(bytes.agent.indexOf('\r\n\r\n') + 4);
  // The same bytes on a connection that has been given no nonce, and on one that has been given another.
  const bare = await dial(door.address);
  const refused = collect(bare);
  bare.write(secondRequest);
  assert.match(await refused, /^HTTP\/1\.1 401 /);
  const replay = await dial(door.address);
  const answers = collect(replay);
  replay.write(bytes.agent);
  assert.match(await answers, /^HTTP\/1\.1 401 .*HTTP\/1\.1 403 .*lockstep-refusal: key/s);
  assert.ok(!(await answers).includes(nonce));
  // The coordinator's own proof is none of an agent's.
  const exchange = { coordinatorNonce: nonce, agentNonce: nonce, identity: 'a' };
  assert.notEqual(
    proofOf(door.key.secret, 'agent', exchange),
    proofOf(door.key.secret, 'coordinator', exchange),
  );
  assert.deepEqual(
    [...door.refusals],
    [
      ['request', 1],
      ['key', 1],
    ],
  );
});

socketTest(
  'without TLS, an agent does not take a coordinator for real that proves nothing',
  async context => {
    const key = { id: '0000000000000000', secret: seededBytes(32) };
    for (const proof of [undefined, 'f'.repeat(64), 'its own']) {
      const server = createHttpServer((_, response) => {
        response.writeHead(401, { [headers.nonce]: '0'.repeat(64), 'content-length': 0 }).end();
      });
      const upgrades = new WebSocketServer({ server, autoPong: false });
      upgrades.on('headers', (lines, request) => {
        const given = proof === 'its own' ? String(request.headers[headers.proof]) : proof;
        if (given !== undefined) lines.push(`${headers.proof}: ${given}`);
      });
      upgrades.on('connection', socket => socket.send(Buffer.from('trust me')));
      const address = await serve(context, server);
      await assert.rejects(
        enter({ ...address, key, isEncrypted: false }),
        isTrouble(/does not prove that it knows the key$/),
      );
    }
  },
);

socketTest('another version of the protocol is a final refusal', async context => {
  const key = { id: '0000000000000000', secret: seededBytes(32) };
  const address = await serveUpgrades(context, key, 'lockstep.999', () => {});
  await assert.rejects(enter({ ...address, key, isEncrypted: true }), { code: 'LOCKSTEP_PROTOCOL_VERSION' });
  const refusing = createHttpsServer({
    pskCallback: () => Buffer.from(key.secret),
    ciphers: TLS_CIPHER,
    maxVersion: 'TLSv1.2',
  });
  refusing.on('upgrade', (_, socket) => {
    socket.end(`HTTP/1.1 400 Bad Request\r\n${headers.refusal}: protocol\r\ncontent-length: 0\r\n\r\n`);
  });
  const refusingAddress = await serve(context, refusing);
  await assert.rejects(enter({ ...refusingAddress, key, isEncrypted: true }), {
    code: 'LOCKSTEP_PROTOCOL_VERSION',
  });
});

socketTest('a session of before does not let in: the key is proved every time', async context => {
  const door = await openDoor(context);
  const first = await openTls(door);
  const session = first.getSession();
  assert.ok(session);
  const wrong = { id: door.key.id, secret: seededBytes(32) };
  await assert.rejects(openTls(door, wrong, session), /alert bad record mac/i);
});

/** Tells, of a certificate's server that the process trusts, whether a browser and whether an agent would go in. */
const victim = `
  import { connect as connectTls } from 'node:tls';
  import { once } from 'node:events';
  import { connect } from '#dist/worker/connect.js';
  import { systemClock as clock } from '#dist/shared/clock.js';
  import { systemRandom as random } from '#dist/shared/random.js';
  const port = Number(process.argv[1]);
  const socket = connectTls({ host: '127.0.0.1', port });
  await once(socket, 'secureConnect');
  const isTrusted = socket.authorized;
  socket.end('x');
  socket.resume();
  await once(socket, 'close');
  const key = { id: '0000000000000000', secret: random(32) };
  const join = { host: '127.0.0.1', port, key, isEncrypted: true };
  const options = { nodeId: '${NODE_ID}', maxFrameBytes: 1000, timeoutMs: 10_000, clock, random };
  const outcome = await connect(join, options).then(() => 'connected', error => error.code ?? error.message);
  console.log(JSON.stringify({ isTrusted, outcome }));
`;

for (const versions of [
  { minVersion: 'TLSv1.2', maxVersion: 'TLSv1.3' },
  { minVersion: 'TLSv1.3', maxVersion: 'TLSv1.3' },
  { minVersion: 'TLSv1.2', maxVersion: 'TLSv1.2' },
] as const) {
  socketTest(
    `a man in the middle with a trusted certificate gets no byte, ${versions.minVersion} to ${versions.maxVersion}`,
    async context => {
      const dir = mkdtempSync(joinPath(tmpdir(), 'lockstep-certificate-'));
      context.after(() => rmSync(dir, { recursive: true }));
      const { cert, key } = selfSigned();
      writeFileSync(joinPath(dir, 'cert.pem'), cert);
      let handshakes = 0;
      let bytes = 0;
      const middle = createTlsServer({ cert, key, ...versions }, socket => {
        handshakes++;
        socket.on('data', piece => (bytes += piece.length));
        socket.on('end', () => socket.end());
        socket.on('error', () => {});
      });
      const { port } = await serve(context, middle);
      const child = spawn(process.execPath, ['--input-type=module', '-e', victim, String(port)], {
        env: { ...process.env, NODE_EXTRA_CA_CERTS: joinPath(dir, 'cert.pem') },
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      const output = collect(child.stdout);
      await closed(child);
      const { isTrusted, outcome } = JSON.parse(await output);
      assert.equal(isTrusted, true);
      assert.match(outcome, /answers, but not as the coordinator/);
      assert.equal(handshakes, 1);
      assert.equal(bytes, 1);
    },
  );
}

socketTest('an address that cannot be listened on is a coded error with advice', async context => {
  const door = await openDoor(context);
  const listen = (host: string, port: number) =>
    openDoor(context, { host, port }).then(() => assert.fail('it listens'));
  const { port } = door.address;
  await assert.rejects(listen('127.0.0.1', port), {
    code: 'LOCKSTEP_LISTEN',
    message: `Cannot listen on 127.0.0.1:${port}: another program does. End it, or choose another port; port 0 takes any that is free.`,
  });
  // An address for documentation, RFC 5737.
  await assert.rejects(listen('192.0.2.1', 0), {
    code: 'LOCKSTEP_LISTEN',
    message: /no address of this machine/,
  });
});

randomTest('frames of WebSocket that are damaged end one connection each', async (random, context) => {
  const door = await openDoor(context, { maxFrameBytes: 1000, isInsecure: true });
  const { bytes } = await recorded(context, door, Buffer.alloc(200, 9));
  const before = memoryMiB();
  for (let i = 0; i < 300 * fuzzFactor; i++) {
    const { nonce, socket } = await askNonce(door);
    const request = upgradeRequest(door, nonce);
    const end = closed(socket);
    socket.write(request);
    await once(socket, 'data');
    socket.end(mutated(bytes.frames, random));
    await end;
  }
  assert.ok(memoryMiB() - before < 32, `${memoryMiB() - before} MiB more`);
  await door.enter();
  assert.ok((door.refusals.get('frame') ?? 0) > 20 * fuzzFactor);
});

/** An ordinary error, whose text ends up in a line of its own. */
function isTrouble(text: RegExp): (error: unknown) => boolean {
  return error => {
    assert.ok(error instanceof Error && !(error instanceof LockstepError), messageOf(error));
    assert.match(error.message, text);
    return true;
  };
}

/** What an agent and a door say until the agent is in, and what the agent sends then. */
async function recorded(context: TestContext, door: OpenDoor, frame = Buffer.of(1)) {
  const pieces: Record<'agent' | 'coordinator', Buffer[]> = { agent: [], coordinator: [] };
  const proxy = await startProxy(context, door.address, (piece, from, send) => {
    pieces[from].push(Buffer.from(piece));
    send(piece);
  });
  const { agent, coordinator } = await door.enter({}, proxy);
  coordinator.onFrame = () => {};
  const bytes = { agent: Buffer.concat(pieces.agent), coordinator: Buffer.concat(pieces.coordinator) };
  const before = pieces.agent.length;
  const end = ended(agent);
  agent.send(frame);
  agent.close('enough');
  await end;
  const frames = Buffer.concat(pieces.agent.slice(before));
  const nonce = /lockstep-nonce: (\w+)/.exec(bytes.coordinator.toString('latin1'))?.[1] ?? '';
  return { bytes: { ...bytes, frames }, nonce };
}

/** Flips, cuts, repeats, swaps and invents. */
function mutated(bytes: Buffer, random: Random): Buffer {
  let result = Buffer.from(bytes);
  const changes = 1 + random.integer(4);
  for (let i = 0; i < changes && result.length > 0; i++) {
    const at = random.integer(result.length);
    const end = at + random.integer(Math.min(64, result.length - at) + 1);
    switch (random.integer(6)) {
      case 0:
        result[at] ^= 1 << random.integer(8);
        break;
      case 1:
        result[at] = random.pick([0, 1, 0x7f, 0x80, 0xff, 10, 13, 32]);
        break;
      case 2:
        result = Buffer.concat([result.subarray(0, at), result.subarray(end)]);
        break;
      case 3:
        result = Buffer.concat([result.subarray(0, end), result.subarray(at)]);
        break;
      case 4:
        result = result.subarray(0, at);
        break;
      default:
        for (let j = at; j < end; j++) result[j] = random.integer(256);
    }
  }
  // A lucky draw may have put everything back.
  if (result.equals(bytes)) result[random.integer(Math.min(50, result.length))] ^= 0xff;
  return result;
}

function openTls(door: OpenDoor, key: Key = door.key, session?: Buffer): Promise<TLSSocket> {
  const socket = connectTls({
    ...door.address,
    pskCallback: () => ({
      psk: Buffer.from(key.secret),
      identity: formatIdentity({ keyId: key.id, nodeId: NODE_ID }),
    }),
    ciphers: TLS_CIPHER,
    minVersion: 'TLSv1.2',
    maxVersion: 'TLSv1.2',
    checkServerIdentity: () => undefined,
    ...(session && { session }),
  });
  return new Promise((resolve, reject) => {
    socket.on('error', reject);
    socket.on('secureConnect', () => resolve(socket));
  });
}

/** By one that holds the key and does otherwise as it likes. */
async function openWebSocket(door: OpenDoor): Promise<[WebSocket, TLSSocket]> {
  const wire = await openTls(door);
  const socket = new WebSocket('wss://127.0.0.1/', SUBPROTOCOL, { createConnection: () => wire });
  socket.on('error', () => {});
  await once(socket, 'open');
  return [socket, wire];
}

/** By one that holds the key; gives the answer. */
async function refusedUpgrade(
  door: OpenDoor,
  { path = '/', method = 'GET', protocol = SUBPROTOCOL, origin }: UpgradeRequest,
): Promise<IncomingMessage> {
  const wire = await openTls(door);
  const request = httpRequest({
    createConnection: () => wire,
    path,
    method,
    headers: {
      connection: 'upgrade',
      upgrade: 'websocket',
      'sec-websocket-version': '13',
      'sec-websocket-key': 'AAAAAAAAAAAAAAAAAAAAAA==',
      'sec-websocket-protocol': protocol,
      ...(origin !== undefined && { origin }),
    },
  }).end();
  const [response]: IncomingMessage[] = await once(request, 'response');
  response.resume();
  return response;
}

async function askNonce(door: OpenDoor): Promise<{ nonce: string; socket: Socket }> {
  const socket = await dial(door.address);
  socket.write('GET / HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n');
  const [piece]: Buffer[] = await once(socket, 'data');
  return { nonce: /lockstep-nonce: (\w+)/.exec(piece.toString('latin1'))![1], socket };
}

function upgradeRequest({ key }: OpenDoor, coordinatorNonce: string): string {
  const identity = formatIdentity({ keyId: key.id, nodeId: NODE_ID });
  const agentNonce = '1'.repeat(64);
  const lines = [
    'GET / HTTP/1.1',
    'host: 127.0.0.1',
    'connection: upgrade',
    'upgrade: websocket',
    'sec-websocket-version: 13',
    'sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==',
    `sec-websocket-protocol: ${SUBPROTOCOL}`,
    `${headers.identity}: ${identity}`,
    `${headers.nonce}: ${agentNonce}`,
    `${headers.proof}: ${proofOf(key.secret, 'agent', { coordinatorNonce, agentNonce, identity })}`,
  ];
  return `${lines.join('\r\n')}\r\n\r\n`;
}

/** A coordinator of another make: TLS with the key, and any protocol. */
function serveUpgrades(
  context: TestContext,
  key: Key,
  protocol: string,
  onSocket: (socket: WebSocket) => void,
): Promise<Pick<Join, 'host' | 'port'>> {
  const server = createHttpsServer({
    pskCallback: () => Buffer.from(key.secret),
    ciphers: TLS_CIPHER,
    maxVersion: 'TLSv1.2',
  });
  const upgrades = new WebSocketServer({ server, handleProtocols: () => protocol });
  upgrades.on('connection', onSocket);
  return serve(context, server);
}

async function collect(stream: NodeJS.ReadableStream): Promise<string> {
  const pieces: Buffer[] = [];
  stream.on('data', (piece: Buffer) => pieces.push(piece));
  await closed(stream);
  return Buffer.concat(pieces).toString('latin1');
}

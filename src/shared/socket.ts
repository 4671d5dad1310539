// A Connection over a WebSocket, for both sides: binary messages in one piece and nothing else.

import type { Socket } from 'node:net';
import type { WebSocket } from 'ws';
import type { Connection } from './connection.js';

/** How long the other side may take to agree to the end, before the connection is cut. */
const CLOSE_MS = 2000;
/** What may wait for a slow reader, in frames of the largest size. */
const BUFFERED_FRAMES = 4;
/** What is longer is given to the network in pieces of this, so that it can be seen to move on a slow line. */
const PIECE_BYTES = 262_144;
/** A WebSocket close frame has no room for more. */
const MOST_REASON_BYTES = 123;

/** What the other side must not do; the connection is cut at once. */
export type Offence = 'text' | 'ping' | 'fragments' | 'message-size' | 'frame' | 'slow-reader';

const offences: Record<Offence, string> = {
  text: 'it sent a text message',
  ping: 'it sent a WebSocket ping or pong',
  fragments: 'it sent a message in fragments, or in too many pieces',
  'message-size': 'it sent a message that is too long',
  frame: 'it broke the rules of WebSocket',
  'slow-reader': 'it does not read what it is sent',
};

export interface SocketLimits {
  /** The largest frame that may arrive. */
  readonly maxFrameBytes: number;
  /** The most bytes that may wait to be sent; more cut the connection. By default four of the largest frames. */
  readonly mostBufferedBytes?: number | undefined;
}

/**
 * Options of `ws` for both sides. Nothing of ours sends in fragments, so a second fragment is refused; pings are
 * messages of our own protocol, so none is answered here.
 */
export function socketOptions({ maxFrameBytes }: SocketLimits) {
  // `ws` takes 0 for no limit and keeps 32 bits.
  if (!(maxFrameBytes >= 1 && maxFrameBytes <= 0x7fffffff))
    throw new Error(`maxFrameBytes is ${maxFrameBytes}, expected 1 to 2^31 - 1`);
  return {
    perMessageDeflate: false,
    maxPayload: maxFrameBytes,
    maxFragments: 1,
    // A message waits in the pieces that it came in, and each costs some 200 bytes however short it is. Networks cut
    // no smaller than this on average.
    maxBufferedChunks: 1024 + Math.ceil(maxFrameBytes / 256),
    autoPong: false,
    skipUTF8Validation: true,
    closeTimeout: CLOSE_MS,
  };
}

export interface SocketSide extends SocketLimits {
  /** The other side's address. */
  readonly peer: string;
  readonly onOffence?: (offence: Offence) => void;
}

/** Takes an open WebSocket over, with the stream under it. No frame is read before `onFrame` is set. */
export function connectionOf(socket: WebSocket, stream: Socket, side: SocketSide): Connection {
  return new SocketConnection(socket, stream, side);
}

class SocketConnection implements Connection {
  readonly peer: string;
  onClose: (reason: string) => void = () => {};
  readonly #socket: WebSocket;
  readonly #stream: Socket;
  readonly #side: SocketSide;
  readonly #mostBufferedBytes: number;
  #onFrame: (frame: Uint8Array) => void = () => {};
  #sentBytes: number;
  /** Why this side has ended it, or what broke it. */
  #reason: string | undefined;

  constructor(socket: WebSocket, stream: Socket, side: SocketSide) {
    this.peer = side.peer;
    this.#socket = socket;
    this.#stream = stream;
    // The opening, as the other side's `bytesRead` counts it too.
    this.#sentBytes = stream.bytesWritten;
    writeInPieces(stream, sizeBytes => (this.#sentBytes += sizeBytes));
    this.#side = side;
    this.#mostBufferedBytes = side.mostBufferedBytes ?? BUFFERED_FRAMES * side.maxFrameBytes;
    socket.pause();
    socket.on('message', (data, isBinary) => {
      // As `ws` gives it unless asked for something else.
      if (Buffer.isBuffer(data)) this.#receive(data, isBinary);
    });
    socket.on('ping', () => this.#offend('ping'));
    socket.on('pong', () => this.#offend('ping'));
    socket.on('error', error => {
      const offence = offenceOf(error);
      if (offence) this.#offend(offence);
      else this.#reason ??= error.message;
    });
    socket.on('close', (_, reason) =>
      this.onClose(this.#reason ?? (textOf(reason) || 'the connection broke off')),
    );
  }

  get onFrame(): (frame: Uint8Array) => void {
    return this.#onFrame;
  }

  set onFrame(listener: (frame: Uint8Array) => void) {
    this.#onFrame = listener;
    this.#socket.resume();
  }

  get bufferedBytes(): number {
    return this.#isEnded() ? 0 : this.#socket.bufferedAmount;
  }

  get receivedBytes(): number {
    return this.#stream.bytesRead;
  }

  get sentBytes(): number {
    return this.#sentBytes;
  }

  send(...frames: readonly Uint8Array[]): void {
    if (this.#isEnded()) return;
    // Else the second would wait until this tick has ended, behind what goes to others meanwhile.
    this.#stream.cork();
    for (const frame of frames) this.#socket.send(frame, { binary: true, compress: false });
    this.#stream.uncork();
    if (this.bufferedBytes > this.#mostBufferedBytes) this.#offend('slow-reader');
  }

  close(reason: string): void {
    if (this.#isEnded()) return;
    this.#reason = reason;
    this.#socket.close(1000, shortened(reason));
    // The answer to the end must be read even where nobody has set a listener.
    this.#socket.resume();
  }

  destroy(reason: string): void {
    this.#reason ??= reason;
    this.#socket.terminate();
  }

  #receive(data: Buffer, isBinary: boolean): void {
    if (this.#isEnded()) return;
    if (isBinary) this.#onFrame(data);
    else this.#offend('text');
  }

  #offend(offence: Offence): void {
    if (this.#reason !== undefined) return;
    this.destroy(offences[offence]);
    this.#side.onOffence?.(offence);
  }

  #isEnded(): boolean {
    return this.#reason !== undefined || this.#socket.readyState !== this.#socket.OPEN;
  }
}

interface Chunk {
  readonly chunk: Uint8Array;
  readonly encoding: BufferEncoding;
}

/**
 * Has a stream tell what the network has taken of what is written to it. Measured: `bytesWritten` counts what still waits,
 * and under TLS a frame of 20 MB is seen to wait whole until the last of its bytes has gone.
 */
function writeInPieces(stream: Socket, onTaken: (sizeBytes: number) => void): void {
  const write = stream._write.bind(stream);
  const writeAll = stream._writev!.bind(stream);
  const writePieces = async (chunks: readonly Chunk[]): Promise<void> => {
    for (const { chunk, encoding } of chunks) {
      for (let at = 0; at < chunk.length; at += PIECE_BYTES) {
        const piece = chunk.subarray(at, at + PIECE_BYTES);
        await new Promise<void>((resolve, reject) =>
          write(piece, encoding, error => (error ? reject(error) : resolve())),
        );
        onTaken(piece.length);
      }
    }
  };
  stream._writev = (chunks: readonly Chunk[], done) => {
    const sizeBytes = chunks.reduce((sum, { chunk }) => sum + chunk.length, 0);
    if (sizeBytes > PIECE_BYTES) {
      writePieces(chunks).then(() => done(), done);
      return;
    }
    writeAll([...chunks], error => {
      if (!error) onTaken(sizeBytes);
      done(error);
    });
  };
  stream._write = (chunk: Uint8Array, encoding, done) => stream._writev!([{ chunk, encoding }], done);
}

function offenceOf(error: Error): Offence | undefined {
  const code = 'code' in error ? String(error.code) : '';
  switch (code) {
    case 'WS_ERR_UNSUPPORTED_MESSAGE_LENGTH':
    case 'WS_ERR_UNSUPPORTED_DATA_PAYLOAD_LENGTH':
      return 'message-size';
    case 'WS_ERR_TOO_MANY_BUFFERED_PARTS':
      return 'fragments';
    default:
      return code.startsWith('WS_ERR_') ? 'frame' : undefined;
  }
}

/** As much of it as fits, in whole characters. */
function shortened(reason: string): string {
  let short = '';
  for (const character of reason) {
    if (Buffer.byteLength(short + character) > MOST_REASON_BYTES) break;
    short += character;
  }
  return short;
}

/** What the other side gave as its reason: it goes to a terminal. */
function textOf(reason: Buffer): string {
  return reason.toString('utf8').replaceAll(/\p{C}/gu, '');
}

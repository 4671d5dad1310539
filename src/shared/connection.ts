// One side of an open, authenticated connection between the coordinator and an agent, whatever carries it.

/** Whole frames in order, or the connection's end. */
export interface Connection {
  /** The other side's address, for messages. */
  readonly peer: string;
  /** Given to `send` and not yet taken by the network. */
  readonly bufferedBytes: number;
  /** That the network has brought, whether or not they make a whole frame yet: they move while a large one trickles in. */
  readonly receivedBytes: number;
  /** That the network has taken, in the same measure: they move while a large frame drains. */
  readonly sentBytes: number;
  /** Called with each frame that arrives. Set once, in the same tick in which the connection is handed over. */
  onFrame: (frame: Uint8Array) => void;
  /** Called once, when the connection has ended, by either side or the network. */
  onClose: (reason: string) => void;
  /**
   * What is sent in one call leaves together. No frame may change before nothing is buffered any more. Does nothing on
   * an ended connection.
   */
  send(...frames: readonly Uint8Array[]): void;
  /** Sends what is buffered, for a while, and ends the connection; the other side is given the reason where possible. */
  close(reason: string): void;
  /** Ends the connection at once. */
  destroy(reason: string): void;
}

// The join line: everything an agent needs to reach and to convince a coordinator, in one word to paste.

/** A key that both sides share. */
export interface Key {
  /** Public: 16 hexadecimal digits. */
  readonly id: string;
  /** 32 bytes. */
  readonly secret: Uint8Array;
}

export interface Join {
  readonly host: string;
  readonly port: number;
  readonly key: Key;
  /** Whether the connection is encrypted; where not, the key is proved by an HMAC. */
  readonly isEncrypted: boolean;
}

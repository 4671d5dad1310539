// Reads messages of protobuf without knowing their types: the fields by their numbers.

import assert from 'node:assert/strict';

/** Numbers of varints, and the bytes of texts and messages, in their order. */
export class Message {
  readonly #fields = new Map<number, (number | Buffer)[]>();

  constructor(bytes: Buffer) {
    let at = 0;
    const varint = (): number => {
      for (let value = 0, factor = 1; ; factor *= 128) {
        const byte = bytes[at++];
        value += (byte & 127) * factor;
        if (byte < 128) return value;
      }
    };
    while (at < bytes.length) {
      const key = varint();
      assert.ok([0, 2].includes(key & 7), `wire type ${key & 7}`);
      let value: number | Buffer = varint();
      if ((key & 7) === 2) value = bytes.subarray(at, (at += value));
      const number = Math.floor(key / 8);
      this.#fields.set(number, [...(this.#fields.get(number) ?? []), value]);
    }
    assert.equal(at, bytes.length);
  }

  numbers(field: number): number[] {
    return (this.#fields.get(field) ?? []).map(value => {
      assert.ok(typeof value === 'number');
      return value;
    });
  }

  bytes(field: number): Buffer[] {
    return (this.#fields.get(field) ?? []).map(value => {
      assert.ok(typeof value !== 'number');
      return value;
    });
  }

  texts(field: number): string[] {
    return this.bytes(field).map(value => value.toString());
  }

  messages(field: number): Message[] {
    return this.bytes(field).map(value => new Message(value));
  }
}

// Messages, and how they lie in the bytes of stream 0 (SPEC section 4.1).

import { ProtocolError } from './close.js';
import { decodeUtf8 } from './frames.js';
import { readVarint, varintLength, Writer } from './varint.js';

/** One ordered, reliable unit: text or bytes. */
export type Message = string | Uint8Array<ArrayBuffer>;

/** The bytes that stand for a message in the stream: header and body, a copy of what the application gave. */
export function encodeMessage(text: boolean, body: Uint8Array): Uint8Array {
  const out = new Writer(1 + varintLength(body.length) + body.length);
  out.u8(text ? 1 : 0);
  out.varint(body.length);
  out.bytes(body);
  return out.finish();
}

/** A message, and what it cost of the stream's credit: header and body. */
export interface Assembled {
  readonly message: Message;
  readonly cost: number;
}

/** Puts messages together from the bytes of stream 0, which arrive in pieces of any size. */
export class Assembler {
  readonly #maxMessage: number;
  readonly #header = new Uint8Array(16);
  #headerLength = 0;
  /** Length of the body, once the header is read. */
  #length = -1;
  #text = false;
  #body: Uint8Array<ArrayBuffer> = EMPTY;
  #have = 0;

  constructor(maxMessage: number) {
    this.#maxMessage = maxMessage;
  }

  /** Takes the next bytes of the stream and calls `each` with every message that is whole now. Throws ProtocolError. */
  push(data: Uint8Array, each: (assembled: Assembled) => void): void {
    let at = 0;
    for (;;) {
      while (this.#length < 0) {
        const byte = data[at];
        if (byte === undefined) {
          return;
        }
        at++;
        this.#header[this.#headerLength++] = byte;
        this.#readHeader();
      }
      const missing = this.#length - this.#have;
      const part = data.subarray(at, at + missing);
      at += part.length;
      if (part.length < missing) {
        this.#keep(part);
        return;
      }
      let whole = part;
      if (this.#have > 0) {
        this.#keep(part);
        whole = this.#body;
      }
      const cost = this.#headerLength + this.#length;
      const text = this.#text;
      const kept = this.#have > 0;
      this.#headerLength = 0;
      this.#length = -1;
      this.#body = EMPTY;
      this.#have = 0;
      each({
        message: text ? decodeText(whole) : kept ? (whole as Uint8Array<ArrayBuffer>) : whole.slice(),
        cost,
      });
    }
  }

  #readHeader(): void {
    const bytes = this.#header.subarray(0, this.#headerLength);
    const kind = readVarint(bytes, 0);
    if (kind === null) {
      return;
    }
    const length = readVarint(bytes, kind.end);
    if (!(kind.value <= 1)) {
      throw new ProtocolError('MALFORMED_MESSAGE', `unknown kind of message ${kind.value}`);
    }
    if (length === null) {
      return;
    }
    if (Number.isNaN(length.value)) {
      throw new ProtocolError('MALFORMED_MESSAGE', 'a length above 2^53 - 1');
    }
    if (length.value > this.#maxMessage) {
      throw new ProtocolError('MESSAGE_TOO_LARGE', `a message of ${length.value} bytes`);
    }
    this.#text = kind.value === 1;
    this.#length = length.value;
  }

  /** The buffer grows with what arrives, by doubling, not with what a header claims. */
  #keep(part: Uint8Array): void {
    const needed = this.#have + part.length;
    if (needed > this.#body.length) {
      const larger = new Uint8Array(Math.min(this.#length, Math.max(needed, this.#body.length * 2)));
      larger.set(this.#body.subarray(0, this.#have));
      this.#body = larger;
    }
    this.#body.set(part, this.#have);
    this.#have = needed;
  }
}

function decodeText(bytes: Uint8Array): string {
  return decodeUtf8(bytes, () => new ProtocolError('MALFORMED_MESSAGE', 'a text that is not UTF-8'));
}

const EMPTY = new Uint8Array(0);

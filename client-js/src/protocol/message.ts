// Messages, and how they lie in the bytes of stream 0 (SPEC section 4.1).

import { ProtocolError } from './close.js';
import { Splitter } from './codec.js';
import { decodeUtf8 } from './frames.js';
import { Writer } from './varint.js';

/** One ordered, reliable unit: text or bytes. */
export type Message = string | Uint8Array<ArrayBuffer>;

/** A message, and what it cost of the stream's credit: header and body. */
export interface Assembled {
  readonly message: Message;
  readonly cost: number;
}

/** The bytes that stand for a message in the stream: header and body, a copy of what the application gave. */
export function encodeMessage(text: boolean, body: Uint8Array): Uint8Array {
  const out = new Writer(body.length + 9);
  out.u8(text ? 1 : 0);
  out.varint(body.length);
  out.bytes(body);
  return out.finish();
}

/** Puts messages together from the bytes of stream 0, which arrive in pieces of any size. Throws ProtocolError. */
export function assembler(maxMessage: number): Splitter<Assembled> {
  return new Splitter(
    (kind, length) => {
      if (!(kind <= 1 && length >= 0)) {
        throw new ProtocolError('MALFORMED_MESSAGE', `message of kind ${kind}`);
      }
      if (length > maxMessage) {
        throw new ProtocolError('MESSAGE_TOO_LARGE', `a message of ${length} bytes`);
      }
    },
    (kind, body, cost) => ({
      message: kind
        ? decodeUtf8(body, () => new ProtocolError('MALFORMED_MESSAGE', 'not UTF-8'))
        : body.slice(),
      cost,
    }),
  );
}

// Messages, and how they lie in the bytes of stream 0 (SPEC section 4.1).

import { ProtocolError } from './close.js';
import { Splitter } from './codec.js';
import { MAX_CHANNEL_HEADER } from './limits.js';
import { Reader, Writer } from './varint.js';

/** One ordered, reliable unit: text or bytes. */
export type Message = string | Uint8Array<ArrayBuffer>;

/** The kind of channel messages, which are not the application's; 0 is binary, 1 text. */
export const CHANNEL = 2;

/** A message, or the body of a channel message, which is valid during the call; and what it cost of the stream's credit: header and body. */
export type Assembled =
  | { readonly message: Message; readonly cost: number }
  | { readonly channel: Uint8Array; readonly cost: number };

/** The bytes that stand for a message in the stream: header and body, a copy of what the application gave. */
export function encodeMessage(text: boolean, body: Uint8Array): Uint8Array {
  const out = new Writer(body.length + 9);
  out.u8(text ? 1 : 0);
  out.varint(body.length);
  out.bytes(body);
  return out.finish();
}

/** What the application gets of a body of `kind`, which must be 0 or 1. Throws ProtocolError. */
export function decodeMessage(kind: number, body: Uint8Array): Message {
  const malformed = () => new ProtocolError('MALFORMED_MESSAGE', `not a message of kind ${kind}`);
  const reader = new Reader(body, malformed);
  reader.check(kind <= 1);
  return kind ? reader.text(body) : body.slice();
}

/** Puts messages together from the bytes of stream 0, which arrive in pieces of any size. Throws ProtocolError. */
export function assembler(maxMessage: number): Splitter<Assembled> {
  return new Splitter(
    (kind, length) => {
      if (!(kind <= CHANNEL && length >= 0)) {
        throw new ProtocolError('MALFORMED_MESSAGE', `message of kind ${kind}`);
      }
      if (length > maxMessage + (kind === CHANNEL ? MAX_CHANNEL_HEADER : 0)) {
        throw new ProtocolError('MESSAGE_TOO_LARGE', `a message of ${length} bytes`);
      }
    },
    (kind, body, cost) =>
      kind === CHANNEL ? { channel: body, cost } : { message: decodeMessage(kind, body), cost },
  );
}

// Messages, and how they lie in the bytes of stream 0 (SPEC section 4.1): the application's, and the protocol's own.

import { ProtocolError } from './close.js';
import { Splitter } from './codec.js';
import { MAX_CONTROL_HEADER } from './limits.js';
import { Reader, Writer } from './varint.js';

/** One ordered, reliable unit: text or bytes. */
export type Message = string | Uint8Array<ArrayBuffer>;

/** The kinds of channel messages and of request messages, which are not the application's; 0 is binary, 1 text. */
export const CHANNEL = 2;
export const REQUEST = 3;
/** Where the kind of what a message carries can be none: a value that was removed, an answer without data. */
const NOTHING = 2;

/** A message, or the body of a message of the protocol's own, which is valid during the call; and what it cost of the stream's credit: header and body. */
export type Assembled =
  | { readonly message: Message; readonly cost: number }
  | { readonly kind: typeof CHANNEL | typeof REQUEST; readonly body: Uint8Array; readonly cost: number };

/** The bytes that stand for a message in the stream: header and body, a copy of what the application gave. */
export function encodeMessage(text: boolean, body: Uint8Array): Uint8Array {
  const out = new Writer(body.length + 9);
  out.u8(text ? 1 : 0);
  out.varint(body.length);
  out.bytes(body);
  return out.finish();
}

/** A field of a message of the protocol's own: a number, a string behind its length, or bytes as they are. */
export type Field = number | string | Uint8Array;

export function encodeFields(...fields: Field[]): Uint8Array {
  const out = new Writer();
  for (const field of fields) {
    if (typeof field === 'number') {
      out.varint(field);
    } else {
      const bytes = typeof field === 'string' ? new TextEncoder().encode(field) : field;
      if (bytes !== field) {
        out.varint(bytes.length);
      }
      out.bytes(bytes);
    }
  }
  return out.finish();
}

/** The bytes that stand for a message of the protocol's own in stream 0: `id` numbers what it is about. */
export function encodeControl(kind: number, op: number, id: number, fields: Uint8Array): Uint8Array {
  const start = encodeFields(op, id);
  return encodeFields(kind, start.length + fields.length, start, fields);
}

/** Reads these bytes again. */
export function decodeControl(encoded: Uint8Array): { op: number; id: number; fields: Uint8Array } {
  const reader = new Reader(encoded, () => new RangeError());
  reader.int(); // the kind
  reader.int(); // the length
  return { op: reader.int(), id: reader.int(), fields: reader.rest() };
}

/** The fields for what a message carries, kind and data: `undefined` is nothing. */
export function contentFields(data: Message | Uint8Array | undefined): [kind: number, data: Uint8Array] {
  return typeof data === 'string'
    ? [1, new TextEncoder().encode(data)]
    : [data ? 0 : NOTHING, data ?? new Uint8Array(0)];
}

/** Reads these fields, which are the last ones; `undefined` when they say that there is nothing. */
export function readContent(fields: Reader): Message | undefined {
  const kind = fields.int();
  if (kind === NOTHING) {
    fields.end();
    return;
  }
  return readMessage(fields, kind, fields.rest());
}

/** What the application gets of `body`, whose `kind` must be 0 or 1. */
export function readMessage(fields: Reader, kind: number, body: Uint8Array): Message {
  fields.check(kind <= 1);
  return kind ? fields.text(body) : body.slice();
}

function malformedMessage(): ProtocolError {
  return new ProtocolError('MALFORMED_MESSAGE', 'a text that is not UTF-8');
}

/** Puts messages together from the bytes of stream 0, which arrive in pieces of any size. Throws ProtocolError. */
export function assembler(maxMessage: number): Splitter<Assembled> {
  return new Splitter(
    (kind, length) => {
      if (!(kind <= REQUEST && length >= 0)) {
        throw new ProtocolError('MALFORMED_MESSAGE', `message of kind ${kind}`);
      }
      if (length > maxMessage + (kind < CHANNEL ? 0 : MAX_CONTROL_HEADER)) {
        throw new ProtocolError('MESSAGE_TOO_LARGE', `a message of ${length} bytes`);
      }
    },
    (kind, body, cost) =>
      kind === CHANNEL || kind === REQUEST
        ? { kind, body, cost }
        : { message: readMessage(new Reader(body, malformedMessage), kind, body), cost },
  );
}

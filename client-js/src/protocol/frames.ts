// Frames and their bytes (SPEC section 3).

import { toBase64Url } from './base64.js';
import { type Close, ProtocolError } from './close.js';
import { MAX_DATAGRAM, MAX_REASON, MAX_TOKEN, MAX_U32 } from './limits.js';
import { Reader, readVarint, varintLength, Writer } from './varint.js';

/** The content of WELCOME (SPEC section 3.1). */
export interface Welcome {
  readonly version: number;
  /** The session's id, as text of 22 characters. */
  readonly session: string;
  /** The secret that lets its holder resume the session, as text of 22 characters. */
  readonly key: string;
  readonly resumed: boolean;
  /** Whether native datagrams of the server on this link begin with a mark (SPEC section 5). */
  readonly marked: boolean;
  /** Number of this link within the session, from 1. */
  readonly link: number;
  /** The server's clock, in microseconds since the Unix epoch. */
  readonly timeUs: number;
  readonly heartbeatMs: number;
  readonly idleMs: number;
  /** The longest message body, in bytes. */
  readonly maxMessage: number;
  /** What the server has received of stream 0, in bytes. */
  readonly received: number;
  /** The client may send bytes of stream 0 below this offset. */
  readonly limit: number;
  /** How many streams the client may open in all. */
  readonly streams: number;
  /** How long the server keeps a session without a link, in milliseconds. */
  readonly windowMs: number;
  /** How long what the client has authenticated with is good for, in milliseconds; 0: for ever. */
  readonly expiresMs: number;
}

/** One frame. Byte arrays are views that are valid until the next bytes are decoded. */
export type Frame =
  | { readonly type: 'welcome'; readonly welcome: Welcome }
  | { readonly type: 'close'; readonly close: Close }
  | { readonly type: 'stream'; readonly stream: number; readonly offset: number; readonly data: Uint8Array }
  | { readonly type: 'ack'; readonly stream: number; readonly received: number; readonly limit: number }
  | { readonly type: 'datagram'; readonly data: Uint8Array }
  | { readonly type: 'ping'; readonly id: number }
  | { readonly type: 'pong'; readonly id: number; readonly timeUs: number }
  | { readonly type: 'end'; readonly stream: number; readonly size: number }
  | { readonly type: 'reset'; readonly stream: number; readonly code: number }
  | { readonly type: 'stop'; readonly stream: number; readonly code: number }
  | { readonly type: 'streams'; readonly limit: number }
  | { readonly type: 'taken'; readonly count: number }
  | { readonly type: 'goaway'; readonly delayMs: number }
  /** A value of a channel of state. */
  | { readonly type: 'state'; readonly data: Uint8Array }
  | { readonly type: 'token'; readonly token: string }
  /** 0: what the client has authenticated with does not end. */
  | { readonly type: 'expires'; readonly inMs: number };

const WELCOME = 1;
const CLOSE = 2;
const STREAM = 3;
export const ACK = 4;
const DATAGRAM = 5;
export const PING = 6;
export const PONG = 7;
export const END = 8;
export const RESET = 9;
export const STOP = 10;
export const STREAMS = 11;
export const TAKEN = 12;
export const GOAWAY = 13;
const STATE = 14;
const TOKEN = 15;
export const EXPIRES = 16;

/** `received` of an ACK that confirms END or RESET. */
export const DONE = Number.MAX_SAFE_INTEGER;

/** Bytes that a STREAM frame needs beside its data, at most. */
export const MAX_STREAM_HEADER = 21;
/** Bytes of a frame of varints, at most: ACK, with three of them. */
export const MAX_FIELDS_FRAME = 26;
/** Bytes that a TOKEN frame takes, at most. */
export const MAX_TOKEN_FRAME = MAX_TOKEN + 3;
/** Bytes that a DATAGRAM frame needs beside its data, at most. */
export const MAX_DATAGRAM_HEADER = 3;

/** Reads the payload of a frame of type `kind`; throws ProtocolError. */
export function decodeFrame(kind: number, payload: Uint8Array): Frame {
  const fields = new Reader(payload, () => new ProtocolError('MALFORMED_FRAME', `malformed frame ${kind}`));
  const int = () => fields.int();
  const u32 = (): number => {
    const value = int();
    fields.check(value <= MAX_U32);
    return value;
  };
  let frame: Frame;
  switch (kind) {
    case WELCOME: {
      const version = int();
      const session = toBase64Url(fields.take(16));
      const key = toBase64Url(fields.take(16));
      const flags = int();
      const welcome: Welcome = {
        version,
        session,
        key,
        resumed: flags % 2 === 1,
        marked: flags % 4 > 1,
        link: int(),
        timeUs: int(),
        heartbeatMs: int(),
        idleMs: int(),
        maxMessage: int(),
        received: int(),
        limit: int(),
        streams: int(),
        windowMs: int(),
        // Servers of before do not say it.
        expiresMs: fields.isOver ? 0 : int(),
      };
      fields.check(welcome.heartbeatMs > 0 && welcome.idleMs > 0);
      // Bytes after the known fields are for later versions.
      return { type: 'welcome', welcome };
    }
    case CLOSE: {
      const code = u32();
      const [origin = 0] = fields.take(1);
      const reason = fields.rest();
      fields.check(origin <= 1 && reason.length <= MAX_REASON);
      return {
        type: 'close',
        close: { code, application: origin === 1, reason: fields.text(reason) },
      };
    }
    case STREAM: {
      const stream = int();
      const offset = int();
      const data = fields.rest();
      fields.check(Number.isSafeInteger(offset + data.length));
      return { type: 'stream', stream, offset, data };
    }
    case ACK:
      frame = { type: 'ack', stream: int(), received: int(), limit: int() };
      break;
    case DATAGRAM:
    case STATE:
      checkDatagram(payload);
      return { type: kind === STATE ? 'state' : 'datagram', data: payload };
    case TOKEN:
      fields.check(payload.length > 0 && payload.length <= MAX_TOKEN);
      return { type: 'token', token: fields.text(payload) };
    case EXPIRES:
      frame = { type: 'expires', inMs: int() };
      break;
    case PING:
      frame = { type: 'ping', id: int() };
      break;
    case PONG:
      frame = { type: 'pong', id: int(), timeUs: int() };
      break;
    case END:
      frame = { type: 'end', stream: int(), size: int() };
      break;
    case RESET:
      frame = { type: 'reset', stream: int(), code: u32() };
      break;
    case STOP:
      frame = { type: 'stop', stream: int(), code: u32() };
      break;
    case STREAMS:
      frame = { type: 'streams', limit: int() };
      break;
    case TAKEN:
      frame = { type: 'taken', count: int() };
      break;
    case GOAWAY:
      frame = { type: 'goaway', delayMs: u32() };
      break;
    default:
      throw new ProtocolError('UNKNOWN_FRAME', `unknown frame ${kind}`);
  }
  fields.end();
  return frame;
}

/** A native datagram of the server's as the frame that it stands for; `undefined` when its mark is none that is known. */
export function readDatagram(
  bytes: Uint8Array,
  marked: boolean,
): Extract<Frame, { readonly type: 'datagram' | 'state' }> | undefined {
  const mark = marked ? readVarint(bytes, 0) : { value: 0, end: 0 };
  if (mark?.value !== 0 && mark?.value !== 1) {
    return;
  }
  return { type: mark.value ? 'state' : 'datagram', data: bytes.subarray(mark.end) };
}

/** Throws ProtocolError for a datagram that is too long. */
export function checkDatagram({ length }: Uint8Array): void {
  if (length > MAX_DATAGRAM) {
    throw new ProtocolError('DATAGRAM_TOO_LARGE', `a datagram of ${length} bytes`);
  }
}

/** Writes a frame whose fields are all varints: any but WELCOME, CLOSE, STREAM, DATAGRAM, STATE and TOKEN. */
export function writeFields(out: Writer, kind: number, ...fields: number[]): void {
  const payload = new Writer();
  for (const field of fields) {
    payload.varint(field);
  }
  writeFrame(out, kind, payload.finish());
}

export function writeDatagram(out: Writer, data: Uint8Array): void {
  writeFrame(out, DATAGRAM, data);
}

/** Writes what a server says of a value: `payload` are the fields of VALUE from its number on. */
export function writeState(out: Writer, payload: Uint8Array): void {
  writeFrame(out, STATE, payload);
}

export function writeToken(out: Writer, token: string): void {
  writeFrame(out, TOKEN, new TextEncoder().encode(token));
}

/** Everything of a STREAM frame but its `length` bytes of data. */
export function writeStreamHeader(out: Writer, stream: number, offset: number, length: number): void {
  out.varint(STREAM);
  out.varint(varintLength(stream) + varintLength(offset) + length);
  out.varint(stream);
  out.varint(offset);
}

export function writeClose(out: Writer, close: Close): void {
  const payload = new Writer();
  payload.varint(close.code);
  payload.u8(close.application ? 1 : 0);
  payload.bytes(new TextEncoder().encode(close.reason));
  writeFrame(out, CLOSE, payload.finish());
}

function writeFrame(out: Writer, kind: number, payload: Uint8Array): void {
  out.varint(kind);
  out.varint(payload.length);
  out.bytes(payload);
}

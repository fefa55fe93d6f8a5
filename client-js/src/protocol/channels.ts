// Channel messages (SPEC section 10): what a client asks, and what a server says.

import { ProtocolError } from './close.js';
import { CHANNEL, decodeMessage, type Message } from './message.js';
import { Reader, varintLength, Writer } from './varint.js';

export const SUBSCRIBE = 1;
export const UNSUBSCRIBE = 2;
export const PUBLISH = 3;
export const SUBSCRIBED = 4;
export const DONE = 5;
export const FAILED = 6;
export const PUBLICATION = 7;
export const UNSUBSCRIBED = 8;
export const SKIPPED = 9;

/** Why a request failed, or a subscription ended: the number of a name is its place in this list. */
export const CHANNEL_CODES = [
  'NORMAL',
  'NOT_ALLOWED',
  'BAD_CHANNEL',
  'TOO_MANY',
  'TOO_LARGE',
  'NOT_SUBSCRIBED',
  'ALREADY_SUBSCRIBED',
  'UNAVAILABLE',
  'TOO_SLOW',
] as const;

/** Name of one of the codes of channels. */
export type ChannelCode = (typeof CHANNEL_CODES)[number];

/** A place in a channel: offsets count its publications from 1, within an epoch; it is another when the count begins anew. */
export interface Position {
  readonly epoch: number;
  readonly offset: number;
}

/** What a server says. */
export type ChannelMessage =
  | {
      readonly op: typeof SUBSCRIBED;
      readonly request: number;
      readonly number: number;
      readonly recovered: boolean;
      readonly position: Position;
    }
  | { readonly op: typeof DONE; readonly request: number; readonly position: Position }
  | { readonly op: typeof FAILED; readonly request: number; readonly code: number; readonly reason: string }
  | {
      readonly op: typeof PUBLICATION;
      readonly number: number;
      readonly offset: number;
      readonly data: Message;
    }
  | {
      readonly op: typeof UNSUBSCRIBED;
      readonly number: number;
      readonly code: number;
      readonly reason: string;
    }
  | { readonly op: typeof SKIPPED; readonly number: number; readonly offset: number };

/** Reads the body of a channel message; throws ProtocolError. */
export function decodeChannel(body: Uint8Array): ChannelMessage {
  const fields = new Reader(body, () => new ProtocolError('MALFORMED_MESSAGE', 'malformed channel message'));
  const int = () => fields.int();
  const position = (): Position => ({ epoch: int(), offset: int() });
  const reason = () => fields.text(fields.take(int()));
  const op = int();
  const about = int();
  let message: ChannelMessage;
  switch (op) {
    case SUBSCRIBED:
      message = { op, request: about, number: int(), recovered: int() % 2 === 1, position: position() };
      break;
    case DONE:
      message = { op, request: about, position: position() };
      break;
    case FAILED:
      message = { op, request: about, code: int(), reason: reason() };
      break;
    case PUBLICATION:
      message = { op, number: about, offset: int(), data: decodeMessage(int(), fields.rest()) };
      break;
    case UNSUBSCRIBED:
      message = { op, number: about, code: int(), reason: reason() };
      break;
    case SKIPPED:
      message = { op, number: about, offset: int() };
      break;
    default:
      throw new ProtocolError('MALFORMED_MESSAGE', `channel message of op ${op}`);
  }
  fields.end();
  return message;
}

/** What follows the number of a request: the channel's name, numbers, data. */
export function requestFields(
  channel: Uint8Array,
  numbers: readonly number[] = [],
  data: Uint8Array = new Uint8Array(0),
): Uint8Array {
  const out = new Writer(channel.length + data.length + 32);
  out.varint(channel.length);
  out.bytes(channel);
  for (const number of numbers) {
    out.varint(number);
  }
  out.bytes(data);
  return out.finish();
}

/** The bytes that stand for a request in stream 0, the header of the message included. */
export function encodeRequest(op: number, request: number, fields: Uint8Array): Uint8Array {
  const out = new Writer(fields.length + 18);
  out.u8(CHANNEL);
  out.varint(1 + varintLength(request) + fields.length);
  out.u8(op);
  out.varint(request);
  out.bytes(fields);
  return out.finish();
}

/** The fields of a request from its bytes in stream 0. */
export function fieldsOf(encoded: Uint8Array): Uint8Array {
  const reader = new Reader(encoded, () => new RangeError());
  for (let skipped = 0; skipped < 4; skipped++) {
    reader.int(); // kind and length of the message, op, number
  }
  return reader.rest();
}

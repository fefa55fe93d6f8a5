// Channel messages (SPEC sections 10 and 10.1): what a client asks, and what a server says.

import { type CodeName, ProtocolError } from './close.js';
import { MAX_NAME } from './limits.js';
import { type Message, readContent, readMessage } from './message.js';
import { Reader } from './varint.js';

export const SUBSCRIBE = 1;
export const UNSUBSCRIBE = 2;
export const PUBLISH = 3;
export const SUBSCRIBED = 4;
export const DONE = 5;
export const FAILED = 6;
export const PUBLICATION = 7;
export const UNSUBSCRIBED = 8;
export const SKIPPED = 9;
export const SNAPSHOT = 10;
export const VALUE = 11;
export const SETTLED = 12;
export const SET = 13;
export const HISTORY = 14;
export const PAGE = 15;
export const ADDED = 16;

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
  'WRONG_KIND',
  'TOO_MANY_KEYS',
  'TOO_FAST',
] as const;

/** Name of one of the codes of channels. */
export type ChannelCode = (typeof CHANNEL_CODES)[number];

/** A place in a channel: offsets count its publications from 1, within an epoch; it is another when the count begins anew. */
export interface Position {
  readonly epoch: number;
  readonly offset: number;
}

/** What was published, and its place. */
export interface Publication {
  readonly data: Message;
  readonly offset: number;
}

/** A change in a channel of state. */
export interface Value {
  readonly number: number;
  readonly offset: number;
  readonly key: string;
  /** `undefined`: the key was removed. */
  readonly data: Message | undefined;
}

/** What SUBSCRIBED and ADDED have in common. */
interface Begun {
  readonly number: number;
  /** It is a channel of state. */
  readonly state: boolean;
  readonly position: Position;
}

/** What a server says. */
export type ChannelMessage =
  | ({ readonly op: typeof SUBSCRIBED; readonly request: number; readonly recovered: boolean } & Begun)
  | ({ readonly op: typeof ADDED; readonly channel: string } & Begun)
  | { readonly op: typeof DONE; readonly request: number; readonly position: Position }
  | { readonly op: typeof FAILED; readonly request: number; readonly code: number; readonly reason: string }
  | {
      readonly op: typeof PAGE;
      readonly request: number;
      readonly complete: boolean;
      readonly more: boolean;
      readonly position: Position;
      readonly publications: readonly Publication[];
    }
  | ({ readonly op: typeof PUBLICATION; readonly number: number } & Publication)
  | {
      readonly op: typeof UNSUBSCRIBED;
      readonly number: number;
      readonly code: number;
      readonly reason: string;
    }
  | { readonly op: typeof SNAPSHOT; readonly number: number }
  | ({ readonly op: typeof VALUE } & Value)
  | { readonly op: typeof SKIPPED | typeof SETTLED; readonly number: number; readonly offset: number };

/** Reads the body of a channel message; throws ProtocolError. */
export function decodeChannel(body: Uint8Array): ChannelMessage {
  const fields = reader('MALFORMED_MESSAGE', body);
  const int = () => fields.int();
  const position = (): Position => ({ epoch: int(), offset: int() });
  const op = int();
  const about = int();
  let message: ChannelMessage;
  switch (op) {
    case SUBSCRIBED: {
      const number = int();
      const flags = int();
      const begun = { number, state: flags % 4 > 1, position: position() };
      message = { op, request: about, recovered: flags % 2 === 1, ...begun };
      break;
    }
    case ADDED:
      message = {
        op,
        number: about,
        channel: fields.string(),
        state: int() % 4 > 1,
        position: position(),
      };
      break;
    case DONE:
      message = { op, request: about, position: position() };
      break;
    case FAILED:
      message = { op, request: about, code: int(), reason: fields.string() };
      break;
    case PAGE: {
      const flags = int();
      const newest = position();
      const publications: Publication[] = [];
      for (let left = int(); left > 0; left--) {
        const offset = int();
        publications.push({ offset, data: readMessage(fields, int(), fields.take(int())) });
      }
      const said = { complete: flags % 2 === 1, more: flags % 4 > 1, position: newest, publications };
      message = { op, request: about, ...said };
      break;
    }
    case PUBLICATION:
      message = { op, number: about, offset: int(), data: readMessage(fields, int(), fields.rest()) };
      break;
    case UNSUBSCRIBED:
      message = { op, number: about, code: int(), reason: fields.string() };
      break;
    case SNAPSHOT:
      message = { op, number: about };
      break;
    case VALUE:
      message = { op, ...readValue(about, fields) };
      break;
    case SKIPPED:
    case SETTLED:
      message = { op, number: about, offset: int() };
      break;
    default:
      throw new ProtocolError('MALFORMED_MESSAGE', `channel message of op ${op}`);
  }
  fields.end();
  return message;
}

/** Reads the value that came as a datagram; throws ProtocolError. */
export function decodeState(payload: Uint8Array): Value {
  const fields = reader('MALFORMED_FRAME', payload);
  return readValue(fields.int(), fields);
}

function readValue(number: number, fields: Reader): Value {
  const offset = fields.int();
  const key = fields.take(fields.int());
  fields.check(key.length <= MAX_NAME);
  return { number, offset, key: fields.text(key), data: readContent(fields) };
}

function reader(code: CodeName, body: Uint8Array): Reader {
  return new Reader(body, () => new ProtocolError(code, 'malformed channel message'));
}

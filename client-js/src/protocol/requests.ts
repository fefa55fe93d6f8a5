// Request messages (SPEC section 11): what either side asks the other, and how that is answered.

import { ProtocolError } from './close.js';
import { MAX_NAME, MAX_U32 } from './limits.js';
import { type Message, readContent, readMessage } from './message.js';
import { Reader } from './varint.js';

export const ASK = 1;
export const CHUNK = 2;
export const ANSWER = 3;
export const ERROR = 4;
export const CANCEL = 5;
export const MORE = 6;

/** Why a request failed: the number of a name is its place in this list. The application's own codes are 100 and above. */
export const REQUEST_CODES = ['FAILED', 'CANCELLED', 'UNKNOWN_METHOD', 'TOO_MANY', 'NOT_ALLOWED'] as const;

/** Name of one of the codes of requests. */
export type RequestCode = (typeof REQUEST_CODES)[number];

/** The least code of the application's own. */
export const MIN_APPLICATION_CODE = 100;

/** What either side says. `undefined` stands for no data. */
export type RequestMessage =
  | {
      readonly op: typeof ASK;
      readonly id: number;
      readonly method: string;
      readonly data: Message | undefined;
    }
  | {
      readonly op: typeof CHUNK;
      readonly id: number;
      readonly data: Message;
      /** Bytes of the data: what it takes of the credit. */
      readonly size: number;
    }
  | { readonly op: typeof ANSWER; readonly id: number; readonly data: Message | undefined }
  | { readonly op: typeof ERROR; readonly id: number; readonly code: number; readonly reason: string }
  | { readonly op: typeof CANCEL; readonly id: number }
  | { readonly op: typeof MORE; readonly id: number; readonly limit: number };

/** Reads the body of a request message; throws ProtocolError. */
export function decodeRequest(body: Uint8Array): RequestMessage {
  const fields = new Reader(body, () => new ProtocolError('MALFORMED_MESSAGE', 'malformed request message'));
  const int = () => fields.int();
  const op = int();
  const id = int();
  let message: RequestMessage;
  switch (op) {
    case ASK: {
      const method = fields.take(int());
      fields.check(method.length > 0 && method.length <= MAX_NAME);
      message = { op, id, method: fields.text(method), data: readContent(fields) };
      break;
    }
    case CHUNK: {
      const kind = int();
      const data = fields.rest();
      message = { op, id, data: readMessage(fields, kind, data), size: data.length };
      break;
    }
    case ANSWER:
      message = { op, id, data: readContent(fields) };
      break;
    case ERROR: {
      const code = int();
      fields.check(code <= MAX_U32);
      message = { op, id, code, reason: fields.string() };
      break;
    }
    case CANCEL:
      message = { op, id };
      break;
    case MORE:
      message = { op, id, limit: int() };
      break;
    default:
      throw new ProtocolError('MALFORMED_MESSAGE', `request message of op ${op}`);
  }
  fields.end();
  return message;
}

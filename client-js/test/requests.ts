// Request messages as a server writes them, for tests.

import { contentFields, encodeControl, encodeFields, type Field, REQUEST } from '../src/protocol/message.js';
import { ANSWER, ASK, CHUNK, ERROR, MORE, type RequestMessage } from '../src/protocol/requests.js';

/** What stands for it in stream 0. */
export function encodeRequestMessage(message: RequestMessage): Uint8Array {
  return encodeControl(REQUEST, message.op, message.id, encodeFields(...fieldsOf(message)));
}

function fieldsOf(message: RequestMessage): Field[] {
  switch (message.op) {
    case ASK:
      return [message.method, ...contentFields(message.data)];
    case CHUNK:
    case ANSWER:
      return contentFields(message.data);
    case ERROR:
      return [message.code, message.reason];
    case MORE:
      return [message.limit];
    default:
      return [];
  }
}

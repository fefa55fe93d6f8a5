// What the server asks, and who answers it here (SPEC section 11).

import { ThroughlineError } from './errors.js';
import type { Data, Outbox } from './outbox.js';
import { type Close, protocolClose, truncateUtf8 } from './protocol/close.js';
import { ANSWER_CREDIT, MAX_REASON, MAX_REQUESTS } from './protocol/limits.js';
import type { Machine } from './protocol/machine.js';
import {
  contentFields,
  encodeControl,
  encodeFields,
  type Field,
  type Message,
  REQUEST,
} from './protocol/message.js';
import {
  ANSWER,
  ASK,
  type CANCEL,
  CHUNK,
  ERROR,
  MIN_APPLICATION_CODE,
  MORE,
  REQUEST_CODES,
  type RequestCode,
  type RequestMessage,
} from './protocol/requests.js';

/** What a handler answers: text, bytes, nothing, or parts of these as they come. */
// biome-ignore lint/suspicious/noConfusingVoidType: a function that returns nothing is a handler, too
export type Reply = Data | null | undefined | void | AsyncIterable<Data>;

/**
 * Answers requests of the server. `data` is `undefined` when there is none. `signal` is aborted when nobody waits for
 * the answer any more: the server has cancelled the request, or the session has ended.
 */
export type Handler = (
  data: Message | undefined,
  context: { readonly signal: AbortSignal },
) => Reply | Promise<Reply>;

/** One request under way. */
interface Asked {
  readonly abort: AbortController;
  /** Bytes of data in the chunks that were sent, and that may be. */
  sent: number;
  limit: number;
  /** There may be room now. */
  wake?: () => void;
}

/** The handlers of one session. */
export class Handlers {
  readonly #machine: Machine;
  readonly #outbox: Outbox;
  readonly #wake: () => void;
  readonly #handlers = new Map<string, Handler>();
  readonly #asked = new Map<number, Asked>();
  #last = 0;

  /** `wake`: the machine has something to send. */
  constructor(machine: Machine, outbox: Outbox, wake: () => void) {
    this.#machine = machine;
    this.#outbox = outbox;
    this.#wake = wake;
  }

  add(method: string, handler: Handler): () => void {
    this.#handlers.set(method, handler);
    return () => {
      if (this.#handlers.get(method) === handler) {
        this.#handlers.delete(method);
      }
    };
  }

  /** The server asks something, or says something of what it has asked. Returns how the session ends when that is wrong. */
  handle(
    message: Extract<RequestMessage, { readonly op: typeof ASK | typeof CANCEL | typeof MORE }>,
  ): Close | undefined {
    const { id } = message;
    if (message.op === ASK) {
      if (id <= this.#last) {
        return protocolClose('PROTOCOL_VIOLATION', `request ${id} after ${this.#last}`);
      }
      this.#last = id;
      const handler = this.#handlers.get(message.method);
      if (!handler) {
        this.#fail(id, 'UNKNOWN_METHOD', 'nobody here answers it');
      } else if (this.#asked.size >= MAX_REQUESTS) {
        this.#fail(id, 'TOO_MANY', `${MAX_REQUESTS} requests are under way`);
      } else {
        const asked: Asked = { abort: new AbortController(), sent: 0, limit: ANSWER_CREDIT };
        this.#asked.set(id, asked);
        void this.#run(id, asked, handler, message.data);
      }
      return;
    }
    if (id > this.#last) {
      return protocolClose('PROTOCOL_VIOLATION', `of request ${id}, of ${this.#last}`);
    }
    const asked = this.#asked.get(id);
    if (asked && message.op === MORE) {
      asked.limit = Math.max(asked.limit, message.limit);
      asked.wake?.();
    } else if (asked) {
      this.#asked.delete(id);
      this.#fail(id, 'CANCELLED', '');
      stop(asked, new ThroughlineError('CANCELLED', 'the server has cancelled the request'));
    }
    return;
  }

  /** The session has ended. */
  lost(why: ThroughlineError): void {
    const all = [...this.#asked.values()];
    this.#asked.clear();
    this.#last = 0;
    for (const asked of all) {
      stop(asked, why);
    }
  }

  async #run(id: number, asked: Asked, handler: Handler, data: Message | undefined): Promise<void> {
    const { signal } = asked.abort;
    try {
      let reply = await handler(data, { signal });
      if (isIterable(reply)) {
        for await (const part of reply) {
          while (asked.sent >= asked.limit && !signal.aborted) {
            await new Promise<void>((resolve) => {
              asked.wake = resolve;
            });
          }
          if (signal.aborted) {
            return;
          }
          const content = this.#content(part);
          asked.sent += content[1].length;
          this.#say(CHUNK, id, ...content);
        }
        reply = undefined;
      }
      const content = reply === null || reply === undefined ? contentFields(undefined) : this.#content(reply);
      if (this.#end(id, asked)) {
        this.#say(ANSWER, id, ...content);
      }
    } catch (error) {
      if (this.#end(id, asked)) {
        this.#blame(id, error);
      }
    }
  }

  /** What a handler threw: the server learns what a ThroughlineError says, and of others only that there was one. */
  #blame(id: number, error: unknown): void {
    if (error instanceof ThroughlineError) {
      const { requestCode = 0, message } = error;
      this.#fail(id, requestCode < MIN_APPLICATION_CODE ? 'FAILED' : requestCode, message);
    } else {
      this.#fail(id, 'FAILED', '');
      // Visible where uncaught errors are.
      queueMicrotask(() => {
        throw error;
      });
    }
  }

  /** False when it has ended already. */
  #end(id: number, asked: Asked): boolean {
    return this.#asked.get(id) === asked && this.#asked.delete(id);
  }

  #content(data: Data): [kind: number, data: Uint8Array] {
    return [Number(typeof data === 'string'), this.#outbox.part('handle', data)];
  }

  #fail(id: number, code: RequestCode | number, reason: string): void {
    const number = typeof code === 'number' ? code : REQUEST_CODES.indexOf(code);
    this.#say(ERROR, id, number, truncateUtf8(reason, MAX_REASON));
  }

  #say(op: number, id: number, ...fields: Field[]): void {
    this.#machine.sendControl(encodeControl(REQUEST, op, id, encodeFields(...fields)));
    this.#wake();
  }
}

function stop({ abort, wake }: Asked, why: ThroughlineError): void {
  abort.abort(why);
  wake?.();
}

function isIterable(reply: Reply): reply is AsyncIterable<Data> {
  return typeof reply === 'object' && reply !== null && Symbol.asyncIterator in reply;
}

// What this side asks the other, and the answers to it (SPEC section 11).

import type { Cancel, Environment } from './environment.js';
import { type ErrorCode, messageOf, ThroughlineError } from './errors.js';
import { type Close, protocolClose } from './protocol/close.js';
import { ANSWER_CREDIT, MAX_NAME, MAX_REQUESTS } from './protocol/limits.js';
import type { Machine } from './protocol/machine.js';
import { decodeControl, encodeControl, encodeFields, type Message, REQUEST } from './protocol/message.js';
import {
  ANSWER,
  ASK,
  CANCEL,
  CHUNK,
  type ERROR,
  MIN_APPLICATION_CODE,
  MORE,
  REQUEST_CODES,
  type RequestMessage,
} from './protocol/requests.js';

/** What `Session.request` takes. All are optional. */
export interface RequestOptions {
  /** Cancels the request when it is aborted. */
  readonly signal?: AbortSignal;
  /** How long it may take to the end of its answer, in milliseconds. No limit by default. */
  readonly timeoutMs?: number;
}

/**
 * The answer to a request. As a promise it is the whole of it: the parts joined, as text when all of them are text;
 * `undefined` when there is nothing in it. With `for await` it comes in parts, and the server does not get far ahead of
 * the loop; to leave the loop cancels the request. Either, not both: a part is handed on once.
 *
 * Rejects, or throws in the loop, with a ThroughlineError.
 */
export interface Answer extends Promise<Message | undefined>, AsyncIterable<Message> {}

type Said<Op> = Extract<RequestMessage, { readonly op: Op }>;

/** The requests that this side makes in one session. */
export class Requests {
  readonly #env: Environment;
  readonly #machine: Machine;
  readonly #wake: () => void;
  /** Those under way. */
  readonly #asked = new Map<number, Pending>();
  #last = 0;

  /** `wake`: the machine has something to send. */
  constructor(env: Environment, machine: Machine, wake: () => void) {
    this.#env = env;
    this.#machine = machine;
    this.#wake = wake;
  }

  /** As `Session.request` says. `content` gives kind and data, or throws. */
  ask(
    method: string,
    content: () => readonly [kind: number, data: Uint8Array],
    { signal, timeoutMs }: RequestOptions,
  ): Answer {
    const answer = new Pending(method, (op, ...fields) => this.#say(answer, op, fields));
    try {
      const { length } = new TextEncoder().encode(method);
      if (!length || length > MAX_NAME) {
        throw new TypeError(`request: a method has 1 to ${MAX_NAME} bytes, not ${length}`);
      }
      const fields = encodeFields(method, ...content());
      if (this.#asked.size >= MAX_REQUESTS) {
        answer.fail('TOO_MANY', `${MAX_REQUESTS} requests are under way: wait for one of them`);
      } else if (signal?.aborted) {
        answer.cancel('CANCELLED', messageOf(signal.reason), signal.reason);
      } else {
        answer.until(
          signal,
          timeoutMs === undefined
            ? undefined
            : (stop) => this.#env.timer(timeoutMs, () => stop(`no answer within ${timeoutMs} ms`)),
        );
        this.#ask(answer, fields);
      }
    } catch (error) {
      answer.end(error);
    }
    return answer;
  }

  /** The other side answered. Returns how the session ends when that is wrong. */
  handle(message: Said<typeof CHUNK | typeof ANSWER | typeof ERROR>): Close | undefined {
    const { id } = message;
    if (id > this.#last) {
      return protocolClose('PROTOCOL_VIOLATION', `an answer to request ${id}, of ${this.#last}`);
    }
    const answer = this.#asked.get(id);
    if (!answer) {
      return; // it was cancelled
    }
    if (message.op === CHUNK) {
      if (!answer.take(message.data, message.size)) {
        return protocolClose('FLOW_CONTROL', `too much of the answer to request ${id}`);
      }
      return;
    }
    this.#asked.delete(id);
    if (message.op === ANSWER) {
      answer.finish(message.data);
    } else {
      const { code, reason } = message;
      const isApplication = code >= MIN_APPLICATION_CODE;
      const name = isApplication ? 'APPLICATION' : (REQUEST_CODES[code] ?? 'UNKNOWN');
      answer.fail(name, reason || `the other side says ${isApplication ? code : name}`, code);
    }
    return;
  }

  /**
   * The session has ended, before the messages `unsent` left; `closed` says why, unless another has taken its place.
   * What is returned asks that one what was never asked.
   */
  lost(unsent: readonly Uint8Array[], closed?: string): () => void {
    const never = new Map<number, Uint8Array>();
    for (const encoded of unsent) {
      const { op, id, fields } = decodeControl(encoded);
      if (encoded[0] === REQUEST && op === ASK) {
        never.set(id, fields);
      }
    }
    const asked = [...this.#asked];
    const again: (() => void)[] = [];
    this.#asked.clear();
    this.#last = 0;
    for (const [id, answer] of asked) {
      const fields = never.get(id);
      if (fields && !closed) {
        again.push(() => answer.isOver || this.#ask(answer, fields));
      } else if (fields) {
        answer.fail('SESSION_CLOSED', `the session is closed (${closed})`);
      } else {
        answer.fail('UNCERTAIN', 'the session ended before the answer did: it may have been done');
      }
    }
    return () => {
      for (const ask of again) {
        ask();
      }
    };
  }

  #ask(answer: Pending, fields: Uint8Array): void {
    answer.id = ++this.#last;
    this.#asked.set(answer.id, answer);
    this.#machine.sendControl(encodeControl(REQUEST, ASK, answer.id, fields));
    this.#wake();
  }

  /** CANCEL, after which nothing more is heard of it, or MORE. */
  #say(answer: Pending, op: number, fields: number[]): void {
    const { id } = answer;
    if (this.#asked.get(id) === answer) {
      this.#machine.sendControl(encodeControl(REQUEST, op, id, encodeFields(...fields)));
      this.#wake();
      if (op === CANCEL) {
        this.#asked.delete(id);
      }
    }
  }
}

class Pending implements Answer {
  readonly [Symbol.toStringTag] = 'Answer';
  id = 0;
  isOver = false;
  readonly #method: string;
  readonly #say: (op: number, ...fields: number[]) => void;
  readonly #parts: { readonly data: Message; readonly size: number }[] = [];
  /** Bytes in chunks that came, that were handed on, and that the other side may send. */
  #received = 0;
  #taken = 0;
  #limit = ANSWER_CREDIT;
  #error: unknown;
  #wake: (() => void) | undefined;
  #release: Cancel | undefined;
  #whole: Promise<Message | undefined> | undefined;

  constructor(method: string, say: (op: number, ...fields: number[]) => void) {
    this.#method = method;
    this.#say = say;
  }

  // biome-ignore lint/suspicious/noThenProperty: to await it is what it is for
  then<Result = Message | undefined, Failure = never>(
    done?: ((whole: Message | undefined) => Result | PromiseLike<Result>) | null,
    failed?: ((error: unknown) => Failure | PromiseLike<Failure>) | null,
  ): Promise<Result | Failure> {
    this.#whole ??= join(this);
    return this.#whole.then(done, failed);
  }

  catch<Failure = never>(
    failed?: ((error: unknown) => Failure | PromiseLike<Failure>) | null,
  ): Promise<Message | undefined | Failure> {
    return this.then(null, failed);
  }

  finally(work?: (() => void) | null): Promise<Message | undefined> {
    return this.then().finally(work);
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Message, void, undefined> {
    try {
      for (;;) {
        const part = this.#parts.shift();
        if (part) {
          this.#took(part.size);
          yield part.data;
        } else if (this.isOver) {
          break;
        } else {
          await new Promise<void>((resolve) => {
            this.#wake = resolve;
          });
        }
      }
      if (this.#error) {
        throw this.#error;
      }
    } finally {
      this.cancel('CANCELLED', 'nobody reads the answer any more');
    }
  }

  /** Cancels it when `signal` is aborted, or when `start`, which starts a timer, says so. */
  until(signal: AbortSignal | undefined, start: ((stop: (why: string) => void) => Cancel) | undefined): void {
    const abort = () => this.cancel('CANCELLED', messageOf(signal?.reason), signal?.reason);
    signal?.addEventListener('abort', abort);
    const stop = start?.((why) => this.cancel('TIMEOUT', why));
    this.#release = () => {
      signal?.removeEventListener('abort', abort);
      stop?.();
    };
  }

  /** A part came; false when it was not allowed yet. */
  take(data: Message, size: number): boolean {
    if (this.#received >= this.#limit) {
      return false;
    }
    this.#received += size;
    this.#parts.push({ data, size });
    this.#wake?.();
    return true;
  }

  /** The last part came, or nothing more. */
  finish(data: Message | undefined): void {
    if (data !== undefined) {
      this.#parts.push({ data, size: 0 });
    }
    this.end();
  }

  cancel(code: ErrorCode, reason: string, cause?: unknown): void {
    if (!this.isOver) {
      this.#say(CANCEL);
      this.fail(code, reason, undefined, cause);
    }
  }

  /** What came is still handed on, but for what nobody wants any more. */
  fail(code: ErrorCode, reason: string, requestCode?: number, cause?: unknown): void {
    const message = `request '${this.#method}': ${reason}`;
    this.end(new ThroughlineError(code, message, cause, undefined, requestCode));
  }

  end(error?: unknown): void {
    if (!this.isOver) {
      this.isOver = true;
      this.#error = error;
      this.#release?.();
      this.#wake?.();
    }
  }

  #took(size: number): void {
    this.#taken += size;
    if (!this.isOver && this.#taken + ANSWER_CREDIT - this.#limit >= ANSWER_CREDIT / 4) {
      this.#limit = this.#taken + ANSWER_CREDIT;
      this.#say(MORE, this.#limit);
    }
  }
}

/** The parts in one: text when all of them are. */
async function join(answer: AsyncIterable<Message>): Promise<Message | undefined> {
  const parts: Message[] = [];
  for await (const part of answer) {
    parts.push(part);
  }
  if (parts.length < 2 || parts.every((part) => typeof part === 'string')) {
    return parts.length < 2 ? parts[0] : parts.join('');
  }
  const all = parts.map((part) => (typeof part === 'string' ? new TextEncoder().encode(part) : part));
  const whole = new Uint8Array(all.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of all) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

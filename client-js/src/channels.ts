// The subscriptions of a session, and what it asks about channels (SPEC section 10).

import { Emitter } from './emitter.js';
import { type ErrorCode, ThroughlineError } from './errors.js';
import {
  CHANNEL_CODES,
  type ChannelMessage,
  DONE,
  encodeRequest,
  FAILED,
  fieldsOf,
  type Position,
  PUBLICATION,
  PUBLISH,
  requestFields,
  SUBSCRIBE,
  SUBSCRIBED,
  UNSUBSCRIBE,
  UNSUBSCRIBED,
} from './protocol/channels.js';
import { MAX_CHANNEL_NAME } from './protocol/limits.js';
import type { Machine } from './protocol/machine.js';
import type { Message } from './protocol/message.js';

/** Why a subscription ended. */
export interface SubscriptionEnd {
  /** A code of channels; `null` when the session ended. */
  readonly code: number | null;
  /** The code's name; `SESSION_CLOSED` when the session ended. */
  readonly name: ErrorCode;
  readonly reason: string;
}

/** The events of a subscription, and what their listeners get. */
export interface SubscriptionEvents {
  publication: { readonly data: Message; readonly offset: number };
  /**
   * The server has the subscription; said again when a new session took the place of an old one. `recovered`: whether
   * everything after the position that was asked for follows; `null` when none was.
   */
  subscribed: Position & { readonly recovered: boolean | null };
  /** This session was too slow: the publications up to `offset` are lost to it. */
  skipped: { readonly offset: number };
  /** The server refused or ended it, or the session ended. Not said of `unsubscribe`. */
  end: SubscriptionEnd;
}

/** One channel that a session listens to. It goes on by itself in the session that takes the place of this one. */
export interface Subscription {
  readonly channel: string;
  readonly state: 'subscribing' | 'subscribed' | 'ended';
  /** That of the newest publication that was handed on: what `since` takes. `null` until there is one to speak of. */
  readonly position: Position | null;
  /**
   * Resolves when the server has the subscription for the first time. Rejects with a ThroughlineError when it refuses;
   * its code is the server's.
   */
  readonly ready: Promise<void>;
  /** Calls `listener` at each event `name`. Returns a function that ends it. Nothing waits for listeners. */
  on<Name extends keyof SubscriptionEvents>(
    name: Name,
    listener: (payload: SubscriptionEvents[Name]) => void,
  ): () => void;
  /** Ends it: nothing is handed on any more. Resolves, and never rejects, when the server knows. */
  unsubscribe(): Promise<void>;
}

type Said<Op> = Extract<ChannelMessage, { readonly op: Op }>;

interface Request {
  readonly op: number;
  /** Returns what is wrong with the answer. */
  readonly done: (answer: Said<typeof SUBSCRIBED | typeof DONE>) => string | undefined;
  readonly failed: (end: SubscriptionEnd) => void;
}

/** The channels of one session. */
export class Channels {
  readonly #machine: Machine;
  readonly #wake: () => void;
  readonly #rooms = new Map<string, Room>();
  /** What the server's numbers stand for. */
  readonly #numbers = new Map<number, Room>();
  /** Those without an answer, in the order of their numbers. */
  readonly #requests = new Map<number, Request>();
  #last = 0;

  /** `wake`: the machine has something to send. */
  constructor(machine: Machine, wake: () => void) {
    this.#machine = machine;
    this.#wake = wake;
  }

  /** Throws as `Session.subscribe` says. */
  subscribe(channel: string, since: Position | null): Subscription {
    const name = nameOf('subscribe', channel);
    if (this.#rooms.has(channel)) {
      throw new ThroughlineError('ALREADY_SUBSCRIBED', `subscribe: '${channel}' has a subscription already`);
    }
    const room = new Room(channel, name, since, () => this.#unsubscribe(room));
    this.#rooms.set(channel, room);
    this.#subscribe(room);
    return room;
  }

  /** Throws, and rejects, as `Session.publish` says. */
  publish(channel: string, text: boolean, data: Uint8Array): Promise<Position> {
    const fields = requestFields(nameOf('publish', channel), [Number(text)], data);
    return new Promise((resolve, reject) => {
      this.#request(fields, {
        op: PUBLISH,
        done: ({ position }) => void resolve(position),
        failed: (end) => reject(errorOf('publish', channel, end)),
      });
    });
  }

  /** The server said something. Returns what is wrong with it. */
  handle(message: ChannelMessage): string | undefined {
    if ('request' in message) {
      const request = this.#requests.get(message.request);
      this.#requests.delete(message.request);
      if (request && message.op === FAILED) {
        request.failed(endOf(message));
      } else if (request && message.op === (request.op === SUBSCRIBE ? SUBSCRIBED : DONE)) {
        return request.done(message);
      } else {
        return `no request ${message.request} of this kind`;
      }
      return;
    }
    const { number } = message;
    const room = this.#numbers.get(number);
    if (!room) {
      return `no channel ${number}`;
    }
    if (message.op === UNSUBSCRIBED) {
      this.#numbers.delete(number);
      this.#end(room, endOf(message));
    } else if (room.state !== 'ended' && room.position) {
      const { epoch, offset: last } = room.position;
      const { offset } = message;
      const isPublication = message.op === PUBLICATION;
      if (isPublication ? offset !== last + 1 : offset <= last) {
        return `offset ${offset} after ${last}`;
      }
      room.position = { epoch, offset };
      if (isPublication) {
        room.emit('publication', { data: message.data, offset });
      } else {
        room.emit('skipped', { offset });
      }
    }
    return;
  }

  /**
   * The session has ended, before the requests `unsent` left; `closed` says why, unless another has taken its place.
   * What is returned asks that one for what still lives.
   */
  lost(unsent: readonly Uint8Array[], closed?: string): () => void {
    const end =
      closed &&
      ({ code: null, name: 'SESSION_CLOSED', reason: `the session is closed (${closed})` } as const);
    const requests = [...this.#requests.values()];
    const rooms = [...this.#rooms.values()];
    const again: (() => void)[] = [];
    this.#requests.clear();
    this.#numbers.clear();
    this.#last = 0;
    for (const room of rooms) {
      room.state = 'subscribing';
      if (end) {
        this.#end(room, end);
      }
    }
    requests.forEach((request, index) => {
      // The newest are those that have not left.
      const encoded = unsent[index - requests.length + unsent.length];
      if (request.op === SUBSCRIBE) {
        return; // its subscription asks anew
      }
      if (encoded && !end && request.op === PUBLISH) {
        again.push(() => this.#request(fieldsOf(encoded), request));
      } else {
        request.failed((encoded && end) || UNCERTAIN);
      }
    });
    return () => {
      for (const room of rooms) {
        if (room.state !== 'ended') {
          this.#subscribe(room);
        }
      }
      for (const ask of again) {
        ask();
      }
    };
  }

  #request(fields: Uint8Array, request: Request): void {
    this.#requests.set(++this.#last, request);
    this.#machine.sendRequest(encodeRequest(request.op, this.#last, fields));
    this.#wake();
  }

  #subscribe(room: Room): void {
    const asked = room.position;
    this.#request(requestFields(room.name, asked ? [1, asked.epoch, asked.offset] : [0]), {
      op: SUBSCRIBE,
      done: (answer) => {
        if ('number' in answer) {
          const { number, recovered, position } = answer;
          if (recovered && (asked?.epoch !== position.epoch || asked.offset !== position.offset)) {
            return `recovered from ${position.offset}`;
          }
          this.#numbers.set(number, room);
          room.number = number;
          if (room.state !== 'ended') {
            room.position = position;
            room.state = 'subscribed';
            room.resolve();
            room.emit('subscribed', { ...position, recovered: asked && recovered });
          }
        }
        return;
      },
      failed: (end) => this.#end(room, end),
    });
  }

  #unsubscribe(room: Room): Promise<void> {
    room.over ??= new Promise((resolve) => {
      if (room.state === 'ended') {
        return resolve();
      }
      this.#rooms.delete(room.channel);
      room.state = 'ended';
      room.reject(errorOf('subscribe', room.channel, { name: 'NORMAL', reason: 'unsubscribed' }));
      const over = () => {
        // Another subscription of the channel may have its number already.
        if (this.#numbers.get(room.number) === room) {
          this.#numbers.delete(room.number);
        }
        resolve();
        return undefined;
      };
      this.#request(requestFields(room.name), { op: UNSUBSCRIBE, done: over, failed: over });
    });
    return room.over;
  }

  #end(room: Room, end: SubscriptionEnd): void {
    if (room.state !== 'ended') {
      this.#rooms.delete(room.channel);
      room.state = 'ended';
      room.reject(errorOf('subscribe', room.channel, end));
      room.emit('end', end);
    }
  }
}

class Room extends Emitter<SubscriptionEvents> implements Subscription {
  state: Subscription['state'] = 'subscribing';
  /** What the server calls it. */
  number = -1;
  /** What `unsubscribe` returns. */
  over: Promise<void> | undefined;
  readonly ready: Promise<void>;
  resolve!: () => void;
  reject!: (error: ThroughlineError) => void;

  constructor(
    readonly channel: string,
    readonly name: Uint8Array,
    public position: Position | null,
    readonly unsubscribe: () => Promise<void>,
  ) {
    super();
    this.ready = new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
    // Who listens only to 'end' must not see an unhandled rejection of this one.
    this.ready.catch(() => {});
  }
}

const UNCERTAIN: SubscriptionEnd = {
  code: null,
  name: 'UNCERTAIN',
  reason: 'the session ended before the server answered: it may have been published',
};

function endOf({ code, reason }: { readonly code: number; readonly reason: string }): SubscriptionEnd {
  return { code, name: CHANNEL_CODES[code] ?? 'UNKNOWN', reason };
}

function errorOf(
  method: string,
  channel: string,
  { name, reason }: Omit<SubscriptionEnd, 'code'>,
): ThroughlineError {
  return new ThroughlineError(name, `${method} '${channel}': ${reason || name}`);
}

/** The bytes of a channel's name. Throws when no message could hold it; what else it may be is the server's to say. */
function nameOf(method: string, channel: string): Uint8Array {
  const name = new TextEncoder().encode(channel);
  if (!name.length || name.length > MAX_CHANNEL_NAME) {
    throw new ThroughlineError(
      'BAD_CHANNEL',
      `${method}: the name of a channel has 1 to ${MAX_CHANNEL_NAME} bytes, not ${name.length}`,
    );
  }
  return name;
}

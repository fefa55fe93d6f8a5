// The subscriptions of a session, and what it asks about channels (SPEC section 10).

import { ThroughlineError } from './errors.js';
import {
  ADDED,
  CHANNEL_CODES,
  type ChannelMessage,
  DONE,
  FAILED,
  HISTORY,
  PAGE,
  type Position,
  PUBLISH,
  type Publication,
  SET,
  SUBSCRIBE,
  SUBSCRIBED,
  UNSUBSCRIBE,
  UNSUBSCRIBED,
  type Value,
} from './protocol/channels.js';
import { MAX_ABOUT, MAX_NAME } from './protocol/limits.js';
import type { Machine } from './protocol/machine.js';
import { CHANNEL, decodeControl, encodeControl, encodeFields, type Field } from './protocol/message.js';
import { Room, type Subscription, type SubscriptionEnd } from './subscription.js';

/** What `Session.subscribe` takes. All are optional. */
export interface SubscribeOptions {
  /** The `position` of an earlier subscription: what was published after it comes first, if the server still has it. */
  readonly since?: Position | null;
  /** What others see of this subscription in the channel's presence; at most 512 bytes. */
  readonly about?: string;
}

/** What `Session.history` takes. All are optional. */
export interface HistoryOptions {
  /** Only what was published after it. Without it everything that the channel has kept. */
  readonly since?: Position | null;
  /** How many publications at most, from 1 to 1,000. Default 100. */
  readonly limit?: number;
  /** The newest of them rather than the oldest; the oldest of these still comes first. */
  readonly newest?: boolean;
}

/** What a channel has kept, or a part of it. `epoch` and `offset` are those of its newest publication; 0 when nothing is known of it. */
export interface History extends Position {
  /** The oldest first. */
  readonly publications: readonly Publication[];
  /** Nothing is missing between `since`, or the channel's beginning, and the first publication. */
  readonly complete: boolean;
  /** There is more after the last publication. */
  readonly more: boolean;
}

type Said<Op> = Extract<ChannelMessage, { readonly op: Op }>;

interface Request {
  readonly op: number;
  /** What it asks, when it does no harm to ask it twice. */
  readonly fields: Uint8Array | undefined;
  /** Returns what is wrong with the answer. */
  readonly done: (answer: Said<typeof SUBSCRIBED | typeof DONE | typeof PAGE>) => string | undefined;
  readonly failed: (end: SubscriptionEnd) => void;
}

/** The channels of one session. */
export class Channels {
  readonly #machine: Machine;
  readonly #wake: () => void;
  readonly #added: (room: Subscription) => void;
  readonly #rooms = new Map<string, Room>();
  /** What the server's numbers stand for. */
  readonly #numbers = new Map<number, Room>();
  /** Those without an answer, in the order of their numbers. */
  readonly #requests = new Map<number, Request>();
  #last = 0;

  /** `wake`: the machine has something to send. `added`: the server has subscribed the session to something. */
  constructor(machine: Machine, wake: () => void, added: (room: Subscription) => void) {
    this.#machine = machine;
    this.#wake = wake;
    this.#added = added;
  }

  /** Throws as `Session.subscribe` says. */
  subscribe(channel: string, { since = null, about }: SubscribeOptions): Room {
    checkName('subscribe', channel);
    if (about !== undefined && utf8Length(about) > MAX_ABOUT) {
      throw new ThroughlineError('TOO_LARGE', `subscribe: about has at most ${MAX_ABOUT} bytes`);
    }
    if (this.#rooms.has(channel)) {
      throw new ThroughlineError('ALREADY_SUBSCRIBED', `subscribe: '${channel}' has a subscription already`);
    }
    const room = this.#room(channel, since, about);
    this.#subscribe(room);
    return room;
  }

  /** Throws, and rejects, as `Session.publish` says. `kind`: 0 binary, 1 text, 2 removed. */
  publish(channel: string, key: string | undefined, kind: number, data: Uint8Array): Promise<Position> {
    checkName('publish', channel);
    const isSet = key !== undefined;
    if (isSet && utf8Length(key) > MAX_NAME) {
      throw new ThroughlineError('TOO_LARGE', `publish: a key has at most ${MAX_NAME} bytes`);
    }
    const fields = isSet ? [channel, key, kind, data] : [channel, kind, data];
    return this.#ask('publish', channel, isSet ? SET : PUBLISH, fields, ({ position }) => position);
  }

  /** Throws, and rejects, as `Session.history` says. */
  history(channel: string, { since, limit = 100, newest = false }: HistoryOptions): Promise<History> {
    checkName('history', channel);
    if (!(Number.isInteger(limit) && limit > 0)) {
      throw new TypeError('history: a limit is an integer from 1 to 1000');
    }
    const position = since ? [since.epoch, since.offset] : [];
    const fields = [channel, Number(Boolean(since)) + 2 * Number(newest), ...position, limit];
    return this.#ask('history', channel, HISTORY, fields, (answer) => {
      const { position, publications, complete, more } = answer as Said<typeof PAGE>;
      return { publications, ...position, complete, more };
    });
  }

  /** The server said something. Returns what is wrong with it. */
  handle(message: ChannelMessage): string | undefined {
    if ('request' in message) {
      const request = this.#requests.get(message.request);
      const isFailure = message.op === FAILED;
      if (!request || !(isFailure || message.op === answerTo(request.op))) {
        return `no request ${message.request} of this kind`; // what is asked ends with the session
      }
      this.#requests.delete(message.request);
      return isFailure ? void request.failed(endOf(message)) : request.done(message as Said<typeof DONE>);
    }
    const { number } = message;
    if (message.op === ADDED) {
      this.#add(message);
      return;
    }
    const room = this.#numbers.get(number);
    if (!room) {
      return `no channel ${number}`;
    }
    if (message.op === UNSUBSCRIBED) {
      this.#numbers.delete(number);
      this.#end(room, endOf(message));
      return;
    }
    return room.state === 'ended' ? undefined : room.take(message);
  }

  /** A value came as a datagram, which may have overtaken SUBSCRIBED, or crossed UNSUBSCRIBE. */
  state(value: Value): void {
    const room = this.#numbers.get(value.number);
    if (room?.state === 'subscribed' && room.kind === 'state') {
      room.change(value);
    }
  }

  /**
   * The session has ended, before the messages `unsent` left; `closed` says why, unless another has taken its place.
   * What is returned asks that one for what still lives.
   */
  lost(unsent: readonly Uint8Array[], closed?: string): () => void {
    const end = closed ? sessionEnd(`the session is closed (${closed})`) : undefined;
    const requests = [...this.#requests.values()];
    const rooms = [...this.#rooms.values()];
    const again: (() => void)[] = [];
    const left = unsent.filter(([kind]) => kind === CHANNEL);
    this.#requests.clear();
    this.#numbers.clear();
    this.#last = 0;
    for (const room of rooms) {
      room.state = 'subscribing';
      if (end || room.isAdded) {
        this.#end(
          room,
          end ?? sessionEnd('another session has taken the place of the one that was subscribed'),
        );
      }
    }
    requests.forEach((request, index) => {
      const { op, fields } = request;
      // The newest are those that have not left.
      const encoded = left[index - requests.length + left.length];
      if (op === SUBSCRIBE) {
        return; // its subscription asks anew
      }
      if (!end && op !== UNSUBSCRIBE && (fields || encoded)) {
        again.push(() => this.#request(fields ?? decodeControl(encoded as Uint8Array).fields, request));
      } else {
        request.failed(((fields || encoded) && end) || UNCERTAIN);
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
    this.#machine.sendControl(encodeControl(CHANNEL, request.op, this.#last, fields));
    this.#wake();
  }

  /** Asks something whose answer is one value. */
  #ask<Value>(
    method: string,
    channel: string,
    op: number,
    parts: readonly Field[],
    read: (answer: Said<typeof DONE | typeof PAGE>) => Value,
  ): Promise<Value> {
    const fields = encodeFields(...parts);
    return new Promise((resolve, reject) => {
      this.#request(fields, {
        op,
        fields: op === HISTORY ? fields : undefined,
        done: (answer) => void resolve(read(answer as Said<typeof DONE>)),
        failed: (end) => reject(errorOf(method, channel, end)),
      });
    });
  }

  #room(channel: string, since: Position | null, about?: string): Room {
    const room = new Room(channel, about, since, () => this.#unsubscribe(room));
    this.#rooms.set(channel, room);
    return room;
  }

  #subscribe(room: Room): void {
    const { channel, about, kind } = room;
    const asked = kind === 'state' ? null : room.position;
    const fields: Field[] = [channel, Number(asked !== null) + 2 * Number(about !== undefined)];
    if (asked) {
      fields.push(asked.epoch, asked.offset);
    }
    if (about !== undefined) {
      fields.push(about);
    }
    this.#request(encodeFields(...fields), {
      op: SUBSCRIBE,
      fields: undefined,
      done: (answer) => {
        const { number, recovered, state, position } = answer as Said<typeof SUBSCRIBED>;
        if (recovered && (asked?.epoch !== position.epoch || asked.offset !== position.offset)) {
          return `recovered from ${position.offset}`;
        }
        this.#numbers.set(number, room);
        room.number = number;
        if (room.state !== 'ended') {
          room.begin(position, state, asked && recovered);
        }
        return;
      },
      // The server may have added it meanwhile: then it says that it is subscribed already.
      failed: (end) => room.state === 'subscribed' || this.#end(room, end),
    });
  }

  /** The server has subscribed the session, perhaps while this side was asking for it. */
  #add({ channel, number, position, state }: Said<typeof ADDED>): void {
    const asking = this.#rooms.get(channel);
    const room = asking ?? this.#room(channel, null);
    room.isAdded = !asking;
    room.number = number;
    this.#numbers.set(number, room);
    room.begin(position, state, room.position ? false : null);
    if (!asking) {
      this.#added(room);
    }
  }

  #unsubscribe(room: Room): Promise<void> {
    room.over ??= new Promise((resolve) => {
      if (room.state === 'ended') {
        return resolve();
      }
      this.#rooms.delete(room.channel);
      room.state = 'ended';
      room.reject(errorOf('subscribe', room.channel, UNSUBSCRIBED_BY_US));
      const over = () => {
        // Another subscription of the channel may have its number already.
        if (this.#numbers.get(room.number) === room) {
          this.#numbers.delete(room.number);
        }
        resolve();
        return undefined;
      };
      this.#request(encodeFields(room.channel), {
        op: UNSUBSCRIBE,
        fields: undefined,
        done: () => {
          const other = this.#numbers.get(room.number);
          if (other !== room && other?.isAdded) {
            // It was added before the server heard of our leaving.
            this.#numbers.delete(room.number);
            this.#end(other, UNSUBSCRIBED_BY_US);
          }
          return over();
        },
        failed: over,
      });
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

const UNCERTAIN: SubscriptionEnd = {
  code: null,
  name: 'UNCERTAIN',
  reason: 'the session ended before the server answered: it may have been published',
};

const UNSUBSCRIBED_BY_US: SubscriptionEnd = { code: 0, name: 'NORMAL', reason: 'unsubscribed' };

function sessionEnd(reason: string): SubscriptionEnd {
  return { code: null, name: 'SESSION_CLOSED', reason };
}

function answerTo(op: number): number {
  return op === SUBSCRIBE ? SUBSCRIBED : op === HISTORY ? PAGE : DONE;
}

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

function utf8Length(text: string): number {
  return new TextEncoder().encode(text).length;
}

/** Throws when no message could hold the name of a channel; what else it may be is the server's to say. */
function checkName(method: string, channel: string): void {
  const length = utf8Length(channel);
  if (!length || length > MAX_NAME) {
    throw new ThroughlineError(
      'BAD_CHANNEL',
      `${method}: the name of a channel has 1 to ${MAX_NAME} bytes, not ${length}`,
    );
  }
}

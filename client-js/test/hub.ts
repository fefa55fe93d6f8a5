// The server's side of channels, for tests: it reads requests, says what a server says, and keeps histories that
// outlive sessions.

import type { ChannelMessage, Position } from '../src/protocol/channels.js';
import * as op from '../src/protocol/channels.js';
import { ProtocolError } from '../src/protocol/close.js';
import { MAX_ABOUT, MAX_NAME } from '../src/protocol/limits.js';
import {
  CHANNEL,
  contentFields,
  decodeControl,
  encodeControl,
  encodeFields,
  type Message,
  readContent,
  readMessage,
} from '../src/protocol/message.js';
import { Reader } from '../src/protocol/varint.js';
import type { World } from './world.js';

/** What a client asks. */
export interface Asked {
  readonly op:
    | typeof op.SUBSCRIBE
    | typeof op.UNSUBSCRIBE
    | typeof op.PUBLISH
    | typeof op.SET
    | typeof op.HISTORY;
  readonly request: number;
  readonly channel: string;
  readonly since?: Position;
  readonly about?: string;
  readonly key?: string;
  readonly data?: Message | undefined;
  readonly newest?: boolean;
  readonly limit?: number;
}

/** Reads the body of a request; throws ProtocolError. */
export function decodeRequest(body: Uint8Array): Asked {
  const malformed = () => new ProtocolError('MALFORMED_MESSAGE', 'malformed request');
  const fields = new Reader(body, malformed);
  const position = () => ({ since: { epoch: fields.int(), offset: fields.int() } });
  const atMost = (max: number) => {
    const bytes = fields.take(fields.int());
    fields.check(bytes.length <= max);
    return fields.text(bytes);
  };
  const kind = fields.int();
  const request = fields.int();
  const channel = fields.string();
  let asked: Asked;
  switch (kind) {
    case op.SUBSCRIBE: {
      const flags = fields.int();
      asked = { op: kind, request, channel, ...(flags & 1 && position()) };
      asked = { ...asked, ...(flags & 2 && { about: atMost(MAX_ABOUT) }) };
      break;
    }
    case op.UNSUBSCRIBE:
      asked = { op: kind, request, channel };
      break;
    case op.PUBLISH:
      asked = { op: kind, request, channel, data: readMessage(fields, fields.int(), fields.rest()) };
      break;
    case op.SET:
      asked = { op: kind, request, channel, key: atMost(MAX_NAME), data: readContent(fields) };
      break;
    case op.HISTORY: {
      const flags = fields.int();
      asked = { op: kind, request, channel, newest: (flags & 2) > 0, ...(flags & 1 && position()) };
      asked = { ...asked, limit: fields.int() };
      fields.check(asked.limit !== 0);
      break;
    }
    default:
      throw malformed();
  }
  fields.end();
  return asked;
}

/** What stands in stream 0 for what a server says. */
export function encodeChannelMessage(message: ChannelMessage): Uint8Array {
  const position = 'position' in message ? [message.position.epoch, message.position.offset] : [];
  const say = (...fields: (number | string | Uint8Array)[]) =>
    encodeControl(
      CHANNEL,
      message.op,
      'request' in message ? message.request : message.number,
      encodeFields(...fields, ...position),
    );
  switch (message.op) {
    case op.SUBSCRIBED:
      return say(message.number, Number(message.recovered) + 2 * Number(message.state));
    case op.ADDED:
      return say(message.channel, 2 * Number(message.state));
    case op.FAILED:
    case op.UNSUBSCRIBED:
      return say(message.code, message.reason);
    case op.PUBLICATION:
      return say(message.offset, ...contentFields(message.data));
    case op.VALUE:
      return say(message.offset, message.key, ...contentFields(message.data));
    case op.SKIPPED:
    case op.SETTLED:
      return say(message.offset);
    case op.PAGE: {
      const flags = Number(message.complete) + 2 * Number(message.more);
      const newest = [message.position.epoch, message.position.offset];
      const publications = message.publications.flatMap(({ offset, data }) => {
        const [kind, bytes] = contentFields(data);
        return [offset, kind, bytes.length, bytes];
      });
      const fields = encodeFields(flags, ...newest, publications.length / 4, ...publications);
      return encodeControl(CHANNEL, message.op, message.request, fields);
    }
    default:
      return say();
  }
}

/** Its body. */
export function encodeSaid(message: ChannelMessage): Uint8Array {
  const { op: said, id, fields } = decodeControl(encodeChannelMessage(message));
  return encodeFields(said, id, fields);
}

/** The payload of a STATE frame. */
export function encodeState({ number, offset, key, data }: op.Value): Uint8Array {
  return encodeFields(number, offset, key, ...contentFields(data));
}

/** Whom a hub speaks to. */
export interface Subscriber {
  sayChannel(message: ChannelMessage): void;
  /** Unreliably. */
  sayState(value: op.Value): void;
}

interface Channel {
  readonly number: number;
  readonly state: boolean;
  epoch: number;
  newest: number;
  /** The newest publications; the last of them is `newest`. */
  history: Message[];
  /** What a channel of state holds. */
  readonly values: Map<string, { readonly data: Message; readonly offset: number }>;
  readonly subscribers: Set<Subscriber>;
}

/** The channels of a server: those of the namespaces `s` and `$presence` are of state. */
export class Hub {
  /** Publications that each channel keeps. */
  historyCount = 1_000;
  /** Most publications in a PAGE. */
  pageCount = 1_000;
  /** Whether it answers. What is published without an answer is published all the same. */
  answers = true;
  /** Whether values that are sent as datagrams are sent again, reliably, when they have not changed for 200 ms. */
  repeats = true;
  /** Requests in the order in which they came. */
  readonly asked: (Asked & { readonly from: Subscriber })[] = [];
  /** Codes that requests fail with. */
  readonly refusals = new Map<string, number>();
  readonly #channels = new Map<string, Channel>();
  readonly #members = new Map<Subscriber, Map<string, string>>();
  #memberCount = 0;

  constructor(readonly world: World) {}

  channel(name: string): Channel {
    let channel = this.#channels.get(name);
    if (!channel) {
      channel = {
        number: 100 + this.#channels.size,
        state: /^(s|\$presence):/.test(name),
        epoch: 7,
        newest: 0,
        history: [],
        values: new Map(),
        subscribers: new Set(),
      };
      this.#channels.set(name, channel);
    }
    return channel;
  }

  publish(name: string, data: Message): Position {
    const channel = this.channel(name);
    const offset = ++channel.newest;
    channel.history = [...channel.history, data].slice(-this.historyCount);
    for (const subscriber of channel.subscribers) {
      subscriber.sayChannel({ op: op.PUBLICATION, number: channel.number, offset, data });
    }
    return { epoch: channel.epoch, offset };
  }

  /** Sets the value of a key, or removes it: `undefined`. */
  set(name: string, key: string, data: Message | undefined): Position {
    const channel = this.channel(name);
    const offset = ++channel.newest;
    if (data === undefined) {
      channel.values.delete(key);
    } else {
      channel.values.set(key, { data, offset });
    }
    const value = { number: channel.number, offset, key, data };
    for (const subscriber of channel.subscribers) {
      subscriber.sayState(value);
      this.world.timer(200, () => {
        const now = channel.values.get(key);
        if (this.repeats && channel.subscribers.has(subscriber) && (now?.offset ?? offset) === offset) {
          subscriber.sayChannel({ op: op.VALUE, ...value, data: now?.data });
        }
      });
    }
    return { epoch: channel.epoch, offset };
  }

  /** SNAPSHOT, the values, SETTLED. */
  snapshot(name: string, subscriber: Subscriber): void {
    const { number, values, newest } = this.channel(name);
    subscriber.sayChannel({ op: op.SNAPSHOT, number });
    for (const [key, { data, offset }] of values) {
      subscriber.sayChannel({ op: op.VALUE, number, offset, key, data });
    }
    subscriber.sayChannel({ op: op.SETTLED, number, offset: newest });
  }

  /** Subscribes a session by the server's own will. */
  add(name: string, subscriber: Subscriber): void {
    const { number, state, epoch, newest, subscribers } = this.channel(name);
    subscribers.add(subscriber);
    subscriber.sayChannel({
      op: op.ADDED,
      number,
      channel: name,
      state,
      position: { epoch, offset: newest },
    });
    this.#begin(name, subscriber);
  }

  /** Loses what was published. */
  forget(name: string): void {
    const channel = this.channel(name);
    channel.epoch++;
    channel.newest = 0;
    channel.history = [];
    channel.values.clear();
  }

  left(subscriber: Subscriber): void {
    for (const [name, { subscribers }] of this.#channels) {
      if (subscribers.delete(subscriber)) {
        this.#leave(name, subscriber);
      }
    }
  }

  ask(from: Subscriber, body: Uint8Array): void {
    const asked = decodeRequest(body);
    const last = this.asked.filter((one) => one.from === from).at(-1)?.request ?? 0;
    if (asked.request <= last) {
      throw new Error(`request ${asked.request} after ${last}`);
    }
    this.asked.push({ ...asked, from });
    const answer = (message: ChannelMessage) => {
      if (this.answers) {
        from.sayChannel(message);
      }
    };
    const { request, since } = asked;
    const channel = this.channel(asked.channel);
    const fail = (code: number) => answer({ op: op.FAILED, request, code, reason: 'no' });
    const refusal = this.refusals.get(asked.channel);
    if (refusal !== undefined) {
      fail(refusal);
    } else if (asked.op === op.PUBLISH || asked.op === op.SET) {
      if (channel.state !== (asked.op === op.SET)) {
        fail(9);
      } else {
        const position =
          asked.op === op.SET
            ? this.set(asked.channel, asked.key ?? '', asked.data)
            : this.publish(asked.channel, asked.data ?? '');
        answer({ op: op.DONE, request, position });
      }
    } else if (asked.op === op.HISTORY) {
      answer(this.#page(asked, channel));
    } else if (asked.op === op.UNSUBSCRIBE) {
      if (channel.subscribers.delete(from)) {
        this.#leave(asked.channel, from);
        answer({ op: op.DONE, request, position: { epoch: 0, offset: 0 } });
      } else {
        fail(5);
      }
    } else if (channel.subscribers.has(from)) {
      fail(6);
    } else if (this.answers) {
      const { number, state, epoch, newest, history } = channel;
      channel.subscribers.add(from);
      const missed = newest - (since?.offset ?? 0);
      const recovered = !state && since?.epoch === epoch && missed >= 0 && missed <= history.length;
      const position = recovered && since ? since : { epoch, offset: newest };
      answer({ op: op.SUBSCRIBED, request, number, recovered, state, position });
      for (let offset = position.offset + 1; offset <= newest; offset++) {
        const data = history[history.length - 1 - (newest - offset)] ?? '';
        from.sayChannel({ op: op.PUBLICATION, number, offset, data });
      }
      this.#begin(asked.channel, from, asked.about);
    }
  }

  #begin(name: string, subscriber: Subscriber, about: string | null = null): void {
    if (this.channel(name).state) {
      this.snapshot(name, subscriber);
    } else {
      const id = `member-${++this.#memberCount}`;
      const members = this.#members.get(subscriber) ?? new Map<string, string>();
      this.#members.set(subscriber, members.set(name, id));
      this.set(`$presence:${name}`, id, JSON.stringify({ user: 'somebody', info: { age: 7 }, about }));
    }
  }

  #leave(name: string, subscriber: Subscriber): void {
    const id = this.#members.get(subscriber)?.get(name);
    if (id) {
      this.set(`$presence:${name}`, id, undefined);
    }
  }

  #page({ request, since, newest, limit = 0 }: Asked, channel: Channel): ChannelMessage {
    const oldest = channel.newest - channel.history.length;
    const kept = channel.history.map((data, at) => ({ offset: oldest + 1 + at, data }));
    const isKnown = since === undefined || since.epoch === channel.epoch;
    const after = isKnown ? (since?.offset ?? 0) : 0;
    const all = kept.filter(({ offset }) => offset > after);
    const asked = newest ? all.slice(-limit) : all.slice(0, limit);
    const publications = asked.slice(0, this.pageCount);
    const { epoch, newest: offset } = channel;
    return {
      op: op.PAGE,
      request,
      complete: isKnown && (publications[0]?.offset ?? offset + 1) === after + 1,
      more: (publications.at(-1)?.offset ?? offset) < offset,
      position: { epoch, offset },
      publications,
    };
  }
}

// The server's side of channels, for tests: it reads requests, says what a server says, and keeps histories that
// outlive sessions.

import type { ChannelMessage, Position } from '../src/protocol/channels.js';
import * as op from '../src/protocol/channels.js';
import { ProtocolError } from '../src/protocol/close.js';
import { CHANNEL, decodeMessage, type Message } from '../src/protocol/message.js';
import { Reader, Writer } from '../src/protocol/varint.js';

/** What a client asks. */
export interface Asked {
  readonly op: typeof op.SUBSCRIBE | typeof op.UNSUBSCRIBE | typeof op.PUBLISH;
  readonly request: number;
  readonly channel: string;
  readonly since?: Position;
  readonly data?: Message;
}

/** Reads the body of a request; throws ProtocolError. */
export function decodeRequest(body: Uint8Array): Asked {
  const malformed = () => new ProtocolError('MALFORMED_MESSAGE', 'malformed request');
  const fields = new Reader(body, malformed);
  const kind = fields.int();
  const request = fields.int();
  const channel = fields.text(fields.take(fields.int()));
  let asked: Asked;
  switch (kind) {
    case op.SUBSCRIBE:
      asked = { op: kind, request, channel };
      if (fields.int() % 2 === 1) {
        asked = { ...asked, since: { epoch: fields.int(), offset: fields.int() } };
      }
      break;
    case op.UNSUBSCRIBE:
      asked = { op: kind, request, channel };
      break;
    case op.PUBLISH:
      asked = { op: kind, request, channel, data: decodeMessage(fields.int(), fields.rest()) };
      break;
    default:
      throw malformed();
  }
  fields.end();
  return asked;
}

/** The body of what a server says. */
export function encodeSaid(message: ChannelMessage): Uint8Array {
  const out = new Writer();
  const string = (text: string) => {
    const bytes = new TextEncoder().encode(text);
    out.varint(bytes.length);
    out.bytes(bytes);
  };
  out.varint(message.op);
  out.varint('request' in message ? message.request : message.number);
  switch (message.op) {
    case op.SUBSCRIBED:
      out.varint(message.number);
      out.varint(Number(message.recovered));
      break;
    case op.FAILED:
    case op.UNSUBSCRIBED:
      out.varint(message.code);
      string(message.reason);
      break;
    case op.PUBLICATION: {
      const { data } = message;
      out.varint(message.offset);
      out.varint(typeof data === 'string' ? 1 : 0);
      out.bytes(typeof data === 'string' ? new TextEncoder().encode(data) : data);
      break;
    }
    case op.SKIPPED:
      out.varint(message.offset);
  }
  if ('position' in message) {
    out.varint(message.position.epoch);
    out.varint(message.position.offset);
  }
  return out.finish();
}

/** What stands for it in stream 0. */
export function encodeChannelMessage(message: ChannelMessage): Uint8Array {
  const body = encodeSaid(message);
  const out = new Writer();
  out.varint(CHANNEL);
  out.varint(body.length);
  out.bytes(body);
  return out.finish();
}

/** Whom a hub speaks to. */
export interface Subscriber {
  sayChannel(message: ChannelMessage): void;
}

interface Channel {
  readonly number: number;
  epoch: number;
  newest: number;
  /** The newest publications; the last of them is `newest`. */
  history: Message[];
  readonly subscribers: Set<Subscriber>;
}

/** The channels of a server. */
export class Hub {
  /** Publications that each channel keeps. */
  historyCount = 1_000;
  /** Whether it answers. What is published without an answer is published all the same. */
  answers = true;
  /** Requests in the order in which they came. */
  readonly asked: (Asked & { readonly from: Subscriber })[] = [];
  /** Codes that requests fail with. */
  readonly refusals = new Map<string, number>();
  readonly #channels = new Map<string, Channel>();

  channel(name: string): Channel {
    let channel = this.#channels.get(name);
    if (!channel) {
      const number = 100 + this.#channels.size;
      channel = { number, epoch: 7, newest: 0, history: [], subscribers: new Set() };
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

  /** Loses what was published. */
  forget(name: string): void {
    const channel = this.channel(name);
    channel.epoch++;
    channel.newest = 0;
    channel.history = [];
  }

  left(subscriber: Subscriber): void {
    for (const { subscribers } of this.#channels.values()) {
      subscribers.delete(subscriber);
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
    } else if (asked.op === op.PUBLISH) {
      const position = this.publish(asked.channel, asked.data ?? '');
      answer({ op: op.DONE, request, position });
    } else if (asked.op === op.UNSUBSCRIBE) {
      if (channel.subscribers.delete(from)) {
        answer({ op: op.DONE, request, position: { epoch: 0, offset: 0 } });
      } else {
        fail(5);
      }
    } else if (channel.subscribers.has(from)) {
      fail(6);
    } else if (this.answers) {
      const { number, epoch, newest, history } = channel;
      channel.subscribers.add(from);
      const missed = newest - (since?.offset ?? 0);
      const recovered = since?.epoch === epoch && missed >= 0 && missed <= history.length;
      const position = recovered && since ? since : { epoch, offset: newest };
      answer({ op: op.SUBSCRIBED, request, number, recovered, position });
      for (let offset = position.offset + 1; offset <= newest; offset++) {
        const data = history[history.length - 1 - (newest - offset)] ?? '';
        from.sayChannel({ op: op.PUBLICATION, number, offset, data });
      }
    }
  }
}

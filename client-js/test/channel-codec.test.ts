// Channel messages by the vectors, and how they lie in stream 0 beside the application's messages.

import { describe, expect, it } from 'vitest';
import * as op from '../src/protocol/channels.js';
import { CODE_NAMES, ProtocolError } from '../src/protocol/close.js';
import { MAX_CONTROL_HEADER } from '../src/protocol/limits.js';
import {
  CHANNEL,
  contentFields,
  decodeControl,
  encodeControl,
  encodeFields,
  encodeMessage,
  type Field,
  type Message,
} from '../src/protocol/message.js';
import { Writer } from '../src/protocol/varint.js';
import { type Asked, decodeRequest, encodeChannelMessage, encodeSaid, encodeState } from './hub.js';
import { bytesOf, data, Peer } from './peer.js';
import { type Bytes, bytes, comparable, hex, load, messageOf, type VectorMessage } from './vectors.js';

type Fields = { op: string; epoch?: number; offset?: number; data?: VectorMessage; [key: string]: unknown };

interface Vectors {
  valid: { why: string; bytes: Bytes; message: Fields; canonical?: boolean }[];
  invalid: { why: string; bytes: Bytes }[];
  states: Vectors['valid'];
  invalid_states: Vectors['invalid'];
}

const { valid, invalid, states, invalid_states: invalidStates } = load<Vectors>('channels.json');
const OPS = [
  'SUBSCRIBE',
  'UNSUBSCRIBE',
  'PUBLISH',
  'SUBSCRIBED',
  'DONE',
  'FAILED',
  'PUBLICATION',
  'UNSUBSCRIBED',
  'SKIPPED',
  'SNAPSHOT',
  'VALUE',
  'SETTLED',
  'SET',
  'HISTORY',
  'PAGE',
  'ADDED',
];
const ASKED = ['SUBSCRIBE', 'UNSUBSCRIBE', 'PUBLISH', 'SET', 'HISTORY'];

describe('valid', () => {
  for (const { why, bytes: raw, message, canonical = true } of valid) {
    const body = bytes(raw);
    if (ASKED.includes(message.op)) {
      it(`${why}: written, and not the server's to say`, () => {
        const asked = decodeRequest(body);
        expect(toVector(asked)).toEqual(comparing(message));
        expect(codeOf(() => op.decodeChannel(body))).toBe('MALFORMED_MESSAGE');
        if (canonical) {
          expect(hex(bodyOf(encode(asked)))).toBe(hex(body));
        }
      });
    } else {
      it(`${why}: read`, () => {
        const said = op.decodeChannel(body);
        expect(toVector(said)).toEqual(comparing(message));
        expect(hex(encodeSaid(said))).toBe(hex(body));
        // A view of bytes that are gone later.
        const copy = JSON.stringify(toVector(said));
        body.fill(0);
        expect(JSON.stringify(toVector(said))).toBe(copy);
      });
    }
  }
});

describe('invalid', () => {
  for (const { why, bytes: raw } of invalid) {
    it(`${why} (${JSON.stringify(raw)})`, () => {
      expect(codeOf(() => op.decodeChannel(bytes(raw)))).toBe('MALFORMED_MESSAGE');
      expect(codeOf(() => decodeRequest(bytes(raw)))).toBe('MALFORMED_MESSAGE');
    });
  }

  it('whatever is cut off, or put behind', () => {
    for (const { bytes: raw, message } of valid) {
      const body = bytes(raw);
      const open = message.op === 'PUBLICATION' || (message.op === 'VALUE' && message.data);
      const fixed = !ASKED.includes(message.op) && !open;
      for (let length = 0; fixed && length < body.length; length++) {
        expect(codeOf(() => op.decodeChannel(body.subarray(0, length)))).toBe('MALFORMED_MESSAGE');
      }
      if (fixed) {
        expect(codeOf(() => op.decodeChannel(Uint8Array.of(...body, 0)))).toBe('MALFORMED_MESSAGE');
      }
    }
  });
});

describe('the payload of STATE', () => {
  for (const { why, bytes: raw, message, canonical = true } of states) {
    it(why, () => {
      const value = op.decodeState(bytes(raw));
      expect(toVector({ op: op.VALUE, ...value })).toEqual(comparing(message));
      if (canonical) {
        expect(hex(encodeState(value))).toBe(hex(bytes(raw)));
      }
    });
  }

  for (const { why, bytes: raw } of invalidStates) {
    it(why, () => {
      expect(codeOf(() => op.decodeState(bytes(raw)))).toBe('MALFORMED_FRAME');
    });
  }
});

it('whatever comes is read, or is malformed, and reads the same when it is written again', () => {
  let state = 7;
  const random = (below: number) => {
    state = (state * 48_271) % 2_147_483_647;
    return state % below;
  };
  const bodies = valid.map((one) => bytes(one.bytes).slice(0, 20));
  let read = 0;
  for (let round = 0; round < 20_000; round++) {
    const body = (bodies[random(bodies.length)] ?? new Uint8Array(1)).slice();
    for (let change = random(4); change >= 0; change--) {
      body[random(body.length)] = random(256);
    }
    let said: op.ChannelMessage | undefined;
    if (codeOf(() => (said = op.decodeChannel(body))) === undefined && said) {
      read++;
      expect(op.decodeChannel(encodeSaid(said))).toEqual(said);
    }
  }
  expect(read).toBeGreaterThan(1_000);
});

it('the fields of a request come back out of its bytes, whatever its number', () => {
  for (const id of [1, 63, 64, 16_383, 16_384, 2 ** 30, Number.MAX_SAFE_INTEGER]) {
    for (const length of [0, 1, 50, 70, 17_000]) {
      const fields = encodeFields('room:42', 0, new Uint8Array(length).fill(9));
      const encoded = encodeControl(CHANNEL, op.PUBLISH, id, fields);
      expect(decodeControl(encoded)).toEqual({ op: op.PUBLISH, id, fields });
    }
  }
});

describe('in stream 0', () => {
  const publication = (text: string) =>
    encodeChannelMessage({ op: op.PUBLICATION, number: 3, offset: 1, data: text });

  it('they come apart from messages, in any pieces, and hold no credit', () => {
    const peer = new Peer();
    peer.open();
    const all = Uint8Array.of(
      ...encodeMessage(true, bytesOf('a')),
      ...publication('hello'),
      ...encodeMessage(true, bytesOf('b')),
    );
    for (const [at, byte] of all.entries()) {
      peer.receive(data(0, at, Uint8Array.of(byte)));
    }
    expect(peer.saw('channel').map(({ message }) => message)).toEqual([
      { op: op.PUBLICATION, number: 3, offset: 1, data: 'hello' },
    ]);
    expect(peer.machine.counters.messagesIn).toBe(3);
    // The two messages were not taken, and cost 3 bytes each.
    expect(peer.pass(1_010).filter(({ type }) => type === 'ack')).toEqual([
      { type: 'ack', stream: 0, received: all.length, limit: 262_144 + all.length - 6 },
    ]);
    expect([peer.machine.message(), peer.machine.message(), peer.machine.message()]).toEqual([
      'a',
      'b',
      undefined,
    ]);
  });

  it.each([
    ['one that is empty', Uint8Array.of(2, 0), 'MALFORMED_MESSAGE'],
    ['one that cannot be read', Uint8Array.of(2, 1, 7), 'MALFORMED_MESSAGE'],
    ['the next kind but one', Uint8Array.of(4, 1), 'MALFORMED_MESSAGE'],
    ['as long as may be', header(100 + MAX_CONTROL_HEADER), undefined],
    ['a byte more', header(101 + MAX_CONTROL_HEADER), 'MESSAGE_TOO_LARGE'],
  ])('%s', (_, raw, code) => {
    const peer = new Peer();
    peer.open({ maxMessage: 100 });
    expect(Peer.codeOf(peer.receive(data(0, 0, raw)))).toBe(code);
  });

  it('what was said before one that cannot be read still counts', () => {
    const peer = new Peer();
    peer.open();
    expect(Peer.codeOf(peer.receive(data(0, 0, Uint8Array.of(...publication('x'), 2, 0))))).toBe(
      'MALFORMED_MESSAGE',
    );
    expect(peer.saw('channel')).toHaveLength(1);
  });
});

function header(length: number): Uint8Array {
  const out = new Writer();
  out.varint(2);
  out.varint(length);
  return out.finish();
}

/** As a client writes it. */
function encode({
  op: kind,
  request,
  channel,
  since,
  about,
  key = '',
  data: content,
  ...rest
}: Asked): Uint8Array {
  const position = since ? [since.epoch, since.offset] : [];
  const flags = Number(since !== undefined);
  const fields: Record<Asked['op'], Field[]> = {
    [op.SUBSCRIBE]: [
      flags + 2 * Number(about !== undefined),
      ...position,
      ...(about === undefined ? [] : [about]),
    ],
    [op.UNSUBSCRIBE]: [],
    [op.PUBLISH]: contentFields(content),
    [op.SET]: [key, ...contentFields(content)],
    [op.HISTORY]: [flags + 2 * Number(rest.newest), ...position, rest.limit ?? 0],
  };
  return encodeControl(CHANNEL, kind, request, encodeFields(channel, ...fields[kind]));
}

/** Without the kind and the length of the message. */
function bodyOf(encoded: Uint8Array): Uint8Array {
  let body = new Uint8Array(0);
  const out = encoded.slice();
  expect(out[0]).toBe(2);
  for (const size of [2, 3, 5, 9]) {
    if (1 << ((out[1] ?? 0) >> 6) === size - 1) {
      body = out.subarray(size);
    }
  }
  return body;
}

/** In the notation of the file, with data that compares. */
function toVector(message: op.ChannelMessage | Asked): object {
  const { op: kind, ...rest } = message;
  const { position, since, data: content, ...fields } = rest as Record<string, unknown>;
  return {
    op: OPS[kind - 1],
    ...fields,
    ...(position as object),
    ...(since as object),
    ...(content !== undefined && { data: comparable(content as Message) }),
    ...('publications' in fields && {
      publications: (fields['publications'] as op.Publication[]).map(({ offset, data }) => ({
        offset,
        data: comparable(data),
      })),
    }),
  };
}

function comparing({ data: content, ...fields }: Fields): object {
  return {
    ...fields,
    ...(content && { data: messageOf(content) }),
    ...('publications' in fields && {
      publications: (fields['publications'] as { offset: number; data: VectorMessage }[]).map(
        ({ offset, data }) => ({ offset, data: messageOf(data) }),
      ),
    }),
  };
}

/** The code of what it throws. Anything but a ProtocolError is a mistake. */
function codeOf(work: () => unknown): string | undefined {
  try {
    work();
    return;
  } catch (error) {
    if (error instanceof ProtocolError) {
      return CODE_NAMES[error.close.code];
    }
    throw error;
  }
}

// Request messages by the vectors, and how they lie in stream 0.

import { describe, expect, it } from 'vitest';
import { CODE_NAMES, ProtocolError } from '../src/protocol/close.js';
import { MAX_CONTROL_HEADER } from '../src/protocol/limits.js';
import { decodeControl, encodeFields, encodeMessage } from '../src/protocol/message.js';
import { ANSWER, decodeRequest, ERROR, type RequestMessage } from '../src/protocol/requests.js';
import { bytesOf, data, Peer } from './peer.js';
import { encodeRequestMessage } from './requests.js';
import { type Bytes, bytes, comparable, hex, load, messageOf, type VectorMessage } from './vectors.js';

type Fields = { op: string; data?: VectorMessage; [key: string]: unknown };

interface Vectors {
  valid: { why: string; bytes: Bytes; message: Fields; canonical?: boolean }[];
  invalid: { why: string; bytes: Bytes }[];
}

const { valid, invalid } = load<Vectors>('requests.json');
const OPS = ['REQUEST', 'CHUNK', 'ANSWER', 'ERROR', 'CANCEL', 'MORE'];

describe('valid', () => {
  for (const { why, bytes: raw, message, canonical = true } of valid) {
    it(why, () => {
      const body = bytes(raw);
      const said = decodeRequest(body);
      const { data: content, ...fields } = message;
      expect(toVector(said)).toEqual({ ...fields, ...(content && { data: messageOf(content) }) });
      if (canonical) {
        const { op, id, fields } = decodeControl(encodeRequestMessage(said));
        expect(hex(encodeFields(op, id, fields))).toBe(hex(body));
      }
    });
  }
});

describe('invalid', () => {
  for (const { why, bytes: raw } of invalid) {
    it(why, () => {
      expect(codeOf(() => decodeRequest(bytes(raw)))).toBe('MALFORMED_MESSAGE');
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
    let said: RequestMessage | undefined;
    if (codeOf(() => (said = decodeRequest(body))) === undefined && said) {
      read++;
      const { op, id, fields } = decodeControl(encodeRequestMessage(said));
      expect(decodeRequest(encodeFields(op, id, fields))).toEqual(said);
    }
  }
  expect(read).toBeGreaterThan(1_000);
});

describe('in stream 0', () => {
  const answer = encodeRequestMessage({ op: ANSWER, id: 3, data: 'hello' });

  it('they come apart from messages, in any pieces, and hold no credit', () => {
    const peer = new Peer();
    peer.open();
    const all = Uint8Array.of(...encodeMessage(true, bytesOf('a')), ...answer);
    for (const [at, byte] of all.entries()) {
      peer.receive(data(0, at, Uint8Array.of(byte)));
    }
    expect(peer.saw('request').map(({ message }) => message)).toEqual([{ op: ANSWER, id: 3, data: 'hello' }]);
    expect(peer.pass(1_010).filter(({ type }) => type === 'ack')).toEqual([
      { type: 'ack', stream: 0, received: all.length, limit: 262_144 + all.length - 3 },
    ]);
  });

  it.each([
    ['one that is empty', Uint8Array.of(3, 0), 'MALFORMED_MESSAGE'],
    ['one that cannot be read', Uint8Array.of(3, 1, 7), 'MALFORMED_MESSAGE'],
    ['as long as may be', encodeFields(3, 100 + MAX_CONTROL_HEADER), undefined],
    ['a byte more', encodeFields(3, 101 + MAX_CONTROL_HEADER), 'MESSAGE_TOO_LARGE'],
  ])('%s', (_, raw, code) => {
    const peer = new Peer();
    peer.open({ maxMessage: 100 });
    expect(Peer.codeOf(peer.receive(data(0, 0, raw)))).toBe(code);
  });
});

/** In the notation of the file, with data that compares. */
function toVector(message: RequestMessage): object {
  const { op, ...rest } = message;
  const { data: content, size: _, ...fields } = rest as Record<string, unknown>;
  return {
    op: OPS[op - 1],
    ...fields,
    ...(op !== ERROR && content !== undefined && { data: comparable(content as string | Uint8Array) }),
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

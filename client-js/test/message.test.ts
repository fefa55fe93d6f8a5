import { describe, expect, it } from 'vitest';
import { decodeChannel } from '../src/protocol/channels.js';
import { CODE_NAMES, ProtocolError } from '../src/protocol/close.js';
import { DEFAULT_MAX_MESSAGE } from '../src/protocol/limits.js';
import { assembler, CHANNEL, encodeMessage } from '../src/protocol/message.js';
import { decodeRequest } from '../src/protocol/requests.js';
import { type Bytes, bytes, comparable, hex, load, messageOf, type VectorMessage } from './vectors.js';

interface Messages {
  valid: { why: string; pieces: Bytes[]; messages: VectorMessage[]; canonical?: boolean }[];
  invalid: { why: string; pieces: Bytes[]; messages?: VectorMessage[]; code: string; max_message?: number }[];
}

const { valid, invalid } = load<Messages>('messages.json');

describe('valid', () => {
  for (const { why, pieces, messages, canonical = true } of valid) {
    it(why, () => {
      const whole = bytes(pieces);
      const expected = messages.map(messageOf);
      expect(assemble(pieces.map(bytes)).found).toEqual(expected);
      const single = [...whole.subarray(0, 3000)].map((byte) => Uint8Array.of(byte));
      expect(assemble([...single, whole.subarray(3000)]).found).toEqual(expected);
      // Everywhere in short ones, around the header of long ones.
      for (let at = 0; at <= (whole.length > 10_000 ? 12 : whole.length); at++) {
        expect(assemble([whole.subarray(0, at), whole.subarray(at)]).found).toEqual(expected);
      }
      if (canonical) {
        const again = messages.map((message) => {
          const text = message.binary === undefined;
          const body = bytes(
            Buffer.from((messageOf(message).split(' ')[1] ?? '') as string, 'hex').toString('hex'),
          );
          return hex(encodeMessage(text, body));
        });
        expect(again.join('')).toBe(hex(whole));
      }
    });
  }
});

describe('invalid', () => {
  for (const { why, pieces, messages = [], code, max_message = DEFAULT_MAX_MESSAGE } of invalid) {
    it(why, () => {
      expect(assemble(pieces.map(bytes), max_message)).toEqual({ found: messages.map(messageOf), code });
    });
  }
});

it('puts a long message together in linear time, from the smallest pieces', () => {
  const length = 4_000_000;
  const raw = encodeMessage(false, new Uint8Array(length));
  const started = performance.now();
  const pieces: Uint8Array[] = [];
  for (let at = 0; at < raw.length; at += 11) {
    pieces.push(raw.subarray(at, at + 11));
  }
  const { found } = assemble(pieces);
  expect(found[0]?.length).toBe('binary '.length + 2 * length);
  expect(performance.now() - started).toBeLessThan(5000);
});

function assemble(pieces: Uint8Array[], max = DEFAULT_MAX_MESSAGE): { found: string[]; code?: string } {
  const messages = assembler(max);
  const found: string[] = [];
  try {
    for (const piece of pieces) {
      messages.push(piece, (item) => {
        if ('message' in item) {
          found.push(comparable(item.message));
        } else if (item.kind === CHANNEL) {
          decodeChannel(item.body);
        } else {
          decodeRequest(item.body);
        }
      });
    }
    return { found };
  } catch (error) {
    if (error instanceof ProtocolError) {
      return { found, code: CODE_NAMES[error.close.code] ?? '' };
    }
    throw error;
  }
}

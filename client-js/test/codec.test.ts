import { describe, expect, it } from 'vitest';
import { CODE_NAMES, ProtocolError } from '../src/protocol/close.js';
import { decodePacket, frameDecoder } from '../src/protocol/codec.js';
import {
  ACK,
  END,
  EXPIRES,
  type Frame,
  GOAWAY,
  PING,
  PONG,
  RESET,
  STOP,
  STREAMS,
  TAKEN,
  writeClose,
  writeDatagram,
  writeFields,
  writeState,
  writeStreamHeader,
  writeToken,
} from '../src/protocol/frames.js';
import { Writer } from '../src/protocol/varint.js';
import { type Bytes, bytes, fromVector, hex, load, plain, toVector, type VectorFrame } from './vectors.js';

interface Frames {
  frames: { why: string; bytes: Bytes; frame: VectorFrame; canonical?: boolean }[];
  sequences: { why: string; bytes: Bytes; frames: VectorFrame[] }[];
  incomplete: { why: string; bytes: Bytes }[];
}

const { frames, sequences, incomplete } = load<Frames>('frames.json');
const { invalid } = load<{ invalid: { why: string; bytes: Bytes; code: string }[] }>('invalid.json');

describe('frames', () => {
  for (const { why, bytes: raw, frame, canonical = true } of frames) {
    it(why, () => {
      for (const pieces of cuts(bytes(raw))) {
        expect(decode(pieces)).toEqual([plain(frame)]);
      }
      if (canonical && frame.type !== 'WELCOME') {
        expect(hex(encode(fromVector(frame)))).toBe(hex(bytes(raw)));
      }
    });
  }
});

describe('sequences', () => {
  for (const { why, bytes: raw, frames: expected } of sequences) {
    it(why, () => {
      for (const pieces of cuts(bytes(raw))) {
        expect(decode(pieces)).toEqual(expected.map(plain));
      }
    });
  }
});

describe('incomplete', () => {
  for (const { why, bytes: raw } of incomplete) {
    it(why, () => {
      for (const pieces of cuts(bytes(raw))) {
        expect(decode(pieces)).toEqual([]);
      }
      if (bytes(raw).length > 0) {
        expect(() => decodePacket(bytes(raw), () => {})).toThrow(/ends inside a frame/);
      }
    });
  }
});

describe('invalid', () => {
  for (const { why, bytes: raw, code } of invalid) {
    it(why, () => {
      for (const pieces of cuts(bytes(raw))) {
        expect(codeThrownBy(() => decode(pieces))).toBe(code);
      }
    });
  }
});

describe('hostile and large input', () => {
  it('mutated bytes give frames or a ProtocolError, and nothing else', () => {
    const random = seeded(1);
    const valid = frames.map((vector) => bytes(vector.bytes)).filter((raw) => raw.length < 2000);
    for (let round = 0; round < 5000; round++) {
      const raw = (valid[Math.floor(random() * valid.length)] ?? new Uint8Array()).slice();
      for (let flips = 0; flips < 3; flips++) {
        raw[Math.floor(random() * raw.length)] = Math.floor(random() * 256);
      }
      codeThrownBy(() => decode([raw]));
    }
  });

  it('8 MB in pieces of any size are read in linear time', () => {
    const out = new Writer();
    for (let offset = 0; offset < 8_000_000; offset += 16_000) {
      writeStreamHeader(out, 0, offset, 16_000);
      out.bytes(new Uint8Array(16_000));
    }
    const all = out.finish();
    for (const size of [7, 1000, 65_536, all.length]) {
      const decoder = frameDecoder();
      let received = 0;
      const started = performance.now();
      for (let at = 0; at < all.length; at += size) {
        decoder.push(all.subarray(at, at + size), (frame) => {
          received += frame.type === 'stream' ? frame.data.length : 0;
        });
      }
      expect(received).toBe(8_000_000);
      // Quadratic code takes minutes; a busy machine does not.
      expect(performance.now() - started).toBeLessThan(5000);
    }
  });
});

/** All at once, byte by byte, at every single place when that is few, and at random places. */
function* cuts(raw: Uint8Array): Generator<Uint8Array[]> {
  yield [raw];
  if (raw.length <= 400) {
    yield [...raw].map((byte) => Uint8Array.of(byte));
    for (let at = 1; at < raw.length; at++) {
      yield [raw.subarray(0, at), raw.subarray(at)];
    }
  }
  const random = seeded(raw.length);
  for (let round = 0; round < 5; round++) {
    const pieces: Uint8Array[] = [];
    for (let at = 0; at < raw.length; ) {
      const size = 1 + Math.floor((random() * raw.length) / 3);
      pieces.push(raw.subarray(at, at + size));
      at += size;
    }
    yield pieces;
  }
}

function decode(pieces: Uint8Array[]): VectorFrame[] {
  const decoder = frameDecoder();
  const found: VectorFrame[] = [];
  for (const piece of pieces) {
    decoder.push(piece, (frame) => found.push(toVector(frame)));
  }
  return found;
}

function encode(frame: Frame): Uint8Array {
  const out = new Writer(4);
  switch (frame.type) {
    case 'close':
      writeClose(out, frame.close);
      break;
    case 'stream':
      writeStreamHeader(out, frame.stream, frame.offset, frame.data.length);
      out.bytes(frame.data);
      break;
    case 'ack':
      writeFields(out, ACK, frame.stream, frame.received, frame.limit);
      break;
    case 'datagram':
      writeDatagram(out, frame.data);
      break;
    case 'ping':
      writeFields(out, PING, frame.id);
      break;
    case 'pong':
      writeFields(out, PONG, frame.id, frame.timeUs);
      break;
    case 'end':
      writeFields(out, END, frame.stream, frame.size);
      break;
    case 'reset':
      writeFields(out, RESET, frame.stream, frame.code);
      break;
    case 'stop':
      writeFields(out, STOP, frame.stream, frame.code);
      break;
    case 'streams':
      writeFields(out, STREAMS, frame.limit);
      break;
    case 'taken':
      writeFields(out, TAKEN, frame.count);
      break;
    case 'goaway':
      writeFields(out, GOAWAY, frame.delayMs);
      break;
    case 'state':
      writeState(out, frame.data);
      break;
    case 'token':
      writeToken(out, frame.token);
      break;
    case 'expires':
      writeFields(out, EXPIRES, frame.inMs);
      break;
    case 'welcome':
      throw new Error('not written by a client');
  }
  return out.finish();
}

function codeThrownBy(work: () => void): string | undefined {
  try {
    work();
    return undefined;
  } catch (error) {
    if (error instanceof ProtocolError) {
      return CODE_NAMES[error.close.code];
    }
    throw error;
  }
}

/** mulberry32: the same numbers in every run. */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

import { expect, it } from 'vitest';
import { EventParser } from '../src/transport/events.js';

const STREAM =
  ': a comment – über\r\nid: 1\ndata: one\r\n\r\ndata:two\rdata: three\r\rid:7\nevent: x\n\n: \u{1f600}\ndata: four\n\n';
const EVENTS = [['one'], ['two', 'three'], ['four']];

it('reads the same events wherever the bytes are cut', () => {
  const bytes = new TextEncoder().encode(STREAM);
  for (let first = 0; first <= bytes.length; first++) {
    for (const second of [first, first + 1, first + 2, bytes.length]) {
      expect(
        parse([bytes.subarray(0, first), bytes.subarray(first, second), bytes.subarray(second)]),
      ).toEqual(EVENTS);
    }
  }
  expect(parse([...bytes].map((byte) => Uint8Array.of(byte)))).toEqual(EVENTS);
});

it('ignores a byte order mark at the start', () => {
  expect(parse([new TextEncoder().encode('\ufeffdata: x\n\n')])).toEqual([['x']]);
});

it('is bounded, and linear in its input', () => {
  const events: string[][] = [];
  const parser = new EventParser(400_000, (data) => events.push(data));
  const line = new TextEncoder().encode(`data: ${'x'.repeat(300_000)}\n\n`);
  const started = performance.now();
  for (let round = 0; round < 20; round++) {
    for (let at = 0; at < line.length; at += 50) {
      parser.push(line.subarray(at, at + 50));
    }
  }
  expect(events).toHaveLength(20);
  expect(performance.now() - started).toBeLessThan(5000);
  expect(() => {
    for (let round = 0; round < 10_000; round++) {
      parser.push(new TextEncoder().encode('data: y\n'.repeat(100)));
    }
  }).toThrow(/more than 400000 characters/);
});

function parse(pieces: Uint8Array[]): string[][] {
  const events: string[][] = [];
  const parser = new EventParser(1000, (data) => events.push(data));
  for (const piece of pieces) {
    parser.push(piece);
  }
  return events;
}

// Two machines, and links between them that are lost, or left, at any moment, with whatever was on its way: nothing
// reliable is lost, repeated or reordered, and nothing is left over.
//
// Both are clients. The ids of streams are swapped on the way, so that each takes the other for a server.

import { describe, expect, it } from 'vitest';
import { PUBLICATION } from '../src/protocol/channels.js';
import { decodePacket } from '../src/protocol/codec.js';
import type { Frame } from '../src/protocol/frames.js';
import { StreamError } from '../src/protocol/half.js';
import { Machine } from '../src/protocol/machine.js';
import { ANSWER } from '../src/protocol/requests.js';
import { encodeChannelMessage } from './hub.js';
import { encodeRequestMessage } from './requests.js';

type Random = (below: number) => number;

/** A native stream, and what is on its way on it. */
interface Native {
  /** The session's stream that it carries, as each side calls it, once it knows. */
  readonly known: (number | undefined)[];
  readonly queues: [Frame[], Frame[]];
}

/** One stream of one side. */
interface Handle {
  written: number;
  read: number;
  open: boolean;
  /** How it was read: to its end, not to the end, or not yet. */
  ended: 'end' | 'gone' | undefined;
}

class Side {
  readonly machine = new Machine();
  readonly handles = new Map<number, Handle>();
  readonly got: string[] = [];
  /** Offsets of publications and numbers of answers, which lie between the messages. */
  readonly offsets: number[] = [];
  sent = 0;
  published = 0;
}

class Pair {
  readonly sides: [Side, Side] = [new Side(), new Side()];
  now = 1_700_000_000_000;
  #links = 0;
  /** What is on its way to each side on the link stream. */
  #queues: [Frame[], Frame[]] = [[], []];
  #natives: Native[] = [];

  constructor(readonly random: Random) {}

  /** Another link takes over. What was on its way is lost, but for what the first side may still read. */
  link(): void {
    this.#links++;
    const nativeStreams = this.random(2) === 0;
    const late = this.#links > 1 ? this.#queues[0].splice(0, this.random(9)) : [];
    this.#queues = [[], []];
    this.#natives = [];
    const received = this.sides.map(({ machine }) => Number(machine.resumption?.received.slice(2) ?? 0));
    for (const [index, { machine }] of this.sides.entries()) {
      if (this.random(2)) {
        machine.linkLost();
      }
      machine.linkOpened(this.now, { nativeDatagram: 0, nativeStreams });
      const welcome = {
        version: 1,
        session: 's',
        key: 'k',
        resumed: this.#links > 1,
        marked: false,
        link: this.#links,
        timeUs: this.now * 1000,
        heartbeatMs: 10_000,
        idleMs: 30_000,
        maxMessage: 1_000_000,
        received: received[1 - index] ?? 0,
        limit: this.#links > 1 ? 0 : 262_144,
        streams: 100,
        windowMs: 1,
        expiresMs: 0,
      };
      machine.handleFrame(this.now, { type: 'welcome', welcome });
    }
    for (const frame of late) {
      this.sides[0].machine.handleLateFrame(this.now, frame);
    }
    this.work();
  }

  /** Lets both sides say what they have to say. */
  work(): void {
    for (const index of [0, 1] as const) {
      const { machine, handles, offsets } = this.sides[index];
      for (let event = machine.event(); event; event = machine.event()) {
        if (event.type === 'closed') {
          throw new Error(event.close.reason);
        }
        if (event.type === 'stream') {
          handles.set(event.id, fresh());
        } else if (event.type === 'channel') {
          offsets.push(event.message.op === PUBLICATION ? event.message.offset : NaN);
        } else if (event.type === 'request') {
          offsets.push(event.message.id);
        }
      }
      this.#route(index);
      const to = 1 - index;
      pour(
        () => machine.packet(this.now, 1_000 + this.random(60_000)),
        (frame) => {
          expect(frame.type === 'close' ? frame.close : undefined).toBeUndefined();
          this.#queues[to]?.push(frame);
        },
      );
      for (const { known, queues } of this.#natives) {
        const id = known[index];
        if (id !== undefined) {
          pour(
            () => machine.nativePacket(this.now, id, 1_000 + this.random(60_000)),
            (frame) => queues[to]?.push(frame),
          );
        }
      }
    }
  }

  /** Something arrives, in the order of its own stream. False when nothing is on its way. */
  arrive(): boolean {
    const ways: (() => void)[] = [];
    for (const index of [0, 1] as const) {
      const { machine } = this.sides[index];
      const [first] = this.#queues[index];
      if (first) {
        ways.push(() => {
          this.#queues[index].shift();
          machine.handleFrame(this.now, first);
        });
      }
      for (const { known, queues } of this.#natives) {
        const [next] = queues[index];
        if (next) {
          ways.push(() => {
            queues[index].shift();
            known[index] = machine.handleNativeFrame(this.now, known[index], next);
          });
        }
      }
    }
    ways[this.random(ways.length)]?.();
    return ways.length > 0;
  }

  pass(ms: number): void {
    this.now += ms;
    for (const { machine } of this.sides) {
      if (machine.timeout <= this.now) {
        machine.handleTimeout(this.now);
      }
    }
  }

  #route(index: 0 | 1): void {
    const { streams } = this.sides[index].machine;
    for (let id = streams.unrouted(); id !== undefined; id = streams.unrouted()) {
      const isNative = this.random(2) === 0;
      if (isNative) {
        const known: (number | undefined)[] = [undefined, undefined];
        known[index] = id;
        this.#natives.push({ known, queues: [[], []] });
      }
      streams.route(id, isNative);
    }
  }
}

/** One thing that an application may do. */
function act(side: Side, who: number, random: Random): void {
  const { machine, handles } = side;
  const { streams } = machine;
  const ids = [...handles.keys()];
  const id = ids[random(ids.length)];
  const handle = id === undefined ? undefined : handles.get(id);
  switch (random(9)) {
    case 0: {
      const opened = handles.size < 40 ? streams.open() : null;
      if (opened !== null) {
        handles.set(opened, fresh());
      }
      break;
    }
    case 1:
      if (random(2)) {
        const number = ++side.published;
        const data = new Uint8Array(random(3000));
        machine.sendControl(
          random(2)
            ? encodeChannelMessage({ op: PUBLICATION, number: 1, offset: number, data })
            : encodeRequestMessage({ op: ANSWER, id: number, data }),
        );
      }
      machine.send(true, new TextEncoder().encode(`message ${side.sent++} ${'x'.repeat(random(3000))}`));
      break;
    case 2:
      if (handle && id !== undefined && random(3) === 0) {
        finish(side, id, handle);
      }
      break;
    case 3:
      if (handle?.open && id !== undefined && random(6) === 0) {
        streams.reset(id, 1);
        handle.open = false;
      }
      break;
    case 4:
      if (handle && !handle.ended && id !== undefined && random(6) === 0) {
        streams.stop(id, 2);
        handle.ended = 'gone';
      }
      break;
    default:
      if (handle && id !== undefined) {
        write(side, who, id, handle, random(40_000));
        read(side, who, id, handle);
      }
  }
}

function write(side: Side, who: number, id: number, handle: Handle, length: number): void {
  if (handle.open) {
    const bytes = Uint8Array.from({ length }, (_, at) => byteOf(who, id, handle.written + at));
    quietly(handle, () => {
      handle.written += side.machine.streams.write(id, bytes);
    });
  }
}

function finish(side: Side, id: number, handle: Handle): void {
  if (handle.open) {
    quietly(handle, () => {
      side.machine.streams.finish(id);
      handle.open = false;
    });
  }
}

/** The other side may have stopped it. */
function quietly(handle: Handle, work: () => void): void {
  try {
    work();
  } catch (error) {
    expect(error).toBeInstanceOf(StreamError);
    expect((error as StreamError).kind).toBe('stopped');
    handle.open = false;
  }
}

function read(side: Side, who: number, id: number, handle: Handle): void {
  while (!handle.ended) {
    let got: ReturnType<Machine['streams']['read']>;
    try {
      got = side.machine.streams.read(id);
    } catch (error) {
      expect((error as StreamError).kind).toBe('reset');
      handle.ended = 'gone';
      return;
    }
    if (got === 'nothing') {
      return;
    }
    if (got === 'end') {
      handle.ended = 'end';
      return;
    }
    for (const byte of got) {
      if (byte !== byteOf(1 - who, swapped(id), handle.read++)) {
        throw new Error(`byte ${handle.read - 1} of stream ${id}`);
      }
    }
  }
}

function fresh(): Handle {
  return { written: 0, read: 0, open: true, ended: undefined };
}

function byteOf(who: number, id: number, offset: number): number {
  return (who * 101 + id * 31 + offset * 7 + (offset >> 8)) & 255;
}

function pour(packet: () => Uint8Array | null, each: (frame: Frame) => void): void {
  for (let next = packet(); next; next = packet()) {
    decodePacket(next, (frame) => {
      const copy = 'data' in frame ? { ...frame, data: frame.data.slice() } : frame;
      each('stream' in copy && copy.stream > 0 ? { ...copy, stream: swapped(copy.stream) } : copy);
    });
  }
}

/** The same stream, as the other side calls it. */
function swapped(id: number): number {
  return id % 2 ? id + 1 : id - 1;
}

/** mulberry32: the same numbers in every run. */
function seeded(seed: number): Random {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296) * below);
  };
}

describe('links that are lost at any moment', () => {
  for (let seed = 1; seed <= 8; seed++) {
    it(`seed ${seed}`, () => {
      const random = seeded(seed);
      const pair = new Pair(random);
      pair.link();
      const deliver = ({ machine, got }: Side) => {
        for (let message = machine.message(); message !== undefined; message = machine.message()) {
          got.push(String(message).split(' ').slice(0, 2).join(' '));
        }
      };
      for (let step = 0; step < 600; step++) {
        for (const [who, side] of pair.sides.entries()) {
          act(side, who, random);
          deliver(side);
        }
        pair.work();
        for (let count = random(8); count > 0 && pair.arrive(); count--) {
          pair.work();
        }
        pair.pass(random(20));
        if (random(60) === 0) {
          pair.link();
        }
      }
      // Everybody finishes.
      for (let round = 0; round < 3_000; round++) {
        pair.work();
        let moved = false;
        for (let count = 0; count < 50 && pair.arrive(); count++) {
          moved = true;
          pair.work();
        }
        let left = 0;
        for (const [who, side] of pair.sides.entries()) {
          deliver(side);
          for (const [id, handle] of side.handles) {
            finish(side, id, handle);
            read(side, who, id, handle);
            if (handle.ended && !handle.open) {
              side.machine.streams.release(id); // it may have been stopped without our noticing
            }
            left += Number(side.machine.streams.has(id));
          }
        }
        pair.pass(60);
        if (!left && !moved) {
          break;
        }
        if (round % 100 === 99) {
          pair.link();
        }
      }
      for (const [who, side] of pair.sides.entries()) {
        const other = pair.sides[1 - who] as Side;
        expect(side.got).toEqual(Array.from({ length: other.sent }, (_, index) => `message ${index}`));
        expect(side.offsets).toEqual(Array.from({ length: other.published }, (_, index) => index + 1));
        expect(side.machine.bufferedBytes).toBe(0);
        for (const [id, handle] of side.handles) {
          const theirs = other.handles.get(swapped(id));
          expect(side.machine.streams.has(id), `stream ${id} is left over`).toBe(false);
          if (handle.ended === 'end') {
            expect(handle.read).toBe(theirs?.written ?? 0);
          }
        }
      }
    });
  }
});

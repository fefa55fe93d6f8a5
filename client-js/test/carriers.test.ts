// websocket and webtransport against browser classes that do as told.

import { describe, expect, it } from 'vitest';
import type { Frame } from '../src/protocol/frames.js';
import type { Link, LinkHandlers, Loss, NativeStream, TransportKind } from '../src/transport/link.js';
import type { Opening } from '../src/transport/opening.js';
import { websocket } from '../src/transport/websocket.js';
import { webtransport } from '../src/transport/webtransport.js';
import { type Bytes, bytes, load, type VectorFrame } from './vectors.js';
import { settle, World } from './world.js';

const vectors = load<{ frames: { bytes: Bytes; frame: VectorFrame }[] }>('frames.json').frames;
const welcome = bytes(vectors.find(({ frame }) => frame.type === 'WELCOME')?.bytes ?? '');
const ping = Uint8Array.of(6, 1, 1);
const normal = { code: 0, application: false, reason: '' };

function open(kind: TransportKind, world: World, fields: Partial<Opening> = {}) {
  const frames: Frame[] = [];
  const datagrams: Uint8Array[] = [];
  const lost: Loss[] = [];
  const streams: { stream: NativeStream; received: Frame[] }[] = [];
  const violations: number[] = [];
  let writable = 0;
  const handlers: LinkHandlers = {
    frame: (frame) => frames.push(frame),
    stream: (stream) => {
      const received: Frame[] = [];
      streams.push({ stream, received });
      return { frame: (frame) => received.push(frame) };
    },
    datagram: (data) => datagrams.push(data),
    heard: () => {},
    writable: () => writable++,
    violation: (close) => violations.push(close.code),
    failing: (loss) => lost.push(loss),
    lost: (loss) => lost.push(loss),
  };
  const opening: Opening = {
    base: 'https://a.test/rt',
    resumption: undefined,
    token: 'secret',
    webtransport: undefined,
    info: true,
    ...fields,
  };
  const link: Link = kind.open(world, opening, handlers);
  return { link, frames, streams, datagrams, lost, violations, writable: () => writable };
}

class FakeSocket {
  static newest: FakeSocket;
  readyState = 0;
  bufferedAmount = 0;
  binaryType = '';
  readonly sent: Uint8Array[] = [];
  closedWith: unknown[] | null = null;
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onclose: ((event: { code: number; reason: string }) => void) | null = null;

  constructor(
    readonly url: string,
    readonly protocols: string[],
  ) {
    FakeSocket.newest = this;
  }

  send(packet: Uint8Array): void {
    this.sent.push(packet);
  }

  close(...args: unknown[]): void {
    this.closedWith = args;
  }

  receive(packet: Uint8Array<ArrayBuffer>): void {
    this.onmessage?.({ data: packet.buffer.slice(packet.byteOffset, packet.byteOffset + packet.length) });
  }
}

function socketWorld(): World {
  const world = new World();
  world.WebSocket = FakeSocket as never;
  return world;
}

describe('websocket', () => {
  it('offers the opening as subprotocols, and hands on frames', () => {
    const { frames, link } = open(websocket, socketWorld());
    const socket = FakeSocket.newest;
    expect([socket.url, socket.protocols]).toEqual([
      'wss://a.test/rt/websocket',
      ['throughline.v1', 'throughline.token.c2VjcmV0'],
    ]);
    expect(link.room()).toBe(0);
    socket.readyState = 1;
    socket.receive(Uint8Array.of(...welcome, ...ping));
    expect(frames.map(({ type }) => type)).toEqual(['welcome', 'ping']);
  });

  it('keeps its buffer shallow, and looks again: by timer, and whenever something arrives', async () => {
    const world = socketWorld();
    const { link, writable } = open(websocket, world);
    const socket = FakeSocket.newest;
    socket.readyState = 1;
    expect(link.room()).toBe(32_768);
    socket.bufferedAmount = 60_000;
    expect(link.room()).toBe(0);
    expect(link.room()).toBe(0);
    socket.receive(ping);
    expect(writable()).toBe(1);
    expect(link.room()).toBe(0);
    await world.pass(5);
    expect(writable()).toBe(2);
    expect(world.pendingTimers).toBe(0);
  });

  it('breaks the protocol with text, half frames, and packets that are too large', () => {
    const { violations } = open(websocket, socketWorld());
    FakeSocket.newest.onmessage?.({ data: 'text' });
    FakeSocket.newest.receive(Uint8Array.of(6, 1));
    FakeSocket.newest.receive(new Uint8Array(262_145));
    expect(violations).toEqual([2, 3, 5]);
  });

  it('says how it ended', async () => {
    const unopened = open(websocket, socketWorld());
    FakeSocket.newest.onclose?.({ code: 1006, reason: '' });
    await settle();
    expect(unopened.lost).toEqual([{ reason: 'closed with 1006' }]);
    const drained = open(websocket, socketWorld());
    FakeSocket.newest.onclose?.({ code: 4018, reason: 'restart' });
    await settle();
    expect(drained.lost[0]?.close).toEqual({ code: 18, application: false, reason: 'restart' });
    const world = new World();
    world.WebSocket = class {
      constructor() {
        throw new Error('forbidden by the policy');
      }
    } as never;
    const forbidden = open(websocket, world);
    expect(forbidden.lost).toEqual([]);
    await settle();
    expect(forbidden.lost).toEqual([{ reason: 'forbidden by the policy' }]);
  });

  it('closes with a code; a cut has none', async () => {
    for (const [close, args] of [
      [normal, [1000, '']],
      [{ code: 7, application: true, reason: 'é'.repeat(100) }, [1000, 'é'.repeat(61)]],
      [{ code: 2, application: false, reason: 'x' }, [4002, 'x']],
    ] as const) {
      const { link, lost } = open(websocket, socketWorld());
      const closed = link.close(close);
      expect(FakeSocket.newest.closedWith).toEqual(args);
      FakeSocket.newest.onclose?.({ code: 1000, reason: '' });
      await closed;
      expect(lost).toEqual([]);
    }
    const { link } = open(websocket, socketWorld());
    link.abort();
    expect(FakeSocket.newest.closedWith).toEqual([undefined, undefined]);
  });
});

/** A bidirectional stream; `down` is what the server writes on it. */
class FakeStream {
  readonly #down = new TransformStream<Uint8Array, Uint8Array>(undefined, { highWaterMark: 100 });
  readonly down = this.#down.writable.getWriter();
  readonly readable = this.#down.readable;
  readonly written: Uint8Array[] = [];
  ended = '';
  readonly writable = new WritableStream<Uint8Array>({
    write: (bytes) => void this.written.push(bytes),
    close: () => {
      this.ended = 'finished';
    },
    abort: () => {
      this.ended = 'reset';
    },
  });
}

class FakeWebTransport {
  static newest: FakeWebTransport;
  readonly down = new TransformStream<Uint8Array, Uint8Array>(undefined, { highWaterMark: 100 });
  readonly written: Uint8Array[] = [];
  readonly native: Uint8Array[] = [];
  readonly incoming = new TransformStream<Uint8Array, Uint8Array>(undefined, { highWaterMark: 100 });
  acceptDatagram: (() => void) | null = null;
  finished = false;
  reset = false;
  closedWith: unknown = null;
  end: (info: { closeCode?: number; reason?: string }) => void = () => {};
  fail: (error: Error) => void = () => {};
  readonly ready = Promise.resolve();
  readonly closed = new Promise((resolve, reject) => {
    this.end = resolve;
    this.fail = reject;
  });
  readonly incomingBidirectionalStreams: ReadableStream;
  accept: (stream: unknown) => void = () => {};
  /** Native streams, by whoever opened them. */
  readonly natives: FakeStream[] = [];
  readonly datagrams = {
    maxDatagramSize: 1024,
    readable: this.incoming.readable,
    writable: new WritableStream<Uint8Array>(
      {
        write: (bytes) =>
          new Promise((resolve) => {
            this.native.push(bytes);
            this.acceptDatagram = resolve;
          }),
      },
      { highWaterMark: 1 },
    ),
  };

  constructor(
    readonly url: string,
    readonly options: WebTransportOptions,
  ) {
    FakeWebTransport.newest = this;
    const writable = new WritableStream<Uint8Array>({
      write: (bytes) => void this.written.push(bytes),
      close: () => {
        this.finished = true;
      },
      abort: () => {
        this.reset = true;
      },
    });
    this.incomingBidirectionalStreams = new ReadableStream({
      start: (controller) => {
        this.accept = (stream) => controller.enqueue(stream);
        controller.enqueue({ readable: this.down.readable, writable });
      },
    });
  }

  createBidirectionalStream(): Promise<unknown> {
    const native = new FakeStream();
    this.natives.push(native);
    return Promise.resolve(native);
  }

  close(info: unknown): void {
    this.closedWith = info ?? {};
    this.end({});
  }
}

async function transported(fields: Partial<Opening> = {}) {
  const world = new World();
  world.WebTransport = FakeWebTransport as never;
  const opened = open(webtransport, world, fields);
  await settle();
  const wt = FakeWebTransport.newest;
  const down = wt.down.writable.getWriter();
  return { world, wt, down, ...opened };
}

describe('webtransport', () => {
  it('opens with hashes and fields in the URL, and reads frames wherever they are cut', async () => {
    const { wt, down, frames } = await transported({
      webtransport: { url: 'https://a.test:4433/rt/webtransport', certificateHashes: ['AQI='] },
    });
    expect(wt.url).toBe('https://a.test:4433/rt/webtransport?v=1&token=secret&marks=1');
    expect(wt.options).toEqual({
      protocols: ['throughline.v1'],
      serverCertificateHashes: [{ algorithm: 'sha-256', value: Uint8Array.of(1, 2) }],
    });
    for (const byte of welcome) {
      await down.write(Uint8Array.of(byte));
    }
    await down.write(Uint8Array.of(...ping, ...ping));
    await settle();
    expect(frames.map(({ type }) => type)).toEqual(['welcome', 'ping', 'ping']);
  });

  it('goes on sending when the stream has taken a full buffer, though nothing arrives', async () => {
    const { link, wt, writable } = await transported();
    expect(link.room()).toBe(65_536);
    link.send(new Uint8Array(65_500));
    expect(link.room()).toBe(0);
    await settle();
    expect([writable(), link.room(), wt.written.length]).toEqual([1, 65_536, 1]);
  });

  it('has native datagrams, one at a time while the browser is not ready for more', async () => {
    const { link, wt, datagrams, writable } = await transported();
    expect(link.datagrams?.maxSize()).toBe(1024);
    expect(link.datagrams?.room()).toBe(true);
    link.datagrams?.send(Uint8Array.of(1));
    expect(link.datagrams?.room()).toBe(false);
    const before = writable();
    wt.acceptDatagram?.();
    await settle();
    expect(writable()).toBe(before + 1);
    expect(link.datagrams?.room()).toBe(true);
    const incoming = wt.incoming.writable.getWriter();
    await incoming.write(Uint8Array.of(9));
    await settle();
    expect(datagrams).toEqual([Uint8Array.of(9)]);
  });

  it('opens native streams, whose ends mean nothing', async () => {
    const { link, wt, lost, writable } = await transported();
    const received: Frame[] = [];
    const stream = await link.streams?.open({ frame: (frame) => received.push(frame) });
    const [native] = wt.natives;
    const before = writable();
    stream?.send(Uint8Array.of(3, 2, 1, 0));
    await native?.down.write(Uint8Array.of(3, 3));
    await native?.down.write(Uint8Array.of(1, 0, 9));
    await settle();
    expect(native?.written).toEqual([Uint8Array.of(3, 2, 1, 0)]);
    expect(writable()).toBeGreaterThan(before);
    expect(received).toMatchObject([{ type: 'stream', stream: 1, offset: 0 }]);
    stream?.finish(false);
    await native?.down.close();
    await settle();
    expect([native?.ended, stream?.room(), lost]).toEqual(['finished', 0, []]);
    const other = await link.streams?.open({ frame: () => {} });
    other?.finish(true);
    await settle();
    expect(wt.natives[1]?.ended).toBe('reset');
    link.abort();
    await expect(link.streams?.open({ frame: () => {} })).rejects.toThrow('the link has ended');
  });

  it('takes native streams that the server opens', async () => {
    const { wt, streams, violations } = await transported();
    const natives = [new FakeStream(), new FakeStream()];
    for (const native of natives) {
      wt.accept(native);
      await native.down.write(Uint8Array.of(3, 3, 2, 0, 7));
    }
    await settle();
    expect(streams.map(({ received }) => received.length)).toEqual([1, 1]);
    streams[0]?.stream.send(Uint8Array.of(3, 2, 2, 0));
    await settle();
    expect(natives[0]?.written).toHaveLength(1);
    await natives[1]?.down.write(Uint8Array.of(0x3f, 0));
    await settle();
    expect(violations).toEqual([4]);
  });

  it('finishes the stream before it closes the session', async () => {
    const { link, wt, world, lost } = await transported();
    link.send(Uint8Array.of(2, 2, 0, 0));
    const closed = link.close({ code: 7, application: true, reason: 'bye' });
    await settle();
    expect([wt.finished, wt.closedWith]).toEqual([true, null]);
    await world.pass(1_500); // the server does not answer
    await closed;
    expect(wt.closedWith).toEqual({ closeCode: 7, reason: 'bye' });
    expect(lost).toEqual([]);
  });

  it('a cut says that only the link ends', async () => {
    const { link, wt, lost } = await transported();
    link.abort();
    expect([wt.closedWith, lost]).toEqual([{ closeCode: 4021, reason: '' }, []]);
  });

  it('says how it ended', async () => {
    for (const [info, close] of [
      [{ closeCode: 0, reason: '' }, undefined],
      [
        { closeCode: 4018, reason: 'restart' },
        { code: 18, application: false, reason: 'restart' },
      ],
      [
        { closeCode: 33, reason: 'mine' },
        { code: 33, application: true, reason: 'mine' },
      ],
    ] as const) {
      const { wt, lost } = await transported();
      wt.end(info);
      await settle();
      expect(lost).toEqual([{ reason: `closed with ${info.closeCode}`, ...(close && { close }) }]);
    }
    const { wt, lost } = await transported();
    wt.fail(new Error('Connection lost.'));
    await settle();
    expect(lost).toEqual([{ reason: 'Connection lost.' }]);
  });

  it('is not offered, or cannot be asked for', async () => {
    const world = new World();
    world.fetch = async () => Response.json({ webtransport: null });
    const { lost } = open(webtransport, world, { base: 'http://a.test/rt' });
    await settle();
    expect(lost).toEqual([{ reason: 'not offered', unavailable: true }]);
    world.fetch = () => Promise.reject(new Error('Failed to fetch'));
    const other = open(webtransport, world, { base: 'http://b.test/rt' });
    await settle();
    expect(other.lost).toEqual([{ reason: 'http://b.test/rt/info: Failed to fetch' }]);
  });

  it('asks anew where it is when it could not be opened there', async () => {
    // After a restart with another port or certificate no attempt of the page ever worked again.
    const world = new World();
    let asked = 0;
    world.fetch = async () => Response.json({ webtransport: { port: 4433 + asked++ } });
    world.WebTransport = class extends FakeWebTransport {
      override readonly ready = Promise.reject(new Error('Opening handshake failed.'));
    } as never;
    const { lost } = open(webtransport, world, { base: 'http://a.test/rt' });
    await settle();
    expect(lost).toEqual([{ reason: 'Opening handshake failed.' }]);
    open(webtransport, world, { base: 'http://a.test/rt' });
    await settle();
    expect(asked).toBe(2);
  });
});

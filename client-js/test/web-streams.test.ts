// Streams as an application has them: WHATWG streams that survive moves, with backpressure both ways.

import { describe, expect, it } from 'vitest';
import { DONE } from '../src/protocol/frames.js';
import { type SessionStream, Streams } from '../src/streams.js';
import type { Transport } from '../src/transport/link.js';
import { Peer } from './peer.js';
import { Server } from './server.js';
import { settle, World } from './world.js';

async function opened(...only: Transport[]) {
  const world = new World();
  const server = new Server(world);
  server.only(...only);
  const session = server.connect();
  await world.pass(1_500);
  await session.ready;
  return { world, server, session };
}

/** Bytes that tell when any of them is missing or moved. */
function pattern(length: number): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length }, (_, index) => (index * 31 + (index >> 8)) & 0xff);
}

function collect({ readable }: SessionStream) {
  const state = { bytes: [] as number[], done: false, error: null as unknown };
  const reader = readable.getReader();
  const pump = async (): Promise<void> => {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) {
        state.done = true;
        return;
      }
      for (const byte of value) {
        state.bytes.push(byte);
      }
    }
  };
  pump().catch((error) => {
    state.error = error;
  });
  return state;
}

describe('a stream', () => {
  it.each(['webtransport', 'websocket', 'sse', 'poll'] as const)('echoes over %s', async (transport) => {
    const { world, server, session } = await opened(transport);
    const stream = await session.openStream();
    expect(stream.id).toBe(1);
    const echo = collect(stream);
    const writer = stream.writable.getWriter();
    const sent = pattern(100_000);
    void writer.write(sent);
    void writer.close();
    await world.pass(2_000);
    expect([echo.done, echo.bytes.length, echo.error]).toEqual([true, sent.length, null]);
    expect(Buffer.from(echo.bytes).equals(Buffer.from(sent))).toBe(true);
    const natively = server.links.at(-1)?.natively ?? 0;
    expect(natively > 5).toBe(transport === 'webtransport');
    expect((await session.openStream()).id).toBe(3);
  });

  it('survives cuts, black holes and moves between transports with and without native streams', async () => {
    const { world, server, session } = await opened('webtransport', 'websocket', 'poll');
    const streams = await Promise.all(Array.from({ length: 5 }, () => session.openStream()));
    const sent = pattern(300_000);
    const echoes = streams.map((stream) => collect(stream));
    for (const { writable } of streams) {
      const writer = writable.getWriter();
      void (async () => {
        for (let at = 0; at < sent.length; at += 10_000) {
          await writer.ready;
          await writer.write(sent.slice(at, at + 10_000));
        }
        await writer.close();
      })();
    }
    const used = new Set<string>();
    for (let step = 0; step < 40; step++) {
      await world.pass(53);
      used.add(session.transport ?? '');
      const blocked = (['webtransport', 'websocket', 'poll'] as const)[step % 3] ?? 'poll';
      server.only(...(['webtransport', 'websocket', 'poll'] as const).filter((one) => one !== blocked));
      if (step % 4 === 0 && server.session.current) {
        server.session.current.hole = true;
        await world.pass(3_000);
      } else {
        session.cut();
      }
    }
    server.only('webtransport', 'websocket', 'poll');
    await world.pass(10_000);
    for (const echo of echoes) {
      expect([echo.done, echo.bytes.length, echo.error]).toEqual([true, sent.length, null]);
      expect(Buffer.from(echo.bytes).equals(Buffer.from(sent))).toBe(true);
    }
    expect(used.size).toBeGreaterThan(2);
  });

  it('goes over the link stream when the browser gives no native one in time', async () => {
    const { world, server, session } = await opened('webtransport');
    server.givesStreams = false;
    const stream = await session.openStream();
    const echo = collect(stream);
    void stream.writable.getWriter().write(pattern(10));
    await world.pass(900);
    expect(echo.bytes).toEqual([]);
    await world.pass(200);
    expect(echo.bytes).toEqual([...pattern(10)]);
    expect(server.links.at(-1)?.natively).toBe(0);
    // Others do not wait one after the other.
    const others = await Promise.all(Array.from({ length: 20 }, () => session.openStream()));
    const echoes = others.map((other) => {
      void other.writable.getWriter().write(pattern(3));
      return collect(other);
    });
    await world.pass(2_000);
    expect(echoes.map(({ bytes }) => bytes.length)).toEqual(others.map(() => 3));
    server.givesStreams = true;
    const late = await session.openStream();
    void late.writable.getWriter().write(pattern(3));
    await world.pass(100);
    expect(server.links.at(-1)?.natively).toBeGreaterThan(0);
  });

  it('is read into the reader’s own buffer, and is a byte stream', async () => {
    const { world, session } = await opened('websocket');
    const stream = await session.openStream();
    const writer = stream.writable.getWriter();
    void writer.write(Uint8Array.of(1, 2, 3, 4, 5).subarray(1));
    void writer.write(new Uint16Array([0x0605]).buffer);
    void writer.close();
    await world.pass(500);
    const reader = stream.readable.getReader({ mode: 'byob' });
    const first = await reader.read(new Uint8Array(3));
    expect(first.value && [...first.value]).toEqual([2, 3, 4]);
    const second = await reader.read(new Uint8Array(10));
    expect(second.value && [...second.value]).toEqual([5, 5, 6]);
    expect((await reader.read(new Uint8Array(10))).done).toBe(true);
  });
});

describe('backpressure', () => {
  it('a server that does not read holds up the writer', async () => {
    const { world, server, session } = await opened('websocket');
    server.reads = false;
    const stream = await session.openStream();
    const writer = stream.writable.getWriter();
    let written = 0;
    void (async () => {
      for (let times = 0; times < 100; times++) {
        await writer.ready;
        await writer.write(pattern(10_000));
        written += 10_000;
      }
    })();
    await world.pass(5_000);
    expect(written).toBeGreaterThanOrEqual(200_000);
    expect(written).toBeLessThan(300_000);
    expect(writer.desiredSize).toBeLessThanOrEqual(0);
    server.reads = true;
    server.session.send('wake');
    await world.pass(10_000);
    collect(stream);
    await world.pass(10_000);
    expect(written).toBe(1_000_000);
  });

  it('an application that does not read holds up the server', async () => {
    const { world, server, session } = await opened('websocket');
    const stream = await session.openStream();
    const writer = stream.writable.getWriter();
    void writer.write(pattern(200_000));
    await world.pass(5_000);
    expect(server.session.unread(1)).toBeLessThanOrEqual(16_384);
    const echo = collect(stream);
    await world.pass(2_000);
    expect(echo.bytes.length).toBe(200_000);
  });

  it('a stream is opened as soon as the session is open, and the server allows one more', async () => {
    const world = new World();
    const server = new Server(world);
    server.welcome = { streams: 1 };
    const session = server.connect();
    const ids: number[] = [];
    for (let times = 0; times < 2; times++) {
      void session.openStream().then(({ id }) => ids.push(id));
    }
    await settle();
    expect(ids).toEqual([]);
    await world.pass(1_000);
    expect(ids).toEqual([1]);
    server.session.allow(2);
    await world.pass(20);
    expect(ids).toEqual([1, 3]);
  });
});

describe('the end of a stream', () => {
  it('abort and cancel carry their codes to the server', async () => {
    const { world, server, session } = await opened('websocket');
    const stream = await session.openStream();
    void stream.writable.getWriter().write(pattern(10));
    await world.pass(100);
    await stream.readable.cancel(8);
    const other = await session.openStream();
    await other.writable.abort(7);
    const third = await session.openStream();
    await third.writable.abort(new Error('no code'));
    await world.pass(100);
    expect(server.session.codes).toEqual([
      ['stop', 1, 8],
      ['reset', 3, 7],
      ['reset', 5, 0],
    ]);
  });

  it('abort ends a write that waits for the server', async () => {
    const { world, server, session } = await opened('websocket');
    server.reads = false;
    const stream = await session.openStream();
    const writer = stream.writable.getWriter();
    const written = writer.write(pattern(1_000_000));
    const failed = expect(written).rejects.toBeDefined();
    await world.pass(1_000);
    const aborted = writer.abort(4);
    await failed;
    await aborted;
    await world.pass(100);
    expect(server.session.codes).toEqual([['reset', 1, 4]]);
  });

  it("the server's codes come as errors on both sides", async () => {
    const { world, server, session } = await opened('websocket');
    const stream = await session.openStream();
    const echo = collect(stream);
    const writer = stream.writable.getWriter();
    void writer.write(pattern(10));
    const closed = expect(writer.closed).rejects.toMatchObject({ code: 'STREAM_STOPPED', streamCode: 9 });
    await world.pass(100);
    server.session.refuse(1, 9);
    await world.pass(100);
    await closed;
    expect(echo.error).toMatchObject({ name: 'ThroughlineError', code: 'STREAM_RESET', streamCode: 9 });
  });

  it('is forgotten when both halves are over, whoever ended them', async () => {
    const peer = new Peer();
    peer.open();
    const streams = new Streams(peer.machine, () => {});
    const stream = await streams.open();
    expect(peer.sent()).toContainEqual({ type: 'stream', stream: 1, offset: 0, data: new Uint8Array(0) });
    peer.receive({ type: 'stop', stream: 1, code: 9 });
    streams.look();
    await stream.readable.cancel(0);
    expect(peer.sent().map(({ type }) => type)).toContain('stop');
    peer.receive({ type: 'ack', stream: 1, received: DONE, limit: 0 }, { type: 'end', stream: 1, size: 0 });
    peer.sent();
    // A new link would say again what is not over.
    const first = peer.open();
    expect(first.filter((frame) => 'stream' in frame && frame.stream === 1)).toEqual([]);
  });

  it('all streams end with the session', async () => {
    const { world, session } = await opened('websocket');
    const stream = await session.openStream();
    const echo = collect(stream);
    void session.close(3, 'enough');
    await world.pass(100);
    expect(echo.error).toMatchObject({ code: 'SESSION_CLOSED' });
    await expect(stream.writable.getWriter().write(pattern(1))).rejects.toMatchObject({
      code: 'SESSION_CLOSED',
    });
  });

  it('a new session has none of the old streams, and its own ones have the old ids', async () => {
    const { world, server, session } = await opened('websocket');
    const stream = await session.openStream();
    const echo = collect(stream);
    server.sessions.clear();
    session.cut();
    await world.pass(1_000);
    expect(echo.error).toMatchObject({ code: 'STREAM_LOST' });
    const next = await session.openStream();
    expect(next.id).toBe(1);
    const fresh = collect(next);
    void next.writable.getWriter().write(pattern(5));
    await world.pass(200);
    expect(fresh.bytes).toEqual([...pattern(5)]);
  });

  it('one that a listener opens as soon as there is a new session is a stream of that', async () => {
    const { world, server, session } = await opened('websocket');
    server.sessions.clear();
    session.on('state', async (state) => {
      if (state === 'open') {
        const { readable, writable } = await session.openStream();
        void writable.getWriter().write(pattern(5));
        void readable
          .getReader()
          .read()
          .then(({ value }) => echoed.push(...(value ?? [])));
      }
    });
    const echoed: number[] = [];
    session.cut();
    await world.pass(1_000);
    expect(echoed).toEqual([...pattern(5)]);
  });
});

describe('streams of the server', () => {
  it('come as events, and go both ways', async () => {
    const { world, server, session } = await opened('webtransport');
    const streams: SessionStream[] = [];
    const off = session.on('stream', (stream) => streams.push(stream));
    server.session.openStream(2, 'hello');
    await world.pass(100);
    const [stream] = streams;
    expect(stream?.id).toBe(2);
    const seen = stream && collect(stream);
    void stream?.writable.getWriter().write(Uint8Array.of(33));
    await world.pass(200);
    expect(Buffer.from(seen?.bytes ?? []).toString()).toBe('hello!');
    off();
  });

  it('are stopped and reset when nobody listens', async () => {
    const { world, server } = await opened('websocket');
    server.session.openStream(2, 'hello?');
    await world.pass(100);
    expect(server.session.codes).toEqual([
      ['reset', 2, 0],
      ['stop', 2, 0],
    ]);
  });
});

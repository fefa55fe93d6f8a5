// sse and poll against a server that answers as told.

import { describe, expect, it } from 'vitest';
import { decodePacket } from '../src/protocol/codec.js';
import type { Frame } from '../src/protocol/frames.js';
import type { Link, LinkHandlers, Loss, TransportKind } from '../src/transport/link.js';
import type { Opening } from '../src/transport/opening.js';
import { poll } from '../src/transport/poll.js';
import { sse } from '../src/transport/sse.js';
import { type Bytes, bytes, load, type VectorFrame } from './vectors.js';
import { settle, World } from './world.js';

const vectors = load<{ frames: { bytes: Bytes; frame: VectorFrame }[] }>('frames.json').frames;
const welcome = bytes(vectors.find(({ frame }) => frame.type === 'WELCOME')?.bytes ?? '');
const ping = Uint8Array.of(6, 1, 1);

interface Asked {
  path: string;
  headers: Headers;
  body: Uint8Array | null;
  keepalive: boolean;
  signal: AbortSignal | null | undefined;
  answer: (response: Response) => void;
  fail: (error: Error) => void;
}

/** A link, and the requests that it has made. */
function open(kind: TransportKind, fields: Partial<Opening> = {}) {
  const world = new World();
  const asked: Asked[] = [];
  world.fetch = (url, init = {}) =>
    new Promise((answer, fail) => {
      const { headers, body, keepalive = false, signal } = init;
      const path = String(url).replace('http://a.test/rt', '');
      asked.push({
        path,
        headers: new Headers(headers),
        body: (body as Uint8Array | undefined) ?? null,
        keepalive,
        signal,
        answer,
        fail,
      });
      signal?.addEventListener('abort', () => fail(new Error('aborted')));
    });
  const frames: Frame[] = [];
  const lost: Loss[] = [];
  const failing: Loss[] = [];
  const violations: number[] = [];
  let writable = 0;
  const handlers: LinkHandlers = {
    frame: (frame) => frames.push(frame),
    stream: () => ({ frame: () => {} }),
    datagram: () => {},
    heard: () => {},
    writable: () => writable++,
    violation: (close) => violations.push(close.code),
    failing: (loss) => failing.push(loss),
    lost: (loss) => lost.push(loss),
  };
  const opening: Opening = {
    base: 'http://a.test/rt',
    resumption: undefined,
    token: 'secret',
    webtransport: undefined,
    info: true,
    ...fields,
  };
  const link: Link = kind.open(world, opening, handlers);
  return { world, asked, frames, failing, lost, violations, link, writable: () => writable };
}

function binary(packet: Uint8Array<ArrayBuffer>): Response {
  return new Response(packet, { headers: { 'Content-Type': 'application/octet-stream' } });
}

function stream() {
  const body = new TransformStream<Uint8Array, Uint8Array>();
  const writer = body.writable.getWriter();
  const response = new Response(body.readable, { headers: { 'Content-Type': 'text/event-stream' } });
  return {
    response,
    write: (text: string) => writer.write(new TextEncoder().encode(text)),
    close: () => writer.close(),
  };
}

const base64 = (raw: Uint8Array) => Buffer.from(raw).toString('base64');

describe('poll', () => {
  it('opens, then holds one GET at a time', async () => {
    const { asked, frames, link, lost } = open(poll);
    expect(asked).toHaveLength(1);
    expect(asked[0]?.path).toBe('/poll');
    expect(Object.fromEntries(asked[0]?.headers ?? [])).toMatchObject({
      'throughline-version': '1',
      authorization: 'Bearer secret',
    });
    expect(link.room()).toBe(0);
    asked[0]?.answer(binary(welcome));
    await settle();
    expect(frames.map(({ type }) => type)).toEqual(['welcome']);
    expect(asked).toHaveLength(2);
    expect(Object.keys(Object.fromEntries(asked[1]?.headers ?? [])).sort()).toEqual([
      'throughline-key',
      'throughline-link',
      'throughline-session',
    ]);
    asked[1]?.answer(new Response(null, { status: 204 }));
    await settle();
    asked[2]?.answer(binary(Uint8Array.of(...ping, ...ping)));
    await settle();
    expect(frames.map(({ type }) => type)).toEqual(['welcome', 'ping', 'ping']);
    expect(asked).toHaveLength(4);
    link.abort();
    await settle();
    expect(asked[3]?.signal?.aborted).toBe(true);
    expect([asked.length, lost]).toEqual([4, []]);
  });

  it('says why it could not be opened', async () => {
    const refused = open(poll);
    const body = JSON.stringify({ code: 13, name: 'LIMIT_REACHED', reason: 'full', retry: true });
    refused.asked[0]?.answer(new Response(body, { status: 503, headers: { 'Retry-After': '7' } }));
    await settle();
    expect(refused.lost).toEqual([
      {
        reason: 'status 503 LIMIT_REACHED: full',
        status: 503,
        close: { code: 13, application: false, reason: 'full' },
        retryAfterMs: 7000,
      },
    ]);
    const proxied = open(poll);
    proxied.asked[0]?.answer(new Response('<html>', { headers: { 'Content-Type': 'text/html' } }));
    await settle();
    expect(proxied.lost[0]?.reason).toBe('the answer is text/html');
    const gone = open(poll);
    gone.asked[0]?.fail(new Error('Failed to fetch'));
    await settle();
    expect(gone.lost[0]?.reason).toBe('Failed to fetch');
  });

  it('takes a packet that ends inside a frame for what it is', async () => {
    const { asked, violations } = open(poll);
    asked[0]?.answer(binary(Uint8Array.of(...welcome, 6, 1)));
    await settle();
    expect(violations).toEqual([3]);
  });

  it('is lost when an answer is missing', async () => {
    // A browser repeated a GET whose connection broke: its answer was gone, and the next one looked like the server's mistake.
    const numbered = (body: Uint8Array<ArrayBuffer>, number: number) =>
      new Response(body, {
        headers: { 'Content-Type': 'application/octet-stream', 'Throughline-Packet': `${number}` },
      });
    const { asked, frames, lost } = open(poll);
    asked[0]?.answer(numbered(welcome, 1));
    await settle();
    asked[1]?.answer(new Response(null, { status: 204 }));
    await settle();
    asked[2]?.answer(numbered(ping, 2));
    await settle();
    expect([frames.length, lost]).toEqual([2, []]);
    asked[3]?.answer(numbered(ping, 4));
    await settle();
    expect([frames.length, lost]).toEqual([2, [{ reason: 'an answer got lost' }]]);
  });

  it('gives up a GET that hangs', async () => {
    const { asked, world, lost } = open(poll);
    await world.pass(60_000);
    expect(lost).toEqual([{ reason: 'a GET hangs' }]);
    expect(asked[0]?.signal?.aborted).toBe(true);
  });
});

describe('sse', () => {
  it('reads packets out of events, in one piece or several', async () => {
    const { asked, frames, lost, violations } = open(sse);
    const { response, write, close } = stream();
    asked[0]?.answer(response);
    await write(': hello\n\n');
    await write(
      `id: 1\ndata: ${base64(welcome.subarray(0, 10))}\ndata: ${base64(welcome.subarray(10))}\n\nid: 2\nda`,
    );
    await write(`ta: ${base64(ping)}\r\n\r\n`);
    await settle();
    expect(frames.map(({ type }) => type)).toEqual(['welcome', 'ping']);
    await write('data: !!!\n\n');
    await settle();
    expect(violations).toEqual([3]);
    await close();
    await settle();
    expect(lost).toEqual([{ reason: 'the stream ended' }]);
  });

  it('is missing where answers cannot be read while they arrive', () => {
    const world = new World();
    expect(sse.missing(world)).toBeNull();
    world.hasStreams = false;
    expect(sse.missing(world)).toBe('not in this browser');
  });
});

describe('the uplink', () => {
  async function opened() {
    const it = open(poll);
    it.asked[0]?.answer(binary(welcome));
    await settle();
    const posts = () => it.asked.filter(({ path }) => path === '/send');
    return { ...it, posts };
  }

  it('has one POST under way, and asks for more when it has arrived', async () => {
    const { link, posts, writable } = await opened();
    expect(link.room()).toBe(16_384);
    link.send(ping);
    expect(link.room()).toBe(0);
    expect(posts()).toHaveLength(1);
    posts()[0]?.answer(new Response(null, { status: 204 }));
    await settle();
    expect([link.room(), writable()]).toEqual([16_384, 1]);
  });

  it('makes POSTs as large as the path takes in good time', async () => {
    const { link, posts, world } = await opened();
    async function post(bytes: number, ms: number): Promise<number> {
      link.send(new Uint8Array(bytes));
      await world.pass(ms);
      posts()
        .at(-1)
        ?.answer(new Response(null, { status: 204 }));
      await settle();
      return link.room();
    }
    expect(await post(8_192, 10)).toBe(16_384); // as fast as it was, it says nothing about a larger one
    expect(await post(16_384, 249)).toBe(32_768);
    expect(await post(32_768, 250)).toBe(32_768);
    for (let i = 0; i < 5; i++) {
      await post(link.room(), 10);
    }
    expect(link.room()).toBe(262_144);
    expect(await post(262_144, 1_000)).toBe(262_144);
    expect(await post(262_144, 1_001)).toBe(131_072);
    for (let i = 0; i < 5; i++) {
      await post(1, 2_000);
    }
    expect(link.room()).toBe(16_384);
  });

  it('sends the same bytes again, once, when there was no answer or a proxy answered', async () => {
    const { link, posts, world, failing, lost, asked } = await opened();
    link.send(ping);
    posts()[0]?.fail(new Error('network'));
    await world.pass(100);
    expect(posts().map(({ body }) => [...(body ?? [])])).toEqual([[...ping], [...ping]]);
    expect(link.room()).toBe(0);
    posts()[1]?.answer(new Response('bad gateway', { status: 502 }));
    await settle();
    expect(failing).toMatchObject([{ reason: 'POST: status 502', status: 502 }]);
    expect([link.room(), lost, asked[1]?.signal?.aborted]).toEqual([0, [], false]);
    await world.pass(3_000); // what comes down is read until then
    expect(lost).toMatchObject([{ reason: 'POST: status 502', status: 502 }]);
  });

  it('does not repeat what the server refused', async () => {
    const { link, posts, world, failing } = await opened();
    link.send(ping);
    posts()[0]?.answer(
      Response.json({ code: 14, name: 'UNKNOWN_SESSION', reason: 'gone', retry: true }, { status: 410 }),
    );
    await world.pass(1000);
    expect(posts()).toHaveLength(1);
    expect(failing).toMatchObject([{ close: { code: 14 } }]);
  });

  it('gives up a POST that hangs, so that no connection is used up', async () => {
    const { link, posts, world, failing } = await opened();
    link.send(ping);
    await world.pass(10_000);
    expect(posts()[0]?.signal?.aborted).toBe(true);
    expect(failing).toMatchObject([{ reason: 'POST: no answer' }]);
  });

  it('closes when what was sent has arrived', async () => {
    const { link, posts, asked, lost } = await opened();
    link.send(ping);
    let closed = false;
    const closing = link.close({ code: 0, application: false, reason: '' }).then(() => {
      closed = true;
    });
    await settle();
    expect(closed).toBe(false);
    posts()[0]?.answer(new Response(null, { status: 204 }));
    await closing;
    expect(asked[1]?.signal?.aborted).toBe(true);
    expect(lost).toEqual([]);
  });

  it('leaves with a request that outlives the page', async () => {
    const { link, posts, asked } = await opened();
    link.send(ping);
    link.leave(Uint8Array.of(2, 2, 0, 0), { code: 0, application: false, reason: '' });
    expect(posts().map(({ keepalive }) => keepalive)).toEqual([false, true]);
    expect(posts()[0]?.signal?.aborted).toBe(true);
    expect(asked[1]?.signal?.aborted).toBe(true);
    decodePacket(posts()[1]?.body ?? new Uint8Array(), ({ type }) => expect(type).toBe('close'));
  });
});

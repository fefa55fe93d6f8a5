import { describe, expect, it, vi } from 'vitest';
import { protocolClose } from '../src/protocol/close.js';
import { encodeMessage } from '../src/protocol/message.js';
import type { GapInfo } from '../src/told.js';
import { answer, fail, Network, settle, swallow, World } from './world.js';

async function opened(options = {}) {
  const world = new World();
  const network = new Network(world, { websocket: answer(5), poll: answer(5) });
  const session = network.connect({ transports: ['websocket'], ...options });
  await world.pass(5);
  await session.ready;
  return { world, network, session, link: network.link('websocket') };
}

function throwsMine(callback: () => void): boolean {
  try {
    callback();
    return false;
  } catch (error) {
    return error instanceof Error && error.message === 'mine';
  }
}

function message(text: string, offset = 0) {
  return {
    type: 'stream',
    stream: 0,
    offset,
    data: encodeMessage(true, new TextEncoder().encode(text)),
  } as const;
}

describe('messages', () => {
  it('many sends become one packet, in order, and are drained when acknowledged', async () => {
    const { session, link } = await opened();
    link.pong();
    session.send('a');
    session.send(Uint8Array.of(98));
    session.send(new Uint8Array([0, 99]).subarray(1));
    session.send('');
    expect(link.streamed).toBe('');
    await settle();
    expect(link.streamed).toBe('\x01\x01a\x00\x01b\x00\x01c\x01\x00');
    expect(link.sent.filter((frame) => frame.type === 'stream')).toHaveLength(1);
    let drained = false;
    const waiting = session.drained().then(() => {
      drained = true;
    });
    link.receive({ type: 'ack', stream: 0, received: 5, limit: 262_144 });
    await settle();
    expect([drained, session.bufferedBytes]).toEqual([false, 6]);
    link.receive({ type: 'ack', stream: 0, received: 11, limit: 262_144 });
    await waiting;
  });

  it('what is sent before the session is open goes first', async () => {
    const world = new World();
    const network = new Network(world, { websocket: answer(5) });
    const session = network.connect({ transports: ['websocket'] });
    session.send('early');
    session.sendDatagram(Uint8Array.of(1), { key: 1 });
    session.sendDatagram(Uint8Array.of(2), { key: 1 });
    await world.pass(5);
    expect(network.link('websocket').sent.map((frame) => frame.type)).toEqual(['ping', 'datagram', 'stream']);
    expect(session.stats()).toMatchObject({ datagramsOut: 1, datagramsDropped: 1, messagesOut: 1 });
  });

  it('wait until somebody listens, and hold back the credit until then', async () => {
    const { world, session, link } = await opened();
    link.receive(message('one'));
    link.receive(message('two', 5));
    await world.pass(1_010);
    expect(link.sent.at(-1)).toEqual({ type: 'ack', stream: 0, received: 10, limit: 262_144 });
    const seen: unknown[] = [];
    session.on('message', (data) => seen.push(data));
    await settle();
    expect(seen).toEqual(['one', 'two']);
    link.receive(message('three', 10));
    expect(seen).toEqual(['one', 'two', 'three']);
    await world.pass(1_010);
    expect(link.sent.at(-1)).toEqual({ type: 'ack', stream: 0, received: 17, limit: 262_144 + 17 });
  });

  it('a listener may send, close and throw', async () => {
    const { session, link } = await opened();
    const later: (() => void)[] = [];
    vi.stubGlobal('queueMicrotask', (callback: () => void) => later.push(callback));
    session.on('message', (data) => {
      session.send(`echo ${data}`);
      throw new Error('mine');
    });
    session.on('message', () => void session.close(7, 'enough'));
    link.receive(message('x'));
    vi.unstubAllGlobals();
    expect(later.filter((callback) => throwsMine(callback))).toHaveLength(1);
    await settle();
    expect(link.streamed).toBe('\x01\x06echo x');
    expect(await session.closed).toEqual({
      code: 7,
      name: 'APPLICATION',
      reason: 'enough',
      application: true,
      retry: false,
    });
  });

  it('respects a link without room, and goes on when there is some', async () => {
    const { session, link } = await opened();
    link.capacity = 0;
    session.send('a');
    session.sendDatagram(Uint8Array.of(1), { key: 'k' });
    session.sendDatagram(Uint8Array.of(2), { key: 'k' });
    await settle();
    expect(link.sent).toHaveLength(1);
    link.capacity = 65_536;
    link.handlers.writable();
    expect(link.sent.slice(1)).toEqual([
      { type: 'datagram', data: Uint8Array.of(2) },
      { type: 'stream', stream: 0, offset: 0, data: encodeMessage(true, Uint8Array.of(97)) },
    ]);
  });

  it('native datagrams keep the newest per key while the writer is not ready; too large ones become frames', async () => {
    const world = new World();
    const network = new Network(world, {
      webtransport: (link) => {
        link.native = 1000;
        link.takesDatagrams = false;
        link.later(5, () => link.welcome());
      },
    });
    const session = network.connect();
    await world.pass(5);
    const link = network.link('webtransport');
    session.sendDatagram(Uint8Array.of(1), { key: 1 });
    session.sendDatagram(Uint8Array.of(2), { key: 1 });
    await settle();
    expect(link.sentDatagrams).toEqual([]);
    link.takesDatagrams = true;
    link.handlers.writable();
    expect(link.sentDatagrams).toEqual([Uint8Array.of(2)]);
    session.sendDatagram(new Uint8Array(1100));
    await settle();
    expect(link.sent.at(-1)?.type).toBe('datagram');
  });
});

describe('wrong use', () => {
  it('says what to do', async () => {
    const { session, network } = await opened({ maxBufferedBytes: 10 });
    expect(() => session.send({ a: 1 } as never)).toThrow(
      new TypeError('send takes a string or bytes, not object'),
    );
    expect(() => session.sendDatagram('text' as never)).toThrow(TypeError);
    expect(() => session.sendDatagram(new Uint8Array(1101))).toThrow(/1101 bytes; at most 1100/);
    session.send('more than ten bytes'); // one may go beyond it
    expect(() => session.send('')).toThrow(/21 of 10 bytes wait already: await drained\(\)/);
    expect(() => session.close(-1)).toThrow(TypeError);
    expect(() => network.connect({ transports: ['quic' as never] })).toThrow(/no transport 'quic'/);
    expect(() => network.connect({ token: 'x'.repeat(5000) })).toThrow(/4096/);
    await session.close(3, 'bye');
    expect(() => session.send('x')).toThrow(
      'send: the session is closed (application code 3: bye): connect again',
    );
    await expect(session.drained()).rejects.toMatchObject({ code: 'SESSION_CLOSED' });
    await expect(session.openStream()).rejects.toMatchObject({ code: 'SESSION_CLOSED' });
  });

  it('a message that is too large for this server', async () => {
    const world = new World();
    const network = new Network(world, { websocket: answer(1, { maxMessage: 100 }) });
    const session = network.connect({ transports: ['websocket'] });
    await world.pass(1);
    expect(() => session.send('x'.repeat(101))).toThrow(/at most 100/);
    session.send('x'.repeat(100));
  });
});

describe('closing', () => {
  it('sends what was sent before, then CLOSE, and resolves', async () => {
    const { session, link } = await opened();
    session.send('last words');
    const info = await session.close();
    expect(link.sent.map((frame) => frame.type)).toEqual(['ping', 'stream', 'close']);
    expect(link.sent.at(-1)).toEqual({ type: 'close', close: { code: 0, application: false, reason: '' } });
    expect(info).toMatchObject({ code: 0, name: 'NORMAL', application: false, retry: false });
    expect([session.state, session.transport]).toEqual(['closed', null]);
  });

  it('waits for credit for 3 s, and then closes all the same', async () => {
    const { world, session, link } = await opened();
    session.send(new Uint8Array(300_000));
    void session.close(1);
    await world.pass(2_900);
    expect(link.sent.at(-1)?.type).toBe('stream');
    expect(session.state).toBe('open');
    expect(() => session.send('x')).toThrow(/closed/);
    await world.pass(200);
    expect(link.sent.at(-1)?.type).toBe('close');
    expect(await session.closed).toMatchObject({ code: 1 });
    expect(world.pendingTimers).toBe(0);
  });

  it("the server's CLOSE comes after the messages before it", async () => {
    const { session, link } = await opened();
    const order: unknown[] = [];
    session.on('message', (data) => order.push(data));
    session.on('close', ({ code, reason }) => order.push([code, reason]));
    link.receive(message('a'));
    link.receive({ type: 'close', close: { code: 4711, application: true, reason: 'game over' } });
    expect(await session.closed).toMatchObject({ code: 4711, application: true, retry: false });
    expect(order).toEqual(['a', [4711, 'game over']]);
    expect(link.closedWith).toMatchObject({ code: 4711 });
  });

  it('a broken protocol is answered with its code', async () => {
    const { session, link } = await opened();
    link.receive({ type: 'stream', stream: 0, offset: 1, data: Uint8Array.of(1) });
    expect(link.sent.at(-1)).toMatchObject({ type: 'close', close: { code: 2, application: false } });
    expect(await session.closed).toMatchObject({ name: 'PROTOCOL_VIOLATION', retry: false });
  });

  it('before it is open: ready rejects, and nobody has to listen to that', async () => {
    const world = new World();
    const network = new Network(world, {});
    const session = network.connect();
    await world.pass(10);
    await session.close(5, 'changed my mind');
    await expect(session.ready).rejects.toMatchObject({ code: 'APPLICATION' });
    expect(network.links.every((link) => link.aborted)).toBe(true);
    expect(world.pendingTimers).toBe(0);
  });

  it('an aborted signal closes; before it is open, ready rejects with its cause', async () => {
    const abort = new AbortController();
    const { session, link } = await opened({ signal: abort.signal });
    abort.abort(new Error('leaving'));
    expect(await session.closed).toMatchObject({ code: 0, reason: 'aborted: leaving' });
    expect(link.sent.at(-1)?.type).toBe('close');
    const world = new World();
    const second = new Network(world, {}).connect({ signal: abort.signal });
    await expect(second.ready).rejects.toMatchObject({ code: 'ABORTED', cause: new Error('leaving') });
  });

  it('a page that goes away says so on the way out', async () => {
    const { world, session, link } = await opened();
    world.fire('pagehide', { persisted: false });
    expect(link.lastPacket?.[0]).toBe(2);
    expect(session.state).toBe('closed');
  });

  it.each([
    ['the back/forward cache', 'pagehide', 'pageshow'],
    ['a frozen tab', 'freeze', 'resume'],
  ])(
    'a page that falls asleep in %s leaves its link, and comes back when it wakes up',
    async (_, asleep, awake) => {
      const { world, network, session, link } = await opened();
      world.fire(asleep, { persisted: true });
      expect([session.state, link.aborted, link.sent.at(-1)?.type]).toEqual(['reconnecting', true, 'ping']);
      await world.pass(60_000);
      expect(network.links).toHaveLength(1); // it sleeps
      world.fire(awake, {});
      await world.pass(0);
      expect(network.links).toHaveLength(2);
    },
  );

  it('a page that wakes up obeys the time that the server named', async () => {
    const { world, network, link } = await opened();
    link.handlers.lost({ reason: 'full', retryAfterMs: 90_000 });
    world.fire('freeze', {});
    await world.pass(60_000);
    world.fire('resume', {});
    await world.pass(29_000);
    expect(network.links).toHaveLength(1);
    await world.pass(2_000);
    expect(network.links).toHaveLength(2);
  });
});

describe('lost links', () => {
  it('the first loss of a good link is answered at once; the new session is a gap', async () => {
    const { world, network, session, link } = await opened();
    const gaps: GapInfo[] = [];
    const states: string[] = [];
    const transports: unknown[] = [];
    session.on('gap', (info) => {
      gaps.push(info);
      session.send('hello again');
    });
    session.on('state', (state) => states.push(state));
    session.on('transport', ({ from, to }) => transports.push([from, to]));
    const firstId = session.id;
    await world.pass(6_000);
    link.pong();
    session.send('sent, not acknowledged');
    await settle();
    session.cut();
    expect([session.state, session.transport]).toEqual(['reconnecting', null]);
    session.send('said while away');
    await world.pass(6);
    expect(network.links).toHaveLength(2);
    const second = network.link('websocket');
    expect(second.opening.resumption).toMatchObject({ session: firstId });
    expect(gaps).toEqual([
      { previousId: firstId, id: session.id, reason: 'cut by the application', unacknowledgedBytes: 24 },
    ]);
    expect(second.streamed).toBe('\x01\x0bhello again\x01\x0fsaid while away');
    expect(states).toEqual(['reconnecting', 'open']);
    expect(transports).toEqual([
      ['websocket', null],
      [null, 'websocket'],
    ]);
  });

  it('a resumed session goes on where the server is', async () => {
    const { world, network, session, link } = await opened();
    const gap = vi.fn();
    session.on('gap', gap);
    const seen: unknown[] = [];
    session.on('message', (data) => seen.push(data));
    link.receive({ ...message('half'), data: message('half').data.slice(0, 3) });
    session.send('abc');
    await settle();
    const { id } = session;
    network.behaviours.websocket = answer(5, { session: id, resumed: true, received: 2, link: 2 });
    session.cut();
    await world.pass(600);
    const second = network.link('websocket');
    expect(second.opening.resumption).toEqual({ session: id, key: 'key', received: '0.3' });
    expect(second.sent).toContainEqual({
      type: 'stream',
      stream: 0,
      offset: 2,
      data: new TextEncoder().encode('abc'),
    });
    second.receive({ ...message('half', 3), data: message('half').data.slice(3) });
    expect(seen).toEqual(['half']);
    expect(gap).not.toHaveBeenCalled();
  });

  it('delays grow, are capped before the jitter, and are never zero in a row', async () => {
    const { world, network, session } = await opened();
    await world.pass(6_000);
    network.behaviours.websocket = fail(0);
    const openedAt: number[] = [];
    session.cut();
    let last = network.links.length;
    for (let step = 0; step < 20_000; step++) {
      await world.pass(25);
      if (network.links.length > last) {
        last = network.links.length;
        openedAt.push(world.now());
      }
      if (openedAt.length > 12) break;
    }
    const delays = openedAt.slice(1).map((at, index) => at - (openedAt[index] ?? 0));
    expect(Math.min(...delays)).toBeGreaterThanOrEqual(50);
    expect(Math.max(...delays)).toBeLessThanOrEqual(15_100); // half of the cap: random() is 0.5
    expect(delays.at(-1)).toBeGreaterThan(14_900);
  });

  it("the server's Retry-After wins, also over the return of the network", async () => {
    const { world, network, session, link } = await opened();
    await world.pass(6_000);
    network.behaviours.websocket = fail(1, { reason: 'status 503', status: 503, retryAfterMs: 20_000 });
    link.handlers.lost({ reason: 'gone' });
    await world.pass(10);
    const tried = network.links.length;
    world.fire('online');
    await world.pass(19_000);
    expect(network.links).toHaveLength(tried);
    await world.pass(2_000);
    expect(network.links.length).toBeGreaterThan(tried);
    expect(session.state).toBe('reconnecting');
  });

  it('a CLOSE with a retry code opens a new session; any other ends it', async () => {
    const { world, network, session, link } = await opened();
    const gap = vi.fn();
    session.on('gap', gap);
    await world.pass(6_000);
    link.pong();
    link.receive({ type: 'close', close: protocolClose('SHUTTING_DOWN', 'restart') });
    await world.pass(600);
    expect(session.state).toBe('open');
    expect(network.link('websocket').opening.resumption).toBeUndefined();
    expect(gap).toHaveBeenCalledWith(expect.objectContaining({ reason: 'SHUTTING_DOWN: restart' }));
    network.link('websocket').receive({ type: 'close', close: protocolClose('FORBIDDEN', 'banned') });
    expect(await session.closed).toMatchObject({ name: 'FORBIDDEN' });
  });

  it('tokens are asked for before each race; a failing function is retried once the session was open', async () => {
    let calls = 0;
    const token = () => {
      calls++;
      if (calls === 2) {
        return Promise.reject(new Error('offline'));
      }
      return Promise.resolve(`token ${calls}`);
    };
    const { world, network, session } = await opened({ token });
    expect(network.link('websocket').opening.token).toBe('token 1');
    session.cut();
    await world.pass(5_000);
    expect(network.link('websocket').opening.token).toBe('token 3');
    const broken = network.connect({ token: () => Promise.reject(new Error('no')) });
    await expect(broken.ready).rejects.toMatchObject({ code: 'TOKEN_FAILED' });
  });
});

it('knows the time of the server from PING and PONG', async () => {
  const world = new World();
  const network = new Network(world, { websocket: swallow(5) });
  const session = network.connect({ transports: ['websocket'] });
  await world.pass(105);
  const link = network.link('websocket');
  link.receive({ type: 'pong', id: 1, timeUs: (world.now() + 5_000) * 1000 });
  expect(session.serverTime()).toBeCloseTo(world.now() + 5_000 + 50, 3);
  expect(session.stats().rttMs).toBeCloseTo(100, 3);
});

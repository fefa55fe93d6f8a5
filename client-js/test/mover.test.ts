// Moves from link to link, with traffic in both directions, against a server in simulated time.

import { describe, expect, it, vi } from 'vitest';
import { protocolClose } from '../src/protocol/close.js';
import type { Session } from '../src/session.js';
import { TRANSPORTS, type Transport } from '../src/transport/link.js';
import { Server, type ServerLink } from './server.js';
import { World } from './world.js';

function start(options = {}, ...only: Transport[]) {
  const world = new World();
  const server = new Server(world);
  if (only.length > 0) {
    server.only(...only);
  }
  const session = server.connect(options);
  const events: string[] = [];
  session.on('transport', ({ from, to }) => events.push(`${from} ${to}`));
  session.on('state', (state) => events.push(state));
  session.on('gap', () => events.push('gap'));
  session.on('close', ({ name }) => events.push(`closed ${name}`));
  return { world, server, session, events };
}

async function opened(...only: Transport[]) {
  const started = start({}, ...only);
  await started.world.pass(3_000);
  started.events.length = 0;
  return started;
}

/** Numbered messages in both directions, every 5 ms; what came, and the longest silence on either side. */
function traffic(world: World, session: Session, server: Server) {
  const seen: string[] = [];
  let sent = 0;
  let going = true;
  let silenceMs = 0;
  let last = world.now();
  session.on('message', (message) => {
    silenceMs = Math.max(silenceMs, world.now() - last);
    last = world.now();
    seen.push(String(message));
  });
  const tick = () => {
    if (going) {
      session.send(`c${sent}`);
      server.session.send(`s${sent}`);
      sent++;
      world.timer(5, tick);
    }
  };
  tick();
  return {
    /** Nothing was lost, repeated or reordered. */
    async check() {
      going = false;
      await world.pass(1_000);
      const numbers = Array.from({ length: sent }, (_, index) => index);
      expect(seen).toEqual(numbers.map((n) => `s${n}`));
      expect(server.session.messages).toEqual(numbers.map((n) => `c${n}`));
      expect(session.bufferedBytes).toBe(0);
    },
    silenceMs: () => silenceMs,
  };
}

function current(server: Server): ServerLink {
  const link = server.session.current;
  if (!link) {
    throw new Error('no link');
  }
  return link;
}

const PAIRS = TRANSPORTS.flatMap((from) =>
  TRANSPORTS.filter((to) => to !== from).map((to) => [from, to] as const),
);

describe('moves under traffic', () => {
  it.each(PAIRS)('from a black hole over %s to %s', async (from, to) => {
    const { world, server, session, events } = await opened(from);
    const messages = traffic(world, session, server);
    await world.pass(200);
    server.only(to);
    current(server).hole = true;
    await world.pass(5_000);
    expect(session.transport).toBe(to);
    await messages.check();
    expect(events).toEqual([`${from} ${to}`]);
    expect(session.stats()).toMatchObject({ links: 2, moves: 1, gaps: 0 });
    // Doubt comes 1 s after a PING, and that 1 s after the last frame that was heard.
    expect(messages.silenceMs()).toBeLessThan(2_000 + 8 * 20);
  });

  it.each(PAIRS)('from a cut link over %s to %s', async (from, to) => {
    const { world, server, session, events } = await opened(from);
    const messages = traffic(world, session, server);
    await world.pass(200);
    server.only(to);
    const link = current(server);
    link.handlers.lost({ reason: 'cut' });
    link.hole = true;
    await world.pass(1_000);
    await messages.check();
    expect(events).toEqual([`${from} null`, 'reconnecting', 'open', `null ${to}`]);
    expect(messages.silenceMs()).toBeLessThan(8 * 20);
  });

  it.each(PAIRS.filter(([from, to]) => TRANSPORTS.indexOf(to) < TRANSPORTS.indexOf(from)))(
    'up from %s to %s, without a pause',
    async (from, to) => {
      const { world, server, session, events } = await opened(from);
      const messages = traffic(world, session, server);
      server.only(from, to);
      await world.pass(15_000);
      expect(session.transport).toBe(to);
      await messages.check();
      expect(events).toEqual([`${from} ${to}`]);
      expect(messages.silenceMs()).toBeLessThan(4 * 20);
    },
  );

  it('the first packet on a link is small, however much there is to say again', async () => {
    const { world, server, session } = await opened('websocket');
    server.conditions.websocket.opening = 'hang';
    session.cut();
    await world.pass(100);
    session.send(new Uint8Array(200_000));
    server.only('websocket');
    const before = server.links.length;
    await world.pass(15_000);
    const [first = 0, ...others] =
      server.links.slice(before).find(({ sizes }) => sizes.length > 0)?.sizes ?? [];
    expect(first).toBeGreaterThan(10_000);
    expect(first).toBeLessThanOrEqual(12_000);
    expect(Math.max(...others)).toBeGreaterThan(12_000);
    expect(server.session.messages).toHaveLength(1);
  });

  it('a hundred cuts and black holes, one after the other', async () => {
    const { world, server, session, events } = await opened('websocket', 'sse', 'poll');
    const messages = traffic(world, session, server);
    for (let step = 0; step < 100; step++) {
      await world.pass(37 * (1 + (step % 7)));
      const link = server.session.current;
      if (link && step % 3 === 0) {
        link.hole = true;
        await world.pass(4_000);
      } else {
        session.cut();
      }
    }
    await world.pass(5_000);
    await messages.check();
    expect(events).not.toContain('gap');
  });
});

describe('make before break', () => {
  it('a link that answers again keeps the session, and the race is cancelled', async () => {
    const { world, server, session, events } = await opened('websocket', 'sse');
    server.conditions.sse.latencyMs = 500;
    session.trouble.freeze(9_600);
    await world.pass(9_500); // the next heartbeat is due after 8 s
    expect(server.opened.filter((name) => name === 'sse')).toHaveLength(1);
    expect(session.explain().text).toMatch(/in doubt \(a PING was not answered in time\)/);
    await world.pass(5_000);
    expect([session.transport, events]).toEqual(['websocket', []]);
    expect(server.links.filter(({ transport }) => transport === 'sse').every((link) => link.aborted)).toBe(
      true,
    );
    expect(session.explain().text).not.toMatch(/doubt/);
  });

  it('the transport in doubt goes last', async () => {
    const { world, server, session } = await opened('websocket', 'sse', 'poll');
    current(server).hole = true;
    const before = server.opened.length;
    for (const name of TRANSPORTS) {
      server.conditions[name].opening = 'hang';
    }
    session.send('x');
    await world.pass(6_000);
    const tried = server.opened.slice(before);
    expect(tried.indexOf('sse')).toBeLessThan(tried.indexOf('poll'));
    expect(tried.indexOf('poll')).toBeLessThan(tried.indexOf('websocket'));
  });

  it('a second link in doubt right after the first one does not drive the session further down', async () => {
    const { world, server, session, events } = await opened('webtransport', 'websocket', 'sse', 'poll');
    const messages = traffic(world, session, server);
    for (let times = 0; times < 3; times++) {
      await world.pass(500);
      current(server).hole = true;
      await world.pass(2_500);
    }
    await messages.check();
    expect(events).toEqual(['webtransport websocket', 'websocket websocket', 'websocket websocket']);
  });

  it('a cut before it does not excuse a link in doubt', async () => {
    const { world, server, session, events } = await opened('webtransport', 'websocket');
    session.cut();
    await world.pass(1_000);
    session.send('x');
    current(server).hole = true;
    await world.pass(3_000);
    expect(events.at(-1)).toBe('webtransport websocket');
  });

  it('two links that answer at once: one is taken, and the other one never gets a frame', async () => {
    const { world, server, session, events } = start({ stepMs: 0 }, 'websocket');
    await world.pass(3_000);
    server.only('sse', 'poll');
    current(server).hole = true;
    session.send('x');
    await world.pass(5_000);
    const further = server.links.filter(({ opening, session }) => opening.resumption && session);
    expect(further.map(({ transport }) => transport)).toEqual(['sse', 'poll']);
    expect(further.map(({ received }) => received.length > 0)).toEqual([true, false]);
    expect(server.session.messages).toEqual(['x']);
    expect(events.at(-1)).toBe('websocket sse');
  });

  it('a server that does not know the session any more is left alone while the old link lives', async () => {
    const { world, server, session, events } = await opened('websocket', 'sse');
    const { id } = session;
    const old = server.session;
    server.sessions.clear();
    session.trouble.freeze(9_600);
    await world.pass(11_000);
    expect([session.id, session.transport, events]).toEqual([id, 'websocket', []]);
    const stranger = server.links.at(-1);
    expect(stranger?.received).toEqual([]);
    session.send('still there');
    await world.pass(100);
    expect(old.messages).toEqual(['still there']);
  });

  it('and when the old link is dead, the gap is found within 5 s', async () => {
    const { world, server, session, events } = await opened('websocket', 'sse');
    server.sessions.clear();
    session.send('x');
    for (const link of server.links) {
      link.hole = true;
    }
    await world.pass(2_500 + 5_100);
    expect(events).toContain('gap');
    expect(session.state).toBe('open');
  });

  it('what cannot send any more is read until another link has taken over', async () => {
    const { world, server, session, events } = await opened('websocket', 'sse');
    const link = current(server);
    const seen: unknown[] = [];
    session.on('message', (message) => seen.push(message));
    link.room = () => 0;
    link.handlers.failing({ reason: 'POST: status 502' });
    server.session.send('over the old link');
    await world.pass(15);
    expect([session.state, seen]).toEqual(['open', ['over the old link']]);
    await world.pass(500);
    expect(events).toEqual(['websocket sse']);
    expect(session.explain().moves.at(-1)?.reason).toBe('websocket is in doubt: POST: status 502');
  });

  it('somebody else who resumes the session ends it here', async () => {
    const { world, server, session, events } = await opened('websocket');
    current(server).end({ reason: 'closed with 4021', close: protocolClose('LINK_REPLACED', '') });
    await world.pass(100);
    expect(await session.closed).toMatchObject({ name: 'LINK_REPLACED', retry: false });
    expect(events).toEqual(['websocket null', 'closed', 'closed LINK_REPLACED']);
  });

  it('closing does not wait for races', async () => {
    const { world, server, session } = await opened('websocket');
    session.send('x');
    current(server).hole = true;
    for (const name of TRANSPORTS) {
      server.conditions[name].opening = 'hang';
    }
    await world.pass(2_500);
    void session.close(7);
    await world.pass(10_000);
    expect(await session.closed).toMatchObject({ code: 7 });
    expect(world.pendingTimers).toBe(0);
    expect(server.links.filter(({ session }) => !session).every((link) => link.aborted)).toBe(true);
  });
});

describe('up', () => {
  it('probes at growing intervals, and never disturbs the current link', async () => {
    const { world, server, session, events } = await opened('websocket');
    const messages = traffic(world, session, server);
    server.conditions.webtransport.opening = 'hang';
    const times: number[] = [];
    const begun = world.now();
    let known = server.links.length;
    for (let second = 0; second < 1_500; second++) {
      if (second === 30) {
        await messages.check();
      }
      await world.pass(1_000);
      if (server.links.length > known) {
        known = server.links.length;
        times.push((world.now() - begun) / 1000);
      }
    }
    const delays = times.map((at, index) => at - (times[index - 1] ?? 0));
    // Up to a quarter more, and each attempt hangs for 10 s.
    for (const [index, atLeast] of [30, 120, 600].entries()) {
      expect(delays[index + 1]).toBeGreaterThanOrEqual(atLeast);
      expect(delays[index + 1]).toBeLessThanOrEqual(atLeast * 1.25 + 11);
    }
    expect(times.length).toBe(4);
    expect(events).toEqual([]);
  });

  it('probes at once when the network or the tab comes back, but not over and over', async () => {
    for (const event of ['online', 'visibilitychange', 'pageshow', 'networkchange']) {
      const { world, server, session } = await opened('websocket');
      await world.pass(300_000);
      server.only('webtransport', 'websocket');
      world.fire(event);
      world.fire(event);
      await world.pass(100);
      expect(session.transport, event).toBe('webtransport');
    }
    const { world, server } = await opened('websocket');
    await world.pass(300_000);
    const before = server.links.length;
    for (let times = 0; times < 10; times++) {
      world.fire('visibilitychange');
      await world.pass(900);
    }
    expect(server.links.length).toBe(before + 1);
  });

  it('leaves a transport that opens and carries nothing alone for longer each time', async () => {
    const { world, server, session, events } = await opened('websocket');
    server.only('webtransport', 'websocket');
    server.conditions.webtransport.hollow = true;
    await world.pass(1_000_000);
    expect(session.transport).toBe('websocket');
    // 10 s, 30 s, 2 min, 10 min: there and back.
    expect(events.filter((event) => event === 'websocket webtransport').length).toBeLessThanOrEqual(5);
    expect(events.filter((event) => event === 'websocket webtransport').length).toBeGreaterThan(2);
    expect(events).not.toContain('reconnecting');
  });

  it('and so one that works for a moment, again and again', async () => {
    const { world, server, session, events } = await opened('websocket');
    server.only('webtransport', 'websocket');
    for (let seconds = 0; seconds < 1_000; seconds++) {
      await world.pass(1_000);
      const link = server.session.current;
      if (link?.transport === 'webtransport' && events.at(-1) === 'websocket webtransport') {
        events.push('seen');
        world.timer(20_000, () => {
          link.hole = true;
        });
      }
    }
    expect(session.state).toBe('open');
    const climbs = events.filter((event) => event === 'websocket webtransport').length;
    expect(climbs).toBeGreaterThan(2);
    expect(climbs).toBeLessThanOrEqual(5);
  });

  it('a transport that worked for long is tried again soon', async () => {
    const { world, server, session, events } = await opened('webtransport', 'websocket');
    for (let times = 0; times < 3; times++) {
      await world.pass(100_000);
      expect(session.transport).toBe('webtransport');
      current(server).hole = true;
      server.only('websocket');
      await world.pass(15_000);
      expect(session.transport).toBe('websocket');
      server.only('webtransport', 'websocket');
      await world.pass(60_000);
    }
    expect(session.transport).toBe('webtransport');
    expect(events).not.toContain('reconnecting');
  });

  it('a probe that another server answers is dropped, and so is one that is refused', async () => {
    const { world, server, session, events } = await opened('websocket');
    const { id } = session;
    server.only('webtransport', 'websocket');
    server.conditions.webtransport.opening = { reason: 'status 401', status: 401 };
    await world.pass(60_000);
    server.conditions.webtransport.opening = 'works';
    server.sessions.clear();
    await world.pass(700_000);
    expect([session.id, session.transport, events]).toEqual([id, 'websocket', []]);
  });
});

describe('sideways', () => {
  it('a link that dies with the network is replaced by one of the same kind', async () => {
    const { world, server, session, events } = await opened('webtransport', 'websocket');
    current(server).hole = true;
    world.fire('networkchange');
    await world.pass(1_500);
    expect([session.transport, events]).toEqual(['webtransport', ['webtransport webtransport']]);
    expect(server.opened.filter((name) => name === 'websocket')).toEqual([]);
  });

  it('one that lives is kept', async () => {
    const { world, server, session, events } = await opened('webtransport', 'websocket');
    const before = server.links.length;
    world.fire('online');
    await world.pass(10_000);
    expect([session.transport, events, server.links.length]).toEqual(['webtransport', [], before]);
  });

  it('after a sleep the link is asked first, and its transport is not blamed', async () => {
    const { world, server, session, events } = await opened('webtransport', 'websocket');
    await world.sleep(3_600_000);
    await world.pass(2_000);
    expect([session.transport, events]).toEqual(['webtransport', []]);
    current(server).hole = true;
    await world.sleep(60_000);
    await world.pass(2_000);
    expect(events).toEqual(['webtransport webtransport']);
  });

  it('after a sleep that was longer than the window there is a gap, once', async () => {
    const { world, server, session, events } = await opened('websocket');
    current(server).hole = true;
    server.sessions.clear();
    await world.sleep(3_600_000);
    await world.pass(10_000);
    expect(events.filter((event) => event === 'gap')).toHaveLength(1);
    expect(session.state).toBe('open');
  });
});

describe('without a link', () => {
  it('the first retry is immediate, and resumes without a gap', async () => {
    const { world, session, events } = await opened('websocket');
    session.trouble.cut();
    await world.pass(60);
    expect(events).toEqual(['websocket null', 'reconnecting', 'open', 'null websocket']);
  });

  it('links that work for a moment only are replaced with a delay that does not grow', async () => {
    const { world, session, events } = await opened('websocket');
    world.randomValue = 0.999;
    let longest = 0;
    for (let times = 0; times < 30; times++) {
      session.cut();
      const lostAt = world.now();
      while (session.state !== 'open') {
        await world.pass(10);
      }
      longest = Math.max(longest, world.now() - lostAt);
      await world.pass(100);
    }
    expect(longest).toBeGreaterThan(500);
    expect(longest).toBeLessThan(1_100);
    expect(events).not.toContain('gap');
  });

  it('names the old session for as long as the server keeps it, and then says gap', async () => {
    for (const [ms, named] of [
      [100_000, true],
      [125_000, false],
    ] as const) {
      const { world, server, session, events } = await opened('websocket');
      const { id } = session;
      server.only();
      session.cut();
      await world.pass(ms);
      server.only('websocket');
      if (!named) {
        server.sessions.clear();
      }
      await world.pass(31_000);
      const openings = server.links.filter(({ session }) => session);
      expect(openings.at(-1)?.opening.resumption?.session).toBe(named ? id : undefined);
      expect(events.includes('gap')).toBe(!named);
      expect(session.state).toBe('open');
    }
  });

  it('one 403 does not end a race, 401 does', async () => {
    const { world, server, session } = await opened('websocket');
    server.conditions.websocket.opening = { reason: 'status 403', status: 403 };
    server.conditions.sse.opening = 'works';
    session.cut();
    await world.pass(1_000);
    expect(session.transport).toBe('sse');
    server.only();
    server.conditions.sse.opening = { reason: 'status 401', status: 401 };
    session.cut();
    await world.pass(1_000);
    expect(await session.closed).toMatchObject({ name: 'UNAUTHORIZED' });
  });

  it('a server that goes away is left in peace for a moment, and the next one gets what is left', async () => {
    const { world, server, session, events } = await opened('websocket');
    const tried = vi.fn();
    server.session.close('SHUTTING_DOWN');
    await world.pass(11);
    session.send('for the next one');
    const before = server.links.length;
    await world.pass(200);
    if (server.links.length > before) {
      tried();
    }
    expect(tried).not.toHaveBeenCalled();
    await world.pass(1_000);
    expect(events).toEqual(['websocket null', 'reconnecting', 'open', 'null websocket', 'gap']);
    expect(server.session.messages).toEqual(['for the next one']);
  });
});

describe('trouble', () => {
  it.each(TRANSPORTS)(
    'a frozen link of %s goes on afterwards, with all that was held back',
    async (transport) => {
      const { world, server, session, events } = await opened(transport);
      const messages = traffic(world, session, server);
      for (const name of TRANSPORTS) {
        server.conditions[name].opening = 'hang';
      }
      session.trouble.freeze(3_000);
      await world.pass(5_000);
      await messages.check();
      expect(events).toEqual([]);
    },
  );

  it('a blocked transport is left, and comes back', async () => {
    const { world, server, session, events } = await opened('webtransport', 'websocket');
    const messages = traffic(world, session, server);
    session.trouble.block('webtransport', 10_000);
    await world.pass(5_000);
    expect(session.transport).toBe('websocket');
    await world.pass(60_000);
    expect(session.transport).toBe('webtransport');
    await messages.check();
    expect(events).toEqual(['webtransport websocket', 'websocket webtransport']);
  });
});

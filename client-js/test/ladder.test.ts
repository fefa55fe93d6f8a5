import { describe, expect, it } from 'vitest';
import { protocolClose } from '../src/protocol/close.js';
import { answer, fail, hang, Network, swallow, World } from './world.js';

describe('who wins', () => {
  it('webtransport, when it answers within its head start: nothing else is opened', async () => {
    const world = new World();
    const network = new Network(world, { webtransport: answer(50), websocket: answer(1) });
    const session = network.connect();
    await world.pass(60);
    await session.ready;
    expect(session.transport).toBe('webtransport');
    expect(network.opened).toEqual(['webtransport']);
    expect(session.explain().summary).toBe('Connected over webtransport: the first choice answered.');
  });

  it('websocket 200 ms later, while a silent webtransport is still being tried', async () => {
    const world = new World();
    const network = new Network(world, { webtransport: hang, websocket: answer(30) });
    const session = network.connect();
    await world.pass(199);
    expect(network.opened).toEqual(['webtransport']);
    await world.pass(32);
    expect(session.transport).toBe('websocket');
    expect(network.link('webtransport').aborted).toBe(false);
    expect(session.explain().attempts.map(({ outcome }) => outcome)).toEqual([
      'trying',
      'won',
      'skipped',
      'skipped',
    ]);
    await world.pass(10_000);
    expect(network.link('webtransport').aborted).toBe(true);
    expect(session.explain().attempts[0]).toMatchObject({ outcome: 'failed', reason: 'no WELCOME' });
  });

  it('webtransport that answers later, at once: its own session is left alone, and the session moves there', async () => {
    const world = new World();
    const network = new Network(world, { webtransport: answer(400), websocket: answer(30) });
    const session = network.connect();
    await world.pass(500);
    expect(session.transport).toBe('websocket');
    expect(network.link('websocket').sent[0]).toEqual({ type: 'ping', id: 1 });
    const loser = network.link('webtransport');
    expect(loser.opening.resumption?.session).toBe(session.id);
    expect(network.links[0]?.aborted).toBe(true);
    expect(network.links[0]?.sent).toEqual([]);
    expect(session.explain().attempts[0]?.reason).toBe('it answered late: the session moves there');
    network.behaviours.webtransport = hang;
    loser.welcome({ session: session.id, resumed: true, link: 2 });
    expect([session.transport, session.state]).toEqual(['webtransport', 'open']);
    expect(session.stats()).toMatchObject({ links: 2, moves: 1 });
  });

  it('the next rung at once when the one above fails', async () => {
    const world = new World();
    const network = new Network(world, { webtransport: fail(5), websocket: fail(5), sse: answer(5) });
    const session = network.connect();
    await world.pass(16);
    expect(session.transport).toBe('sse');
  });

  it('polling within 3 s when everything above hangs silently', async () => {
    const world = new World();
    const network = new Network(world, { webtransport: hang, websocket: hang, sse: hang, poll: answer(50) });
    const session = network.connect();
    await world.pass(2_251);
    expect(session.transport).toBe('poll');
    expect(network.opened).toEqual(['webtransport', 'websocket', 'sse', 'poll']);
    await session.close();
    expect(network.links.every((link) => link.aborted || link.closedWith)).toBe(true);
  });

  it('skips what this browser lacks, and says so', async () => {
    const world = new World();
    const network = new Network(world, {
      webtransport: { missing: 'this browser has no WebTransport' },
      websocket: answer(5),
    });
    const session = network.connect();
    await world.pass(10);
    expect(session.transport).toBe('websocket');
    expect(session.explain().summary).toBe(
      'Connected over websocket: webtransport was not tried (this browser has no WebTransport).',
    );
  });

  it('only what the application allows, in its order', async () => {
    const world = new World();
    const network = new Network(world, { poll: hang, websocket: answer(5) });
    const session = network.connect({ transports: ['poll', 'websocket'] });
    await world.pass(1_010);
    expect(network.opened).toEqual(['poll', 'websocket']);
    expect(session.transport).toBe('websocket');
  });
});

describe('refusals', () => {
  it("one transport's 403 fails just that rung", async () => {
    const world = new World();
    const network = new Network(world, {
      webtransport: fail(1),
      websocket: fail(1),
      sse: fail(1, { reason: 'status 403', status: 403 }),
      poll: answer(1),
    });
    const session = network.connect();
    await world.pass(20);
    expect(session.transport).toBe('poll');
  });

  it('401 ends the race with that error', async () => {
    const world = new World();
    const network = new Network(world, {
      webtransport: hang,
      websocket: fail(1),
      sse: fail(1, { reason: 'status 401 UNAUTHORIZED: who are you', status: 401 }),
      poll: answer(1),
    });
    const session = network.connect();
    await world.pass(300);
    await expect(session.ready).rejects.toMatchObject({ name: 'ThroughlineError', code: 'UNAUTHORIZED' });
    expect(network.opened).toEqual(['webtransport', 'websocket', 'sse']);
    expect(network.link('webtransport').aborted).toBe(true);
    expect((await session.closed).code).toBe(11);
  });

  it('when every answer that can be seen says the same, that is the error', async () => {
    const world = new World();
    const refused = fail(1, {
      reason: 'status 503 LIMIT_REACHED: full',
      status: 503,
      close: protocolClose('LIMIT_REACHED', 'full'),
      retryAfterMs: 5000,
    });
    const network = new Network(world, {
      webtransport: fail(1),
      websocket: fail(1),
      sse: refused,
      poll: refused,
    });
    const session = network.connect();
    await world.pass(10);
    await expect(session.ready).rejects.toMatchObject({ code: 'LIMIT_REACHED' });
    expect(await session.closed).toMatchObject({ name: 'LIMIT_REACHED', retry: true });
  });

  it('everything broken: a clear error that says what was tried', async () => {
    const world = new World();
    const network = new Network(world, {
      webtransport: { missing: 'this browser has no WebTransport' },
      websocket: fail(3, { reason: 'could not be opened (1006)' }),
      sse: fail(3, { reason: 'Failed to fetch' }),
      poll: hang,
    });
    const session = network.connect();
    await world.pass(11_000);
    const error: Error = await session.ready.then(
      () => new Error('opened'),
      (reason) => reason,
    );
    expect(error.message).toBe(session.explain().summary);
    expect(error.message).toBe(
      'Closed: UNREACHABLE: no transport worked: webtransport was not tried (this browser has no WebTransport); websocket failed after 3 ms (could not be opened (1006)); sse failed after 3 ms (Failed to fetch); poll failed after 10000 ms (no WELCOME).',
    );
    expect(await session.closed).toMatchObject({ code: 20, name: 'UNREACHABLE', retry: true });
    expect(world.pendingTimers).toBe(0);
  });
});

describe('memory of failures', () => {
  it('a webtransport that failed is not tried before its time, and delays nothing', async () => {
    const world = new World();
    const network = new Network(world, { webtransport: fail(5), websocket: answer(5) });
    network.connect();
    await world.pass(20);
    const second = network.connect();
    const told: string[] = [];
    second.on('transport', ({ reason }) => told.push(reason));
    await world.pass(6);
    expect(second.transport).toBe('websocket');
    expect(told).toEqual(['Connected over websocket: webtransport was not tried (failed lately: refused).']);
    expect(network.opened).toEqual(['webtransport', 'websocket', 'websocket']);
    expect(second.explain().summary).toMatch(/webtransport was not tried \(failed lately: refused\)/);
    await world.pass(10_000);
    network.connect();
    await world.pass(20);
    expect(network.opened.filter((name) => name === 'webtransport')).toHaveLength(2);
  });

  it('it is tried all the same when nothing else works', async () => {
    const world = new World();
    const network = new Network(world, { webtransport: fail(5), websocket: answer(5) });
    network.connect({ transports: ['webtransport', 'websocket'] });
    await world.pass(20);
    network.behaviours.webtransport = answer(5);
    network.behaviours.websocket = fail(5);
    const second = network.connect({ transports: ['webtransport', 'websocket'] });
    await world.pass(20);
    expect(second.transport).toBe('webtransport');
  });

  it('a websocket that failed does not delay what is below it', async () => {
    const world = new World();
    const network = new Network(world, {
      webtransport: { missing: 'x' },
      websocket: fail(5),
      sse: answer(5),
    });
    network.connect();
    await world.pass(20);
    network.behaviours.websocket = hang;
    const second = network.connect();
    await world.pass(6);
    expect(second.transport).toBe('sse');
  });

  it('a server that is down is not held against any transport', async () => {
    const world = new World();
    const network = new Network(world, {
      webtransport: fail(1),
      websocket: fail(1),
      sse: fail(1),
      poll: fail(1),
    });
    network.connect();
    await world.pass(10);
    expect(world.stored.size).toBe(0);
  });

  it('a rung that opened and carried nothing is tried last', async () => {
    const world = new World();
    const network = new Network(world, {
      webtransport: { missing: 'x' },
      websocket: swallow(5),
      sse: hang,
      poll: hang,
    });
    const session = network.connect();
    await world.pass(1_005); // not even a PONG
    expect(session.state).toBe('open');
    network.behaviours.websocket = hang;
    await world.pass(2_000);
    expect(network.opened).toEqual(['websocket', 'sse', 'poll', 'websocket']);
    network.link('sse').welcome({ session: session.id, resumed: true, link: 2 });
    expect(session.transport).toBe('sse');
    expect(session.explain().moves.at(-1)?.reason).toMatch(/^websocket is in doubt/);
    // Another page is spared the detour.
    network.behaviours.sse = answer(5);
    const other = network.connect();
    await world.pass(20);
    expect(other.transport).toBe('sse');
  });
});

// What channels have kept, and subscriptions that the server begins.

import { describe, expect, it } from 'vitest';
import type { History } from '../src/channels.js';
import {
  ADDED,
  type ChannelMessage,
  DONE,
  PAGE,
  PUBLICATION,
  UNSUBSCRIBED,
} from '../src/protocol/channels.js';
import type { Subscription } from '../src/subscription.js';
import { asked, later, opened, outcome, subscribed, watch } from './channel-world.js';
import type { ServerLink } from './server.js';

async function kept(count: number) {
  const started = await opened();
  const { hub, session, world } = started;
  for (let number = 1; number <= count; number++) {
    hub.publish('a', `${number}`);
  }
  const history = async (options = {}): Promise<History> => {
    const page = session.history('a', options);
    await world.pass(100);
    return page;
  };
  return { ...started, history };
}

const summary = ({ publications, epoch, offset, complete, more }: History) => [
  publications.map(({ offset, data }) => `${offset} ${data}`).join(', '),
  `${epoch}.${offset}`,
  complete,
  more,
];

describe('history', () => {
  it('is all of it, a part after a position, or the newest part', async () => {
    const { hub, history } = await kept(5);
    hub.historyCount = 4;
    expect(summary(await history())).toEqual(['1 1, 2 2, 3 3, 4 4, 5 5', '7.5', true, false]);
    expect(summary(await history({ limit: 2 }))).toEqual(['1 1, 2 2', '7.5', true, true]);
    const since = { epoch: 7, offset: 2 };
    expect(summary(await history({ since }))).toEqual(['3 3, 4 4, 5 5', '7.5', true, false]);
    expect(summary(await history({ since, limit: 1 }))).toEqual(['3 3', '7.5', true, true]);
    expect(summary(await history({ newest: true, limit: 2 }))).toEqual(['4 4, 5 5', '7.5', false, false]);
    hub.publish('a', '6');
    expect(summary(await history())).toEqual(['3 3, 4 4, 5 5, 6 6', '7.6', false, false]);
    expect(summary(await history({ since: { epoch: 6, offset: 5 } }))[2]).toBe(false);
  });

  it('is read page by page, and bytes are bytes', async () => {
    const { hub, history } = await kept(2);
    hub.publish('a', Uint8Array.of(0, 255));
    hub.pageCount = 2;
    const first = await history();
    expect(summary(first)).toEqual(['1 1, 2 2', '7.3', true, true]);
    const since = { epoch: first.epoch, offset: first.publications.at(-1)?.offset ?? 0 };
    const second = await history({ since });
    expect([second.publications, second.more]).toEqual([[{ offset: 3, data: Uint8Array.of(0, 255) }], false]);
  });

  it('asks for as many as are wanted, 100 if nobody says, and never for none', async () => {
    const { hub, session, history } = await kept(0);
    await history();
    await history({ limit: 1_000, newest: true });
    expect(hub.asked.map(({ limit, newest }) => [limit, newest])).toEqual([
      [100, false],
      [1_000, true],
    ]);
    for (const limit of [0, -1, 1.5, Number.NaN]) {
      await expect(session.history('a', { limit })).rejects.toThrow(TypeError);
    }
    expect(await outcome(session.history(''))).toBe('BAD_CHANNEL');
  });

  it('is asked for again in the session that takes the place of this one: reading twice does no harm', async () => {
    const { hub, session, world, restart, server } = await kept(1);
    hub.answers = false;
    const page = later(session.history('a', { limit: 7 }));
    await world.pass(100);
    hub.answers = true;
    hub.asked.length = 0;
    await restart();
    expect(summary(await page)).toEqual(['1 1', '7.1', true, false]);
    expect(asked(server)).toEqual(['1 HISTORY a']);
  });

  it('is refused, and ends with the session', async () => {
    const { hub, session, world, server } = await kept(1);
    hub.refusals.set('a', 9);
    const refused = later(session.history('a'));
    await world.pass(100);
    expect(await outcome(refused)).toBe('WRONG_KIND');
    hub.answers = false;
    const page = later(session.history('a'));
    await world.pass(100);
    (server.session.current as ServerLink).hole = true;
    session.cut();
    await session.close();
    expect(await outcome(page)).toBe('SESSION_CLOSED');
    expect(await outcome(session.history('a'))).toBe('SESSION_CLOSED');
  });

  it.each([
    ['a page for a publication', 'publish', PAGE],
    ['done for a page', 'history', DONE],
  ] as const)('must not be answered with %s', async (_, method, op) => {
    const { hub, session, world, server } = await kept(0);
    hub.answers = false;
    void later(method === 'publish' ? session.publish('a', '') : session.history('a'));
    await world.pass(100);
    const rest = { complete: true, more: false, publications: [] };
    const answer = { op, request: 1, position: { epoch: 7, offset: 0 }, ...(op === PAGE && rest) };
    server.session.sayChannel(answer as ChannelMessage);
    await world.pass(100);
    expect(await session.closed).toMatchObject({ name: 'PROTOCOL_VIOLATION' });
  });
});

describe('a subscription that the server begins', () => {
  it('is told of, and goes on as any other', async () => {
    const { world, server, hub, session } = await opened();
    const found: Subscription[] = [];
    let seen: unknown[] = [];
    session.on('subscription', (room) => {
      found.push(room);
      seen = watch(room);
    });
    hub.publish('a', 'before');
    hub.add('a', server.session);
    hub.publish('a', 'after');
    await world.pass(100);
    const [room] = found as [Subscription];
    expect([room.channel, room.kind, room.state, room.position?.offset, seen]).toEqual([
      'a',
      'log',
      'subscribed',
      2,
      ['2 after'],
    ]);
    expect(await outcome(room.ready)).toBeUndefined();
    expect(() => session.subscribe('a')).toThrow(/has a subscription already/);
    void room.unsubscribe();
    hub.publish('a', 'too late');
    await world.pass(100);
    expect([room.state, seen, hub.channel('a').subscribers.size]).toEqual(['ended', ['2 after'], 0]);
  });

  it('may be of a channel of state', async () => {
    const { world, server, hub, session } = await opened();
    hub.set('s:a', 'x', '1');
    const found: Subscription[] = [];
    session.on('subscription', (room) => found.push(room));
    hub.add('s:a', server.session);
    await world.pass(100);
    expect([found[0]?.kind, Object.fromEntries(found[0]?.values ?? [])]).toEqual(['state', { x: '1' }]);
  });

  it('is not asked for by the next session, which the server may subscribe again', async () => {
    const { world, server, hub, session, restart } = await opened();
    const found: Subscription[] = [];
    const ends: unknown[][] = [];
    session.on('subscription', (room) => {
      found.push(room);
      ends.push(watch(room));
    });
    hub.add('a', server.session);
    await world.pass(100);
    await restart();
    expect([found[0]?.state, ends[0], asked(server)]).toEqual([
      'ended',
      [expect.stringMatching(/^end null SESSION_CLOSED another session/)],
      [],
    ]);
    hub.add('a', server.session);
    await world.pass(100);
    expect(found.map(({ state }) => state)).toEqual(['ended', 'subscribed']);
  });

  it('crosses a SUBSCRIBE, which it answers; the refusal that follows says nothing', async () => {
    const { world, server, hub, session } = await opened();
    let told = false;
    session.on('subscription', () => {
      told = true;
    });
    hub.publish('a', 'one');
    hub.add('a', server.session);
    const since = { epoch: 7, offset: 0 };
    const rooms = [session.subscribe('a', { since })];
    const seen = watch(rooms[0] as Subscription);
    await world.pass(100);
    hub.publish('a', 'two');
    await world.pass(100);
    expect(seen).toEqual(['subscribed false 7.1', '2 two']);
    expect([told, rooms[0]?.state, session.state]).toEqual([false, 'subscribed', 'open']);
  });

  it('is over when the UNSUBSCRIBE that it crossed is done', async () => {
    const { world, server, hub, session, room } = await subscribed();
    const found: Subscription[] = [];
    const ends: unknown[][] = [];
    session.on('subscription', (room) => {
      found.push(room);
      ends.push(watch(room));
    });
    const { number } = hub.channel('a');
    const done = room.unsubscribe();
    hub.channel('a').subscribers.clear();
    server.session.sayChannel({ op: UNSUBSCRIBED, number, code: 0, reason: '' });
    hub.add('a', server.session);
    await world.pass(100);
    expect([await outcome(done), found[0]?.state, ends]).toEqual([
      undefined,
      'ended',
      [['end 0 NORMAL unsubscribed']],
    ]);
    // It has no number any more.
    server.session.sayChannel({ op: PUBLICATION, number, offset: 1, data: '' });
    await world.pass(100);
    expect(await session.closed).toMatchObject({ name: 'PROTOCOL_VIOLATION' });
  });

  it('that nobody listens for does no harm', async () => {
    const { world, server, session } = await opened();
    const position = { epoch: 7, offset: 0 };
    server.session.sayChannel({ op: ADDED, number: 5, channel: 'b', state: false, position });
    server.session.sayChannel({ op: PUBLICATION, number: 5, offset: 1, data: '' });
    await world.pass(100);
    expect(session.state).toBe('open');
  });
});

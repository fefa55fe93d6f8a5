// Channels of a session whose links come and go, which another session replaces, and which ends.

import { describe, expect, it } from 'vitest';
import { type Position, PUBLICATION } from '../src/protocol/channels.js';
import { GOAWAY, writeFields } from '../src/protocol/frames.js';
import { Writer } from '../src/protocol/varint.js';
import type { Subscription } from '../src/subscription.js';
import { asked, later, opened, outcome, start, subscribed } from './channel-world.js';
import type { ServerLink } from './server.js';

describe('moves and losses of links', () => {
  it('are nothing to subscriptions and requests', async () => {
    const { world, server, hub, session, seen } = await subscribed();
    const positions: [number, string][] = [];
    for (let round = 1; round <= 20; round++) {
      hub.publish('a', `s${round}`);
      void session.publish('a', `c${round}`).then(({ offset }) => positions.push([offset, `c${round}`]));
      await world.pass(round * 3);
      if (round % 3 === 0) {
        session.cut();
      }
      await world.pass(100);
    }
    await world.pass(2_000);
    const { history } = hub.channel('a');
    expect(history).toHaveLength(40);
    expect(seen).toEqual(history.map((data, at) => `${at + 1} ${data}`));
    expect(positions).toEqual(
      history.flatMap((data, at) => (String(data).startsWith('c') ? [[at + 1, data]] : [])),
    );
    expect(asked(server).filter((one) => one.includes('SUBSCRIBE'))).toHaveLength(1);
    expect(session.stats().gaps).toBe(0);
  });
});

describe('a new session in the place of an old one', () => {
  it('goes on after the last publication that was handed on, which comes neither twice nor never', async () => {
    const { world, server, hub, room, seen, restart } = await subscribed();
    hub.publish('a', 'one');
    await world.pass(100);
    hub.publish('a', 'lost on its way');
    await restart(() => {
      expect(room.state).toBe('subscribed');
      hub.publish('a', 'missed');
    });
    hub.publish('a', 'four');
    await world.pass(100);
    expect(seen).toEqual(['1 one', 'subscribed true 7.1', '2 lost on its way', '3 missed', '4 four']);
    expect(asked(server)).toEqual(['1 SUBSCRIBE a', '1 SUBSCRIBE a 7.1']);
    expect(await outcome(room.ready)).toBeUndefined();
  });

  it('says when it could not', async () => {
    const { world, hub, room, seen, restart } = await subscribed();
    hub.publish('a', 'one');
    await world.pass(100);
    await restart(() => hub.forget('a'));
    hub.publish('a', 'new');
    await world.pass(100);
    expect(seen).toEqual(['1 one', 'subscribed false 8.0', '1 new']);
    hub.historyCount = 1;
    await restart(() => {
      hub.publish('a', 'lost');
      hub.publish('a', 'too');
    });
    expect(seen.slice(3)).toEqual(['subscribed false 8.3']);
    expect(room.position).toEqual({ epoch: 8, offset: 3 });
  });

  it('ends what it may not go on with', async () => {
    const { hub, session, room, seen, restart } = await subscribed();
    await restart(() => hub.refusals.set('a', 1));
    expect([room.state, seen]).toEqual(['ended', ['end 1 NOT_ALLOWED no']]);
    expect(session.state).toBe('open');
    expect(() => session.subscribe('a')).not.toThrow();
  });

  it('asks for what had no answer, and not for what was given up', async () => {
    const { world, server, hub, session, restart } = await opened();
    const given = session.subscribe('given up');
    await world.pass(100);
    hub.answers = false;
    const since = { epoch: 7, offset: 0 };
    const waiting = [session.subscribe('b'), session.subscribe('c', { since })];
    const done = given.unsubscribe();
    await world.pass(100);
    expect(await outcome(done)).toBe('pending');
    hub.asked.length = 0;
    hub.answers = true;
    await restart();
    expect(await outcome(done)).toBeUndefined();
    expect(asked(server)).toEqual(['1 SUBSCRIBE b', '2 SUBSCRIBE c 7.0']);
    expect(waiting.map(({ state }) => state)).toEqual(['subscribed', 'subscribed']);
  });

  it('publishes what never left, and nothing else', async () => {
    const { world, server, hub, session, restart } = await opened();
    hub.answers = false;
    const sent = later(session.publish('a', 'sent'));
    await world.pass(100);
    hub.answers = true;
    let kept: Promise<Position> | undefined;
    hub.asked.length = 0;
    await restart(() => {
      kept = session.publish('a', 'kept');
      session.subscribe('b');
      session.send('a message');
    });
    expect(await outcome(sent)).toBe('UNCERTAIN');
    await expect(sent).rejects.toThrow(/may have been published/);
    expect(await outcome(kept as Promise<Position>)).toEqual({ epoch: 7, offset: 2 });
    expect(asked(server)).toEqual(['1 SUBSCRIBE b', '2 PUBLISH a kept']);
    expect(server.session.messages).toEqual(['a message']);
  });

  it('what waits for credit never left, either; what has begun to leave may have', async () => {
    const { world, server, hub, session, restart } = await opened({ maxBufferedBytes: 1_000_000 });
    const [begun, next, last] = ['x'.repeat(300_000), 'y', 'z'].map((data) =>
      later(session.publish('a', data)),
    ) as [Promise<Position>, Promise<Position>, Promise<Position>];
    (server.session.current as ServerLink).hole = true; // no more credit comes
    await world.pass(100);
    expect(hub.asked).toEqual([]);
    await restart();
    expect(await outcome(begun)).toBe('UNCERTAIN');
    expect([await outcome(next), await outcome(last)]).toEqual([
      { epoch: 7, offset: 1 },
      { epoch: 7, offset: 2 },
    ]);
    expect(asked(server)).toEqual(['1 PUBLISH a y', '2 PUBLISH a z']);
  });

  it('hears first what the application says in its gap listeners, which may change everything', async () => {
    const { world, server, session, room, seen, restart } = await subscribed();
    const other = session.subscribe('b');
    await world.pass(100);
    server.hub.asked.length = 0;
    let second: Subscription | undefined;
    session.on('gap', () => {
      session.send('hello again');
      expect([room.state, other.state]).toEqual(['subscribing', 'subscribing']);
      void session.publish('b', 'from the listener');
      void room.unsubscribe();
      second = session.subscribe('a');
    });
    const messagesBefore: number[] = [];
    const { ask } = server.hub;
    server.hub.ask = function (from, body) {
      messagesBefore.push(server.session.messages.length);
      ask.call(this, from, body);
    };
    await restart(() => session.send('left over'));
    expect(server.session.messages).toEqual(['hello again', 'left over']);
    expect(messagesBefore).toEqual([1, 1, 1, 2]);
    expect(asked(server)).toEqual([
      '1 PUBLISH b from the listener',
      '2 UNSUBSCRIBE a',
      '3 SUBSCRIBE a',
      '4 SUBSCRIBE b 7.0',
    ]);
    expect([second?.state, other.state, seen]).toEqual(['subscribed', 'subscribed', []]);
    expect(other.position?.offset).toBe(1);
  });

  it.each(['state', 'transport'] as const)('is asked by listeners to %s, which come first', async (event) => {
    const { world, server, session, room, seen, restart } = await subscribed();
    server.hub.asked.length = 0;
    const published: Promise<Position>[] = [];
    const stop = session.on(event, () => {
      if (session.transport && session.state === 'open') {
        stop();
        published.push(later(session.publish('b', 'hello')));
      }
    });
    const kept = server.hub.channel('a');
    await restart(() => server.hub.publish('a', 'missed'));
    expect(asked(server)).toEqual(['1 PUBLISH b hello', '2 SUBSCRIBE a 7.0']);
    expect(await outcome(published[0] as Promise<Position>)).toEqual({ epoch: 7, offset: 1 });
    expect([room.state, seen, kept.subscribers.size]).toEqual([
      'subscribed',
      ['subscribed true 7.0', '1 missed'],
      1,
    ]);
    await world.pass(1_000);
    expect(session.state).toBe('open');
  });

  it('has numbers of its own', async () => {
    const { world, server, hub, session, restart } = await subscribed();
    hub.answers = false;
    await restart();
    server.session.sayChannel({ op: PUBLICATION, number: hub.channel('a').number, offset: 1, data: '' });
    await world.pass(100);
    expect(await session.closed).toMatchObject({ name: 'PROTOCOL_VIOLATION' });
  });

  it('twice in a row', async () => {
    const { world, hub, session, seen, restart } = await subscribed();
    hub.publish('a', 'one');
    await world.pass(100);
    hub.answers = false;
    await restart(() => hub.publish('a', 'two'));
    hub.answers = true;
    await restart(() => hub.publish('a', 'three'));
    expect(seen).toEqual(['1 one', 'subscribed true 7.1', '2 two', '3 three']);
    expect(session.stats().gaps).toBe(2);
  });
});

it('a server that goes away: what is published meanwhile goes to the next session', async () => {
  const { world, server, hub, session, room, seen } = await subscribed();
  const out = new Writer();
  writeFields(out, GOAWAY, 0);
  server.session.current?.say(out);
  await world.pass(100);
  const kept = session.publish('a', 'kept');
  await world.pass(100);
  expect(hub.channel('a').newest).toBe(0);
  server.session.close('SHUTTING_DOWN');
  await world.pass(5_000);
  expect(await outcome(kept)).toEqual({ epoch: 7, offset: 1 });
  expect([seen, room.state]).toEqual([['subscribed true 7.0', '1 kept'], 'subscribed']);
});

describe('the end of the session', () => {
  it('ends subscriptions and publications, each as far as it has come', async () => {
    const { world, server, hub, session, room, seen } = await subscribed();
    hub.answers = false;
    const pending = session.subscribe('b');
    const left = session.subscribe('c');
    const published = later(session.publish('a', 'perhaps'));
    await world.pass(100);
    (server.session.current as ServerLink).hole = true;
    const done = left.unsubscribe();
    session.cut();
    const never = later(session.publish('a', 'never'));
    let threw = false;
    room.on('end', () => {
      try {
        session.subscribe('a');
      } catch {
        threw = true;
      }
    });
    seen.length = 0;
    await session.close(7, 'enough');
    const why = 'the session is closed (application code 7: enough)';
    expect(seen).toEqual([`end null SESSION_CLOSED ${why}`]);
    expect(threw).toBe(true);
    expect([room.state, pending.state]).toEqual(['ended', 'ended']);
    expect(await outcome(pending.ready)).toBe('SESSION_CLOSED');
    expect(await outcome(done)).toBeUndefined();
    expect(await outcome(published)).toBe('UNCERTAIN');
    expect(await outcome(never)).toBe('SESSION_CLOSED');
    await expect(never).rejects.toThrow(`publish 'a': ${why}`);
    expect(() => session.subscribe('d')).toThrow(/subscribe: the session is closed/);
    expect(await outcome(session.publish('d', ''))).toBe('SESSION_CLOSED');
    expect(await outcome(room.unsubscribe())).toBeUndefined();
  });

  it('before it was open: nothing has left', async () => {
    const { session } = start();
    const room = session.subscribe('a');
    const published = later(session.publish('a', 'x'));
    await session.close();
    expect([await outcome(room.ready), await outcome(published)]).toEqual([
      'SESSION_CLOSED',
      'SESSION_CLOSED',
    ]);
  });

  it('what was asked before it goes out with it', async () => {
    const { world, hub, session } = await opened();
    const published = session.publish('a', 'last words');
    void session.close();
    expect(await outcome(published)).toBe('UNCERTAIN');
    await world.pass(100);
    expect(hub.channel('a').newest).toBe(1);
  });
});

// Subscriptions, and how they end by the application's own will.

import { describe, expect, it } from 'vitest';
import { DONE, type Position, PUBLICATION, SUBSCRIBED, UNSUBSCRIBED } from '../src/protocol/channels.js';
import { asked, opened, outcome, start, subscribed, watch } from './channel-world.js';

describe('a subscription', () => {
  it('is asked for before the session is open, and gets what is published from then on', async () => {
    const { world, hub, session } = start();
    hub.publish('a', 'before');
    const room = session.subscribe('a');
    expect([room.channel, room.state, room.position]).toEqual(['a', 'subscribing', null]);
    const seen = watch(room);
    await world.pass(1_000);
    expect(await outcome(room.ready)).toBeUndefined();
    expect([room.state, room.position]).toEqual(['subscribed', { epoch: 7, offset: 1 }]);
    hub.publish('a', 'one');
    hub.publish('b', 'elsewhere');
    hub.publish('a', 'two');
    await world.pass(100);
    expect(seen).toEqual(['subscribed null 7.1', '2 one', '3 two']);
    expect(room.position).toEqual({ epoch: 7, offset: 3 });
  });

  it('loses nothing to who listens in the same turn, though the answer and publications come at once', async () => {
    const { world, server, session } = await opened();
    server.conditions.websocket.latencyMs = 0;
    const room = session.subscribe('a');
    const ours = session.publish('a', 'mine');
    const seen = watch(room);
    await world.pass(0);
    expect(seen).toEqual(['subscribed null 7.0', '1 mine']);
    expect(await outcome(ours)).toEqual({ epoch: 7, offset: 1 });
  });

  it('begins in the past, when it can', async () => {
    const { world, hub, session } = await opened();
    hub.historyCount = 2;
    for (const data of ['one', 'two', 'three']) {
      hub.publish('a', data);
      hub.publish('b', data);
    }
    const rooms: [string, Position][] = [
      ['a', { epoch: 7, offset: 1 }],
      ['b', { epoch: 7, offset: 0 }],
      ['c', { epoch: 6, offset: 0 }],
    ];
    const seen = rooms.map(([name, since]) => watch(session.subscribe(name, { since })));
    await world.pass(100);
    expect(seen).toEqual([
      ['subscribed true 7.1', '2 two', '3 three'],
      ['subscribed false 7.3'],
      ['subscribed false 7.0'],
    ]);
  });

  it('is refused, and can be asked for again', async () => {
    const { world, hub, session } = await opened();
    hub.refusals.set('a', 1);
    const room = session.subscribe('a'); // nobody has to listen to `ready`
    const seen = watch(room);
    await world.pass(100);
    await expect(room.ready).rejects.toThrow("subscribe 'a': no");
    await expect(room.ready).rejects.toMatchObject({ code: 'NOT_ALLOWED' });
    expect([room.state, seen]).toEqual(['ended', ['end 1 NOT_ALLOWED no']]);
    hub.refusals.clear();
    const again = session.subscribe('a');
    await world.pass(100);
    expect(again.state).toBe('subscribed');
    hub.refusals.set('b', 99);
    const unknown = session.subscribe('b');
    await world.pass(100);
    expect(await outcome(unknown.ready)).toBe('UNKNOWN');
  });

  it('is the only one of its channel while it lives', async () => {
    const { session, room } = await subscribed();
    expect(() => session.subscribe('a')).toThrow("'a' has a subscription already");
    expect(room.state).toBe('subscribed');
  });

  it('a name has 1 to 255 bytes', async () => {
    const { world, session, server } = await opened();
    for (const name of ['', 'x'.repeat(256), 'é'.repeat(128)]) {
      expect(() => session.subscribe(name)).toThrow(/1 to 255 bytes/);
      expect(await outcome(session.publish(name, ''))).toBe('BAD_CHANNEL');
    }
    const longest = session.subscribe(`${'é'.repeat(127)}x`);
    await world.pass(100);
    expect(longest.state).toBe('subscribed');
    expect(server.hub.asked).toHaveLength(1);
  });

  it('whatever comes, text or bytes, comes as it was published, and is its own copy', async () => {
    const { world, session, room } = await subscribed();
    const seen: unknown[] = [];
    room.on('publication', ({ data }) => seen.push(data));
    const bytes = Uint8Array.of(1, 0, 255);
    for (const data of ['', 'ü', bytes, bytes.subarray(1), bytes.buffer, new DataView(bytes.buffer, 2)]) {
      void session.publish('a', data);
    }
    bytes.fill(0); // it was copied
    await world.pass(100);
    expect(seen).toEqual([
      '',
      'ü',
      Uint8Array.of(1, 0, 255),
      Uint8Array.of(0, 255),
      Uint8Array.of(1, 0, 255),
      Uint8Array.of(255),
    ]);
  });

  it('does not wait for a listener to messages, and holds no credit', async () => {
    const { world, server, hub, seen } = await subscribed();
    server.session.send('nobody listens');
    for (let count = 0; count < 60; count++) {
      hub.publish('a', 'x'.repeat(10_000)); // more than twice the window
    }
    await world.pass(1_000);
    expect(seen).toHaveLength(60);
  });
});

describe('unsubscribe', () => {
  it('hands on nothing more, also of what is under way, and resolves when the server knows', async () => {
    const { world, hub, room, seen, server } = await subscribed();
    hub.publish('a', 'under way');
    const done = room.unsubscribe();
    expect([room.state, room.unsubscribe() === done]).toEqual(['ended', true]);
    await world.pass(15);
    expect(await outcome(done)).toBe('pending');
    await world.pass(100);
    expect(await outcome(done)).toBeUndefined();
    hub.publish('a', 'later');
    await world.pass(100);
    expect([seen, room.position]).toEqual([[], { epoch: 7, offset: 0 }]);
    expect(asked(server)).toEqual(['1 SUBSCRIBE a', '2 UNSUBSCRIBE a']);
  });

  it('before the answer: ready rejects, and what the server says then is nobody’s', async () => {
    const { world, hub, session } = await opened();
    hub.publish('a', 'old');
    const room = session.subscribe('a', { since: { epoch: 7, offset: 0 } });
    const seen = watch(room);
    const done = room.unsubscribe();
    expect(await outcome(room.ready)).toBe('NORMAL');
    await world.pass(100);
    expect(await outcome(done)).toBeUndefined();
    expect([seen, room.position]).toEqual([[], { epoch: 7, offset: 0 }]);
    expect(session.state).toBe('open');
  });

  it('and subscribing again in the same turn: the new one gets everything, the old one nothing', async () => {
    const { world, hub, session, room, seen } = await subscribed();
    hub.publish('a', 'for the old one, too late');
    const done = room.unsubscribe();
    const second = session.subscribe('a', { since: room.position });
    const news = watch(second);
    await world.pass(10);
    hub.publish('a', 'for the new one');
    await world.pass(100);
    expect(await outcome(done)).toBeUndefined();
    expect(seen).toEqual([]);
    expect(news).toEqual(['subscribed true 7.0', '1 for the old one, too late', '2 for the new one']);
  });

  it('and subscribing again, with the answers in the other order', async () => {
    const { world, server, hub, session, room, seen } = await subscribed();
    hub.answers = false;
    const done = room.unsubscribe();
    const news = watch(session.subscribe('a'));
    await world.pass(100);
    const { number } = hub.channel('a');
    const position = { epoch: 7, offset: 0 };
    server.session.sayChannel({
      op: SUBSCRIBED,
      request: 3,
      number,
      recovered: false,
      state: false,
      position,
    });
    server.session.sayChannel({ op: DONE, request: 2, position: { epoch: 0, offset: 0 } });
    server.session.sayChannel({ op: PUBLICATION, number, offset: 1, data: 'one' });
    await world.pass(100);
    expect([await outcome(done), seen, news]).toEqual([undefined, [], ['subscribed null 7.0', '1 one']]);
  });

  it('in a listener, between two publications', async () => {
    const { world, hub, room, seen } = await subscribed();
    room.on('publication', () => void room.unsubscribe());
    hub.publish('a', 'one');
    hub.publish('a', 'two');
    await world.pass(100);
    expect([seen, room.position]).toEqual([['1 one'], { epoch: 7, offset: 1 }]);
  });

  it('of what has ended resolves at once; of what ends meanwhile, when the server says so', async () => {
    const { world, server, hub, session, room, seen } = await subscribed();
    const done = room.unsubscribe();
    // The server ends it at the same time, and knows no subscription when UNSUBSCRIBE comes.
    hub.channel('a').subscribers.clear();
    server.session.sayChannel({ op: UNSUBSCRIBED, number: hub.channel('a').number, code: 0, reason: '' });
    await world.pass(100);
    expect([await outcome(done), seen, session.state]).toEqual([undefined, [], 'open']);
    hub.refusals.set('b', 1);
    const refused = session.subscribe('b');
    await world.pass(100);
    expect(await outcome(refused.unsubscribe())).toBeUndefined();
    expect(asked(server)).toEqual(['1 SUBSCRIBE a', '2 UNSUBSCRIBE a', '3 SUBSCRIBE b']);
  });
});

// Channels of state: the newest value of each key, in whatever order they come (SPEC section 10.1).

import { describe, expect, it } from 'vitest';
import {
  type ChannelMessage,
  PUBLICATION,
  SETTLED,
  SKIPPED,
  SNAPSHOT,
  VALUE,
} from '../src/protocol/channels.js';
import type { Subscription } from '../src/subscription.js';
import { Values } from '../src/values.js';
import { opened, outcome } from './channel-world.js';

/** What its listeners get, in order. */
function watch(room: Subscription): string[] {
  const seen: string[] = [];
  room.on('subscribed', ({ recovered, offset }) => seen.push(`subscribed ${recovered} ${offset}`));
  room.on('value', ({ key, data, offset }) => {
    expect(room.values.get(key)).toBe(data);
    expect(room.values.has(key)).toBe(data !== undefined);
    seen.push(data === undefined ? `${offset} -${key}` : `${offset} ${key}=${data}`);
  });
  room.on('settled', ({ offset }) => seen.push(`settled ${offset}`));
  room.on('publication', () => seen.push('a publication'));
  room.on('end', ({ name }) => seen.push(`end ${name}`));
  return seen;
}

const held = (room: Subscription) => Object.fromEntries(room.values);

/** Subscribed to `s:a`, which holds x=1 and y=2. */
async function subscribed(options = {}) {
  const started = await opened(options);
  const { world, hub, session } = started;
  hub.set('s:a', 'x', '1');
  hub.set('s:a', 'y', '2');
  const room = session.subscribe('s:a');
  const seen = watch(room);
  await world.pass(500);
  const first = seen.splice(0);
  const { number } = hub.channel('s:a');
  /** The server says it in a message. */
  const say = (message: Partial<ChannelMessage>) =>
    started.server.session.sayChannel({ number, ...message } as ChannelMessage);
  return { ...started, room, seen, first, number, say };
}

describe('a channel of state', () => {
  it('says what it holds, and then what changes', async () => {
    const { world, hub, room, seen, first } = await subscribed();
    expect(first).toEqual(['subscribed null 2', '1 x=1', '2 y=2', 'settled 2']);
    expect([room.kind, held(room), room.position]).toEqual([
      'state',
      { x: '1', y: '2' },
      { epoch: 7, offset: 2 },
    ]);
    hub.set('s:a', 'x', '3');
    hub.set('s:a', 'y', undefined);
    hub.set('s:a', '', 'the empty key');
    await world.pass(1_000); // what is said again says nothing new
    expect(seen).toEqual(['3 x=3', '4 -y', '5 =the empty key']);
    expect([held(room), room.position?.offset]).toEqual([{ x: '3', '': 'the empty key' }, 5]);
  });

  it('has no kind before the server has said it; a log has no values', async () => {
    const { world, session } = await opened();
    const [log, state] = [session.subscribe('a'), session.subscribe('s:empty')];
    const seen = watch(state);
    expect([log.kind, state.kind]).toEqual([null, null]);
    await world.pass(100);
    expect([log.kind, state.kind, log.values.size]).toEqual(['log', 'state', 0]);
    expect(seen).toEqual(['subscribed null 0', 'settled 0']);
  });

  it('takes datagrams in any order, and ignores what is older than what it holds, removals included', async () => {
    const { world, server, hub, room, seen } = await subscribed();
    hub.repeats = false;
    const delays = [90, 0, 60, 30, 0];
    server.wanders = () => delays.shift() ?? 0;
    hub.set('s:a', 'x', 'late');
    hub.set('s:a', 'x', 'newest');
    hub.set('s:a', 'y', 'late, too');
    hub.set('s:a', 'y', 'less late');
    hub.set('s:a', 'y', undefined);
    await world.pass(300);
    expect(seen).toEqual(['4 x=newest', '7 -y']);
    expect(held(room)).toEqual({ x: 'newest' });
  });

  it('gets a value that was lost when it is said again', async () => {
    const { world, server, hub, seen } = await subscribed();
    server.wanders = () => null;
    hub.set('s:a', 'x', 'lost');
    hub.set('s:a', 'y', undefined);
    await world.pass(100);
    expect(seen).toEqual([]);
    await world.pass(200);
    expect(seen).toEqual(['3 x=lost', '4 -y']);
  });

  it('is whatever it was until the snapshot has settled: what nobody names does not exist any more', async () => {
    const { world, room, seen, say } = await subscribed();
    say({ op: SNAPSHOT });
    say({ op: VALUE, offset: 1, key: 'x', data: '1' });
    say({ op: VALUE, offset: 5, key: 'z', data: '5' });
    await world.pass(100);
    expect([seen.splice(0), held(room)]).toEqual([['5 z=5'], { x: '1', y: '2', z: '5' }]);
    say({ op: SETTLED, offset: 9 });
    await world.pass(100);
    expect([seen, held(room)]).toEqual([['9 -y', 'settled 9'], { x: '1', z: '5' }]);
    expect(room.position).toEqual({ epoch: 7, offset: 9 });
  });

  it('keeps what is newer than the snapshot, though that does not name it, or names what was before', async () => {
    const { world, server, room, seen, number, say } = await subscribed();
    const state = (offset: number, key: string, data: string | undefined) =>
      server.session.sayState({ number, offset, key, data });
    state(4, 'x', 'newer');
    state(6, 'new', 'newer than the snapshot');
    state(7, 'y', undefined);
    await world.pass(5);
    say({ op: SNAPSHOT });
    say({ op: VALUE, offset: 1, key: 'x', data: '1' });
    say({ op: VALUE, offset: 2, key: 'y', data: '2' });
    say({ op: SETTLED, offset: 5 });
    await world.pass(100);
    expect(seen).toEqual(['4 x=newer', '6 new=newer than the snapshot', '7 -y', 'settled 5']);
    expect(held(room)).toEqual({ x: 'newer', new: 'newer than the snapshot' });
    // What was under way for long does not bring anything back.
    state(2, 'y', '2');
    await world.pass(100);
    expect(held(room)).toEqual({ x: 'newer', new: 'newer than the snapshot' });
  });

  it('what has settled away does not come back with a late datagram', async () => {
    const { world, server, room, number, say } = await subscribed();
    say({ op: SNAPSHOT });
    say({ op: SETTLED, offset: 3 });
    server.session.sayState({ number, offset: 2, key: 'y', data: '2' });
    await world.pass(100);
    expect(held(room)).toEqual({});
    server.session.sayState({ number, offset: 4, key: 'y', data: 'again' });
    await world.pass(100);
    expect(held(room)).toEqual({ y: 'again' });
  });

  it('ignores datagrams that overtake SUBSCRIBED, cross UNSUBSCRIBE, or are of a log', async () => {
    const { world, server, hub, session } = await opened();
    hub.channel('a');
    const [log, state] = [hub.channel('a').number, hub.channel('s:a').number];
    const room = session.subscribe('s:a');
    session.subscribe('a');
    server.session.sayState({ number: state, offset: 1, key: 'x', data: 'too early' });
    await world.pass(5);
    const seen = watch(room);
    await world.pass(100);
    expect(seen).toEqual(['subscribed null 0', 'settled 0']);
    server.session.sayState({ number: state, offset: 1, key: 'x', data: '1' });
    server.session.sayState({ number: log, offset: 1, key: 'x', data: '1' });
    server.session.sayState({ number: 999, offset: 1, key: 'x', data: '1' });
    const done = room.unsubscribe();
    await world.pass(100);
    server.session.sayState({ number: state, offset: 2, key: 'x', data: 'too late' });
    await world.pass(100);
    expect([await outcome(done), seen.length, session.state]).toEqual([undefined, 2, 'open']);
  });

  it('hands on nothing more once a listener has ended it', async () => {
    const { world, room, seen, say } = await subscribed();
    room.on('value', () => void room.unsubscribe());
    say({ op: SNAPSHOT });
    say({ op: SETTLED, offset: 9 });
    await world.pass(100);
    expect(seen).toEqual(['9 -x']);
  });

  const wrong: [string, string, Partial<ChannelMessage>][] = [
    ['a publication', 's:a', { op: PUBLICATION, offset: 3, data: '' }],
    ['something skipped', 's:a', { op: SKIPPED, offset: 3 }],
    ['a value of a log', 'a', { op: VALUE, offset: 3, key: '', data: '' }],
    ['a snapshot of a log', 'a', { op: SNAPSHOT }],
    ['a log that settles', 'a', { op: SETTLED, offset: 3 }],
    ['a value of nothing', 'nowhere', { op: VALUE, offset: 3, key: '', data: '' }],
  ];
  it.each(wrong)('must not have %s', async (_, channel, message) => {
    const { world, server, hub, session } = await subscribed();
    session.subscribe('a');
    await world.pass(100);
    server.session.sayChannel({ number: hub.channel(channel).number, ...message } as ChannelMessage);
    await world.pass(100);
    expect(await session.closed).toMatchObject({ name: 'PROTOCOL_VIOLATION' });
  });
});

describe('a new session in the place of an old one', () => {
  it('shows what was held until it has settled, and tells only what is different', async () => {
    const { hub, room, seen, restart, server } = await subscribed();
    await restart(() => {
      hub.set('s:a', 'y', undefined);
      hub.set('s:a', 'z', '4');
      expect(held(room)).toEqual({ x: '1', y: '2' });
    });
    expect(seen).toEqual(['subscribed null 4', '1 x=1', '4 z=4', '4 -y', 'settled 4']);
    expect(held(room)).toEqual({ x: '1', z: '4' });
    expect(server.hub.asked.at(-1)?.since).toBeUndefined();
  });

  it('begins anew with an epoch whose offsets are lower', async () => {
    const { world, hub, room, restart } = await subscribed();
    await restart(() => {
      hub.forget('s:a');
      hub.set('s:a', 'y', 'new');
    });
    expect([held(room), room.position]).toEqual([{ y: 'new' }, { epoch: 8, offset: 1 }]);
    hub.set('s:a', 'y', 'newer');
    await world.pass(100);
    expect(held(room)).toEqual({ y: 'newer' });
  });
});

describe('publish with a key', () => {
  it('sets a value, or removes it, and resolves with its position', async () => {
    const { world, session, room, seen } = await subscribed();
    const changes = [
      session.publish('s:a', 'text', { key: 'x' }),
      session.publish('s:a', Uint8Array.of(1, 2), { key: '' }),
      session.publish('s:a', null, { key: 'y' }),
      session.publish('s:a', null, { key: 'never there' }),
    ];
    await world.pass(500);
    expect(await Promise.all(changes)).toEqual([3, 4, 5, 6].map((offset) => ({ epoch: 7, offset })));
    expect(seen).toEqual(['3 x=text', '4 =1,2', '5 -y']);
    expect(room.values.get('')).toEqual(Uint8Array.of(1, 2));
  });

  it('is refused where there are no keys, and so is one without where there are', async () => {
    const { world, session } = await opened();
    const wrong = [session.publish('a', '', { key: 'x' }), session.publish('s:a', '')];
    const codes = Promise.all(wrong.map(outcome));
    await world.pass(100);
    expect(await codes).toEqual(['pending', 'pending']);
    expect(await Promise.all(wrong.map(outcome))).toEqual(['WRONG_KIND', 'WRONG_KIND']);
  });

  it('takes keys of up to 255 bytes, and `null` with a key only', async () => {
    const { world, session } = await opened();
    const longest = session.publish('s:a', '', { key: `${'é'.repeat(127)}x` });
    expect(await outcome(session.publish('s:a', '', { key: 'é'.repeat(128) }))).toBe('TOO_LARGE');
    await expect(session.publish('s:a', null)).rejects.toThrow(/takes a string or bytes/);
    await world.pass(100);
    expect(await outcome(longest)).toEqual({ epoch: 7, offset: 1 });
  });
});

it('remembers 10,000 removals, and forgets the oldest', () => {
  const values = new Values();
  for (let key = 0; key <= 10_000; key++) {
    values.take({ number: 1, key: `${key}`, offset: key + 1, data: undefined });
  }
  const late = (key: number) => values.take({ number: 1, key: `${key}`, offset: key + 1, data: 'late' });
  expect([late(1), late(10_000), late(0)]).toEqual([undefined, undefined, expect.anything()]);
});

it('whatever is lost, late or in between: it ends as the server has it, and never goes back', async () => {
  for (let seed = 1; seed <= 30; seed++) {
    let state = seed;
    const random = (below: number) => {
      state = (state * 48_271) % 2_147_483_647;
      return state % below;
    };
    const { world, server, hub, session, restart } = await opened();
    server.wanders = () => (random(3) === 0 ? null : random(2) * random(150));
    const room = session.subscribe('s:a', {});
    let newest = new Map<string, number>();
    room.on('subscribed', () => {
      newest = new Map();
    });
    const mine = new Map<string, unknown>();
    room.on('value', ({ key, data, offset }) => {
      expect(offset).toBeGreaterThan(newest.get(key) ?? 0);
      newest.set(key, offset);
      mine.set(key, data);
    });
    for (let step = 0; step < 150; step++) {
      const key = `key ${random(5)}`;
      switch (random(12)) {
        case 0:
          session.cut();
          break;
        case 1:
          if (random(4) === 0 && server.sessions.size > 0) {
            await restart(() => void hub.set('s:a', key, 'while away'));
          }
          break;
        case 2:
          if (server.sessions.size > 0 && hub.channel('s:a').subscribers.has(server.session)) {
            hub.snapshot('s:a', server.session);
          }
          break;
        case 3:
        case 4:
          hub.set('s:a', key, undefined);
          break;
        case 5:
        case 6:
          await world.pass(random(120));
          break;
        default:
          hub.set('s:a', key, `${step}`);
      }
    }
    server.wanders = () => 0;
    await world.pass(10_000);
    const there = [...hub.channel('s:a').values].map(([key, { data }]) => [key, data]).sort();
    expect([...room.values].sort()).toEqual(there);
    expect([...mine].filter(([, data]) => data !== undefined).sort()).toEqual(there);
    expect([session.state, room.state]).toEqual(['open', 'subscribed']);
  }
});

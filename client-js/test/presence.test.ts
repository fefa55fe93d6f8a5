// Who is subscribed to a channel.

import { expect, it } from 'vitest';
import type { Presence } from '../src/presence.js';
import { opened, outcome } from './channel-world.js';

function watch(presence: Presence): string[] {
  const seen: string[] = [];
  for (const name of ['join', 'update', 'leave'] as const) {
    presence.on(name, ({ id, about }) => {
      expect(presence.members.has(id)).toBe(name !== 'leave');
      seen.push(`${name} ${id} ${about}`);
    });
  }
  presence.on('settled', () => seen.push(`settled ${presence.members.size}`));
  presence.on('end', ({ name }) => seen.push(`end ${name}`));
  return seen;
}

async function present() {
  const started = await opened();
  const room = started.session.subscribe('a', { about: 'me' });
  await started.world.pass(100);
  const presence = started.session.presence('a');
  const seen = watch(presence);
  await started.world.pass(500);
  return { ...started, room, presence, seen };
}

it('has those who were there, who comes, and who leaves', async () => {
  const { presence } = await present();
  expect([presence.channel, presence.state, await outcome(presence.ready)]).toEqual([
    'a',
    'subscribed',
    undefined,
  ]);
  expect([...presence.members]).toEqual([
    ['member-1', { id: 'member-1', user: 'somebody', info: { age: 7 }, about: 'me' }],
  ]);
});

it('says each change once', async () => {
  const { world, hub, room, presence, seen } = await present();
  hub.set('$presence:a', 'other', '{"user":null,"info":null,"about":null}');
  await world.pass(500);
  hub.set('$presence:a', 'other', '{"user":"u","info":null,"about":"there"}');
  void room.unsubscribe();
  await world.pass(500);
  expect(seen).toEqual([
    'join member-1 me',
    'settled 1',
    'join other null',
    'update other there',
    'leave member-1 me',
  ]);
  expect([...presence.members.values()]).toEqual([{ id: 'other', user: 'u', info: null, about: 'there' }]);
});

it('takes whatever is no JSON, or no object, for a member of whom nothing is known', async () => {
  const { world, hub, presence } = await present();
  for (const [id, data] of Object.entries({ a: '', b: '{', c: 'null', d: '7', e: '{"about":"x"}' })) {
    hub.set('$presence:a', id, data);
  }
  await world.pass(500);
  const nobody = { user: null, info: null, about: null };
  for (const id of ['a', 'b', 'c', 'd']) {
    expect(presence.members.get(id)).toEqual({ id, ...nobody });
  }
  expect(presence.members.get('e')).toEqual({ id: 'e', ...nobody, about: 'x' });
});

it('goes on in the next session: who came and left meanwhile is told', async () => {
  const { hub, presence, seen, restart, server } = await present();
  hub.set('$presence:a', 'stays', '{}');
  await restart(() => hub.set('$presence:a', 'came', '{}'));
  // The subscription of the session before has left, and that of the new one is another member.
  expect([...presence.members.keys()]).toEqual(['stays', 'came', 'member-2']);
  expect(seen.slice(2)).toEqual([
    'join stays null',
    'join came null',
    'join member-2 me',
    'leave member-1 me',
    'settled 3',
  ]);
  expect(server.hub.asked.map(({ channel, about }) => [channel, about])).toEqual([
    ['a', 'me'],
    ['$presence:a', undefined],
    ['a', 'me'],
    ['$presence:a', undefined],
  ]);
});

it('ends, and is refused, as a subscription is', async () => {
  const { world, hub, session, presence, seen } = await present();
  expect(() => session.presence('a')).toThrow(/has a subscription already/);
  expect(() => session.presence('x'.repeat(246))).toThrow(/1 to 255 bytes/);
  void presence.unsubscribe();
  hub.set('$presence:a', 'later', '{}');
  hub.refusals.set('$presence:b', 1);
  const refused = session.presence('b');
  const end = watch(refused);
  await world.pass(500);
  expect([presence.state, seen.length]).toEqual(['ended', 2]);
  expect([refused.state, await outcome(refused.ready), end]).toEqual([
    'ended',
    'NOT_ALLOWED',
    ['end NOT_ALLOWED'],
  ]);
  await session.close();
  expect(() => session.presence('c')).toThrow(/presence: the session is closed/);
});

it('an about has at most 512 bytes', async () => {
  const { world, session } = await opened();
  expect(() => session.subscribe('a', { about: 'é'.repeat(257) })).toThrow(/at most 512 bytes/);
  const longest = session.subscribe('a', { about: 'é'.repeat(256) });
  await world.pass(100);
  expect(longest.state).toBe('subscribed');
});

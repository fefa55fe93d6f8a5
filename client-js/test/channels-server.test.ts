// What a server does with subscriptions by itself, and what it must not say.

import { describe, expect, it } from 'vitest';
import {
  type ChannelMessage,
  DONE,
  FAILED,
  PUBLICATION,
  SKIPPED,
  SUBSCRIBED,
  UNSUBSCRIBED,
} from '../src/protocol/channels.js';
import { later, subscribed, watch } from './channel-world.js';

describe('the server', () => {
  it('ends a subscription, which can begin again where it was', async () => {
    const { world, server, hub, session, room, seen } = await subscribed();
    hub.publish('a', 'one');
    const { number, subscribers } = hub.channel('a');
    subscribers.clear();
    server.session.sayChannel({ op: UNSUBSCRIBED, number, code: 8, reason: 'slow' });
    hub.publish('a', 'two');
    await world.pass(100);
    expect([seen, room.state]).toEqual([['1 one', 'end 8 TOO_SLOW slow'], 'ended']);
    const news = watch(session.subscribe('a', { since: room.position }));
    await world.pass(100);
    expect(news).toEqual(['subscribed true 7.1', '2 two']);
  });

  it('skips what a slow client has lost', async () => {
    const { world, server, hub, room, seen } = await subscribed();
    const { number } = hub.channel('a');
    server.session.sayChannel({ op: SKIPPED, number, offset: 1 });
    server.session.sayChannel({ op: PUBLICATION, number, offset: 2, data: 'two' });
    server.session.sayChannel({ op: SKIPPED, number, offset: 100 });
    await world.pass(100);
    expect(seen).toEqual(['skipped 1', '2 two', 'skipped 100']);
    expect(room.position).toEqual({ epoch: 7, offset: 100 });
  });

  const number = 100; // the hub's first
  const position = { epoch: 7, offset: 0 };
  const said: [string, ...ChannelMessage[]][] = [
    ['a hole', { op: PUBLICATION, number, offset: 2, data: '' }],
    ['a repeat', ...[1, 1].map((offset) => ({ op: PUBLICATION, number, offset, data: '' }) as const)],
    ['a place before the first', { op: PUBLICATION, number, offset: 0, data: '' }],
    ['skipping nothing', { op: SKIPPED, number, offset: 0 }],
    ['a number that stands for nothing', { op: PUBLICATION, number: 99, offset: 1, data: '' }],
    [
      'a publication after the end',
      { op: UNSUBSCRIBED, number, code: 0, reason: '' },
      { op: PUBLICATION, number, offset: 1, data: '' },
    ],
    ['an answer to nothing', { op: DONE, request: 3, position }],
    ['a refusal of nothing', { op: FAILED, request: 1, code: 1, reason: '' }],
    ['a second answer', { op: SUBSCRIBED, request: 1, number, recovered: false, state: false, position }],
    [
      'a subscription for a publication',
      { op: SUBSCRIBED, request: 2, number, recovered: false, state: false, position },
    ],
    [
      'recovered, unasked',
      { op: SUBSCRIBED, request: 3, number: 101, recovered: true, state: false, position },
    ],
    [
      'recovered from elsewhere',
      { op: SUBSCRIBED, request: 4, number: 101, recovered: true, state: false, position },
    ],
    [
      'recovered in another epoch',
      {
        op: SUBSCRIBED,
        request: 4,
        number: 101,
        recovered: true,
        state: false,
        position: { epoch: 8, offset: 5 },
      },
    ],
    ['done for a subscription', { op: DONE, request: 4, position }],
  ];
  it.each(said)('breaks the protocol with %s', async (why, ...messages) => {
    const { world, server, hub, session } = await subscribed();
    hub.answers = false;
    void later(session.publish('b', 'unanswered'));
    if (why !== 'an answer to nothing') {
      session.subscribe('c');
      session.subscribe('d', { since: { epoch: 7, offset: 5 } });
    }
    await world.pass(100);
    for (const message of messages) {
      server.session.sayChannel(message);
    }
    await world.pass(100);
    expect(await session.closed).toMatchObject({ name: 'PROTOCOL_VIOLATION' });
  });
});

// Subscriptions and publications, against a server in simulated time whose histories outlive its sessions.

import { describe, expect, it } from 'vitest';
import type { Subscription } from '../src/channels.js';
import {
  type ChannelMessage,
  DONE,
  FAILED,
  type Position,
  PUBLICATION,
  PUBLISH,
  SKIPPED,
  SUBSCRIBE,
  SUBSCRIBED,
  UNSUBSCRIBE,
  UNSUBSCRIBED,
} from '../src/protocol/channels.js';
import { GOAWAY, writeFields } from '../src/protocol/frames.js';
import { Writer } from '../src/protocol/varint.js';
import { Server, type ServerLink } from './server.js';
import { settle, World } from './world.js';

function start(options = {}) {
  const world = new World();
  const server = new Server(world);
  const session = server.connect({ transports: ['websocket'], ...options });
  const { hub } = server;
  const restart = async (whileAway = () => {}) => {
    server.session.forget();
    session.cut();
    whileAway();
    await world.pass(1_000);
  };
  return { world, server, hub, session, restart };
}

async function opened(options = {}) {
  const started = start(options);
  await started.world.pass(1_000);
  return started;
}

/** What its listeners get, in order. */
function watch(room: Subscription): unknown[] {
  const seen: unknown[] = [];
  room.on('subscribed', ({ recovered, epoch, offset }) =>
    seen.push(`subscribed ${recovered} ${epoch}.${offset}`),
  );
  room.on('publication', ({ data, offset }) => seen.push(`${offset} ${data}`));
  room.on('skipped', ({ offset }) => seen.push(`skipped ${offset}`));
  room.on('end', ({ code, name, reason }) => seen.push(`end ${code} ${name} ${reason}`));
  return seen;
}

/** Subscribed to `a`. */
async function subscribed(options = {}) {
  const started = await opened(options);
  const room = started.session.subscribe('a');
  const seen = watch(room);
  await started.world.pass(100);
  seen.length = 0;
  return { ...started, room, seen };
}

/** `SUBSCRIBE a` and so on, as they came. */
function asked(server: Server): string[] {
  const names = { [SUBSCRIBE]: 'SUBSCRIBE', [UNSUBSCRIBE]: 'UNSUBSCRIBE', [PUBLISH]: 'PUBLISH' };
  return server.hub.asked.map(({ op, request, channel, since, data }) =>
    [request, names[op], channel, since && `${since.epoch}.${since.offset}`, data]
      .filter((part) => part !== undefined)
      .join(' '),
  );
}

/** Somebody looks at it later. */
function later<Value>(promise: Promise<Value>): Promise<Value> {
  promise.catch(() => {});
  return promise;
}

/** How a promise has been settled so far. */
async function outcome(promise: Promise<unknown>): Promise<unknown> {
  let found: unknown = 'pending';
  promise.then(
    (value) => {
      found = value;
    },
    ({ code }) => {
      found = code;
    },
  );
  await settle();
  return found;
}

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
    server.session.sayChannel({ op: SUBSCRIBED, request: 3, number, recovered: false, position });
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
    ['a second answer', { op: SUBSCRIBED, request: 1, number, recovered: false, position }],
    ['a subscription for a publication', { op: SUBSCRIBED, request: 2, number, recovered: false, position }],
    ['recovered, unasked', { op: SUBSCRIBED, request: 3, number: 101, recovered: true, position }],
    ['recovered from elsewhere', { op: SUBSCRIBED, request: 4, number: 101, recovered: true, position }],
    [
      'recovered in another epoch',
      {
        op: SUBSCRIBED,
        request: 4,
        number: 101,
        recovered: true,
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

describe('publish', () => {
  it('resolves with the position, in whatever order the answers come', async () => {
    const { world, server, hub, session } = await opened();
    hub.answers = false;
    const first = later(session.publish('a', 'one'));
    const second = session.publish('a', 'two');
    await world.pass(100);
    server.session.sayChannel({ op: DONE, request: 2, position: { epoch: 7, offset: 2 } });
    await world.pass(100);
    expect([await outcome(first), await outcome(second)]).toEqual(['pending', { epoch: 7, offset: 2 }]);
    server.session.sayChannel({ op: FAILED, request: 1, code: 4, reason: 'at most 3 bytes' });
    await world.pass(100);
    await expect(first).rejects.toThrow("publish 'a': at most 3 bytes");
    await expect(first).rejects.toMatchObject({ code: 'TOO_LARGE', name: 'ThroughlineError' });
  });

  it('rejects what `send` would throw at', async () => {
    const { world, server, session } = await opened({ maxBufferedBytes: 100 });
    await expect(session.publish('a', 7 as never)).rejects.toThrow('publish takes a string or bytes');
    expect(await outcome(session.publish('a', new Uint8Array(4_194_305)))).toBe('MESSAGE_TOO_LARGE');
    const large = session.publish('a', 'x'.repeat(200)); // one may go beyond it
    expect(session.bufferedBytes).toBeGreaterThan(200);
    await expect(session.publish('a', '')).rejects.toThrow(/of 100 bytes wait already: await drained/);
    expect(() => session.send('')).toThrow(/wait already/);
    await world.pass(100);
    expect(session.bufferedBytes).toBe(0);
    void session.publish('a', 'y');
    await world.pass(100);
    expect(await outcome(large)).toEqual({ epoch: 7, offset: 1 });
    expect(server.hub.channel('a').newest).toBe(2);
  });

  it('as long as a message may be', async () => {
    const { world, session } = await opened();
    const whole = session.publish('é'.repeat(127), new Uint8Array(4_194_304));
    await world.pass(5_000);
    expect(await outcome(whole)).toEqual({ epoch: 7, offset: 1 });
  });
});

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

it('whatever happens, each publication is handed on once and in order, or said to be lost', async () => {
  for (let seed = 1; seed <= 40; seed++) {
    let state = seed;
    const random = (below: number) => {
      state = (state * 48_271) % 2_147_483_647;
      return state % below;
    };
    const { world, server, hub, session, restart } = await opened();
    hub.historyCount = 1 + random(20);
    const names = ['a', 'b', 'c'];
    const rooms = names.map((name) => ({ name, next: 0, room: undefined as Subscription | undefined }));
    let unanswered = 0;
    for (let step = 0; step < 150; step++) {
      const one = rooms[random(3)] as (typeof rooms)[number];
      switch (random(12)) {
        case 0:
          session.cut();
          break;
        case 1:
          if (random(4) === 0 && server.sessions.size > 0) {
            await restart(() => void (random(2) && hub.publish(one.name, 'while away')));
          }
          break;
        case 2:
        case 3:
          if (one.room) {
            void one.room.unsubscribe();
            one.room = undefined;
          } else {
            const room = session.subscribe(one.name);
            one.room = room;
            room.on('subscribed', ({ offset, recovered }) => {
              expect(offset).toBeGreaterThanOrEqual(recovered ? one.next - 1 : 0);
              expect(recovered && offset !== one.next - 1).toBeFalsy();
              one.next = offset + 1;
            });
            room.on('publication', ({ data, offset }) => {
              expect([one.room === room, offset]).toEqual([true, one.next++]);
              expect(String(data)).toMatch(/^while away$|^\d+$/);
            });
          }
          break;
        case 4:
          unanswered++;
          session.publish(one.name, String(step)).then(
            () => unanswered--,
            ({ code }) => {
              expect(code).toBe('UNCERTAIN');
              unanswered--;
            },
          );
          break;
        case 5:
          await world.pass(random(40));
          break;
        default:
          hub.publish(one.name, String(step));
      }
    }
    await world.pass(10_000);
    expect([session.state, unanswered]).toEqual(['open', 0]);
    for (const { name, next, room } of rooms) {
      if (room) {
        expect([room.state, next]).toEqual(['subscribed', hub.channel(name).newest + 1]);
      }
      expect(hub.channel(name).subscribers.has(server.session)).toBe(room !== undefined);
    }
  }
});

// Tokens that end, and those that take their place.

import { expect, it } from 'vitest';
import { Credentials } from '../src/credentials.js';
import { start } from './channel-world.js';
import { World } from './world.js';

/** A session whose credentials are good for `expiresMs`; the tokens are `token 1`, `token 2` and so on. */
async function authenticated(expiresMs: number, options = {}) {
  const asked: number[] = [];
  let fails: Error | undefined;
  let number = 0;
  let now = () => 0; // it is asked for the first time before there is a world
  const started = start({
    token: async () => {
      asked.push(now());
      if (fails) {
        throw fails;
      }
      return `token-${++number}`;
    },
    ...options,
  });
  const { world, server } = started;
  server.welcome = { expiresMs };
  now = world.now;
  const openedAt = now() + 30; // after three times its latency
  await world.pass(1_000);
  asked.length = 0;
  return {
    ...started,
    /** When tokens were asked for, in milliseconds since the session was opened. */
    asked: () => asked.map((at) => Math.round(at - openedAt)),
    fail: (error: Error | undefined) => {
      fails = error;
    },
  };
}

it('a token function is asked again when a quarter of the time is left, or a minute', async () => {
  for (const [expiresMs, afterMs] of [
    [40_000, 30_000],
    [240_000, 180_000],
    [600_000, 540_000],
  ] as const) {
    const { world, server, asked } = await authenticated(expiresMs);
    await world.pass(afterMs - 1_000);
    expect(server.session.tokens).toEqual([]);
    await world.pass(1_000);
    expect([server.session.tokens, asked().map((at) => Math.abs(at - afterMs) < 50)]).toEqual([
      ['token-2'],
      [true],
    ]);
  }
});

it('the end may be further away than a timer of a browser can wait', async () => {
  const world = new World();
  const days = 86_400_000;
  const asked: number[] = [];
  const begun = world.now();
  const ask = () => {
    asked.push(world.now() - begun);
    return 'token';
  };
  const timers: number[] = [];
  const { timer } = world;
  const env = Object.assign(world, {
    timer: (ms: number, callback: () => void) => {
      timers.push(ms);
      return timer(ms, callback);
    },
  });
  const presented: string[] = [];
  new Credentials(env, ask, (token) => presented.push(token)).expire(60 * days);
  await world.pass(61 * days);
  expect([asked, presented]).toEqual([[60 * days - 60_000], ['token']]);
  expect(Math.max(...timers)).toBeLessThan(2 ** 31);
});

it('a timer that comes a moment before its time asks all the same', async () => {
  const world = new World();
  const { timer } = world;
  const early = (ms: number, callback: () => void) => timer(Math.max(0, ms - 0.4), callback);
  const asked: number[] = [];
  const token = () => {
    asked.push(world.now());
    return 'token';
  };
  const credentials = new Credentials(Object.assign(world, { timer: early }), token, () => {});
  credentials.expire(8_000.7);
  await world.pass(7_000);
  expect(asked.length).toBe(1);
});

it('a hidden tab, whose timers come late, asks when something arrives', async () => {
  const world = new World();
  const env = Object.assign(world, { timer: () => () => {} });
  const presented: string[] = [];
  const credentials = new Credentials(
    env,
    () => 'token',
    (token) => presented.push(token),
  );
  credentials.look(); // there is nothing to look for
  credentials.expire(40_000);
  await world.pass(29_999);
  credentials.look();
  await world.pass(1);
  expect(presented).toEqual([]);
  credentials.look();
  credentials.look();
  await world.pass(0);
  expect(presented).toEqual(['token']);
});

it('a session looks whenever something arrives', async () => {
  const { world, server } = await authenticated(0);
  const { timer } = world;
  const never = () => {};
  Object.assign(world, {
    timer: (ms: number, callback: () => void) => (ms > 25_000 ? never : timer(ms, callback)),
  });
  server.session.sayExpires(40_000);
  await world.pass(29_000);
  expect(server.session.tokens).toEqual([]);
  await world.pass(1_000);
  server.session.send('something');
  await world.pass(100);
  expect(server.session.tokens).toEqual(['token-2']);
});

it('goes on so with what EXPIRES says, and never stops the session', async () => {
  const { world, server, session } = await authenticated(40_000);
  server.presented = (one) => one.sayExpires(20_000);
  await world.pass(100_000);
  // After 30 s, and then every 15 s.
  expect(server.session.tokens).toEqual([2, 3, 4, 5, 6].map((number) => `token-${number}`));
  expect([session.state, session.stats().links]).toEqual(['open', 1]);
  server.presented = (one) => one.sayExpires(0);
  await world.pass(600_000);
  expect(server.session.tokens).toHaveLength(6);
});

it('asks for nothing when there is no end, or a string is used as it is', async () => {
  const forever = await authenticated(0);
  await forever.world.pass(86_400_000);
  expect([forever.asked(), forever.server.session.tokens]).toEqual([[], []]);
  expect(forever.session.explain().text).not.toContain('token');
  const fixed = await authenticated(40_000, { token: 'fixed' });
  await fixed.world.pass(60_000);
  expect(fixed.server.session.tokens).toEqual([]);
});

it('asks again, at growing intervals, while there is time', async () => {
  const { world, server, session, asked, fail } = await authenticated(40_000);
  fail(new Error('not now'));
  await world.pass(33_000);
  expect(asked().length).toBeGreaterThan(2);
  expect(session.explain().text).toMatch(
    /The server takes its token for another 6 s; a new one could not be had \(not now\)\./,
  );
  fail(undefined);
  await world.pass(6_000);
  expect(server.session.tokens).toEqual(['token-2']);
  // One more time, and for so long that there is no time left.
  server.session.sayExpires(40_000);
  await world.pass(0);
  fail(new Error('never'));
  await world.pass(60_000);
  const { length } = asked();
  await world.pass(600_000);
  expect(asked()).toHaveLength(length);
  expect(session.state).toBe('open'); // to end it is the server's to do
});

it('a token that cannot travel is a failure of the function', async () => {
  const { world, server, session } = await authenticated(40_000, {
    token: (() => {
      let count = 0;
      return () => (++count === 1 ? 'good' : 'bad\n');
    })(),
  });
  await world.pass(35_000);
  expect(server.session.tokens).toEqual([]);
  expect(session.explain().text).toContain('printable ASCII');
});

it('explains how long there is', async () => {
  const { world, session } = await authenticated(40_000);
  await world.pass(9_000);
  expect(session.explain().text).toContain(
    'The server takes its token for another 30 s; a new one is asked for in 20 s.',
  );
});

it('however short tokens live, one a second is enough', async () => {
  const { world, server, asked } = await authenticated(40_000);
  server.presented = (one) => one.sayExpires(10);
  await world.pass(29_000);
  await world.pass(10_000);
  expect(asked().length).toBeGreaterThan(5);
  expect(asked().length).toBeLessThan(12);
});

it('another link: what WELCOME says there counts, and its opening has carried the newest', async () => {
  const { world, server, session, asked } = await authenticated(40_000);
  await world.pass(20_000);
  session.cut();
  await world.pass(1_000);
  expect([asked().length, session.stats().links]).toEqual([1, 2]);
  await world.pass(20_000); // the old time has passed
  expect(server.session.tokens).toEqual([]);
  await world.pass(9_500);
  expect(server.session.tokens).toEqual(['token-3']);
});

it('an opening that carried an older token than the session has: the newer one is sent again', async () => {
  const { world, server, session } = await authenticated(40_000, { transports: ['websocket', 'sse'] });
  await world.pass(28_500);
  // A further link takes long to open: the token that it carries is older than the one that follows.
  for (const condition of Object.values(server.conditions)) {
    condition.latencyMs = 800;
  }
  session.cut();
  await world.pass(2_000);
  expect(session.state).toBe('reconnecting');
  await world.pass(5_000);
  expect([server.session.current?.opening.token, server.session.tokens]).toEqual(['token-2', ['token-3']]);
});

it('nothing is asked for when the session has ended', async () => {
  const { world, session, asked } = await authenticated(40_000);
  await session.close();
  await world.pass(60_000);
  expect([asked(), world.pendingTimers]).toEqual([[], 0]);
});

// A session in simulated time with a server whose channels outlive its sessions, and what there is to see of it.

import { HISTORY, PUBLISH, SET, SUBSCRIBE, UNSUBSCRIBE } from '../src/protocol/channels.js';
import type { Subscription } from '../src/subscription.js';
import { Server } from './server.js';
import { settle, World } from './world.js';

export function start(options = {}) {
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

export async function opened(options = {}) {
  const started = start(options);
  await started.world.pass(1_000);
  return started;
}

/** What its listeners get, in order. */
export function watch(room: Subscription): unknown[] {
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
export async function subscribed(options = {}) {
  const started = await opened(options);
  const room = started.session.subscribe('a');
  const seen = watch(room);
  await started.world.pass(100);
  seen.length = 0;
  return { ...started, room, seen };
}

/** `SUBSCRIBE a` and so on, as they came. */
export function asked(server: Server): string[] {
  const names = {
    [SUBSCRIBE]: 'SUBSCRIBE',
    [UNSUBSCRIBE]: 'UNSUBSCRIBE',
    [PUBLISH]: 'PUBLISH',
    [SET]: 'SET',
    [HISTORY]: 'HISTORY',
  };
  return server.hub.asked.map(({ op, request, channel, since, about, key, data }) =>
    [request, names[op], channel, since && `${since.epoch}.${since.offset}`, about, key, data]
      .filter((part) => part !== undefined)
      .join(' '),
  );
}

/** Somebody looks at it later. */
export function later<Value>(promise: Promise<Value>): Promise<Value> {
  promise.catch(() => {});
  return promise;
}

/** How a promise has been settled so far. */
export async function outcome(promise: Promise<unknown>): Promise<unknown> {
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

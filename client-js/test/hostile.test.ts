// Whatever a server says of channels and requests, in whatever order: the session goes on, or ends as the protocol says.

import { expect, it } from 'vitest';
import {
  ADDED,
  type ChannelMessage,
  DONE,
  FAILED,
  PAGE,
  PUBLICATION,
  SETTLED,
  SKIPPED,
  SNAPSHOT,
  SUBSCRIBED,
  UNSUBSCRIBED,
  VALUE,
} from '../src/protocol/channels.js';
import { ANSWER, ASK, CANCEL, CHUNK, ERROR, MORE, type RequestMessage } from '../src/protocol/requests.js';
import { opened } from './channel-world.js';

it('whatever a server says', async () => {
  let state = 11;
  const random = (below: number): number => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
  const some = <Item>(...items: Item[]): Item => items[random(items.length)] as Item;
  const ends = new Map<string, number>();
  for (let round = 0; round < 400; round++) {
    const { world, server, hub, session } = await opened();
    hub.answers = false;
    const unsettled = new Set<string>();
    const watched = (what: string, promise: Promise<unknown>) => {
      unsettled.add(what);
      const over = () => unsettled.delete(what);
      promise.then(over, over);
    };
    session.handle('m', async function* () {
      yield 'x'.repeat(random(70_000));
    });
    const act = (step: number) => {
      const channel = some('a', 's:a', 'b');
      try {
        switch (random(7)) {
          case 0:
            watched(`subscribe ${step}`, session.subscribe(channel).ready);
            break;
          case 1:
            watched(`publish ${step}`, session.publish(channel, '', some({}, { key: 'k' })));
            break;
          case 2:
            watched(`history ${step}`, session.history(channel));
            break;
          case 3:
            watched(`presence ${step}`, session.presence(channel).ready);
            break;
          case 4:
            watched(`request ${step}`, session.request('m', ''));
            break;
          case 5:
            session.request('m', '', { timeoutMs: random(200) }).catch(() => {});
        }
      } catch {
        // A second subscription, or the session has ended.
      }
    };
    const position = () => ({ epoch: 7, offset: random(4) });
    const about = () => ({ number: 100 + random(4), offset: random(5) });
    const say = (): ChannelMessage =>
      some<() => ChannelMessage>(
        () => ({
          op: SUBSCRIBED,
          request: 1 + random(6),
          number: 100 + random(4),
          recovered: random(9) === 0,
          state: random(2) === 0,
          position: position(),
        }),
        () => ({
          op: ADDED,
          channel: some('a', 's:a', 'z'),
          state: random(2) === 0,
          position: position(),
          ...about(),
        }),
        () => ({ op: DONE, request: 1 + random(6), position: position() }),
        () => ({ op: FAILED, request: 1 + random(6), code: random(14), reason: 'no' }),
        () => ({
          op: PAGE,
          request: 1 + random(6),
          complete: true,
          more: false,
          position: position(),
          publications: [],
        }),
        () => ({ op: PUBLICATION, data: '', ...about() }),
        () => ({ op: SKIPPED, ...about() }),
        () => ({ op: SNAPSHOT, ...about() }),
        () => ({ op: VALUE, key: some('x', 'y'), data: some(undefined, 'v'), ...about() }),
        () => ({ op: SETTLED, ...about() }),
        () => ({ op: UNSUBSCRIBED, number: 100 + random(4), code: random(14), reason: '' }),
      )();
    const ask = (step: number): RequestMessage => {
      const id = 1 + random(3);
      return some<RequestMessage>(
        { op: ASK, id: step + 1, method: some('m', 'n'), data: undefined },
        { op: CHUNK, id, data: 'part', size: 4 },
        { op: ANSWER, id, data: 'last' },
        { op: ERROR, id, code: random(200), reason: '' },
        { op: CANCEL, id },
        { op: MORE, id, limit: random(200_000) },
      );
    };
    const steps = random(16);
    for (let step = 0; step < steps && session.state === 'open' && server.sessions.size > 0; step++) {
      act(step);
      if (random(2)) {
        await world.pass(random(30));
      }
      if (random(3)) {
        server.session.sayRequest(ask(step));
      } else {
        server.session.sayChannel(say());
      }
      server.session.sayState({ key: 'x', data: some(undefined, 'v'), ...about() });
    }
    await world.pass(100);
    const { name } = await session.close();
    await world.pass(4_000);
    ends.set(name, (ends.get(name) ?? 0) + 1);
    expect([...unsettled], `round ${round}`).toEqual([]);
    expect(world.pendingTimers).toBe(0);
  }
  expect([...ends.keys()].sort()).toEqual(['NORMAL', 'PROTOCOL_VIOLATION']);
  expect(Math.min(...ends.values())).toBeGreaterThan(10);
});

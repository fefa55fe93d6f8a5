// Subscriptions and publications in any order, with links and sessions that are lost.

import { expect, it } from 'vitest';
import type { Subscription } from '../src/subscription.js';
import { opened } from './channel-world.js';

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

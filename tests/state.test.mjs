// Channels of state, presence and history in real browsers: subscribers over all transports, whose links are cut, end with what the server has.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { BROWSERS, launch } from './support/browser.mjs';
import { startTestbed } from './support/server.mjs';

const TRANSPORTS = ['webtransport', 'websocket', 'sse', 'poll'];

const CHANNELS = 'THROUGHLINE_CHANNELS__NAMESPACES__';
const NAMESPACES = {
  THROUGHLINE_CHANNELS__PUBLISHES_PER_SECOND: '1000',
  [`${CHANNELS}PLAYERS__KIND`]: 'state',
  [`${CHANNELS}PLAYERS__SUBSCRIBE`]: 'true',
  [`${CHANNELS}PLAYERS__PUBLISH`]: 'true',
  [`${CHANNELS}ROOM__SUBSCRIBE`]: 'true',
  [`${CHANNELS}ROOM__PUBLISH`]: 'true',
  [`${CHANNELS}ROOM__HISTORY`]: 'true',
  [`${CHANNELS}ROOM__PRESENCE`]: 'true',
};

describe('channels of state, presence, history', () => {
  let server;

  before(async () => {
    server = await startTestbed(NAMESPACES);
  });

  after(async () => {
    assert.equal(await server?.stop(), 0);
    assert.deepEqual(server.complaints, []);
  });

  for (const name of BROWSERS) {
    describe(name, () => {
      let browser;
      let page;

      before(async () => {
        browser = await launch(name);
        page = await browser.openTestbed(server.tcp);
      });

      after(() => browser?.close());

      test('values: whoever subscribes, and whose links are cut, ends with what the channel holds', async () => {
        const seen = await page.evaluate(async (transports, channel) => {
          const opened = await Promise.all(transports.map((transport) => kit.open(transport)));
          const sessions = opened.map(({ session }) => session);
          const [publisher] = sessions;
          const wrong = [];
          const join = async (session) => {
            const room = session.subscribe(channel);
            const newest = new Map();
            room.on('value', ({ key, offset }) => {
              if (offset <= (newest.get(key) ?? 0)) {
                wrong.push(`${key}: ${offset} after ${newest.get(key)}`);
              }
              newest.set(key, offset);
            });
            room.on('end', (end) => wrong.push(JSON.stringify(end)));
            await kit.within(10_000, new Promise((resolve) => room.on('settled', resolve)), 'settled');
            return room;
          };
          const early = await Promise.all(sessions.slice(0, 2).map(join));
          const changes = [];
          for (let step = 0; step < 400; step++) {
            const key = `key ${step % 7}`;
            const data = step % 11 === 10 ? null : step % 5 ? `${step} ` : `${step} ${'x'.repeat(1_200)}`;
            changes.push(publisher.publish(channel, data, { key }));
            step % 50 === 25 && sessions[Math.floor(step / 50) % sessions.length].trouble.cut();
            await new Promise((resolve) => setTimeout(resolve, 5));
          }
          const late = await Promise.all(sessions.slice(2).map(join));
          await kit.within(20_000, Promise.all(changes), 'the changes');
          await publisher.publish(channel, 'the last', { key: 'last' });
          const rooms = [...early, ...late];
          const state = (room) => JSON.stringify([...room.values].sort());
          await kit.until(() => rooms.every((room) => room.values.has('last')), 10_000, 'the last');
          await kit.until(() => new Set(rooms.map(state)).size === 1, 10_000, 'the same');
          const held = [...rooms[0].values].map(([key, data]) => [key, data.split(' ')[0]]).sort();
          const kinds = rooms.map(({ kind }) => kind);
          const gaps = sessions.map((session) => session.stats().gaps);
          const datagrams = sessions.slice(0, 2).map((session) => session.stats().datagramsIn > 100);
          const before = [...wrong]; // that the session ends is an end, too
          await Promise.all(sessions.map((session) => session.close()));
          return { wrong: before, held, kinds, gaps, datagrams };
        }, TRANSPORTS, `players:${name}`);
        const expected = new Map([['last', 'the']]);
        for (let step = 0; step < 400; step++) {
          step % 11 === 10 ? expected.delete(`key ${step % 7}`) : expected.set(`key ${step % 7}`, `${step}`);
        }
        assert.deepEqual(seen, {
          wrong: [],
          held: [...expected].sort(),
          kinds: TRANSPORTS.map(() => 'state'),
          gaps: TRANSPORTS.map(() => 0),
          datagrams: [true, true], // native ones over webtransport, STATE frames over websocket
        });
      });

      test('presence: everybody sees who is there, and who has left; history has what was said', async () => {
        const seen = await page.evaluate(async (transports, channel) => {
          const opened = await Promise.all(
            transports.map((transport) => kit.open(transport, { token: `user of ${transport}` })),
          );
          const sessions = opened.map(({ session }) => session);
          const presences = sessions.map((session) => session.presence(channel));
          await Promise.all(sessions.map((session, at) => session.subscribe(channel, { about: `${at}` }).ready));
          await kit.until(() => presences.every(({ members }) => members.size === 4), 10_000, 'all');
          const members = [...presences[3].members.values()].map(({ user, info, about }) => [user, info, about]);
          await sessions[0].close();
          await kit.until(
            () => presences.slice(1).every(({ members }) => members.size === 3),
            10_000,
            'one has left',
          );
          for (let number = 1; number <= 5; number++) {
            await sessions[number % 3 + 1].publish(channel, `${number}`);
          }
          const page = await sessions[3].history(channel, { limit: 2 });
          const rest = await sessions[2].history(channel, { since: { epoch: page.epoch, offset: 2 } });
          const newest = await sessions[1].history(channel, { limit: 1, newest: true });
          const texts = [page, rest, newest].map(({ publications, complete, more }) => [
            publications.map(({ offset, data }) => `${offset} ${data}`).join(),
            complete,
            more,
          ]);
          await Promise.all(sessions.map((session) => session.close()));
          return { members: members.sort(), texts };
        }, TRANSPORTS, `room:${name}`);
        assert.deepEqual(seen, {
          members: TRANSPORTS.map((transport, at) => [
            `user of ${transport}`,
            `USER OF ${transport.toUpperCase()}`,
            `${at}`,
          ]).sort(),
          texts: [
            ['1 1,2 2', true, true],
            ['3 3,4 4,5 5', true, false],
            ['5 5', false, false],
          ],
        });
      });
    });
  }
});

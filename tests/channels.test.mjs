// Channels in real browsers: subscribers over all transports, whose links are cut and whose pages are reloaded, get every publication once and in order.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { BROWSERS, launch } from './support/browser.mjs';
import { startTestbed } from './support/server.mjs';

const TRANSPORTS = ['webtransport', 'websocket', 'sse', 'poll'];

const NAMESPACES = {
  THROUGHLINE_CHANNELS__NAMESPACES__ROOM__SUBSCRIBE: 'true',
  THROUGHLINE_CHANNELS__NAMESPACES__ROOM__PUBLISH: 'true',
  THROUGHLINE_CHANNELS__NAMESPACES__ROOM__HISTORY_COUNT: '5000',
  THROUGHLINE_CHANNELS__PUBLISHES_PER_SECOND: '1000',
};

const PUBLICATIONS = 1_500;
const HZ = 200;
const CUTS = 12;
const RELOADS = 5;

describe('channels', () => {
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

      before(async () => {
        browser = await launch(name);
      });

      after(() => browser?.close());

      test('subscribers over all four transports, cut while others publish: every publication once, in order', async (t) => {
        const page = await browser.openTestbed(server.tcp);
        const seen = await page.evaluate(
          async (transports, channel, count, hz, cuts) => {
            const opened = await Promise.all(transports.map((transport) => kit.open(transport)));
            const sessions = opened.map(({ session }) => session);
            const wrong = [];
            const all = sessions.map((session) => {
              const room = session.subscribe(channel);
              room.on('skipped', () => wrong.push('skipped'));
              room.on('end', (end) => wrong.push(JSON.stringify(end)));
              session.on('gap', () => wrong.push('a gap'));
              let next = 0;
              const done = new Promise((resolve) => {
                room.on('publication', ({ data, offset }) => {
                  if (offset !== next + 1 || data !== `publication ${next}`) {
                    wrong.push(`${offset}: ${data} after ${next}`);
                  }
                  next++;
                  next === count && resolve();
                });
              });
              return { room, done };
            });
            await Promise.all(all.map(({ room }) => kit.within(10_000, room.ready, 'a subscription')));
            // The last of them publishes, too, over a link that is cut as the others are.
            const positions = [];
            const [publisher] = sessions;
            const finished = Promise.all(all.map(({ done }) => done));
            for (let index = 0; index < count; index++) {
              positions.push(publisher.publish(channel, `publication ${index}`));
              if (index % Math.floor(count / cuts) === 0) {
                sessions[(index / Math.floor(count / cuts)) % sessions.length].trouble.cut();
              }
              await new Promise((resolve) => setTimeout(resolve, 1_000 / hz));
            }
            await kit.within(30_000, finished, 'the publications').catch((error) => wrong.push(error.message));
            const offsets = (await Promise.all(positions)).map(({ offset }) => offset);
            const links = sessions.map((session) => session.stats().links);
            for (const session of sessions) {
              session.close().catch(() => {});
            }
            return { wrong, links, inOrder: offsets.every((offset, index) => offset === index + 1) };
          },
          TRANSPORTS,
          `room:${name}`,
          PUBLICATIONS,
          HZ,
          CUTS,
        );
        t.diagnostic(JSON.stringify(seen));
        assert.deepEqual(seen.wrong, []);
        assert.ok(seen.inOrder, 'each publication has the position that its publisher was told');
        assert.ok(seen.links.every((links) => links > 1), 'every session was cut');
        assert.deepEqual(page.complaints.filter((line) => line.startsWith('page:')), []);
      });

      test(`a page that is reloaded ${RELOADS} times while others publish sees every publication once`, async () => {
        const channel = `room:reloaded in ${name}`;
        const writer = await browser.openTestbed(server.tcp);
        const count = 600;
        await writer.evaluate(async () => {
          kit.writer = (await kit.open('websocket')).session;
        });
        const written = (async () => {
          for (let index = 0; index < count; index++) {
            // One by one from here: timers of a page in the background come once a second.
            await writer.evaluate((channel, index) => kit.writer.publish(channel, `${index}`), channel, index);
          }
        })();
        written.catch(() => {}); // it is awaited below
        const seen = [];
        let since = null;
        for (let reload = 0; reload <= RELOADS; reload++) {
          const page = await browser.openTestbed(server.tcp);
          const part = await page.evaluate(
            async (channel, since, enough, last) => {
              const { session } = await kit.open('webtransport');
              const room = session.subscribe(channel, since === null ? {} : { since });
              const got = [];
              const recovered = [];
              room.on('subscribed', (info) => recovered.push(info.recovered));
              const done = new Promise((resolve) => {
                room.on('publication', ({ data }) => {
                  got.push(Number(data));
                  (got.length >= enough || Number(data) === last) && resolve();
                });
              });
              await kit.within(20_000, done, 'publications');
              return { got, recovered, since: room.position };
            },
            channel,
            since,
            reload < RELOADS ? 60 : Number.POSITIVE_INFINITY,
            count - 1,
          );
          assert.deepEqual(part.recovered, [since === null ? null : true]);
          seen.push(...part.got);
          since = part.since;
          await page.close(); // without a word, in the middle of it
        }
        await written;
        const first = seen[0];
        assert.deepEqual(seen, Array.from({ length: count - first }, (_, index) => first + index));
      });

      test('what is not allowed is said', async () => {
        const page = await browser.openTestbed(server.tcp);
        const codes = await page.evaluate(async () => {
          const { session } = await kit.open('sse');
          const code = (promise) => promise.then(() => 'nothing', (error) => error.code);
          return [
            await code(session.subscribe('secret:plans').ready),
            await code(session.publish('secret:plans', 'x')),
            await code(session.publish('room:long', 'x'.repeat(70_000))),
          ];
        });
        assert.deepEqual(codes, ['NOT_ALLOWED', 'NOT_ALLOWED', 'TOO_LARGE']);
      });
    });
  }
});

// Requests both ways, and tokens that end, in real browsers over each transport.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { BROWSERS, launch } from './support/browser.mjs';
import { startTestbed } from './support/server.mjs';

const TRANSPORTS = ['webtransport', 'websocket', 'sse', 'poll'];

describe('requests, and tokens that end', () => {
  let server;

  before(async () => {
    server = await startTestbed();
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

      for (const transport of TRANSPORTS) {
        test(`requests over ${transport}, both ways, in parts, cancelled, across a cut`, async () => {
          const seen = await page.evaluate(async (transport, channel) => {
            const { session } = await kit.open(transport);
            const failure = (answer) => answer.then(String, ({ code, requestCode = null }) => [code, requestCode]);
            const cancelled = async () => Number(await session.request('cancelled'));
            const before = await cancelled();
            session.handle('echo', (data) => data);
            const results = [
              await session.request('echo', 'text'),
              [...(await session.request('echo', Uint8Array.of(1, 2)))],
              (await session.request('echo')) === undefined,
              await session.request('back', 'there and back'),
              await failure(session.request('fail')),
              await failure(session.request('nobody')),
              await failure(session.request('wait', '', { timeoutMs: 50 })),
            ];
            const whole = await session.request('count', '3');
            let parts = 0;
            for await (const part of session.request('count', '20000')) {
              parts++;
              if (part !== `part ${parts} `) {
                throw new Error(`${part} is not part ${parts}`);
              }
              parts % 7_000 === 3_000 && session.trouble.cut();
            }
            let some = 0;
            for await (const _ of session.request('count', '1000000')) {
              if (++some === 10) {
                break;
              }
            }
            const after = await cancelled();
            const found = new Promise((resolve) => session.on('subscription', resolve));
            session.send(`!join ${channel}`);
            const room = await kit.within(5_000, found, 'a subscription');
            const gaps = session.stats().gaps;
            await session.close();
            return { results, whole, parts, cancelled: after - before, joined: room.channel, gaps };
          }, transport, `room:${name}`);
          assert.deepEqual(seen, {
            results: [
              'text',
              [1, 2],
              true,
              'there and back',
              ['APPLICATION', 4_321],
              ['UNKNOWN_METHOD', 2],
              ['TIMEOUT', null],
            ],
            whole: 'part 1 part 2 part 3 ',
            parts: 20_000,
            cancelled: 1,
            joined: `room:${name}`,
            gaps: 0,
          });
        });
      }

      test('tokens that end: a new one in time keeps the session, on the same link, over each transport', async () => {
        // Long enough that the timers of a page that nobody looks at, which come up to a second late, are in time.
        const seen = await page.evaluate(
          (transports) =>
            Promise.all(
              transports.map(async (transport) => {
                let asked = 0;
                const token = () => {
                  asked++;
                  return 'for 8000';
                };
                const { session } = await kit.open(transport, { token });
                const { session: doomed } = await kit.open(transport, { token: 'for 8000' });
                const end = await kit.within(20_000, doomed.closed, 'the end of the one');
                await kit.within(20_000, session.request('cancelled'), 'that the other works');
                const { state } = session;
                const { links } = session.stats();
                const text = String(session.explain().text);
                await session.close();
                return { transport, state, links, asked: asked >= 2, end: end.name, text };
              }),
            ),
          TRANSPORTS,
        );
        for (const { text, ...rest } of seen) {
          assert.deepEqual(rest, { transport: rest.transport, state: 'open', links: 1, asked: true, end: 'UNAUTHORIZED' });
          assert.match(text, /takes its token for another \d s/);
        }
        assert.equal(seen.length, TRANSPORTS.length);
      });
    });
  }
});

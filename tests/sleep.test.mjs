// Machines and tabs that sleep: for less than the session's window, when everything goes on, and for longer, when everybody is told.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { BROWSERS, launch } from './support/browser.mjs';
import { startTestbed } from './support/server.mjs';

const TRANSPORTS = ['webtransport', 'websocket', 'sse', 'poll'];

/** Short ones, so that every link is dead when the sleeper wakes up. */
const IDLE_MS = 3_000;
const WINDOW_MS = 6_000;
const LIMITS = {
  THROUGHLINE_LIMITS__HEARTBEAT_INTERVAL: '1s',
  THROUGHLINE_LIMITS__IDLE_TIMEOUT: `${IDLE_MS}ms`,
  THROUGHLINE_LIMITS__POLL_HOLD: '2s',
  THROUGHLINE_LIMITS__RESUME_WINDOW: `${WINDOW_MS}ms`,
};
const NAP_MS = IDLE_MS + 2_000;
const NIGHT_MS = IDLE_MS + WINDOW_MS + 3_000;

const HZ = 20;
const SECONDS = 9;

describe('sleep', () => {
  let server;

  before(async () => {
    server = await startTestbed(LIMITS);
  });

  after(async () => {
    assert.equal(await server?.stop(), 0);
    assert.deepEqual(server.complaints, []);
  });

  for (const name of BROWSERS) {
    describe(name, () => {
      /** A page with four sessions, `kit.four`, one over each transport. */
      async function inPage(use) {
        const browser = await launch(name);
        try {
          const page = await browser.openTestbed(server.tcp);
          await page.evaluate(async (transports) => {
            const opened = await Promise.all(transports.map((transport) => kit.open(transport)));
            kit.four = opened.map(({ session }) => session);
          }, TRANSPORTS);
          await use(page, browser);
        } finally {
          await browser.close();
        }
      }

      const naps = [
        ['a machine', async (browser) => {
          browser.signal('SIGSTOP');
          await sleep(NAP_MS);
          browser.signal('SIGCONT');
        }],
      ];
      if (name === 'chromium') {
        naps.push(['a tab', async (_, page) => {
          const devtools = await page.createCDPSession();
          await devtools.send('Page.setWebLifecycleState', { state: 'frozen' });
          await sleep(NAP_MS);
          await devtools.send('Page.setWebLifecycleState', { state: 'active' });
        }]);
      }

      for (const [sleeper, nap] of naps) {
        test(`${sleeper} that sleeps longer than a link lives: nothing is lost, over any transport`, (t) =>
          inPage(async (page, browser) => {
            const traffic = page.evaluate(
              (hz, count, ms) => Promise.all(kit.four.map((session) => kit.traffic(session, hz, count, ms))),
              HZ,
              HZ * SECONDS,
              60_000,
            );
            traffic.catch(() => {});
            await sleep(1_500);
            await nap(browser, page);
            const seen = await traffic;
            for (const [index, { moves, longestUpMs }] of seen.entries()) {
              t.diagnostic(`${TRANSPORTS[index]}: ${Math.round(longestUpMs)} ms, ${JSON.stringify(moves)}`);
              assert.ok(longestUpMs > NAP_MS / 2, 'it did sleep');
              assert.ok(moves.every((move) => !move.gap), `${TRANSPORTS[index]}: a gap`);
            }
            const links = await page.evaluate(() => kit.four.map((session) => session.stats().links));
            assert.ok(links.every((count) => count >= 2), `a link lived on: ${links}`);
          }));
      }

      if (name === 'chromium') {
        test('a page that is left, and come back to: its sessions go on', () =>
          inPage(async (page) => {
            const before = await page.evaluate(() => kit.four.map((session) => session.id));
            await page.goto(`${server.tcp}/elsewhere`);
            await page.goBack();
            assert.ok(await page.evaluate(() => 'kit' in window), 'the browser did not keep the page');
            const after = await page.evaluate(() =>
              Promise.all(
                kit.four.map(async (session) => {
                  session.send('back');
                  await kit.within(10_000, session.drained(), `an acknowledgement over ${session.transport}`);
                  return session.id;
                }),
              ),
            );
            assert.deepEqual(after, before);
          }));
      }

      test('a machine that sleeps longer than the window: each session says so, and goes on as a new one', () =>
        inPage(async (page, browser) => {
          const before = await page.evaluate(() => {
            kit.gaps = kit.four.map((session) => new Promise((resolve) => session.on('gap', resolve)));
            return kit.four.map((session) => session.id);
          });
          browser.signal('SIGSTOP');
          await sleep(NIGHT_MS);
          browser.signal('SIGCONT');
          const gaps = await page.evaluate(() => kit.within(20_000, Promise.all(kit.gaps), 'four gaps'));
          assert.deepEqual(gaps.map(({ previousId }) => previousId), before);
          const echoes = await page.evaluate(() =>
            Promise.all(
              kit.four.map((session) => {
                const echo = new Promise((resolve) => session.on('message', resolve));
                session.send(`good morning from ${session.id}`);
                return kit.within(10_000, echo, `an echo over ${session.transport}`);
              }),
            ),
          );
          assert.deepEqual(echoes, gaps.map(({ id }) => `good morning from ${id}`));
          assert.equal(new Set([...before, ...gaps.map(({ id }) => id)]).size, 8);
          // The server's side of the old ones ended, each with its reason.
          for (const id of before) {
            const { reason } = await server.sessionClosed(id, 5_000);
            assert.match(reason, /link/i);
          }
        }));
    });
  }
});

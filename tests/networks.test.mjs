// Networks that break one thing or another. Runs in a network namespace of its own (see support/network.mjs).

import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { BROWSERS, launch } from './support/browser.mjs';
import { figure } from './support/figure.mjs';
import { assertIsolated, drop, heal } from './support/network.mjs';
import { LOCATIONS, startNginx } from './support/nginx.mjs';
import { startProxy } from './support/proxy.mjs';
import { startTestbed } from './support/server.mjs';

const UDP = 'meta l4proto udp';

/** How long sessions are left alone behind nginx: more than the 60 s of its timeouts. */
const IDLE_MS = 66_000;

assertIsolated();

describe('networks', () => {
  let server;
  let idle;

  before(async () => {
    server = await startTestbed();
    idle = await leaveIdle(server.tcp);
  });

  after(async () => {
    await heal();
    await idle?.stop();
    assert.equal(await server?.stop(), 0);
    assert.deepEqual(server.complaints, []);
  });

  afterEach(heal);

  /** Opens the page through `origin` in a fresh browser: Chromium slows WebTransport down after a few failures. */
  async function inPage(name, origin, use) {
    const browser = await launch(name);
    try {
      return await use(await browser.openTestbed(origin));
    } finally {
      await browser.close();
    }
  }

  const firstState = (name, origin) => inPage(name, origin, (page) => page.evaluate(() => kit.firstState()));

  function attempt(explained, transport) {
    return explained.attempts.find((one) => one.transport === transport);
  }

  for (const name of BROWSERS) {
    describe(name, () => {
      figure('nothing broken: WebTransport, at once', async (t) => {
        const seen = await firstState(name, server.tcp);
        tell(t, seen);
        assert.equal(seen.transport, 'webtransport');
        assert.ok(seen.ms < 600, `${seen.ms} ms`);
      });

      figure('UDP dropped: WebSocket within 600 ms, while WebTransport is still being tried', async (t) => {
        await drop(UDP);
        const seen = await firstState(name, server.tcp);
        tell(t, seen);
        assert.equal(seen.transport, 'websocket');
        assert.ok(seen.ms <= 600, `${seen.ms} ms`);
        assert.equal(attempt(seen.explained, 'webtransport').outcome, 'trying');
        assert.equal(attempt(seen.explained, 'websocket').outcome, 'won');
        assert.match(seen.explained.summary, /websocket.*webtransport/i);
      });

      figure('UDP dropped and WebSocket upgrades refused: SSE', async (t) => {
        await drop(UDP);
        const proxy = await startProxy(server.tcp, { websocket: 'refuse' });
        t.after(proxy.stop);
        const seen = await firstState(name, proxy.origin);
        tell(t, seen);
        assert.equal(seen.transport, 'sse');
        assert.ok(seen.ms < 1_500, `${seen.ms} ms`);
        assert.equal(attempt(seen.explained, 'websocket').outcome, 'failed');
      });

      figure('everything but polling broken: the first state within 3 s', async (t) => {
        await drop(UDP);
        const proxy = await startProxy(server.tcp, { websocket: 'swallow', sse: 'buffer' });
        t.after(proxy.stop);
        const seen = await firstState(name, proxy.origin);
        tell(t, seen);
        assert.equal(seen.transport, 'poll');
        assert.ok(seen.ms <= 3_000, `${seen.ms} ms`);
        assert.ok(proxy.seen.includes('upgrade') && proxy.seen.includes('sse'));
      });

      test('the server gone: a clear error, and what was tried', async (t) => {
        const other = await startTestbed();
        t.after(() => other.stop());
        const failed = await inPage(name, other.tcp, async (page) => {
          await other.stop();
          return page.evaluate(() => kit.failToConnect());
        });
        tell(t, failed);
        assertUnreachable(failed);
      });
    });
  }

  describe('more of them, in chromium', () => {
    figure('a proxy that takes the upgrade and swallows frames: SSE', async (t) => {
      await drop(UDP);
      const proxy = await startProxy(server.tcp, { websocket: 'swallow' });
      t.after(proxy.stop);
      const seen = await firstState('chromium', proxy.origin);
      tell(t, seen);
      assert.equal(seen.transport, 'sse');
      assert.ok(seen.ms < 2_500, `${seen.ms} ms`);
    });

    figure('WebSocket refused, SSE refused: polling', async (t) => {
      await drop(UDP);
      const proxy = await startProxy(server.tcp, { websocket: 'refuse', sse: 'refuse' });
      t.after(proxy.stop);
      const seen = await firstState('chromium', proxy.origin);
      tell(t, seen);
      assert.equal(seen.transport, 'poll');
      assert.ok(seen.ms < 1_500, `${seen.ms} ms`);
    });

    test('every packet dropped: a clear error within the deadlines, and what was tried', async (t) => {
      const other = await startTestbed(); // not the one that the idle sessions are on
      t.after(() => other.stop());
      const failed = await inPage('chromium', other.tcp, async (page) => {
        await drop(UDP, `tcp dport ${other.tcpPort}`);
        return page.evaluate(() => kit.failToConnect());
      });
      tell(t, failed);
      assertUnreachable(failed);
      assert.ok(failed.ms < 15_000, `${failed.ms} ms`);
    });

    figure('nginx as it comes: no upgrades, and SSE is not held back', async (t) => {
      await drop(UDP);
      const nginx = await startNginx(server.tcp, LOCATIONS.defaults);
      t.after(nginx.stop);
      const seen = await firstState('chromium', nginx.origin);
      tell(t, seen);
      assert.equal(seen.transport, 'sse');
      assert.ok(seen.ms < 1_500, `${seen.ms} ms`);
    });

    figure('nginx that holds event streams back: polling', async (t) => {
      await drop(UDP);
      const nginx = await startNginx(server.tcp, LOCATIONS.buffering);
      t.after(nginx.stop);
      const seen = await firstState('chromium', nginx.origin);
      tell(t, seen);
      assert.equal(seen.transport, 'poll');
      assert.ok(seen.ms <= 3_000, `${seen.ms} ms`);
    });

    figure('nginx that lets upgrades through: messages and 30 states per second over all three TCP transports', async (t) => {
      const nginx = await startNginx(server.tcp, LOCATIONS.websocket);
      t.after(nginx.stop);
      const seen = await inPage('chromium', nginx.origin, async (page) => {
        const seen = {};
        for (const transport of ['websocket', 'sse', 'poll']) {
          seen[transport] = await page.evaluate(async (transport) => {
            const { session, messages } = await kit.open(transport);
            session.send(new Uint8Array(1_048_576).fill(7));
            const echo = await messages.next();
            const states = await kit.states(session, 30, 3);
            await session.close();
            return { echoed: echo.length, ...states };
          }, transport);
        }
        assert.deepEqual(page.complaints, []);
        return seen;
      });
      tell(t, seen);
      for (const transport of ['websocket', 'sse', 'poll']) {
        assert.equal(seen[transport].echoed, 1_048_576);
        assert.ok(seen[transport].rate >= 25, `${transport}: ${seen[transport].rate} states per second`);
      }
    });
  });

  test(`sessions idle for ${IDLE_MS / 1_000} s behind nginx are as they were`, async (t) => {
    const seen = await idle.look();
    tell(t, seen);
    for (const transport of ['websocket', 'sse', 'poll']) {
      assert.deepEqual(seen[transport], { state: 'open', transport, sameId: true, links: 1, echo: 'still there?' });
    }
    assert.deepEqual(idle.page.complaints, []);
  });
});

/** A session over each TCP transport through nginx, in a browser of their own, which nobody touches while the other tests run. */
async function leaveIdle(origin) {
  const nginx = await startNginx(origin, LOCATIONS.websocket);
  const browser = await launch('chromium');
  const page = await browser.openTestbed(nginx.origin);
  await page.evaluate(async () => {
    window.idle = {};
    for (const transport of ['websocket', 'sse', 'poll']) {
      window.idle[transport] = await kit.open(transport);
      window.idle[transport].id = window.idle[transport].session.id;
    }
  });
  const since = performance.now();
  return {
    page,
    async look() {
      const rest = since + IDLE_MS - performance.now();
      await new Promise((resolve) => setTimeout(resolve, Math.max(0, rest)));
      return page.evaluate(async () => {
        const seen = {};
        for (const [transport, { session, messages, id }] of Object.entries(window.idle)) {
          session.send('still there?');
          const echo = await messages.next();
          const { state, transport: now } = session;
          seen[transport] = { state, transport: now, sameId: session.id === id, links: session.stats().links, echo };
        }
        return seen;
      });
    },
    async stop() {
      await browser.close();
      await nginx.stop();
    },
  };
}

function assertUnreachable({ code, closed, message, explained }) {
  assert.equal(code, 'UNREACHABLE');
  assert.equal(closed.name, 'UNREACHABLE');
  for (const transport of ['webtransport', 'websocket', 'sse', 'poll']) {
    assert.match(message, new RegExp(`${transport} failed.* \\(.+\\)`));
    const attempt = explained.attempts.find((one) => one.transport === transport);
    assert.equal(attempt.outcome, 'failed');
    assert.ok(attempt.reason.length > 3);
  }
}

function tell(t, seen) {
  const { explained, ...rest } = seen;
  t.diagnostic(JSON.stringify(rest));
  if (explained) {
    t.diagnostic(explained.summary);
  }
}

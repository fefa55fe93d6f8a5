// A session on the move, in real browsers: between all transports, through black holes, cuts, changing addresses and restarts. Runs in a
// network namespace of its own; the server is in another, 50 ms away (see support/path.mjs).

import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { BROWSERS, launch } from './support/browser.mjs';
import { figure } from './support/figure.mjs';
import { assertIsolated } from './support/network.mjs';
import { startPath } from './support/path.mjs';
import { startProxy } from './support/proxy.mjs';
import { startTestbedBehind } from './support/server.mjs';

const SEED = 3;
const RTT_MS = 50;
const UDP = 'meta l4proto udp';

/** Best first. */
const TRANSPORTS = ['webtransport', 'websocket', 'sse', 'poll'];

/** Messages per second, each way, during a move. */
const HZ = 50;
/** What is not silence: the time between two messages, and what two busy cores make of it. */
const GRAIN_MS = 1_000 / HZ + 30;
/** When a link goes dark: 1 s until the client asks, and 1 s without an answer (SPEC 6, number 4). */
const DETECTION_MS = 2_000;

assertIsolated();

describe('moves', () => {
  let path;
  let server;

  before(async () => {
    path = await startPath({ seed: SEED, commands: [`delay ${RTT_MS / 2}ms`] });
    server = await startTestbedBehind(path);
  });

  after(async () => {
    assert.equal(await server?.stop(), 0);
    assert.deepEqual(server?.complaints, []);
    await path?.stop();
  });

  afterEach(() => path.heal());

  /** Calls `use` with a page of its own in a fresh browser, behind a proxy of its own: Chromium slows WebTransport down after a few failures. */
  async function inPage(name, use) {
    const proxy = await startProxy(server.tcp);
    const browser = await launch(name);
    try {
      return await use(await browser.openTestbed(proxy.origin), proxy);
    } finally {
      await browser.close();
      await proxy.stop();
      await path.heal();
    }
  }

  /** Makes `transport` a black hole. */
  const hold = (transport, proxy) => (transport === 'webtransport' ? path.drop(UDP) : proxy.hold(transport));
  const release = (transport, proxy) => (transport === 'webtransport' ? path.heal() : proxy.release(transport));

  for (const name of BROWSERS) {
    describe(name, () => {
      for (const [from, to] of pairs(TRANSPORTS)) {
        const isUp = TRANSPORTS.indexOf(to) < TRANSPORTS.indexOf(from);
        figure(`${from} → ${to}, ${isUp ? `when ${to} works again` : `when ${from} goes dark`}`, (t) =>
          inPage(name, async (page, proxy) => {
            if (isUp) {
              await hold(to, proxy);
            }
            await openOver(page, [from, to], from);
            // A better transport is tried again 10 s after it has failed.
            const traffic = startTraffic(page, HZ, isUp ? 18 : 6);
            await sleep(1_500);
            await (isUp ? release(to, proxy) : hold(from, proxy));
            const seen = await traffic;
            tell(t, seen);
            assert.deepEqual(
              seen.moves.map((move) => `${move.from} → ${move.to}`),
              [`${from} → ${to}`],
            );
            const most = (isUp ? 0 : DETECTION_MS) + 4 * RTT_MS + GRAIN_MS;
            assert.ok(seen.longestDownMs <= most, `${seen.longestDownMs} ms of silence in the page`);
            assert.ok(seen.longestUpMs <= most, `${seen.longestUpMs} ms of silence at the server`);
          }),
        );
      }
    });
  }
});

/** All ordered pairs of different ones. */
function pairs(all) {
  return all.flatMap((from) => all.filter((to) => to !== from).map((to) => [from, to]));
}

/** A session of the page, as `kit.moving`, which may use `transports` and begins with `first`. */
async function openOver(page, transports, first) {
  const sorted = TRANSPORTS.filter((transport) => transports.includes(transport));
  const got = await page.evaluate(async (transports) => {
    const session = window.throughline.connect('/rt', { transports });
    await kit.within(15_000, session.ready, 'ready');
    kit.moving = session;
    return session.transport;
  }, sorted);
  assert.equal(got, first);
}

/** Numbered messages both ways for so many seconds, over `kit.moving`. */
function startTraffic(page, hz, seconds, extraMs = 20_000) {
  const traffic = page.evaluate(
    (hz, count, ms) => kit.traffic(kit.moving, hz, count, ms),
    hz,
    hz * seconds,
    seconds * 1_000 + extraMs,
  );
  traffic.catch(() => {}); // who awaits it later hears of it
  return traffic;
}

function tell(t, seen) {
  t.diagnostic(JSON.stringify(seen));
}

// A session on the move, in real browsers: between all transports, through black holes, cuts, changing addresses and restarts. Runs in a
// network namespace of its own; the server is in another, 50 ms away (see support/path.mjs).

import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { BROWSERS, launch } from './support/browser.mjs';
import { figure } from './support/figure.mjs';
import { assertIsolated, drop as dropHere } from './support/network.mjs';
import { startPath } from './support/path.mjs';
import { startProxy } from './support/proxy.mjs';
import { startTestbedBehind } from './support/server.mjs';

const SEED = 3;
const RTT_MS = 50;
const UDP = 'meta l4proto udp';
/** Of what crosses the path, in both directions; not of what a browser says to its proxy. */
const LOSS = 'iifname { "tl-client", "tl-server" } numgen random mod 100 < 5';

/** Best first. */
const TRANSPORTS = ['webtransport', 'websocket', 'sse', 'poll'];

/** Messages per second, each way, during a move. */
const HZ = 50;
/** What is not silence: the time between two messages, and what two busy cores make of it. */
const GRAIN_MS = 1_000 / HZ + 50;
/** When a link goes dark: at most 1 s until the client asks, and 1 s without an answer (SPEC 6, number 4). Ours takes less. */
const DETECTION_MS = 2_000;

/** Nobody comes back to the server of all tests when it stops. */
const QUICK_DRAIN = { THROUGHLINE_LIMITS__DRAIN_TIMEOUT: '2s', THROUGHLINE_LIMITS__DRAIN_SPREAD: '1s' };

/** Messages each way in the long run, and how often the link is cut or another transport forced meanwhile. */
const MANY = 50_000;
const MANY_HZ = 500;
const CUTS = 100;

assertIsolated();

describe('moves', () => {
  let path;
  let server;

  before(async () => {
    path = await startPath({ seed: SEED, commands: [`delay ${RTT_MS / 2}ms`] });
    server = await startTestbedBehind(path, QUICK_DRAIN);
  });

  after(async () => {
    const code = await server?.stop();
    await path?.stop();
    assert.equal(code, 0);
    assert.deepEqual(server.complaints, []);
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
            const traffic = startTraffic(page, HZ, 6);
            await sleep(1_500);
            await (isUp ? release(to, proxy) : hold(from, proxy));
            const seen = await traffic;
            tell(t, seen);
            assert.deepEqual(ways(seen), [`${from} → ${to}`]);
            const most = (isUp ? 0 : DETECTION_MS) + 4 * RTT_MS + GRAIN_MS;
            assert.ok(seen.longestDownMs <= most, `${seen.longestDownMs} ms of silence in the page`);
            assert.ok(seen.longestUpMs <= most, `${seen.longestUpMs} ms of silence at the server`);
          }),
        );
      }

      figure('UDP dropped while WebTransport is used: back over WebSocket; and up again by itself', (t) =>
        inPage(name, async (page) => {
          await openOver(page, TRANSPORTS, 'webtransport');
          const traffic = startTraffic(page, HZ, 25);
          await sleep(1_500);
          await path.drop(UDP);
          await moved(page, 'websocket', 10_000);
          await path.heal();
          const seen = await traffic;
          tell(t, seen);
          assert.deepEqual(ways(seen), ['webtransport → websocket', 'websocket → webtransport']);
          assert.ok(Math.max(seen.longestDownMs, seen.longestUpMs) <= DETECTION_MS + 500);
        }),
      );

      for (const [direction, drop, mostMs] of [
        // The page goes on hearing the server until that may send no more without an acknowledgement of QUIC.
        ['up', () => path.dropAtServer(UDP), 6_000],
        ['down', () => dropHere(UDP), DETECTION_MS + 500],
      ]) {
        figure(`UDP dropped on its way ${direction} only: back over WebSocket`, (t) =>
          inPage(name, async (page) => {
            await openOver(page, TRANSPORTS, 'webtransport');
            const traffic = startTraffic(page, HZ, 6);
            await sleep(1_500);
            await drop();
            const seen = await traffic;
            tell(t, seen);
            assert.deepEqual(ways(seen), ['webtransport → websocket']);
            assert.ok(Math.max(seen.longestDownMs, seen.longestUpMs) <= mostMs);
          }),
        );
      }

      // Firefox lets a host wait for its next WebSocket after one has failed.
      const waits = { websocket: name === 'firefox' ? 400 : 0, sse: 0 };
      for (const [transport, waitMs] of Object.entries(waits)) {
        figure(`${transport} cut: it goes on at once, over a new link`, (t) =>
          inPage(name, async (page, proxy) => {
            await openOver(page, [transport], transport);
            const traffic = startTraffic(page, HZ, 4);
            await sleep(1_500);
            assert.ok(proxy.cut(transport) > 0);
            const seen = await traffic;
            tell(t, seen);
            assert.equal(await page.evaluate(() => kit.moving.stats().links), 2);
            assert.ok(Math.max(seen.longestDownMs, seen.longestUpMs) <= 8 * RTT_MS + GRAIN_MS + waitMs);
          }),
        );
      }

      // Without the figure: a browser may repeat the GET by itself, and only what follows shows that its answer got lost.
      test('poll cut: it goes on', () =>
        inPage(name, async (page, proxy) => {
          await openOver(page, ['poll'], 'poll');
          const traffic = startTraffic(page, HZ, 4);
          await sleep(1_500);
          // Between two GETs there is nothing to cut.
          for (let tries = 0; proxy.cut('poll') === 0; tries++) {
            assert.ok(tries < 100, 'no GET was held');
            await sleep(10);
          }
          await traffic;
        }));

      test('a WebSocket that is cut, and swallows frames when it is opened again: on over SSE', (t) =>
        inPage(name, async (page, proxy) => {
          await openOver(page, ['websocket', 'sse'], 'websocket');
          const traffic = startTraffic(page, HZ, 6);
          await sleep(1_500);
          proxy.broken.websocket = 'swallow';
          proxy.cut('websocket');
          const seen = await traffic;
          tell(t, seen);
          assert.equal(await page.evaluate(() => kit.moving.transport), 'sse');
        }));

      test('everything dark for 5 s, in one direction: the session is there again', (t) =>
        inPage(name, async (page) => {
          await openOver(page, TRANSPORTS, 'webtransport');
          const traffic = startTraffic(page, HZ, 10);
          await sleep(1_500);
          await path.say('blackhole up on');
          await sleep(5_000);
          await path.say('blackhole off');
          tell(t, await traffic);
        }));

      for (const transport of ['webtransport', 'websocket']) {
        test(`packets that are lost, late and out of order are no reason to leave ${transport}`, (t) =>
          inPage(name, async (page) => {
            await openOver(page, [transport, 'poll'], transport);
            await path.drop(LOSS);
            await path.say('jitter 10ms');
            await path.say('reorder 2%');
            const seen = await startTraffic(page, HZ, 8).finally(() => path.say('jitter 0ms').then(() => path.say('reorder 0%')));
            tell(t, seen);
            assert.deepEqual(seen.moves, []);
          }));
      }

      test('an address that changes, and changes back: the same link', (t) =>
        inPage(name, async (page) => {
          await openOver(page, TRANSPORTS, 'webtransport');
          const traffic = startTraffic(page, HZ, 6);
          await sleep(1_500);
          path.moveClient();
          await sleep(2_000);
          path.moveClient(false);
          const seen = await traffic.finally(() => path.moveClient(false));
          tell(t, seen);
          assert.deepEqual(seen.moves, []);
          assert.equal(await page.evaluate(() => kit.moving.stats().links), 1);
        }));

      for (const [transport, transports] of [
        ['webtransport', TRANSPORTS],
        ['poll', ['poll']],
      ]) {
        test(`a server that drains while another one starts, over ${transport}: each message is received once`, (t) =>
          inPage(name, async (page, proxy) => {
            const old = await startTestbedBehind(path);
            proxy.turnTo(old.tcp);
            await openOver(page, transports, transport);
            const echoes = page.evaluate(() => kit.echoes(kit.moving, 50, 400, 30_000));
            echoes.catch(() => {});
            await sleep(1_500);
            proxy.turnTo(server.tcp);
            assert.equal(await old.stop(), 0);
            assert.deepEqual(old.complaints, []);
            const seen = await echoes;
            tell(t, seen);
            // Those that the old server received, and could not answer any more: its application was told.
            const unanswered = old.log.all.filter(({ json }) => json?.message === 'stopped').length;
            assert.equal(seen.missing, unanswered);
          }));
      }

      test(`${MANY.toLocaleString('en')} messages each way over ${CUTS} cuts and moves`, (t) =>
        inPage(name, async (page, proxy) => {
          await openOver(page, TRANSPORTS, 'webtransport');
          const traffic = startTraffic(page, MANY_HZ, MANY / MANY_HZ, 80_000);
          let isOver = false;
          traffic.finally(() => (isOver = true)).catch(() => {});
          const used = new Map();
          const random = randomFrom(SEED);
          let cuts = 0;
          while (cuts < CUTS && !isOver) {
            // Some transports do not answer for a while, so that the next link is often another; and the current one is cut, by the page or by the proxy.
            const blocked = TRANSPORTS.filter(() => random() < 0.4).slice(0, 3);
            const isProxys = random() < 0.4;
            const now = await page.evaluate(
              async (blocked, cut, ms) => {
                const { trouble } = kit.moving;
                do {
                  await kit.until(() => kit.moving.transport !== null, 30_000, 'a link');
                  // A link that never worked makes the next one wait longer.
                  await new Promise((resolve) => setTimeout(resolve, ms));
                } while (kit.moving.transport === null);
                const { transport } = kit.moving;
                blocked.forEach((one) => trouble.block(one, 700));
                cut && trouble.cut();
                return transport;
              },
              blocked,
              !isProxys,
              200 + 300 * random(),
            );
            if (isProxys && proxy.cut(now) === 0) {
              await page.evaluate(() => kit.moving.trouble.cut());
            }
            used.set(now, (used.get(now) ?? 0) + 1);
            cuts++;
          }
          const { moves, ...seen } = await traffic;
          const { links } = await page.evaluate(() => kit.moving.stats());
          tell(t, { ...seen, links, moves: moves.length, cuts, over: Object.fromEntries(used) });
          assert.ok(moves.every((move) => !move.gap), 'no gap');
          assert.equal(cuts, CUTS, 'the traffic ended before the cuts did');
          assert.ok(links > CUTS / 2, `${links} links`);
          assert.ok(used.size > 1, 'more than one transport was used');
        }));
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
  await page.evaluate(
    async (transports, first) => {
      kit.moving = window.throughline.connect('/rt', { transports });
      await kit.within(15_000, kit.moving.ready, 'ready');
      // On a busy machine a lower one may answer first.
      await kit.until(() => kit.moving.transport === first, 10_000, `a session over ${first}`);
    },
    sorted,
    first,
  );
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

/** Resolves when `kit.moving` goes on over `transport`. */
function moved(page, transport, ms) {
  return page.evaluate(
    (transport, ms) => kit.until(() => kit.moving.transport === transport, ms, `a move to ${transport}`),
    transport,
    ms,
  );
}

/** `from → to` of each move. */
function ways({ moves }) {
  return moves.map((move) => `${move.from} → ${move.to}`);
}

/** Numbers from 0 to 1 (mulberry32). */
function randomFrom(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

function tell(t, seen) {
  t.diagnostic(JSON.stringify(seen));
}

// The demo as a visitor meets it: `throughline demo`, and its page in both browsers.

import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { outputFolder } from './support/binaries.mjs';
import { figure } from './support/figure.mjs';
import { BROWSERS, launch } from './support/browser.mjs';
import { startDemo } from './support/server.mjs';

const TRANSPORTS = ['webtransport', 'websocket', 'sse', 'poll'];

/** Where a session goes when a transport is blocked; long polling has nothing below it, and waits. */
const NEXT = { webtransport: 'websocket', websocket: 'sse', sse: 'poll' };

/** A few hundred bots are in the arena; this many things at least are near anyone. */
const ENTITIES = 10;

for (const name of BROWSERS) {
  describe(name, () => {
    let server;
    let browser;
    const pages = [];

    before(async () => {
      server = await startDemo();
      browser = await launch(name);
      await mkdir(outputFolder, { recursive: true });
    });
    afterEach(leave);
    after(async () => {
      await browser?.close();
      assert.equal(await server?.stop(), 0);
      assert.deepEqual(server.complaints, []);
    });

    /** Not by animation frames, as puppeteer would: those stand still in the page that lies behind. */
    function until(page, condition, ...args) {
      return within(5_000, page, condition, ...args);
    }

    /** Says what the page knew when it was too late. */
    function within(timeout, page, condition, ...args) {
      return page.waitForFunction(condition, { timeout, polling: 100 }, ...args).catch(async (error) => {
        const known = await page.evaluate(() => window.demo && JSON.stringify(window.demo.stats())).catch(String);
        throw new Error(`${error.message}: ${condition}; ${known}; ${page.complaints.join('; ')}`);
      });
    }

    const stats = (page) => page.evaluate(() => window.demo.stats());

    /** Firefox also reports a WebSocket that lost a race, or that the page gave up when it was left: that is no mistake. */
    const mistakes = ({ complaints }) => complaints.filter((text) => !/connection to .*\/rt\/websocket|server at ws:/.test(text));

    /** Clicked by the page itself: its panels still grow, and a click at coordinates may miss. */
    async function press(page, selector) {
      await until(page, (selector) => !document.querySelector(selector).disabled, selector);
      await page.$eval(selector, (button) => button.click());
    }

    /** Everything that was sent has come, once, and in order; of the page's numbers half a second may be on the way. */
    async function assertFlawless(page) {
      await until(page, () => window.demo.stats().up.sent - window.demo.stats().up.received <= 5);
      const { down, up, gaps } = await stats(page);
      for (const { received, missing, repeated, outOfOrder } of [down, up]) {
        assert.ok(received > 0);
        assert.deepEqual({ missing, repeated, outOfOrder }, { missing: 0, repeated: 0, outOfOrder: 0 });
      }
      assert.equal(gaps, 0);
    }

    /** Closes what a test, or a figure that is measured again, has left open. */
    async function leave() {
      await Promise.all(pages.splice(0).map((page) => page.isClosed() || page.close()));
    }

    async function play(query, { tcp } = server) {
      const page = await browser.open(`${tcp}/${query}`);
      pages.push(page);
      await until(page, () => window.demo?.stats().entities > 0).catch((error) => {
        throw new Error(`no state came: ${page.complaints.join('; ') || error.message}`);
      });
      return page;
    }

    const say = (page, text) =>
      page.evaluate((text) => {
        document.querySelector('#line').value = text;
        document.querySelector('#line-form').requestSubmit();
      }, text);

    /** States that arrive while the page is watched, per second. */
    function watch(page, seconds) {
      return page.evaluate(async (seconds) => {
        const before = window.demo.stats();
        const began = performance.now();
        await new Promise((resolve) => setTimeout(resolve, seconds * 1_000));
        const after = window.demo.stats();
        const rate = ((after.states - before.states) * 1_000) / (performance.now() - began);
        return { rate, ticks: after.newestTick - before.newestTick, ...after };
      }, seconds);
    }

    figure('the page plays at once, over WebTransport, and looks like something', async (t) => {
      await leave();
      const page = await play('?name=Ada');
      await page.setViewport({ width: 1_280, height: 800 });
      const seen = await watch(page, 10);
      t.diagnostic(JSON.stringify(seen));
      assert.equal(seen.transport, 'webtransport');
      assert.ok(seen.rate >= 29.5, `${seen.rate} states per second`);
      assert.ok(seen.ageMs < 150, `${seen.ageMs} ms old`);
      assert.ok(seen.entities >= ENTITIES, `${seen.entities} entities`);
      const colours = await page.evaluate(coloursOf, 'arena');
      assert.ok(colours > 20, `${colours} colours in the arena`);
      const shown = await page.$eval('#link', (element) => element.textContent);
      assert.match(shown, /WebTransport/);
      assert.doesNotMatch(shown, /NaN|undefined|Infinity/);
      await page.screenshot({ path: join(outputFolder, `demo-${name}.png`) });
      await page.setViewport({ width: 390, height: 844 });
      await page.reload();
      await until(page, () => window.demo?.stats().states > 30);
      await page.screenshot({ path: join(outputFolder, `demo-${name}-phone.png`) });
      for (const panel of ['link', 'board', 'proof', 'room']) {
        await press(page, `#${panel}-toggle`);
        assert.deepEqual(await page.evaluate(collisions), [], `${panel} is open on a phone`);
      }
      await page.setViewport({ width: 1_440, height: 900 });
      await page.reload();
      await until(page, () => window.demo?.stats().states > 30);
      // The longest words that the panels have to hold.
      await press(page, '#force [data-transport="sse"]');
      await until(page, () => window.demo.stats().transport === 'sse' && window.demo.stats().up.received > 3);
      await press(page, '#cut');
      await until(page, () => window.demo.stats().resumed === 1);
      await until(page, () => document.querySelector('#resumed').textContent === 'resumed');
      assert.deepEqual(await page.evaluate(collisions), []);
      assert.deepEqual(mistakes(page), []);
      await page.close();
    });

    for (const transport of TRANSPORTS.slice(1)) {
      figure(`over ${transport}`, async (t) => {
        await leave();
        const page = await play(`?transports=${transport}`);
        const seen = await watch(page, 4);
        t.diagnostic(JSON.stringify(seen));
        assert.equal(seen.transport, transport);
        assert.ok(seen.rate >= (transport === 'poll' ? 25 : 28.5), `${seen.rate} states per second`);
        assert.ok(seen.entities >= ENTITIES);
        assert.deepEqual(mistakes(page), []);
        await page.close();
      });
    }

    test('two pages see each other, and what the other says', async () => {
      // Where nobody was before: Firefox does not always let a page say that it goes, and then its session waits for it.
      const hall = await startDemo();
      const ada = await play('?name=Ada', hall);
      const ben = await play('?name=Ben&transports=websocket', hall);
      await until(ada, () => window.demo.stats().players === 2);
      await until(ben, () => window.demo.stats().players === 2);
      await say(ada, 'Grüße <b>an alle</b> 🛰️');
      const heard = () => document.querySelector('#lines').textContent.includes('Grüße <b>an alle</b> 🛰️');
      await until(ben, heard);
      await until(ada, heard);
      await ben.close();
      await until(ada, () => window.demo.stats().players === 1);
      assert.deepEqual(mistakes(ada), []);
      await ada.close();
      assert.equal(await hall.stop(), 0);
    });

    test('the chat: every line once, in order, through cuts and another transport; newcomers read what was said', async () => {
      const hall = await startDemo();
      const ada = await play('?name=Ada#chat', hall);
      const ben = await play('?name=Ben&transports=websocket#chat', hall);
      const members = (names) => [
        (names) => [...document.querySelectorAll('#members li')].map(({ textContent }) => textContent).join() === names,
        names,
      ];
      await until(ada, ...members('Ada,Ben'));
      await until(ben, ...members('Ada,Ben'));

      const said = [];
      const talk = async (page, text) => {
        said.push(text);
        await say(page, text);
      };
      await talk(ben, 'before');
      await until(ada, () => document.querySelector('#lines').textContent.includes('before'));
      await press(ada, '#cut');
      await talk(ben, '<i>while</i> it was cut');
      await talk(ada, 'without a link');
      await until(ada, () => window.demo.stats().resumed === 1);
      await until(ben, () => document.querySelector('#lines').textContent.includes('without a link'));
      // Another session, which goes on where the one before was.
      await press(ada, '#force [data-transport="sse"]');
      await talk(ben, 'meanwhile');
      await within(10_000, ada, () => window.demo.stats().transport === 'sse');
      await talk(ben, 'x'.repeat(200));
      said.push(said.pop().slice(0, 160)); // as the page cuts it
      const cleo = await play('?name=Cleo&transports=poll#chat', hall);
      for (const page of [ada, ben, cleo]) {
        await until(page, (count) => document.querySelectorAll('#lines li:not(.note)').length === count, said.length);
        assert.deepEqual(await page.$$eval('#lines li:not(.note) bdi', (lines) => lines.map((line) => line.textContent)), said);
        await until(page, ...members('Ada,Ben,Cleo'));
      }
      assert.deepEqual(await cleo.$$eval('#lines li:not(.note) b', (names) => names.map((name) => name.textContent)), [
        'Ben', 'Ben', 'Ada', 'Ben', 'Ben',
      ]);

      await ben.evaluate(() => {
        document.querySelector('#name').value = 'Bea';
        document.querySelector('#name-form').requestSubmit();
      });
      await until(ada, ...members('Ada,Bea,Cleo'));
      await cleo.evaluate(() => window.demo.session.close());
      await until(ada, ...members('Ada,Bea'));

      // What is too much is refused, and the page says so.
      await ada.evaluate(() => {
        for (let line = 0; line < 30; line++) {
          document.querySelector('#line').value = `spam ${line}`;
          document.querySelector('#line-form').requestSubmit();
        }
      });
      await until(ada, () => document.querySelectorAll('#lines .note').length >= 10);
      await until(ben, () => document.querySelector('#lines').textContent.includes('spam 5'));
      const spam = await ben.$$eval('#lines bdi', (lines) => lines.filter(({ textContent }) => /spam/.test(textContent)).length);
      assert.ok(spam >= 6 && spam <= 15, `${spam} of 30 lines at once`);
      const long = await ben.evaluate(() =>
        window.demo.session.publish('chat:arena', 'x'.repeat(3_000)).then(String, (error) => error.code),
      );
      assert.equal(long, 'TOO_LARGE');
      for (const page of [ada, ben]) {
        assert.deepEqual(mistakes(page).filter((text) => text.startsWith('page:')), []);
      }
      await leave();
      assert.equal(await hall.stop(), 0);
    });

    test('the dashboard: live numbers, over a link that is cut and over another transport', async () => {
      const hall = await startDemo();
      const page = await play('?name=Ada#dashboard', hall);
      await page.setViewport({ width: 1_440, height: 900 });
      const values = (condition) => until(page, condition);
      await values(() => window.demo.stats().dashboard.values.webtransport === 1);
      await values(() => window.demo.stats().dashboard.values.states > 20);
      await values(() => document.querySelector('#number-players').textContent === '1');
      await press(page, '#cut');
      await until(page, () => window.demo.stats().resumed === 1);
      const { changes } = (await stats(page)).dashboard;
      await until(page, (changes) => window.demo.stats().dashboard.changes > changes + 5, changes);
      await press(page, '#force [data-transport="poll"]');
      await within(10_000, page, () => {
        const { poll, webtransport, players } = window.demo.stats().dashboard.values;
        return poll === 1 && webtransport === 0 && players === 1;
      });
      await until(page, () => document.querySelector('#number-chatting').textContent === '1');
      assert.doesNotMatch(await page.$eval('#numbers', (element) => element.textContent), /NaN|undefined|Infinity|may not/);
      assert.deepEqual(mistakes(page), []);
      await page.close();
      assert.equal(await hall.stop(), 0);
    });

    test('game, chat and dashboard are views of one page, and fit on a phone and on a desktop', async () => {
      const page = await play('?name=Ada');
      const id = await page.evaluate(() => window.demo.session.id);
      for (const [kind, width, height] of [['', 1_440, 900], ['-phone', 390, 844]]) {
        await page.setViewport({ width, height });
        const views = [
          ['chat', () => document.querySelector('#members').getClientRects().length > 0],
          ['dashboard', () => Number(document.querySelector('#number-states').textContent) > 20],
          ['game', () => document.querySelector('#own').getClientRects().length > 0],
        ];
        for (const [view, isShown] of views) {
          await page.$eval(`#views a[href="#${view}"]`, (link) => link.click());
          await until(page, (view) => document.documentElement.dataset.view === view, view);
          await until(page, isShown);
          assert.deepEqual(await page.evaluate(collisions), [], `${view}${kind}`);
          await page.screenshot({ path: join(outputFolder, `demo-${name}-${view}${kind}.png`) });
        }
      }
      assert.equal(await page.evaluate(() => window.demo.session.id), id);
      assert.deepEqual(mistakes(page), []);
      await page.close();
    });

    test('buttons: another transport', async () => {
      const page = await play('');
      await press(page, '#force [data-transport="websocket"]');
      await until(page, () => window.demo.stats().transport === 'websocket');
      await until(page, () => window.demo.stats().down.received > 5);
      await assertFlawless(page);
      assert.deepEqual(mistakes(page), []);
      await page.close();
    });

    for (const transport of TRANSPORTS) {
      const next = NEXT[transport];
      test(`trouble over ${transport}: nothing is lost, and an upload goes on`, async (t) => {
        const page = await play(`?transports=${transport},${next ?? ''}`);
        await until(page, (transport) => window.demo.stats().transport === transport, transport);
        await until(page, () => window.demo.stats().up.received > 3);
        const id = await page.evaluate(() => window.demo.session.id);
        const goneOn = (resumed, ms = 15_000) =>
          within(ms, page, (n) => window.demo.stats().transport && window.demo.stats().resumed >= n, resumed);

        await press(page, '#upload');
        for (const cut of [1, 2, 3]) {
          await within(15_000, page, (bytes) => window.demo.stats().upload.received > bytes, cut * 700_000);
          await press(page, '#cut');
          await goneOn(cut);
        }
        // A cut is not its fault. On a busy machine the next one may be quicker, for a moment.
        await within(20_000, page, (transport) => window.demo.stats().transport === transport, transport);
        await press(page, '#block');
        await until(page, () => /blocked for \d+ s/.test(document.querySelector('#ladder').textContent));
        await (next
          ? within(15_000, page, (next) => window.demo.stats().transport === next, next)
          : goneOn(4, 30_000));
        await within(20_000, page, () => window.demo.stats().upload.state !== 'sending');
        const { upload } = await stats(page);
        t.diagnostic(JSON.stringify(upload));
        assert.equal(upload.state, 'done', upload.error);
        assert.equal(upload.received, 8_000_000);
        assert.match(upload.sha256, /^[0-9a-f]{64}$/);
        assert.equal(upload.ownSha256, upload.sha256);

        const { sent } = (await stats(page)).up;
        await press(page, '#freeze');
        // Whether the ladder finds another link within these 3 s depends on what there is; all that was sent meanwhile comes in any case.
        await within(10_000, page, (sent) => window.demo.stats().up.received > sent + 40, sent);
        if (transport === 'webtransport') {
          // By itself, some time after the block is over.
          await within(45_000, page, () => window.demo.stats().transport === 'webtransport');
        }
        await within(10_000, page, () => window.demo.stats().statesPerSecond >= 20);
        const seen = await stats(page);
        t.diagnostic(seen.steps.map(({ from, to, silenceMs }) => `${from}→${to} ${Math.round(silenceMs)} ms`).join(', '));
        assert.ok(seen.links >= 5, `${seen.links} links`);
        await assertFlawless(page);
        assert.ok(seen.steps.slice(1).every(({ outcome }) => outcome === 'resumed' || outcome === 'moved'));
        assert.equal(await page.evaluate(() => window.demo.session.id), id);
        const shown = await page.$eval('#hud', (element) => element.textContent);
        assert.match(shown, /none lost/);
        assert.match(shown, /SHA-256 equal/);
        assert.doesNotMatch(shown, /NaN|undefined|Infinity/);
        // The console may speak of links that died; the page itself makes no mistakes.
        assert.deepEqual(mistakes(page).filter((text) => text.startsWith('page:')), []);
        await page.close();
      });
    }

    test('a server that has forgotten the session: the page says so', async () => {
      const other = await startDemo();
      const page = await browser.open(`${other.tcp}/?transports=websocket`);
      await until(page, () => window.demo?.stats().up.received > 3);
      await other.stop('SIGKILL');
      const again = await startDemo({}, { tcp: `127.0.0.1:${other.tcpPort}` });
      await within(30_000, page, () => window.demo.stats().gaps === 1);
      await until(page, () => window.demo.stats().up.received > 3);
      const seen = await stats(page);
      assert.equal(seen.steps.at(-1).outcome, 'anew');
      // Both ends count anew; what the old server had is not called lost, and not called kept.
      assert.deepEqual([seen.down.missing, seen.up.missing, seen.up.repeated], [0, 0, 0]);
      assert.match(await page.$eval('#verdict', (element) => element.textContent), /a gap/);
      assert.match(await page.$eval('#proof-note', (element) => element.textContent), /could not resume/);
      await page.close();
      assert.equal(await again.stop(), 0);
    });
  });
}

/** Runs in the page: how many different colours a canvas shows, in a sample of it. */
function coloursOf(id) {
  const canvas = document.getElementById(id);
  const copy = document.createElement('canvas');
  copy.width = 200;
  copy.height = 125;
  const context = copy.getContext('2d');
  context.drawImage(canvas, 0, 0, 200, 125);
  const { data } = context.getImageData(0, 0, 200, 125);
  return new Set(new Uint32Array(data.buffer)).size;
}

/** Runs in the page: what lies over something else, and what does not fit into its panel. */
function collisions() {
  const shown = [...document.querySelectorAll('.panel, #views, #map, #own, #dash, #banner')]
    .map((element) => ({ id: element.id, box: element.getBoundingClientRect() }))
    .filter(({ box }) => box.width > 0);
  const apart = (a, b) =>
    a.right <= b.left + 1 || b.right <= a.left + 1 || a.bottom <= b.top + 1 || b.bottom <= a.top + 1;
  const pairs = shown.flatMap((one, n) =>
    shown.slice(n + 1).flatMap((other) => (apart(one.box, other.box) ? [] : [`${one.id} and ${other.id}`])),
  );
  const tight = [...document.querySelectorAll('.panel-body')]
    .filter((body) => body.scrollWidth > body.clientWidth)
    .map((body) => `${body.id} is too narrow`);
  return [...pairs, ...tight];
}

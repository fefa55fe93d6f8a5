// The demo as a visitor meets it: `throughline demo`, and its page in both browsers.

import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { outputFolder } from './support/binaries.mjs';
import { figure } from './support/figure.mjs';
import { BROWSERS, launch } from './support/browser.mjs';
import { startDemo } from './support/server.mjs';

const TRANSPORTS = ['webtransport', 'websocket', 'sse', 'poll'];

/** A few hundred bots are in the arena; this many things at least are near anyone. */
const ENTITIES = 10;

for (const name of BROWSERS) {
  describe(name, () => {
    let server;
    let browser;

    before(async () => {
      server = await startDemo();
      browser = await launch(name);
      await mkdir(outputFolder, { recursive: true });
    });
    after(async () => {
      await browser?.close();
      assert.equal(await server?.stop(), 0);
      assert.deepEqual(server.complaints, []);
    });

    /** Not by animation frames, as puppeteer would: those stand still in the page that lies behind. */
    function until(page, condition, ...args) {
      return page.waitForFunction(condition, { timeout: 5_000, polling: 100 }, ...args);
    }

    async function play(query) {
      const page = await browser.open(`${server.tcp}/${query}`);
      await until(page, () => window.demo?.stats().entities > 0).catch((error) => {
        throw new Error(`no state came: ${page.complaints.join('; ') || error.message}`);
      });
      return page;
    }

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
      assert.deepEqual(page.complaints, []);
      await page.close();
    });

    for (const transport of TRANSPORTS.slice(1)) {
      figure(`over ${transport}`, async (t) => {
        const page = await play(`?transports=${transport}`);
        const seen = await watch(page, 4);
        t.diagnostic(JSON.stringify(seen));
        assert.equal(seen.transport, transport);
        assert.ok(seen.rate >= (transport === 'poll' ? 25 : 28.5), `${seen.rate} states per second`);
        assert.ok(seen.entities >= ENTITIES);
        assert.deepEqual(page.complaints, []);
        await page.close();
      });
    }

    test('two pages see each other, and what the other says', async () => {
      const ada = await play('?name=Ada');
      const ben = await play('?name=Ben&transports=websocket');
      await until(ada, () => window.demo.stats().players === 2);
      await until(ben, () => window.demo.stats().players === 2);
      await ada.evaluate(() => {
        document.querySelector('#line').value = 'Grüße <b>an alle</b> 🛰️';
        document.querySelector('#chat-form').requestSubmit();
      });
      const heard = () => document.querySelector('#lines').textContent.includes('Grüße <b>an alle</b> 🛰️');
      await until(ben, heard);
      await until(ada, heard);
      await ben.close();
      await until(ada, () => window.demo.stats().players === 1);
      assert.deepEqual(ada.complaints, []);
      await ada.close();
    });

    test('buttons: another transport, and a cut link', async () => {
      const page = await play('');
      // Clicked by the page itself: its panel still grows, and a click at coordinates may miss.
      await page.$eval('#force [data-transport="websocket"]', (button) => button.click());
      await until(page, () => window.demo.stats().transport === 'websocket');
      await until(page, () => !document.querySelector('#cut').disabled);
      const id = await page.evaluate(() => {
        const { id } = window.demo.session;
        document.querySelector('#cut').click();
        return id;
      });
      await until(page, (id) => window.demo.session.state === 'open' && window.demo.session.id !== id, id);
      const { rate } = await watch(page, 2);
      assert.ok(rate >= 28, `${rate} states per second after the cut`);
      assert.deepEqual(page.complaints, []);
      await page.close();
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

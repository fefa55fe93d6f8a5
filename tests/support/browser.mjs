// Chromium and Firefox, headless, with a fresh profile, and a record of everything that went wrong in their pages.

import { readFile } from 'node:fs/promises';
import puppeteer from 'puppeteer-core';
import { binaries } from './binaries.mjs';
import { signalTree } from './processes.mjs';

const CHROMIUM_FLAGS = [
  '--no-sandbox',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--no-first-run',
  '--disable-gpu',
  '--disable-dev-shm-usage',
];

/** Firefox as it comes, but silent: it would ask its makers for updates and lists. */
const FIREFOX_PREFERENCES = {
  'app.update.disabledForTesting': true,
  'browser.safebrowsing.downloads.remote.enabled': false,
  'datareporting.policy.dataSubmissionEnabled': false,
  'extensions.systemAddon.update.enabled': false,
  'network.captive-portal-service.enabled': false,
  'network.connectivity-service.enabled': false,
  'services.settings.server': 'data:,',
  'toolkit.telemetry.enabled': false,
};

export const BROWSERS = ['chromium', 'firefox'];

const kit = readFile(new URL('in-page.js', import.meta.url), 'utf8');

/** Starts `name`, one of BROWSERS. `close()` it. */
export async function launch(name) {
  const common = { headless: true, executablePath: binaries[name], protocolTimeout: 240_000, timeout: 60_000 };
  const browser = await puppeteer.launch(
    name === 'firefox'
      ? { ...common, browser: 'firefox', extraPrefsFirefox: FIREFOX_PREFERENCES }
      : { ...common, browser: 'chrome', pipe: true, args: CHROMIUM_FLAGS },
  );
  return {
    name,
    /** Opens `url`. What its console says of errors is in `page.complaints`. */
    async open(url) {
      const page = await browser.newPage();
      page.complaints = [];
      page.on('console', (message) => {
        if (message.type() === 'error') {
          page.complaints.push(`console: ${message.text()} (${message.location()?.url ?? 'no address'})`);
        }
      });
      page.on('pageerror', (error) => page.complaints.push(`page: ${error.stack ?? error}`));
      await page.goto(url);
      return page;
    },
    /** Opens the testbed's page with the browser client, and in-page.js beside it. */
    async openTestbed(origin) {
      const page = await this.open(`${origin}/blank`);
      await page.waitForFunction(() => window.throughline !== undefined, { timeout: 10_000 }).catch((error) => {
        throw new Error(`the browser client did not load: ${page.complaints.join('; ') || error.message}`);
      });
      await page.addScriptTag({ content: await kit });
      return page;
    },
    /** All its processes get it: SIGSTOP is a machine that falls asleep. */
    signal: (signal) => signalTree(browser.process().pid, signal),
    close: () => browser.close(),
  };
}

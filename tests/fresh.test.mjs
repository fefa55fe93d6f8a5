// Newest wins, where a queue would grow old: a reader that gets a third of what is sent. Runs in a network namespace of its own.

import assert from 'node:assert/strict';
import { describe } from 'node:test';
import { behind, watch } from './support/age.mjs';
import { BROWSERS } from './support/browser.mjs';
import { figure } from './support/figure.mjs';
import { assertIsolated } from './support/network.mjs';

const SEED = 20;
const DELAY = 'delay 10ms';
/** 30 states of 1,000 bytes per second are sent; 10 KB of them per second can be read. */
const READERS = {
  'slow link': { commands: [DELAY, 'rate down 80kbit'], busyMs: 0 },
  'slow page': { commands: [DELAY], busyMs: 100 },
};
const SECONDS = 15;
const MOST_MS = 400;

assertIsolated();

for (const name of BROWSERS) {
  describe(name, () => {
    for (const [reader, { commands, busyMs }] of Object.entries(READERS)) {
      figure(`a ${reader} sees fresh state over WebSocket`, (t) =>
        behind({ seed: SEED, commands }, name, async (page) => {
          const seen = await watch(page, { transport: 'websocket', seconds: SECONDS, busyMs });
          t.diagnostic(JSON.stringify(seen));
          assert.ok(seen.p50 < MOST_MS, `median age ${seen.p50} ms`);
          assert.ok(seen.perSecond > 5, `${seen.perSecond} states per second`);
        }),
      );
    }
  });
}

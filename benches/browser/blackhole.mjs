// How long a page waits for its first message in a network that swallows UDP: node benches/browser/blackhole.mjs ROUNDS DELAY
//
// Each round starts two browsers: one whose page tries everything, as it does by default, and one that goes to WebSocket straight away. Both send a message at
// once, and wait for it to come back. DELAY, such as `25ms` or `0ms`, is that of each direction. Prints a line of JSON. Stands on what tests/ has: the
// testbed, the relay, and a network namespace, for which it needs root.

import { spawn } from 'node:child_process';
import { networkInterfaces } from 'node:os';
import { fileURLToPath } from 'node:url';
import { launch } from '../../tests/support/browser.mjs';
import { drop, isolated } from '../../tests/support/network.mjs';
import { startPath } from '../../tests/support/path.mjs';
import { startTestbed, startTestbedBehind } from '../../tests/support/server.mjs';

const UDP = 'meta l4proto udp';
/** Nobody comes back to a server that stops here. */
const QUICK_DRAIN = { THROUGHLINE_LIMITS__DRAIN_TIMEOUT: '2s', THROUGHLINE_LIMITS__DRAIN_SPREAD: '1s' };

const [rounds, delay] = [Number(process.argv[2] ?? 1), process.argv[3] ?? '0ms'];

if (Object.keys(networkInterfaces()).every((name) => name === 'lo')) {
  console.log(JSON.stringify(await measure()));
} else {
  const self = fileURLToPath(import.meta.url);
  const child = spawn(...isolated(process.execPath, [self, ...process.argv.slice(2)]), { stdio: 'inherit' });
  process.once('SIGTERM', () => child.kill());
  child.once('close', (code) => process.exit(code ?? 1));
}

async function measure() {
  const path = delay === '0ms' ? null : await startPath({ commands: [`delay ${delay}`] });
  try {
    const server = path ? await startTestbedBehind(path, QUICK_DRAIN) : await startTestbed(QUICK_DRAIN);
    try {
      await (path ?? { drop }).drop(UDP);
      const found = [];
      for (let round = 0; round < rounds; round++) {
        const direct = await firstMessage(server.tcp, { transports: ['websocket'] });
        const raced = await firstMessage(server.tcp, {});
        found.push({ direct_ms: direct.ms, raced_ms: raced.ms, transport: raced.transport });
      }
      return { rounds: found };
    } finally {
      await server.stop();
    }
  } finally {
    await path?.stop();
  }
}

/** A fresh browser each time: Chromium delays WebTransport after a few failures. */
async function firstMessage(origin, options) {
  const browser = await launch('chromium');
  try {
    const page = await browser.openTestbed(origin);
    return await page.evaluate(async (options) => {
      const began = performance.now();
      const session = window.throughline.connect('/rt', options);
      session.send('first');
      await kit.within(20_000, new Promise((resolve) => session.on('message', resolve)), 'the first message');
      const seen = { ms: performance.now() - began, transport: session.transport };
      session.close().catch(() => {});
      return seen;
    }, options);
  } finally {
    await browser.close();
  }
}

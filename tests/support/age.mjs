// How old the state is that a page sees, at the other end of a path with faults.

import { launch } from './browser.mjs';
import { startPath } from './path.mjs';
import { startTestbedBehind } from './server.mjs';

/** Nobody comes back to a server that stops here. */
const QUICK_DRAIN = { THROUGHLINE_LIMITS__DRAIN_TIMEOUT: '2s', THROUGHLINE_LIMITS__DRAIN_SPREAD: '1s' };

/** Opens a page in the browser `name` whose server is at the other end of a path with these `commands`. */
export async function behind({ seed, commands, env, binary }, name, use) {
  const path = await startPath({ seed, commands: commands.filter((command) => !command.startsWith('rate')) });
  try {
    const server = await startTestbedBehind(path, { ...QUICK_DRAIN, ...env }, binary);
    const browser = await launch(name);
    try {
      const page = await browser.openTestbed(server.tcp);
      for (const command of commands) {
        await path.say(command); // the page itself has come over a fast link
      }
      await use(page);
    } finally {
      await browser.close();
      await server.stop();
    }
  } finally {
    await path.stop();
  }
}

/** Ages of what a session over `transport` sees; each state keeps the page busy for `busyMs`. The clocks of the two ends are one. */
export async function watch(page, { transport, seconds, busyMs = 0, command = '!states' }) {
  const ages = await page.evaluate(
    async (transport, seconds, busyMs, command) => {
      const session = window.throughline.connect('/rt', { transports: [transport] });
      await kit.within(20_000, session.ready, `ready over ${transport}`);
      const ages = [];
      let first = null;
      const look = (bytes) => {
        const now = Date.now();
        first ??= now;
        if (now - first <= seconds * 1_000) {
          ages.push(now - new DataView(bytes.buffer, bytes.byteOffset).getFloat64(4));
        }
        const until = performance.now() + busyMs;
        while (performance.now() < until) {
          // as a page that draws
        }
      };
      session.on('datagram', look);
      session.on('message', look);
      session.send(`${command} 30 ${seconds + 5}`);
      await new Promise((resolve) => setTimeout(resolve, seconds * 1_000 + 2_000));
      session.close().catch(() => {});
      return ages;
    },
    transport,
    seconds,
    busyMs,
    command,
  );
  ages.sort((a, b) => a - b);
  const of = (share) => Math.round(ages[Math.min(ages.length - 1, Math.floor(ages.length * share))]);
  return { transport, p50: of(0.5), p95: of(0.95), p99: of(0.99), perSecond: (ages.length / seconds).toFixed(1) };
}

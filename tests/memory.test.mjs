// What an idle session costs the server, on each transport: all of the process's memory, not only what has a name.
//
// A session over sse or poll has two connections, as in a browser: the second is that of its POSTs, and is kept between two of them.
//
// `THROUGHLINE_SESSIONS=10000 node --test tests/memory.test.mjs` measures what docs/figures.md says.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { binaries } from './support/binaries.mjs';
import { start } from './support/child.mjs';
import { startServe } from './support/server.mjs';

const SESSIONS = Number(process.env.THROUGHLINE_SESSIONS ?? 1_000);
const OPEN_MS = 60_000 + SESSIONS * 20;

/** Bytes of a session at most: a fifth above what a thousand take. Ten thousand take less each, since what a server needs anyway is a smaller part of it. */
const LIMITS = [
  { transport: 'websocket', limit: 4_800 },
  { transport: 'sse', limit: 7_800 },
  { transport: 'poll', limit: 8_700 },
  { transport: 'websocket', tls: true, limit: 15_000 },
  { transport: 'sse', tls: true, limit: 26_500 },
  { transport: 'poll', tls: true, limit: 27_500 },
  { transport: 'webtransport', limit: 47_000 },
];

for (const { transport, tls = false, limit } of LIMITS) {
  const name = tls ? `${transport} over TLS` : transport;
  test(`${SESSIONS} idle sessions, ${name}: at most ${limit} bytes each`, async (t) => {
    const server = await startServe({
      THROUGHLINE_TCP__TLS: String(tls),
      THROUGHLINE_LIMITS__MAX_SESSIONS: String(SESSIONS + 10),
      THROUGHLINE_LIMITS__MAX_SESSIONS_PER_IP: String(SESSIONS + 10),
      THROUGHLINE_LIMITS__MAX_TCP_CONNECTIONS: String(4 * SESSIONS),
      THROUGHLINE_LIMITS__OPENS_PER_IP_PER_SECOND: '100000',
      THROUGHLINE_LIMITS__OPENS_PER_IP_BURST: '100000',
    });
    t.after(() => server.stop());
    const before = await settled(server);

    const { host } = new URL(transport === 'webtransport' ? server.quic : server.tcp);
    const options = ['--transport', transport, ...(tls ? ['--tls'] : [])];
    const client = start(binaries.idleSessions, [host, String(SESSIONS), ...options]);
    t.after(() => client.stop());
    const began = performance.now();
    await client.stdout.find(({ json }) => json?.event === 'open', 'all sessions open', OPEN_MS);
    t.diagnostic(`opened in ${Math.round(performance.now() - began)} ms`);
    const during = await settled(server);
    const each = (during - before) / SESSIONS;
    const kib = (bytes) => (bytes / 1_024).toFixed(1);
    t.diagnostic(`before ${kib(before)} KiB, with ${SESSIONS} sessions ${kib(during)} KiB: ${Math.round(each)} bytes each`);
    assert.ok(each <= limit, `${Math.round(each)} bytes each`);

    client.stdin.end();
    assert.equal(await client.exited, 0, client.stderr.tail());
    t.diagnostic(`afterwards ${kib(await settled(server))} KiB`);
  });
}

/** Resident bytes, once they have not grown for two seconds: what the handshakes needed has been given back by then. */
async function settled(server) {
  let bytes = await server.residentBytes();
  for (let still = 0; still < 4; ) {
    await new Promise((resolve) => setTimeout(resolve, 500));
    const now = await server.residentBytes();
    still = Math.abs(now - bytes) < 64 * 1_024 ? still + 1 : 0;
    bytes = now;
  }
  return bytes;
}

// What an idle WebTransport session costs the server: 1,000 of them against `throughline serve`.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { binaries } from './support/binaries.mjs';
import { start } from './support/child.mjs';
import { startServe } from './support/server.mjs';

const SESSIONS = 1_000;
const LIMIT_BYTES = 55_000;

test(`${SESSIONS} idle WebTransport sessions: at most ${LIMIT_BYTES} bytes each`, async (t) => {
  const server = await startServe({
    THROUGHLINE_LIMITS__MAX_SESSIONS_PER_IP: String(SESSIONS + 10),
    THROUGHLINE_LIMITS__OPENS_PER_IP_PER_SECOND: '1000',
    THROUGHLINE_LIMITS__OPENS_PER_IP_BURST: '2000',
  });
  t.after(() => server.stop());
  const before = await settled(server);

  const client = start(binaries.idleSessions, [new URL(server.quic).host, String(SESSIONS)]);
  t.after(() => client.stop());
  const began = performance.now();
  await client.stdout.find(({ json }) => json?.event === 'open', 'all sessions open', 60_000);
  t.diagnostic(`opened in ${Math.round(performance.now() - began)} ms`);
  const during = await settled(server);
  const each = (during - before) / SESSIONS;
  const kib = (bytes) => (bytes / 1_024).toFixed(1);
  t.diagnostic(`before ${kib(before)} KiB, with ${SESSIONS} sessions ${kib(during)} KiB: ${kib(each)} KiB each`);
  assert.ok(each <= LIMIT_BYTES, `${Math.round(each)} bytes each`);

  client.stdin.end();
  assert.equal(await client.exited, 0, client.stderr.tail());
  t.diagnostic(`afterwards ${kib(await settled(server))} KiB`);
});

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

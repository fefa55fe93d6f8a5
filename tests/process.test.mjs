// The commands as a person or an init system meets them: mistakes are one line and an exit code, signals are a clean end.

import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { binaries } from './support/binaries.mjs';
import { start } from './support/child.mjs';
import { startDemo, startTestbed } from './support/server.mjs';
import { upgrade } from './support/websocket.mjs';
import { ackOf, frames, goaway, linkHeaders, ping, readClose, readWelcome, TYPES } from './support/wire.mjs';

/** From a stop signal to the end when everybody goes: well below `drain_timeout`, which is 8 s. */
const DRAIN_MS = 3_000;

describe('mistakes', () => {
  let folder;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'throughline-test-'));
  });
  after(() => rm(folder, { recursive: true, force: true }));

  const free = { THROUGHLINE_TCP__LISTEN: '127.0.0.1:0', THROUGHLINE_QUIC__LISTEN: '127.0.0.1:0' };

  async function fails(args, env, exit, ...wanted) {
    const child = start(binaries.throughline, args, {
      env: { PATH: process.env.PATH, THROUGHLINE_CERTIFICATE__DIR: folder, ...env },
    });
    const late = setTimeout(() => child.kill('SIGKILL'), 5_000);
    assert.equal(await child.exited, exit, child.stderr.tail());
    clearTimeout(late);
    assert.equal(child.stdout.all.length, 0);
    assert.equal(child.stderr.all.length, 1, child.stderr.tail());
    for (const words of wanted) {
      assert.match(child.stderr.all[0].text, words);
    }
  }

  test('an unknown flag, an unknown command, no address', async () => {
    await fails(['demo', '--udp', '1'], {}, 2, /--udp/);
    await fails(['sreve'], {}, 2, /sreve/);
    await fails([], {}, 2, /demo, serve, config or cert/);
    await fails(['demo', '--tcp', 'localhost:80x'], {}, 2, /localhost:80x/, /127\.0\.0\.1:8080/);
  });

  test('a busy port, TCP and UDP', async () => {
    const other = await startTestbed();
    try {
      await fails(['demo', '--tcp', `127.0.0.1:${other.tcpPort}`, '--quic', '127.0.0.1:0'], {}, 1, new RegExp(`${other.tcpPort}`));
      await fails(['demo', '--tcp', '127.0.0.1:0', '--quic', `127.0.0.1:${other.quicPort}`], {}, 1, new RegExp(`${other.quicPort}`));
    } finally {
      await other.stop();
    }
  });

  test('a configuration that is not there, not TOML, with an unknown key, with a wrong value', async () => {
    const file = join(folder, 'throughline.toml');
    await fails(['serve', '--config', join(folder, 'nothing.toml')], free, 2, /nothing\.toml/);
    for (const [text, wanted] of [
      ['limits = [', /throughline\.toml/],
      ['[limits]\nmax_sesions = 5\n', /max_sesions/],
      ['[limits]\nmax_sessions = 0\n', /max_sessions/],
      ['[limits]\nidle_timeout = 30\n', /idle_timeout/],
    ]) {
      await writeFile(file, text);
      await fails(['serve', '--config', file], free, 2, wanted);
    }
    await fails(['serve'], { ...free, THROUGHLINE_LIMITS__MAX_SESSIONS: 'many' }, 2, /max_sessions/i);
  });

  test('a certificate that is not there, or is none', async () => {
    const file = join(folder, 'throughline.toml');
    await writeFile(file, '[certificate]\nchain = "/nowhere/chain.pem"\nkey = "/nowhere/key.pem"\n');
    const env = { ...free, THROUGHLINE_CERTIFICATE__DIR: undefined };
    await fails(['serve', '--config', file], env, 1, /\/nowhere\/chain\.pem/);
    const none = join(folder, 'none.pem');
    await writeFile(none, 'not a certificate\n');
    await writeFile(file, `[certificate]\nchain = "${none}"\nkey = "${none}"\n`);
    await fails(['serve', '--config', file], env, 1, /none\.pem/);
  });
});

describe('signals', () => {
  for (const signal of ['SIGTERM', 'SIGINT']) {
    test(`${signal}: sessions are asked to leave, and told, listeners close, exit 0`, async (t) => {
      const server = await startDemo();
      const { connection } = await upgrade(`${server.tcp}/rt/websocket`);
      await connection.welcome();
      connection.send(ping());
      const poll = await fetch(`${server.tcp}/rt/poll`, { headers: { 'Throughline-Version': '1' } });
      const welcome = readWelcome(frames(Buffer.from(await poll.arrayBuffer()))[0].payload);
      const held = fetch(`${server.tcp}/rt/poll`, { headers: linkHeaders(welcome) });
      await server.log.find(({ json }) => json?.message === 'session opened', 'a session');
      assert.equal((await fetch(`${server.tcp}/readyz`)).status, 200);

      const began = performance.now();
      server.signal(signal);
      await next(connection, TYPES.GOAWAY);
      assert.equal((await fetch(`${server.tcp}/readyz`)).status, 503);
      const opening = await fetch(`${server.tcp}/rt/poll`, { headers: { 'Throughline-Version': '1' } });
      assert.deepEqual([opening.status, (await opening.json()).code], [503, 18]);
      assert.ok(Number(opening.headers.get('Retry-After')) > 0);
      connection.send(goaway());
      const close = readClose((await next(connection, TYPES.CLOSE)).payload);
      assert.deepEqual([close.origin, close.code], [0, 18]);
      assert.equal((await connection.closed).code, 4_018);
      const [last] = frames(Buffer.from(await (await held).arrayBuffer())).slice(-1);
      assert.equal(readClose(last.payload).code, 18);
      assert.equal(await server.exited, 0);
      const ms = performance.now() - began;
      t.diagnostic(`${Math.round(ms)} ms`);
      assert.ok(ms < DRAIN_MS, `${ms} ms`);
      // While sessions are told, the listener stays, and refuses with 503; after that nobody has the port.
      const refused = net.connect(server.tcpPort, '127.0.0.1');
      const outcome = await new Promise((resolve) =>
        refused.once('connect', () => resolve('accepted')).once('error', ({ code }) => resolve(code)),
      );
      refused.destroy();
      assert.equal(outcome, 'ECONNREFUSED');
      await server.stop();
    });
  }

  test('a second signal does not wait for a client that does not leave', async () => {
    const server = await startDemo();
    const { connection } = await upgrade(`${server.tcp}/rt/websocket`);
    await connection.welcome();
    connection.send(ping());
    await server.log.find(({ json }) => json?.message === 'session opened', 'a session');
    const began = performance.now();
    server.signal('SIGTERM');
    await next(connection, TYPES.GOAWAY);
    server.signal('SIGTERM');
    assert.notEqual(await server.exited, 0);
    assert.ok(performance.now() - began < DRAIN_MS);
    await server.stop();
  });
});

/** The next frame of this type. Acknowledges what comes before: a server waits for that before it goes. */
async function next(connection, wanted) {
  for (;;) {
    const packet = frames(await connection.next());
    const found = packet.find(({ type }) => type === wanted);
    if (found?.type === TYPES.CLOSE) {
      return found;
    }
    for (const data of packet.filter(({ type }) => type === TYPES.STREAM)) {
      connection.send(ackOf(data));
    }
    if (found) {
      return found;
    }
  }
}

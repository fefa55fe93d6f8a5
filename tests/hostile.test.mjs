// Bad input, while two sessions that behave go on: each offence gets its status or close code, nobody else notices, memory returns.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import dgram from 'node:dgram';
import { once } from 'node:events';
import http2 from 'node:http2';
import net from 'node:net';
import { after, before, describe, test } from 'node:test';
import { aioquic, startAioquic } from './support/aioquic.mjs';
import { startHealthy } from './support/healthy.mjs';
import { startTestbed } from './support/server.mjs';
import { upgrade } from './support/websocket.mjs';
import { frame, frames, linkHeaders, message, ping, readClose, readWelcome, stream, TYPES, varint } from './support/wire.mjs';

/** Short deadlines, so that waiting for them is short. */
const OPEN_TIMEOUT_MS = 1_000;
const HEADER_READ_TIMEOUT_MS = 2_000;

/** What the server may keep after everything: allocators do not give back the last page. */
const MEMORY_MARGIN = 24 * 1_048_576;

describe('bad input', () => {
  let server;
  let healthy;
  let healthyQuic;
  let residentBefore;

  before(async () => {
    server = await startTestbed({
      THROUGHLINE_LIMITS__OPEN_TIMEOUT: `${OPEN_TIMEOUT_MS}ms`,
      THROUGHLINE_LIMITS__HEADER_READ_TIMEOUT: `${HEADER_READ_TIMEOUT_MS}ms`,
      THROUGHLINE_LIMITS__OPENS_PER_IP_PER_SECOND: '1000',
      THROUGHLINE_LIMITS__OPENS_PER_IP_BURST: '5000',
    });
    healthy = await startHealthy(server.tcp);
    healthyQuic = startAioquic('watch', `${server.quic}/rt/webtransport?v=1`);
    await healthyQuic.stdout.find(({ json }) => json?.event === 'watching', 'watching', 15_000);
    residentBefore = await server.residentBytes();
  });

  after(async () => {
    assert.equal(await server.stop(), 0);
    assert.deepEqual(server.complaints, []);
  });

  describe('openings', () => {
    const websocket = (protocols, headers) => upgrade(`${server.tcp}/rt/websocket`, { protocols, headers });
    const get = (path, headers) => fetchJson(`${server.tcp}/rt/${path}`, { headers });
    const token = (text) => Buffer.from(text).toString('base64url');

    /** What is asked, the same over three transports; webtransport is in aioquic.test.mjs. */
    const CASES = [
      ['no version', [], {}, 400, 'BAD_REQUEST'],
      ['another version', ['throughline.v2'], { 'Throughline-Version': '2' }, 400, 'UNSUPPORTED_VERSION'],
      ['a version that is no number', ['throughline.vx'], { 'Throughline-Version': 'x' }, 400, null],
      [
        'a refused token',
        ['throughline.v1', `throughline.token.${token('refused')}`],
        { 'Throughline-Version': '1', Authorization: 'Bearer refused' },
        401,
        'UNAUTHORIZED',
      ],
      [
        'a token of 4,097 bytes',
        ['throughline.v1', `throughline.token.${token('x'.repeat(4_097))}`],
        { 'Throughline-Version': '1', Authorization: `Bearer ${'x'.repeat(4_097)}` },
        400,
        'BAD_REQUEST',
      ],
      [
        'a session without its key',
        ['throughline.v1', `throughline.session.${token(randomBytes(16))}`],
        { 'Throughline-Version': '1', 'Throughline-Session': token(randomBytes(16)) },
        400,
        'BAD_REQUEST',
      ],
      [
        'a token that the application forbids',
        ['throughline.v1', `throughline.token.${token('forbidden')}`],
        { 'Throughline-Version': '1', Authorization: 'Bearer forbidden' },
        403,
        'FORBIDDEN',
      ],
      [
        'too many',
        ['throughline.v1', `throughline.token.${token('busy')}`],
        { 'Throughline-Version': '1', Authorization: 'Bearer busy' },
        429,
        'LIMIT_REACHED',
      ],
    ];
    for (const [what, protocols, headers, status, name] of CASES) {
      test(`${what}: ${status}`, async () => {
        for (const refused of [await websocket(protocols), await get('sse', headers), await get('poll', headers)]) {
          assert.equal(refused.status, status);
          assert.equal(typeof refused.body.code, 'number');
          assert.equal(refused.body.name, name ?? refused.body.name);
          assert.ok(refused.body.reason.length > 5);
          assert.equal(refused.headers['retry-after'], status === 429 ? '2' : undefined);
        }
      });
    }

    test("another site's Origin: 403 on every path of a session", async () => {
      const evil = { Origin: 'https://evil.example', 'Throughline-Version': '1' };
      const name = linkHeaders({ session: token(randomBytes(16)), key: token(randomBytes(16)), link: 1 });
      for (const refused of [
        await websocket(['throughline.v1'], evil),
        await get('sse', evil),
        await get('poll', evil),
        await fetchJson(`${server.tcp}/rt/send`, { method: 'POST', body: 'x', headers: { ...evil, ...name } }),
      ]) {
        assert.deepEqual([refused.status, refused.body.name], [403, 'FORBIDDEN']);
      }
    });

    test('a session that nobody knows is a new one: resumed is 0, and the id another', async () => {
      const [session, key] = [token(randomBytes(16)), token(randomBytes(16))];
      const protocols = [
        'throughline.v1',
        `throughline.session.${session}`,
        `throughline.key.${key}`,
        'throughline.received.0.4711',
      ];
      const { connection } = await websocket(protocols);
      const welcome = await connection.welcome();
      assert.deepEqual([welcome.flags & 1, welcome.received], [0, 0]);
      assert.notEqual(welcome.session, session);
      connection.destroy();
    });

    test('a POST and a further poll for a session that is gone, or with a wrong key: 410', async () => {
      const { connection } = await websocket(['throughline.v1']);
      const open = await connection.welcome();
      connection.send(ping());
      const gone = { session: token(randomBytes(16)), key: token(randomBytes(16)), link: 1 };
      for (const name of [gone, { ...open, key: gone.key }]) {
        const headers = { 'Throughline-Version': '1', ...linkHeaders(name) };
        for (const refused of [
          await fetchJson(`${server.tcp}/rt/send`, { method: 'POST', body: ping(), headers }),
          await get('poll', headers),
        ]) {
          assert.deepEqual([refused.status, refused.body.name, refused.body.retry], [410, 'UNKNOWN_SESSION', true]);
        }
      }
      connection.destroy();
    });

    test('methods and paths that are not there', async () => {
      for (const [method, path, status] of [
        ['POST', 'sse', 405],
        ['GET', 'send', 405],
        ['GET', 'webtransport', 400],
        ['GET', 'websocket', 426],
        ['GET', 'nothing', 404],
        ['DELETE', 'info', 405],
      ]) {
        const { status: got } = await fetchJson(`${server.tcp}/rt/${path}`, { method });
        assert.equal(got, status, `${method} ${path}`);
      }
    });
  });

  describe('frames', () => {
    /** What is sent after WELCOME and PING, and the code that it draws. */
    const CASES = [
      ['an unknown frame', frame(0x3a, Buffer.from('what?')), 4],
      ['a frame of 65,537 bytes', Buffer.concat([varint(TYPES.STREAM), varint(65_537)]), 5],
      ['a packet that ends inside a frame', stream(0, message('hello')).subarray(0, 6), 3],
      ['a payload without its fields', frame(TYPES.STREAM, varint(0)), 3],
      ['a payload with more than its fields', frame(TYPES.PING, varint(2), varint(2)), 3],
      ['a number above 2^53', frame(TYPES.PING, Buffer.from('ffffffffffffffff', 'hex')), 3],
      ['WELCOME from a client', frame(TYPES.WELCOME, Buffer.alloc(60)), null],
      ['a gap in the stream', stream(7, Buffer.from('x')), 2],
      ['a stream that does not exist', frame(TYPES.STREAM, varint(4), varint(0), Buffer.from('x')), 2],
      ['an ACK of what was never sent', frame(TYPES.ACK, varint(0), varint(1_000_000), varint(1_000_000)), 2],
      ['a message over max_message', stream(0, Buffer.concat([varint(0), varint(2 ** 40)])), 7],
      ['a message of an unknown kind', stream(0, Buffer.concat([varint(9), varint(1), varint(1)])), 8],
      ['a text that is not UTF-8', stream(0, Buffer.concat([varint(1), varint(2), Buffer.from('c328', 'hex')])), 8],
      ['a datagram of 1,101 bytes', frame(TYPES.DATAGRAM, Buffer.alloc(1_101)), 9],
    ];

    for (const [what, bytes, code] of CASES) {
      test(`${what}: ${code ?? 'closed'}`, async () => {
        const { connection } = await upgrade(`${server.tcp}/rt/websocket`);
        const { session } = await connection.welcome();
        connection.send(ping());
        await pong(connection);
        connection.send(bytes);
        const close = await nextClose(connection);
        const carrier = await connection.closed;
        assert.equal(close.origin, 0);
        assert.equal(close.code, code ?? close.code);
        assert.deepEqual([carrier?.code, carrier?.reason], [4_000 + close.code, close.reason.slice(0, 123)]);
        assert.equal((await server.sessionClosed(session)).code, close.code);

        const posted = await post(bytes);
        assert.deepEqual([posted.status, posted.body.code], [400, close.code]);
        assert.ok(posted.body.reason.length > 5);
      });
    }

    test('a text message: 2; a packet of 262,145 bytes: 5; an unmasked frame, and no frame at all: closed', async () => {
      for (const [use, code] of [
        [(connection) => connection.send(Buffer.from('hello'), 1), 4_002],
        [(connection) => connection.send(Buffer.alloc(262_145)), 4_005],
        [(connection) => connection.send(ping(), 2, { masked: false }), null],
        // All reserved bits: random bytes may be the beginning of a long frame.
        [(connection) => connection.raw(Buffer.alloc(5_000, 0xff)), null],
      ]) {
        const { connection } = await upgrade(`${server.tcp}/rt/websocket`);
        await connection.welcome();
        connection.send(ping());
        await pong(connection);
        const began = performance.now();
        use(connection);
        const closed = await connection.closed;
        if (code !== null) {
          assert.equal(closed?.code, code);
        }
        assert.ok(performance.now() - began < 4_000, 'at once');
      }
    });

    test('a POST of more than 1 MiB: 413', async () => {
      const poll = await openPoll();
      const headers = linkHeaders(poll);
      const body = Buffer.alloc(1_048_577);
      const refused = await fetchJson(`${server.tcp}/rt/send`, { method: 'POST', body, headers });
      assert.deepEqual([refused.status, refused.body.name], [413, 'FRAME_TOO_LARGE']);
    });

    const NATIVE = [
      ['unknown-frame', 4],
      ['oversized-frame', 5],
      ['truncated-payload', 3],
      ['gap', 2],
      ['beyond-credit', 6],
      ['message-too-large', 7],
      ['large-datagram', 9],
      ['random', null],
    ];
    for (const [what, code] of NATIVE) {
      test(`webtransport, ${what}: ${code ?? 'closed'}`, async () => {
        const [end] = await aioquic('hostile', `${server.quic}/rt/webtransport?v=1`, '--case', what);
        assert.equal(end.session.code, 4_000 + (code ?? end.session.code - 4_000));
        assert.ok(end.session.reason.length > 5, JSON.stringify(end));
      });
    }
  });

  describe('silence', () => {
    test('an opened link that says nothing: 15, after open_timeout', async () => {
      const began = performance.now();
      const { connection } = await upgrade(`${server.tcp}/rt/websocket`);
      assert.equal((await nextClose(connection)).code, 15);
      assert.equal((await connection.closed).code, 4_015);
      const [end] = await aioquic('hostile', `${server.quic}/rt/webtransport?v=1`, '--case', 'silent');
      assert.equal(end.session.code, 4_015);
      assert.ok(end.seconds > 0.9 && end.seconds < 3, `${end.seconds} s`);
      const poll = await openPoll(false);
      const answer = await fetch(`${server.tcp}/rt/poll`, { headers: linkHeaders(poll) });
      const [close] = frames(Buffer.from(await answer.arrayBuffer()));
      assert.deepEqual([close.type, readClose(close.payload).code], [TYPES.CLOSE, 15]);
      assert.ok(performance.now() - began < 10_000);
    });

    test('a TCP connection that says nothing, and one that sends a header byte by byte: closed', async () => {
      const began = performance.now();
      const silent = net.connect(server.tcpPort, '127.0.0.1');
      const slow = net.connect(server.tcpPort, '127.0.0.1');
      slow.write('GET /rt/sse HTTP/1.1\r\nhost: x\r\n');
      const dripping = setInterval(() => slow.write('x'), 200);
      // A reset is an end as well: `once` would take it for a failure.
      const closed = (socket) => new Promise((resolve) => socket.on('error', () => {}).resume().on('close', resolve));
      await Promise.all([closed(silent), closed(slow)]);
      clearInterval(dripping);
      const ms = performance.now() - began;
      assert.ok(ms < HEADER_READ_TIMEOUT_MS + 1_500, `${ms} ms`);
    });
  });

  describe('floods', () => {
    test('ten thousand streams of one WebTransport session', async (t) => {
      const [streams, end] = await aioquic('hostile', `${server.quic}/rt/webtransport?v=1`, '--case', 'ten-thousand-streams');
      t.diagnostic(JSON.stringify({ ...streams, ...end }));
      assert.ok(streams.limit <= 256, `${streams.limit} streams allowed`);
      assert.equal(end.session.code, 4_002);
    });

    test('ten thousand HTTP/2 streams, reset at once', async () => {
      const client = http2.connect(server.tcp);
      client.on('error', () => {});
      await once(client, 'remoteSettings');
      const ended = Promise.race([once(client, 'close'), once(client, 'goaway')]);
      let count = 0;
      while (count < 10_000 && !client.destroyed) {
        for (let i = 0; i < 100 && !client.destroyed; i++) {
          const stream = client.request({ ':path': '/rt/info' });
          stream.on('error', () => {});
          stream.close(http2.constants.NGHTTP2_CANCEL);
          count++;
        }
        await new Promise((resolve) => setImmediate(resolve));
      }
      await Promise.race([ended, new Promise((resolve) => setTimeout(resolve, 1_000))]);
      client.destroy();
      assert.equal((await fetch(`${server.tcp}/rt/info`)).status, 200);
    });

    test('random bytes on the TCP port', async () => {
      const closings = [];
      for (let i = 0; i < 200; i++) {
        const socket = net.connect(server.tcpPort, '127.0.0.1');
        socket.on('error', () => {});
        const head = ['', 'GET /rt/sse HTTP/1.1\r\n', 'POST /rt/send HTTP/1.1\r\nhost: x\r\n\r\n', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'][i % 4];
        socket.end(Buffer.concat([Buffer.from(head), randomBytes(2_000)]));
        closings.push(once(socket.resume(), 'close'));
      }
      await Promise.all(closings);
      assert.equal((await fetch(`${server.tcp}/rt/info`)).status, 200);
    });

    test('random bytes on every path', async () => {
      for (let i = 0; i < 300; i++) {
        const path = ['sse', 'poll', 'send', 'websocket', 'webtransport', 'info', randomBytes(9).toString('hex')][i % 7];
        const headers = {
          'Throughline-Version': i % 3 ? '1' : randomBytes(5).toString('base64'),
          ...linkHeaders({ session: randomBytes(16).toString('base64url'), key: 'x', link: i }),
        };
        const { status } = await fetchJson(`${server.tcp}/rt/${path}`, { method: 'POST', body: randomBytes(500), headers });
        assert.ok(status >= 400 && status < 500, `${path}: ${status}`);
      }
    });

    test('random bytes on the UDP port, and connections that ask for nothing', async () => {
      const socket = dgram.createSocket('udp4');
      for (let i = 0; i < 3_000; i++) {
        const packet = randomBytes(1 + ((i * 37) % 1_400));
        if (i % 2) {
          packet[0] |= 0xc0; // looks like the long header of QUIC
          packet.set([0, 0, 0, 1].slice(0, Math.max(0, packet.length - 1)), 1);
        }
        await new Promise((resolve) => socket.send(packet, server.quicPort, '127.0.0.1', resolve));
      }
      socket.close();
      await aioquic('connections', server.quic, '--case', 'connect', '--count', 20);
      await aioquic('connections', server.quic, '--case', 'headers', '--count', 20);
    });
  });

  test('meanwhile, the sessions that behave noticed nothing', async (t) => {
    const websocket = await healthy.stop();
    healthyQuic.stdin.end();
    const webtransport = (await healthyQuic.stdout.find(({ json }) => json?.event === 'watched', 'watched')).json;
    t.diagnostic(JSON.stringify({ websocket, webtransport }));
    for (const { rate, longestGapMs } of [websocket, webtransport]) {
      assert.ok(rate >= 29, `${rate} states per second`);
      assert.ok(longestGapMs < 1_000, `a gap of ${longestGapMs} ms`);
    }
  });

  test('memory returns', async (t) => {
    let kept;
    for (let tries = 0; tries < 40; tries++) {
      kept = (await server.residentBytes()) - residentBefore;
      if (kept < MEMORY_MARGIN) {
        break;
      }
      await new Promise((resolve) => setTimeout(resolve, 250));
    }
    t.diagnostic(`${(kept / 1_048_576).toFixed(1)} MiB more than before`);
    assert.ok(kept < MEMORY_MARGIN, `${kept} bytes more than before`);
  });

  /** The answer to a packet that is POSTed in a session over polling. */
  async function post(packet) {
    const poll = await openPoll();
    return fetchJson(`${server.tcp}/rt/send`, { method: 'POST', body: packet, headers: linkHeaders(poll) });
  }

  /** A session over polling; chosen with a PING unless told otherwise. */
  async function openPoll(chosen = true) {
    const answer = await fetch(`${server.tcp}/rt/poll`, { headers: { 'Throughline-Version': '1' } });
    const [{ payload }] = frames(Buffer.from(await answer.arrayBuffer()));
    const welcome = readWelcome(payload);
    if (chosen) {
      const taken = await fetch(`${server.tcp}/rt/send`, { method: 'POST', body: ping(), headers: linkHeaders(welcome) });
      assert.equal(taken.status, 204);
    }
    return welcome;
  }
});

async function fetchJson(url, options) {
  const response = await fetch(url, options);
  const text = await response.text();
  const body = text.startsWith('{') ? JSON.parse(text) : text;
  return { status: response.status, headers: Object.fromEntries(response.headers), body };
}

async function nextFrame(connection, type) {
  for (;;) {
    const found = frames(await connection.next()).find((one) => one.type === type);
    if (found) {
      return found;
    }
  }
}

const pong = (connection) => nextFrame(connection, TYPES.PONG);

async function nextClose(connection) {
  return readClose((await nextFrame(connection, TYPES.CLOSE)).payload);
}

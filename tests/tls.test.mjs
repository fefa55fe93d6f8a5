// TLS on the TCP listener, HTTP/2, HTTP/3: the same routes over all of them.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import http2 from 'node:http2';
import https from 'node:https';
import { after, before, describe, test } from 'node:test';
import { aioquic } from './support/aioquic.mjs';
import { startTestbed } from './support/server.mjs';
import { upgrade, WebSocketConnection } from './support/websocket.mjs';
import { events, frames, linkHeaders, message, ping, readWelcome, stream, TYPES } from './support/wire.mjs';

/** The certificate is self-signed, and its hash is checked by the browsers' tests. */
const INSECURE = { rejectUnauthorized: false };

describe('TLS', () => {
  let server;

  before(async () => {
    server = await startTestbed({ THROUGHLINE_TCP__TLS: 'true' });
  });
  after(async () => {
    assert.equal(await server.stop(), 0);
    assert.deepEqual(server.complaints, []);
  });

  test('HTTP/1.1: info, with Alt-Svc that leads to the QUIC listener', async () => {
    const [response] = await once(https.get(`${server.tcp}/rt/info`, INSECURE), 'response');
    const info = JSON.parse(Buffer.concat(await response.toArray()).toString());
    assert.equal(response.statusCode, 200);
    assert.equal(response.httpVersion, '1.1');
    assert.match(response.headers['alt-svc'], new RegExp(`h3=":${server.quicPort}"`));
    assert.deepEqual(info.versions, [1]);
    assert.deepEqual(info.transports, ['webtransport', 'websocket', 'sse', 'poll']);
    assert.deepEqual(info.webtransport, { port: server.quicPort, path: '/rt/webtransport' });
    assert.deepEqual(info.certificateHashes, server.certificateHashes);
  });

  test('WebSocket over HTTP/1.1', async () => {
    const opened = await upgrade(`${server.tcp}/rt/websocket`, { request: https.request, ...INSECURE });
    assert.equal(opened.status, 101);
    assert.equal(opened.headers['sec-websocket-protocol'], 'throughline.v1');
    await exchange(opened.connection);
  });

  describe('HTTP/2', () => {
    let client;
    before(async () => {
      client = http2.connect(server.tcp, INSECURE);
      await once(client, 'remoteSettings');
    });
    after(() => client.destroy());

    test('the page and info', async () => {
      const page = await answer(client.request({ ':path': '/' }));
      assert.equal(page.headers[':status'], 200);
      assert.match(page.headers['content-type'], /^text\/html/);
      assert.match(page.headers['alt-svc'], /h3=/);
      const info = await answer(client.request({ ':path': '/rt/info' }));
      assert.deepEqual(JSON.parse(info.body).versions, [1]);
    });

    test('WebSocket (RFC 8441)', async () => {
      assert.equal(client.remoteSettings.enableConnectProtocol, true);
      const socket = client.request({
        ':method': 'CONNECT',
        ':protocol': 'websocket',
        ':path': '/rt/websocket',
        'sec-websocket-version': '13',
        'sec-websocket-protocol': 'throughline.v1',
      });
      const [headers] = await once(socket, 'response');
      assert.equal(headers[':status'], 200);
      assert.equal(headers['sec-websocket-protocol'], 'throughline.v1');
      await exchange(new WebSocketConnection(socket));
    });

    test('SSE, with POST as its uplink', async () => {
      const down = client.request({ ':path': '/rt/sse', 'throughline-version': '1' });
      const [headers] = await once(down, 'response');
      assert.equal(headers[':status'], 200);
      assert.equal(headers['content-type'], 'text/event-stream');
      const packets = eventPackets(down);
      const [welcome] = frames((await packets.next()).value);
      const name = linkHeaders(readWelcome(welcome.payload));
      const up = client.request({ ':method': 'POST', ':path': '/rt/send', ...lower(name) });
      up.end(Buffer.concat([ping(), stream(0, message('über HTTP/2'))]));
      assert.equal((await answer(up)).headers[':status'], 204);
      for await (const packet of packets) {
        const echo = frames(packet).find(({ type }) => type === TYPES.STREAM);
        if (echo) {
          assert.ok(echo.payload.includes('über HTTP/2'));
          break;
        }
      }
      down.close();
    });

    test('polling, and a wrong version', async () => {
      const first = await answer(client.request({ ':path': '/rt/poll', 'throughline-version': '1' }));
      assert.equal(first.headers[':status'], 200);
      assert.equal(frames(first.body)[0].type, TYPES.WELCOME);
      const wrong = await answer(client.request({ ':path': '/rt/poll', 'throughline-version': '2' }));
      assert.equal(wrong.headers[':status'], 400);
      assert.equal(JSON.parse(wrong.body).name, 'UNSUPPORTED_VERSION');
    });
  });

  describe('HTTP/3', () => {
    test('GET: the page and info', async () => {
      const [page] = await aioquic('http', `${server.quic}/`);
      assert.equal(page.status, 200);
      assert.match(page.headers['content-type'], /^text\/html/);
      const [info] = await aioquic('http', `${server.quic}/rt/info`);
      assert.deepEqual(JSON.parse(info.body).versions, [1]);
    });

    test('POST for a session that never was: 410', async () => {
      const name = linkHeaders({ session: randomName(), key: randomName(), link: 1 });
      const headers = Object.entries(lower(name)).flatMap(([key, value]) => ['--header', `${key}: ${value}`]);
      const [gone] = await aioquic('http', `${server.quic}/rt/send`, '--method', 'POST', '--body', 'x', ...headers);
      assert.equal(gone.status, 410);
      assert.equal(JSON.parse(gone.body).name, 'UNKNOWN_SESSION');
    });

    test('SSE, with POST as its uplink', async () => {
      const [response, post, echo] = await aioquic('sse', `${server.quic}/rt`);
      assert.deepEqual([response.status, response.type], [200, 'text/event-stream']);
      assert.equal(post.status, 204);
      assert.equal(echo.text, 'über HTTP/3');
    });
  });
});

/** WELCOME, then a message and its echo. */
async function exchange(connection) {
  const welcome = await connection.welcome();
  assert.equal(welcome.version, 1);
  connection.send(Buffer.concat([ping(), stream(0, message('hin und zurück'))]));
  for (;;) {
    const echo = frames(await connection.next()).find(({ type }) => type === TYPES.STREAM);
    if (echo) {
      assert.ok(echo.payload.includes('hin und zurück'));
      break;
    }
  }
  connection.destroy();
}

async function answer(request) {
  const [headers] = await once(request, 'response');
  return { headers, body: Buffer.concat(await request.toArray()) };
}

async function* eventPackets(body) {
  let text = '';
  for await (const chunk of body) {
    const { packets, rest } = events(text + chunk.toString('latin1'));
    text = rest;
    yield* packets;
  }
}

function lower(headers) {
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]));
}

const randomName = () => randomBytes(16).toString('base64url');

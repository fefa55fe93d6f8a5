// Another make of QUIC, HTTP/3 and WebTransport, with a client written from SPEC.md: what is public must be enough.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { aioquic } from './support/aioquic.mjs';
import { startTestbed } from './support/server.mjs';

describe('a client over aioquic', () => {
  let server;
  let url;

  before(async () => {
    server = await startTestbed();
    url = `${server.quic}/rt/webtransport?v=1`;
  });
  after(async () => {
    assert.equal(await server.stop(), 0);
    assert.deepEqual(server.complaints, []);
  });

  test('WELCOME, PING, messages, ACK, datagrams, CLOSE', async () => {
    const said = await aioquic('exchange', url);
    const [{ welcome, protocol }, pong] = said;
    assert.equal(protocol, '"throughline.v1"');
    const { version, flags, link, heartbeat, idle, max_message: maxMessage, received, limit } = welcome;
    assert.deepEqual(
      { version, flags, link, heartbeat, idle, maxMessage, received, limit },
      { version: 1, flags: 0, link: 1, heartbeat: 10_000, idle: 30_000, maxMessage: 4_194_304, received: 0, limit: 262_144 },
    );
    assert.ok(Math.abs(welcome.time / 1_000 - Date.now()) < 20_000);
    assert.equal(pong.id, 1);
    assert.ok(Math.abs(pong.time / 1_000 - Date.now()) < 20_000);
    const echoes = said.filter(({ event }) => event === 'message' || event === 'datagram');
    assert.equal(echoes.length, 8);
    assert.deepEqual(echoes.filter(({ same }) => !same), []);
    const ack = said.find(({ event }) => event === 'ack');
    assert.equal(ack.received, ack.sent);
    assert.ok(ack.limit > limit, 'the application took it: there is credit again');
    const id = Buffer.from(welcome.session, 'hex').toString('base64url');
    const line = await server.sessionClosed(id);
    assert.deepEqual([line.code, line.name, line.reason], [4_242, 'application', '"as written"']);
    assert.equal(said.at(-1).session.code, 4_242);
  });

  test("the server's close: CLOSE, then CLOSE_WEBTRANSPORT_SESSION with the same code and reason", async () => {
    const [end] = await aioquic('server_close', url);
    assert.deepEqual(end.close, { code: 1_234, origin: 1, reason: 'das reicht' });
    assert.deepEqual(end.session, { code: 1_234, reason: 'das reicht' });
  });

  test('a close by capsule alone', async () => {
    const [{ session }] = await aioquic('client_close', url);
    const line = await server.sessionClosed(Buffer.from(session, 'hex').toString('base64url'), 1_000);
    assert.deepEqual([line.code, line.name, line.reason], [77, 'application', '"ohne CLOSE"']);
  });

  const refusals = [
    ['a token that is refused', ['--token', 'refused'], 401, 'UNAUTHORIZED', false],
    ['a token that is forbidden', ['--token', 'forbidden'], 403, 'FORBIDDEN', false],
    ['too many', ['--token', 'busy'], 429, 'LIMIT_REACHED', true],
    ["another site's Origin", ['--origin', 'https://evil.example'], 403, 'FORBIDDEN', false],
  ];
  for (const [what, args, status, name, retry] of refusals) {
    test(`${what}: ${status}`, async () => {
      const [said] = await aioquic('refused', url, ...args);
      assert.deepEqual([said.event, said.status, said.name, said.retry], ['refused', status, name, retry]);
      assert.ok(said.reason.length > 5, said.reason);
      assert.equal(said.retryAfter, status === 429 ? '2' : '');
    });
  }

  test('a version that is not spoken, none, and nonsense: 400', async () => {
    for (const [query, name] of [
      ['?v=2', 'UNSUPPORTED_VERSION'],
      ['', 'BAD_REQUEST'],
      ['?v=1&session=short&key=short&received=0.0', 'BAD_REQUEST'],
      ['?v=1&v=1', 'BAD_REQUEST'],
    ]) {
      const [said] = await aioquic('refused', `${server.quic}/rt/webtransport${query}`);
      assert.deepEqual([said.status, said.name, said.retry], [400, name, false], query);
    }
  });

  test('a path that is not there: an HTTP error, and no session', async () => {
    const [said] = await aioquic('http', `${server.quic}/rt/nothing`);
    assert.equal(said.status, 404);
  });
});

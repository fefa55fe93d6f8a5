// Readers that are not ours: curl and Node's own fetch, over connections that are cut, and servers that go away.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { start } from './support/child.mjs';
import { startRelay } from './support/relay.mjs';
import { startServe } from './support/server.mjs';

const KEY = 'a-key-for-the-publisher';
const PUBLICATIONS = 1_000;
const CUTS = 8;

const ENV = {
  THROUGHLINE_API__KEYS: `["${KEY}"]`,
  THROUGHLINE_CHANNELS__NAMESPACES__ROOM__SUBSCRIBE: 'true',
  THROUGHLINE_CHANNELS__NAMESPACES__ROOM__HISTORY_COUNT: '5000',
};

describe('channels over plain HTTP', () => {
  let server;

  before(async () => {
    server = await startServe(ENV);
  });

  after(async () => {
    assert.equal(await server?.stop(), 0);
    assert.deepEqual(server.complaints, []);
  });

  test('curl -N, cut again and again, goes on by Last-Event-ID and misses nothing', async () => {
    const relay = await startRelay(Number(new URL(server.tcp).port));
    const url = `http://127.0.0.1:${relay.port}/channels/room:curl/events`;
    let lastId = '';
    const texts = [];
    let reconnects = 0;
    const reading = (async () => {
      while (texts.length < PUBLICATIONS) {
        const header = lastId === '' ? [] : ['-H', `Last-Event-ID: ${lastId}`];
        const curl = start('curl', ['-sS', '-N', ...header, url]);
        const stream = new EventStream();
        const seen = () => {
          stream.read(curl.stdout.all.map(({ text }) => text));
          lastId = stream.lastId || lastId;
        };
        const done = new Promise((resolve) => {
          const timer = setInterval(() => {
            seen();
            if (texts.length + stream.events.length >= PUBLICATIONS) {
              clearInterval(timer);
              resolve(curl.stop('SIGTERM'));
            }
          }, 20);
          curl.exited.then(() => {
            clearInterval(timer);
            resolve();
          });
        });
        await done;
        seen();
        for (const { type, data } of stream.events) {
          assert.equal(type, 'message');
          texts.push(data);
        }
        reconnects += 1;
      }
    })();
    await until(() => lastId !== '' || texts.length > 0, 'the first reader');
    for (let number = 0; number < PUBLICATIONS; number += 1) {
      await publish(server, 'room:curl', `${number}\nsecond line`);
      if (number % (PUBLICATIONS / CUTS) === 60) {
        relay.cut();
      }
    }
    await reading;
    await relay.close();
    assert.deepEqual(texts, Array.from({ length: PUBLICATIONS }, (_, number) => `${number}\nsecond line`));
    assert.ok(reconnects > CUTS / 2, `${reconnects} connections`);
  });

  test('polls one after the other, over another connection each, miss nothing', async () => {
    const texts = [];
    const reading = (async () => {
      let next = '0-0';
      while (texts.length < 200) {
        const response = await fetch(`${server.tcp}/channels/room:poll/poll?since=${next}&wait=10`, {
          headers: { connection: 'close' },
        });
        assert.equal(response.status, 200);
        const page = await response.json();
        assert.equal(page.complete, true);
        texts.push(...page.publications.map(({ text }) => text));
        ({ next } = page);
      }
    })();
    for (let number = 0; number < 200; number += 1) {
      await publish(server, 'room:poll', String(number));
    }
    await reading;
    assert.deepEqual(texts, Array.from({ length: 200 }, (_, number) => String(number)));
  });

  test('a server that stops ends its streams, and the next one says that it knows nothing of the position', async () => {
    const first = await startServe(ENV);
    const curl = start('curl', ['-sS', '-N', `${first.tcp}/channels/room:1/events`]);
    await curl.stdout.find(({ text }) => text.startsWith('id: '), 'the position');
    await publish(first, 'room:1', 'one');
    await curl.stdout.find(({ text }) => text === 'data: one', 'the publication');
    assert.equal(await first.stop(), 0);
    assert.equal(await curl.exited, 0, 'a stream that ends is no failure');
    const stream = new EventStream();
    stream.read(curl.stdout.all.map(({ text }) => text));
    const again = start('curl', ['-sS', '-N', '-H', `Last-Event-ID: ${stream.lastId}`, `${server.tcp}/channels/room:1/events`]);
    const { text } = await again.stdout.find(({ text }) => text.startsWith('data: '), 'what is said of the position');
    assert.equal(JSON.parse(text.slice(6)).recovered, false);
    assert.ok(again.stdout.all.some(({ text }) => text === 'event: skipped'));
    await again.stop('SIGTERM');
  });
});

async function publish(server, channel, text) {
  const response = await fetch(`${server.tcp}/api/publish`, {
    method: 'POST',
    headers: { authorization: `Bearer ${KEY}`, 'content-type': 'application/json' },
    body: JSON.stringify({ channel, text }),
  });
  assert.equal(response.status, 200, await response.text());
}

/** What an EventSource makes of lines. An event counts when the empty line behind it has come. */
class EventStream {
  events = [];
  lastId = '';
  #next = 0;
  #block = [];

  /** Goes on with what is new in all lines so far. */
  read(lines) {
    for (; this.#next < lines.length; this.#next += 1) {
      const line = lines[this.#next];
      if (line !== '') {
        this.#block.push(line);
        continue;
      }
      const values = (name) => this.#block.filter((one) => one.startsWith(`${name}: `)).map((one) => one.slice(name.length + 2));
      this.lastId = values('id').at(-1) ?? this.lastId;
      if (values('data').length > 0) {
        this.events.push({ type: values('event').at(-1) ?? 'message', data: values('data').join('\n') });
      }
      this.#block = [];
    }
  }
}

async function until(condition, what) {
  const deadline = performance.now() + 10_000;
  while (!condition()) {
    assert.ok(performance.now() < deadline, `waited for ${what} in vain`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

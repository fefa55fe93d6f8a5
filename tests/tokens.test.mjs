// A language model's answer as a channel (server/examples/tokens), beside a model that is none: whoever reads it, however his links fare, reads the same text.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { after, before, describe, test } from 'node:test';
import { BROWSERS, launch } from './support/browser.mjs';
import { KEY, startModel, textOf, tokenAt } from './support/model.mjs';
import { startRelay } from './support/relay.mjs';
import { startTokens } from './support/server.mjs';

const TOKENS = 2_000;
const HZ = 50;
const RELOADS = 5;
/** As server/examples/tokens/answers.rs has them. */
const UNDER_WAY_MAX = 40;
const PROMPT_BYTES_MAX = 16_384;
const TOKENS_MAX = 16_384;

const STALL_MS = 2_000;

describe('tokens', () => {
  let model;
  let server;
  const browsers = {};

  before(async () => {
    model = await startModel();
    server = await startTokens(model.url, KEY, ['--stall-timeout', `${STALL_MS}ms`]);
    for (const name of BROWSERS) {
      browsers[name] = await launch(name);
    }
  });

  after(async () => {
    await Promise.all(Object.values(browsers).map((browser) => browser.close()));
    assert.equal(await server?.stop(), 0);
    assert.deepEqual(server.complaints, []);
    await model.close();
  });

  test(`an answer of ${TOKENS} tokens: everybody reads the same text`, async (t) => {
    const asked = await ask(server, { tokens: TOKENS, hz: HZ });
    const text = textOf(TOKENS);
    const plain = [curl(asked), ...BROWSERS.map((name) => eventSource(browsers[name], asked))];
    const readers = BROWSERS.flatMap((name) => [
      troubled(browsers[name], asked),
      reloaded(browsers[name], asked, text),
      late(browsers[name], asked),
    ]);
    for (const { what, read, connections } of await Promise.all(plain)) {
      t.diagnostic(`${what}: ${connections} connections`);
      assert.equal(read, text, what);
      assert.ok(connections > 2, `${what}: its connections were cut`);
    }
    for (const { what, page, transports } of await Promise.all(readers)) {
      t.diagnostic(`${what}: ${transports?.join(', ') ?? ''}`);
      assert.equal(await shown(page), text, what);
      assert.equal(await page.$eval('#note', (note) => note.textContent), '', what);
      assert.equal(await page.$eval('#count', (count) => count.textContent), `${TOKENS}`, what);
      assert.deepEqual(mistakes(page), [], what);
      await page.close();
    }
  });

  /** Its links are cut, and it is forced down the ladder. */
  async function troubled(browser, asked) {
    const page = await open(browser, asked);
    const transports = [];
    for (const [count, button] of [[200, 'cut'], [500, 'block'], [700, 'block'], [900, 'block'], [1_300, 'cut'], [1_700, 'cut']]) {
      await reaches(page, count);
      transports.push(await page.$eval('#transport', (transport) => transport.textContent));
      await page.$eval(`#${button}`, (button) => button.click());
    }
    await ends(page);
    assert.ok(new Set(transports).size >= 3, `it only used ${transports}`);
    return { what: `${browser.name}, in trouble`, page, transports };
  }

  async function reloaded(browser, asked, text) {
    const page = await open(browser, asked);
    for (let reload = 1; reload <= RELOADS; reload++) {
      await reaches(page, (reload * TOKENS) / (RELOADS + 1));
      const part = await shown(page);
      assert.ok(text.startsWith(part) && part.length < text.length, 'it had something else, or everything');
      await page.reload();
    }
    await ends(page);
    return { what: `${browser.name}, reloaded`, page };
  }

  /** A second tab, when half of it is over. */
  async function late(browser, asked) {
    await new Promise((resolve) => setTimeout(resolve, (TOKENS / HZ) * 500));
    const page = await open(browser, asked);
    await ends(page);
    return { what: `${browser.name}, late`, page };
  }

  /** Without our client, over connections that are cut: the browser comes back by itself, with Last-Event-ID. */
  async function eventSource(browser, { channel, epoch }) {
    const relay = await startRelay(server.tcpPort);
    try {
      return await throughRelay(browser, relay, { channel, epoch });
    } finally {
      await relay.close();
    }
  }

  async function throughRelay(browser, relay, { channel, epoch }) {
    const page = await browser.open(`http://127.0.0.1:${relay.port}`);
    await page.evaluate((channel, epoch) => {
      const seen = { text: '', tokens: 0, connections: 0, end: null };
      const source = new EventSource(`/channels/${encodeURIComponent(channel)}/events?since=${epoch}-0`);
      source.onopen = () => seen.connections++;
      source.onmessage = ({ data }) => {
        const { token, done, error } = JSON.parse(data);
        if (token !== undefined) {
          seen.text += token;
          seen.tokens++;
        } else if (done || error) {
          source.close(); // or it would wait for more, and come back for ever
          seen.end = done ?? error;
        }
      };
      window.seen = seen;
    }, channel, epoch);
    for (const count of [400, 900, 1_400]) {
      await within(page, 60_000, (count) => window.seen.tokens >= count, count);
      relay.cut();
    }
    await within(page, 60_000, () => window.seen.end);
    const seen = await page.evaluate(() => window.seen);
    assert.deepEqual(seen.end, { finish_reason: 'stop' });
    await page.close();
    return { what: `EventSource in ${browser.name}`, read: seen.text, connections: seen.connections };
  }

  /** `curl -N`, killed again and again, and told where it was. */
  async function curl({ channel, epoch }) {
    const url = `${server.tcp}/channels/${encodeURIComponent(channel)}/events?since=${epoch}-0`;
    let [read, id, tokens, connections] = ['', null, 0, 0];
    for (const enough of [300, 800, 1_200, 1_900, Infinity]) {
      connections++;
      const child = spawn('curl', ['-sN', ...(id ? ['-H', `Last-Event-ID: ${id}`] : []), url]);
      const exited = new Promise((resolve) => child.once('close', resolve));
      let [rest, isOver] = ['', false];
      for await (const piece of child.stdout.setEncoding('utf8')) {
        const events = (rest + piece).split('\n\n');
        rest = events.pop(); // the middle of one: whoever is cut off there has not had it
        for (const event of isOver || tokens >= enough ? [] : events) {
          const field = (name) => event.split('\n').find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2);
          id = field('id') ?? id;
          const { token, done, error } = JSON.parse(field('data') ?? '{}');
          if (token !== undefined) {
            read += token;
            tokens++;
          }
          isOver ||= Boolean(done ?? error);
          if (isOver || tokens >= enough) {
            break;
          }
        }
        (isOver || tokens >= enough) && child.kill();
      }
      await exited;
      if (isOver) {
        break;
      }
      assert.ok(tokens >= enough, `curl ended at ${tokens}`);
    }
    return { what: 'curl', read, connections };
  }

  test('what is asked in the page is answered there, and whoever comes after the end reads it, too', async () => {
    const browser = browsers.chromium;
    const page = await browser.open(server.tcp);
    const prompt = JSON.stringify({ tokens: 20, finish: 'length' });
    await page.type('#question', prompt);
    await page.$eval('#form', (form) => form.requestSubmit());
    await page.waitForFunction(() => document.querySelector('#text').dataset.state === 'done', { timeout: 10_000, polling: 100 });
    const other = await browser.open(page.url());
    await ends(other);
    for (const one of [page, other]) {
      assert.equal(await shown(one), textOf(20));
      assert.equal(await one.$eval('#prompt', (element) => element.textContent), prompt);
      assert.equal(await one.$eval('#note', (note) => note.textContent), 'The answer ends here: length.');
      await one.close();
    }
  });

  test('an answer that is not kept is said to be gone, and none is half shown', async () => {
    const { channel, epoch } = await ask(server, { tokens: 5 });
    const page = await browsers.chromium.open(`${server.tcp}/#${channel}/${epoch === 1 ? 2 : epoch - 1}`);
    await ends(page, 'lost');
    assert.equal(await shown(page), '');
    assert.match(await page.$eval('#note', (note) => note.textContent), /not kept/);
    await page.close();
  });

  describe('what ends an answer is published', () => {
    const tokens = (count) => Array.from({ length: count }, (_, index) => ({ token: tokenAt(index) }));
    const cases = [
      ['the end', { tokens: 3 }, 3, { done: { finish_reason: 'stop' } }],
      ['the end, without [DONE]', { tokens: 3, end: 'no-done', finish: 'length' }, 3, { done: { finish_reason: 'length' } }],
      ['a stream that just ends', { tokens: 3, end: 'nothing' }, 3, 'broke_off'],
      ['a connection that breaks', { tokens: 3, end: 'cut' }, 3, 'broke_off'],
      ['an error in the middle', { tokens: 3, end: 'error' }, 3, 'failed', /The server had an error/],
      ['what is no chunk', { tokens: 3, end: 'garbage' }, 3, 'failed', /not a chunk/],
      ['a stream that stalls', { tokens: 3, end: 'stall' }, 3, 'stalled'],
      ['401', { status: 401, body: `{"error":{"message":"Incorrect API key provided: ${KEY}"}}` }, 0, 'refused'],
      ['429', { status: 429, retryAfter: 7 }, 0, 'busy'],
      ['500', { status: 500 }, 0, 'failed', /refused with 500/],
      ['503, and no JSON', { status: 503, body: '<h1>no</h1>' }, 0, 'failed', /503/],
      ['more tokens than an answer may have', { end: 'endless' }, TOKENS_MAX, { done: { finish_reason: 'length' } }],
    ];
    for (const [name, prompt, count, last, message] of cases) {
      test(name, async () => {
        const seen = await publications(server, prompt);
        const end = seen.pop();
        assert.deepEqual(seen, [{ prompt: JSON.stringify(prompt) }, ...tokens(count)]);
        if (typeof last === 'string') {
          assert.equal(end.error.code, last);
          assert.match(end.error.message, message ?? /./);
          assert.equal(end.error.retry_after_s, prompt.retryAfter);
        } else {
          assert.deepEqual(end, last);
        }
        assert.doesNotMatch(JSON.stringify(end), new RegExp(KEY));
        await until(() => model.open === 0, 'the endpoint is hung up on');
      });
    }

    test('an endpoint that does not listen, a key that it does not take, and a server that goes away', async () => {
      const nobody = await startTokens('http://127.0.0.1:9', KEY);
      assert.equal((await publications(nobody, {})).at(-1).error.code, 'unreachable');
      assert.equal(await nobody.stop(), 0);
      const stranger = await startTokens(model.url.replace('/v1', ''), 'sk-wrong');
      const refused = (await publications(stranger, {})).at(-1);
      assert.equal(refused.error.code, 'refused');
      assert.doesNotMatch(refused.error.message, /sk-/);
      assert.equal(await stranger.stop(), 0);
      const leaving = await startTokens(model.url, KEY);
      const asked = await ask(leaving, { tokens: 1, end: 'stall' });
      const reader = await open(browsers.chromium, asked);
      await reaches(reader, 1);
      const stopped = leaving.stop();
      await ends(reader, 'failed');
      assert.match(await reader.$eval('#note', (note) => note.textContent), /going away/);
      await reader.close();
      assert.equal(await stopped, 0);
    });
  });

  test('asking is bounded', async () => {
    const post = (body, type = 'application/json') =>
      fetch(`${server.tcp}/ask`, { method: 'POST', headers: { 'content-type': type }, body });
    const statusOf = async (body, type) => {
      const response = await post(body, type);
      assert.equal(typeof (await response.json()).error, 'string');
      return response.status;
    };
    assert.equal(await statusOf('{'), 400);
    assert.equal(await statusOf('{"prompt":5}'), 422);
    assert.equal(await statusOf('{"prompt":" "}'), 422);
    assert.equal(await statusOf(JSON.stringify({ prompt: 'x'.repeat(PROMPT_BYTES_MAX + 1) })), 422);
    assert.equal(await statusOf('{"prompt":"x"}', 'text/plain'), 415, 'as a form of another site would');
    const longest = JSON.stringify({ tokens: 0, end: 'stall' }).padEnd(PROMPT_BYTES_MAX);
    const taken = await Promise.all(Array.from({ length: UNDER_WAY_MAX }, () => post(JSON.stringify({ prompt: longest }))));
    assert.deepEqual(new Set(taken.map(({ status }) => status)), new Set([201]));
    const refused = await post(JSON.stringify({ prompt: longest }));
    assert.equal(refused.status, 429);
    assert.ok(Number(refused.headers.get('retry-after')) > 0);
    assert.match((await refused.json()).error, /under way/);
    await until(() => model.open === 0, 'they stall, and end');
    await ask(server, { tokens: 1 });
  });

  /** All that is published of an answer, read by the client in a page. */
  async function publications(server, prompt) {
    const { channel, epoch } = await ask(server, prompt);
    const page = await browsers.chromium.open(server.tcp);
    const seen = await page.evaluate(async (channel, epoch) => {
      const { connect } = await import('/throughline.js');
      const session = connect('/rt');
      const answer = session.subscribe(channel, { since: { epoch, offset: 0 } });
      const seen = [];
      await new Promise((resolve, reject) => {
        answer.on('publication', ({ data }) => {
          seen.push(JSON.parse(data));
          ('done' in seen.at(-1) || 'error' in seen.at(-1)) && resolve();
        });
        answer.on('end', (end) => reject(new Error(JSON.stringify(end))));
        setTimeout(() => reject(new Error(`no end after ${seen.length} publications`)), 30_000);
      });
      await session.close();
      return seen;
    }, channel, epoch);
    await page.close();
    return seen;
  }
});

async function ask(server, prompt) {
  const response = await fetch(`${server.tcp}/ask`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ prompt: JSON.stringify(prompt) }),
  });
  assert.equal(response.status, 201);
  const asked = await response.json();
  assert.match(asked.channel, /^answer:[0-9a-f]{32}$/);
  return { ...asked, address: `${server.tcp}/#${asked.channel}/${asked.epoch}` };
}

const open = (browser, { address }) => browser.open(address);

/** Firefox also reports a WebSocket that lost a race, or that a reload gave up: that is no mistake. */
const mistakes = ({ complaints }) =>
  complaints.filter((line) => line.startsWith('page:') && !/connection to .*\/rt\/websocket|server at ws:/.test(line));

const shown = (page) => page.$eval('#text', (text) => text.textContent);

/** Not by animation frames, as puppeteer would: those stand still in the page that lies behind. */
const within = (page, timeout, condition, ...args) =>
  page.waitForFunction(condition, { timeout, polling: 100 }, ...args).catch(async (error) => {
    const known = await page.$eval('body', (body) => body.innerText.slice(0, 300)).catch(String);
    throw new Error(`${error.message}: ${condition}; ${known}; ${page.complaints.join('; ')}`);
  });

const reaches = (page, count) =>
  within(page, 60_000, (count) => Number(document.querySelector('#count')?.textContent) >= count, count);

const ends = async (page, state = 'done') => {
  await within(page, 60_000, () => !['idle', 'writing', undefined].includes(document.querySelector('#text')?.dataset.state));
  assert.equal(await page.$eval('#text', (text) => text.dataset.state), state);
};

async function until(isSo, what) {
  const deadline = performance.now() + 10_000;
  while (!isSo()) {
    assert.ok(performance.now() < deadline, `${what}: not within 10 s`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

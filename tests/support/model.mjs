// An OpenAI-compatible endpoint that is none: `POST /v1/chat/completions` with `stream: true`, in the format of the real one. What it answers stands in the
// prompt, as JSON:
// - tokens, hz: that many tokens, so many per second (default: 10, at once);
// - status, retryAfter, body: refuses instead;
// - end: how it ends after the tokens: 'done' (default); 'no-done' (a finish_reason, and no [DONE]); 'nothing' (neither); 'error' (an error object);
//   'cut' (the connection breaks); 'stall' (nothing more comes); 'garbage'; 'endless' (tokens without an end);
// - finish: the finish_reason (default 'stop').

import { createServer } from 'node:http';

export const KEY = 'sk-the-key-of-the-tests';

/** What is hard to carry: markup, quotes, line ends, what SSE could take for a field, and characters of two to four bytes. */
const PIECES = ['The', ' fox', ' "says"', '\n\n', 'data: x', ' <b>', ' Grüße', ' 漢字', ' 🛰️', '\r\n', '\u2028', ' \\', '\u0000', ' end.'];

/** The token at `index`: no two are the same. */
export const tokenAt = (index) => `${PIECES[index % PIECES.length]}${index} `;

/** All of them. */
export const textOf = (tokens) => Array.from({ length: tokens }, (_, index) => tokenAt(index)).join('');

/** Starts it on a free port. `url` is what OPENAI_BASE_URL takes; `open` counts the answers under way. */
export async function startModel() {
  const model = { open: 0, asked: [] };
  const server = createServer((request, response) => {
    // What breaks in here shows as an answer that ends too early.
    answer(model, request, response).catch((error) => response.destroy(error));
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  model.url = `http://127.0.0.1:${server.address().port}/v1`;
  model.close = () => {
    server.closeAllConnections();
    return new Promise((resolve) => server.close(resolve));
  };
  return model;
}

async function answer(model, request, response) {
  const pieces = [];
  for await (const piece of request) {
    pieces.push(piece);
  }
  const body = JSON.parse(Buffer.concat(pieces));
  const refuse = (status, error, headers = {}) => {
    response.writeHead(status, { 'content-type': 'application/json', ...headers });
    response.end(typeof error === 'string' ? error : JSON.stringify({ error }));
  };
  if (request.method !== 'POST' || request.url !== '/v1/chat/completions') {
    return refuse(404, { message: `Unknown request URL: ${request.method} ${request.url}.`, type: 'invalid_request_error' });
  }
  if (request.headers.authorization !== `Bearer ${KEY}`) {
    const message = `Incorrect API key provided: ${request.headers.authorization?.slice(7, 16)}****.`;
    return refuse(401, { message, type: 'invalid_request_error', code: 'invalid_api_key' });
  }
  const { model: name, messages, stream } = body;
  if (stream !== true || typeof name !== 'string' || messages?.[0]?.role !== 'user') {
    return refuse(400, { message: 'not what this endpoint is for', type: 'invalid_request_error' });
  }
  const prompt = messages[0].content;
  model.asked.push(prompt);
  const orders = JSON.parse(prompt);
  if (orders.status) {
    const headers = orders.retryAfter === undefined ? {} : { 'retry-after': `${orders.retryAfter}` };
    return refuse(orders.status, orders.body ?? { message: `refused with ${orders.status}` }, headers);
  }
  model.open++;
  response.once('close', () => model.open--);
  await writeAnswer(response, name, orders);
}

async function writeAnswer(response, model, { tokens = 10, hz = Infinity, end = 'done', finish = 'stop' }) {
  response.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8', 'cache-control': 'no-cache' });
  const created = Math.floor(Date.now() / 1_000);
  const common = { id: 'chatcmpl-test', object: 'chat.completion.chunk', created, model };
  const chunk = (delta, finish_reason = null) => ({ ...common, choices: [{ index: 0, delta, logprobs: null, finish_reason }] });
  const send = (data) => write(response, `data: ${typeof data === 'string' ? data : JSON.stringify(data)}\n\n`);
  await send(chunk({ role: 'assistant', content: '', refusal: null }));
  const began = performance.now();
  for (let index = 0; index < (end === 'endless' ? Infinity : tokens) && !response.destroyed; index++) {
    await sleep(began + (index * 1_000) / hz - performance.now());
    if (index % 100 === 50) {
      await write(response, ': keep-alive\n\n');
    }
    await send(chunk({ content: tokenAt(index) }));
  }
  switch (end) {
    case 'done':
    case 'no-done':
      await send(chunk({}, finish));
      await send({ ...common, choices: [], usage: { prompt_tokens: 1, completion_tokens: tokens, total_tokens: tokens + 1 } });
      end === 'done' && (await send('[DONE]'));
      return response.end();
    case 'nothing':
      return response.end();
    case 'error':
      await send({ error: { message: 'The server had an error while processing your request.', type: 'server_error' } });
      return response.end();
    case 'garbage':
      await send('{"choices": [');
      return response.end();
    case 'cut':
      // Behind what was written before.
      return response.write(': last words\n\n', () => response.destroy());
    default: // 'stall': whoever waits has to hang up
  }
}

/** In two pieces, somewhere in the middle: not always between characters or lines. */
async function write(response, text) {
  const bytes = Buffer.from(text);
  const middle = bytes.length % 7 === 0 ? bytes.length >> 1 : bytes.length;
  response.write(bytes.subarray(0, middle));
  response.write(bytes.subarray(middle));
  while (response.writableNeedDrain && !response.destroyed) {
    await sleep(1);
  }
}

function sleep(ms) {
  return ms > 0 ? new Promise((resolve) => setTimeout(resolve, ms)) : undefined;
}

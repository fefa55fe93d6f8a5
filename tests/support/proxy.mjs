// A proxy in front of the server's TCP listener that breaks what it is told to, as proxies in the world do.

import { once } from 'node:events';
import http from 'node:http';

/**
 * Starts one in front of `origin`. What can be broken, also later, by changing `broken`:
 * - `websocket`: `refuse` answers the upgrade with 403; `swallow` lets it through, and none of the frames after it;
 * - `sse`: `buffer` keeps an event stream until it ends, which is never; `refuse` answers 502;
 * - `poll`, `send`: `refuse` answers 502; `hang` never answers.
 *
 * Besides, the transports `websocket`, `sse` and `poll` can be made black holes (`hold`, `release`) and cut (`cut`) while they are used.
 */
export async function startProxy(origin, broken = {}) {
  const proxy = new FaultyProxy(new URL(origin), broken);
  await proxy.listen();
  return proxy;
}

class FaultyProxy {
  /** The last segment of the paths that were asked for, and `upgrade`. */
  seen = [];
  broken;
  #upstream;
  #server;
  #sockets = new Set();
  /** What goes on now: a request with its answer, or an upgraded connection. */
  #exchanges = new Set();
  /** Black holes: by transport, the highest link number that they took. */
  #held = new Map();
  #waiting = [];
  #newestLink = 0;
  /** Where each session was first seen. */
  #homes = new Map();

  constructor(upstream, broken) {
    this.#upstream = upstream;
    this.broken = broken;
    this.#server = http.createServer((request, response) => this.#ask(request, response));
    this.#server.on('upgrade', (request, socket) => this.#upgrade(request, socket));
    this.#server.on('connection', (socket) => this.#keep(socket));
    this.stop = this.stop.bind(this);
  }

  async listen() {
    this.#server.listen(0, '127.0.0.1');
    await once(this.#server, 'listening');
    this.origin = `http://127.0.0.1:${this.#server.address().port}`;
  }

  /** From now on `transport` is a black hole: nothing passes, in neither direction, and nobody is told. */
  hold(transport) {
    this.#held.set(transport, this.#newestLink);
    for (const exchange of this.#exchanges) {
      if (this.#isHeld(exchange)) {
        exchange.hold();
      }
    }
  }

  /** What was held goes on, as TCP would. */
  release(transport) {
    this.#held.delete(transport);
    for (const exchange of this.#exchanges) {
      if (!this.#isHeld(exchange)) {
        exchange.release();
      }
    }
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const [request, response, goOn] of waiting) {
      if (!response.destroyed) {
        goOn(request, response);
      }
    }
  }

  /** Ends the connections of `transport`. How many there were. */
  cut(transport) {
    const doomed = [...this.#exchanges].filter((exchange) => exchange.transport === transport);
    for (const exchange of doomed) {
      exchange.cut();
    }
    return doomed.length;
  }

  /** New sessions go to `origin`; those of sse and poll stay where they are, as with any balancer that knows their header. */
  turnTo(origin) {
    this.#upstream = new URL(origin);
  }

  async stop() {
    this.#server.close();
    for (const socket of this.#sockets) {
      socket.destroy();
    }
  }

  #keep(socket) {
    this.#sockets.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => this.#sockets.delete(socket));
  }

  /** `send` belongs to sse or to poll: it goes into the black hole with all links that were there when it came. */
  #isHeld({ transport, link }) {
    if (transport === 'send') {
      return ['sse', 'poll'].some((name) => link <= (this.#held.get(name) ?? -1));
    }
    return this.#held.has(transport);
  }

  #homeOf(session) {
    if (session && !this.#homes.has(session)) {
      this.#homes.set(session, this.#upstream);
    }
    return this.#homes.get(session) ?? this.#upstream;
  }

  #ask(request, response) {
    const transport = nameOf(request);
    this.seen.push(transport);
    const fault = this.broken[transport];
    if (fault === 'refuse') {
      response.writeHead(502, { 'content-type': 'text/plain' }).end('bad gateway\n');
      return;
    }
    if (fault !== 'hang') {
      this.#forward(request, response);
    }
  }

  #forward(request, response) {
    const transport = nameOf(request);
    const link = Number(request.headers['throughline-link'] ?? 0);
    this.#newestLink = Math.max(this.#newestLink, link);
    if (this.#isHeld({ transport, link })) {
      this.#waiting.push([request, response, this.#forward.bind(this)]);
      return;
    }
    let answered = null;
    let isHeld = false;
    const exchange = {
      transport,
      link,
      hold() {
        isHeld = true;
        answered?.unpipe(response).pause();
      },
      release() {
        if (isHeld) {
          isHeld = false;
          answered?.pipe(response);
        }
      },
      cut() {
        response.destroy();
        forwarded.destroy();
      },
    };
    const { method, url, headers } = request;
    const { hostname, port } = this.#homeOf(headers['throughline-session']);
    const forwarded = http.request({ host: hostname, port, path: url, method, headers }, (answer) => {
      answer.on('error', () => response.destroy());
      if (this.broken[transport] === 'buffer') {
        const chunks = [];
        answer.on('data', (chunk) => chunks.push(chunk));
        answer.on('end', () => response.writeHead(answer.statusCode, answer.headers).end(Buffer.concat(chunks)));
        return;
      }
      response.writeHead(answer.statusCode, answer.headers);
      answered = answer;
      if (!isHeld) {
        response.flushHeaders();
        answer.pipe(response);
      }
    });
    this.#exchanges.add(exchange);
    forwarded.on('error', () => response.destroy());
    response.on('error', () => {});
    response.on('close', () => {
      this.#exchanges.delete(exchange);
      forwarded.destroy();
    });
    request.pipe(forwarded);
  }

  #upgrade(request, socket) {
    this.seen.push('upgrade');
    if (this.broken.websocket === 'refuse') {
      socket.end('HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n');
      return;
    }
    if (this.#held.has('websocket')) {
      this.#waiting.push([request, socket, this.#upgrade.bind(this)]);
      return;
    }
    const { hostname, port } = this.#upstream;
    const forwarded = http.request({ host: hostname, port, path: request.url, headers: request.headers });
    forwarded.on('upgrade', (answer, behind, head) => {
      this.#keep(behind);
      const lines = answer.rawHeaders.flatMap((name, i, all) => (i % 2 ? [] : [`${name}: ${all[i + 1]}`]));
      socket.write(`HTTP/1.1 101 Switching Protocols\r\n${lines.join('\r\n')}\r\n\r\n`);
      socket.on('close', () => behind.destroy());
      behind.on('close', () => socket.destroy());
      if (this.broken.websocket === 'swallow') {
        socket.resume();
        behind.resume();
        return;
      }
      socket.write(head);
      let isHeld = true;
      const exchange = {
        transport: 'websocket',
        hold() {
          isHeld = true;
          socket.unpipe(behind).pause();
          behind.unpipe(socket).pause();
        },
        release() {
          if (isHeld) {
            isHeld = false;
            socket.pipe(behind);
            behind.pipe(socket);
          }
        },
        cut() {
          socket.destroy();
          behind.destroy();
        },
      };
      this.#exchanges.add(exchange);
      socket.on('close', () => this.#exchanges.delete(exchange));
      exchange.release();
      if (this.#held.has('websocket')) {
        exchange.hold();
      }
    });
    forwarded.on('response', (answer) => socket.end(`HTTP/1.1 ${answer.statusCode} Refused\r\nconnection: close\r\n\r\n`));
    forwarded.on('error', () => socket.destroy());
    forwarded.end();
  }
}

function nameOf(request) {
  return new URL(request.url, 'http://proxy').pathname.split('/').at(-1);
}

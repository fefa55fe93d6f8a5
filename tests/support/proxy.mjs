// A proxy in front of the server's TCP listener that breaks what it is told to, as proxies in the world do.

import http from 'node:http';
import { once } from 'node:events';

/**
 * Starts one in front of `origin`. What can be broken:
 * - `websocket`: `refuse` answers the upgrade with 403; `swallow` lets it through, and none of the frames after it;
 * - `sse`: `buffer` keeps an event stream until it ends, which is never; `refuse` answers 502;
 * - `poll`, `send`: `refuse` answers 502; `hang` never answers.
 */
export async function startProxy(origin, broken = {}) {
  const upstream = new URL(origin);
  const sockets = new Set();
  const seen = [];

  const server = http.createServer((request, response) => {
    const name = new URL(request.url, origin).pathname.split('/').at(-1);
    seen.push(name);
    const fault = broken[name];
    if (fault === 'refuse') {
      response.writeHead(502, { 'content-type': 'text/plain' }).end('bad gateway\n');
      return;
    }
    if (fault === 'hang') {
      return;
    }
    const forwarded = http.request(
      { host: upstream.hostname, port: upstream.port, method: request.method, path: request.url, headers: request.headers },
      (answer) => {
        if (fault === 'buffer') {
          const chunks = [];
          answer.on('data', (chunk) => chunks.push(chunk));
          answer.on('end', () => response.writeHead(answer.statusCode, answer.headers).end(Buffer.concat(chunks)));
          return;
        }
        response.writeHead(answer.statusCode, answer.headers);
        response.flushHeaders();
        answer.pipe(response);
      },
    );
    forwarded.on('error', () => response.destroy());
    response.on('close', () => forwarded.destroy());
    request.pipe(forwarded);
  });

  server.on('upgrade', (request, socket) => {
    seen.push('upgrade');
    socket.on('error', () => {});
    if (broken.websocket === 'refuse') {
      socket.end('HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n');
      return;
    }
    const { hostname, port } = upstream;
    const forwarded = http.request({ host: hostname, port, path: request.url, headers: request.headers });
    forwarded.on('upgrade', (answer, behind, head) => {
      sockets.add(behind);
      behind.on('error', () => {});
      const lines = answer.rawHeaders.flatMap((name, i, all) => (i % 2 ? [] : [`${name}: ${all[i + 1]}`]));
      socket.write(`HTTP/1.1 101 Switching Protocols\r\n${lines.join('\r\n')}\r\n\r\n`);
      socket.on('close', () => behind.destroy());
      behind.on('close', () => socket.destroy());
      if (broken.websocket === 'swallow') {
        socket.resume();
        behind.resume();
        return;
      }
      socket.write(head);
      socket.pipe(behind);
      behind.pipe(socket);
    });
    forwarded.on('response', (answer) => socket.end(`HTTP/1.1 ${answer.statusCode} Refused\r\nconnection: close\r\n\r\n`));
    forwarded.on('error', () => socket.destroy());
    forwarded.end();
  });

  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    origin: `http://127.0.0.1:${server.address().port}`,
    /** The last segment of the paths that were asked for, and `upgrade`. */
    seen,
    async stop() {
      server.close();
      for (const socket of sockets) {
        socket.destroy();
      }
    },
  };
}

// `ws`, and Server-Sent Events from Node's own HTTP server.
//
// Settings: no permessage-deflate, no list of clients kept by the library, no check of UTF-8, bufferutil. A broadcast is framed once
// (`Sender.frame`), and the same bytes are written to every socket.

import http from 'node:http';
import https from 'node:https';
import { createRequire } from 'node:module';
import { Sender, WebSocketServer } from 'ws';
import { listen, readArguments, ready, states, tokens } from './subject.mjs';

const BINARY = 2;
const TEXT = 1;

const fanout = new Set();
const [state, token] = [states(), tokens()];

/** One frame of a server, in one piece. */
function frame(data, isBinary) {
  const opcode = isBinary ? BINARY : TEXT;
  return Buffer.concat(Sender.frame(data, { fin: true, rsv1: false, opcode, mask: false, readOnly: false }));
}

const behaviours = {
  '/fanout': (socket, raw) => {
    fanout.add(raw);
    socket.on('close', () => fanout.delete(raw));
    socket.on('message', (data, isBinary) => {
      const framed = frame(data, isBinary);
      for (const other of fanout) {
        if (other !== raw) {
          other.write(framed);
        }
      }
    });
  },
  '/echo': (socket) => socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary })),
  '/idle': () => {},
  '/state': (socket, _raw, query) => socket.on('close', state.join(query, (data) => socket.send(data))),
  '/tokens': (socket, _raw, query) => socket.on('close', token.join(query, (text) => socket.send(text))),
};

const sockets = new WebSocketServer({
  noServer: true,
  perMessageDeflate: false,
  skipUTF8Validation: true,
  clientTracking: false,
});

function upgrade(request, raw, head) {
  const { pathname, searchParams } = new URL(request.url, 'http://subject');
  const behaviour = behaviours[pathname];
  if (!behaviour) {
    raw.destroy();
    return;
  }
  raw.setNoDelay(true);
  sockets.handleUpgrade(request, raw, head, (socket) => {
    socket.on('error', () => {}); // 'close' follows
    behaviour(socket, raw, searchParams);
  });
}

function events(request, response) {
  const { pathname, searchParams } = new URL(request.url, 'http://subject');
  if (pathname !== '/tokens' && pathname !== '/idle') {
    response.writeHead(404).end();
    return;
  }
  response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
  response.flushHeaders();
  if (pathname === '/tokens') {
    response.on('close', token.join(searchParams, (text) => response.write(`data: ${text}\n\n`)));
  }
}

const { host, port, tls } = readArguments();
const tcp = await listen(http.createServer(events).on('upgrade', upgrade), host, port);
const secure = tls && (await listen(https.createServer(tls, events).on('upgrade', upgrade), host, 0));
const { version } = createRequire(import.meta.url)('ws/package.json');
ready({ tcp, tls: secure, versions: { ws: version, node: process.versions.node } });

// Socket.IO 4. Each behaviour is a namespace of its name; events are called `message`.
//
// Settings: no permessage-deflate, no HTTP compression, the first request of a connection forgotten (its own advice for less memory), broadcasts by
// the in-memory adapter, which encodes once. With `--recovery`: connection state recovery, and one event at the beginning, since a connection
// can be recovered only after it has received something.

import http from 'node:http';
import https from 'node:https';
import { createRequire } from 'node:module';
import { Server } from 'socket.io';
import { listen, readArguments, ready, states, tokens } from './subject.mjs';

const { host, port, tls, recovery } = readArguments();
const [state, token] = [states(), tokens()];

const behaviours = {
  '/fanout': (socket) => socket.on('message', (data) => socket.broadcast.emit('message', data)),
  '/echo': (socket) => socket.on('message', (data) => socket.emit('message', data)),
  '/idle': () => {},
  // Volatile: what cannot be sent now is dropped. It is what Socket.IO has for state that is soon stale.
  '/state': (socket, query) => socket.on('disconnect', state.join(query, (data) => socket.volatile.emit('message', data))),
  '/tokens': (socket, query) => socket.on('disconnect', token.join(query, (text) => socket.emit('message', text))),
};

function serve(server) {
  const io = new Server(server, {
    perMessageDeflate: false,
    httpCompression: false,
    serveClient: false,
    maxHttpBufferSize: 8 * 1_048_576,
    connectionStateRecovery: recovery ? { maxDisconnectionDuration: 120_000, skipMiddlewares: true } : undefined,
  });
  io.engine.on('connection', (connection) => {
    connection.request = null;
  });
  for (const [name, behave] of Object.entries(behaviours)) {
    io.of(name).on('connection', (socket) => {
      behave(socket, new URLSearchParams(socket.handshake.query));
      if (recovery && !socket.recovered) {
        socket.emit('message', 'hello');
      }
    });
  }
  return server;
}

const tcp = await listen(serve(http.createServer()), host, port);
const secure = tls && (await listen(serve(https.createServer(tls)), host, 0));
const { version } = createRequire(import.meta.url)('socket.io/package.json');
ready({ tcp, tls: secure, versions: { 'socket.io': version, node: process.versions.node } });

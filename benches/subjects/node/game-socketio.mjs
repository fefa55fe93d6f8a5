// The demo's arena over Socket.IO, in the namespace `/game`: `state` is an event with binary data, volatile (dropped when it cannot be sent now), `notice` one
// with text. Inputs come as `message` with text, in hexadecimal: seven bytes are cheaper so than as an attachment, which is a message of its own. Settings as in socketio.mjs.

import http from 'node:http';
import { createRequire } from 'node:module';
import { Server } from 'socket.io';
import { Stage } from './game/stage.mjs';
import { listen, readArguments, ready, seats } from './subject.mjs';

const { host, port } = readArguments();
const stage = new Stage({ playersMax: seats });
const server = http.createServer();
const io = new Server(server, { perMessageDeflate: false, httpCompression: false, serveClient: false });
io.engine.on('connection', (connection) => {
  connection.request = null;
});
io.of('/game').on('connection', (socket) => {
  const player = stage.join({
    show: (bytes) => socket.volatile.emit('state', bytes),
    tell: (text) => socket.emit('notice', text),
  });
  socket.on('disconnect', () => player?.leave());
  socket.on('message', (hex) => player?.steer(Buffer.from(hex, 'hex')));
  if (player === null) {
    socket.disconnect(true);
  }
});

const tcp = await listen(server, host, port);
stage.start();
const { version } = createRequire(import.meta.url)('socket.io/package.json');
ready({ tcp, versions: { 'socket.io': version, node: process.versions.node } });

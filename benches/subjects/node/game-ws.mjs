// The demo's arena over `ws`: states and maps are binary messages, inputs too, notices are text. Settings as in ws.mjs.
//
// A state is left out for whoever has more than one of them waiting in the library's own queue: what newest-wins can do without a hold on the kernel's.

import http from 'node:http';
import { createRequire } from 'node:module';
import { WebSocketServer } from 'ws';
import { Stage } from './game/stage.mjs';
import { STATE_MAX } from './game/view.mjs';
import { listen, readArguments, ready, seats } from './subject.mjs';

const { host, port } = readArguments();
const stage = new Stage({ playersMax: seats });
const sockets = new WebSocketServer({
  noServer: true,
  perMessageDeflate: false,
  skipUTF8Validation: true,
  clientTracking: false,
});

const server = http.createServer((_, response) => response.writeHead(404).end());
server.on('upgrade', (request, raw, head) => {
  raw.setNoDelay(true);
  sockets.handleUpgrade(request, raw, head, (socket) => {
    const player = stage.join({
      show: (bytes) => socket.bufferedAmount <= STATE_MAX && socket.send(bytes),
      tell: (text) => socket.send(text),
    });
    socket.on('error', () => {}); // 'close' follows
    socket.on('close', () => player?.leave());
    socket.on('message', (data, isBinary) => isBinary && player?.steer(data));
    if (player === null) {
      socket.close(4_000, 'the arena is full');
    }
  });
});

const tcp = await listen(server, host, port);
stage.start();
const { version } = createRequire(import.meta.url)('ws/package.json');
ready({ tcp, versions: { ws: version, node: process.versions.node } });

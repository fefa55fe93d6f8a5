// SockJS. Each behaviour is a prefix of its name; messages are text.
//
// Settings: no log, heartbeats as they come. It has no broadcast: each connection is written to.

import http from 'node:http';
import https from 'node:https';
import { createRequire } from 'node:module';
import sockjs from 'sockjs';
import { listen, readArguments, ready, states, tokens } from './subject.mjs';

const { host, port, tls } = readArguments();
const fanout = new Set();
const [state, token] = [states(), tokens()];

/** SockJS keeps no query: what a client asks for beside the path is not known to it. */
const NOTHING_ASKED = new URLSearchParams();

const behaviours = {
  '/fanout': (connection) => {
    fanout.add(connection);
    connection.on('close', () => fanout.delete(connection));
    connection.on('data', (message) => {
      for (const other of fanout) {
        if (other !== connection) {
          other.write(message);
        }
      }
    });
  },
  '/echo': (connection) => connection.on('data', (message) => connection.write(message)),
  '/idle': () => {},
  // Binary data does not pass: in hexadecimal.
  '/state': (connection) =>
    connection.on('close', state.join(NOTHING_ASKED, (data) => connection.write(data.toString('hex')))),
  '/tokens': (connection) => connection.on('close', token.join(NOTHING_ASKED, (text) => connection.write(text))),
};

function serve(server) {
  for (const [prefix, behave] of Object.entries(behaviours)) {
    const endpoint = sockjs.createServer({ prefix, log: () => {} });
    endpoint.on('connection', behave);
    endpoint.installHandlers(server);
  }
  return server;
}

const tcp = await listen(serve(http.createServer()), host, port);
const secure = tls && (await listen(serve(https.createServer(tls)), host, 0));
const { version } = createRequire(import.meta.url)('sockjs/package.json');
ready({ tcp, tls: secure, versions: { sockjs: version, node: process.versions.node } });

// Bun's `Bun.serve`, which is uWebSockets inside; run by `bun`.
//
// Settings: no permessage-deflate, no idle timeout, no pings; a broadcast is `publish` to a topic.

import { readArguments, ready, states, tokens } from './subject.mjs';

const { host, port, tls } = readArguments();
const [state, token] = [states(), tokens()];

const behaviours = {
  '/fanout': {
    open: (socket) => void socket.subscribe('fanout'),
    message: (socket, message) => void socket.publish('fanout', message), // to everybody else
  },
  '/echo': { message: (socket, message) => void socket.send(message) },
  '/idle': {},
  '/state': { open: (socket) => repeat(socket, state, (data) => socket.send(data)) },
  '/tokens': { open: (socket) => repeat(socket, token, (text) => socket.send(text)) },
};

function repeat(socket, clock, send) {
  socket.data.leave = clock.join(socket.data.query, send);
}

/** Server-Sent Events, by a stream that is written to directly. */
function events(pathname, query, signal) {
  const send = (controller) => (text) => {
    controller.write(`data: ${text}\n\n`);
    controller.flush();
  };
  const body = new ReadableStream({
    type: 'direct',
    async pull(controller) {
      controller.write(':\n\n'); // the response begins with its first bytes
      controller.flush();
      const leave = pathname === '/tokens' ? token.join(query, send(controller)) : undefined;
      await new Promise((resolve) => signal.addEventListener('abort', resolve));
      leave?.();
      controller.close();
    },
  });
  return new Response(body, { headers: { 'content-type': 'text/event-stream', 'cache-control': 'no-store' } });
}

function serve(port, tls) {
  return Bun.serve({
    hostname: host,
    port,
    tls,
    idleTimeout: 0,
    fetch(request, server) {
      const { pathname, searchParams: query } = new URL(request.url);
      const behaviour = behaviours[pathname];
      if (!behaviour) {
        return new Response(null, { status: 404 });
      }
      const hasEvents = pathname === '/tokens' || pathname === '/idle';
      if (hasEvents && request.headers.get('upgrade') === null) {
        return events(pathname, query, request.signal);
      }
      const data = pathname === '/state' || pathname === '/tokens' ? { behaviour, query } : { behaviour };
      return server.upgrade(request, { data }) ? undefined : new Response(null, { status: 426 });
    },
    websocket: {
      perMessageDeflate: false,
      idleTimeout: 0,
      sendPings: false,
      publishToSelf: false,
      open: (socket) => socket.data.behaviour.open?.(socket),
      message: (socket, message) => socket.data.behaviour.message?.(socket, message),
      close: (socket) => socket.data.leave?.(),
    },
  });
}

const tcp = serve(port).port;
const secure = tls && serve(0, tls).port;
ready({ tcp, tls: secure, versions: { bun: Bun.version } });

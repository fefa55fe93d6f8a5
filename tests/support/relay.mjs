// A TCP relay whose connections can be cut, for readers that are not ours.

import { once } from 'node:events';
import { connect, createServer } from 'node:net';

/** Starts one in front of a port of loopback. `port` is where it listens. */
export async function startRelay(target) {
  const sockets = new Set();
  const keep = (socket, other) => {
    sockets.add(socket);
    socket.on('error', () => {}); // the other end is told by the close
    socket.once('close', () => {
      sockets.delete(socket);
      other.destroy();
    });
    socket.pipe(other);
  };
  const server = createServer((downstream) => {
    const upstream = connect(target, '127.0.0.1');
    keep(downstream, upstream);
    keep(upstream, downstream);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const cut = () => {
    for (const socket of sockets) {
      socket.destroy();
    }
  };
  return {
    port: server.address().port,
    /** All connections, in the middle of whatever they carry. New ones are taken. */
    cut,
    async close() {
      cut();
      server.close();
      await once(server, 'close');
    },
  };
}

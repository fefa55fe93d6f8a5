// nginx in front of the server's TCP listener.

import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { binaries } from './binaries.mjs';
import { start } from './child.mjs';

/** What goes into `location /` beside `proxy_pass`. */
export const LOCATIONS = {
  /** Nothing: buffering, HTTP/1.0 to the server, no upgrades, 60 s timeouts. */
  defaults: '',
  /** What every guide says about WebSocket; the rest as it comes. */
  websocket: `
    proxy_http_version 1.1;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection $connection_upgrade;
    proxy_set_header Host $http_host;`,
  /** Told to keep event streams, whatever the server asks for. */
  buffering: 'proxy_ignore_headers X-Accel-Buffering;',
};

/** Starts nginx in front of `origin` with one of LOCATIONS. */
export async function startNginx(origin, location) {
  const folder = await mkdtemp(join(tmpdir(), 'throughline-nginx-'));
  const port = await freePort();
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'];
  const configuration = `
daemon off; master_process off; pid ${folder}/pid; error_log stderr warn;
events {}
http {
  access_log off;
  ${temporary.map((name) => `${name}_temp_path ${folder}/${name};`).join(' ')}
  map $http_upgrade $connection_upgrade { default upgrade; '' close; }
  server {
    listen 127.0.0.1:${port};
    location / { proxy_pass ${origin}; ${location} }
  }
}
`;
  await writeFile(join(folder, 'nginx.conf'), configuration);
  const child = start(binaries.nginx, ['-p', folder, '-e', 'stderr', '-c', join(folder, 'nginx.conf')]);
  await accepts(port, child);
  return {
    origin: `http://127.0.0.1:${port}`,
    async stop() {
      await child.stop('SIGTERM', 3_000);
      await rm(folder, { recursive: true, force: true });
    },
  };
}

async function freePort() {
  const server = net.createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** nginx says nothing when it listens: ask it. */
async function accepts(port, child) {
  const deadline = performance.now() + 5_000;
  let ended = false;
  child.exited.finally(() => {
    ended = true;
  });
  while (performance.now() < deadline && !ended) {
    const connected = await new Promise((resolve) => {
      const socket = net.connect(port, '127.0.0.1');
      socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
      socket.once('connect', () => socket.destroy());
    });
    if (connected) {
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`nginx does not listen: ${child.stderr.tail()}`);
}

// The server under test, as a process of its own on free ports of loopback.

import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { binaries } from './binaries.mjs';
import { start } from './child.mjs';
import { SERVER_ADDRESS } from './path.mjs';

const READY_MS = 10_000;
/** A server may wait for its clients as long as its drain timeout says: 8 s, unless it was told otherwise. */
const STOP_MS = 15_000;

/** The application of server/examples/testbed.rs. `env` is configuration, such as `THROUGHLINE_TCP__TLS`. */
export function startTestbed(env = {}) {
  return startServer(binaries.testbed, [], {
    THROUGHLINE_TCP__LISTEN: '127.0.0.1:0',
    THROUGHLINE_QUIC__LISTEN: '127.0.0.1:0',
    ...env,
  });
}

/** The same at the other end of `path` (see path.mjs). */
export async function startTestbedBehind(path, env = {}, binary = binaries.testbed) {
  const server = await startServer(...path.atServer(binary, []), {
    THROUGHLINE_TCP__LISTEN: `${SERVER_ADDRESS}:0`,
    THROUGHLINE_QUIC__LISTEN: `${SERVER_ADDRESS}:0`,
    ...env,
  });
  path.redirect(server.tcpPort, server.quicPort);
  server.tcp = `http://127.0.0.1:${server.tcpPort}`;
  server.quic = `https://127.0.0.1:${server.quicPort}`;
  return server;
}

/** `throughline demo`. */
export function startDemo(env = {}, { tcp = '127.0.0.1:0' } = {}) {
  const args = ['demo', '--json', '--tcp', tcp, '--quic', '127.0.0.1:0'];
  return startServer(binaries.throughline, args, { THROUGHLINE_LOG__FORMAT: 'json', ...env });
}

/** `throughline serve`, without a configuration but for who may come in: everybody. It echoes. */
export function startServe(env = {}) {
  return startServer(binaries.throughline, ['serve', '--json'], {
    THROUGHLINE_AUTH__ANONYMOUS: 'true',
    THROUGHLINE_TCP__LISTEN: '127.0.0.1:0',
    THROUGHLINE_QUIC__LISTEN: '127.0.0.1:0',
    THROUGHLINE_LOG__FORMAT: 'json',
    ...env,
  });
}

/** The example of server/examples/tokens, which asks the model at `url` (see model.mjs). */
export function startTokens(url, key, args = []) {
  return startServer(binaries.tokens, ['--json', '--model', 'fake', ...args], {
    THROUGHLINE_TCP__LISTEN: '127.0.0.1:0',
    THROUGHLINE_QUIC__LISTEN: '127.0.0.1:0',
    OPENAI_BASE_URL: url,
    OPENAI_API_KEY: key,
  });
}

async function startServer(command, args, env) {
  const folder = await mkdtemp(join(tmpdir(), 'throughline-test-'));
  const child = start(command, args, {
    env: { PATH: process.env.PATH, THROUGHLINE_CERTIFICATE__DIR: folder, ...env },
  });
  try {
    const { json } = await child.stdout.find((line) => line.json?.event === 'ready', 'ready line', READY_MS);
    return new Server(child, json, folder);
  } catch (error) {
    await child.stop('SIGKILL');
    await rm(folder, { recursive: true, force: true });
    throw new Error(`${error.message}\n${child.stderr.tail()}`);
  }
}

class Server {
  #child;
  #folder;

  constructor(child, ready, folder) {
    this.#child = child;
    this.#folder = folder;
    /** `http://127.0.0.1:PORT` */
    this.tcp = ready.tcp;
    /** `https://127.0.0.1:PORT` */
    this.quic = ready.quic;
    this.certificateHashes = ready.certificateHashes;
    this.tcpPort = Number(new URL(ready.tcp).port);
    this.quicPort = Number(new URL(ready.quic).port);
    this.pid = child.pid;
    this.log = child.stderr;
  }

  /** The log's line about the end of a session. */
  async sessionClosed(id, timeoutMs) {
    const isIt = ({ json }) => json?.message === 'session closed' && json.session === id;
    const line = await this.log.find(isIt, `the log's line "session closed" of ${id}`, timeoutMs);
    return { ...line.json, at: line.at };
  }

  /** What the process keeps in memory, in bytes. */
  async residentBytes() {
    const status = await readFile(`/proc/${this.pid}/status`, 'utf8');
    return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)[1]) * 1024;
  }

  /** Whether anything in the log tells of a mistake in the server itself. */
  get complaints() {
    return this.log.all.filter(({ text, json }) => json?.level === 'ERROR' || text.includes('panicked'));
  }

  signal(name) {
    this.#child.kill(name);
  }

  get exited() {
    return this.#child.exited;
  }

  async stop(signal) {
    const code = await this.#child.stop(signal, STOP_MS);
    await rm(this.#folder, { recursive: true, force: true });
    return code;
  }
}

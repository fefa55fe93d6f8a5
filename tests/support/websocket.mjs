// WebSocket by hand (RFC 6455), over whatever carries bytes: a test must be able to send what no library would.

import { randomBytes } from 'node:crypto';
import http from 'node:http';
import { frames, readWelcome, TYPES } from './wire.mjs';

/** Asks for the upgrade over HTTP/1.1. `protocols` are the subprotocols; `request` may be that of https. */
export function upgrade(url, { protocols = ['throughline.v1'], headers = {}, request = http.request, ...options } = {}) {
  return new Promise((resolve, reject) => {
    const asked = request(url, {
      headers: {
        Connection: 'Upgrade',
        Upgrade: 'websocket',
        'Sec-WebSocket-Version': '13',
        'Sec-WebSocket-Key': randomBytes(16).toString('base64'),
        ...(protocols.length > 0 && { 'Sec-WebSocket-Protocol': protocols.join(', ') }),
        ...headers,
      },
      ...options,
    });
    asked.on('upgrade', (response, socket, head) => {
      const connection = new WebSocketConnection(socket, head);
      resolve({ status: 101, headers: response.headers, connection });
    });
    asked.on('response', async (response) => {
      const text = Buffer.concat(await response.toArray()).toString();
      resolve({ status: response.statusCode, headers: response.headers, body: text.startsWith('{') ? JSON.parse(text) : text });
    });
    asked.on('error', reject);
    asked.end();
  });
}

/** An open WebSocket. */
export class WebSocketConnection {
  #socket;
  #bytes = Buffer.alloc(0);
  #items = [];
  #waiter = null;
  /** Resolves with the server's close frame, or with `null` when the connection ended without one. */
  closed;

  constructor(socket, head = Buffer.alloc(0)) {
    this.#socket = socket;
    this.closed = new Promise((resolve) => {
      this.close = resolve;
      socket.on('close', () => resolve(null));
      socket.on('end', () => resolve(null));
    });
    socket.on('error', () => {});
    socket.on('data', (chunk) => this.#read(chunk));
    this.#read(head);
  }

  /** One frame, masked as a client must. */
  send(payload, opcode = 2, { fin = true, masked = true } = {}) {
    const mask = randomBytes(4);
    const { length } = payload;
    const size = length < 126 ? [length] : length < 65_536 ? [126, length >> 8, length & 0xff] : null;
    const head = size ? Buffer.from([0, ...size]) : Buffer.alloc(10);
    if (!size) {
      head[1] = 127;
      head.writeBigUInt64BE(BigInt(length), 2);
    }
    head[0] = (fin ? 0x80 : 0) | opcode;
    if (!masked) {
      this.raw(Buffer.concat([head, payload]));
      return;
    }
    head[1] |= 0x80;
    const body = Buffer.from(payload);
    for (let i = 0; i < body.length; i++) {
      body[i] ^= mask[i & 3];
    }
    this.raw(Buffer.concat([head, mask, body]));
  }

  raw(bytes) {
    this.#socket.write(bytes);
  }

  destroy() {
    this.#socket.destroy();
  }

  /** The next binary message. */
  async next(ms = 5_000) {
    if (this.#items.length === 0) {
      await new Promise((resolve, reject) => {
        const timer = setTimeout(() => reject(new Error(`no message within ${ms} ms`)), ms);
        this.#waiter = () => {
          clearTimeout(timer);
          resolve();
        };
        this.closed.then((how) => reject(new Error(`closed: ${JSON.stringify(how)}`)));
      });
    }
    return this.#items.shift();
  }

  /** WELCOME, which comes first. */
  async welcome() {
    const [first] = frames(await this.next());
    if (first.type !== TYPES.WELCOME) {
      throw new Error(`type ${first.type} came first`);
    }
    return readWelcome(first.payload);
  }

  #read(chunk) {
    this.#bytes = Buffer.concat([this.#bytes, chunk]);
    for (;;) {
      const bytes = this.#bytes;
      if (bytes.length < 2) {
        return;
      }
      const short = bytes[1] & 0x7f;
      const start = short < 126 ? 2 : short === 126 ? 4 : 10;
      if (bytes.length < start) {
        return;
      }
      const length = short < 126 ? short : short === 126 ? bytes.readUInt16BE(2) : Number(bytes.readBigUInt64BE(2));
      if (bytes.length < start + length) {
        return;
      }
      const payload = bytes.subarray(start, start + length);
      this.#bytes = bytes.subarray(start + length);
      const opcode = bytes[0] & 0x0f;
      if (opcode === 2) {
        this.#items.push(Buffer.from(payload));
        this.#waiter?.();
      } else if (opcode === 8) {
        this.close({ code: payload.length >= 2 ? payload.readUInt16BE(0) : 1_005, reason: payload.subarray(2).toString() });
        this.send(payload, 8);
      }
    }
  }
}

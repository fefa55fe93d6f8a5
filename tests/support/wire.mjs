// Frames of protocol/SPEC.md, for tests that speak without the client: what it would never send included.

export const TYPES = { WELCOME: 1, CLOSE: 2, STREAM: 3, ACK: 4, DATAGRAM: 5, PING: 6, PONG: 7, TAKEN: 12, GOAWAY: 13 };

export function varint(value) {
  if (value < 0x40) {
    return Buffer.from([value]);
  }
  if (value < 0x4000) {
    return Buffer.from([0x40 | (value >> 8), value & 0xff]);
  }
  if (value < 0x4000_0000) {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32BE(value);
    bytes[0] |= 0x80;
    return bytes;
  }
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(value));
  bytes[0] |= 0xc0;
  return bytes;
}

export function frame(type, ...parts) {
  const payload = Buffer.concat(parts);
  return Buffer.concat([varint(type), varint(payload.length), payload]);
}

export const ping = (id = 1) => frame(TYPES.PING, varint(id));

/** Acknowledges what a STREAM frame of the message stream brought. */
export function ackOf({ payload }) {
  const reader = new Reader(payload);
  reader.varint();
  const received = reader.varint() + payload.length - reader.at;
  return frame(TYPES.ACK, varint(0), varint(received), varint(received + 262_144));
}

/** What a client says that is ready for the server to go. */
export const goaway = () => frame(TYPES.GOAWAY, varint(0));

export const stream = (offset, data) => frame(TYPES.STREAM, varint(0), varint(offset), data);

export function message(body) {
  const bytes = Buffer.from(body);
  return Buffer.concat([varint(typeof body === 'string' ? 1 : 0), varint(bytes.length), bytes]);
}

export class Reader {
  constructor(bytes) {
    this.bytes = bytes;
    this.at = 0;
  }

  get isDone() {
    return this.at >= this.bytes.length;
  }

  varint() {
    const length = 1 << (this.bytes[this.at] >> 6);
    let value = BigInt(this.bytes[this.at] & 0x3f);
    for (const byte of this.take(length).subarray(1)) {
      value = (value << 8n) | BigInt(byte);
    }
    return Number(value);
  }

  take(length) {
    if (this.at + length > this.bytes.length) {
      throw new RangeError('the packet ends too soon');
    }
    this.at += length;
    return this.bytes.subarray(this.at - length, this.at);
  }

  rest() {
    return this.take(this.bytes.length - this.at);
  }
}

/** The frames of a packet. */
export function frames(packet) {
  const reader = new Reader(packet);
  const all = [];
  while (!reader.isDone) {
    const type = reader.varint();
    all.push({ type, payload: reader.take(reader.varint()) });
  }
  return all;
}

export function readWelcome(payload) {
  const reader = new Reader(payload);
  const welcome = { version: reader.varint() };
  welcome.session = reader.take(16).toString('base64url');
  welcome.key = reader.take(16).toString('base64url');
  for (const name of ['flags', 'link', 'time', 'heartbeat', 'idle', 'maxMessage', 'received', 'limit']) {
    welcome[name] = reader.varint();
  }
  return welcome;
}

export function readClose(payload) {
  const reader = new Reader(payload);
  return { code: reader.varint(), origin: reader.take(1)[0], reason: reader.rest().toString() };
}

/** The three headers that name a link. */
export function linkHeaders({ session, key, link }) {
  return { 'Throughline-Session': session, 'Throughline-Key': key, 'Throughline-Link': String(link) };
}

/** The packets of an event stream, from a growing text: gives those that are complete, and what is left. */
export function events(text) {
  const parts = text.split('\n\n');
  const rest = parts.pop();
  const packets = parts
    .map((event) => event.split('\n').filter((line) => line.startsWith('data: ')))
    .filter((lines) => lines.length > 0)
    .map((lines) => Buffer.concat(lines.map((line) => Buffer.from(line.slice(6), 'base64'))));
  return { packets, rest };
}

// The client's machine in TypeScript, for the simulation: one command a line on standard input, one answer a line on
// standard output. typescript.rs is the other end.
//
// An answer is what the command gave, `|`, and what the simulation asks for all the time: when the machine wants to be
// woken (µs, or -), whether it has a link, received and unacknowledged bytes of stream 0, how many streams are there,
// a stream that wants a way, whether a native datagram waits, and how the session ended (code, origin, or -).

import { readSync, writeSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

const client = new URL('../../../client-js/', import.meta.url);
const { buildSync } = createRequire(new URL('package.json', client))('esbuild');
const [bundle] = buildSync({
  stdin: {
    contents: "export * from './machine.js'; export * from './codec.js'; export * from './half.js';",
    resolveDir: fileURLToPath(new URL('src/protocol', client)),
  },
  bundle: true,
  format: 'esm',
  write: false,
}).outputFiles;
const { Machine, decodePacket, StreamError } = await import(
  `data:text/javascript;base64,${Buffer.from(bundle.text).toString('base64')}`
);

let machine;
let hasLink;
let closed;
let sendBuffer;
/** Of stream 0. After the end the machine does not say. */
let received;
let wasOpened;
/** What the application has not taken, beside messages. */
let events;
let streams;
/** A command that throws ends the simulation with what it says. */
const hex = (bytes) => Buffer.from(bytes).toString('hex') || '.';
const unhex = (text) => new Uint8Array(Buffer.from(text === '.' ? '' : text, 'hex'));
const ms = (text) => Number(text) / 1000;
const one = (text) => {
  let found;
  decodePacket(unhex(text), (frame) => {
    found = frame;
  });
  return found;
};
/** What a stream refuses is an answer. */
const refusable = (work) => {
  try {
    return work();
  } catch (error) {
    if (error instanceof StreamError) {
      return `!${error.kind} ${error.code}`;
    }
    throw error;
  }
};

const commands = {
  new(buffer) {
    machine = new Machine();
    hasLink = wasOpened = false;
    closed = undefined;
    sendBuffer = Number(buffer);
    received = 0;
    events = [];
    streams = new Set();
  },
  open(now, nativeDatagram, nativeStreams) {
    machine.linkOpened(ms(now), { nativeDatagram: Number(nativeDatagram), nativeStreams: nativeStreams === '1' });
    hasLink = true;
  },
  lost() {
    machine.linkLost();
    hasLink = false;
  },
  frame: (now, frame) => machine.handleFrame(ms(now), one(frame)),
  late: (now, frame) => machine.handleLateFrame(ms(now), one(frame)),
  arrived: (now, known, frame) =>
    machine.handleNativeFrame(ms(now), known === '-' ? undefined : Number(known), one(frame)) ?? '-',
  datagram: (now, bytes) => machine.handleDatagram(ms(now), unhex(bytes)),
  timeout: (now) => machine.handleTimeout(ms(now)),
  packet(now, max) {
    const packet = machine.packet(ms(now), Number(max));
    return packet ? hex(packet) : '-';
  },
  native(now, id, max) {
    const packet = machine.nativePacket(ms(now), Number(id), Number(max));
    return packet ? hex(packet) : '-';
  },
  nativeDatagram: () => hex(machine.nativeDatagram()),
  route: (id, native) => machine.streams.route(Number(id), native === '1'),
  event() {
    if (events.length) {
      return events.shift();
    }
    const message = machine.message();
    if (message !== undefined) {
      return typeof message === 'string' ? `text ${hex(Buffer.from(message))}` : `binary ${hex(message)}`;
    }
    if (closed && !closed.isTold) {
      closed.isTold = true;
      return 'closed';
    }
    return '-';
  },
  send(kind, body) {
    if (isOver()) {
      return 'closed';
    }
    if (machine.bufferedBytes >= sendBuffer) {
      return 'full';
    }
    machine.send(kind === 'text', unhex(body));
    return 'ok';
  },
  sendDatagram: (key, bytes) => machine.sendDatagram(unhex(bytes), key === '-' ? undefined : Number(key)),
  openStream() {
    const id = isOver() ? null : machine.streams.open();
    if (id !== null) {
      streams.add(id);
    }
    return id ?? '-';
  },
  write: (id, bytes) => refusable(() => machine.streams.write(Number(id), unhex(bytes))),
  finish: (id) => refusable(() => machine.streams.finish(Number(id)) ?? 'ok'),
  reset: (id, code) => machine.streams.reset(Number(id), Number(code)),
  read: (id) =>
    refusable(() => {
      const read = machine.streams.read(Number(id));
      return typeof read === 'string' ? read : hex(read);
    }),
  stop: (id, code) => machine.streams.stop(Number(id), Number(code)),
  release: (id) => machine.streams.release(Number(id)),
  close: (now, code) => machine.close(ms(now), { code: Number(code), application: true, reason: 'enough' }),
};

/** The session has ended, or is about to. */
let isClosing = false;
const isOver = () => isClosing || closed !== undefined;

/** As its owner does: takes all events at once, and gives a silent link up. */
function look() {
  for (let event = machine.event(); event; event = machine.event()) {
    switch (event.type) {
      case 'opened':
        if (event.gap) {
          // The application is told; what follows is another session.
          closed = { code: 14, application: false };
        } else if (!wasOpened) {
          wasOpened = true;
          events.push('opened');
        }
        break;
      case 'datagram':
        events.push(`datagram ${hex(event.bytes)}`);
        break;
      case 'stream':
        streams.add(event.id);
        events.push(`stream ${event.id}`);
        break;
      case 'silent':
        commands.lost();
        break;
      case 'closed':
        closed = event.close;
    }
  }
  hasLink &&= closed === undefined;
}

function state() {
  const { timeout } = machine;
  const at = timeout === Infinity || closed ? '-' : Math.ceil(timeout * 1000) + 1;
  if (!closed && machine.resumption) {
    received = Number(machine.resumption.received.split('.')[1]);
  }
  for (const id of streams) {
    if (!machine.streams.has(id)) {
      streams.delete(id);
    }
  }
  return [
    at,
    Number(hasLink),
    received,
    machine.bufferedBytes,
    streams.size,
    machine.streams.unrouted() ?? '-',
    Number(machine.hasNativeDatagram),
    closed ? `${closed.code} ${Number(closed.application)}` : '-',
  ].join(' ');
}

/** The pipes may not block: then it is tried again. */
function insist(work) {
  for (;;) {
    try {
      return work();
    } catch (error) {
      if (error.code !== 'EAGAIN') {
        throw error;
      }
    }
  }
}

const input = Buffer.alloc(1 << 20);
let text = '';
for (;;) {
  const end = text.indexOf('\n');
  if (end < 0) {
    const length = insist(() => readSync(0, input));
    if (length === 0) {
      break;
    }
    text += input.toString('latin1', 0, length);
    continue;
  }
  const [name, ...words] = text.slice(0, end).split(' ');
  text = text.slice(end + 1);
  if (name === 'new') {
    isClosing = false;
  } else if (name === 'close') {
    isClosing = true;
  }
  const gave = commands[name](...words) ?? '';
  look();
  let answer = Buffer.from(`${gave}|${state()}\n`);
  while (answer.length) {
    answer = answer.subarray(insist(() => writeSync(1, answer)));
  }
}

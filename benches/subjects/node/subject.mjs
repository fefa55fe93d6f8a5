// What all subjects on JavaScript share: their arguments, the ready line, and the loops that send by the clock. Knows no protocol.

import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';

/** What `/state` and `/tokens` send, unless their query says otherwise. */
const STATE = { hz: 30, bytes: 150 };
const TOKENS = { hz: 50, bytes: 20 };

/** Seats in the game: as many as our own subject has. */
export const seats = 4_000;

/** The arguments of the contract. What does not apply to JavaScript is ignored. */
export function readArguments() {
  const options = Object.fromEntries(['tcp', 'quic', 'cert', 'key', 'app'].map((name) => [name, { type: 'string' }]));
  const { values } = parseArgs({ options: { ...options, recovery: { type: 'boolean' } }, strict: false });
  const [host, port] = (values.tcp ?? '127.0.0.1:0').split(':');
  const tls = values.cert && values.key ? { cert: readFileSync(values.cert), key: readFileSync(values.key) } : null;
  return { host, port: Number(port), tls, recovery: values.recovery === true };
}

/** Says that the subject accepts, and ends it when it is asked to. */
export function ready({ tcp, tls = null, versions }) {
  process.on('SIGTERM', () => process.exit(0));
  process.stdout.write(`${JSON.stringify({ event: 'ready', tcp, tls, quic: null, versions })}\n`);
}

/** Listens with a Node server; resolves to its port. */
export function listen(server, host, port) {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    // Thousands connect at once; the default of 511 would make some of them wait for a second SYN.
    server.listen({ host, port, backlog: 16_384 }, () => resolve(server.address().port));
  });
}

/** Microseconds since the Unix epoch. */
function now() {
  return (performance.timeOrigin + performance.now()) * 1_000;
}

/** The bytes of a state: when it was due, its number, filler. */
function state(due, number, bytes) {
  const buffer = Buffer.alloc(Math.max(bytes, 16), '.');
  buffer.writeBigUInt64BE(BigInt(Math.round(due)), 0);
  buffer.writeBigUInt64BE(BigInt(number), 8);
  return buffer;
}

/** A token: when it was due, as 16 hexadecimal digits, and filler. */
function token(due, _number, bytes) {
  return Math.round(due).toString(16).padStart(16, '0').padEnd(bytes, '.');
}

/**
 * Connections that are sent something by the clock: one loop for all that want the same, and none while there is nobody. A tick
 * that is late is sent late, and none is left out, so that an overload shows.
 */
class Clock {
  #defaults;
  #make;
  #groups = new Map();

  constructor(defaults, make) {
    this.#defaults = defaults;
    this.#make = make;
  }

  /** `send(payload)` is called at every tick, until the function that this returns is called. `query` is a URLSearchParams. */
  join(query, send) {
    const hz = Number(query.get('hz') ?? this.#defaults.hz);
    const bytes = Number(query.get('bytes') ?? this.#defaults.bytes);
    const key = `${hz} ${bytes}`;
    let group = this.#groups.get(key);
    if (!group) {
      group = new Set();
      this.#groups.set(key, group);
      this.#run(group, hz, bytes, () => this.#groups.delete(key));
    }
    group.add(send);
    return () => group.delete(send);
  }

  #run(group, hz, bytes, ended) {
    const interval = 1_000_000 / hz;
    const began = now();
    let number = 1;
    const tick = () => {
      if (group.size === 0) {
        ended();
        return;
      }
      const due = began + number * interval;
      const payload = this.#make(due, number, bytes);
      for (const send of group) {
        send(payload);
      }
      number += 1;
      // Upwards: a timer counts whole milliseconds, and nothing is to be sent before it is due.
      setTimeout(tick, Math.max(0, Math.ceil((began + number * interval - now()) / 1_000)));
    };
    setTimeout(tick, Math.ceil(interval / 1_000));
  }
}

export const states = () => new Clock(STATE, state);
export const tokens = () => new Clock(TOKENS, token);

// A machine with a link, for tests: frames in, frames out, and a clock that only moves when told.

import type { Close } from '../src/protocol/close.js';
import { CODE_NAMES } from '../src/protocol/close.js';
import { decodePacket } from '../src/protocol/codec.js';
import type { Frame, Welcome } from '../src/protocol/frames.js';
import { Machine } from '../src/protocol/machine.js';
import type { LinkTraits, MachineEvent } from '../src/protocol/report.js';

export class Peer {
  readonly machine = new Machine();
  now = 1_700_000_000_000;
  readonly events: MachineEvent[] = [];
  /** The largest packet. */
  room = 65_536;
  #links = 0;

  /** Opens a link and answers with WELCOME; what the client says first. */
  open(welcome: Partial<Welcome> = {}, traits: Partial<LinkTraits> = {}): Frame[] {
    this.machine.linkOpened(this.now, { nativeDatagram: 0, nativeStreams: false, ...traits });
    return this.receive({
      type: 'welcome',
      welcome: {
        version: 1,
        session: 'session',
        key: 'key',
        resumed: this.#links++ > 0,
        marked: false,
        link: this.#links,
        timeUs: this.now * 1000,
        heartbeatMs: 10_000,
        idleMs: 30_000,
        maxMessage: 4_194_304,
        received: 0,
        limit: 262_144,
        streams: 100,
        windowMs: 120_000,
        expiresMs: 0,
        ...welcome,
      },
    });
  }

  /** These frames arrive; what is sent then. */
  receive(...frames: Frame[]): Frame[] {
    for (const frame of frames) {
      this.machine.handleFrame(this.now, frame);
    }
    return this.sent();
  }

  /** Time passes, with every timeout at its moment; what is sent meanwhile. */
  pass(ms: number): Frame[] {
    const sent: Frame[] = [];
    const end = this.now + ms;
    for (let rounds = 0; this.machine.timeout <= end; rounds++) {
      if (rounds > 1000) {
        throw new Error(`a timeout that stays at ${this.machine.timeout}`);
      }
      this.now = Math.max(this.now, this.machine.timeout);
      this.machine.handleTimeout(this.now);
      sent.push(...this.sent());
    }
    this.now = end;
    return sent;
  }

  /** Everything that the machine wants to send. */
  sent(): Frame[] {
    for (let event = this.machine.event(); event; event = this.machine.event()) {
      this.events.push(event);
    }
    return framesOf(() => this.machine.packet(this.now, this.room));
  }

  /** What goes on the native stream of `id`. */
  native(id: number): Frame[] {
    return framesOf(() => this.machine.nativePacket(this.now, id, this.room));
  }

  /** The events of these types so far. */
  saw<Type extends MachineEvent['type']>(type: Type): Extract<MachineEvent, { type: Type }>[] {
    return this.events.filter((event) => event.type === type) as never;
  }

  /** The code of the CLOSE among `frames`. */
  static codeOf(frames: readonly Frame[]): string | undefined {
    const closes = frames.flatMap((frame): Close[] => (frame.type === 'close' ? [frame.close] : []));
    return closes[0] && CODE_NAMES[closes[0].code];
  }
}

function framesOf(packet: () => Uint8Array | null): Frame[] {
  const frames: Frame[] = [];
  for (let next = packet(); next; next = packet()) {
    decodePacket(next, (frame) => {
      frames.push('data' in frame ? { ...frame, data: frame.data.slice() } : frame);
    });
  }
  return frames;
}

export const bytesOf = (text: string): Uint8Array<ArrayBuffer> => new TextEncoder().encode(text);
export const textOf = (bytes: unknown): string => new TextDecoder().decode(bytes as Uint8Array);

export const data = (stream: number, offset: number, content: string | Uint8Array): Frame => ({
  type: 'stream',
  stream,
  offset,
  data: typeof content === 'string' ? bytesOf(content) : content,
});
export const ack = (stream: number, received: number, limit = 0): Frame => ({
  type: 'ack',
  stream,
  received,
  limit,
});
export const done = (stream: number): Frame => ack(stream, Number.MAX_SAFE_INTEGER);
export const end = (stream: number, size: number): Frame => ({ type: 'end', stream, size });
export const reset = (stream: number, code: number): Frame => ({ type: 'reset', stream, code });
export const stop = (stream: number, code: number): Frame => ({ type: 'stop', stream, code });
export const ping = (id: number): Frame => ({ type: 'ping', id });
export const pong = (id: number, timeMs = 0): Frame => ({ type: 'pong', id, timeUs: timeMs * 1000 });

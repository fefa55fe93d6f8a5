// The links of a session: the current one carries it, and the one before is read until the first frame has
// come over its successor. What they report goes to the machine, and what the machine has goes to them.

import type { Environment } from './environment.js';
import type { Win } from './ladder.js';
import { FIRST_PACKET_BYTES, FROZEN_PACKETS, NATIVE_STREAM_MS } from './limits.js';
import type { Frame } from './protocol/frames.js';
import { STREAM_CHUNK } from './protocol/limits.js';
import type { Machine } from './protocol/machine.js';
import type { Link, Loss, NativeStream, NativeStreamHandlers, Transport } from './transport/link.js';

/** A link that carries the session, or did. */
export interface Carrier {
  readonly transport: Transport;
  readonly link: Link;
  /** Since when, in milliseconds since the Unix epoch. */
  readonly since: number;
  /** The server has answered a PING on it: it carries frames both ways. */
  proven: boolean;
  /** Nothing was sent on it yet. */
  isFresh: boolean;
  /** Its native streams, by the session's stream that each carries. */
  readonly natives: Map<number, NativeStream>;
  /** Whether a native stream is being opened, and until when the browser is not asked for one. */
  isOpening: boolean;
  noStreamsUntil: number;
  /** What came and went while it is frozen; `null` when it is not. */
  held: { readonly packets: Uint8Array<ArrayBuffer>[]; readonly events: (() => void)[] } | null;
  /** Packets that were held, and have not left yet. */
  readonly thawed: Uint8Array<ArrayBuffer>[];
}

/** Whom the links belong to. */
export interface LinksHost {
  /** Something came in, or there is room: the machine may have something to say. */
  work(): void;
  /** The current link can only be read any more. */
  failing(loss: Loss): void;
  /** The current link ended. */
  lost(loss: Loss): void;
}

export class Links {
  readonly #env: Environment;
  readonly #machine: Machine;
  readonly #host: LinksHost;
  #current: Carrier | undefined;
  #previous: Carrier | undefined;
  /** Links that carried the session. */
  count = 0;
  /** Where the session came from when the current link took over, and why, in words. */
  from: Transport | null = null;
  reason = '';

  constructor(env: Environment, machine: Machine, host: LinksHost) {
    this.#env = env;
    this.#machine = machine;
    this.#host = host;
  }

  get current(): Carrier | undefined {
    return this.#current;
  }

  get transport(): Transport | null {
    return this.#current?.transport ?? null;
  }

  /** The session goes on over this link. The current one, if there is one, is closed when the first frame has come. */
  adopt({ transport, link, welcome, adopt }: Win, reason: string): void {
    const { now } = this.#env;
    const machine = this.#machine;
    this.#forget();
    this.#previous = this.#current;
    this.count++;
    this.from = this.transport;
    this.reason = reason;
    const carrier: Carrier = {
      transport,
      link,
      since: now(),
      proven: false,
      isFresh: true,
      natives: new Map(),
      isOpening: false,
      noStreamsUntil: 0,
      held: null,
      thawed: [],
    };
    this.#current = carrier;
    adopt({
      frame: (frame) => this.#receive(carrier, frame),
      stream: (native) => this.#handlersOf(carrier, native),
      datagram: (data) => {
        if (carrier === this.#previous && !carrier.held) {
          machine.handleLateDatagram(now(), data, welcome.marked);
          this.#host.work();
        } else if (!carrier.held) {
          this.#react(carrier, () => {
            this.#forget();
            machine.handleDatagram(now(), data);
          });
        }
      },
      heard: (bytes) => this.#react(carrier, () => machine.heard(now(), bytes), false),
      writable: () => this.#react(carrier, () => {}),
      violation: (close) => this.#react(carrier, () => machine.handleViolation(now(), close)),
      failing: (loss) => this.#react(carrier, () => this.#host.failing(loss)),
      lost: (loss) => this.#react(carrier, () => this.#host.lost(loss)),
    });
    machine.linkOpened(now(), {
      nativeDatagram: link.datagrams?.maxSize() ?? 0,
      nativeStreams: link.streams !== undefined,
    });
    machine.handleFrame(now(), { type: 'welcome', welcome });
    this.#host.work();
  }

  /** There is no link any more; returns the one that there was. */
  release(): Carrier | undefined {
    const carrier = this.#current;
    this.#forget();
    this.#current = undefined;
    return carrier;
  }

  /** Gives the current link what it takes. */
  transmit(): void {
    const machine = this.#machine;
    const { now } = this.#env;
    const carrier = this.#current;
    if (!carrier) {
      return;
    }
    const { link, natives, held, thawed } = carrier;
    if (held) {
      // A black hole takes what a buffer takes.
      const { packets } = held;
      const room = () => (packets.length < FROZEN_PACKETS ? STREAM_CHUNK : 0);
      pour({ room, send: (packet) => packets.push(packet) }, (max) => machine.packet(now(), max));
      return;
    }
    // What was held goes first, and each packet when there is room: POSTs that run side by side arrive in any order.
    for (; thawed.length > 0; thawed.shift()) {
      if (link.room() <= 0) {
        return;
      }
      link.send(thawed[0] as Uint8Array<ArrayBuffer>);
    }
    this.#route(carrier);
    pour(link, (room) => {
      const max = carrier.isFresh ? FIRST_PACKET_BYTES : room;
      carrier.isFresh = false;
      return machine.packet(now(), Math.min(room, max));
    });
    // After the packets: the server drops datagrams that come before the first frame.
    while (machine.hasNativeDatagram && link.datagrams?.room()) {
      link.datagrams.send(machine.nativeDatagram());
    }
    for (const [id, native] of natives) {
      pour(native, (room) => machine.nativePacket(now(), id, room));
      if (!machine.streams.goesOn(id)) {
        natives.delete(id);
        native.finish(machine.streams.isReset(id));
      }
    }
  }

  /** The current link passes nothing for `ms` milliseconds. */
  freeze(ms: number): void {
    const carrier = this.#current;
    if (carrier && !carrier.held) {
      carrier.held = { packets: [], events: [] };
      this.#env.timer(ms, () => {
        const { packets = [], events = [] } = carrier.held ?? {};
        carrier.held = null;
        if (carrier !== this.#current && carrier !== this.#previous) {
          return;
        }
        carrier.thawed.push(...packets);
        for (const event of events) {
          event();
        }
        this.#react(carrier, () => {});
      });
    }
  }

  /** The link before is not needed any more. */
  #forget(): void {
    this.#previous?.link.abort();
    this.#previous = undefined;
  }

  #receive(carrier: Carrier, frame: Frame): void {
    if (carrier.held) {
      // The bytes of a frame are only valid now.
      const kept = 'data' in frame ? { ...frame, data: frame.data.slice() } : frame;
      carrier.held.events.push(() => this.#receive(carrier, kept));
    } else if (carrier === this.#previous) {
      this.#machine.handleLateFrame(this.#env.now(), frame);
      this.#host.work();
    } else {
      this.#react(carrier, () => {
        this.#forget();
        this.#machine.handleFrame(this.#env.now(), frame);
      });
    }
  }

  /** What only the current link may say. */
  #react(carrier: Carrier, work: () => void, drive = true): void {
    if (carrier.held) {
      carrier.held.events.push(() => this.#react(carrier, work, drive));
    } else if (carrier === this.#current) {
      work();
      if (drive) {
        this.#host.work();
      }
    }
  }

  // ---- native streams ----

  /** Finds a native stream for each new stream of ours, one after the other. */
  #route(carrier: Carrier): void {
    const { streams } = this.#machine;
    for (let id = streams.unrouted(); id !== undefined && !carrier.isOpening; id = streams.unrouted()) {
      if (this.#env.now() < carrier.noStreamsUntil) {
        streams.route(id, false);
      } else {
        carrier.isOpening = true;
        this.#open(carrier, id);
      }
    }
  }

  /** Opens a native stream for `id`. When the browser gives none in time, the link stream carries it. */
  #open(carrier: Carrier, id: number): void {
    const machine = this.#machine;
    let waits = true;
    const answer = (native?: NativeStream) => {
      cancel();
      if (waits && carrier === this.#current) {
        waits = false;
        carrier.isOpening = false;
        if (native) {
          carrier.natives.set(id, native);
        } else {
          // Others need not wait, too, before it has some again.
          carrier.noStreamsUntil = this.#env.now() + NATIVE_STREAM_MS;
        }
        machine.streams.route(id, native !== undefined);
        this.#host.work();
      } else {
        native?.finish(true);
      }
    };
    const cancel = this.#env.timer(NATIVE_STREAM_MS, () => answer());
    const handlers = this.#handlersOf(carrier, undefined, id);
    carrier.link.streams?.open(handlers).then(answer, () => answer());
  }

  /** What gets the frames of a native stream: the first one says which stream it carries, unless we opened it. */
  #handlersOf(carrier: Carrier, native: NativeStream | undefined, id?: number): NativeStreamHandlers {
    let known = id;
    const frame = (frame: Frame): void => {
      if (carrier === this.#previous && !carrier.held) {
        this.#machine.handleLateFrame(this.#env.now(), frame);
        this.#host.work();
        return;
      }
      const kept = carrier.held && 'data' in frame ? { ...frame, data: frame.data.slice() } : frame;
      this.#react(carrier, () => {
        known = this.#machine.handleNativeFrame(this.#env.now(), known, kept);
        if (native && known !== undefined) {
          carrier.natives.set(known, native);
        }
      });
    };
    return { frame };
  }
}

/** Gives `out` packets while it takes them. */
function pour(
  out: { room(): number; send(packet: Uint8Array<ArrayBuffer>): unknown },
  packet: (room: number) => Uint8Array<ArrayBuffer> | null,
): void {
  for (let room = out.room(); room > 0; room = out.room()) {
    const next = packet(room);
    if (!next) {
      return;
    }
    out.send(next);
  }
}

// A world for tests: a clock that only moves when told, storage in memory, and servers that do what a test says.

import type { Cancel, Environment } from '../src/environment.js';
import type { ConnectOptions } from '../src/options.js';
import { type Close, describeClose } from '../src/protocol/close.js';
import { decodePacket } from '../src/protocol/codec.js';
import type { Frame, Welcome } from '../src/protocol/frames.js';
import { Session } from '../src/session.js';
import {
  type Link,
  type LinkHandlers,
  TRANSPORTS,
  type Transport,
  type TransportKind,
} from '../src/transport/link.js';

interface Timer {
  at: number;
  order: number;
  callback: () => void;
}

export class World implements Environment {
  WebTransport: Environment['WebTransport'];
  WebSocket: Environment['WebSocket'];
  fetch: Environment['fetch'] = () => Promise.reject(new Error('no network'));
  hasFetch = true;
  hasStreams = true;
  readonly page = new Map<string, unknown>();
  pageUrl: string | undefined = 'http://page.test/game';
  readonly stored = new Map<string, string>();
  readonly listeners = new Map<string, Set<(event: Event) => void>>();
  randomValue = 0.5;
  hidden = false;
  #now = 1_700_000_000_000;
  #order = 0;
  #timers = new Set<Timer>();

  readonly now = (): number => this.#now;

  wallTime(): number {
    return this.#now;
  }

  random(): number {
    return this.randomValue;
  }

  readonly timer = (ms: number, callback: () => void): Cancel => {
    const timer = { at: this.#now + Math.max(0, ms), order: this.#order++, callback };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  };

  storage(): Pick<Storage, 'getItem' | 'setItem'> | undefined {
    return {
      getItem: (key) => this.stored.get(key) ?? null,
      setItem: (key, value) => void this.stored.set(key, value),
    };
  }

  readonly listen = (type: string, listener: (event: Event) => void): Cancel => {
    const listeners = this.listeners.get(type) ?? new Set();
    this.listeners.set(type, listeners.add(listener));
    return () => listeners.delete(listener);
  };

  readonly networkChanged = (listener: () => void): Cancel => this.listen('networkchange', listener);

  isHidden(): boolean {
    return this.hidden;
  }

  fire(type: string, event: Partial<PageTransitionEvent> = {}): void {
    for (const listener of this.listeners.get(type) ?? []) {
      listener(event as Event);
    }
  }

  get pendingTimers(): number {
    return this.#timers.size;
  }

  /** Lets the time pass, with every timer at its moment and all promises between them. */
  async pass(ms: number): Promise<void> {
    const end = this.#now + ms;
    await settle();
    for (;;) {
      const [next] = [...this.#timers].sort((a, b) => a.at - b.at || a.order - b.order);
      if (next === undefined || next.at > end) {
        break;
      }
      this.#timers.delete(next);
      this.#now = Math.max(this.#now, next.at);
      next.callback();
      await settle();
    }
    this.#now = end;
  }

  /** The machine sleeps: time passes and no timer fires until afterwards. */
  async sleep(ms: number): Promise<void> {
    this.#now += ms;
    await this.pass(0);
  }
}

/** Lets everything that waits on resolved promises happen. */
export function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** What a fake transport does when it is opened. */
export type Behaviour = (link: FakeLink) => void;

export const hang: Behaviour = () => {};

export function fail(
  afterMs: number,
  loss: Parameters<LinkHandlers['lost']>[0] = { reason: 'refused' },
): Behaviour {
  return (link) => link.later(afterMs, () => link.handlers.lost(loss));
}

/** Answers, and then says nothing any more: a link that opens and carries nothing. */
export function swallow(afterMs: number, welcome: Partial<Welcome> = {}): Behaviour {
  return (link) => {
    link.pongAfterMs = null;
    link.later(afterMs, () => link.welcome(welcome));
  };
}

export function answer(afterMs: number, welcome: Partial<Welcome> = {}): Behaviour {
  return (link) => link.later(afterMs, () => link.welcome(welcome));
}

let sessions = 0;

/** A link whose other end is the test. */
export class FakeLink implements Link {
  readonly sent: Frame[] = [];
  aborted = false;
  closedWith: Close | null = null;
  lastPacket: Uint8Array | null = null;
  capacity = 65_536;
  native = 0;
  takesDatagrams = true;
  /** Whether PINGs are answered, after so many milliseconds. */
  pongAfterMs: number | null = 1;
  readonly sentDatagrams: Uint8Array[] = [];
  readonly datagrams = {
    maxSize: () => this.native,
    room: () => this.takesDatagrams,
    send: (bytes: Uint8Array) => void this.sentDatagrams.push(bytes),
  };

  constructor(
    readonly world: World,
    readonly transport: Transport,
    readonly opening: {
      readonly resumption: { readonly session: string } | undefined;
      readonly token: string | undefined;
    },
    readonly handlers: LinkHandlers,
  ) {}

  later(ms: number, callback: () => void): void {
    this.world.timer(ms, () => this.aborted || callback());
  }

  welcome(fields: Partial<Welcome> = {}): void {
    this.handlers.heard(60);
    sessions += fields.session === undefined ? 1 : 0;
    const welcome: Welcome = {
      version: 1,
      session: `session-${sessions}`,
      key: 'key',
      resumed: false,
      marked: false,
      link: 1,
      timeUs: this.world.now() * 1000,
      heartbeatMs: 10_000,
      idleMs: 30_000,
      maxMessage: 4_194_304,
      received: 0,
      limit: 262_144,
      streams: 100,
      windowMs: 120_000,
      expiresMs: 0,
      ...fields,
    };
    this.handlers.frame({ type: 'welcome', welcome });
  }

  receive(frame: Frame): void {
    this.handlers.heard(10);
    this.handlers.frame(frame);
  }

  /** Answers the newest PING. */
  pong(): void {
    const ping = this.sent.filter((frame) => frame.type === 'ping').at(-1);
    this.receive({ type: 'pong', id: ping?.type === 'ping' ? ping.id : 0, timeUs: this.world.now() * 1000 });
  }

  room(): number {
    return this.capacity;
  }

  send(packet: Uint8Array): void {
    decodePacket(packet, (frame) => {
      this.sent.push('data' in frame ? { ...frame, data: frame.data.slice() } : frame);
      if (frame.type === 'ping' && this.pongAfterMs !== null) {
        this.later(this.pongAfterMs, () => {
          this.receive({ type: 'pong', id: frame.id, timeUs: this.world.now() * 1000 });
        });
      }
    });
  }

  close(close: Close): Promise<void> {
    this.closedWith = close;
    return Promise.resolve();
  }

  leave(packet: Uint8Array): void {
    this.lastPacket = packet;
  }

  abort(): void {
    this.aborted = true;
  }

  /** Bytes of stream 0 that were sent on this link. */
  get streamed(): string {
    return this.sent
      .map((frame) => (frame.type === 'stream' ? Buffer.from(frame.data).toString('latin1') : ''))
      .join('');
  }
}

/** Transports that behave as told; every link that was opened is in `links`. */
export class Network {
  readonly links: FakeLink[] = [];
  readonly kinds: TransportKind[];

  constructor(
    readonly world: World,
    readonly behaviours: Partial<Record<Transport, Behaviour | { missing: string }>>,
  ) {
    this.kinds = TRANSPORTS.map((name) => ({
      name,
      missing: () => {
        const behaviour = this.behaviours[name];
        return typeof behaviour === 'object' ? behaviour.missing : null;
      },
      open: (_env, opening, handlers) => {
        const link = new FakeLink(world, name, opening, handlers);
        this.links.push(link);
        const behaviour = this.behaviours[name] ?? hang;
        if (typeof behaviour === 'function') {
          behaviour(link);
        }
        return link;
      },
    }));
  }

  connect(options: ConnectOptions = {}): Session {
    return new Session('/rt', options, this.world, this.kinds);
  }

  /** The newest link of a transport. */
  link(transport: Transport): FakeLink {
    const link = this.links.filter((one) => one.transport === transport).at(-1);
    if (link === undefined) {
      throw new Error(`no link over ${transport}`);
    }
    return link;
  }

  get opened(): string[] {
    return this.links.map((link) => link.transport);
  }
}

export { describeClose };

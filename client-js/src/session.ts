// The public session, and its driver: it owns the machine, the race, the current link and every timer.

import { reconnectDelay } from './backoff.js';
import { Emitter } from './emitter.js';
import type { Cancel, Environment } from './environment.js';
import { type ErrorCode, messageOf, ThroughlineError } from './errors.js';
import { type Explanation, explain } from './explain.js';
import { type Defeat, Race, type Win } from './ladder.js';
import {
  CLOSE_MS,
  HEDGE_MS,
  LATE_MS,
  MAX_ATTEMPTS,
  MAX_BUFFERED_BYTES,
  MAX_HEDGE_MS,
  PROBE_MS,
  STABLE_MS,
  STEP_MS,
} from './limits.js';
import { Memory } from './memory.js';
import { type ConnectOptions, checkToken, resolveBase } from './options.js';
import {
  type Close,
  closeName,
  describeClose,
  protocolClose,
  shouldRetry,
  truncateUtf8,
} from './protocol/close.js';
import type { DatagramKey } from './protocol/datagrams.js';
import { MAX_DATAGRAM, MAX_REASON } from './protocol/limits.js';
import { type Counters, type Gap, Machine } from './protocol/machine.js';
import type { Message } from './protocol/message.js';
import { type Link, type Loss, TRANSPORTS, type Transport, type TransportKind } from './transport/link.js';
import type { Opening } from './transport/opening.js';

/** What a session is doing. */
export type State = 'connecting' | 'open' | 'reconnecting' | 'closed';

/** How a session ended. */
export interface CloseInfo {
  /** A close code of the protocol, or the application's own. */
  readonly code: number;
  /** The code's name; `APPLICATION` for the application's own. */
  readonly name: ErrorCode;
  readonly reason: string;
  /** Whether the application, on either side, chose the code. */
  readonly application: boolean;
  /** Whether connecting again may help. */
  readonly retry: boolean;
}

/** The session moved to another link, got one, or lost one. */
export interface TransportChange {
  readonly from: Transport | null;
  readonly to: Transport | null;
  /** In words. */
  readonly reason: string;
}

/** A new session took the place of one that could not go on: what was not acknowledged may be lost. */
export interface GapInfo {
  readonly previousId: string;
  readonly id: string;
  /** Why the old session could not go on. */
  readonly reason: string;
  /** Bytes of messages that had been sent and not acknowledged. Messages that had never been sent follow on the new session. */
  readonly unacknowledgedBytes: number;
}

/** The events of a session, and what their listeners get. */
export interface SessionEvents {
  message: Message;
  datagram: Uint8Array<ArrayBuffer>;
  transport: TransportChange;
  gap: GapInfo;
  state: State;
  close: CloseInfo;
}

/** Counters since `connect`. Bytes are those of frames and datagrams, without what the carrier adds. */
export interface Stats extends Counters {
  /** Smoothed round trip on the current link, in milliseconds; `null` before the first answer. */
  rttMs: number | null;
  /** Bytes of messages that the server has not acknowledged. */
  bufferedBytes: number;
  /** Links that carried the session. */
  links: number;
  /** Times that a new session took the place of an old one. */
  gaps: number;
}

/** One session with a server, over whichever transport works. Made by `connect`. */
export class Session {
  /**
   * Resolves when the session is open for the first time. Rejects with a ThroughlineError when no transport
   * worked, when the server refused, or when the session was closed before.
   */
  readonly ready: Promise<void>;
  /** Resolves, and never rejects, when the session has ended for good. */
  readonly closed: Promise<CloseInfo>;
  /** Longest datagram, in bytes, on every transport. */
  readonly maxDatagramSize: number = MAX_DATAGRAM;

  readonly #env: Environment;
  readonly #base: string;
  readonly #options: ConnectOptions;
  readonly #kinds: TransportKind[];
  readonly #memory: Memory;
  readonly #machine = new Machine();
  readonly #events = new Emitter<SessionEvents>();
  readonly #unlisten: Cancel[];
  #resolveReady!: () => void;
  #rejectReady!: (error: ThroughlineError) => void;
  #resolveClosed!: (info: CloseInfo) => void;
  #state: State = 'connecting';
  #transport: Transport | null = null;
  #link: Link | undefined;
  #linkSince = 0;
  #linkProven = false;
  #links = 0;
  #gaps = 0;
  /** The newest races, for `explain`. */
  #races: Race[] = [];
  #raceNumber = 0;
  /** Losses in a row; 0 while the link is good. */
  #failures = 0;
  #retry: Cancel | undefined;
  #mayRetryAt = 0;
  /** Why there is no link, or why the session ended. */
  #reason = '';
  /** How the session ends, from the moment that this is known. */
  #closing: Close | undefined;
  #timer: Cancel | undefined;
  #timerAt = Infinity;
  #awake = false;
  #working = false;
  /** Whether anybody has ever listened to messages: until then they wait, and the server's credit with them. */
  #heeded = false;
  #waiters: { below: number; resolve: () => void; reject: (error: Error) => void }[] = [];

  /** @internal */
  constructor(
    base: string | URL,
    options: ConnectOptions,
    env: Environment,
    kinds: readonly TransportKind[],
  ) {
    const { transports = TRANSPORTS, token, signal } = options;
    this.#env = env;
    this.#options = options;
    this.#base = resolveBase(base, env.pageUrl);
    this.#kinds = transports.map((transport) => {
      const found = kinds.find(({ name }) => name === transport);
      if (!found) {
        throw new TypeError(`connect: no transport '${transport}', only ${TRANSPORTS}`);
      }
      return found;
    });
    if (typeof token !== 'function') {
      checkToken(token);
    }
    this.#memory = new Memory(env, new URL(this.#base).origin);
    this.ready = new Promise((resolve, reject) => {
      this.#resolveReady = resolve;
      this.#rejectReady = reject;
    });
    // Who awaits only `closed` must not see an unhandled rejection of this one.
    this.ready.catch(() => {});
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
    const nudge = () => this.#nudge();
    const abort = () => this.#abort(signal?.reason);
    this.#unlisten = [
      env.listen('online', nudge),
      env.listen('pageshow', nudge),
      env.listen('visibilitychange', () => env.isHidden() || nudge()),
      env.listen('pagehide', (event) => (event as PageTransitionEvent).persisted || this.#leave()),
      () => signal?.removeEventListener('abort', abort),
    ];
    signal?.addEventListener('abort', abort);
    if (signal?.aborted) {
      queueMicrotask(abort);
    } else {
      void this.#race();
    }
  }

  // ---- what is known ----

  /** The session's id, 22 characters; empty before it is open. A new one after a gap. */
  get id(): string {
    return this.#machine.welcome?.session ?? '';
  }

  /** What carries the session now; `null` while nothing does. */
  get transport(): Transport | null {
    return this.#transport;
  }

  get state(): State {
    return this.#state;
  }

  /** Bytes of messages that the server has not acknowledged yet. */
  get bufferedBytes(): number {
    return this.#machine.bufferedBytes;
  }

  /** The server's clock, in milliseconds since the Unix epoch; this machine's own before the session is open. */
  serverTime(): number {
    return this.#machine.serverTime(this.#env.now());
  }

  stats(): Stats {
    const { counters, rttMs, bufferedBytes } = this.#machine;
    return { ...counters, rttMs: rttMs || null, bufferedBytes, links: this.#links, gaps: this.#gaps };
  }

  /** What was tried, what happened, and why the current transport was chosen. */
  explain(): Explanation {
    const attempts = this.#races.flatMap((race) => race.attempts);
    const newest = this.#races.at(-1)?.attempts ?? [];
    return { attempts, ...explain(this.#state, this.#transport, this.#reason, newest) };
  }

  // ---- events ----

  /**
   * Calls `listener` at each event `name`. Returns a function that ends it.
   *
   * Messages wait until somebody listens to them, and hold up the server when too many do; datagrams do not wait.
   */
  on<Name extends keyof SessionEvents>(
    name: Name,
    listener: (payload: SessionEvents[Name]) => void,
  ): () => void {
    this.#heeded ||= name === 'message';
    this.#wake();
    return this.#events.on(name, listener);
  }

  // ---- sending ----

  /**
   * Sends a message, reliably and in order; before the session is open, as soon as it is. Bytes are copied.
   *
   * Throws TypeError for what is neither text nor bytes, and ThroughlineError when the session is closed
   * (`SESSION_CLOSED`), when the message is too large (`MESSAGE_TOO_LARGE`), or when more than
   * `maxBufferedBytes` wait (`BUFFER_FULL`: await `drained()`).
   */
  send(data: string | ArrayBuffer | ArrayBufferView): void {
    const text = typeof data === 'string';
    const body = text ? new TextEncoder().encode(data) : this.#check('send', data);
    this.#check('send', body, 'MESSAGE_TOO_LARGE', this.#machine.maxMessage);
    const { maxBufferedBytes = MAX_BUFFERED_BYTES } = this.#options;
    if (this.bufferedBytes + body.length > maxBufferedBytes) {
      throw new ThroughlineError(
        'BUFFER_FULL',
        `send: ${this.bufferedBytes} of ${maxBufferedBytes} bytes wait already: await drained()`,
      );
    }
    this.#machine.send(text, body);
    this.#wake();
  }

  /**
   * Resolves when at most `toBytes` are unacknowledged: 0, the default, means that the server has everything.
   * Rejects with a ThroughlineError when the session ends before.
   */
  drained(toBytes = 0): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiters.push({ below: toBytes, resolve, reject });
      this.#checkWaiters();
    });
  }

  /**
   * Sends a datagram: it may be lost, and is never sent again. Of those with the same `key` that have not left
   * yet, only the newest is sent; without a key each stands for itself.
   *
   * Throws TypeError for what is no bytes, and ThroughlineError when it is too large (`DATAGRAM_TOO_LARGE`) or the
   * session is closed (`SESSION_CLOSED`).
   */
  sendDatagram(data: ArrayBuffer | ArrayBufferView, options: { readonly key?: DatagramKey } = {}): void {
    const bytes = this.#check('sendDatagram', data, 'DATAGRAM_TOO_LARGE', MAX_DATAGRAM);
    this.#machine.sendDatagram(bytes.slice(), options.key);
    this.#wake();
  }

  // ---- the end ----

  /**
   * Ends the session: messages sent before go out first, for 3 s at most. Resolves like `closed`.
   * `code` is the application's own, from 0 to 2^32 − 1; without one it is the protocol's NORMAL.
   */
  close(code?: number, reason = ''): Promise<CloseInfo> {
    if (code !== undefined && code !== code >>> 0) {
      throw new TypeError('close: a code is an integer from 0 to 4294967295');
    }
    this.#close({
      code: code ?? 0,
      application: code !== undefined,
      reason: truncateUtf8(reason, MAX_REASON),
    });
    return this.closed;
  }

  /** Cuts the current link as a dead network would, for demonstrations and tests: the session reconnects. */
  cut(): void {
    this.#linkProven = true; // this says nothing about the transport
    this.#lose({ reason: 'cut by the application' });
    this.#work();
  }

  // ---- opening a link ----

  async #race(): Promise<void> {
    this.#retry = undefined;
    const env = this.#env;
    const memory = this.#memory;
    const { token, webtransport, info, hedgeMs = HEDGE_MS, stepMs = STEP_MS } = this.#options;
    const opening: Opening = {
      base: this.#base,
      resumption: this.#machine.resumption,
      token: undefined,
      webtransport,
      info: info !== false,
    };
    try {
      opening.token = checkToken(typeof token === 'function' ? await token() : token);
    } catch (error) {
      const reason = `token: ${messageOf(error)}`;
      this.#defeated(
        { close: protocolClose('UNREACHABLE', reason), retryAfterMs: 0 },
        new ThroughlineError('TOKEN_FAILED', reason, error),
      );
      return;
    }
    if (this.#state === 'closed' || this.#link) {
      return;
    }
    const race = new Race({
      env,
      rungs: this.#kinds.map((kind) => ({
        transport: kind.name,
        missing: kind.missing(env),
        failure: memory.failure(kind.name),
        open: (handlers) => kind.open(env, opening, handlers),
      })),
      number: ++this.#raceNumber,
      hedgeMs: Math.max(hedgeMs, Math.min(2 * memory.rttMs, MAX_HEDGE_MS)),
      stepMs,
      won: (win) => this.#won(win),
      lost: (defeat) => this.#defeated(defeat),
      failed: (transport, reason) => memory.failed(transport, reason),
    });
    this.#races = [...this.#races, race].slice(-MAX_ATTEMPTS / TRANSPORTS.length);
  }

  #won({ transport, link, welcome, adopt }: Win): void {
    const { now } = this.#env;
    const machine = this.#machine;
    const react = (work: () => void) => {
      if (this.#link === link) {
        work();
        this.#work();
      }
    };
    this.#link = link;
    this.#linkSince = now();
    this.#linkProven = false;
    this.#links++;
    this.#transport = transport;
    adopt({
      frame: (frame) => react(() => machine.handleFrame(now(), frame)),
      datagram: (bytes) => react(() => machine.handleDatagram(now(), bytes)),
      heard: (bytes) => machine.heard(now(), bytes),
      writable: () => react(() => {}),
      violation: (close) => react(() => machine.handleViolation(now(), close)),
      lost: (loss) => react(() => this.#lose(loss)),
    });
    react(() => {
      machine.linkOpened(now(), { nativeDatagram: link.datagrams?.maxSize() ?? 0, nativeStreams: false });
      machine.handleFrame(now(), { type: 'welcome', welcome });
    });
  }

  /** No transport worked, or the server refused. */
  #defeated({ close, retryAfterMs }: Defeat, error?: ThroughlineError): void {
    if (this.#state === 'connecting' || !shouldRetry(close)) {
      this.#finish(close, error);
    } else {
      this.#reconnect(close.reason, retryAfterMs);
    }
  }

  #reconnect(reason: string, retryAfterMs: number): void {
    if (this.#closing) {
      return;
    }
    this.#reason = reason;
    this.#setState('reconnecting');
    this.#mayRetryAt = this.#env.now() + retryAfterMs;
    const delay = reconnectDelay(this.#failures++, this.#env.random(), retryAfterMs);
    this.#retry = this.#env.timer(delay, () => void this.#race());
  }

  // ---- losing a link ----

  #lose({ reason, close, retryAfterMs = 0 }: Loss): void {
    const link = this.#link;
    if (!link) {
      return;
    }
    if (!this.#linkProven && !close && this.#transport) {
      this.#memory.failed(this.#transport, `opened, but carried nothing: ${reason}`, true);
    }
    this.#drop(reason);
    link.abort();
    this.#machine.linkLost();
    if (this.#closing) {
      return; // the machine says so
    }
    if (close && !shouldRetry(close)) {
      this.#finish(close);
      return;
    }
    if (close) {
      this.#machine.reopen();
    }
    this.#reconnect(reason, retryAfterMs);
  }

  /** The session ended, by CLOSE of either side, or by our own verdict. */
  #handleClosed(close: Close): void {
    // `closed` waits for what is still on its way out, within bounds.
    const left = this.#link?.close(close);
    if (shouldRetry(close) && !this.#closing) {
      this.#machine.reopen();
      this.#drop(describeClose(close));
      this.#reconnect(describeClose(close), 0);
    } else if (left) {
      const finish = () => this.#finish(close);
      this.#closing = close;
      this.#link = undefined;
      this.#unlisten.push(this.#env.timer(CLOSE_MS, finish));
      left.then(finish, finish);
    } else {
      this.#finish(close);
    }
  }

  #drop(reason: string): void {
    const from = this.#transport;
    if (this.#env.now() - this.#linkSince >= STABLE_MS) {
      this.#failures = 0;
    }
    this.#races.at(-1)?.cancel();
    this.#link = undefined;
    this.#transport = null;
    this.#events.emit('transport', { from, to: null, reason });
  }

  #close(close: Close): void {
    if (!this.#closing) {
      this.#closing = close;
      this.#machine.close(this.#env.now(), close);
      this.#work();
    }
  }

  #finish(close: Close, error?: ThroughlineError): void {
    if (this.#state === 'closed') {
      return;
    }
    const info: CloseInfo = { ...close, name: closeName(close), retry: shouldRetry(close) };
    this.#closing = close;
    this.#reason = describeClose(close);
    this.#races.at(-1)?.cancel();
    this.#link?.abort();
    this.#link = undefined;
    this.#transport = null;
    for (const cancel of [this.#timer, this.#retry, ...this.#unlisten]) {
      cancel?.();
    }
    this.#setState('closed');
    this.#rejectReady(error ?? new ThroughlineError(info.name, this.explain().summary));
    this.#checkWaiters();
    this.#resolveClosed(info);
    this.#events.emit('close', info);
  }

  #abort(cause: unknown): void {
    const close = protocolClose('NORMAL', truncateUtf8(`aborted: ${messageOf(cause)}`, MAX_REASON));
    if (this.#state === 'connecting') {
      this.#finish(close, new ThroughlineError('ABORTED', close.reason, cause));
    } else {
      this.#close(close);
    }
  }

  // ---- the driver ----

  /** Works once the application has had its say: many sends become one packet. */
  #wake(): void {
    if (!this.#awake) {
      this.#awake = true;
      queueMicrotask(() => {
        this.#awake = false;
        this.#work();
      });
    }
  }

  /** Hands on what the machine has for the application and for the link, until there is nothing left. */
  #work(): void {
    if (this.#working) {
      return; // called by a listener: the loop below goes on after it
    }
    this.#working = true;
    const machine = this.#machine;
    try {
      let again = true;
      while (again) {
        again = false;
        for (let event = machine.event(); event; event = machine.event()) {
          again = true;
          if (event.type === 'opened') {
            this.#handleOpened(event.gap);
          } else if (event.type === 'datagram') {
            this.#events.emit('datagram', event.bytes);
          } else if (event.type === 'silent') {
            this.#lose(event.close);
          } else if (event.type === 'closed') {
            this.#deliverMessages();
            this.#handleClosed(event.close);
          }
        }
        this.#deliverMessages();
        this.#transmit();
        again ||= machine.hasEvents;
      }
    } finally {
      this.#working = false;
    }
    if (!this.#linkProven && machine.isProven && this.#transport) {
      this.#linkProven = true;
      this.#memory.worked(this.#transport, machine.rttMs);
    }
    this.#checkWaiters();
    this.#schedule();
  }

  #handleOpened(gap: Gap | undefined): void {
    const reason = this.#reason;
    this.#setState('open');
    this.#events.emit('transport', { from: null, to: this.#transport, reason: this.explain().summary });
    if (gap) {
      this.#gaps++;
      this.#events.emit('gap', { ...gap, id: this.id, reason });
      // What the application sends in its 'gap' listeners, a greeting perhaps, goes before what was left over.
      this.#machine.releaseKept();
    }
    this.#resolveReady();
  }

  #deliverMessages(): void {
    while (this.#heeded) {
      const message = this.#machine.message();
      if (message === undefined) {
        return;
      }
      this.#events.emit('message', message);
    }
  }

  /** Gives the link what it takes. */
  #transmit(): void {
    const machine = this.#machine;
    const link = this.#link;
    while (machine.hasNativeDatagram && link?.datagrams?.room()) {
      link.datagrams.send(machine.nativeDatagram());
    }
    for (let room = link?.room(); link && room; room = link.room()) {
      const packet = machine.packet(this.#env.now(), room);
      if (!packet) {
        return;
      }
      link.send(packet);
    }
  }

  #checkWaiters(): void {
    this.#waiters = this.#waiters.filter(({ below, resolve, reject }) => {
      if (this.bufferedBytes <= below) {
        resolve();
      } else if (this.#state === 'closed') {
        reject(this.#closedError('drained'));
      } else {
        return true;
      }
      return false;
    });
  }

  #schedule(): void {
    const { now, timer } = this.#env;
    const at = this.#machine.timeout;
    if (this.#timerAt <= at || this.#state === 'closed') {
      return; // a timer that comes too early looks again
    }
    this.#timer?.();
    this.#timerAt = at;
    this.#timer = timer(at - now(), () => {
      this.#timerAt = Infinity;
      if (now() - at > LATE_MS) {
        // The machine slept, or the tab was throttled: what the server sent may be waiting behind this timer.
        this.#machine.probe(now(), PROBE_MS);
      }
      this.#machine.handleTimeout(now());
      this.#work();
    });
  }

  // ---- the page ----

  /** The network or the tab came back: asks at once whether the link lives, or tries again at once. */
  #nudge(): void {
    if (this.#retry && this.#env.now() >= this.#mayRetryAt) {
      this.#retry();
      void this.#race();
    }
    this.#machine.probe(this.#env.now(), PROBE_MS);
    this.#work();
  }

  #leave(): void {
    const close = protocolClose('NORMAL', 'page closed');
    this.#machine.handleViolation(this.#env.now(), close); // at once, without what waits
    const packet = this.#machine.packet(this.#env.now(), MAX_DATAGRAM);
    if (packet) {
      this.#link?.leave(packet, close);
    }
    this.#link = undefined;
    this.#finish(close);
  }

  // ---- helpers ----

  #setState(state: State): void {
    if (this.#state !== state) {
      this.#state = state;
      this.#events.emit('state', state);
    }
  }

  /** The bytes of what the application gives. Throws when they are none, too many, or too late. */
  #check(method: string, data: unknown, code?: ErrorCode, max = 0): Uint8Array {
    let bytes: Uint8Array;
    if (ArrayBuffer.isView(data)) {
      bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    } else if (data instanceof ArrayBuffer) {
      bytes = new Uint8Array(data);
    } else {
      throw new TypeError(
        `${method} takes ${method === 'send' ? 'a string or ' : ''}bytes, not ${typeof data}`,
      );
    }
    if (this.#closing) {
      throw this.#closedError(method);
    }
    if (code && bytes.length > max) {
      throw new ThroughlineError(
        code,
        `${method}: ${bytes.length} bytes; at most ${max} go at once: send parts`,
      );
    }
    return bytes;
  }

  #closedError(method: string): ThroughlineError {
    const why = this.#closing && describeClose(this.#closing);
    return new ThroughlineError('SESSION_CLOSED', `${method}: the session is closed (${why}): connect again`);
  }
}

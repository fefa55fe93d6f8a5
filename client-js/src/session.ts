// The public session, and its driver: it owns the machine, the race, the current link and every timer.

import { reconnectDelay } from './backoff.js';
import { Emitter } from './emitter.js';
import type { Cancel, Environment } from './environment.js';
import { type ErrorCode, messageOf, ThroughlineError } from './errors.js';
import { type Explanation, explain } from './explain.js';
import { type Defeat, Race, type Win } from './ladder.js';
import { CLOSE_MS, LATE_MS, MAX_ATTEMPTS, MAX_HEDGE_MS, PROBE_MS, STABLE_MS } from './limits.js';
import { Memory } from './memory.js';
import { checkToken, type Settings } from './options.js';
import {
  type Close,
  closeName,
  describeClose,
  protocolClose,
  shouldRetry,
  truncateUtf8,
} from './protocol/close.js';
import type { DatagramKey } from './protocol/datagrams.js';
import { writeClose } from './protocol/frames.js';
import { MAX_DATAGRAM, MAX_REASON } from './protocol/limits.js';
import { type Counters, Machine } from './protocol/machine.js';
import type { Message } from './protocol/message.js';
import { Writer } from './protocol/varint.js';
import type { Link, Loss, Transport, TransportKind } from './transport/link.js';
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
  readonly #settings: Settings;
  readonly #kinds: readonly TransportKind[];
  readonly #memory: Memory;
  readonly #machine = new Machine();
  readonly #events = new Emitter<SessionEvents>();
  readonly #unlisten: Cancel[] = [];
  #resolveReady: () => void = () => {};
  #rejectReady: (error: ThroughlineError) => void = () => {};
  #resolveClosed: (info: CloseInfo) => void = () => {};
  #state: State = 'connecting';
  #transport: Transport | null = null;
  #link: Link | null = null;
  #linkSince = 0;
  #linkProven = false;
  #links = 0;
  #gaps = 0;
  /** The newest races, for `explain`. */
  #races: Race[] = [];
  #raceNumber = 0;
  /** Losses in a row; 0 while the link is good. */
  #failures = 0;
  #retry: Cancel | null = null;
  #mayRetryAt = 0;
  /** Why there is no link, or why the session ended. */
  #reason = '';
  /** The application's close, from the moment it was asked for. */
  #closing: Close | null = null;
  #ended: CloseInfo | null = null;
  #timer: Cancel | null = null;
  #timerAt = Infinity;
  #awake = false;
  #working = false;
  /** Whether anybody has ever listened to messages: until then they wait, and the server's credit with them. */
  #heeded = false;
  #waiters: { below: number; resolve: () => void; reject: (error: Error) => void }[] = [];

  /** @internal */
  constructor(settings: Settings, env: Environment, kinds: readonly TransportKind[]) {
    this.#settings = settings;
    this.#env = env;
    this.#kinds = kinds;
    this.#memory = new Memory(env, new URL(settings.base).origin);
    this.ready = new Promise((resolve, reject) => {
      this.#resolveReady = resolve;
      this.#rejectReady = reject;
    });
    // Who awaits only `closed` must not see an unhandled rejection of this one.
    this.ready.catch(() => {});
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
    this.#listenToPage();
    if (settings.signal) {
      this.#listenToSignal(settings.signal);
    }
    void this.#race();
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
    return this.#machine.serverTime(this.#env.now()) ?? this.#env.wallTime();
  }

  stats(): Stats {
    return {
      ...this.#machine.counters,
      rttMs: this.#machine.rttMs || null,
      bufferedBytes: this.bufferedBytes,
      links: this.#links,
      gaps: this.#gaps,
    };
  }

  /** What was tried, what happened, and why the current transport was chosen. */
  explain(): Explanation {
    const attempts = this.#races.flatMap((race) => race.attempts);
    return explain({ state: this.#state, transport: this.#transport, reason: this.#reason }, attempts);
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
    const off = this.#events.on(name, listener);
    if (name === 'message' && !this.#heeded) {
      this.#heeded = true;
      this.#wake();
    }
    return off;
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
    const body = text ? new TextEncoder().encode(data) : bytesOf('send', data);
    this.#refuseWhenClosed('send');
    const { maxMessage } = this.#machine;
    if (body.length > maxMessage) {
      throw new ThroughlineError(
        'MESSAGE_TOO_LARGE',
        `send: ${body.length} bytes; at most ${maxMessage} go in one message: send it in parts`,
      );
    }
    const { maxBufferedBytes } = this.#settings;
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
    if (this.bufferedBytes <= toBytes) {
      return Promise.resolve();
    }
    return new Promise((resolve, reject) => {
      this.#refuseWhenClosed('drained');
      this.#waiters.push({ below: toBytes, resolve, reject });
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
    const bytes = bytesOf('sendDatagram', data).slice();
    if (bytes.length > MAX_DATAGRAM) {
      throw new ThroughlineError(
        'DATAGRAM_TOO_LARGE',
        `sendDatagram: ${bytes.length} bytes; at most ${MAX_DATAGRAM} go in one datagram: send a message`,
      );
    }
    this.#refuseWhenClosed('sendDatagram');
    this.#machine.sendDatagram(bytes, options.key);
    this.#wake();
  }

  // ---- the end ----

  /**
   * Ends the session: messages sent before go out first, for 3 s at most. Resolves like `closed`.
   * `code` is the application's own, from 0 to 2^32 − 1; without one it is the protocol's NORMAL.
   */
  close(code?: number, reason = ''): Promise<CloseInfo> {
    if (code !== undefined && !(Number.isInteger(code) && code >= 0 && code <= 0xffff_ffff)) {
      throw new TypeError('close: the code must be an integer from 0 to 4294967295');
    }
    const application = code !== undefined;
    this.#close({ code: code ?? 0, application, reason: truncateUtf8(String(reason), MAX_REASON) });
    return this.closed;
  }

  /** Cuts the current link as a dead network would, for demonstrations and tests: the session reconnects. */
  cut(): void {
    this.#lose({ reason: 'cut by the application' }, true);
    this.#work();
  }

  // ---- opening a link ----

  async #race(): Promise<void> {
    this.#retry = null;
    let token: string | undefined;
    try {
      const given = this.#settings.token;
      token = typeof given === 'function' ? checkToken(await given()) : given;
    } catch (error) {
      this.#tokenFailed(error);
      return;
    }
    if (this.#ended !== null || this.#link !== null) {
      return;
    }
    const { base, webtransport, info, hedgeMs, stepMs, transports } = this.#settings;
    const resumption = this.#machine.resumption;
    const opening: Opening = { base, resumption, token, webtransport, info };
    const env = this.#env;
    const rungs = transports.flatMap((transport) => {
      const kind = this.#kinds.find(({ name }) => name === transport);
      return kind === undefined
        ? []
        : {
            transport,
            missing: kind.missing(env, opening),
            failure: this.#memory.failure(transport),
            open: kind.open.bind(kind, env, opening),
          };
    });
    this.#raceNumber++;
    const race = new Race({
      env,
      rungs,
      number: this.#raceNumber,
      hedgeMs: Math.max(hedgeMs, Math.min(2 * this.#memory.rttMs, MAX_HEDGE_MS)),
      stepMs,
      won: (win) => this.#won(win),
      lost: (defeat) => this.#defeated(defeat),
      failed: (transport, reason) => this.#memory.failed(transport, reason),
    });
    this.#races = [...this.#races, race].slice(-MAX_ATTEMPTS / 4);
  }

  #won({ transport, link, welcome, adopt }: Win): void {
    const env = this.#env;
    const machine = this.#machine;
    this.#link = link;
    this.#linkSince = env.now();
    this.#linkProven = false;
    this.#links++;
    this.#transport = transport;
    const react = (work: () => void) => {
      if (this.#link === link) {
        work();
        this.#work();
      }
    };
    adopt({
      frame: (frame) => react(() => machine.handleFrame(env.now(), frame)),
      datagram: (bytes) => react(() => machine.handleDatagram(env.now(), bytes)),
      heard: (bytes) => {
        machine.counters.bytesIn += bytes;
        machine.heard(env.now());
      },
      writable: () => react(() => {}),
      violation: (close) => react(() => machine.handleViolation(env.now(), close)),
      lost: (loss) => react(() => this.#lose(loss, false)),
    });
    machine.linkOpened(env.now(), link.datagrams?.maxSize() ?? 0);
    machine.handleFrame(env.now(), { type: 'welcome', welcome });
    this.#work();
  }

  /** No transport worked, or the server refused. */
  #defeated({ close, retryAfterMs }: Defeat): void {
    if (this.#state === 'connecting' || !shouldRetry(close)) {
      this.#finish(close);
    } else {
      this.#reason = close.reason;
      this.#scheduleRace(retryAfterMs);
    }
  }

  #tokenFailed(error: unknown): void {
    const reason = `the token function failed: ${messageOf(error)}`;
    if (this.#state === 'connecting') {
      this.#finish(
        protocolClose('UNAUTHORIZED', reason),
        new ThroughlineError('TOKEN_FAILED', reason, error),
      );
    } else {
      this.#reason = reason;
      this.#scheduleRace(0);
    }
  }

  #scheduleRace(retryAfterMs: number): void {
    if (this.#ended !== null) {
      return;
    }
    const delay = reconnectDelay(this.#failures, this.#env.random(), retryAfterMs);
    this.#failures++;
    this.#mayRetryAt = this.#env.now() + retryAfterMs;
    this.#retry = this.#env.timer(delay, () => void this.#race());
  }

  // ---- losing a link ----

  #lose(loss: Loss, deliberate: boolean): void {
    const link = this.#link;
    if (link === null) {
      return;
    }
    const transport = this.#transport;
    if (!deliberate && !this.#linkProven && loss.close === undefined && transport !== null) {
      this.#memory.failed(transport, `opened, but did not carry frames both ways: ${loss.reason}`, true);
    }
    this.#drop(loss.reason);
    link.abort();
    this.#machine.linkLost();
    if (this.#closing !== null || this.#ended !== null) {
      return;
    }
    const { close } = loss;
    if (close !== undefined && !shouldRetry(close)) {
      this.#finish(close);
      return;
    }
    if (close !== undefined) {
      this.#machine.reopen();
    }
    this.#reconnect(loss.reason, loss.retryAfterMs ?? 0);
  }

  /** The session ended, by CLOSE of either side, or by our own verdict. */
  #handleClosed(close: Close): void {
    const link = this.#link;
    const retry = shouldRetry(close) && this.#closing === null;
    if (retry) {
      this.#machine.reopen();
    }
    if (link !== null) {
      const closed = link.close(close);
      if (!retry) {
        // `closed` waits for what is still on its way out, within bounds.
        void this.#bounded(closed).then(() => this.#finish(close));
        this.#link = null;
        return;
      }
      this.#drop(describeClose(close));
    }
    if (retry) {
      this.#reconnect(describeClose(close), 0);
    } else {
      this.#finish(close);
    }
  }

  #drop(reason: string): void {
    const from = this.#transport;
    if (this.#env.now() - this.#linkSince >= STABLE_MS) {
      this.#failures = 0;
    }
    this.#races.at(-1)?.cancel('the session lost its link');
    this.#link = null;
    this.#transport = null;
    this.#events.emit('transport', { from, to: null, reason });
  }

  #reconnect(reason: string, retryAfterMs: number): void {
    if (this.#ended !== null) {
      return;
    }
    this.#reason = reason;
    this.#setState('reconnecting');
    this.#scheduleRace(retryAfterMs);
  }

  #close(close: Close): void {
    if (this.#closing !== null || this.#ended !== null) {
      return;
    }
    this.#closing = close;
    this.#machine.close(this.#env.now(), close);
    this.#work();
  }

  #finish(close: Close, error?: ThroughlineError): void {
    if (this.#ended !== null) {
      return;
    }
    const info: CloseInfo = { ...close, name: closeName(close), retry: shouldRetry(close) };
    this.#ended = info;
    this.#reason = error?.message ?? describeClose(close);
    this.#races.at(-1)?.cancel('the session was closed');
    this.#link?.abort();
    this.#link = null;
    this.#transport = null;
    for (const cancel of [this.#timer, this.#retry, ...this.#unlisten]) {
      cancel?.();
    }
    this.#setState('closed');
    this.#rejectReady(error ?? new ThroughlineError(info.name, this.explain().summary));
    for (const { reject } of this.#waiters.splice(0)) {
      reject(this.#closedError('drained'));
    }
    this.#resolveClosed(info);
    this.#events.emit('close', info);
  }

  /** Resolves with `work`, or when closing has taken long enough. */
  #bounded(work: Promise<void>): Promise<void> {
    return new Promise((resolve) => {
      const cancel = this.#env.timer(CLOSE_MS, resolve);
      work.then(resolve, resolve).finally(cancel);
    });
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
    try {
      let again = true;
      while (again) {
        again = this.#handleEvents();
        this.#deliverMessages();
        again = this.#transmit() || again;
      }
    } finally {
      this.#working = false;
    }
    if (!this.#linkProven && this.#machine.isProven && this.#transport !== null) {
      this.#linkProven = true;
      this.#memory.worked(this.#transport, this.#machine.rttMs);
    }
    this.#waiters = this.#waiters.filter(({ below, resolve }) => {
      const waits = this.bufferedBytes > below;
      if (!waits) {
        resolve();
      }
      return waits;
    });
    this.#schedule();
  }

  #handleEvents(): boolean {
    let some = false;
    for (let event = this.#machine.event(); event !== undefined; event = this.#machine.event()) {
      some = true;
      switch (event.type) {
        case 'opened':
          this.#handleOpened(event.gap);
          break;
        case 'datagram':
          this.#events.emit('datagram', event.bytes);
          break;
        case 'silent':
          this.#lose({ reason: event.close.reason }, false);
          break;
        case 'closed':
          this.#deliverMessages();
          this.#handleClosed(event.close);
      }
    }
    return some;
  }

  #handleOpened(gap: { previousId: string; unacknowledgedBytes: number } | null): void {
    const reason = this.#reason;
    this.#reason = '';
    this.#setState('open');
    this.#events.emit('transport', { from: null, to: this.#transport, reason: this.explain().summary });
    if (gap !== null) {
      this.#gaps++;
      this.#events.emit('gap', { ...gap, id: this.id, reason });
      // What the application sends in its 'gap' listeners, a greeting perhaps, goes before what was left over.
      this.#machine.releaseKept();
    }
    this.#resolveReady();
  }

  #deliverMessages(): void {
    if (!this.#heeded) {
      return;
    }
    for (let message = this.#machine.message(); message !== undefined; message = this.#machine.message()) {
      this.#events.emit('message', message);
    }
  }

  /** Gives the link what it takes; true when it was the last of the session. */
  #transmit(): boolean {
    const machine = this.#machine;
    const link = this.#link;
    if (link === null) {
      return false;
    }
    while (machine.hasNativeDatagram && link.datagrams?.room()) {
      link.datagrams.send(machine.nativeDatagram());
    }
    for (let room = link.room(); room > 0; room = link.room()) {
      const packet = machine.packet(this.#env.now(), room);
      if (packet === null) {
        return false;
      }
      link.send(packet);
      if (!machine.isOpen) {
        return true; // that was CLOSE
      }
    }
    return false;
  }

  #schedule(): void {
    const at = this.#machine.timeout;
    if (at === null || this.#timerAt <= at || this.#ended !== null) {
      return; // a timer that comes too early looks again
    }
    this.#timer?.();
    this.#timerAt = at;
    this.#timer = this.#env.timer(Math.max(0, at - this.#env.now()), () => {
      const now = this.#env.now();
      this.#timerAt = Infinity;
      if (now - at > LATE_MS) {
        // The machine slept, or the tab was throttled: what the server sent may be waiting behind this timer.
        this.#machine.probe(now, PROBE_MS);
      }
      this.#machine.handleTimeout(now);
      this.#work();
    });
  }

  // ---- the page ----

  #listenToPage(): void {
    const nudge = () => this.#nudge();
    const { listen } = this.#env;
    this.#unlisten.push(
      listen('online', nudge),
      listen('pageshow', nudge),
      listen('visibilitychange', () => this.#env.isHidden() || nudge()),
      listen('pagehide', (event) => (event as PageTransitionEvent).persisted || this.#leave()),
    );
  }

  /** The network or the tab came back: asks at once whether the link lives, or tries again at once. */
  #nudge(): void {
    if (this.#link !== null) {
      this.#machine.probe(this.#env.now(), PROBE_MS);
      this.#work();
    } else if (this.#retry !== null && this.#env.now() >= this.#mayRetryAt) {
      this.#retry();
      void this.#race();
    }
  }

  #leave(): void {
    const close = protocolClose('NORMAL', 'the page was closed');
    const out = new Writer();
    writeClose(out, close);
    this.#link?.leave(out.finish(), close);
    this.#link = null;
    this.#finish(close);
  }

  #listenToSignal(signal: AbortSignal): void {
    const abort = () => {
      const close = protocolClose('NORMAL', truncateUtf8(`aborted: ${messageOf(signal.reason)}`, MAX_REASON));
      if (this.#state === 'connecting') {
        this.#finish(close, new ThroughlineError('ABORTED', close.reason, signal.reason));
      } else {
        this.#close(close);
      }
    };
    if (signal.aborted) {
      queueMicrotask(abort);
    }
    signal.addEventListener('abort', abort);
    this.#unlisten.push(() => signal.removeEventListener('abort', abort));
  }

  // ---- helpers ----

  #setState(state: State): void {
    if (this.#state !== state) {
      this.#state = state;
      this.#events.emit('state', state);
    }
  }

  #refuseWhenClosed(method: string): void {
    if (this.#closing !== null || this.#ended !== null) {
      throw this.#closedError(method);
    }
  }

  #closedError(method: string): ThroughlineError {
    const close = this.#ended ?? this.#closing;
    const why = close === null ? '' : ` (${describeClose(close)})`;
    return new ThroughlineError(
      'SESSION_CLOSED',
      `${method}: the session is closed${why}: connect() opens another`,
    );
  }
}

function bytesOf(method: string, data: unknown): Uint8Array {
  if (ArrayBuffer.isView(data)) {
    return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  }
  // Not instanceof: it may come from another frame.
  if (Object.prototype.toString.call(data) === '[object ArrayBuffer]') {
    return new Uint8Array(data as ArrayBuffer);
  }
  const text = method === 'send' ? 'a string or ' : '';
  throw new TypeError(`${method} takes ${text}bytes, not ${data === null ? data : typeof data}`);
}

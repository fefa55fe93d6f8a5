// The public session, and its driver: it owns the machine, its links, and who looks for them.

import { Channels, type History, type HistoryOptions, type SubscribeOptions } from './channels.js';
import { Credentials } from './credentials.js';
import { Emitter } from './emitter.js';
import type { Cancel, Environment } from './environment.js';
import { messageOf, ThroughlineError } from './errors.js';
import { type Explanation, explain, type Move } from './explain.js';
import { type Handler, Handlers } from './handlers.js';
import type { Defeat } from './ladder.js';
import { CLOSE_MS, LATE_MS, MAX_MOVES } from './limits.js';
import { Links } from './links.js';
import { Memory } from './memory.js';
import { Mover } from './mover.js';
import { type ConnectOptions, resolveBase } from './options.js';
import { type Data, Outbox } from './outbox.js';
import { PRESENCE, type Presence, RoomPresence } from './presence.js';
import type { Position } from './protocol/channels.js';
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
import { Machine } from './protocol/machine.js';
import { contentFields } from './protocol/message.js';
import type { Gap, MachineEvent } from './protocol/report.js';
import { ANSWER, CHUNK, ERROR } from './protocol/requests.js';
import { type Answer, type RequestOptions, Requests } from './requests.js';
import { type SessionStream, Streams } from './streams.js';
import type { Subscription } from './subscription.js';
import type { CloseInfo, SessionEvents, State, Stats, TransportChange } from './told.js';
import { type Loss, TRANSPORTS, type Transport, type TransportKind } from './transport/link.js';
import { Trouble } from './trouble.js';

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

  /** Faults on purpose, for demonstrations and tests. */
  readonly trouble: Trouble;

  readonly #env: Environment;
  readonly #memory: Memory;
  readonly #machine = new Machine();
  readonly #links: Links;
  readonly #mover: Mover;
  readonly #outbox: Outbox;
  readonly #streams = new Streams(this.#machine, () => this.#wake());
  readonly #channels = new Channels(
    this.#machine,
    () => this.#wake(),
    (room) => this.#events.emit('subscription', room),
  );
  readonly #credentials: Credentials;
  readonly #requests: Requests;
  readonly #handlers: Handlers;
  readonly #events = new Emitter<SessionEvents>();
  readonly #unlisten: Cancel[];
  #resolveReady!: () => void;
  #rejectReady!: (error: ThroughlineError) => void;
  #resolveClosed!: (info: CloseInfo) => void;
  #state: State = 'connecting';
  #moveCount = 0;
  #gapCount = 0;
  /** The newest moves, for `explain`. */
  #moves: Move[] = [];
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

  /** @internal */
  constructor(
    base: string | URL,
    options: ConnectOptions,
    env: Environment,
    kinds: readonly TransportKind[],
  ) {
    const { transports = TRANSPORTS, token, signal, maxBufferedBytes } = options;
    this.#env = env;
    const resolved = resolveBase(base, env.pageUrl);
    this.#outbox = new Outbox(this.#machine, maxBufferedBytes, (method) =>
      this.#closing ? this.#closedError(method) : undefined,
    );
    this.#credentials = new Credentials(env, token, (fresh) => {
      this.#machine.sendToken(fresh);
      this.#work();
    });
    this.#requests = new Requests(env, this.#machine, () => this.#wake());
    this.#handlers = new Handlers(this.#machine, this.#outbox, () => this.#wake());
    this.#links = new Links(env, this.#machine, {
      work: () => this.#work(),
      failing: (loss) => this.#fail(loss),
      lost: (loss) => this.#lose(loss),
    });
    const trouble = new Trouble(env, this.#links, () => this.cut());
    this.trouble = trouble;
    const allowed = transports.map((transport) => {
      const found = kinds.find(({ name }) => name === transport);
      if (!found) {
        throw new TypeError(`connect: no transport '${transport}', only ${TRANSPORTS}`);
      }
      return trouble.around(found);
    });
    this.#memory = new Memory(env, new URL(resolved).origin);
    const credentials = this.#credentials;
    this.#mover = new Mover(
      env,
      resolved,
      options,
      allowed,
      this.#memory,
      credentials,
      this.#machine,
      this.#links,
      {
        isEnding: () => this.#closing !== undefined,
        work: () => this.#work(),
        defeated: (defeat, error) => this.#defeated(defeat, error),
      },
    );
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
      env.networkChanged(nudge),
      env.listen('visibilitychange', () => env.isHidden() || nudge()),
      env.listen('resume', nudge),
      env.listen('freeze', () => this.#rest()),
      env.listen('pagehide', (event) =>
        (event as PageTransitionEvent).persisted ? this.#rest() : this.#leave(),
      ),
      () => signal?.removeEventListener('abort', abort),
    ];
    signal?.addEventListener('abort', abort);
    if (signal?.aborted) {
      queueMicrotask(abort);
    } else {
      this.#mover.seek();
    }
  }

  // ---- what is known ----

  /** The session's id, 22 characters; empty before it is open. A new one after a gap. */
  get id(): string {
    return this.#machine.welcome?.session ?? '';
  }

  /** What carries the session now; `null` while nothing does. */
  get transport(): Transport | null {
    return this.#links.transport;
  }

  get state(): State {
    return this.#state;
  }

  /** Bytes of messages, those about channels and requests among them, that the server has not acknowledged yet. */
  get bufferedBytes(): number {
    return this.#machine.bufferedBytes;
  }

  /** The server's clock, in milliseconds since the Unix epoch; this machine's own before the session is open. */
  serverTime(): number {
    return this.#machine.serverTime(this.#env.now());
  }

  stats(): Stats {
    const { counters, rttMs, bufferedBytes } = this.#machine;
    return {
      ...counters,
      rttMs: rttMs || null,
      bufferedBytes,
      links: this.#links.count,
      moves: this.#moveCount,
      gaps: this.#gapCount,
    };
  }

  /** What was tried, what happened, and why the current transport was chosen. */
  explain(): Explanation {
    const mover = this.#mover;
    const race = (this.transport && mover.carrying) || mover.races.at(-1);
    const moves = this.#moves;
    return {
      attempts: mover.races.flatMap(({ attempts }) => attempts),
      moves,
      ...explain({
        state: this.#state,
        transport: this.transport,
        reason: this.#reason,
        newest: race?.attempts ?? [],
        moves,
        doubts: mover.doubts,
        climbInMs: mover.climbInMs,
        credentials: this.#credentials.describe(),
        now: this.#env.now(),
      }),
    };
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
   * (`SESSION_CLOSED`), when the message is too large (`MESSAGE_TOO_LARGE`), or when `maxBufferedBytes` or more
   * wait already (`BUFFER_FULL`: await `drained(bytes)`). Below that one message may go beyond it.
   */
  send(data: Data): void {
    this.#outbox.message(data);
    this.#wake();
  }

  /**
   * Resolves when at most `toBytes` are unacknowledged: 0, the default, means that the server has everything.
   * Rejects with a ThroughlineError when the session ends before.
   */
  drained(toBytes = 0): Promise<void> {
    return this.#outbox.drained(toBytes);
  }

  /**
   * Sends a datagram: it may be lost, and is never sent again. Of those with the same `key` that have not left
   * yet, only the newest is sent; without a key each stands for itself.
   *
   * Throws TypeError for what is no bytes, and ThroughlineError when it is too large (`DATAGRAM_TOO_LARGE`) or the
   * session is closed (`SESSION_CLOSED`).
   */
  sendDatagram(data: ArrayBuffer | ArrayBufferView, options: { readonly key?: DatagramKey } = {}): void {
    this.#outbox.datagram(data, options.key);
    this.#wake();
  }

  /**
   * Opens a stream, as soon as the session is open and the server allows another. Rejects with a ThroughlineError
   * when the session ends before (`SESSION_CLOSED`).
   *
   * The streams of the server come as events: `on('stream', (stream) => …)`.
   */
  openStream(): Promise<SessionStream> {
    return this.#closing ? Promise.reject(this.#closedError('openStream')) : this.#streams.open();
  }

  // ---- channels ----

  /**
   * Subscribes to a channel, as soon as the session is open. With `since`, the `position` of an earlier subscription,
   * what was published after it comes first, if the server still has it. A channel of state says what it holds instead.
   *
   * When a new session takes the place of this one (`gap`), it subscribes again, from where it was.
   *
   * Throws ThroughlineError when the channel has a subscription (`ALREADY_SUBSCRIBED`), also one that the server has
   * added, when its name has not 1 to 255 bytes (`BAD_CHANNEL`), when `about` has more than 512 (`TOO_LARGE`), or when
   * the session is closed (`SESSION_CLOSED`).
   */
  subscribe(channel: string, options: SubscribeOptions = {}): Subscription {
    this.#checkOpen('subscribe');
    return this.#channels.subscribe(channel, options);
  }

  /**
   * Publishes in a channel; with a `key`, sets the value of that key in a channel of state, or removes it, when `data`
   * is `null`. Resolves with the position of the publication, or of the change, when it has one. It comes to this session,
   * too, if it is subscribed, and perhaps before.
   *
   * Rejects as `send` throws, or with a ThroughlineError whose code is that of the server's refusal; with `UNCERTAIN`
   * when the session has ended, or another has taken its place, before the answer: it may have been published.
   */
  async publish(
    channel: string,
    data: Data | null,
    options: { readonly key?: string } = {},
  ): Promise<Position> {
    const { key } = options;
    // Without a key `null` is no data, and said to be none.
    const isRemoval = data === null && key !== undefined;
    const [kind, bytes] = isRemoval ? contentFields(undefined) : this.#content('publish', data as Data);
    return this.#channels.publish(channel, key, kind, bytes);
  }

  /**
   * Who is subscribed to a channel: its members, as they come and go. It is a subscription of its own, and throws as
   * `subscribe` does.
   */
  presence(channel: string): Presence {
    this.#checkOpen('presence');
    return new RoomPresence(channel, this.#channels.subscribe(PRESENCE + channel, {}));
  }

  /**
   * What a channel has kept, or a page of it: go on with `since` when there is `more`.
   *
   * Rejects with TypeError for a `limit` that is none, or with a ThroughlineError whose code is that of the server's
   * refusal, or `SESSION_CLOSED`.
   */
  async history(channel: string, options: HistoryOptions = {}): Promise<History> {
    this.#checkOpen('history');
    return this.#channels.history(channel, options);
  }

  // ---- requests ----

  /**
   * Asks the server something, as soon as the session is open: `await` it for the whole answer, which is kept in memory
   * until it is there, or take it in parts with `for await`. To leave the loop, the `signal` and the time limit cancel it.
   *
   * What is wrong is said by the answer, never thrown here: what `send` throws; the code of the other side (`FAILED`,
   * `UNKNOWN_METHOD`, `TOO_MANY`, `NOT_ALLOWED`, or `APPLICATION`, with `requestCode`); `TOO_MANY` also when 100 are under
   * way already; `CANCELLED`; `TIMEOUT`; `UNCERTAIN` when the session has ended, or another has taken its place, before the
   * end of the answer: it may have been done. One that had never been sent then is asked in the new session.
   */
  request(method: string, data?: Data | null, options: RequestOptions = {}): Answer {
    return this.#requests.ask(
      method,
      () => {
        this.#checkOpen('request');
        return data === undefined || data === null
          ? contentFields(undefined)
          : this.#content('request', data);
      },
      options,
    );
  }

  /**
   * Answers the server's requests of this method, in the place of who did before. Returns a function that ends it.
   * A method that nobody answers is `UNKNOWN_METHOD`: say who does in the same turn as `connect`.
   *
   * When `handler` throws, or rejects with, a ThroughlineError, the server gets its message, and its `requestCode`, if that is
   * the application's own; of any other error it gets nothing but that there was one.
   */
  handle(method: string, handler: Handler): () => void {
    return this.#handlers.add(method, handler);
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

  /** Cuts the current link as a dead network would, for demonstrations and tests: the session resumes over another. */
  cut(): void {
    this.#lose({ reason: 'cut by the application' }, true);
    this.#work();
  }

  // ---- links ----

  /** No transport worked, or the server refused. */
  #defeated({ close, retryAfterMs }: Defeat, error?: ThroughlineError): void {
    if (this.#state === 'connecting' || !shouldRetry(close)) {
      this.#finish(close, error);
    } else {
      this.#reason = close.reason;
      this.#mover.retryAfter(retryAfterMs);
    }
  }

  /** The current link can only be read any more. */
  #fail(loss: Loss): void {
    if (loss.close && !shouldRetry(loss.close)) {
      this.#lose(loss);
    } else {
      this.#mover.doubt(loss.reason, true);
    }
  }

  /** The current link has ended. `excused`: not by its transport's fault. */
  #lose(loss: Loss, excused = false): void {
    const carrier = this.#links.release();
    if (!carrier) {
      return;
    }
    const { reason, close } = loss;
    carrier.link.abort();
    this.#machine.linkLost();
    this.#tell({ from: carrier.transport, to: null, reason });
    if (this.#closing) {
      return; // the machine says so
    }
    if (close && !shouldRetry(close)) {
      this.#finish(close);
      return;
    }
    this.#reason = reason;
    this.#setState('reconnecting');
    this.#mover.lost(carrier, loss, excused);
  }

  /** The session ended, by CLOSE of either side, or by our own verdict. */
  #handleClosed(close: Close): void {
    const from = this.transport;
    // `closed` waits for what is still on its way out, within bounds.
    const left = this.#links.release()?.link.close(close);
    if (shouldRetry(close) && !this.#closing) {
      this.#machine.reopen();
      this.#reason = describeClose(close);
      this.#tell({ from, to: null, reason: this.#reason });
      this.#setState('reconnecting');
      this.#mover.reopen();
    } else if (left) {
      const finish = () => this.#finish(close);
      this.#closing = close;
      this.#unlisten.push(this.#env.timer(CLOSE_MS, finish));
      left.then(finish, finish);
    } else {
      this.#finish(close);
    }
  }

  #tell(change: TransportChange): void {
    this.#moves = [...this.#moves, { at: this.#env.now(), ...change }].slice(-MAX_MOVES);
    this.#moveCount += Number(change.from !== null && change.to !== null);
    this.#events.emit('transport', change);
  }

  // ---- the end ----

  #close(close: Close): void {
    if (!this.#closing) {
      this.#closing = close;
      this.#mover.cancel();
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
    this.#mover.cancel();
    this.#links.release()?.link.abort();
    this.#credentials.stop();
    for (const cancel of [this.#timer, ...this.#unlisten]) {
      cancel?.();
    }
    this.#setState('closed');
    this.#streams.end(this.#closedError('stream'));
    const unsent = this.#machine.unsentControl;
    this.#handlers.lost(this.#closedError('handle'));
    this.#channels.lost(unsent, this.#reason);
    this.#requests.lost(unsent, this.#reason);
    this.#outbox.end(this.#closedError('drained'));
    this.#rejectReady(error ?? new ThroughlineError(info.name, this.explain().summary));
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
          this.#handle(event);
        }
        this.#deliverMessages();
        this.#streams.look();
        this.#links.transmit();
        again ||= machine.hasEvents;
      }
    } finally {
      this.#working = false;
    }
    const { current } = this.#links;
    if (current && !current.proven && machine.isProven) {
      current.proven = true;
      this.#memory.worked(current.transport, machine.rttMs);
    }
    this.#outbox.look();
    this.#credentials.look();
    this.#schedule();
  }

  #handle(event: MachineEvent): void {
    switch (event.type) {
      case 'opened':
        this.#handleOpened(event.gap, event.unsent);
        break;
      case 'channel': {
        const wrong = this.#channels.handle(event.message);
        this.#judge(wrong && protocolClose('PROTOCOL_VIOLATION', wrong));
        break;
      }
      case 'request': {
        const { message } = event;
        const isAnswer = message.op === CHUNK || message.op === ANSWER || message.op === ERROR;
        this.#judge(isAnswer ? this.#requests.handle(message) : this.#handlers.handle(message));
        break;
      }
      case 'state':
        this.#channels.state(event.value);
        break;
      case 'expires':
        this.#credentials.expire(event.inMs);
        break;
      case 'datagram':
        this.#events.emit('datagram', event.bytes);
        break;
      case 'stream': {
        const stream = this.#streams.take(event.id);
        if (!this.#events.emit('stream', stream)) {
          void stream.readable.cancel(0);
          void stream.writable.abort(0);
        }
        break;
      }
      case 'suspect':
        this.#mover.doubt('a PING was not answered in time');
        break;
      case 'trusted':
        this.#mover.trust();
        break;
      case 'silent':
        this.#lose({ reason: event.close.reason });
        break;
      case 'closed':
        this.#deliverMessages();
        this.#handleClosed(event.close);
    }
  }

  #handleOpened(gap: Gap | undefined, unsent: readonly Uint8Array[]): void {
    const reason = this.#reason;
    const { from, transport: to, reason: why } = this.#links;
    let askAgain: (() => void) | undefined;
    if (gap) {
      this.#gapCount++;
      // Before any listener opens a stream, or asks about a channel, in the new session.
      this.#streams.fail(
        new ThroughlineError('STREAM_LOST', `the session of this stream has ended: ${reason}`),
      );
      this.#handlers.lost(new ThroughlineError('SESSION_CLOSED', 'the session that asked has ended'));
      const subscribeAgain = this.#channels.lost(unsent);
      const requestAgain = this.#requests.lost(unsent);
      askAgain = () => {
        subscribeAgain();
        requestAgain();
      };
    }
    this.#credentials.expire(this.#machine.welcome?.expiresMs ?? 0);
    this.#setState('open');
    this.#tell({ from, to, reason: why || this.explain().summary });
    if (gap) {
      this.#events.emit('gap', { ...gap, id: this.id, reason });
      // What the application sends in its 'gap' listeners, a greeting perhaps, goes before what was left over.
      this.#machine.releaseKept();
      askAgain?.();
    }
    this.#resolveReady();
  }

  /** The server broke the protocol, when there is such a `close`. */
  #judge(close: Close | '' | undefined): void {
    if (close) {
      this.#machine.handleViolation(this.#env.now(), close);
    }
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
        this.#mover.excuse();
      }
      this.#machine.handleTimeout(now());
      this.#work();
    });
  }

  // ---- the page ----

  /** The network or the tab came back. */
  #nudge(): void {
    this.#mover.nudge();
    this.#work();
  }

  /** The page falls asleep. Browsers close its links then, and Chromium's WebTransport as if the session ended: so it leaves first. */
  #rest(): void {
    this.#lose({ reason: 'the page was frozen' }, true);
    this.#mover.rest();
  }

  #leave(): void {
    const close = protocolClose('NORMAL', 'page closed');
    this.#machine.handleViolation(this.#env.now(), close); // at once, without what waits
    const packet = this.#machine.packet(this.#env.now(), MAX_DATAGRAM);
    if (packet) {
      this.#links.release()?.link.leave(packet, close);
    }
    this.#finish(close);
  }

  // ---- helpers ----

  #setState(state: State): void {
    if (this.#state !== state) {
      this.#state = state;
      this.#events.emit('state', state);
    }
  }

  #checkOpen(method: string): void {
    if (this.#closing) {
      throw this.#closedError(method);
    }
  }

  /** What the application gives as a field of a message. Throws as `send` says. */
  #content(method: string, data: Data): [kind: number, data: Uint8Array] {
    return [Number(typeof data === 'string'), this.#outbox.content(method, data)];
  }

  #closedError(method: string): ThroughlineError {
    const why = this.#closing && describeClose(this.#closing);
    return new ThroughlineError('SESSION_CLOSED', `${method}: the session is closed (${why}): connect again`);
  }
}

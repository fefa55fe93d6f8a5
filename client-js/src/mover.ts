// When to look for another link, and where: the first one, the next when one was lost, one beside a link in
// doubt, a better one. What it finds, `Links` carries on with.
//
// - Down: a link in doubt goes on while a race looks for another; its own transport is tried last.
// - Up: a better transport that answers after the race was won, and then probes, at growing intervals.
// - Sideways: after the network or the tab changed, doubt says nothing about the transport: the usual order.
// - A move never breaks before it makes: a link that opened another session is dropped while the old one lives.

import { reconnectDelay } from './backoff.js';
import type { Credentials } from './credentials.js';
import type { Cancel, Environment } from './environment.js';
import { messageOf, ThroughlineError } from './errors.js';
import { type Defeat, Race, type Win } from './ladder.js';
import {
  CLIMB_GAP_MS,
  EXCUSED_MS,
  HEDGE_MS,
  MAX_ATTEMPTS,
  MAX_HEDGE_MS,
  MEMORY_MS,
  PROBE_MS,
  STABLE_MS,
  STEP_MS,
  TRUST_MS,
} from './limits.js';
import type { Carrier, Links } from './links.js';
import type { Memory } from './memory.js';
import type { ConnectOptions } from './options.js';
import { protocolClose } from './protocol/close.js';
import type { Machine } from './protocol/machine.js';
import { type Loss, TRANSPORTS, type Transport, type TransportKind } from './transport/link.js';

/** Whose session it is. */
export interface MoverHost {
  /** Whether the session is over, or about to be: no link is looked for any more. */
  isEnding(): boolean;
  /** The machine may have something to say. */
  work(): void;
  /** There is no link, and none could be opened. */
  defeated(defeat: Defeat, error?: ThroughlineError): void;
}

/** Why another link is looked for while there is one, or after one was lost. */
interface Doubt {
  readonly transport: Transport;
  readonly reason: string;
  /** It never carried anything. */
  readonly useless: boolean;
  /** It is not the transport's fault. */
  readonly excused: boolean;
  /** It was in doubt before it was lost. */
  readonly late: boolean;
  /** Its transport goes last. */
  readonly last: boolean;
  /** Nothing that is heard lifts it. */
  readonly final: boolean;
}

export class Mover {
  readonly #env: Environment;
  readonly #base: string;
  readonly #options: ConnectOptions;
  /** Best first. */
  readonly #kinds: readonly TransportKind[];
  readonly #memory: Memory;
  readonly #credentials: Credentials;
  readonly #machine: Machine;
  readonly #links: Links;
  readonly #host: MoverHost;
  /** The newest races, for `explain`, and those that still run. */
  #races: Race[] = [];
  /** The race that any link wins, while nothing has won it. */
  #seeking: Race | undefined;
  #carrying: Race | undefined;
  /** Which search has the word, while it waits for its token. */
  #search = 0;
  #raceNumber = 0;
  #doubt: Doubt | undefined;
  /** Losses and defeats in a row; 0 while the link is good. */
  #failures = 0;
  #retry: Cancel | undefined;
  #mayRetryAt = 0;
  #lostAt = 0;
  #climb: Cancel | undefined;
  /** When a better link was last found or looked for, by the wall clock. */
  #lookedUpAt = 0;
  #climbAt = Infinity;
  /** Until when doubt is excused. */
  #excusedUntil = 0;
  /** When the session last left a link in doubt. */
  #fledAt = 0;
  /** The page sleeps. */
  #isResting = false;

  constructor(
    env: Environment,
    base: string,
    options: ConnectOptions,
    kinds: readonly TransportKind[],
    memory: Memory,
    credentials: Credentials,
    machine: Machine,
    links: Links,
    host: MoverHost,
  ) {
    this.#env = env;
    this.#base = base;
    this.#options = options;
    this.#kinds = kinds;
    this.#memory = memory;
    this.#credentials = credentials;
    this.#machine = machine;
    this.#links = links;
    this.#host = host;
  }

  /** The race that found the current link. */
  get carrying(): Race | undefined {
    return this.#carrying;
  }

  /** The newest ones, oldest first. */
  get races(): readonly Race[] {
    return this.#races;
  }

  /** When better transports are tried again, in milliseconds from now; Infinity when they are not. */
  get climbInMs(): number {
    return this.#climb ? Math.max(0, this.#climbAt - this.#env.wallTime()) : Infinity;
  }

  /** Why the current link is in doubt, or was lost; empty when it is not. */
  get doubts(): string {
    return this.#doubt?.reason ?? '';
  }

  /** Looks for a link. */
  seek(): void {
    this.#retry?.();
    this.#retry = undefined;
    this.#isResting = false;
    this.#cancelRaces();
    void this.#race(this.#kinds, false);
  }

  /** The current link is late, or cannot send any more (`final`). */
  doubt(reason: string, final = false): void {
    const { current } = this.#links;
    if (!current || this.#host.isEnding() || (this.#doubt && this.#doubt.final >= final)) {
      return;
    }
    const before = this.#doubt;
    this.#doubt = this.#doubtOf(current, reason, { excused: false, final, late: true });
    this.#cancelClimb();
    if (!before) {
      this.retryAfter(0);
    }
  }

  /** Something was heard again. */
  trust(): void {
    if (this.#doubt && !this.#doubt.final && this.#links.current) {
      this.#doubt = undefined;
      this.#search++;
      this.#retry?.();
      this.#retry = undefined;
      this.#seeking?.cancel(`${this.#links.current.transport} answered again`);
      this.#seeking = undefined;
      this.#planClimb();
    }
  }

  /** The current link has ended, and the session has none now. `excused`: the transport is not to blame. */
  lost(carrier: Carrier, { reason, retryAfterMs = 0 }: Loss, excused = false): void {
    this.#lostAt = this.#env.now();
    this.#cancelClimb();
    this.#doubt ??= this.#doubtOf(carrier, reason, { excused, final: true, late: false });
    if (!this.#seeking || retryAfterMs > 0) {
      this.#cancelRaces();
      this.retryAfter(retryAfterMs);
    }
  }

  /** Looks for a link later: after at least `retryAfterMs`; at once after the first loss of a good link. `restarts`: many clients do so now. */
  retryAfter(retryAfterMs: number, restarts = false): void {
    this.#retry?.();
    this.#failures ||= Number(restarts);
    const env = this.#env;
    const wait = Math.max(0, this.#mayRetryAt - env.now(), retryAfterMs);
    this.#mayRetryAt = env.now() + wait;
    this.#retry = env.timer(reconnectDelay(this.#failures++, env.random(), wait), () => this.seek());
  }

  /** The session that the server ended is opened anew, at a time of our own. */
  reopen(): void {
    this.#doubt = undefined;
    this.#lostAt = this.#env.now();
    this.#cancelClimb();
    this.#cancelRaces();
    this.retryAfter(0, true);
  }

  /** The network or the tab came back: asks at once whether the link lives, and whether a better one does. */
  nudge(): void {
    const env = this.#env;
    this.excuse();
    if ((this.#retry || this.#isResting) && env.now() >= this.#mayRetryAt) {
      this.seek();
    } else if (this.#isResting) {
      this.retryAfter(0);
    }
    if (env.wallTime() - this.#lookedUpAt >= CLIMB_GAP_MS) {
      this.#lookUp(this.#better());
    }
  }

  /** The page falls asleep: nothing is looked for until `nudge`. */
  rest(): void {
    this.cancel();
    this.#isResting = true;
  }

  /** What is in doubt soon is not the transport's fault: the machine slept, or the network changed. */
  excuse(): void {
    this.#excusedUntil = this.#env.now() + EXCUSED_MS;
    this.#machine.probe(this.#env.now(), PROBE_MS);
  }

  /** Ends everything. */
  cancel(): void {
    this.#retry?.();
    this.#retry = undefined;
    this.#cancelClimb();
    this.#cancelRaces();
  }

  // ---- races ----

  /** Races for a link over one of `kinds`. `up`: beside a good one. */
  async #race(kinds: readonly TransportKind[], up: boolean): Promise<void> {
    const env = this.#env;
    const memory = this.#memory;
    const machine = this.#machine;
    const { webtransport, info, hedgeMs = HEDGE_MS, stepMs = STEP_MS } = this.#options;
    const search = ++this.#search;
    let token: string | undefined;
    try {
      token = await this.#credentials.get();
    } catch (error) {
      const reason = `token: ${messageOf(error)}`;
      const defeat = { close: protocolClose('UNREACHABLE', reason), retryAfterMs: 0 };
      if (search === this.#search) {
        this.#lose(defeat, up, new ThroughlineError('TOKEN_FAILED', reason, error));
      }
      return;
    }
    if (search !== this.#search || this.#host.isEnding()) {
      return;
    }
    if (!this.#links.current && env.now() - this.#lostAt >= (machine.welcome?.windowMs ?? 0)) {
      machine.reopen(); // the server has forgotten it
    }
    const named = machine.resumption?.session;
    const doubt = this.#doubt;
    const race = new Race({
      env,
      rungs: kinds.map((kind) => ({
        transport: kind.name,
        missing: kind.missing(env),
        failure: up ? null : memory.failure(kind.name),
        last: doubt?.last === true && doubt.transport === kind.name,
        open: (handlers) =>
          kind.open(
            env,
            {
              base: this.#base,
              resumption: machine.resumption, // what was received by then
              token,
              webtransport,
              info: info !== false,
            },
            handlers,
          ),
      })),
      number: ++this.#raceNumber,
      // A probe is in no hurry.
      hedgeMs: up ? stepMs : Math.max(hedgeMs, Math.min(2 * memory.rttMs, MAX_HEDGE_MS)),
      stepMs,
      works: up,
      won: (win) => this.#judge(win, named, race, token),
      lost: (defeat) => this.#lose(defeat, up),
      failed: (transport, { reason, close, unavailable }) => {
        // An answer of the server's says nothing about the transport, but asking again soon is of no use.
        if (up || !(close || unavailable)) {
          memory.failed(transport, reason);
        }
      },
      settled: () => this.#planClimb(),
    });
    this.#races = [...this.#races, race].slice(-MAX_ATTEMPTS / TRANSPORTS.length);
    if (!up) {
      this.#seeking = race;
    }
  }

  /** A link answered. Why it is not taken, or what takes it. `named` and `token`: the session that its opening asked for, and what it showed. */
  #judge(win: Win, named: string | undefined, race: Race, token?: string): string | (() => void) {
    const { transport, welcome } = win;
    const { current } = this.#links;
    const session = this.#machine.resumption?.session;
    if (this.#host.isEnding()) {
      return 'the session has ended';
    }
    if (!current) {
      return () => this.#take(win, race, token, '');
    }
    const better = this.#rank(transport) < this.#rank(current.transport);
    if (welcome.resumed && welcome.session === session) {
      if (race === this.#seeking) {
        return () => this.#take(win, race, token, `${current.transport} is in doubt: ${this.doubts}`);
      }
      return better
        ? () => this.#take(win, race, token, `${transport} answered, and goes before ${current.transport}`)
        : `${current.transport} carries the session`;
    }
    if (named !== session) {
      // A late answer of the race that opened the session, with a session of its own.
      this.#lookUp(better ? this.#kinds.filter(({ name }) => name === transport) : []);
      return 'it answered late: the session moves there';
    }
    if (race === this.#seeking) {
      // It may have ended behind a dead link. Then that link is found to be lost soon.
      this.#seeking = undefined;
      race.cancel();
      this.#machine.probe(this.#env.now(), PROBE_MS);
      this.#host.work();
    } else {
      this.#memory.failed(transport, 'the server behind it does not know the session');
      this.#planClimb();
    }
    return 'the server behind it does not know the session';
  }

  #take(win: Win, race: Race, token: string | undefined, reason: string): void {
    const doubt = this.#doubt;
    this.#fledAt = doubt?.late ? this.#env.now() : 0;
    if (doubt && doubt.transport !== win.transport && !doubt.excused) {
      this.#memory.failed(doubt.transport, doubt.reason, doubt.useless);
    }
    this.#doubt = undefined;
    this.#seeking = undefined;
    this.#search++;
    this.#carrying = race;
    this.#retry?.();
    this.#retry = undefined;
    this.#lookedUpAt = this.#env.wallTime();
    this.#links.adopt(win, reason);
    this.#credentials.carried(token);
    this.#planClimb();
  }

  #lose(defeat: Defeat, up: boolean, error?: ThroughlineError): void {
    if (!up) {
      this.#seeking = undefined;
    }
    if (!this.#links.current) {
      this.#host.defeated(defeat, error);
    } else if (up || !this.#doubt) {
      this.#planClimb();
    } else {
      this.#failures ||= 1;
      this.retryAfter(defeat.retryAfterMs);
    }
  }

  // ---- better links ----

  /** Tries `kinds`, each of which is better than the current one, beside it. */
  #lookUp(kinds: readonly TransportKind[]): void {
    this.#lookedUpAt = this.#env.wallTime();
    const trying = new Set(
      this.#races.flatMap(({ attempts }) =>
        attempts.filter(({ outcome }) => outcome === 'trying').map(({ transport }) => transport),
      ),
    );
    const idle = kinds.filter(({ name }) => !trying.has(name));
    if (idle.length > 0 && this.#links.current && !this.#doubt) {
      void this.#race(idle, true);
    }
    this.#planClimb();
  }

  /** Plans when to look up next. */
  #planClimb(): void {
    this.#cancelClimb();
    const env = this.#env;
    const [first = 0] = MEMORY_MS;
    const due = this.#better().map(({ name }) => {
      const failure = this.#memory.failure(name);
      const at = failure?.at ?? this.#lookedUpAt;
      // The jitter keeps the pages of a site from probing in step.
      return at + ((failure?.until ?? at + first) - at) * (1 + env.random() / 4);
    });
    if (due.length > 0 && !this.#doubt && !this.#host.isEnding()) {
      this.#climbAt = Math.min(...due);
      this.#climb = env.timer(this.#climbAt - env.wallTime(), () =>
        this.#lookUp(this.#better().filter(({ name }) => !this.#memory.failure(name))),
      );
    }
  }

  /** What could be used here, and goes before the current transport. */
  #better(): TransportKind[] {
    const { current } = this.#links;
    const rank = current ? this.#rank(current.transport) : 0;
    return this.#kinds.filter((kind, index) => index < rank && kind.missing(this.#env) === null);
  }

  #rank(transport: Transport): number {
    return this.#kinds.findIndex(({ name }) => name === transport);
  }

  // ---- helpers ----

  #doubtOf(
    { transport, since, proven }: Carrier,
    reason: string,
    { excused, final, late }: { excused: boolean; final: boolean; late: boolean },
  ): Doubt {
    const now = this.#env.now();
    if (proven) {
      // The server waits for whoever resumes: after a moment of work the delay does not grow.
      this.#failures = now - since >= STABLE_MS ? 0 : Math.min(this.#failures, 1);
    }
    if (now - since >= TRUST_MS) {
      this.#memory.trusted(transport);
    }
    // Two good links in doubt, one right after the other: the path is slow, and there is no better rung below.
    const pardoned = excused || now < this.#excusedUntil || (proven && now < this.#fledAt + EXCUSED_MS);
    const last = !pardoned && (late || !proven || this.#failures > 0);
    return { transport, reason, useless: !proven, excused: pardoned, late, last, final };
  }

  #cancelRaces(): void {
    this.#search++;
    this.#seeking = undefined;
    for (const race of this.#races) {
      race.cancel();
    }
  }

  #cancelClimb(): void {
    this.#climb?.();
    this.#climb = undefined;
  }
}

// The ladder: which transports are tried, in which order, and who wins. One Race opens one link.
//
// - The first rung starts at once; the one below WebTransport `hedgeMs` later, any other `stepMs` later, or at
//   once when the one above has failed. The first WELCOME wins. A socket that says "open" wins nothing.
// - Rungs below the winner are cancelled. Rungs above it are left to finish, up to their deadline: what comes
//   of them is what the memory learns. None of them ever sends a frame (SPEC section 6).
// - A rung that failed not long ago does not delay the others. WebTransport then goes to the end of the queue,
//   because Chromium slows down a page that keeps failing, and so does a rung that opened but carried nothing.

import type { Cancel, Environment } from './environment.js';
import type { Attempt } from './explain.js';
import { ATTEMPT_MS } from './limits.js';
import type { Failure } from './memory.js';
import { type Close, CODE_NAMES, protocolClose } from './protocol/close.js';
import type { Frame, Welcome } from './protocol/frames.js';
import type { Link, LinkHandlers, Loss, Transport } from './transport/link.js';

/** One transport that takes part in a race. */
export interface Rung {
  readonly transport: Transport;
  /** Why it cannot be used in this browser; `null` when it can. */
  readonly missing: string | null;
  readonly failure: Failure | null;
  open(handlers: LinkHandlers): Link;
}

/** The link that won. */
export interface Win {
  readonly transport: Transport;
  readonly link: Link;
  readonly welcome: Welcome;
  /** From now on these get what the link reports, from the frame after WELCOME on. */
  adopt(handlers: LinkHandlers): void;
}

/** Nothing worked. */
export interface Defeat {
  readonly close: Close;
  /** The server's wish, in milliseconds; 0 when it had none. */
  readonly retryAfterMs: number;
}

export interface RaceOptions {
  readonly env: Environment;
  /** Best first. */
  readonly rungs: readonly Rung[];
  readonly number: number;
  readonly hedgeMs: number;
  readonly stepMs: number;
  readonly won: (win: Win) => void;
  readonly lost: (defeat: Defeat) => void;
  /** A rung failed while another one works: worth remembering. */
  readonly failed: (transport: Transport, reason: string) => void;
}

interface Runner {
  readonly rung: Rung;
  /** Place in the order of preference. */
  readonly rank: number;
  readonly startedAt: number;
  attempt: Attempt;
  link: Link | null;
  /** Who gets what the link reports: the race, later the session, `null` when it is over. */
  handlers: LinkHandlers | null;
  cancelDeadline: Cancel;
  loss: Loss | null;
}

export class Race {
  readonly #options: RaceOptions;
  readonly #startedAt: number;
  readonly #queue: Rung[];
  readonly #skipped: Attempt[] = [];
  readonly #runners: Runner[] = [];
  #cancelNext: Cancel | null = null;
  #winner: Runner | null = null;
  #over = false;

  /** Starts at once. `won` or `lost` is called once, later, unless the race is cancelled. */
  constructor(options: RaceOptions) {
    this.#options = options;
    this.#startedAt = options.env.now();
    const usable: Rung[] = [];
    for (const rung of options.rungs) {
      if (rung.missing === null) {
        usable.push(rung);
      } else {
        this.#skip(rung, rung.missing);
      }
    }
    this.#queue = [...usable.filter((rung) => !isLast(rung)), ...usable.filter(isLast)];
    this.#cancelNext = options.env.timer(0, () => this.#next());
  }

  /** What was tried, best transport first. */
  get attempts(): Attempt[] {
    const order = this.#options.rungs.map((rung) => rung.transport);
    return [...this.#skipped, ...this.#runners.map((runner) => runner.attempt)].sort(
      (a, b) => order.indexOf(a.transport) - order.indexOf(b.transport),
    );
  }

  /** Ends what is still being tried; the winner's link, if there is one, is not touched. */
  cancel(reason: string): void {
    this.#over = true;
    this.#cancelNext?.();
    this.#cancelNext = null;
    for (const runner of this.#runners) {
      if (runner !== this.#winner) {
        this.#giveUp(runner, reason);
      }
    }
  }

  #next(): void {
    this.#cancelNext?.();
    this.#cancelNext = null;
    const rung = this.#queue.shift();
    if (rung === undefined) {
      this.#finishIfOver();
      return;
    }
    const { env, hedgeMs, stepMs } = this.#options;
    if (this.#queue.length > 0) {
      const delay = rung.failure !== null ? 0 : rung.transport === 'webtransport' ? hedgeMs : stepMs;
      this.#cancelNext = env.timer(delay, () => this.#next());
    }
    this.#start(rung);
  }

  #start(rung: Rung): void {
    const { env, number } = this.#options;
    const now = env.now();
    const runner: Runner = {
      rung,
      rank: this.#options.rungs.indexOf(rung),
      startedAt: now,
      attempt: {
        transport: rung.transport,
        race: number,
        startedAt: now,
        afterMs: now - this.#startedAt,
        ms: null,
        outcome: 'trying',
        reason: '',
      },
      link: null,
      handlers: null,
      cancelDeadline: env.timer(ATTEMPT_MS, () =>
        this.#fail(runner, { reason: `no WELCOME within ${ATTEMPT_MS / 1000} s` }),
      ),
      loss: null,
    };
    this.#runners.push(runner);
    runner.handlers = {
      frame: (frame) => this.#firstFrame(runner, frame),
      datagram: () => {},
      heard: () => {},
      writable: () => {},
      violation: (close) => this.#fail(runner, { reason: close.reason }),
      lost: (loss) => this.#fail(runner, loss),
    };
    runner.link = rung.open({
      frame: (frame) => runner.handlers?.frame(frame),
      datagram: (bytes) => runner.handlers?.datagram(bytes),
      heard: (bytes) => runner.handlers?.heard(bytes),
      writable: () => runner.handlers?.writable(),
      violation: (close) => runner.handlers?.violation(close),
      lost: (loss) => runner.handlers?.lost(loss),
    });
  }

  #firstFrame(runner: Runner, frame: Frame): void {
    if (frame.type === 'close') {
      this.#fail(runner, { reason: frame.close.reason, close: frame.close });
    } else if (frame.type !== 'welcome') {
      this.#fail(runner, { reason: 'a frame before WELCOME' });
    } else if (this.#winner !== null) {
      this.#giveUp(runner, `answered when ${this.#winner.rung.transport} had won already`);
    } else if (runner.link !== null) {
      this.#win(runner, runner.link, frame.welcome);
    }
  }

  #win(runner: Runner, link: Link, welcome: Welcome): void {
    this.#winner = runner;
    runner.cancelDeadline();
    this.#settle(runner, 'won', '');
    this.#cancelNext?.();
    this.#cancelNext = null;
    const { transport } = runner.rung;
    for (const rung of this.#queue.splice(0)) {
      this.#skip(
        rung,
        rung.failure === null ? `${transport} was faster` : describeFailure(rung.failure, this.#options.env),
      );
    }
    for (const other of this.#runners) {
      if (other.rank > runner.rank) {
        this.#giveUp(other, `${transport} won`);
      } else if (other.loss !== null) {
        this.#remember(other, other.loss);
      }
    }
    this.#options.won({
      transport,
      link,
      welcome,
      adopt: (handlers) => {
        runner.handlers = handlers;
      },
    });
  }

  #fail(runner: Runner, loss: Loss): void {
    if (runner.attempt.outcome !== 'trying') {
      return;
    }
    this.#stop(runner);
    runner.loss = loss;
    this.#settle(runner, loss.unavailable ? 'skipped' : 'failed', loss.reason);
    if (this.#winner !== null) {
      this.#remember(runner, loss);
    } else if (isUnauthorized(loss)) {
      this.cancel('the token was refused');
      this.#options.lost({
        close: loss.close ?? protocolClose('UNAUTHORIZED', loss.reason),
        retryAfterMs: 0,
      });
    } else if (runner === this.#runners.at(-1) && !this.#over) {
      this.#next(); // those above it have had their time
    } else {
      this.#finishIfOver();
    }
  }

  #finishIfOver(): void {
    const waiting =
      this.#queue.length > 0 || this.#runners.some((runner) => runner.attempt.outcome === 'trying');
    if (waiting || this.#winner !== null || this.#over) {
      return;
    }
    this.#over = true;
    const losses = this.#runners.flatMap((runner) => runner.loss ?? []);
    // When every answer that could be seen says the same, that is the reason.
    const said = losses.flatMap((loss) => loss.close ?? []);
    const [first] = said;
    const common = first !== undefined && said.every((close) => close.code === first.code) ? first : null;
    this.#options.lost({
      close: common ?? protocolClose('UNREACHABLE', ''),
      retryAfterMs: Math.max(0, ...losses.map((loss) => loss.retryAfterMs ?? 0)),
    });
  }

  #giveUp(runner: Runner, reason: string): void {
    if (runner.attempt.outcome === 'trying') {
      this.#stop(runner);
      this.#settle(runner, 'cancelled', reason);
    }
  }

  #stop(runner: Runner): void {
    runner.handlers = null;
    runner.cancelDeadline();
    runner.link?.abort();
  }

  #settle(runner: Runner, outcome: Attempt['outcome'], reason: string): void {
    runner.attempt = { ...runner.attempt, outcome, reason, ms: this.#options.env.now() - runner.startedAt };
  }

  #skip(rung: Rung, reason: string): void {
    const now = this.#options.env.now();
    this.#skipped.push({
      transport: rung.transport,
      race: this.#options.number,
      startedAt: now,
      afterMs: now - this.#startedAt,
      ms: null,
      outcome: 'skipped',
      reason,
    });
  }

  /** An answer of the server's says nothing about the transport. */
  #remember(runner: Runner, loss: Loss): void {
    if (!loss.unavailable && loss.close === undefined) {
      this.#options.failed(runner.rung.transport, loss.reason);
    }
    runner.loss = null;
  }
}

function isLast({ transport, failure }: Rung): boolean {
  return failure !== null && (transport === 'webtransport' || failure.useless);
}

function isUnauthorized({ status, close }: Loss): boolean {
  return (
    status === 401 || (close !== undefined && !close.application && CODE_NAMES[close.code] === 'UNAUTHORIZED')
  );
}

function describeFailure({ reason, at, until }: Failure, env: Environment): string {
  const now = env.wallTime();
  const seconds = (ms: number) => Math.max(1, Math.round(ms / 1000));
  return `failed ${seconds(now - at)} s ago (${reason}), tried again in ${seconds(until - now)} s`;
}

// The ladder: which transports are tried, in which order, and who wins. One Race looks for one link.
//
// - The first rung starts at once; the one below WebTransport `hedgeMs` later, any other `stepMs` later, or at
//   once when the one above has failed. The first WELCOME wins. A socket that says "open" wins nothing.
// - Rungs below the winner are cancelled. Rungs above it are left to finish, up to their deadline: one that
//   answers late wins again, and its owner moves up. A link that is not taken never sends a frame (SPEC section 6).
// - A rung that failed not long ago does not delay the others. WebTransport then goes to the end of the queue,
//   because Chromium slows down a page that keeps failing, and so does a rung that opened but carried nothing.

import type { Cancel, Environment } from './environment.js';
import { type Attempt, describe } from './explain.js';
import { ATTEMPT_MS } from './limits.js';
import type { Failure } from './memory.js';
import { type Close, protocolClose } from './protocol/close.js';
import type { Welcome } from './protocol/frames.js';
import type { Link, LinkHandlers, Loss, Transport } from './transport/link.js';

/** One transport that takes part in a race. */
export interface Rung {
  readonly transport: Transport;
  /** Why it cannot be used in this browser; `null` when it can. */
  readonly missing: string | null;
  readonly failure: Failure | null;
  /** It is in doubt: the others go first. */
  readonly last: boolean;
  open(handlers: LinkHandlers): Link;
}

/** A link that answered. */
export interface Win {
  readonly transport: Transport;
  readonly link: Link;
  readonly welcome: Welcome;
  /** From now on these get what the link reports, from the frame after WELCOME on. */
  adopt(handlers: LinkHandlers): unknown;
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
  /** A link works already: what fails is worth remembering at once. */
  readonly works: boolean;
  /** A link answered: the first, or a better one after it. Why it is not taken, in words, or what takes it. */
  readonly won: (win: Win) => string | (() => void);
  readonly lost: (defeat: Defeat) => void;
  /** A rung failed while another one works: worth remembering. */
  readonly failed: (transport: Transport, loss: Loss) => void;
  /** Nothing can answer any more, after a win. */
  readonly settled: () => void;
}

/** A rung that was started. */
interface Runner {
  readonly rung: Rung;
  readonly link: Link;
  readonly cancelDeadline: Cancel;
  /** What the link reports to. Whose functions they are changes: the race's, then the session's, then nobody's. */
  readonly handlers: LinkHandlers;
}

export class Race {
  readonly #options: RaceOptions;
  readonly #startedAt: number;
  /** What became of each rung so far, by its rank. */
  readonly #attempts: Attempt[] = [];
  readonly #queue: Rung[];
  /** Those that may still answer. */
  readonly #running = new Set<Runner>();
  readonly #losses = new Map<Transport, Loss>();
  #newest: Rung | undefined;
  #cancelNext: Cancel;
  #winner: Rung | null = null;
  #over = false;

  /** Starts at once. `won` or `lost` is called later, unless the race is cancelled. */
  constructor(options: RaceOptions) {
    this.#options = options;
    this.#startedAt = options.env.now();
    this.#queue = options.rungs.filter(({ missing }) => missing === null);
    // A stable sort: the order of preference stays within both parts.
    this.#queue.sort((a, b) => Number(isLast(a)) - Number(isLast(b)));
    for (const rung of options.rungs) {
      if (rung.missing !== null) {
        this.#record(rung, 'skipped', rung.missing);
      }
    }
    this.#cancelNext = options.env.timer(0, () => this.#next());
  }

  /** What was tried, best transport first. */
  get attempts(): Attempt[] {
    return this.#attempts.filter(Boolean); // rungs that wait have none yet
  }

  /** Whether a link may still come of it. */
  get isRunning(): boolean {
    return !this.#over && (this.#winner === null || this.#running.size > 0);
  }

  /** Ends what is still being tried; a link that was taken is not touched. */
  cancel(reason = ''): void {
    this.#over = true;
    this.#cancelNext();
    for (const runner of this.#running) {
      this.#stop(runner, 'cancelled', reason);
    }
  }

  /** Starts the next rung, and plans the one after it. */
  #next(): void {
    this.#cancelNext();
    const rung = this.#queue.shift();
    this.#newest = rung;
    if (rung) {
      const { env, hedgeMs, stepMs } = this.#options;
      const delay = rung.failure ? 0 : rung.transport === 'webtransport' ? hedgeMs : stepMs;
      this.#cancelNext = env.timer(delay, () => this.#queue.length > 0 && this.#next());
      this.#start(rung);
    } else {
      this.#finishWhenAllFailed();
    }
  }

  #start(rung: Rung): void {
    this.#record(rung, 'trying', '');
    const handlers: LinkHandlers = {
      ...DEAF,
      frame: (frame) => {
        if (frame.type === 'welcome') {
          this.#answered(runner, frame.welcome);
        } else {
          this.#fail(runner, { reason: 'no WELCOME' });
        }
      },
      violation: (close) => this.#fail(runner, { reason: close.reason }),
      failing: (loss) => this.#fail(runner, loss),
      lost: (loss) => this.#fail(runner, loss),
    };
    const runner: Runner = {
      rung,
      handlers,
      link: rung.open(handlers),
      cancelDeadline: this.#options.env.timer(ATTEMPT_MS, () => this.#fail(runner, { reason: 'no WELCOME' })),
    };
    this.#running.add(runner);
  }

  #answered(runner: Runner, welcome: Welcome): void {
    const { rung, link } = runner;
    const { transport } = rung;
    this.#running.delete(runner);
    runner.cancelDeadline();
    this.#record(rung, 'won', '');
    const take = this.#options.won({
      transport,
      link,
      welcome,
      adopt: (handlers) => Object.assign(runner.handlers, handlers),
    });
    if (typeof take === 'string') {
      this.#stop(runner, 'cancelled', take);
      this.#goOn(rung);
      return;
    }
    this.#winner = rung;
    this.#cancelNext();
    for (const waiting of this.#queue.splice(0)) {
      this.#record(
        waiting,
        'skipped',
        waiting.failure ? `failed lately: ${waiting.failure.reason}` : `${transport} won`,
      );
    }
    for (const other of this.#running) {
      if (this.#rank(other.rung) > this.#rank(rung)) {
        this.#stop(other, 'cancelled', `${transport} won`);
      }
    }
    for (const [lost, loss] of this.#losses) {
      if (!this.#options.works) {
        this.#options.failed(lost, loss);
      }
    }
    this.#losses.clear();
    take();
    this.#settle();
  }

  #fail(runner: Runner, loss: Loss): void {
    const { transport } = runner.rung;
    this.#stop(runner, loss.unavailable ? 'skipped' : 'failed', loss.reason);
    this.#losses.set(transport, loss);
    if (this.#winner || this.#options.works) {
      this.#options.failed(transport, loss);
    }
    if (!this.#winner && loss.status === 401) {
      this.cancel();
      this.#options.lost({
        close: loss.close ?? protocolClose('UNAUTHORIZED', loss.reason),
        retryAfterMs: 0,
      });
    }
    this.#goOn(runner.rung);
  }

  /** After a rung that brought no link. */
  #goOn(rung: Rung): void {
    if (this.#over) {
      return;
    }
    if (this.#winner) {
      this.#settle();
    } else if (rung === this.#newest) {
      this.#next(); // those above it have had their time
    } else {
      this.#finishWhenAllFailed();
    }
  }

  #finishWhenAllFailed(): void {
    if (this.#queue.length + this.#running.size > 0) {
      return;
    }
    this.#over = true;
    const losses = [...this.#losses.values()];
    // When every answer that could be seen says the same, that is the reason.
    const [said, ...others] = losses.flatMap(({ close }) => close ?? []);
    const agreed = said && others.every(({ code }) => code === said.code);
    this.#options.lost({
      close: {
        ...(agreed ? said : protocolClose('UNREACHABLE', '')),
        reason: `no transport worked: ${describe(this.attempts)}`,
      },
      retryAfterMs: Math.max(0, ...losses.map(({ retryAfterMs = 0 }) => retryAfterMs)),
    });
  }

  #settle(): void {
    if (!this.isRunning) {
      this.#options.settled();
    }
  }

  #stop(runner: Runner, outcome: Attempt['outcome'], reason: string): void {
    this.#running.delete(runner);
    Object.assign(runner.handlers, DEAF);
    runner.cancelDeadline();
    runner.link.abort();
    this.#record(runner.rung, outcome, reason);
  }

  #record(rung: Rung, outcome: Attempt['outcome'], reason: string): void {
    const now = this.#options.env.now();
    const rank = this.#rank(rung);
    const before = this.#attempts[rank];
    const startedAt = before?.startedAt ?? now;
    this.#attempts[rank] = {
      transport: rung.transport,
      race: this.#options.number,
      startedAt,
      afterMs: startedAt - this.#startedAt,
      ms: before ? now - startedAt : null,
      outcome,
      reason,
    };
  }

  #rank(rung: Rung): number {
    return this.#options.rungs.indexOf(rung);
  }
}

function isLast({ transport, failure, last }: Rung): boolean {
  return last || (failure !== null && (transport === 'webtransport' || failure.useless));
}

/** Listens to nothing. */
const DEAF: LinkHandlers = {
  frame: ignore,
  stream: () => DEAF,
  datagram: ignore,
  heard: ignore,
  writable: ignore,
  violation: ignore,
  failing: ignore,
  lost: ignore,
};

function ignore(): void {}

// What the session authenticates with: asked for before each opening, and again before its time is over (SPEC section 12).

import { reconnectDelay } from './backoff.js';
import type { Cancel, Environment } from './environment.js';
import { messageOf } from './errors.js';
import { MAX_TIMER_MS, REFRESH_GAP_MS, REFRESH_MS } from './limits.js';
import { checkToken, type Token } from './options.js';

export class Credentials {
  readonly #env: Environment;
  readonly #token: Token | undefined;
  readonly #present: (token: string) => void;
  /** When what the server was given ends, and when a new token is asked for. */
  #endsAt = Infinity;
  #refreshAt = Infinity;
  #askedAt = -Infinity;
  #newest: string | undefined;
  #timer: Cancel | undefined;
  #failures = 0;
  #failure = '';
  /** Which plan counts while a token is asked for. */
  #plan = 0;

  /** `present` gives the server a new token. Throws TypeError for one that cannot work. */
  constructor(env: Environment, token: Token | undefined, present: (token: string) => void) {
    this.#env = env;
    this.#token = token;
    this.#present = present;
    if (typeof token !== 'function') {
      checkToken(token);
    }
  }

  /** The token for an opening. Rejects as the application's function does, or with TypeError. */
  async get(): Promise<string | undefined> {
    const token = this.#token;
    this.#newest = checkToken(typeof token === 'function' ? await token() : token);
    return this.#newest;
  }

  /** A link carries the session whose opening has carried `token`, perhaps not the newest one. */
  carried(token: string | undefined): void {
    if (this.#newest !== undefined && this.#newest !== token) {
      this.#present(this.#newest);
    }
  }

  /** The server says how long they are good for, in milliseconds; 0: for ever. */
  expire(inMs: number): void {
    const now = this.#env.now();
    this.stop();
    this.#failures = 0;
    this.#failure = '';
    this.#endsAt = now + (inMs || Infinity);
    if (inMs && typeof this.#token === 'function') {
      this.#refreshAt = Math.max(
        this.#askedAt + REFRESH_GAP_MS,
        this.#endsAt - Math.min(inMs / 4, REFRESH_MS),
      );
      this.#wait();
    }
  }

  /** Whether it is time for a new token: the timers of a hidden tab come up to a minute late, and what arrives does not. */
  look(): void {
    if (this.#timer && this.#env.now() >= this.#refreshAt) {
      this.#timer();
      void this.#refresh();
    }
  }

  /** Nothing more is asked for. */
  stop(): void {
    this.#plan++;
    this.#timer?.();
    this.#timer = undefined;
  }

  /** In words, for a person; empty when there is nothing to say. */
  describe(): string {
    const now = this.#env.now();
    const seconds = (at: number) => `${Math.max(0, Math.round((at - now) / 1000))} s`;
    if (this.#endsAt === Infinity) {
      return '';
    }
    const good = `The server takes its token for another ${seconds(this.#endsAt)}`;
    if (this.#failure) {
      return `${good}; a new one could not be had (${this.#failure}).`;
    }
    return this.#timer ? `${good}; a new one is asked for in ${seconds(this.#refreshAt)}.` : `${good}.`;
  }

  #wait(): void {
    const left = this.#refreshAt - this.#env.now();
    // Browsers cut the milliseconds of a timer to whole ones: it may come just before the clock says that it is time, and does not come again.
    this.#timer = this.#env.timer(Math.min(left, MAX_TIMER_MS), () =>
      left > MAX_TIMER_MS ? this.#wait() : void this.#refresh(),
    );
  }

  async #refresh(): Promise<void> {
    const env = this.#env;
    const plan = this.#plan;
    this.#timer = undefined;
    this.#askedAt = env.now();
    let token: string | undefined;
    let failure = '';
    try {
      token = await this.get();
    } catch (error) {
      failure = messageOf(error);
    }
    if (plan !== this.#plan) {
      return;
    }
    this.#failure = failure;
    if (token !== undefined) {
      this.#present(token);
    } else {
      this.#refreshAt = env.now() + reconnectDelay(++this.#failures, env.random());
      if (this.#refreshAt < this.#endsAt) {
        this.#wait();
      }
    }
  }
}

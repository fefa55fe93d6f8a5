// What failed and what worked, per origin, so that a blocked transport does not delay every page load.
// It lives in `localStorage` where that is allowed, and beside it in the page.

import type { Environment } from './environment.js';
import { FORGET_MS, MEMORY_MS } from './limits.js';
import type { Transport } from './transport/link.js';

/** A transport that failed not long ago. */
export interface Failure {
  /** In words. */
  readonly reason: string;
  /** When it failed, and until when it stays out of the way; milliseconds of the wall clock. */
  readonly at: number;
  readonly until: number;
  /** Failures in a row. */
  readonly count: number;
  /** It opened, but carried nothing: it is to be tried last. */
  readonly useless: boolean;
}

/** What is stored. Nothing in it is taken on trust: anybody may write under our key. */
interface Contents extends Partial<Record<Transport, Failure | undefined>> {
  /** What carried the last session, and its round trip in milliseconds. */
  worked?: Transport;
  rttMs?: number;
}

/** The memory of one origin. Nothing in it throws. */
export class Memory {
  readonly #env: Environment;
  readonly #key: string;

  constructor(env: Environment, origin: string) {
    this.#env = env;
    this.#key = `throughline:${origin}`;
  }

  /** The failure that still counts, if there is one. */
  failure(transport: Transport): Failure | null {
    const failure = this.#read()[transport];
    const now = this.#env.wallTime();
    // One from the future comes from a clock that was set back.
    return failure && failure.at <= now && now < failure.until ? failure : null;
  }

  failed(transport: Transport, reason: string, useless = false): void {
    const contents = this.#read();
    const at = this.#env.wallTime();
    const last = contents[transport];
    // `>` is also false for what is no number.
    const lately = Number(last?.at) > at - FORGET_MS;
    const count = ((lately && Number(last?.count)) || 0) + 1;
    const until = at + (MEMORY_MS[Math.min(count, MEMORY_MS.length) - 1] ?? 0);
    this.#write({ ...contents, [transport]: { reason, at, until, count, useless } });
  }

  /**
   * It carries the session. Its failures do not count any more, but are not forgotten until it has been
   * `trusted`: one that works for a moment, again and again, is left alone for longer each time.
   */
  worked(transport: Transport, rttMs: number): void {
    const contents = this.#read();
    const failure = contents[transport];
    this.#write({ ...contents, [transport]: failure && { ...failure, until: 0 }, worked: transport, rttMs });
  }

  /** It has carried the session for long: its failures are forgotten. */
  trusted(transport: Transport): void {
    this.#write({ ...this.#read(), [transport]: undefined });
  }

  /** Round trip of the last session, in milliseconds; 0 when unknown. */
  get rttMs(): number {
    return Number(this.#read().rttMs) || 0;
  }

  #read(): Contents {
    let contents: unknown;
    try {
      contents = JSON.parse(this.#env.storage()?.getItem(this.#key) ?? '');
    } catch {
      // Forbidden, empty, or not ours.
    }
    return contents ?? this.#env.page.get(this.#key) ?? {};
  }

  #write(contents: Contents): void {
    this.#env.page.set(this.#key, contents);
    try {
      this.#env.storage()?.setItem(this.#key, JSON.stringify(contents));
    } catch {
      // Forbidden or full.
    }
  }
}

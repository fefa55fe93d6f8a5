// PING and PONG, and what they say: the path's round trip, the server's clock, and whether the link still lives
// (SPEC section 6).

import { PING, PONG, type Welcome, writeFields } from './frames.js';
import { MAX_OPEN_PINGS, MIN_DOUBT_MS } from './limits.js';
import type { Writer } from './varint.js';

/** Times that a PING may be late while other things still arrive: it may stand behind them in a queue. */
const PATIENCE_WITH_NEWS = 4;

export class Heartbeat {
  /** Smoothed, on this link, in milliseconds; 0 before the first PONG. */
  rttMs = 0;
  /** The least on this link, in milliseconds; 0 before the first PONG. */
  minRttMs = 0;
  /** Whether the server has answered a PING on this link: that it carries frames both ways. */
  isProven = false;
  isSuspect = false;
  readonly #quietMs: number;
  #heartbeatMs = 0;
  #idleMs = 0;
  #heard = 0;
  /** When a link that was probed counts as dead, unless something is heard. */
  #probedUntil = 0;
  #pingAt = 0;
  /** Since when a PING waits to be sent; Infinity when none does. */
  #pingDue = Infinity;
  #pingId = 0;
  /** When the PINGs that have no answer yet were sent, by id. */
  readonly #pings = new Map<number, number>();
  #pong: number | undefined;
  /** When to ask whether the link still lives, because it went quiet after traffic. */
  #quietAt = Infinity;
  /** The same, because the server has not acknowledged what was sent, whatever else it says. */
  #owedAt = Infinity;
  /** When the server last showed that it receives what is sent. */
  #reached = 0;
  #clockOffsetMs = 0;

  /** `quietMs`: how long it may be quiet after traffic before a PING asks why. */
  constructor(quietMs: number) {
    this.#quietMs = quietMs;
  }

  // ---- the link ----

  /** Another path, of which nothing is known yet. */
  linkOpened(now: number): void {
    this.rttMs = this.minRttMs = 0;
    this.isProven = this.isSuspect = false;
    this.#pings.clear();
    this.#pong = undefined;
    this.#quietAt = this.#owedAt = Infinity;
    this.heard(now);
  }

  opened(now: number, { heartbeatMs, idleMs, timeUs }: Welcome, isNew: boolean): void {
    this.#heartbeatMs = heartbeatMs;
    this.#idleMs = idleMs;
    this.#clockOffsetMs = timeUs / 1000 - now;
    if (isNew) {
      this.#pingId = 0;
    }
    this.#beat(now);
  }

  // ---- what arrives ----

  /** Anything arrived. */
  heard(now: number): void {
    this.#heard = now;
    this.#probedUntil = 0;
  }

  /** A frame that is no PONG came or went: if it is quiet after that, a PING asks why. */
  traffic(now: number, arrived: boolean): void {
    this.#quietAt = Math.min(now + this.#quietMs, arrived ? Infinity : this.#quietAt);
  }

  /** Stream bytes left, which the server is to acknowledge: if it does not, a PING asks why. */
  sent(now: number): void {
    this.#owedAt = Math.min(this.#owedAt, now + this.#quietMs);
  }

  /** The server said what it has received; `all`: everything that was sent. */
  reached(now: number, all: boolean): void {
    this.#reached = now;
    this.#owedAt = all ? Infinity : now + this.#quietMs;
  }

  handlePing(id: number): void {
    this.#pong = id;
  }

  handlePong(now: number, id: number, timeUs: number): void {
    const sentAt = this.#pings.get(id);
    this.#quietAt = this.#owedAt = Infinity;
    if (sentAt === undefined) {
      return;
    }
    for (const older of this.#pings.keys()) {
      if (older <= id) {
        this.#pings.delete(older);
      }
    }
    const rtt = Math.max(0.001, now - sentAt);
    this.rttMs = this.rttMs ? (7 * this.rttMs + rtt) / 8 : rtt;
    this.minRttMs = Math.min(this.minRttMs || rtt, rtt);
    if (rtt <= this.rttMs) {
      // A slow answer says little about the clock.
      this.#clockOffsetMs = timeUs / 1000 + rtt / 2 - now;
    }
    this.isProven = true;
  }

  // ---- time ----

  /** When the link counts as dead, or the next PING is due. */
  get timeout(): number {
    return Math.min(this.#deadAt, this.#pingAt);
  }

  /** When a doubt about the link wants to be looked into. */
  get doubtAt(): number {
    return Math.min(this.#quietAt, this.#owedAt, this.isSuspect ? Infinity : this.#suspectAt);
  }

  /** How long nothing was heard, in milliseconds, when that is too long; the next silence counts from now on. */
  silence(now: number): number {
    if (now < this.#deadAt) {
      return 0;
    }
    const silence = now - this.#heard;
    this.heard(now);
    return silence;
  }

  handleTimeout(now: number): void {
    // Due, not sent: the link may not take anything now, and the next timeout must lie ahead all the same.
    if (now >= Math.min(this.#pingAt, this.#quietAt, this.#owedAt)) {
      this.#beat(now);
    }
  }

  /** Looks whether the link is suspect; true when that has changed. */
  doubts(now: number): boolean {
    const before = this.isSuspect;
    this.isSuspect = now >= this.#suspectAt;
    return this.isSuspect !== before;
  }

  /**
   * Doubt from outside: a PING goes now, and unless anything is heard within `patienceMs`, the link is dead. What
   * was asked before does not count: answers may have waited while the page slept.
   */
  probe(now: number, patienceMs: number): void {
    if (!this.#probedUntil) {
      this.#probedUntil = now + patienceMs;
      this.#pings.clear();
      this.#pingDue = now;
    }
  }

  /** The server's clock in milliseconds since the Unix epoch; our own before the first WELCOME. */
  serverTime(now: number): number {
    return now + this.#clockOffsetMs;
  }

  // ---- what is sent ----

  write(now: number, out: Writer): void {
    if (this.#pong !== undefined) {
      writeFields(out, PONG, this.#pong, Math.floor(now * 1000));
      this.#pong = undefined;
    }
    if (this.#pingDue < Infinity) {
      this.#pingDue = Infinity;
      this.#pings.set(++this.#pingId, now);
      this.#pings.delete(this.#pingId - MAX_OPEN_PINGS);
      writeFields(out, PING, this.#pingId);
    }
  }

  // ---- inside ----

  #beat(now: number): void {
    this.#pingDue = Math.min(this.#pingDue, now);
    this.#pingAt = now + this.#heartbeatMs;
    this.#quietAt = this.#owedAt = Infinity;
  }

  get #deadAt(): number {
    return this.#probedUntil || this.#heard + this.#idleMs;
  }

  /**
   * A PING was not answered, or not even taken by the link, for too long: for longer while other things arrive, and
   * not while the server goes on to acknowledge what was sent before it.
   */
  get #suspectAt(): number {
    const [sentAt = Infinity] = this.#pings.values();
    const asked = Math.min(sentAt, this.#pingDue);
    const patienceMs = Math.max(MIN_DOUBT_MS, 4 * this.rttMs);
    return Math.min(
      Math.max(asked, this.#heard) + patienceMs,
      Math.max(asked, this.#reached) + PATIENCE_WITH_NEWS * patienceMs,
    );
  }
}

import { type Counts, NO_COUNTS, Tally } from './tally.js';

/** Ten numbers per second, as the server (server/src/demo/ledger.rs): some are always on their way when a link dies. */
export const COUNT_EVERY_MS = 100;

/** Numbered reliable messages both ways. Both ends count what arrives, and the server tells the page what it has counted. */
export class Ledger {
  /** From the server to this page. */
  down = new Tally();
  /** From this page to the server, as the server said last. */
  up: Counts = NO_COUNTS;
  /** Numbers that this page has sent in this session. */
  sent = 0;
  /** Numbers of sessions that could not be resumed, of which the server never said that it has them. */
  unconfirmed = 0;
  #run = 0;
  #isCounting = false;

  /** A session begins, and both begin at 1. */
  begin(): void {
    this.#isCounting = true;
    this.#run++;
    this.down = new Tally();
    this.up = NO_COUNTS;
    this.sent = 0;
  }

  /** The session could not be resumed. What the server does not have by now may be lost, or follow as part of the old run. */
  gap(): void {
    this.unconfirmed += this.sent - this.up.received;
  }

  /** The page leaves its session for another, which has not begun yet. */
  leave(): void {
    this.#isCounting = false;
    this.unconfirmed = 0;
  }

  /** The server's next number, and its own count. */
  take(number: number, up: Counts): void {
    this.down.take(number);
    this.up = up;
  }

  /** Sends the next number, if `send` takes it now. */
  count(send: (value: object) => boolean): void {
    if (this.#isCounting && send({ type: 'count', run: this.#run, n: this.sent + 1 })) this.sent++;
  }
}

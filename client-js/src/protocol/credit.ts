// The credit of DATAGRAM frames (SPEC section 5): how many may be on their way, so that none grows old in a queue
// that nobody can reach into.

import { TAKEN, writeFields } from './frames.js';
import { MAX_DATAGRAMS_UNDER_WAY, MIN_DATAGRAMS_UNDER_WAY, PATIENCE_MS, RATE_MS } from './limits.js';
import type { Writer } from './varint.js';

/** Both directions. The rate outlives the links. */
export class DatagramCredit {
  /** DATAGRAM frames that were sent on this link, and that the server says it has taken. */
  #sent = 0;
  #taken = 0;
  /** DATAGRAM frames of the server that were taken here, and what was said of it. */
  #ours = 0;
  #said = 0;
  /** Datagrams per millisecond that the application sends, and that the server takes. */
  #offeredRate = 0;
  #takenRate = 0;
  /** Those that the application has sent since `#since`, and what `#taken` was then. */
  #offered = 0;
  #takenThen = 0;
  #since = 0;

  linkOpened(): void {
    this.#sent = this.#taken = this.#ours = this.#said = this.#takenThen = this.#takenRate = 0;
  }

  /** The application has given a datagram to send. */
  offered(): void {
    this.#offered++;
  }

  /** Whether another frame may go now, on a path of this least round-trip time. */
  allows(now: number, minRttMs: number): boolean {
    const elapsed = now - this.#since;
    if (elapsed >= RATE_MS) {
      const measured = (count: number, before: number) => {
        const newest = count / elapsed;
        // A pause is no rate; a higher one counts at once.
        return elapsed > 8 * RATE_MS ? newest : Math.max(newest, (before + newest) / 2);
      };
      this.#offeredRate = measured(this.#offered, this.#offeredRate);
      this.#takenRate = measured(this.#taken - this.#takenThen, this.#takenRate);
      this.#since = now;
      this.#offered = 0;
      this.#takenThen = this.#taken;
    }
    const path = this.#offeredRate * minRttMs;
    // What is offered says little about what can be taken. So it counts until the path has been filled twice.
    const onThePath =
      this.#taken <= 2 * path ? Math.ceil(path) : Math.round(this.#takenRate * (minRttMs + PATIENCE_MS));
    return this.#sent - this.#taken < Math.min(onThePath + MIN_DATAGRAMS_UNDER_WAY, MAX_DATAGRAMS_UNDER_WAY);
  }

  sent(): void {
    this.#sent++;
  }

  /** TAKEN arrived. More than was sent is all of it: a POST that came twice was counted twice. */
  handleTaken(count: number): void {
    this.#taken = Math.max(this.#taken, Math.min(count, this.#sent));
  }

  /** The application has taken a datagram of this link. */
  took(): void {
    this.#ours++;
  }

  /** Writes TAKEN when it is due. */
  write(out: Writer): void {
    if (this.#ours > this.#said) {
      this.#said = this.#ours;
      writeFields(out, TAKEN, this.#ours);
    }
  }
}

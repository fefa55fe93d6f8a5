// The credit of DATAGRAM frames (SPEC section 5): how many may be on their way, so that none grows old in a queue
// that nobody can reach into.

import { ProtocolError } from './close.js';
import { TAKEN, writeFields } from './frames.js';
import { MAX_DATAGRAMS_UNDER_WAY, MIN_DATAGRAMS_UNDER_WAY, RATE_MS } from './limits.js';
import type { Writer } from './varint.js';

/** Both directions. The rate outlives the links. */
export class DatagramCredit {
  /** DATAGRAM frames that were sent on this link, and that the server says it has taken. */
  #sent = 0;
  #taken = 0;
  /** DATAGRAM frames of the server that were taken here, and what was said of it. */
  #ours = 0;
  #said = 0;
  /** Datagrams per millisecond that the application sends, and those counted since `#since`. */
  #rate = 0;
  #counted = 0;
  #since = 0;

  linkOpened(): void {
    this.#sent = this.#taken = this.#ours = this.#said = 0;
  }

  /** The application has given a datagram to send. */
  offered(): void {
    this.#counted++;
  }

  /** Whether another frame may go now, on a path of this least round-trip time. */
  allows(now: number, minRttMs: number): boolean {
    const elapsed = now - this.#since;
    if (elapsed >= RATE_MS) {
      const newest = this.#counted / elapsed;
      // A pause is no rate; a higher one counts at once.
      this.#rate = elapsed > 8 * RATE_MS ? newest : Math.max(newest, (this.#rate + newest) / 2);
      this.#since = now;
      this.#counted = 0;
    }
    const onThePath = Math.ceil(this.#rate * minRttMs) + MIN_DATAGRAMS_UNDER_WAY;
    return this.#sent - this.#taken < Math.min(onThePath, MAX_DATAGRAMS_UNDER_WAY);
  }

  sent(): void {
    this.#sent++;
  }

  /** TAKEN arrived. Throws ProtocolError. */
  handleTaken(count: number): void {
    if (count > this.#sent) {
      throw new ProtocolError('PROTOCOL_VIOLATION', `TAKEN of ${count}, sent ${this.#sent}`);
    }
    this.#taken = Math.max(this.#taken, count);
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

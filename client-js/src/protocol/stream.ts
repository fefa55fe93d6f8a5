// The two halves of stream 0 (SPEC section 4): what was sent and not acknowledged, and what was received.

import { ProtocolError } from './close.js';
import { writeStreamHeader } from './frames.js';
import { WINDOW } from './limits.js';
import type { Writer } from './varint.js';

/** The sending half. Keeps every byte until it is acknowledged. */
export class StreamSender {
  /** The bytes from `#acked` to `#end`; each chunk is one whole message. Chunks below `#head` are gone. */
  #chunks: Uint8Array[] = [];
  #head = 0;
  /** Bytes of the first chunk that are acknowledged already. */
  #front = 0;
  #acked = 0;
  /** The next byte to send on the current link, and where it lies. */
  #next = 0;
  #cursor = 0;
  #within = 0;
  #end = 0;
  /** The most that was ever sent: what an ACK may speak of. */
  #sent = 0;
  #limit: number;

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Bytes that are kept: not sent, or not acknowledged. */
  get buffered(): number {
    return this.#end - this.#acked;
  }

  /** Bytes that may be sent now. */
  get sendable(): number {
    return Math.max(0, Math.min(this.#end, this.#limit) - this.#next);
  }

  /** Bytes that no link was given yet. */
  get unsent(): number {
    return this.#end - this.#next;
  }

  push(chunk: Uint8Array): void {
    this.#end += chunk.length;
    this.#chunks.push(chunk);
  }

  /** Writes one STREAM frame of up to `max` bytes of data; false when there is nothing to send. */
  write(out: Writer, max: number): boolean {
    const length = Math.min(this.sendable, max);
    if (length <= 0) {
      return false;
    }
    writeStreamHeader(out, 0, this.#next, length);
    let missing = length;
    while (missing > 0) {
      const chunk = this.#chunks[this.#cursor];
      if (chunk === undefined) {
        throw new Error('unreachable: the chunks reach the end of the stream');
      }
      const part = chunk.subarray(this.#within, this.#within + missing);
      out.bytes(part);
      missing -= part.length;
      this.#within += part.length;
      if (this.#within === chunk.length) {
        this.#cursor++;
        this.#within = 0;
      }
    }
    this.#next += length;
    this.#sent = Math.max(this.#sent, this.#next);
    return true;
  }

  /** Takes note of an ACK; lower values than known are ignored. Throws ProtocolError. */
  acknowledge(received: number, limit: number): void {
    if (received > this.#sent) {
      throw new ProtocolError(
        'PROTOCOL_VIOLATION',
        `an ACK of ${received} bytes when ${this.#sent} were sent`,
      );
    }
    this.#limit = Math.max(this.#limit, limit);
    this.#release(received);
  }

  /** A new link: goes on from what the peer has received. Throws ProtocolError. */
  rewind(received: number, limit: number): void {
    if (received > this.#sent || received < this.#acked) {
      throw new ProtocolError(
        'PROTOCOL_VIOLATION',
        `received ${received} lies outside of ${this.#acked} to ${this.#sent}`,
      );
    }
    this.#limit = Math.max(this.#limit, limit);
    this.#release(received);
    this.#next = this.#acked;
    this.#cursor = this.#head;
    this.#within = this.#front;
  }

  /** The messages of which no byte was ever sent. */
  neverSent(): Uint8Array[] {
    let start = this.#end;
    let index = this.#chunks.length;
    while (index > this.#head) {
      start -= this.#chunks[index - 1]?.length ?? 0;
      if (start < this.#sent) {
        break;
      }
      index--;
    }
    return this.#chunks.slice(index);
  }

  #release(received: number): void {
    if (received <= this.#acked) {
      return;
    }
    let newly = received - this.#acked;
    this.#acked = received;
    for (let chunk = this.#chunks[this.#head]; chunk !== undefined; chunk = this.#chunks[this.#head]) {
      const left = chunk.length - this.#front;
      if (newly < left) {
        this.#front += newly;
        break;
      }
      newly -= left;
      this.#front = 0;
      this.#head++;
    }
    if (this.#next <= received) {
      // Acknowledged on another link before it was sent again on this one.
      this.#next = received;
      this.#cursor = this.#head;
      this.#within = this.#front;
    }
    // Forgetting many at once keeps this linear, and half of the list at least is alive.
    if (this.#head * 2 >= this.#chunks.length) {
      this.#chunks.splice(0, this.#head);
      this.#cursor -= this.#head;
      this.#head = 0;
    }
  }
}

/** The receiving half: what is in order, what was granted, and what was said of it. */
export class StreamReceiver {
  #received = 0;
  /** Bytes in whole messages that the application has not taken yet. */
  #waiting = 0;
  #saidLimit = WINDOW;
  #saidReceived = 0;

  get received(): number {
    return this.#received;
  }

  /** Takes note of a STREAM frame; returns the part of `data` that is new. Throws ProtocolError. */
  accept(offset: number, data: Uint8Array): Uint8Array {
    if (offset > this.#received) {
      throw new ProtocolError(
        'PROTOCOL_VIOLATION',
        `stream bytes from ${offset} when ${this.#received} were received: a gap`,
      );
    }
    const end = offset + data.length;
    if (end > this.#saidLimit) {
      throw new ProtocolError(
        'FLOW_CONTROL',
        `stream bytes up to ${end}, beyond the limit of ${this.#saidLimit}`,
      );
    }
    const fresh = data.subarray(Math.min(data.length, this.#received - offset));
    this.#received = Math.max(this.#received, end);
    return fresh;
  }

  /** A message of `cost` bytes waits for the application. */
  queued(cost: number): void {
    this.#waiting += cost;
  }

  /** The application took a message of `cost` bytes. */
  taken(cost: number): void {
    this.#waiting -= cost;
  }

  /** Whether there is anything new to acknowledge. */
  get hasNews(): boolean {
    return this.#received > this.#saidReceived;
  }

  /** Whether an ACK should go now: a quarter of the window was received, or freed, since the last. */
  get isUrgent(): boolean {
    return this.#received - this.#saidReceived >= WINDOW / 4 || this.#limit() - this.#saidLimit >= WINDOW / 4;
  }

  /** `received` and `limit` for an ACK that is being sent. */
  say(): { received: number; limit: number } {
    this.#saidLimit = this.#limit();
    this.#saidReceived = this.#received;
    return { received: this.#received, limit: this.#saidLimit };
  }

  /** It never goes back. */
  #limit(): number {
    return Math.max(this.#saidLimit, this.#received - this.#waiting + WINDOW);
  }
}

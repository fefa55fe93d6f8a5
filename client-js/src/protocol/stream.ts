// The two halves of a stream (SPEC section 4): what was sent and not acknowledged, and what was received.

import { ProtocolError } from './close.js';
import { writeStreamHeader } from './frames.js';
import type { Writer } from './varint.js';

/** Bytes as the application gave them, on stream 0 one whole message, in a linked list: taking from its front costs nothing. */
interface Chunk {
  readonly at: number;
  readonly bytes: Uint8Array;
  next: Chunk | null;
}

/** The sending half. Keeps every byte until it is acknowledged. */
export class StreamSender {
  readonly #stream: number;
  /** The chunks from `#acked` to `#end`. */
  #first: Chunk | null = null;
  #last: Chunk | null = null;
  /** Where `#next` lies. */
  #cursor: Chunk | null = null;
  #acked = 0;
  /** The next byte to send on the current link. */
  #next = 0;
  #end = 0;
  /** The most that was ever sent: what an ACK may speak of. */
  #sent = 0;
  #limit: number;
  /** Nothing at or above this offset is sent. */
  #hold = Infinity;

  constructor(stream: number, limit: number) {
    this.#stream = stream;
    this.#limit = limit;
  }

  /** Bytes that are kept: not sent, or not acknowledged. */
  get buffered(): number {
    return this.#end - this.#acked;
  }

  /** Bytes that the current link was not given yet. */
  get unsent(): number {
    return this.#end - this.#next;
  }

  /** Where the stream ends so far. */
  get end(): number {
    return this.#end;
  }

  /** Whether the peer has received everything, but what is held back. */
  get isAcknowledged(): boolean {
    return this.#acked >= Math.min(this.#end, this.#hold);
  }

  push(bytes: Uint8Array): void {
    const chunk: Chunk = { at: this.#end, bytes, next: null };
    if (this.#last) {
      this.#last.next = chunk;
    }
    this.#last = chunk;
    this.#first ??= chunk;
    this.#cursor ??= chunk;
    this.#end += bytes.length;
  }

  /** Writes one STREAM frame of up to `max` bytes of data; false when there is nothing to send. */
  write(out: Writer, max: number): boolean {
    const length = Math.min(max, this.#limit - this.#next, this.#hold - this.#next, this.unsent);
    if (length <= 0) {
      return false;
    }
    writeStreamHeader(out, this.#stream, this.#next, length);
    const end = this.#next + length;
    while (this.#cursor && this.#next < end) {
      const { at, bytes, next } = this.#cursor;
      const part = bytes.subarray(this.#next - at, end - at);
      out.bytes(part);
      this.#next += part.length;
      if (this.#next === at + bytes.length) {
        this.#cursor = next;
      }
    }
    this.#sent = Math.max(this.#sent, end);
    return true;
  }

  /** Writes a STREAM frame without data. What the peer is known to have received is no gap, also of a half that was given up. */
  announce(out: Writer): void {
    writeStreamHeader(out, this.#stream, this.#acked, 0);
  }

  /** Takes note of an ACK; lower values than known are ignored. Throws ProtocolError. */
  acknowledge(received: number, limit: number): void {
    if (received > this.#sent) {
      throw new ProtocolError('PROTOCOL_VIOLATION', `ACK of ${received}, sent ${this.#sent}`);
    }
    this.#limit = Math.max(this.#limit, limit);
    this.#acked = Math.max(this.#acked, received);
    while (this.#first && this.#first.at + this.#first.bytes.length <= this.#acked) {
      this.#first = this.#first.next;
    }
    if (!this.#first) {
      this.#last = null;
    }
    if (this.#next < this.#acked) {
      // Acknowledged on another link before it was sent again on this one.
      this.#next = this.#acked;
      this.#cursor = this.#first;
    }
  }

  /** A new link: goes on from what is known to be received. */
  restart(): void {
    this.#next = this.#acked;
    this.#cursor = this.#first;
  }

  /** Drops what was not acknowledged: nobody wants it any more. */
  abandon(): void {
    this.#first = this.#last = this.#cursor = null;
    this.#next = this.#end = this.#acked;
  }

  /** Sends the rest of a message that has begun, and nothing after it; with `false`, as before. */
  hold(on: boolean): void {
    this.#hold = on ? this.#sent : Infinity;
    for (let chunk = this.#first; on && chunk && chunk.at < this.#sent; chunk = chunk.next) {
      this.#hold = Math.max(this.#sent, chunk.at + chunk.bytes.length);
    }
  }

  /** The messages of which no byte was ever sent. */
  neverSent(): Uint8Array[] {
    const found: Uint8Array[] = [];
    for (let chunk = this.#first; chunk; chunk = chunk.next) {
      if (chunk.at >= this.#sent) {
        found.push(chunk.bytes);
      }
    }
    return found;
  }
}

/** The receiving half: what is in order, what was granted, and what was said of it. */
export class StreamReceiver {
  /** An ACK is due, whether or not there is anything new. */
  isDue = false;
  #received = 0;
  /** Bytes that wait for the application: on stream 0, those of whole messages. */
  #waiting = 0;
  #reach: number;
  #saidLimit: number;
  #saidReceived = 0;

  constructor(reach: number) {
    this.#reach = reach;
    this.#saidLimit = reach;
  }

  get received(): number {
    return this.#received;
  }

  /** How far the peer may be ahead of the application, in bytes. */
  get reach(): number {
    return this.#reach;
  }

  /** Whether a larger window would help: the application keeps up, and has used a good part of this one. */
  get keepsUp(): boolean {
    return this.#waiting === 0 && this.isUrgent;
  }

  widen(bytes: number): void {
    this.#reach += bytes;
  }

  /** Takes note of a STREAM frame; returns the part of `data` that is new. Throws ProtocolError. */
  accept(offset: number, data: Uint8Array): Uint8Array {
    const end = offset + data.length;
    if (offset > this.#received) {
      throw new ProtocolError('PROTOCOL_VIOLATION', `a gap from ${this.#received} to ${offset}`);
    }
    if (end > this.#saidLimit) {
      throw new ProtocolError('FLOW_CONTROL', `${end} bytes, limit ${this.#saidLimit}`);
    }
    const fresh = data.subarray(Math.min(data.length, this.#received - offset));
    this.#received = Math.max(this.#received, end);
    return fresh;
  }

  /** `cost` bytes wait for the application; negative when they were taken. */
  queued(cost: number): void {
    this.#waiting += cost;
  }

  /** Bytes that are not acknowledged yet. */
  get news(): number {
    return this.#received - this.#saidReceived;
  }

  /** Whether an ACK should go now: a quarter of the window was received, or freed, since the last. */
  get isUrgent(): boolean {
    return Math.max(this.news, this.#limit - this.#saidLimit) >= this.#reach / 4;
  }

  /** `received` and `limit` for an ACK that is being sent. */
  say(): [received: number, limit: number] {
    this.isDue = false;
    this.#saidReceived = this.#received;
    this.#saidLimit = this.#limit;
    return [this.#received, this.#saidLimit];
  }

  /** It never goes back. */
  get #limit(): number {
    return Math.max(this.#saidLimit, this.#received - this.#waiting + this.#reach);
  }
}

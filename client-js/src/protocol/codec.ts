// Frames out of bytes that arrive in pieces of any size.

import { ProtocolError } from './close.js';
import { decodeFrame, type Frame } from './frames.js';
import { MAX_FRAME_PAYLOAD } from './limits.js';
import { readVarint } from './varint.js';

/**
 * An incremental decoder. Its memory is bounded by one frame and one piece, and its time is linear in the
 * input: a frame inside one piece is a view of it, and any other byte is copied a bounded number of times.
 */
export class Decoder {
  /** The newest piece, or our own buffer while a frame lies across pieces. */
  #bytes: Uint8Array = EMPTY;
  #start = 0;
  #end = 0;
  #own = false;
  /** Bytes that the frame at `#start` needs, as far as is known: saves reading its header again for every piece. */
  #needed = 2;

  /** Adds the next bytes of the input. Views in frames returned before are no longer valid. */
  push(piece: Uint8Array): void {
    const left = this.#end - this.#start;
    if (left === 0) {
      this.#bytes = piece;
      this.#start = 0;
      this.#end = piece.length;
      this.#own = false;
      return;
    }
    const total = left + piece.length;
    if (!this.#own || this.#end + piece.length > this.#bytes.length) {
      // At least twice what is there: each byte moves a bounded number of times, also when pieces are single bytes.
      const larger = new Uint8Array(Math.max(total, left * 2, this.#needed));
      larger.set(this.#bytes.subarray(this.#start, this.#end));
      this.#bytes = larger;
      this.#start = 0;
      this.#end = left;
      this.#own = true;
    }
    this.#bytes.set(piece, this.#end);
    this.#end += piece.length;
  }

  /** The next frame, or `null` until more bytes are there. Throws ProtocolError, after which the input is over. */
  next(): Frame | null {
    if (this.#end - this.#start < this.#needed) {
      return null;
    }
    const bytes = this.#bytes.subarray(this.#start, this.#end);
    const kind = readVarint(bytes, 0);
    if (kind === null) {
      return null;
    }
    const length = readVarint(bytes, kind.end);
    if (Number.isNaN(kind.value) || (length !== null && Number.isNaN(length.value))) {
      throw new ProtocolError('MALFORMED_FRAME', 'malformed frame header');
    }
    if (length === null) {
      return null;
    }
    if (length.value > MAX_FRAME_PAYLOAD) {
      throw new ProtocolError('FRAME_TOO_LARGE', `a frame of ${length.value} bytes`);
    }
    const end = length.end + length.value;
    if (bytes.length < end) {
      this.#needed = end;
      return null;
    }
    this.#needed = 2;
    this.#start += end;
    return decodeFrame(kind.value, bytes.subarray(length.end, end));
  }

  /** Whether the input ended at the end of a frame, as a packet must. */
  get isEmpty(): boolean {
    return this.#start === this.#end;
  }
}

/** Calls `each` with every frame of one packet, in order. Throws ProtocolError. */
export function decodePacket(packet: Uint8Array, each: (frame: Frame) => void): void {
  const decoder = new Decoder();
  decoder.push(packet);
  for (let frame = decoder.next(); frame !== null; frame = decoder.next()) {
    each(frame);
  }
  if (!decoder.isEmpty) {
    throw new ProtocolError('MALFORMED_FRAME', 'a packet that ends inside a frame');
  }
}

const EMPTY = new Uint8Array(0);

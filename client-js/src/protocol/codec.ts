// `kind | length | payload`, kind and length as varints: the form of frames, and of the messages in stream 0.

import { ProtocolError } from './close.js';
import { decodeFrame, type Frame } from './frames.js';
import { MAX_FRAME_PAYLOAD } from './limits.js';
import { readVarint } from './varint.js';

/**
 * Makes items out of bytes that arrive in pieces of any size. Its memory is bounded by one item and one piece, and
 * grows with what arrives, not with what a length claims. Its time is linear in the input: an item inside one piece
 * is a view of it, and any other byte is copied a bounded number of times.
 */
export class Splitter<Item> {
  readonly #check: (kind: number, length: number) => void;
  readonly #decode: (kind: number, payload: Uint8Array, size: number) => Item;
  /** The newest piece, or our own buffer while an item lies across pieces. */
  #bytes: Uint8Array = new Uint8Array(0);
  #start = 0;
  #end = 0;
  #own = false;
  /** Bytes that the item at `#start` needs, as far as is known: saves reading its header again for every piece. */
  #needed = 1;

  /**
   * `check` sees a header as early as possible: the length is 0 while it is not there, and NaN stands for values
   * above 2^53 − 1. `decode` gets a payload that is valid during the call, and the size of the whole item. Both may throw.
   */
  constructor(
    check: (kind: number, length: number) => void,
    decode: (kind: number, payload: Uint8Array, size: number) => Item,
  ) {
    this.#check = check;
    this.#decode = decode;
  }

  /** Adds the next bytes, and calls `each` with every item that is whole now. After an error the input is over. */
  push(piece: Uint8Array, each: (item: Item) => void): void {
    const left = this.#end - this.#start;
    if (left === 0) {
      this.#bytes = piece;
      this.#start = 0;
      this.#end = piece.length;
      this.#own = false;
    } else {
      if (!this.#own || this.#end + piece.length > this.#bytes.length) {
        // Twice of what is there: each byte moves a bounded number of times, also when pieces are single bytes.
        const larger = new Uint8Array(2 * (left + piece.length));
        larger.set(this.#bytes.subarray(this.#start, this.#end));
        this.#bytes = larger;
        this.#start = 0;
        this.#end = left;
        this.#own = true;
      }
      this.#bytes.set(piece, this.#end);
      this.#end += piece.length;
    }
    while (this.#end - this.#start >= this.#needed) {
      const bytes = this.#bytes.subarray(this.#start, this.#end);
      const kind = readVarint(bytes, 0);
      const length = kind && readVarint(bytes, kind.end);
      if (kind) {
        this.#check(kind.value, length?.value ?? 0);
      }
      if (!length) {
        return;
      }
      const size = length.end + length.value;
      this.#needed = size;
      if (bytes.length < size) {
        return;
      }
      this.#needed = 1;
      this.#start += size;
      each(this.#decode(kind.value, bytes.subarray(length.end, size), size));
    }
  }

  /** Whether the input ended at the end of an item, as a packet must. */
  get isEmpty(): boolean {
    return this.#start === this.#end;
  }
}

/** A decoder of frames. Throws ProtocolError. */
export function frameDecoder(): Splitter<Frame> {
  return new Splitter((kind, length) => {
    if (!(kind + length >= 0)) {
      throw new ProtocolError('MALFORMED_FRAME', 'malformed frame');
    }
    if (length > MAX_FRAME_PAYLOAD) {
      throw new ProtocolError('FRAME_TOO_LARGE', `a frame of ${length} bytes`);
    }
  }, decodeFrame);
}

/** Calls `each` with every frame of one packet, in order. Throws ProtocolError. */
export function decodePacket(packet: Uint8Array, each: (frame: Frame) => void): void {
  const decoder = frameDecoder();
  decoder.push(packet, each);
  if (!decoder.isEmpty) {
    throw new ProtocolError('MALFORMED_FRAME', 'a packet that ends inside a frame');
  }
}

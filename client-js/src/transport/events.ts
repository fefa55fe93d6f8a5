// An incremental parser of `text/event-stream`: bytes in pieces of any size, the `data:` lines of each event out.

import { ProtocolError } from '../protocol/close.js';

/**
 * Linear in its input: every piece is searched for line ends once, and a line that lies across many pieces is
 * put together once.
 */
export class EventParser {
  // Not fatal: what is not UTF-8 is not base64 either, and comments do not matter.
  readonly #decoder = new TextDecoder();
  readonly #event: (data: string[]) => unknown;
  readonly #maxLength: number;
  /** The pieces of the line that has no end yet. */
  #pieces: string[] = [];
  /** Characters since the last event. */
  #length = 0;
  /** The last piece ended with CR: a LF that follows belongs to it. */
  #afterCr = false;
  #data: string[] = [];

  /** `event` gets the values of an event's `data:` lines. `maxLength` bounds what comes between two events, in characters. */
  constructor(maxLength: number, event: (data: string[]) => unknown) {
    this.#maxLength = maxLength;
    this.#event = event;
  }

  /** Adds the next bytes. Throws ProtocolError. */
  push(bytes: Uint8Array): void {
    let text = this.#decoder.decode(bytes, { stream: true });
    if (text === '') {
      return;
    }
    if (this.#afterCr && text.startsWith('\n')) {
      text = text.slice(1);
    }
    this.#afterCr = text.endsWith('\r');
    const [first = '', ...others] = text.split(/\r\n|[\r\n]/);
    this.#keep(first);
    for (const start of others) {
      const line = this.#pieces.join('');
      this.#pieces = [];
      this.#line(line);
      this.#keep(start);
    }
  }

  #keep(piece: string): void {
    this.#pieces.push(piece);
    this.#length += piece.length;
    if (this.#length > this.#maxLength) {
      throw new ProtocolError('FRAME_TOO_LARGE', `an event of more than ${this.#maxLength} characters`);
    }
  }

  #line(line: string): void {
    if (line.startsWith('data:')) {
      this.#data.push(line.slice(5).trimStart());
    } else if (line === '') {
      const data = this.#data;
      this.#data = [];
      this.#length = 0;
      if (data.length > 0) {
        this.#event(data);
      }
    }
  }
}

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
  readonly #maxLine: number;
  /** The pieces of the line that has no end yet, and their length. */
  #pieces: string[] = [];
  #length = 0;
  /** The last piece ended with CR: a LF that follows belongs to it. */
  #afterCr = false;
  #data: string[] = [];
  #dataLength = 0;

  /** `event` gets the values of an event's `data:` lines. `maxLine` bounds a line, and the data of an event, in characters. */
  constructor(maxLine: number, event: (data: string[]) => unknown) {
    this.#maxLine = maxLine;
    this.#event = event;
  }

  /** Adds the next bytes. Throws ProtocolError. */
  push(bytes: Uint8Array): void {
    const text = this.#decoder.decode(bytes, { stream: true });
    let start = 0;
    if (this.#afterCr && text !== '') {
      this.#afterCr = false;
      start = text.startsWith('\n') ? 1 : 0;
    }
    LINE_END.lastIndex = start;
    for (let end = LINE_END.exec(text); end !== null; end = LINE_END.exec(text)) {
      this.#keep(text.slice(start, end.index));
      start = LINE_END.lastIndex;
      this.#afterCr = end[0] === '\r' && start === text.length;
      const line = this.#pieces.join('');
      this.#pieces = [];
      this.#length = 0;
      this.#line(line);
      LINE_END.lastIndex = start; // whoever got the event may have parsed something himself
    }
    this.#keep(text.slice(start));
  }

  #keep(piece: string): void {
    if (piece !== '') {
      this.#pieces.push(piece);
      this.#length = bounded(this.#length + piece.length, this.#maxLine);
    }
  }

  #line(line: string): void {
    if (line === '') {
      const data = this.#data;
      this.#data = [];
      this.#dataLength = 0;
      if (data.length > 0) {
        this.#event(data);
      }
    } else if (line.startsWith('data:')) {
      const value = line.slice(line.startsWith('data: ') ? 6 : 5);
      this.#dataLength = bounded(this.#dataLength + value.length, this.#maxLine);
      this.#data.push(value);
    }
  }
}

const LINE_END = /\r\n|\n|\r/g;

function bounded(length: number, max: number): number {
  if (length > max) {
    throw new ProtocolError('FRAME_TOO_LARGE', `an event of more than ${max} characters`);
  }
  return length;
}

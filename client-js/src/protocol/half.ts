// The two halves of a stream above 0, and how each of them ends (SPEC section 4.2).

import { ProtocolError } from './close.js';
import { END, RESET, STOP, writeFields } from './frames.js';
import { STREAM_CREDIT } from './limits.js';
import { StreamReceiver, StreamSender } from './stream.js';
import { Writer } from './varint.js';

/** Why nothing can be read from a stream, or written to it, any more. */
export class StreamError extends Error {
  /** `reset`: the peer gave its half up. `stopped`: it reads no more. `ended`: this side has ended that half itself. */
  readonly kind: 'reset' | 'stopped' | 'ended';
  /** The application's code of a reset or a stop. */
  readonly code: number;

  constructor(kind: StreamError['kind'], code = 0) {
    super(kind);
    this.kind = kind;
    this.code = code;
  }
}

/** What reading gave: bytes, or nothing now, or the end. */
export type StreamRead = Uint8Array<ArrayBuffer> | 'nothing' | 'end';

/** The half that this side writes. */
export class SendingHalf {
  readonly sender: StreamSender;
  readonly #stream: number;
  #phase: 'open' | 'ending' | 'reset' | 'over' = 'open';
  #code = 0;
  /** Whether END or RESET was said on this link, and on any. */
  #said = false;
  #ended = false;
  /** The peer has stopped it with this code, and the application may not know. */
  #stopped: number | undefined;
  #isReleased = false;

  constructor(stream: number) {
    this.#stream = stream;
    this.sender = new StreamSender(stream, STREAM_CREDIT);
  }

  linkOpened(): void {
    this.sender.restart();
    this.#said = false;
  }

  /** Throws StreamError when the application may not write, or end. */
  check(): void {
    if (this.#stopped !== undefined) {
      throw new StreamError('stopped', this.#stopped);
    }
    if (this.#phase !== 'open') {
      throw new StreamError('ended');
    }
  }

  /** END follows the last byte. */
  finish(): void {
    this.#phase = 'ending';
  }

  /** Gives up what the peer does not have; one that is finished goes on by itself. */
  reset(code: number): void {
    if (this.#phase === 'open') {
      this.sender.abandon();
      this.#phase = 'reset';
      this.#code = code;
    }
  }

  /** STOP arrived. */
  stop(code: number): void {
    if (this.#phase === 'open' || (this.#phase === 'ending' && !this.#ended)) {
      this.#phase = 'open';
      this.reset(code);
      this.#stopped = this.#isReleased ? undefined : code;
    }
  }

  /** The application knows how it ended, or does not want to. */
  told(): void {
    this.#isReleased = true;
    this.#stopped = undefined;
  }

  /** The peer confirms the end, or the reset. Throws ProtocolError. */
  done(): void {
    if (!this.#ended) {
      throw new ProtocolError('PROTOCOL_VIOLATION', `stream ${this.#stream} was not ended, and is done`);
    }
    this.sender.abandon();
    this.#phase = 'over';
  }

  get isOver(): boolean {
    return this.#phase === 'over' && this.#stopped === undefined;
  }

  get isEnding(): boolean {
    return this.#phase === 'ending';
  }

  get isReset(): boolean {
    return this.#phase === 'reset';
  }

  /** Whether STREAM or END may still follow on this link. */
  get goesOn(): boolean {
    return this.#phase === 'open' || (this.#phase === 'ending' && !this.#said);
  }

  /** Whether bytes, or END after them, have not left on this link. */
  get isWaiting(): boolean {
    return this.sender.unsent > 0 || (this.#phase === 'ending' && !this.#said);
  }

  /** Writes END when it is due. */
  writeEnd(out: Writer): boolean {
    const isDue = this.#phase === 'ending' && !this.#said && !this.sender.unsent;
    if (isDue) {
      this.#said = this.#ended = true;
      writeFields(out, END, this.#stream, this.sender.end);
    }
    return isDue;
  }

  /** Writes RESET when it is due. */
  writeReset(out: Writer): void {
    if (this.#phase === 'reset' && !this.#said) {
      this.#said = this.#ended = true;
      writeFields(out, RESET, this.#stream, this.#code);
    }
  }
}

/** The half that the server writes. */
export class ReceivingHalf {
  readonly receiver = new StreamReceiver(STREAM_CREDIT);
  /** END or RESET has come, and is to be confirmed. */
  isDoneDue = false;
  readonly #stream: number;
  #phase: 'open' | 'ended' | 'reset' | 'stopped' | 'over' = 'open';
  #code = 0;
  /** Whether STOP was said on this link. */
  #said = false;
  /** What the application has not read: one piece, so that tiny frames cost no more than their bytes. */
  #unread = new Writer(0);

  constructor(stream: number) {
    this.#stream = stream;
  }

  linkOpened(): void {
    this.#said = false;
    this.receiver.isDue = this.wantsAck;
  }

  /** Whether the peer still counts on ACKs. */
  get wantsAck(): boolean {
    return this.#phase === 'open' || this.#phase === 'stopped';
  }

  /** STREAM arrived. Throws ProtocolError. */
  data(offset: number, data: Uint8Array): void {
    if (this.#phase === 'reset' || this.#phase === 'over') {
      return;
    }
    if (this.#phase === 'ended' && offset + data.length > this.receiver.received) {
      throw new ProtocolError('PROTOCOL_VIOLATION', `bytes after the end of stream ${this.#stream}`);
    }
    const fresh = this.receiver.accept(offset, data);
    // Dropped bytes wait, too, and for ever: no credit comes of them.
    this.receiver.queued(fresh.length);
    if (this.#phase === 'open') {
      this.#unread.bytes(fresh);
    }
  }

  /** END arrived. Throws ProtocolError. */
  end(size: number): void {
    const { received } = this.receiver;
    if ((this.wantsAck || this.#phase === 'ended') && size !== received) {
      throw new ProtocolError('PROTOCOL_VIOLATION', `END at ${size}, received ${received}`);
    }
    this.#over('ended');
  }

  /** RESET arrived. After END everything is there already. */
  reset(code: number): void {
    if (this.#phase === 'open') {
      this.#unread = new Writer(0);
      this.#code = code;
    }
    this.#over('reset');
  }

  /** Throws StreamError. */
  read(): StreamRead {
    const { length } = this.#unread;
    if (length) {
      const bytes = this.#unread.finish();
      this.#unread = new Writer(0);
      this.receiver.queued(-length);
      return bytes;
    }
    const phase = this.#phase;
    if (phase === 'open') {
      return 'nothing';
    }
    if (!this.wantsAck) {
      this.#phase = 'over';
    }
    if (phase === 'ended') {
      return 'end';
    }
    throw new StreamError(phase === 'reset' ? 'reset' : 'ended', this.#code);
  }

  /** The application reads no more. */
  stop(code: number): void {
    this.#unread = new Writer(0);
    if (this.#phase === 'open') {
      this.#phase = 'stopped';
      this.#code = code;
    } else if (this.#phase !== 'stopped') {
      this.#phase = 'over';
    }
  }

  get isOver(): boolean {
    return this.#phase === 'over' && !this.isDoneDue;
  }

  /** Writes STOP when it is due. */
  writeStop(out: Writer): void {
    if (this.#phase === 'stopped' && !this.#said) {
      this.#said = true;
      writeFields(out, STOP, this.#stream, this.#code);
    }
  }

  #over(phase: 'ended' | 'reset'): void {
    this.isDoneDue = true;
    if (this.wantsAck) {
      this.#phase = this.#phase === 'open' ? phase : 'over';
    }
  }
}

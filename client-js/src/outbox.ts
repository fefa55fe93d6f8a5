// What an application sends: what is checked before the machine gets it, and who waits until it is acknowledged.

import { type ErrorCode, ThroughlineError } from './errors.js';
import { MAX_BUFFERED_BYTES } from './limits.js';
import type { DatagramKey } from './protocol/datagrams.js';
import { MAX_DATAGRAM } from './protocol/limits.js';
import type { Machine } from './protocol/machine.js';

/** What an application can send. Bytes are copied. */
export type Data = string | ArrayBuffer | ArrayBufferView;

export class Outbox {
  readonly #machine: Machine;
  readonly #maxBufferedBytes: number;
  readonly #closed: (method: string) => ThroughlineError | undefined;
  #ended: Error | undefined;
  #waiters: { below: number; resolve: () => void; reject: (error: Error) => void }[] = [];

  /** `closed`: why `method` cannot be called any more. */
  constructor(
    machine: Machine,
    maxBufferedBytes = MAX_BUFFERED_BYTES,
    closed: (method: string) => ThroughlineError | undefined,
  ) {
    this.#machine = machine;
    this.#maxBufferedBytes = maxBufferedBytes;
    this.#closed = closed;
  }

  /** Takes a message; throws as `Session.send` says. */
  message(data: Data): void {
    this.#machine.send(typeof data === 'string', this.content('send', data));
  }

  /** The bytes of a message, a publication or a request, when there is room for it. Throws as `Session.send` says. */
  content(method: string, data: Data): Uint8Array {
    const { bufferedBytes } = this.#machine;
    const body = this.part(method, data);
    if (bufferedBytes >= this.#maxBufferedBytes) {
      throw new ThroughlineError(
        'BUFFER_FULL',
        `${method}: ${bufferedBytes} of ${this.#maxBufferedBytes} bytes wait already: await drained()`,
      );
    }
    return body;
  }

  /** The same, however much waits. */
  part(method: string, data: Data): Uint8Array {
    const bytes = typeof data === 'string' ? new TextEncoder().encode(data) : data;
    return this.#check(method, bytes, this.#machine.maxMessage);
  }

  /** Takes a datagram; throws as `Session.sendDatagram` says. */
  datagram(data: ArrayBuffer | ArrayBufferView, key: DatagramKey | undefined): void {
    this.#machine.sendDatagram(this.#check('sendDatagram', data, MAX_DATAGRAM).slice(), key);
  }

  drained(toBytes: number): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiters.push({ below: toBytes, resolve, reject });
      this.look();
    });
  }

  /** The session has ended: nothing will be acknowledged any more. */
  end(error: Error): void {
    this.#ended = error;
    this.look();
  }

  /** Something may have been acknowledged. */
  look(): void {
    this.#waiters = this.#waiters.filter(({ below, resolve, reject }) => {
      if (this.#machine.bufferedBytes <= below) {
        resolve();
      } else if (this.#ended) {
        reject(this.#ended);
      } else {
        return true;
      }
      return false;
    });
  }

  /** The bytes of what the application gives. Throws when they are none, too many, or too late. */
  #check(method: string, data: unknown, max: number): Uint8Array {
    const isMessage = method !== 'sendDatagram';
    let bytes: Uint8Array;
    if (ArrayBuffer.isView(data)) {
      bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    } else if (data instanceof ArrayBuffer) {
      bytes = new Uint8Array(data);
    } else {
      throw new TypeError(`${method} takes ${isMessage ? 'a string or ' : ''}bytes, not ${typeof data}`);
    }
    const closed = this.#closed(method);
    if (closed) {
      throw closed;
    }
    if (bytes.length > max) {
      const code: ErrorCode = isMessage ? 'MESSAGE_TOO_LARGE' : 'DATAGRAM_TOO_LARGE';
      throw new ThroughlineError(
        code,
        `${method}: ${bytes.length} bytes; at most ${max} go at once: send parts`,
      );
    }
    return bytes;
  }
}

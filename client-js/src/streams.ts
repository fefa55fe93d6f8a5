// The streams of a session as the browser knows them: WHATWG streams, over those of the machine.

import { ThroughlineError } from './errors.js';
import { StreamError } from './protocol/half.js';
import type { Machine } from './protocol/machine.js';

type Bytes = Uint8Array<ArrayBuffer>;

/**
 * An ordered, reliable stream of bytes inside a session, which goes both ways. It survives every move. It fails
 * when the session ends, and when a new one takes its place (`gap`).
 */
export interface SessionStream {
  /** Odd for those that the client opened, even for the server's. */
  readonly id: number;
  /**
   * What the server writes: a byte stream, where the browser has those. Nothing is read ahead, so who does not
   * read holds up the server. `cancel(code)` tells the server that nobody reads any more.
   */
  readonly readable: ReadableStream<Bytes>;
  /**
   * What the server reads. A write, and `ready`, waits for room. `close()` ends the stream after what was written;
   * `abort(code)` gives up what the server does not have yet. Codes are the application's own, from 0 to 2^32 − 1;
   * anything else is 0.
   */
  readonly writable: WritableStream<ArrayBuffer | ArrayBufferView>;
}

/** One half of a stream. */
interface Half {
  /** Something happened on this stream. */
  look(): void;
  fail(error: Error): void;
}

/** All streams of one session. */
export class Streams {
  readonly #machine: Machine;
  readonly #wake: () => void;
  /** The halves that are not over, by stream. */
  readonly #halves = new Map<number, Set<Half>>();
  /** Who waits to open one, in order. */
  #openers: { resolve: (stream: SessionStream) => void; reject: (error: Error) => void }[] = [];

  /** `wake`: the machine may have something to send. */
  constructor(machine: Machine, wake: () => void) {
    this.#machine = machine;
    this.#wake = wake;
  }

  /** Opens a stream, as soon as the session is open and the server allows another. */
  open(): Promise<SessionStream> {
    return new Promise((resolve, reject) => {
      this.#openers.push({ resolve, reject });
      this.#open();
    });
  }

  /** The application's side of a stream that there is. */
  take(id: number): SessionStream {
    const halves = new Set<Half>();
    this.#halves.set(id, halves);
    const over = (half: Half) => {
      halves.delete(half);
      if (halves.size === 0) {
        this.#halves.delete(id);
        // Until then the machine keeps what the application may not know: that the server has stopped it.
        this.#machine.streams.release(id);
      }
    };
    const reader = new Reader(this.#machine, id, this.#wake, over);
    const writer = new Writer(this.#machine, id, this.#wake, over);
    halves.add(reader).add(writer);
    return { id, readable: reader.stream, writable: writer.stream };
  }

  /** Lets readers and writers look where something happened. */
  look(): void {
    for (const id of this.#machine.streams.touched()) {
      for (const half of this.#halves.get(id) ?? []) {
        half.look();
      }
    }
    this.#open();
  }

  /** The streams that there are have come to their end. */
  fail(error: Error): void {
    for (const halves of [...this.#halves.values()]) {
      for (const half of halves) {
        half.fail(error);
      }
    }
    this.#halves.clear();
  }

  /** The session has ended: nobody opens streams any more. */
  end(error: Error): void {
    this.fail(error);
    for (const { reject } of this.#openers.splice(0)) {
      reject(error);
    }
  }

  #open(): void {
    while (this.#openers.length > 0) {
      const id = this.#machine.streams.open();
      if (id === null) {
        return;
      }
      this.#openers.shift()?.resolve(this.take(id));
      this.#wake();
    }
  }
}

class Reader implements Half {
  readonly stream: ReadableStream<Bytes>;
  readonly #machine: Machine;
  readonly #id: number;
  readonly #wake: () => void;
  readonly #over: (half: Half) => void;
  #controller: ReadableByteStreamController | undefined;
  #pulled: (() => void) | undefined;

  constructor(machine: Machine, id: number, wake: () => void, over: (half: Half) => void) {
    this.#machine = machine;
    this.#id = id;
    this.#wake = wake;
    this.#over = over;
    const source = {
      start: (controller: ReadableByteStreamController) => {
        this.#controller = controller;
      },
      // Asked only while somebody reads: nothing is read ahead. It is not asked again before it has resolved.
      pull: () =>
        new Promise<void>((resolve) => {
          this.#pulled = resolve;
          this.look();
        }),
      cancel: (reason: unknown) => {
        this.#machine.streams.stop(this.#id, codeOf(reason));
        this.#end();
      },
    };
    const strategy = { highWaterMark: 0 };
    try {
      this.stream = new ReadableStream({ ...source, type: 'bytes' }, strategy);
    } catch {
      // Safari before 26 has no byte streams. The two controllers share what is used here.
      this.stream = new ReadableStream(source as unknown as UnderlyingDefaultSource<Bytes>, strategy);
    }
  }

  look(): void {
    if (!this.#pulled) {
      return;
    }
    try {
      const got = this.#machine.streams.read(this.#id);
      if (got === 'nothing') {
        return;
      }
      if (got === 'end') {
        this.#controller?.close();
        this.#controller?.byobRequest?.respond(0);
        this.#end();
      } else {
        this.#controller?.enqueue(got);
        this.#resolve();
        this.#wake(); // there may be credit to give
      }
    } catch (error) {
      this.fail(said(error));
    }
  }

  fail(error: Error): void {
    this.#controller?.error(error);
    this.#end();
  }

  #end(): void {
    this.#over(this);
    this.#resolve();
    this.#wake();
  }

  #resolve(): void {
    const resolve = this.#pulled;
    this.#pulled = undefined;
    resolve?.();
  }
}

class Writer implements Half {
  readonly stream: WritableStream<ArrayBuffer | ArrayBufferView>;
  readonly #machine: Machine;
  readonly #id: number;
  readonly #wake: () => void;
  readonly #over: (half: Half) => void;
  #controller: WritableStreamDefaultController | undefined;
  /** What is being written. */
  #rest: Uint8Array | undefined;
  #written: { resolve: () => void; reject: (error: Error) => void } | undefined;

  constructor(machine: Machine, id: number, wake: () => void, over: (half: Half) => void) {
    this.#machine = machine;
    this.#id = id;
    this.#wake = wake;
    this.#over = over;
    this.stream = new WritableStream({
      start: (controller) => {
        this.#controller = controller;
        // `abort` of the stream waits for the write that is under way, which may wait for the server.
        controller.signal?.addEventListener('abort', () => this.#reset(controller.signal.reason));
      },
      write: (chunk) => {
        this.#rest = ArrayBuffer.isView(chunk)
          ? new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.byteLength)
          : new Uint8Array(chunk);
        return new Promise<void>((resolve, reject) => {
          this.#written = { resolve, reject };
          this.look();
        });
      },
      close: () => {
        try {
          this.#machine.streams.finish(this.#id);
        } catch (error) {
          throw said(error);
        } finally {
          this.#end();
        }
      },
      abort: (reason) => this.#reset(reason),
    });
  }

  look(): void {
    const { streams } = this.#machine;
    try {
      // With no bytes it only looks whether the server has stopped it.
      const taken = streams.write(this.#id, this.#rest ?? new Uint8Array(0));
      this.#rest = this.#rest?.subarray(taken);
      if (taken > 0) {
        this.#wake();
      }
      if (this.#rest?.length === 0) {
        this.#rest = undefined;
        this.#written?.resolve();
      }
    } catch (error) {
      this.fail(said(error));
    }
  }

  fail(error: Error): void {
    this.#written?.reject(error);
    this.#controller?.error(error);
    this.#end();
  }

  #reset(reason: unknown): void {
    this.#machine.streams.reset(this.#id, codeOf(reason));
    this.#written?.reject(said(reason));
    this.#end();
  }

  #end(): void {
    this.#over(this);
    this.#rest = undefined;
    this.#wake();
  }
}

/** The application's code in what it gave to `cancel` or `abort`. */
function codeOf(reason: unknown): number {
  return Number(reason) >>> 0 === reason ? reason : 0;
}

/** What the application gets to see of an end that the server chose. */
function said(error: unknown): Error {
  if (!(error instanceof StreamError)) {
    return error instanceof Error ? error : new Error(String(error));
  }
  const { kind, code } = error;
  return kind === 'stopped'
    ? new ThroughlineError('STREAM_STOPPED', `the server reads no more: code ${code}`, undefined, code)
    : new ThroughlineError('STREAM_RESET', `the stream was given up: code ${code}`, undefined, code);
}

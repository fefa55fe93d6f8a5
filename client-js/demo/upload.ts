import type { Session } from './connection.js';

export const UPLOAD_BYTES = 8_000_000;
/** Bytes written at once. */
const PIECE_BYTES = 40_000;
/** Over loopback it would be done before anybody could cut a link: 1 MB/s leaves 8 s. */
const PIECE_EVERY_MS = 40;
/** After a pause it makes up for this much of it at full speed, ms. */
const CATCH_UP_MS = 2_000;
/** Span over which the rate is counted, ms. */
const RATE_WINDOW_MS = 1_500;

export type UploadState = 'sending' | 'done' | 'different' | 'failed';

/** One line of the server's answer; server/src/demo/upload.rs is the description. */
interface Report {
  received?: number;
  sha256?: string;
  error?: string;
}

/** Bytes made up here, sent over a stream of the session, and hashed at both ends. */
export class Upload {
  state: UploadState = 'sending';
  /** Bytes that the server has. */
  received = 0;
  /** Hex, by the server. */
  sha256 = '';
  /** Hex, by this page; empty until known, and where the browser does not compute any. */
  ownSha256 = '';
  error = '';
  /** How long it took, ms, once it is over. */
  tookMs = Number.NaN;
  readonly #session: Session;
  readonly #linksBefore: number;
  #links = 1;
  #startedAt = performance.now();
  #progress: Array<{ at: number; received: number }> = [];
  #cancel = new AbortController();

  constructor(session: Session) {
    this.#session = session;
    this.#linksBefore = Math.max(0, session.stats().links - 1);
    this.#run(session).then(
      () => this.#end(this.ownSha256 && this.ownSha256 !== this.sha256 ? 'different' : 'done'),
      (error: unknown) => {
        this.error = error instanceof Error ? error.message : String(error);
        this.#end('failed');
      },
    );
  }

  /** Links that have carried it. */
  get links(): number {
    if (this.state === 'sending') this.#links = Math.max(1, this.#session.stats().links - this.#linksBefore);
    return this.#links;
  }

  /** Gives it up, if it still goes on. */
  cancel(): void {
    this.#cancel.abort(new Error('you gave it up'));
  }

  bytesPerSecond(now: number): number {
    if (this.state !== 'sending') return (this.received * 1_000) / this.tookMs;
    const first = this.#progress.find(({ at }) => at > now - RATE_WINDOW_MS);
    return first ? ((this.received - first.received) * 1_000) / Math.max(200, now - first.at) : 0;
  }

  async #run(session: Session): Promise<void> {
    const { signal } = this.#cancel;
    const bytes = madeUp(UPLOAD_BYTES);
    const hash = sha256(bytes);
    const { readable, writable } = await session.openStream();
    const writer = writable.getWriter();
    const reader = readable.getReader();
    signal.addEventListener('abort', () => {
      writer.abort(signal.reason).catch(() => undefined);
      reader.cancel(signal.reason).catch(() => undefined);
    });
    const answer = this.#listen(reader);
    // Whichever fails first says why.
    await Promise.all([send(writer, bytes), answer]);
    signal.throwIfAborted();
    this.ownSha256 = await hash;
  }

  /** Reads what the server reports, to the end. */
  async #listen(reader: ReadableStreamDefaultReader<Uint8Array>): Promise<void> {
    const decoder = new TextDecoder();
    let text = '';
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      text += decoder.decode(value, { stream: true });
      const lines = text.split('\n');
      text = lines.pop() ?? '';
      for (const line of lines) this.#take(JSON.parse(line) as Report);
    }
    if (!this.sha256) throw new Error('the server did not say what it got');
  }

  #take({ received, sha256, error }: Report): void {
    if (error) throw new Error(error);
    this.received = received ?? this.received;
    this.sha256 = sha256 ?? '';
    this.#progress.push({ at: performance.now(), received: this.received });
  }

  #end(state: UploadState): void {
    void this.links; // the last look
    this.tookMs = performance.now() - this.#startedAt;
    this.state = state;
    this.#cancel.abort();
  }
}

async function send(writer: WritableStreamDefaultWriter<Uint8Array>, bytes: Uint8Array): Promise<void> {
  let due = performance.now();
  for (let at = 0; at < bytes.length; at += PIECE_BYTES) {
    await writer.write(bytes.subarray(at, at + PIECE_BYTES));
    const now = performance.now();
    due = Math.max(due + PIECE_EVERY_MS, now - CATCH_UP_MS);
    if (due > now) await new Promise((resolve) => setTimeout(resolve, due - now));
  }
  await writer.close();
}

/** Other bytes each time, so that no two uploads have the same hash. */
function madeUp(length: number): Uint8Array<ArrayBuffer> {
  const words = new Uint32Array(length / 4);
  let state = (Math.random() * 0xffff_ffff) | 1;
  for (let n = 0; n < words.length; n++) {
    // xorshift32, by Marsaglia
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    words[n] = state;
  }
  return new Uint8Array(words.buffer);
}

/** Hex; empty where the browser computes none: over plain HTTP from another machine. */
async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  if (!globalThis.crypto?.subtle) return '';
  const hash = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
  return Array.from(hash, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

// The way up of sse and poll: `POST {base}/send`, one at a time, so that packets arrive in order (SPEC section 7.5).

import type { Environment } from '../environment.js';
import { messageOf } from '../errors.js';
import { POST_BYTES, POST_MS, POST_RETRY_MS } from '../limits.js';
import { lossOfResponse } from './carrier.js';
import type { LinkHandlers, Loss } from './link.js';

/** Sends packets of one link. It holds one packet at most: while it is under way, the session keeps the rest. */
export class Uplink {
  readonly #env: Environment;
  readonly #url: string;
  readonly #headers: Record<string, string>;
  readonly #handlers: LinkHandlers;
  readonly #abort = new AbortController();
  /** What is under way. */
  #sending: Promise<void> | null = null;

  constructor(env: Environment, base: string, headers: Record<string, string>, handlers: LinkHandlers) {
    this.#env = env;
    this.#url = `${base}/send`;
    this.#headers = headers;
    this.#handlers = handlers;
  }

  room(): number {
    return this.#sending ? 0 : POST_BYTES;
  }

  send(packet: Uint8Array<ArrayBuffer>): void {
    this.#sending = this.#deliver(packet);
  }

  /** Resolves when nothing is under way any more. */
  async flushed(): Promise<void> {
    await this.#sending;
  }

  /** The last packet of a page that is going away: the browser sends it even afterwards. */
  leave(packet: Uint8Array<ArrayBuffer>): void {
    this.abort();
    void this.#post(packet, { keepalive: true });
  }

  abort(): void {
    this.#abort.abort();
  }

  async #deliver(packet: Uint8Array<ArrayBuffer>): Promise<void> {
    let loss = await this.#try(packet);
    // No answer, or a proxy's. The server drops what it has had already, so the same bytes may go out again.
    if (loss && !loss.close && (loss.status ?? 500) >= 500) {
      await new Promise<void>((resolve) => this.#env.timer(POST_RETRY_MS, resolve));
      loss = await this.#try(packet);
    }
    this.#sending = null;
    if (!this.#abort.signal.aborted) {
      if (loss) {
        this.#handlers.lost({ ...loss, reason: `POST: ${loss.reason}` });
      } else {
        this.#handlers.heard(0);
        this.#handlers.writable();
      }
    }
  }

  /** One POST, with an end: hung requests would use up the browser's connections. */
  async #try(packet: Uint8Array<ArrayBuffer>): Promise<Loss | null> {
    const { signal } = this.#abort;
    if (signal.aborted) {
      return null;
    }
    const attempt = new AbortController();
    const stop = () => attempt.abort();
    const cancel = this.#env.timer(POST_MS, stop);
    signal.addEventListener('abort', stop);
    const loss = await this.#post(packet, { signal: attempt.signal });
    signal.removeEventListener('abort', stop);
    cancel();
    return loss;
  }

  async #post(body: Uint8Array<ArrayBuffer>, init: RequestInit): Promise<Loss | null> {
    try {
      const response = await this.#env.fetch(this.#url, {
        method: 'POST',
        body,
        headers: { ...this.#headers, 'Content-Type': 'application/octet-stream' },
        cache: 'no-store',
        ...init,
      });
      if (!response.ok) {
        return await lossOfResponse(response);
      }
      await response.arrayBuffer(); // an unread body keeps the connection busy
      return null;
    } catch (error) {
      return { reason: messageOf(error) };
    }
  }
}

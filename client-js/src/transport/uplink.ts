// The way up of sse and poll: `POST {base}/send`, one at a time, so that packets arrive in order (SPEC section 7.5).

import type { Cancel, Environment } from '../environment.js';
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
  #busy = false;
  #cancelRetry: Cancel | null = null;
  #idle: (() => void) | null = null;

  constructor(env: Environment, base: string, headers: Record<string, string>, handlers: LinkHandlers) {
    this.#env = env;
    this.#url = `${base}/send`;
    this.#headers = headers;
    this.#handlers = handlers;
  }

  room(): number {
    return this.#busy || this.#abort.signal.aborted ? 0 : POST_BYTES;
  }

  send(packet: Uint8Array<ArrayBuffer>): void {
    this.#busy = true;
    void this.#deliver(packet);
  }

  /** Resolves when nothing is under way any more. */
  flushed(): Promise<void> {
    return new Promise((resolve) => {
      if (this.#busy && !this.#abort.signal.aborted) {
        this.#idle = resolve;
      } else {
        resolve();
      }
    });
  }

  /** The last packet of a page that is going away: the browser sends it even afterwards. */
  leave(packet: Uint8Array<ArrayBuffer>): void {
    this.abort();
    void this.#fetch(packet, { keepalive: true }).catch(() => {});
  }

  abort(): void {
    this.#abort.abort();
    this.#cancelRetry?.();
    this.#idle?.();
  }

  async #deliver(packet: Uint8Array<ArrayBuffer>): Promise<void> {
    let loss = await this.#post(packet);
    // No answer, or a proxy's. The server drops what it has had, so the same bytes may go out again.
    if (loss !== null && (loss.status ?? 500) >= 500 && loss.close === undefined && !this.#aborted) {
      await new Promise<void>((resolve) => {
        this.#cancelRetry = this.#env.timer(POST_RETRY_MS, resolve);
      });
      loss = this.#aborted ? loss : await this.#post(packet);
    }
    if (this.#aborted) {
      return;
    }
    this.#busy = false;
    if (loss === null) {
      this.#handlers.heard(0);
      this.#idle?.();
      this.#handlers.writable();
    } else {
      this.abort();
      this.#handlers.lost({ ...loss, reason: `POST: ${loss.reason}` });
    }
  }

  async #post(packet: Uint8Array<ArrayBuffer>): Promise<Loss | null> {
    const attempt = new AbortController();
    const stop = () => attempt.abort();
    const cancel = this.#env.timer(POST_MS, stop);
    this.#abort.signal.addEventListener('abort', stop);
    try {
      const response = await this.#fetch(packet, { signal: attempt.signal });
      if (response.ok) {
        // An unread body keeps the connection busy.
        await response.body?.cancel();
        return null;
      }
      return await lossOfResponse(response);
    } catch (error) {
      return { reason: messageOf(error) };
    } finally {
      cancel();
      this.#abort.signal.removeEventListener('abort', stop);
    }
  }

  #fetch(packet: Uint8Array<ArrayBuffer>, init: RequestInit): Promise<Response> {
    const { fetch } = this.#env;
    if (!fetch) {
      return Promise.reject(new Error('no fetch'));
    }
    return fetch(this.#url, {
      method: 'POST',
      body: packet,
      headers: { ...this.#headers, 'Content-Type': 'application/octet-stream' },
      cache: 'no-store',
      ...init,
    });
  }

  get #aborted(): boolean {
    return this.#abort.signal.aborted;
  }
}

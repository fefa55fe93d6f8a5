// The way up of sse and poll: `POST {base}/send`, one at a time, so that packets arrive in order (SPEC section 7.5).

import type { Environment } from '../environment.js';
import { messageOf } from '../errors.js';
import {
  FAST_POST_MS,
  FIRST_POST_BYTES,
  POST_BYTES,
  POST_MS,
  POST_RETRY_MS,
  SLOW_POST_MS,
} from '../limits.js';
import { lossOfResponse } from './carrier.js';
import type { LinkHandlers, Loss } from './link.js';

/** What an uplink reports. */
export type UplinkHandlers = Pick<LinkHandlers, 'heard' | 'writable' | 'failing'>;

/**
 * Sends packets of one link, each within a time: hung requests would use up the browser's connections.
 * It holds one packet at most: while it is under way, the session keeps the rest.
 */
export class Uplink {
  readonly #env: Environment;
  readonly #url: string;
  readonly #headers: Record<string, string>;
  readonly #handlers: UplinkHandlers;
  readonly #abort = new AbortController();
  /** What a POST may hold: as much as the path takes in good time, so that nothing new waits long behind it. */
  #bytes = FIRST_POST_BYTES;
  /** A packet is missing on the server: nothing may follow it. */
  #failed = false;
  /** What is under way. */
  #sending: Promise<void> | null = null;

  constructor(env: Environment, base: string, headers: Record<string, string>, handlers: UplinkHandlers) {
    this.#env = env;
    this.#url = `${base}/send`;
    this.#headers = headers;
    this.#handlers = handlers;
  }

  room(): number {
    return this.#sending || this.#failed ? 0 : this.#bytes;
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
    const { signal } = this.#abort;
    const began = this.#env.now();
    let late = false;
    const cancel = this.#env.timer(POST_MS, () => {
      late = true;
      this.abort();
    });
    let loss = await this.#post(packet, { signal });
    // No answer, or a proxy's. The server drops what it has had already, so the same bytes may go out again.
    if (loss && !loss.close && (loss.status ?? 500) >= 500 && !signal.aborted) {
      await new Promise<void>((resolve) => this.#env.timer(POST_RETRY_MS, resolve));
      loss = await this.#post(packet, { signal });
    }
    cancel();
    const tookMs = this.#env.now() - began;
    if (tookMs > SLOW_POST_MS) {
      this.#bytes = Math.max(this.#bytes / 2, FIRST_POST_BYTES);
    } else if (tookMs < FAST_POST_MS && packet.length > this.#bytes / 2) {
      this.#bytes = Math.min(this.#bytes * 2, POST_BYTES);
    }
    this.#sending = null;
    if (loss && (late || !signal.aborted)) {
      this.#failed = true;
      this.#handlers.failing({ ...loss, reason: `POST: ${late ? 'no answer' : loss.reason}` });
    } else if (!signal.aborted) {
      this.#handlers.heard(0);
      this.#handlers.writable();
    }
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

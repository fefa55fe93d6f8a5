// A link over long-polling: one GET is always held, packets go up by POST (SPEC section 7.4).

import type { Environment } from '../environment.js';
import { messageOf } from '../errors.js';
import { POLL_MS } from '../limits.js';
import type { Close } from '../protocol/close.js';
import { lossOfResponse } from './carrier.js';
import type { Link, LinkHandlers, Loss, TransportKind } from './link.js';
import { linkHeaders, type Opening, openingHeaders } from './opening.js';
import { deliver } from './packets.js';
import { Uplink } from './uplink.js';

export const poll: TransportKind = {
  name: 'poll',
  missing: (env) => (env.fetch ? null : 'this browser has no fetch'),
  open: (env, opening, handlers) => new PollLink(env, opening, handlers),
};

class PollLink implements Link {
  readonly #env: Environment;
  readonly #opening: Opening;
  readonly #handlers: LinkHandlers;
  readonly #abort = new AbortController();
  #uplink: Uplink | null = null;
  #headers: Record<string, string>;

  constructor(env: Environment, opening: Opening, handlers: LinkHandlers) {
    this.#env = env;
    this.#opening = opening;
    this.#handlers = handlers;
    this.#headers = openingHeaders(opening);
    void this.#run();
  }

  room(): number {
    return this.#uplink?.room() ?? 0;
  }

  send(packet: Uint8Array<ArrayBuffer>): void {
    this.#uplink?.send(packet);
  }

  nativeDatagram(): number {
    return 0;
  }

  datagramRoom(): boolean {
    return false;
  }

  sendDatagram(): void {}

  async close(_close: Close): Promise<void> {
    await this.#uplink?.flushed();
    this.abort();
  }

  leave(packet: Uint8Array<ArrayBuffer>): void {
    this.#uplink?.leave(packet);
    this.abort();
  }

  abort(): void {
    this.#abort.abort();
    this.#uplink?.abort();
  }

  async #run(): Promise<void> {
    while (!this.#abort.signal.aborted) {
      const loss = await this.#ask();
      if (loss !== null && !this.#abort.signal.aborted) {
        this.abort();
        this.#handlers.lost(loss);
      }
    }
  }

  /** One GET, and what it brought; the link is lost when that is a Loss. */
  async #ask(): Promise<Loss | null> {
    const cancel = this.#env.timer(POLL_MS, () => {
      this.abort();
      this.#handlers.lost({ reason: 'GET: no answer, not even an empty one' });
    });
    try {
      const response = await this.#env.fetch?.(`${this.#opening.base}/poll`, {
        headers: this.#headers,
        cache: 'no-store',
        signal: this.#abort.signal,
      });
      if (response?.status === 204) {
        this.#handlers.heard(0);
        return null;
      }
      if (response?.status !== 200) {
        return response ? await lossOfResponse(response) : { reason: 'no fetch' };
      }
      const type = response.headers.get('Content-Type');
      if (type !== 'application/octet-stream') {
        return { reason: `GET: the answer is ${type}, not of a Throughline server` };
      }
      const packet = new Uint8Array(await response.arrayBuffer());
      if (!this.#abort.signal.aborted) {
        this.#receive(packet);
      }
      return null;
    } catch (error) {
      return { reason: `GET: ${messageOf(error)}` };
    } finally {
      cancel();
    }
  }

  #receive(packet: Uint8Array): void {
    this.#handlers.heard(packet.length);
    deliver(packet, this.#handlers, (frame) => {
      if (frame.type === 'welcome' && this.#uplink === null) {
        const { session, key, link } = frame.welcome;
        this.#headers = linkHeaders(session, key, link);
        this.#uplink = new Uplink(this.#env, this.#opening.base, this.#headers, this.#handlers);
      }
    });
  }
}

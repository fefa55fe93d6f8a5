// What sse and poll share: an answer comes down by `fetch`, packets go up by POST.

import type { Environment } from '../environment.js';
import { messageOf } from '../errors.js';
import { CLOSE_MS } from '../limits.js';
import { lossOfResponse } from './carrier.js';
import type { Link, LinkHandlers, Loss } from './link.js';
import { linkHeaders, type Opening, openingHeaders } from './opening.js';
import { deliver } from './packets.js';
import { Uplink } from './uplink.js';

/** What a subclass adds is `ask`: one GET, and what it brought. */
export abstract class HttpLink implements Link {
  protected readonly env: Environment;
  protected readonly handlers: LinkHandlers;
  readonly #base: string;
  readonly #abort = new AbortController();
  #headers: Record<string, string>;
  #uplink: Uplink | null = null;
  /** CLOSE was sent or received: who asks on then is answered 410. */
  #closing = false;

  constructor(env: Environment, opening: Opening, handlers: LinkHandlers) {
    this.env = env;
    this.handlers = handlers;
    this.#base = opening.base;
    this.#headers = openingHeaders(opening);
    void this.#run();
  }

  /** Asks once, and hands on what comes. A Loss ends the link, `null` asks again. May throw. */
  protected abstract ask(): Promise<Loss | null>;

  room(): number {
    return this.#uplink?.room() ?? 0;
  }

  send(packet: Uint8Array<ArrayBuffer>): void {
    this.#uplink?.send(packet);
  }

  async close(): Promise<void> {
    this.#closing = true;
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

  protected get over(): boolean {
    return this.#abort.signal.aborted;
  }

  protected lose(loss: Loss): void {
    if (!this.over) {
      this.abort();
      this.handlers.lost(loss);
    }
  }

  /** GET `{base}{path}`. Anything but 200 of `type`, or 204, is a Loss. */
  protected async get(path: string, type: string): Promise<Response | Loss> {
    const response = await this.env.fetch(this.#base + path, {
      headers: this.#headers,
      cache: 'no-store',
      signal: this.#abort.signal,
    });
    const { status, headers } = response;
    if (status === 200 && !headers.get('Content-Type')?.startsWith(type)) {
      return { reason: `the answer is ${headers.get('Content-Type')}` };
    }
    return status === 200 || status === 204 ? response : lossOfResponse(response);
  }

  protected receive(packet: Uint8Array): void {
    this.handlers.heard(packet.length);
    deliver(packet, this.handlers, (frame) => {
      if (frame.type === 'welcome' && this.#uplink === null) {
        const { session, key, link } = frame.welcome;
        this.#headers = linkHeaders({ session, key, link });
        this.#uplink = new Uplink(this.env, this.#base, this.#headers, {
          heard: (bytes) => this.handlers.heard(bytes),
          writable: () => this.handlers.writable(),
          failing: (loss) => this.#deafen(loss),
        });
      }
    });
  }

  /**
   * Nothing can be sent any more: a packet is missing. What comes down is read on until another link has taken
   * over, for a moment: 410 may have overtaken CLOSE, and the messages before it.
   */
  #deafen(loss: Loss): void {
    if (!this.over) {
      this.handlers.failing(loss);
      this.env.timer(CLOSE_MS, () => this.lose(loss));
    }
  }

  async #run(): Promise<void> {
    while (!this.over && !this.#closing) {
      try {
        const loss = await this.ask();
        if (loss !== null) {
          this.lose(loss);
        }
      } catch (error) {
        this.lose({ reason: messageOf(error) });
      }
    }
  }
}

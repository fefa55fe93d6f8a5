// A link over server-sent events: an answer to `fetch` that never ends, packets go up by POST (SPEC section 7.3).
// Not EventSource: that one can send no headers, reconnects behind our back and hides the status.

import type { Environment } from '../environment.js';
import { messageOf } from '../errors.js';
import { MAX_SSE_LINE } from '../limits.js';
import { fromBase64 } from '../protocol/base64.js';
import { type Close, ProtocolError } from '../protocol/close.js';
import { lossOfResponse } from './carrier.js';
import { EventParser, EventStreamError } from './events.js';
import type { Link, LinkHandlers, Loss, TransportKind } from './link.js';
import { linkHeaders, type Opening, openingHeaders } from './opening.js';
import { deliver, guarded } from './packets.js';
import { Uplink } from './uplink.js';

export const sse: TransportKind = {
  name: 'sse',
  missing: (env) =>
    env.fetch === undefined
      ? 'this browser has no fetch'
      : env.hasStreams
        ? null
        : 'this browser cannot read an answer while it arrives',
  open: (env, opening, handlers) => new SseLink(env, opening, handlers),
};

class SseLink implements Link {
  readonly #env: Environment;
  readonly #opening: Opening;
  readonly #handlers: LinkHandlers;
  readonly #abort = new AbortController();
  #uplink: Uplink | null = null;

  constructor(env: Environment, opening: Opening, handlers: LinkHandlers) {
    this.#env = env;
    this.#opening = opening;
    this.#handlers = handlers;
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
    const loss = await this.#listen();
    if (!this.#abort.signal.aborted) {
      this.abort();
      this.#handlers.lost(loss);
    }
  }

  async #listen(): Promise<Loss> {
    try {
      const response = await this.#env.fetch?.(`${this.#opening.base}/sse`, {
        headers: { ...openingHeaders(this.#opening), Accept: 'text/event-stream' },
        cache: 'no-store',
        signal: this.#abort.signal,
      });
      if (response?.status !== 200) {
        return response ? await lossOfResponse(response) : { reason: 'no fetch' };
      }
      const type = response.headers.get('Content-Type');
      if (!type?.startsWith('text/event-stream') || response.body === null) {
        return { reason: `the answer is ${type}, not of a Throughline server` };
      }
      const parser = new EventParser(MAX_SSE_LINE, (data) => this.#receive(data));
      const reader = response.body.getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) {
          return { reason: 'the answer ended' };
        }
        this.#handlers.heard(0); // a comment says that the server is alive, too
        guarded(this.#handlers, () => this.#parse(parser, value));
        if (this.#abort.signal.aborted) {
          return { reason: '' };
        }
      }
    } catch (error) {
      return { reason: messageOf(error) };
    }
  }

  #parse(parser: EventParser, bytes: Uint8Array): void {
    try {
      parser.push(bytes);
    } catch (error) {
      throw error instanceof EventStreamError ? new ProtocolError('FRAME_TOO_LARGE', error.message) : error;
    }
  }

  #receive(data: string[]): void {
    if (this.#abort.signal.aborted) {
      return;
    }
    const packet = decode(data);
    this.#handlers.heard(packet.length);
    deliver(packet, this.#handlers, (frame) => {
      if (frame.type === 'welcome' && this.#uplink === null) {
        const { session, key, link } = frame.welcome;
        this.#uplink = new Uplink(
          this.#env,
          this.#opening.base,
          linkHeaders(session, key, link),
          this.#handlers,
        );
      }
    });
  }
}

/** Each line is the base64 of a piece of its own, padding included. */
function decode(lines: string[]): Uint8Array {
  let pieces: Uint8Array[];
  try {
    pieces = lines.map(fromBase64);
  } catch {
    throw new ProtocolError('MALFORMED_FRAME', 'an event that is not base64');
  }
  const [first, ...others] = pieces;
  if (first !== undefined && others.length === 0) {
    return first;
  }
  const packet = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    packet.set(piece, at);
    at += piece.length;
  }
  return packet;
}

// A link over a WebSocket: every binary message is one packet (SPEC section 7.2).

import type { Cancel, Environment } from '../environment.js';
import { messageOf } from '../errors.js';
import { LINK_BUFFER_BYTES, WEBSOCKET_PACKET_BYTES } from '../limits.js';
import { type Close, protocolClose, truncateUtf8 } from '../protocol/close.js';
import { carrierCode, closeOfCarrier } from './carrier.js';
import type { Link, LinkHandlers, TransportKind } from './link.js';
import { type Opening, openingProtocols } from './opening.js';
import { deliver } from './packets.js';

/** How often a full buffer is looked at: a WebSocket has no event for it. */
const DRAIN_POLL_MS = 5;
/** Longest reason of a close frame (RFC 6455, section 5.5.1). */
const MAX_CLOSE_REASON = 123;

export const websocket: TransportKind = {
  name: 'websocket',
  missing: (env) => (env.WebSocket ? null : 'not in this browser'),
  open: (env, opening, handlers) => new WebSocketLink(env, opening, handlers),
};

class WebSocketLink implements Link {
  readonly #env: Environment;
  readonly #handlers: LinkHandlers;
  readonly #closed: Promise<void>;
  #socket: WebSocket | undefined;
  #draining: Cancel | undefined;
  #over = false;

  constructor(env: Environment, opening: Opening, handlers: LinkHandlers) {
    this.#env = env;
    this.#handlers = handlers;
    this.#closed = this.#run(opening).catch((error) => this.#lost(messageOf(error)));
  }

  room(): number {
    const room = this.#socket?.readyState === 1 ? LINK_BUFFER_BYTES - this.#socket.bufferedAmount : 0;
    if (room >= LINK_BUFFER_BYTES / 4) {
      return Math.min(room, WEBSOCKET_PACKET_BYTES);
    }
    this.#draining ??= this.#env.timer(DRAIN_POLL_MS, () => this.#look());
    return 0;
  }

  send(packet: Uint8Array<ArrayBuffer>): void {
    this.#socket?.send(packet);
  }

  close(close: Close): Promise<void> {
    // The socket sends what it holds before its close frame.
    this.#end(carrierCode(close, 1000), truncateUtf8(close.reason, MAX_CLOSE_REASON));
    return this.#closed;
  }

  leave(packet: Uint8Array<ArrayBuffer>, close: Close): void {
    this.send(packet);
    void this.close(close);
  }

  abort(): void {
    // No code at all: to the server the link is lost, and the session not ended.
    this.#end();
  }

  /** Resolves when the socket is closed. */
  async #run(opening: Opening): Promise<void> {
    const url = `${opening.base.replace('http', 'ws')}/websocket`;
    const WebSocket = this.#env.WebSocket as typeof globalThis.WebSocket;
    // Throws where a content security policy forbids it, for example.
    const socket = new WebSocket(url, openingProtocols(opening));
    this.#socket = socket;
    socket.binaryType = 'arraybuffer';
    socket.onmessage = ({ data }: MessageEvent<string | ArrayBuffer>) => {
      if (typeof data === 'string') {
        this.#handlers.violation(protocolClose('PROTOCOL_VIOLATION', 'a text message'));
        return;
      }
      this.#handlers.heard(data.byteLength);
      deliver(new Uint8Array(data), this.#handlers);
      // A hidden tab's timers come once a second; what arrives is a better moment to look.
      if (this.#draining) {
        this.#look();
      }
    };
    const { code, reason } = await new Promise<CloseEvent>((resolve) => {
      socket.onclose = resolve;
    });
    this.#lost(`closed with ${code}`, closeOfCarrier(code, reason));
  }

  #look(): void {
    this.#draining?.();
    this.#draining = undefined;
    this.#handlers.writable();
  }

  #lost(reason: string, close?: Close): void {
    if (!this.#over) {
      this.#end();
      this.#handlers.lost({ reason, ...(close && { close }) });
    }
  }

  #end(code?: number, reason?: string): void {
    this.#over = true;
    this.#draining?.();
    this.#socket?.close(code, reason);
  }
}

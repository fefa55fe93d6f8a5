// A link over a WebSocket: every binary message is one packet (SPEC section 7.2).

import type { Environment } from '../environment.js';
import { messageOf } from '../errors.js';
import { LINK_BUFFER_BYTES } from '../limits.js';
import { type Close, ProtocolError, truncateUtf8 } from '../protocol/close.js';
import { carrierCode, closeOfCarrier } from './carrier.js';
import type { Link, LinkHandlers, TransportKind } from './link.js';
import { type Opening, openingProtocols } from './opening.js';
import { deliver, guarded } from './packets.js';

/** How often a full buffer is looked at: a WebSocket has no event for it. */
const DRAIN_POLL_MS = 5;
/** Longest reason of a close frame (RFC 6455, section 5.5.1). */
const MAX_CLOSE_REASON = 123;

export const websocket: TransportKind = {
  name: 'websocket',
  missing: (env) => (env.WebSocket ? null : 'no WebSocket in this browser'),
  open: (env, opening, handlers) => new WebSocketLink(env, opening, handlers),
};

class WebSocketLink implements Link {
  readonly #env: Environment;
  readonly #handlers: LinkHandlers;
  readonly #closed: Promise<void>;
  #socket: WebSocket | null = null;
  #draining: (() => void) | null = null;
  #over = false;

  constructor(env: Environment, opening: Opening, handlers: LinkHandlers) {
    this.#env = env;
    this.#handlers = handlers;
    this.#closed = new Promise((resolve) => {
      try {
        this.#connect(opening, resolve);
      } catch (error) {
        // A content security policy, for example. The caller does not have the link yet.
        queueMicrotask(() => handlers.lost({ reason: messageOf(error) }));
        resolve();
      }
    });
  }

  room(): number {
    const socket = this.#socket;
    if (socket?.readyState !== 1) {
      return 0;
    }
    const room = LINK_BUFFER_BYTES - socket.bufferedAmount;
    if (room >= LINK_BUFFER_BYTES / 4) {
      return room;
    }
    this.#draining ??= this.#env.timer(DRAIN_POLL_MS, () => {
      this.#draining = null;
      this.#handlers.writable();
    });
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

  #connect(opening: Opening, closed: () => void): void {
    const { WebSocket } = this.#env;
    if (!WebSocket) {
      throw new Error('no WebSocket');
    }
    const socket = new WebSocket(
      opening.base.replace(/^http/, 'ws') + '/websocket',
      openingProtocols(opening),
    );
    this.#socket = socket;
    socket.binaryType = 'arraybuffer';
    let opened = false;
    socket.onopen = () => {
      opened = true;
    };
    socket.onmessage = ({ data }: MessageEvent<unknown>) => {
      if (data instanceof ArrayBuffer) {
        this.#handlers.heard(data.byteLength);
        deliver(new Uint8Array(data), this.#handlers);
        // A hidden tab's timers come once a second; what arrives is a better moment to look.
        if (this.#draining !== null && !this.#over) {
          this.#handlers.writable();
        }
      } else {
        guarded(this.#handlers, () => {
          throw new ProtocolError('PROTOCOL_VIOLATION', 'a text message on the websocket');
        });
      }
    };
    socket.onclose = ({ code, reason }) => {
      closed();
      this.#draining?.();
      if (!this.#over) {
        this.#over = true;
        const close = closeOfCarrier(code, reason);
        const words = opened ? `the websocket closed with ${code}` : `closed with ${code} before it opened`;
        this.#handlers.lost({ reason: words, ...(close && { close }) });
      }
    };
  }

  #end(code?: number, reason?: string): void {
    this.#over = true;
    this.#draining?.();
    this.#socket?.close(code, reason);
  }
}

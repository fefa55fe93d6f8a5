// A link over server-sent events: an answer to `fetch` that never ends (SPEC section 7.3).
// Not EventSource: that one can send no headers, reconnects behind our back and hides the status.

import { MAX_SSE_LINE } from '../limits.js';
import { fromBase64 } from '../protocol/base64.js';
import { ProtocolError } from '../protocol/close.js';
import { Writer } from '../protocol/varint.js';
import { EventParser } from './events.js';
import { HttpLink } from './http.js';
import type { Loss, TransportKind } from './link.js';
import { guarded } from './packets.js';

export const sse: TransportKind = {
  name: 'sse',
  missing: (env) => (env.hasFetch && env.hasStreams ? null : 'not in this browser'),
  open: (env, opening, handlers) => new SseLink(env, opening, handlers),
};

class SseLink extends HttpLink {
  protected override async ask(): Promise<Loss | null> {
    const response = await this.get('/sse', 'text/event-stream');
    if (!(response instanceof Response)) {
      return response;
    }
    const parser = new EventParser(MAX_SSE_LINE, (data) => this.over || this.receive(decode(data)));
    const reader = response.body?.getReader();
    for (;;) {
      const { value } = (await reader?.read()) ?? {};
      if (!value) {
        return { reason: 'the stream ended' };
      }
      this.handlers.heard(0); // a comment says that the server is alive, too
      guarded(this.handlers, () => parser.push(value));
    }
  }
}

/** Each line is the base64 of a piece of its own, padding included. */
function decode(lines: string[]): Uint8Array {
  const packet = new Writer(1024);
  try {
    for (const line of lines) {
      packet.bytes(fromBase64(line));
    }
  } catch {
    throw new ProtocolError('MALFORMED_FRAME', 'not base64');
  }
  return packet.finish();
}

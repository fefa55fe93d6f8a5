// A link over long-polling: one GET is always held, and its answer is one packet (SPEC section 7.4).

import { POLL_MS } from '../limits.js';
import { HttpLink } from './http.js';
import type { Loss, TransportKind } from './link.js';

export const poll: TransportKind = {
  name: 'poll',
  missing: (env) => (env.hasFetch ? null : 'not in this browser'),
  open: (env, opening, handlers) => new PollLink(env, opening, handlers),
};

class PollLink extends HttpLink {
  protected override async ask(): Promise<Loss | null> {
    const cancel = this.env.timer(POLL_MS, () => this.lose({ reason: 'a GET hangs' }));
    try {
      const response = await this.get('/poll', 'application/octet-stream');
      if (!(response instanceof Response)) {
        return response;
      }
      const packet = new Uint8Array(await response.arrayBuffer());
      if (!this.over) {
        this.receive(packet);
      }
      return null;
    } finally {
      cancel();
    }
  }
}

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
  /** The number of the packet that was received last. */
  #received = 0;

  protected override async ask(): Promise<Loss | null> {
    const cancel = this.env.timer(POLL_MS, () => this.lose({ reason: 'a GET hangs' }));
    try {
      const response = await this.get('/poll', 'application/octet-stream');
      if (!(response instanceof Response)) {
        return response;
      }
      const packet = new Uint8Array(await response.arrayBuffer());
      const number = Number(response.headers.get('Throughline-Packet'));
      // Browsers ask again by themselves when a connection breaks, and the answer on it is gone.
      if (number > this.#received + 1) {
        return { reason: 'an answer got lost' };
      }
      this.#received = number || this.#received;
      if (!this.over) {
        this.receive(packet);
      }
      return null;
    } finally {
      cancel();
    }
  }
}

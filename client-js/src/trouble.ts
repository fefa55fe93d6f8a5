// Faults on purpose, for demonstrations and tests: what networks do, at the press of a button.

import type { Environment } from './environment.js';
import type { Links } from './links.js';
import type { Link, Transport, TransportKind } from './transport/link.js';

/** Makes trouble for one session. Nothing is lost by it for good: the session survives, or says what it could not keep. */
export class Trouble {
  readonly #env: Environment;
  readonly #links: Links;
  readonly #blockedUntil = new Map<Transport, number>();
  /** Cuts the current link as a dead network would: it ends without a word, and the session resumes over another. */
  readonly cut: () => void;

  /** @internal */
  constructor(env: Environment, links: Links, cut: () => void) {
    this.#env = env;
    this.#links = links;
    this.cut = cut;
  }

  /**
   * Makes the current link a black hole for `ms` milliseconds: nothing passes in either direction, and nobody
   * is told. Afterwards it goes on, with what was held back, as a TCP connection would.
   */
  freeze(ms: number): void {
    this.#links.freeze(ms);
  }

  /** Makes `transport` a black hole for `ms` milliseconds: the current link, if it is one, and every new one. */
  block(transport: Transport, ms: number): void {
    this.#blockedUntil.set(transport, this.#env.now() + ms);
    if (this.#links.current?.transport === transport) {
      this.#links.freeze(ms);
    }
  }

  /** @internal The same transport, for as long as it is not blocked. */
  around(kind: TransportKind): TransportKind {
    return {
      name: kind.name,
      missing: (env) => kind.missing(env),
      open: (env, opening, handlers) =>
        env.now() < (this.#blockedUntil.get(kind.name) ?? 0) ? HOLE : kind.open(env, opening, handlers),
    };
  }
}

/** A link that never answers. */
const HOLE: Link = {
  room: () => 0,
  send: () => {},
  close: () => Promise.resolve(),
  leave: () => {},
  abort: () => {},
};

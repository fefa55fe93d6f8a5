import { connect } from '/throughline.js';
import type { Transport } from './transports.js';

export type Session = ReturnType<typeof connect>;
export type Subscription = ReturnType<Session['subscribe']>;

export interface ConnectionHandlers {
  /** There is another session now, which is not open yet. Subscriptions of the one before end with it. */
  opening(session: Session): void;
  text(text: string): void;
  datagram(bytes: Uint8Array): void;
  /** A session begins, or begins anew because the server could not resume it: say who you are (again). */
  fresh(): void;
  moved(from: string | null, to: string | null, reason: string): void;
  gap(): void;
  ended(reason: string): void;
}

/** The page's one session, and how it is replaced by another when somebody forces a transport. */
export class Connection {
  session: Session;
  allowed: Transport[] | null;
  #handlers: ConnectionHandlers;

  constructor(allowed: Transport[] | null, handlers: ConnectionHandlers) {
    this.#handlers = handlers;
    this.allowed = allowed;
    this.session = this.#open();
  }

  /** Ends this session and opens another, with these transports, or with all. */
  reopen(allowed: Transport[] | null): void {
    const old = this.session;
    this.allowed = allowed;
    this.session = this.#open();
    // Whether it ends well does not matter any more.
    Promise.resolve(old.close(0, 'another transport was chosen')).catch(() => undefined);
  }

  /** False when there is no link to send it on now: the next input says it all again. */
  sendDatagram(bytes: Uint8Array): boolean {
    if (this.session.state !== 'open') return false;
    try {
      this.session.sendDatagram(bytes, { key: 0 });
      return true;
    } catch {
      return false;
    }
  }

  /** False when it was not taken: too much waits already, or the session has ended, as the banner says. */
  send(value: object): boolean {
    try {
      this.session.send(JSON.stringify(value));
      return true;
    } catch {
      return false;
    }
  }

  #open(): Session {
    const session = connect('/rt', this.allowed ? { transports: this.allowed } : {});
    const handlers = this.#handlers;
    handlers.opening(session);
    /** What an old session still says is of no interest. */
    const isCurrent = (): boolean => this.session === session;
    session.on('message', (data: string | Uint8Array) => {
      if (isCurrent() && typeof data === 'string') handlers.text(data);
    });
    session.on('datagram', (bytes: Uint8Array) => {
      if (isCurrent()) handlers.datagram(bytes);
    });
    session.on('transport', ({ from, to, reason }) => {
      if (isCurrent()) handlers.moved(from, to, reason);
    });
    session.on('gap', () => {
      if (!isCurrent()) return;
      handlers.gap();
      handlers.fresh();
    });
    session.ready
      .then(() => {
        if (isCurrent()) handlers.fresh();
      })
      .catch((error: unknown) => {
        if (isCurrent()) handlers.ended(error instanceof Error ? error.message : String(error));
      });
    Promise.resolve(session.closed)
      .then((closed) => {
        if (isCurrent()) handlers.ended(closed.reason || 'the session has ended');
      })
      .catch(() => undefined); // told by `ready`
    return session;
  }
}

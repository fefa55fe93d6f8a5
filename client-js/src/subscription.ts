// One channel that a session listens to: what the application sees of it, and what it is told.

import { Emitter } from './emitter.js';
import type { ErrorCode, ThroughlineError } from './errors.js';
import {
  type ChannelMessage,
  type Position,
  PUBLICATION,
  type Publication,
  SETTLED,
  SKIPPED,
  SNAPSHOT,
  VALUE,
  type Value,
} from './protocol/channels.js';
import type { Message } from './protocol/message.js';
import { type Change, Values } from './values.js';

/** Why a subscription ended. */
export interface SubscriptionEnd {
  /** A code of channels; `null` when the session ended. */
  readonly code: number | null;
  /** The code's name; `SESSION_CLOSED` when the session ended. */
  readonly name: ErrorCode;
  readonly reason: string;
}

/** The events of a subscription, and what their listeners get. */
export interface SubscriptionEvents {
  publication: Publication;
  /**
   * The server has the subscription; said again when a new session took the place of an old one. `recovered`: whether
   * everything after the position that was asked for follows; `null` when none was, and in a channel of state.
   */
  subscribed: Position & { readonly recovered: boolean | null };
  /** This session was too slow: the publications up to `offset` are lost to it. */
  skipped: { readonly offset: number };
  /** In a channel of state: a key has a new value, or was removed, when `data` is `undefined`. `values` has it already. */
  value: Change;
  /**
   * In a channel of state: `values` is what the channel holds. Said once all of it has come, after each `subscribed`, and
   * again after each time that the server could not tell this session everything and had to begin anew.
   */
  settled: { readonly offset: number };
  /** The server refused or ended it, or the session ended. Not said of `unsubscribe`. */
  end: SubscriptionEnd;
}

/** One channel that a session listens to. It goes on by itself in the session that takes the place of this one. */
export interface Subscription {
  readonly channel: string;
  readonly state: 'subscribing' | 'subscribed' | 'ended';
  /**
   * A *log* has publications, in order and without a gap. A channel of *state* has the newest value of each key, and
   * what is replaced by something newer may never be seen. `null` until the server has said which it is.
   */
  readonly kind: 'log' | 'state' | null;
  /** That of the newest publication that was handed on: what `since` takes. `null` until there is one to speak of. */
  readonly position: Position | null;
  /** What a channel of state holds, by key; what it held last, while the subscription is not `subscribed`. */
  readonly values: ReadonlyMap<string, Message>;
  /**
   * Resolves when the server has the subscription for the first time. Rejects with a ThroughlineError when it refuses;
   * its code is the server's.
   */
  readonly ready: Promise<void>;
  /** Calls `listener` at each event `name`. Returns a function that ends it. Nothing waits for listeners. */
  on<Name extends keyof SubscriptionEvents>(
    name: Name,
    listener: (payload: SubscriptionEvents[Name]) => void,
  ): () => void;
  /** Ends it: nothing is handed on any more. Resolves, and never rejects, when the server knows. */
  unsubscribe(): Promise<void>;
}

/** What a server says of a channel once it is subscribed. */
type Said = Extract<
  ChannelMessage,
  { readonly op: typeof PUBLICATION | typeof SKIPPED | typeof SNAPSHOT | typeof VALUE | typeof SETTLED }
>;

/** A subscription as `Channels` has it. */
export class Room extends Emitter<SubscriptionEvents> implements Subscription {
  state: Subscription['state'] = 'subscribing';
  kind: Subscription['kind'] = null;
  /** What the server calls it. */
  number = -1;
  /** The server has subscribed the session by itself. */
  isAdded = false;
  /** What `unsubscribe` returns. */
  over: Promise<void> | undefined;
  readonly ready: Promise<void>;
  resolve!: () => void;
  reject!: (error: ThroughlineError) => void;
  readonly #values = new Values();
  readonly values: ReadonlyMap<string, Message> = this.#values.held;

  constructor(
    readonly channel: string,
    readonly about: string | undefined,
    public position: Position | null,
    readonly unsubscribe: () => Promise<void>,
  ) {
    super();
    this.ready = new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
    // Who listens only to 'end' must not see an unhandled rejection of this one.
    this.ready.catch(() => {});
  }

  /** The server has the subscription. */
  begin(position: Position, state: boolean, recovered: boolean | null): void {
    this.position = position;
    this.kind = state ? 'state' : 'log';
    this.state = 'subscribed';
    this.#values.begin();
    this.resolve();
    this.emit('subscribed', { ...position, recovered: state ? null : recovered });
  }

  /** The server said something of it. Returns what is wrong with that. */
  take(message: Said): string | undefined {
    const { epoch, offset: last } = this.position ?? { epoch: 0, offset: 0 };
    if ((message.op === PUBLICATION || message.op === SKIPPED) !== (this.kind === 'log')) {
      return `op ${message.op} in a channel of kind ${this.kind}`;
    }
    switch (message.op) {
      case SNAPSHOT:
        this.#values.doubt();
        return;
      case VALUE:
        this.change(message);
        return;
      case SETTLED:
        this.#reach(message.offset);
        for (const change of this.#values.settle(message.offset)) {
          this.#tell('value', change);
        }
        this.#tell('settled', { offset: message.offset });
        return;
    }
    const { offset } = message;
    const isPublication = message.op === PUBLICATION;
    if (isPublication ? offset !== last + 1 : offset <= last) {
      return `offset ${offset} after ${last}`;
    }
    this.position = { epoch, offset };
    if (isPublication) {
      this.emit('publication', { data: message.data, offset });
    } else {
      this.emit('skipped', { offset });
    }
    return;
  }

  /** A value of a channel of state came, in a message or as a datagram. */
  change(value: Value): void {
    this.#reach(value.offset);
    const change = this.#values.take(value);
    if (change) {
      this.emit('value', change);
    }
  }

  /** Values do not come in the order of their offsets. */
  #reach(offset: number): void {
    if (this.position && offset > this.position.offset) {
      this.position = { epoch: this.position.epoch, offset };
    }
  }

  /** Unless a listener has just ended it. */
  #tell<Name extends keyof SubscriptionEvents>(name: Name, payload: SubscriptionEvents[Name]): void {
    if (this.state === 'subscribed') {
      this.emit(name, payload);
    }
  }
}

// Who is subscribed to a channel (SPEC section 10.1): the members, kept as the channel `$presence:…` says.

import { Emitter } from './emitter.js';
import type { Message } from './protocol/message.js';
import type { Room, Subscription, SubscriptionEvents } from './subscription.js';
import type { Change } from './values.js';

/** One subscription of a channel, by whomever. */
export interface Member {
  /** Stands for this subscription, and says nothing else. */
  readonly id: string;
  /** Who it is, as the server's application has it; `null` for somebody it does not know. */
  readonly user: string | null;
  /** What the server's application tells of the user, or `null`. */
  readonly info: unknown;
  /** What was said in `subscribe`, or `null`. */
  readonly about: string | null;
}

/** The events of a presence, and what their listeners get. */
export interface PresenceEvents {
  /** Somebody is there, at the beginning those who were there before. `members` has them already. */
  join: Member;
  /** What is known of a member has changed. */
  update: Member;
  leave: Member;
  /** `members` is everybody: said after each `subscribed`. */
  settled: undefined;
  /** As that of a subscription. */
  end: SubscriptionEvents['end'];
}

/** Who is subscribed to a channel. It goes on by itself in the session that takes the place of this one. */
export interface Presence {
  /** Whose members they are. */
  readonly channel: string;
  readonly state: Subscription['state'];
  /** By their ids. */
  readonly members: ReadonlyMap<string, Member>;
  /** As that of a subscription. */
  readonly ready: Promise<void>;
  /** Calls `listener` at each event `name`. Returns a function that ends it. */
  on<Name extends keyof PresenceEvents>(
    name: Name,
    listener: (payload: PresenceEvents[Name]) => void,
  ): () => void;
  /** Ends it. Resolves, and never rejects, when the server knows. */
  unsubscribe(): Promise<void>;
}

/** What comes before a channel's name in that of its presence. */
export const PRESENCE = '$presence:';

export class RoomPresence extends Emitter<PresenceEvents> implements Presence {
  readonly members = new Map<string, Member>();
  readonly #room: Room;

  constructor(
    readonly channel: string,
    room: Room,
  ) {
    super();
    this.#room = room;
    room.on('value', (change) => this.#take(change));
    room.on('settled', () => this.emit('settled', undefined));
    room.on('end', (end) => this.emit('end', end));
  }

  get state(): Subscription['state'] {
    return this.#room.state;
  }

  get ready(): Promise<void> {
    return this.#room.ready;
  }

  unsubscribe(): Promise<void> {
    return this.#room.unsubscribe();
  }

  #take({ key, data }: Change): void {
    const { members } = this;
    const before = members.get(key);
    if (data !== undefined) {
      const member = memberOf(key, data);
      members.set(key, member);
      this.emit(before ? 'update' : 'join', member);
    } else if (before) {
      members.delete(key);
      this.emit('leave', before);
    }
  }
}

function memberOf(id: string, data: Message): Member {
  let said: Partial<Member> | null = null;
  try {
    said = JSON.parse(String(data));
  } catch {
    // It is a member all the same.
  }
  const { user = null, info = null, about = null } = said ?? {};
  return { id, user, info, about };
}
